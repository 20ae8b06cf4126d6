"""Tests of approvals on the review desk in a real browser: a record becomes an alert, once and by one reviewer."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from end_to_end.kit.alerts import place
from end_to_end.kit.desk import DeskProcess, row, write_feed
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import wait_until
from pages.conftest import only_chromium
from pages.desk.tools import Show, heard, may_approve, may_not_approve, opened, was_meant
from playwright.sync_api import Route
from support.real_data import dispatch

# ---- from a record to a phone ------------------------------------------------------------------------------------


def test_incident_approved_on_the_desk_page_reaches_a_phone_as_an_alert(
    own_desk: DeskProcess, node: Node, phone: Session, show: Show
) -> None:
    """The reviewer edits, previews and approves it; the alert arrives, and the delivery counts rise."""
    shown = opened(show(own_desk.link("ann")), "Structure fire")
    shown.page.fill("#headline", "A warehouse is on fire. Close your windows.")
    shown.page.fill("#radius_m", "700")
    may_approve(shown)
    shown.has("#preview", "A warehouse is on fire.")
    shown.has("#preview-note", "Published: a circle of")
    promised = shown.text("#preview-note")
    shown.picture("desk-preview")
    shown.page.click("#approve")
    alert = heard(phone, 1)
    assert alert["headline"] == "A warehouse is on fire. Close your windows."
    metres = alert["area"][0]["radius_m"]
    assert f"{metres:g} m" in promised or f"{metres / 1000:g} km" in promised
    shown.has("#history", "by ann at")
    shown.has("#sent", "1")
    phone.ack(alert["id"], 1)
    shown.has("#acked", "1")
    assert not shown.page.is_visible("#pushed"), "nothing is said of pushes where there are none"
    with closing(sqlite3.connect(node.log_file)) as db, db:  # as a push process would count
        db.execute("INSERT INTO delivery_more VALUES (?, 0, 3)", (alert["id"],))
    shown.has("#pushed", "3")
    shown.page.fill("#headline", "The fire is out")
    may_approve(shown)
    assert shown.text("#approve") == "Publish revision 2"
    shown.page.click("#approve")
    assert heard(phone, 2)["headline"] == "The fire is out"
    shown.page.click("#cancel")
    shown.page.fill("#reason", "Nothing burns any more")
    shown.page.click("#cancel-now")
    assert heard(phone, "cancel")["reason"] == "Nothing burns any more"
    shown.has("#when", "Cancelled")
    assert shown.page.locator("#cancel").is_hidden()


def test_private_parts_of_a_record_are_shown_struck_out(desk: DeskProcess, show: Show) -> None:
    """The reviewer sees them, but the proposed alert has none of them."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    shown.has("#record", "1 more of the same incident")
    struck = shown.page.locator("#record del").all_inner_texts()
    assert any("1200 Block of Elm St" in text for text in struck)
    assert any("Engine 31" in text for text in struck)
    for field in ("#headline", "#description"):
        assert not any(word in shown.page.input_value(field) for word in ("Elm", "Engine", "1200"))


# ---- repeated and concurrent decisions ---------------------------------------------------------------------------


def test_double_click_on_approve_publishes_one_alert(
    own_desk: DeskProcess, node: Node, phone: Session, show: Show
) -> None:
    """There is one alert with revision 1."""
    shown = opened(show(own_desk.link("ann")), "Structure fire")
    may_approve(shown)
    shown.page.dblclick("#approve")
    shown.has("#when", "Live")
    assert node.state(heard(phone, 1)["id"])["alert"]["revision"] == 1
    assert shown.page.locator("#history li").count() == 1


@only_chromium("Playwright sees no bodies of requests over BiDi")
def test_approval_whose_response_is_lost_publishes_one_alert(
    own_desk: DeskProcess, node: Node, phone: Session, show: Show
) -> None:
    """The page learns of the approval from the event stream."""
    shown = opened(show(own_desk.link("ann")), "Structure fire")
    may_approve(shown)

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    shown.page.route("**/approve", lose, times=1)
    shown.page.click("#approve")
    shown.has("#when", "Live")  # the event says so although the response was lost
    assert node.state(heard(phone, 1)["id"])["alert"]["revision"] == 1
    assert shown.text("#whole-trouble") == ""
    was_meant(shown, "ERR_FAILED")


def test_reviewers_see_each_others_decisions(own_desk: DeskProcess, show: Show) -> None:
    """The pages update by themselves, and a decided item cannot be decided again."""
    ann, ben = (opened(show(own_desk.link(name)), "Structure fire") for name in ("ann", "ben"))
    may_approve(ben)
    may_approve(ann)
    ann.page.click("#dismiss")
    ben.has("#when", "Dismissed")
    ben.has("#history", "by ann at")
    ben.until("document.querySelector('#announce').textContent.includes('dismissed by ann')", "it is announced")
    assert ben.page.locator("#approve").is_hidden()


