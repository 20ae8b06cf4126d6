"""The review desk in a real browser: from a dispatch record to somebody's phone, once, and by one reviewer."""

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
from pages.desk.tools import Show, heard, may_approve, may_not_approve, opened, was_meant
from playwright.sync_api import Route
from support.real_data import dispatch

# ---- the whole way -----------------------------------------------------------------------------------------------


def test_from_a_record_to_a_phone(own_desk: DeskProcess, node: Node, phone: Session, show: Show) -> None:
    """Read, edit, see what would be published, approve; it arrives, and the counts rise."""
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
    with closing(sqlite3.connect(node.log_file)) as db, db:  # as a push process counts
        db.execute("UPDATE delivery SET pushed = 3 WHERE id = ?", (alert["id"],))
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


def test_what_the_feed_tells_is_shown_with_what_is_private_struck(desk: DeskProcess, show: Show) -> None:
    """The reviewer sees it; what is proposed has none of it."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    shown.has("#record", "1 more of the same incident")
    struck = shown.page.locator("#record del").all_inner_texts()
    assert any("1200 Block of Elm St" in text for text in struck)
    assert any("Engine 31" in text for text in struck)
    for field in ("#headline", "#description"):
        assert not any(word in shown.page.input_value(field) for word in ("Elm", "Engine", "1200"))


# ---- once, and by one --------------------------------------------------------------------------------------------


def test_a_double_click_approves_once(own_desk: DeskProcess, node: Node, phone: Session, show: Show) -> None:
    """One alert, revision 1."""
    shown = opened(show(own_desk.link("ann")), "Structure fire")
    may_approve(shown)
    shown.page.dblclick("#approve")
    shown.has("#when", "Live")
    assert node.state(heard(phone, 1)["id"])["alert"]["revision"] == 1
    assert shown.page.locator("#history li").count() == 1


def test_an_answer_that_is_lost_on_the_way_back_is_no_second_alert(
    own_desk: DeskProcess, node: Node, phone: Session, show: Show
) -> None:
    """The page learns of it all the same."""
    shown = opened(show(own_desk.link("ann")), "Structure fire")
    may_approve(shown)

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    shown.page.route("**/approve", lose, times=1)
    shown.page.click("#approve")
    shown.has("#when", "Live")  # by the event: the answer was lost, and is not missed
    assert node.state(heard(phone, 1)["id"])["alert"]["revision"] == 1
    assert shown.text("#whole-trouble") == ""
    was_meant(shown, "ERR_FAILED")


def test_two_reviewers_see_each_others_decisions(own_desk: DeskProcess, show: Show) -> None:
    """Without asking; what was decided can't be decided again."""
    ann, ben = (opened(show(own_desk.link(name)), "Structure fire") for name in ("ann", "ben"))
    may_approve(ben)
    may_approve(ann)
    ann.page.click("#dismiss")
    ben.has("#when", "Dismissed")
    ben.has("#history", "by ann at")
    ben.until("document.querySelector('#announce').textContent.includes('dismissed by ann')", "it is announced")
    assert ben.page.locator("#approve").is_hidden()


def test_who_is_second_is_told_who_was_first(own_desk: DeskProcess, phone: Session, show: Show) -> None:
    """Ben presses before his page has heard of it: his request is held up until Ann's is through."""
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


def test_the_page_is_right_again_when_the_service_was_restarted(
    own_desk: DeskProcess, phone: Session, show: Show
) -> None:
    """By itself, with the decisions of before."""
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
def test_a_desk_at_work_on_real_records(
    tmp_path: Path,
    node: Node,
    show: Show,
    join: Callable[..., Session],
    theme: str,
) -> None:
    """San Francisco's fire calls, 60 times as fast: one is live, one is open. Kept as a picture."""
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
        shown.context.close()  # before the desk does


# ---- what the node refuses ---------------------------------------------------------------------------------------


BRIEF = """
name = "brief"
[categories]
fire_structure = { title = "Structure fire" }
burglary = { title = "Burglary", max_age_s = 300 }
"""


@pytest.fixture
def brief(keys: Keys, tmp_path: Path, spot: tuple[float, float]) -> Iterator[DeskProcess]:
    """A desk whose node lets burglaries live for five minutes, and a fire for an hour."""
    (tmp_path / "brief.toml").write_text(BRIEF)
    feed = write_feed(tmp_path / "feed.csv", [row("FIRE", "Structure fire", spot)])
    with (
        Node(tmp_path, keys, "--policy", str(tmp_path / "brief.toml")) as node,
        DeskProcess(tmp_path, node, feed, "--as-recorded") as process,
    ):
        yield process


def test_what_the_node_refuses_stays_in_the_form_with_the_reason(brief: DeskProcess, show: Show) -> None:
    """P6, by ordinary clicks: the refusal stands beside the category before it is sent, after, and after a reload."""
    words = "It was a break-in: lock your doors."
    shown = opened(show(brief.link("ann")), "Structure fire")
    may_approve(shown)
    shown.page.click("#approve")
    shown.has("#approve", "Publish revision 2")
    shown.page.select_option("#category", "burglary")
    shown.page.fill("#headline", words)
    shown.has("#category-trouble", "would end too early")
    may_not_approve(shown)

    # The page of somebody whose preview is older than the refusal: the decision goes out, and comes back refused.
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
