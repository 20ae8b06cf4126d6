"""The reference libraries of Standard Webhooks verify what a real relay sends."""

import functools
import json

import pytest
from checked.tool import HERE, Tool, node_js, run
from end_to_end.kit.alerts import alert, ground, revision_of
from end_to_end.kit.webhooks import SECRET, RelayProcess

from client_demo.webhook_receiver import WebhookReceiver

TOOL = Tool("standardwebhooks", "signatures of the relay", pypi=("standardwebhooks",))
NPM = Tool("standardwebhooks of npm", "the same signatures", npm=("standardwebhooks",))
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
IN_JAVASCRIPT = """\
import {readFileSync} from 'node:fs'
import {Webhook} from 'standardwebhooks'
const {secret, webhooks} = JSON.parse(readFileSync(0, 'utf-8'))
const outcome = ({headers, body}) => {
  try { return new Webhook(secret).verify(body, headers).type } catch { return null }
}
console.log(JSON.stringify(webhooks.map(outcome)))
"""


@pytest.fixture(scope="module")
def webhooks(node, tmp_path_factory):
    """Return the webhooks about an alert with two revisions and a cancel; one text has characters beyond ASCII."""
    spot, relay = ground(), RelayProcess(node, tmp_path_factory.mktemp("relay"))
    with WebhookReceiver() as receiver:
        relay.targets(spot, siren=receiver)
        with relay:
            body = alert(spot, headline="Feu près de la gare 火事 🔥")
            cancel = functools.partial(node.cancel, body["id"], 3)
            steps = (
                functools.partial(node.publish, body),
                functools.partial(node.revise, revision_of(body, 2)),
                cancel,
            )
            for done, step in enumerate(steps, start=1):
                step()
                # What is superseded or cancelled before it was sent is never sent.
                receiver.until(lambda done=done: len(receiver.taken(body["id"])) == done)
            return receiver.taken(body["id"])


def in_python(secret, headers, body):
    """Return the type of an event that the library of PyPI verifies, otherwise None."""
    from standardwebhooks import Webhook, WebhookVerificationError

    try:
        return Webhook(secret).verify(body, headers)["type"]
    except WebhookVerificationError:
        return None


def in_javascript(secret, webhooks):
    """Return what `in_python` returns, by the library of npm, for each pair of headers and body."""
    given = [{"headers": headers, "body": body.decode()} for headers, body in webhooks]
    text = json.dumps({"secret": secret, "webhooks": given})
    return json.loads(run(node_js(), "--input-type=module", "--eval", IN_JAVASCRIPT, input=text, cwd=HERE))


def changed(headers, body):
    """Return pairs of headers and body in each of which one thing differs from what was signed."""
    stamp = str(int(headers["webhook-timestamp"]) - 1)
    return [
        (headers, body + b" "),
        (headers | {"webhook-id": headers["webhook-id"] + "0"}, body),
        (headers | {"webhook-timestamp": stamp}, body),
        (headers | {"webhook-signature": headers["webhook-signature"].swapcase()}, body),
    ]


def test_reference_library_accepts_each_webhook_and_no_changed_one(webhooks, record_property):
    """The id, the time and the body are signed; another secret verifies nothing (WH9)."""
    kinds = [in_python(SECRET, each.headers, each.body) for each in webhooks]
    assert kinds == ["alert.accepted", "alert.revised", "alert.cancelled"]
    wrong = [pair for each in webhooks for pair in changed(each.headers, each.body)]
    assert [in_python(SECRET, *pair) for pair in wrong] == [None] * len(wrong)
    assert [in_python(OTHER_SECRET, each.headers, each.body) for each in webhooks] == [None] * 3
    record_property("cases", 6 + len(wrong))


def test_javascript_library_accepts_each_webhook_and_no_changed_one(webhooks, record_property):
    """It reads the same headers as the library for Python (WH9)."""
    if missing := NPM.missing():
        pytest.skip(missing)
    right = [(each.headers, each.body) for each in webhooks]
    wrong = [pair for each in right for pair in changed(*each)]
    kinds = ["alert.accepted", "alert.revised", "alert.cancelled"]
    assert in_javascript(SECRET, right + wrong) == kinds + [None] * len(wrong)
    assert in_javascript(OTHER_SECRET, right) == [None] * 3
    record_property("cases", 6 + len(wrong))
