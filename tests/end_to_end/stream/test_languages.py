"""An official warning in several languages, from the issuer's CAP message to the clients (rules LA1 to LA4)."""

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest
from end_to_end.kit import warnings_of_cap
from end_to_end.kit.alerts import Json, ground, place
from end_to_end.kit.earth import Point
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.wire import PATIENCE
from websockets.asyncio.client import ClientConnection, connect

WORDS = ("title", "headline", "description", "instruction", "area_desc")


@pytest.fixture(scope="module", params=[(), ("--workers", "2")], ids=["one process", "workers"])
def node(request: pytest.FixtureRequest, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node that accepts CAP warnings."""
    home = tmp_path_factory.mktemp("warnings")
    with Node(home, keys, *warnings_of_cap.options(home), *request.param) as started:
        yield started


async def join(node: Node, spot: Point, languages: list[str] | None) -> ClientConnection:
    """Connect a client of the `websockets` package with these languages, and return it after its `welcome`."""
    url = f"ws://127.0.0.1:{node.stream_port}/v1/stream"
    phone = await connect(url, subprotocols=["geocast.v1.json"], proxy=None)  # type: ignore[list-item]
    hello = {"type": "hello", "token": node.keys.token(sub="phone", scope=PHONE_SCOPE), "places": [place(spot)]}
    await phone.send(json.dumps(hello | ({} if languages is None else {"languages": languages})))
    welcome = await hear(phone)
    assert (welcome["type"], welcome["languages"]) == ("welcome", [tag.lower() for tag in languages or []])
    return phone


async def hear(phone: ClientConnection) -> Json:
    """Return the next message."""
    return json.loads(await asyncio.wait_for(phone.recv(), PATIENCE))


def heard(node: Node, spot: Point, wanted: list[list[str] | None], *happens: Callable[[], object]) -> list[list[Json]]:
    """Connect one phone for each list of languages, then run each action.

    Return, for each action, the message that each phone received.
    """

    async def main() -> list[list[Json]]:
        phones = [await join(node, spot, languages) for languages in wanted]
        found = []
        for happening in happens:
            await asyncio.to_thread(happening)
            found.append([await hear(phone) for phone in phones])
        for phone in phones:
            await phone.close()
        return found

    return asyncio.run(main())


def assert_outcome(node: Node, message: str, outcome: str) -> None:
    """Send a CAP message to the node, and assert what the node does with it."""
    answer = warnings_of_cap.send(node, message)
    assert (answer.status_code, answer.json()["outcome"]) == (201, outcome)


def is_in(message: Json, language: str) -> bool:
    """Return whether all texts of the alert are in this language."""
    alert = message["alert"]
    return alert["language"] == language and all(f"({language})" in alert[word] for word in WORDS)


def test_each_client_gets_a_warning_in_its_preferred_language(node: Node) -> None:
    """Five clients of the `websockets` package get one warning in up to three languages (rules LA1, LA3).

    All of them get the same cancel, in the words of the issuer (rule LA4).
    """
    spot = ground()
    wanted = [None, ["fr"], ["de", "FR-ca"], ["iu", "en"], ["pt-BR"]]
    identifier = f"w-{spot[0]}-{spot[1]}-{len(node.options)}"
    warning = warnings_of_cap.warning(identifier, spot, "en-CA", "fr-CA", "iu")
    over = warnings_of_cap.cancel(f"{identifier}-over", identifier, "C'est fini.")
    told, called_off = heard(
        *(
            node,
            spot,
            wanted,
            lambda: assert_outcome(node, warning, "published"),
            lambda: assert_outcome(node, over, "cancelled"),
        )
    )
    for message, language in zip(told, ["en-CA", "fr-CA", "fr-CA", "iu", "en-CA"], strict=True):
        assert is_in(message, language)
        assert message["alert"]["languages"] == ["en-CA", "fr-CA", "iu"]
    assert len({json.dumps({k: v for k, v in m["alert"].items() if k not in (*WORDS, "language")}) for m in told}) == 1
    assert told[0]["alert"]["urgency"] == "expected"
    assert told[0]["alert"]["web"] == "https://weather.example/flood?x=1"
    assert {message["reason"] for message in called_off} == {"C'est fini."}
    shown = node.api.get(f"/v1/alerts/{told[0]['alert']['id']}", headers={"Authorization": f"Bearer {node.desk}"})
    assert is_in(shown.json(), "en-CA")


def test_late_joiners_and_clients_that_change_language_get_their_preferred_language(node: Node) -> None:
    """A changed language sends nothing again, but applies to the next revision (rules LA2, R2)."""
    spot = ground()
    identifier = f"v-{spot[0]}-{spot[1]}-{len(node.options)}"
    assert warnings_of_cap.send(node, warnings_of_cap.warning(identifier, spot, "es", "en")).status_code == 201
    with node.join(place(spot), languages=["en"]) as session:
        assert [is_in(message, "en") for message in session.batch] == [True]
        assert session.filter(languages=["es"])["live"] == 0
        update = warnings_of_cap.warning(f"{identifier}-2", spot, "es", "en", severity="Extreme")
        update = update.replace("<msgType>Alert", "<msgType>Update").replace(
            "</scope>", f"</scope><references>{warnings_of_cap.SENDER},{identifier},2026-01-01T00:00:00Z</references>"
        )
        assert warnings_of_cap.send(node, update).json()["outcome"] == "updated"
        message = session.take()
        assert is_in(message, "es")
        assert message["alert"]["revision"] == 2