def test_second_reviewer_who_decides_at_the_same_time_is_shown_a_conflict(
    own_desk: DeskProcess, phone: Session, show: Show
) -> None:
    """Ben's request is delayed until Ann's is answered, so that his page does not know of her decision yet."""
    ann, ben = (opened(show(own_desk.link(name)), "Structure fire") for name in ("ann", "ben"))
    may_approve(ann)
    may_approve(ben)
    held: list[Route] = []
    ben.page.route("**/approve", lambda route: held.append(route))  # noqa: PLW0108 (playwright marks the handler)
    ben.page.click("#approve")
    wait_until(lambda: ben.page.evaluate("1") and held, "Ben's request is held up")
    ann.page.click("#approve")
    heard(phone, 1)
    held[0].continue_()
    was_meant(ben, "409")
    ben.has("#whole-trouble", "ann was first: approved at")
    ben.has("#when", "Live")


def test_desk_page_recovers_after_a_restart_of_the_service(own_desk: DeskProcess, phone: Session, show: Show) -> None:
    """The page reconnects by itself and shows the earlier decisions."""
    shown = opened(show(own_desk.link("ann")), "Structure fire")
    may_approve(shown)
    shown.page.click("#approve")
    heard(phone, 1)
    own_desk.kill()
    shown.has("#connection", "Connection lost")
    own_desk.start()
    shown.has("#connection", "Connected again")
    shown.has("#history", "by ann at")
    shown.page.fill("#headline", "After the restart")
    may_approve(shown)
    shown.page.click("#approve")
    assert heard(phone, 2)["headline"] == "After the restart"
    was_meant(shown, "ERR_")


# ---- real records ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_desk_page_works_with_real_records(
    tmp_path: Path,
    node: Node,
    show: Show,
    join: Callable[..., Session],
    theme: str,
) -> None:
    """San Francisco's fire calls run 90 times as fast. One is live and one is open in the saved pictures."""
    options = ("--ahead", "80", "--speed", "90", "--status", "actual")
    with DeskProcess(tmp_path, node, dispatch("sf_fire_calls.csv"), *options) as process:
        shown = show(process.link("ann"), color_scheme=theme, viewport={"width": 1440, "height": 900})
        opened(shown, "Structure Fire")
        may_approve(shown)
        where = tuple(float(shown.page.input_value(field)) for field in ("#lat", "#lng"))
        phone = join(node, place(where))
        shown.page.click("#approve")
        phone.ack(heard(phone, 1)["id"], 1)
        shown.has("#acked", "1")
        shown.picture(f"desk-{theme}-live")
        opened(shown, "Structure Fire")
        may_approve(shown)
        shown.picture(f"desk-{theme}-incident")
        shown.context.close()  # close the page before the desk


# ---- refusals by the node ----------------------------------------------------------------------------------------


BRIEF = """
name = "brief"
[categories]
fire_structure = { title = "Structure fire" }
burglary = { title = "Burglary", max_age_s = 300 }
"""


@pytest.fixture
def brief(keys: Keys, tmp_path: Path, spot: tuple[float, float]) -> Iterator[DeskProcess]:
    """Return a desk whose node ends burglaries after five minutes, and fires after an hour."""
    (tmp_path / "brief.toml").write_text(BRIEF)
    feed = write_feed(tmp_path / "feed.csv", [row("FIRE", "Structure fire", spot)])
    with (
        Node(tmp_path, keys, "--policy", str(tmp_path / "brief.toml")) as node,
        DeskProcess(tmp_path, node, feed, "--as-recorded") as process,
    ):
        yield process


def test_form_of_a_refused_revision_keeps_its_text_and_shows_the_reason(brief: DeskProcess, show: Show) -> None:
    """The reason is shown at the category before sending, after sending, and after a reload (rule P6)."""
    words = "It was a break-in: lock your doors."
    shown = opened(show(brief.link("ann")), "Structure fire")
    may_approve(shown)
    shown.page.click("#approve")
    shown.has("#approve", "Publish revision 2")
    shown.page.select_option("#category", "burglary")
    shown.page.fill("#headline", words)
    shown.has("#category-trouble", "would end too early")
    may_not_approve(shown)

    # Simulate a page with a preview from before the refusal: the decision is sent and refused.
    shown.page.route("**/preview", lambda route: route.fulfill(json={"troubles": [], "area": None, "expires_at": None}))
    shown.page.fill("#headline", words + " ")
    may_approve(shown)
    shown.page.click("#approve")
    was_meant(shown, "422")
    shown.page.unroute("**/preview")
    shown.until("!document.querySelector('#headline').disabled", "the form can be used again")
    shown.has("#category-trouble", "would end too early")
    assert shown.page.input_value("#headline") == words + " "
    assert shown.page.input_value("#category") == "burglary"

    shown.page.reload()
    shown.has("#title", "Structure fire")
    shown.has("#category-trouble", "would end too early")
    assert shown.page.input_value("#headline") == words + " "
    shown.page.select_option("#category", "fire_structure")
    may_approve(shown)
    shown.page.click("#approve")
    shown.has("#approve", "Publish revision 3")
    shown.until(f"document.querySelector('#headline').value === '{words} '", "what was published is in the form")
