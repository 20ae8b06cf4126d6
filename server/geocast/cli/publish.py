"""`geocast publish`, `revise` and `cancel`: a publisher of alerts in a shell (protocol, section 4)."""

from __future__ import annotations

import json
import random
import time
import uuid
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import click

from ..model.errors import ConfigError
from ..model.server_address import KeyUrl
from ..model.times import format_time
from .client_options import SEVERITIES, read_object, token_option, token_source
from .options import Decorator, Number, api_url_option, option, together

PATIENCE_S = 60.0  # how long a request is repeated that gets no answer
ANSWER_S = 15.0
MAX_ANSWER_BYTES = 4 << 20
REFUSED = 1  # the exit status if the node refuses the request, or does not answer
AGAIN = (429, 500, 502, 503, 504)  # statuses after which the request is repeated, as one without an answer is
# The members of a sent alert that `revise` does not send back: the published area, and those that no publisher can send
# (A13, A22). All others are kept, so that no revision loses a member that this command does not know.
NOT_KEPT = (
    *("area", "title", "source", "issued_at"),
    *("instruction", "area_desc", "language", "languages", "urgency", "certainty", "onset_at", "web"),
)

_FILE = click.Path(path_type=Path, dir_okay=False)


class Api:
    """Requests to the API of a node."""

    def __init__(self, url: KeyUrl, token: str) -> None:
        self._url, self._token = url, token

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer to a request, which is repeated if there is none. Exit if it is refused."""
        import http.client

        data = None if body is None else json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        give_up_at, wait_s = time.monotonic() + PATIENCE_S, 0.5
        while True:
            try:
                status, told = self._once(method, path, data)
            except (OSError, http.client.HTTPException) as error:
                status, told = 0, {"title": getattr(error, "strerror", None) or "no HTTP answer"}
            if 200 <= status < 300:
                return told
            is_limit = str(told.get("type", "")).endswith("/rate-limited")
            if status not in (0, *AGAIN) or is_limit or time.monotonic() + wait_s > give_up_at:
                _end("; ".join(_in_words(told)))
            click.echo(f"no answer ({'; '.join(_in_words(told))}); trying again", err=True)
            time.sleep(wait_s * random.uniform(0.5, 1))  # noqa: S311 (only spreads clients)
            wait_s = min(5.0, 2 * wait_s)

    def _once(self, method: str, path: str, data: bytes | None) -> tuple[int, dict[str, Any]]:
        import http.client

        kind = http.client.HTTPSConnection if self._url.tls else http.client.HTTPConnection
        connection = kind(self._url.server.host, self._url.server.port, timeout=ANSWER_S)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request(method, self._url.target.rstrip("/") + path, data, headers)
            response = connection.getresponse()
            text = response.read(MAX_ANSWER_BYTES)
        finally:
            connection.close()
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            told = None
        return response.status, told if isinstance(told, dict) else {"title": f"status {response.status}"}


def _end(why: str) -> NoReturn:
    click.echo(f"geocast: error: {why}", err=True)
    raise click.exceptions.Exit(REFUSED)


def _in_words(told: dict[str, Any]) -> list[str]:
    """Return a problem in words: a text for each error, which begins with the field."""
    try:
        errors = [f"{each.get('pointer') or 'the request'}: {each['detail']}" for each in told.get("errors", ())]
    except (TypeError, KeyError, AttributeError):
        errors = []
    found = errors or [": ".join(str(told[key]) for key in ("title", "detail") if told.get(key))]
    return ["".join(each if each.isprintable() else "�" for each in text) for text in found]


# ---- options -------------------------------------------------------------------------------------------------------


_api_options = together(api_url_option("The API of a node."), token_option)
_confirm_text = click.option(
    "--confirm-text", multiple=True, help="Confirm a kind of words that the node has questioned, e.g. address."
)
_signing = together(
    option("--reviewer", default="desk-1", help="The name of the person who decided this, if nobody has to sign."),
    click.option("--form", type=_FILE, help="Without --signature: write the text to sign into this new file."),
    click.option("--signature", type=_FILE, multiple=True, help="A signature of `geocast approve`, for --form."),
)


def _content(*, required: bool) -> Decorator:
    return together(
        click.option("--category", required=required, help="A key of the policy, such as fire_structure."),
        click.option("--headline", required=required, help="1 to 140 characters."),
        click.option("--description", help="Up to 1,000 characters."),
        click.option("--severity", type=click.Choice(SEVERITIES), required=required, help="How severe it is."),
        click.option("--lat", type=Number(-90, 90), required=True, help="Latitude of the centre, in degrees."),
        click.option("--lng", type=Number(-180, 180), required=True, help="Longitude of the centre, in degrees."),
        click.option("--radius", type=Number(0, min_open=True), required=True, help="In metres."),
        click.option("--expires-at", help="When it ends, e.g. 2031-05-01T12:00:00Z. Default: as the policy says."),
        click.option("--confirm-area", type=Number(0, min_open=True), help="Confirm a large area: its size in km2."),
        _confirm_text,
        _signing,
    )


def _confirm(text: tuple[str, ...], km2: float | None = None) -> dict[str, Any]:
    """Return a request's member `confirm` (A21); an empty dict if nothing is confirmed."""
    confirmed = ({"area_km2": km2} if km2 is not None else {}) | ({"text": list(text)} if text else {})
    return {"confirm": confirmed} if confirmed else {}


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    """Return those fields of an alert that the user has given, as the protocol has them."""
    confirm = _confirm(fields.pop("confirm_text"), fields.pop("confirm_area"))
    area = {"type": "circle", "lat": fields.pop("lat"), "lng": fields.pop("lng"), "radius_m": fields.pop("radius")}
    said = {key: value for key, value in fields.items() if value is not None}
    return {**said, **confirm, "area": area, "threat": "community"}


