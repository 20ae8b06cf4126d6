"""The commands `python -m client_demo publish`, `revise`, `cancel`, and `desk`, which publishes a feed by itself."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from client_demo.console import make_console, plain
from client_demo.desk.feed_format import FeedError, optional_format
from client_demo.desk.feeds import read_feed
from client_demo.desk.triage import Desk, Policy
from client_demo.python.publisher import Publisher
from client_demo.python.times import format_time, wall_ms

from .command import SEVERITIES, WRONG_INPUT, Command, Number, api_options, fail, feed_format_option, run, waiting
from .signing import Signing, signing_options

# ---- publish, revise, cancel -------------------------------------------------------------------------------------


def alert_options(command: Command, *, required: bool) -> Command:
    """Add the options for the content of an alert.

    In a revision, omitted members stay as they are, except the place.
    """
    options = [
        click.option("--category", required=required, help="A key of the policy, such as fire_structure."),
        click.option("--headline", required=required, help="1 to 140 characters."),
        click.option("--description", help="Up to 1,000 characters."),
        click.option("--severity", type=click.Choice(SEVERITIES), required=required),
        click.option("--lat", type=Number(-90, 90), required=True, help="Latitude of the centre, in degrees."),
        click.option("--lng", type=Number(-180, 180), required=True, help="Longitude of the centre, in degrees."),
        click.option("--radius", "radius_m", type=Number(0, min_open=True), required=True, help="In metres."),
        click.option("--expires-at", help="When it ends, e.g. 2031-05-01T12:00:00Z. Default: as the policy says."),
        area_option,
        text_option,
        signing_options,
    ]
    for option in reversed(options):
        command = option(command)
    return command


area_option = click.option(
    "--confirm-area",
    "confirm_km2",
    type=Number(0, min_open=True),
    help="Confirm a large area: its size in km2, at least as large as the node's answer says.",
)
text_option = click.option(
    "--confirm-text",
    "confirm_text",
    multiple=True,
    help="Confirm a kind of words that the node has questioned, e.g. address.",
)


def _confirm(text: tuple[str, ...], km2: float | None = None) -> dict[str, Any]:
    """Return a request's member `confirm` (A21) with these confirmations; an empty dict if there are none."""
    confirmed = ({"area_km2": km2} if km2 is not None else {}) | ({"text": list(text)} if text else {})
    return {"confirm": confirmed} if confirmed else {}


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    """Return those fields of an alert that the user has given, formatted as the protocol requires."""
    confirm = _confirm(fields.pop("confirm_text"), fields.pop("confirm_km2"))
    shape = {"type": "circle", "lat": fields.pop("lat"), "lng": fields.pop("lng"), "radius_m": fields.pop("radius_m")}
    said = {key: value for key, value in fields.items() if value is not None}
    return {**said, **confirm, "area": shape, "threat": "community"}


@click.command()
@api_options
@click.option("--id", "alert_id", help="The alert's id. Default: a random one.")
@click.option("--occurred-at", help="When it happened, e.g. 2031-05-01T11:30:00Z. Default: now.")
@click.option("--status", type=click.Choice(("actual", "exercise", "test")), default="actual")
@click.option("--dry-run", is_flag=True, help="Only print whether the alert would be accepted.")
@lambda command: alert_options(command, required=True)
def publish(
    api: str,
    token: str,
    alert_id: str | None,
    occurred_at: str | None,
    dry_run: bool,
    reviewer: str,
    form_path: Path | None,
    signature_paths: tuple[Path, ...],
    **fields: Any,
) -> None:
    """Publish an alert and print the answer.

    If the policy requires signatures, run the same command twice: with --form, and then with --signature too.
    """
    now = format_time(wall_ms())  # taken before the time of approval, which `Signing` sets
    signing = Signing(reviewer, form_path, signature_paths)
    given = {"id": alert_id, "occurred_at": occurred_at}
    alert = {
        "id": uuid.uuid4().hex,
        "occurred_at": now,
        **signing.of_form("id", "occurred_at", "expires_at"),
        **{key: value for key, value in given.items() if value is not None},
        **_said(fields),
        **signing.approval,
    }

    async def work() -> None:
        async with Publisher(api, token, on_retry=waiting) as publisher:
            signing.answered(await publisher.publish(alert, dry_run=dry_run or signing.only_asks))

    run(work())