def _now() -> str:
    return format_time(time.time_ns() // 1_000_000)


def _api(fields: dict[str, Any]) -> Api:
    """Take the values of `_api_options` out of the fields that the user has given, and return the API."""
    url, token = fields.pop("api_url"), token_source(fields.pop("token_file"))()
    if token is None:
        raise ConfigError("a token with alerts:publish is needed: --token-file FILE, or the variable GEOCAST_TOKEN")
    return Api(url, token)


class _Signing:
    """The present step of a request that reviewers sign (docs/reference/approval-rules.md).

    `query` makes the request a dry run whose answer has the form to sign.
    """

    def __init__(self, fields: dict[str, Any], *, dry_run: bool = False) -> None:
        """Take the values of the options `_signing` out of the fields that the user has given."""
        reviewer: str = fields.pop("reviewer")
        form: Path | None = fields.pop("form")
        signatures: tuple[Path, ...] = fields.pop("signature")
        if signatures and form is None:
            raise click.UsageError("--signature goes with --form")
        self._path = None if signatures else form
        self.query = "?dry_run=true" if dry_run or self._path is not None else ""
        self._form: dict[str, Any] = {}
        self.approval: dict[str, Any] = {"approval": {"reviewer": reviewer, "approved_at": _now()}}
        if form is not None and signatures:
            text, self._form = read_object(form)
            self.approval = {"approval": {"form": text, "signatures": [read_object(path)[1] for path in signatures]}}
        elif form is not None:
            self.approval = {}
            if form.exists():
                raise ConfigError(f"{form} exists: give the signatures of it by --signature, or another file")

    def of_form(self, *names: str) -> dict[str, Any]:
        """Return the values of these members in the signed form, without those that it lacks."""
        return {name: self._form[name] for name in names if name in self._form}

    def answered(self, answer: dict[str, Any]) -> None:
        """Print the answer of the node. After a dry run for a form, write the form to its file."""
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        if self._path is None:
            return
        if "form" not in answer:
            _end("the node's policy has no audience, so there is nothing to sign")
        try:
            with self._path.open("x", encoding="utf-8") as file:
                file.write(answer["form"])
        except OSError as error:
            raise ConfigError(f"{self._path}: {error.strerror}") from None
        click.echo(f"{self._path}: {answer['approvals']} of the reviewers have to sign it", err=True)


# ---- the commands --------------------------------------------------------------------------------------------------


@click.command("publish")
@_api_options
@click.option("--id", "alert_id", help="The alert's id. Default: a random one.")
@click.option("--occurred-at", help="When it happened, e.g. 2031-05-01T11:30:00Z. Default: now.")
@click.option("--status", type=click.Choice(("actual", "exercise", "test")), default="actual", show_default=True)
@click.option("--dry-run", is_flag=True, help="Only print whether the alert would be accepted.")
@_content(required=True)
def publish(alert_id: str | None, occurred_at: str | None, dry_run: bool, **fields: Any) -> None:
    """Publish an alert, and print the answer.

    If the policy requires signatures, run the same command twice: with --form, and then with --signature too.
    """
    now = _now()  # before the time of approval, which `_Signing` sets
    signing, api = _Signing(fields, dry_run=dry_run), _api(fields)
    given = {"id": alert_id, "occurred_at": occurred_at}
    alert = {
        "id": uuid.uuid4().hex,
        "occurred_at": now,
        **signing.of_form("id", "occurred_at", "expires_at"),
        **{key: value for key, value in given.items() if value is not None},
        **_said(fields),
        **signing.approval,
    }
    signing.answered(api.ask("POST", f"/v1/alerts{signing.query}", alert))


@click.command("revise")
@_api_options
@click.argument("alert_id")
@click.option("--revision", type=click.IntRange(2), help="The number of the revision. Default: the current one + 1.")
@_content(required=False)
def revise(alert_id: str, revision: int | None, **fields: Any) -> None:
    """Publish the next revision of an alert.

    Omitted members stay as they are, but the place has to be given again: the server does not store the exact place.
    """
    signing, api = _Signing(fields), _api(fields)
    said = {**signing.of_form("revision"), **_said(fields), **({} if revision is None else {"revision": revision})}
    path = f"/v1/alerts/{quote(alert_id, safe='')}"
    current = api.ask("GET", path)["alert"]
    kept = {key: value for key, value in current.items() if key not in NOT_KEPT}
    alert = {**kept, "revision": current["revision"] + 1, **said, "id": alert_id, **signing.approval}
    signing.answered(api.ask("POST", f"{path}/revisions{signing.query}", alert))


@click.command("cancel")
@_api_options
@click.argument("alert_id")
@click.option("--reason", required=True, help="1 to 280 characters, shown to everybody who had the alert.")
@click.option("--revision", type=click.IntRange(2), help="The number of the cancel. Default: the current one + 1.")
@_confirm_text
@_signing
def cancel(alert_id: str, reason: str, revision: int | None, confirm_text: tuple[str, ...], **fields: Any) -> None:
    """Cancel an alert: everybody who was sent the alert is sent the cancellation."""
    signing, api = _Signing(fields), _api(fields)
    path = f"/v1/alerts/{quote(alert_id, safe='')}"
    number = revision or api.ask("GET", path)["alert"]["revision"] + 1
    body = {"revision": number, "reason": reason, **signing.approval, **_confirm(confirm_text)}
    signing.answered(api.ask("POST", f"{path}/cancel{signing.query}", body))