@click.command()
@api_options
@click.argument("alert_id")
@click.option("--revision", type=click.IntRange(2), help="The number of the revision. Default: the current one + 1.")
@lambda command: alert_options(command, required=False)
def revise(
    api: str,
    token: str,
    alert_id: str,
    revision: int | None,
    reviewer: str,
    form_path: Path | None,
    signature_paths: tuple[Path, ...],
    **fields: Any,
) -> None:
    """Publish the next revision of an alert.

    Omitted members stay as they are, but the place has to be given again: the server does not store the exact place.
    """
    signing = Signing(reviewer, form_path, signature_paths)
    said = {**signing.of_form("revision"), **_said(fields)}
    if revision is not None:
        said["revision"] = revision

    async def work() -> None:
        async with Publisher(api, token, on_retry=waiting) as publisher:
            current = (await publisher.get(alert_id))["alert"]
            kept = {key: value for key, value in current.items() if key not in NOT_KEPT}
            alert = {**kept, "revision": current["revision"] + 1, **said, "id": alert_id, **signing.approval}
            signing.answered(await publisher.revise(alert, dry_run=signing.only_asks))

    run(work())


# The members of a sent alert that `revise` does not send back: the published area, and those that no publisher can send
# (A13, A22). All others are kept, so that no revision loses a member that this command does not know.
NOT_KEPT = (
    *("area", "title", "source", "issued_at"),
    *("instruction", "area_desc", "language", "languages", "urgency", "certainty", "onset_at", "web"),
)


@click.command()
@api_options
@click.argument("alert_id")
@click.option("--reason", required=True, help="1 to 280 characters, shown to everybody who had the alert.")
@click.option("--revision", type=click.IntRange(2), help="The number of the cancel. Default: the current one + 1.")
@text_option
@signing_options
def cancel(
    api: str,
    token: str,
    alert_id: str,
    reason: str,
    revision: int | None,
    confirm_text: tuple[str, ...],
    reviewer: str,
    form_path: Path | None,
    signature_paths: tuple[Path, ...],
) -> None:
    """Cancel an alert: everybody who was sent the alert is sent the cancellation."""
    signing = Signing(reviewer, form_path, signature_paths)

    async def work() -> None:
        async with Publisher(api, token, on_retry=waiting) as publisher:
            number = revision or (await publisher.get(alert_id))["alert"]["revision"] + 1
            body = {"revision": number, "reason": reason, **signing.approval, **_confirm(confirm_text)}
            signing.answered(await publisher.cancel(alert_id, body, dry_run=signing.only_asks))

    run(work())


# ---- the `desk` command --------------------------------------------------------------------------------------------


@click.command()
@api_options
@click.argument("feed", type=click.Path(path_type=Path))
@feed_format_option
@click.option("--pace", "pace_s", default=1.0, help="Seconds between two alerts.")
@click.option("--limit", type=click.IntRange(1), help="Publish at most this many alerts.")
@click.option("--retime", is_flag=True, help="Treat old records as if they happened now, and say so.")
@click.option("--dry-run", is_flag=True, help="Publish nothing; print what the node would accept.")
def desk(
    api: str,
    token: str,
    feed: Path,
    feed_format: Path | None,
    pace_s: float,
    limit: int | None,
    retime: bool,
    dry_run: bool,
) -> None:
    """Turn a dispatch feed (CSV or JSON) into approved alerts and publish them.

    Incidents that the policy does not allow are refused, and the reasons are printed.
    """
    try:
        incidents = read_feed(feed, optional_format(feed_format)).incidents
    except FeedError as error:
        fail(error, WRONG_INPUT)
    run(
        _work_at_desk(
            make_console(), Publisher(api, token, on_retry=waiting), incidents, limit, pace_s, retime, dry_run
        )
    )


async def _work_at_desk(
    console: Console,
    publisher: Publisher,
    incidents: list[Any],
    limit: int | None,
    pace_s: float,
    retime: bool,
    dry_run: bool,
) -> None:
    async with publisher:
        reviewers = Desk(Policy.from_map(await publisher.policy()), retime=retime)
        triage = reviewers.triage(incidents, wall_ms())
        for reason, count in triage.reasons():
            console.print(Text(plain(f"refused {count:5}  {reason}")), soft_wrap=True)
        if triage.retimed():
            console.print(Text(triage.retimed(), style="yellow"), soft_wrap=True)
        for case in triage.cases[:limit]:
            alert = reviewers.write(case, wall_ms())
            await publisher.publish(alert, dry_run=dry_run)
            verb = "would publish" if dry_run else "published"
            console.print(
                Text(plain(f"{verb} {alert['id']}  {alert['category']}: {alert['headline']}")), soft_wrap=True
            )
            await asyncio.sleep(pace_s)
