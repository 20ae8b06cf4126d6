"""Tests of the web client under Node.js against a real node: every event and every kind of failure."""

import json
import signal
import time

import h3
import pytest
from end_to_end.kit.alerts import alert, circle, ground, place, revision_of
from end_to_end.kit.earth import beyond, cell_reach
from end_to_end.kit.keys import EVERY_SCOPE, PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.times import moment, now, wait_until
from support.wall_clock import needs_wall_clock

HOSTILE = "<img src=x onerror=alert(1)> </script> \u202egnp.exe {{7*7}} ${x}"


# ---- the life of an alert --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("msgpack", [False, True], ids=["json", "msgpack"])
def test_alert_is_shown_revised_and_cancelled(node, open_page, packages, msgpack):
    """Both formats are tried; the text is unchanged, and the alert is acknowledged."""
    home = ground()
    page = open_page(node, place(home, accuracy_m=20), msgpack=msgpack)
    page.online()
    body = alert(home, headline=HOSTILE)
    node.publish(body)
    told = page.wait(event="alert", id=body["id"])
    assert told["affected"]
    assert told["alert"]["headline"] == HOSTILE
    page.call("ack", told["alert"])
    node.wait_for_counts(body["id"], sent=1, acked=1)
    node.revise(revision_of(body, 2))
    assert page.wait(event="update", id=body["id"], revision=2)["cause"] == "revision"
    assert page.held() == [(body["id"], 2, True)]
    node.cancel(body["id"], 3)
    assert page.wait(event="cancel", id=body["id"])["reason"] == "False alarm"
    assert page.held() == []


@pytest.mark.parametrize("skew_s", [-3600, 0, 3600])
def test_alert_ends_by_the_servers_clock(node, open_page, skew_s):
    """The device's clock is an hour off, and the alert is dropped exactly at its end."""
    home = ground()
    page = open_page(node, place(home), skewMs=skew_s * 1000)
    page.online()
    for seconds in (2, 8, 32):  # on a busy machine a short alert may end before it is sent
        body, _ = node.publish_brief(alert(home), seconds)
        while now() < moment(body["expires_at"]):
            assert not page.said(event="expire", id=body["id"]) or now() >= moment(body["expires_at"])
            time.sleep(0.01)
        node.publish(later := alert(home))
        page.wait(event="alert", id=later["id"])
        if page.said(event="alert", id=body["id"]):
            break
    assert page.wait(event="expire", id=body["id"])["cause"] == "expired"
    assert body["id"] not in [alert_id for alert_id, _, _ in page.held()]


@needs_wall_clock
def test_alert_ended_only_by_the_nodes_clock_is_shown_again(keys, tmp_path, open_page):
    """A `pong` says that the node's clock is hours ahead, and the next one corrects it (rule C2a)."""
    home, node = ground(), Node(tmp_path, keys)
    clock = node.own_clock()
    with node:
        page = open_page(node, place(home))
        page.online()
        body = alert(home)
        node.publish(body)
        page.wait(event="alert", id=body["id"])
        clock.set(7_200)
        page.call("check")
        page.wait(event="expire", id=body["id"])
        assert page.held() == []
        clock.set(0)
        page.call("check")
        page.wait(2, event="alert", id=body["id"])
        assert page.held() == [(body["id"], 1, True)]


def test_alert_walked_out_of_stays_held_and_is_revised(node, open_page):
    """`affected` follows the places, and recipients get revisions at any place."""
    home, away = ground(), ground()
    page = open_page(node, place(home))
    page.online()
    body = alert(home)
    node.publish(body)
    page.wait(event="alert", id=body["id"])
    assert page.call("setPlaces", [place(away)])
    assert page.wait(event="update", id=body["id"])["affected"] is False
    assert page.held() == [(body["id"], 1, False)]
    node.revise(revision_of(body, 2))
    assert page.wait(event="update", revision=2)["affected"] is False
    assert page.call("setPlaces", [place(home)])
    assert page.wait(3, event="update", id=body["id"])["affected"] is True
    assert len(page.said(event="alert")) == 1


def test_live_alerts_arrive_on_connecting_and_on_moving(node, open_page):
    """Live alerts arrive before `online`, and before `setPlaces` returns true."""
    home, away = ground(), ground()
    here, there = alert(home), alert(away)
    node.publish(here)
    node.publish(there)
    node.settle()
    page = open_page(node, place(home))
    page.online()
    assert page.held() == [(here["id"], 1, True)]
    assert page.call("setPlaces", [place(away)])
    page.wait(event="alert", id=there["id"])
    assert {(held, affected) for held, _, affected in page.held()} == {(here["id"], False), (there["id"], True)}


def test_filter_withholds_alerts_and_lets_them_through_later(node, open_page):
    """In `setFilter` an omitted field stays and null clears it; withheld alerts then arrive."""
    home = ground()
    page = open_page(node, place(home), filter={"min_severity": "severe"})
    page.online()
    minor, severe = alert(home, severity="minor"), alert(home, severity="severe", category="arson")
    node.publish(minor)
    node.publish(severe)
    page.wait(event="alert", id=severe["id"])
    assert page.call("setFilter", {"categories": ["arson", "burglary"]})
    assert page.said(event="alert", id=minor["id"]) == []
    assert page.call("setFilter", {"min_severity": None})
    page.wait(event="alert", id=minor["id"])


def test_only_a_cell_is_sent(node, open_page, packages):
    """The reach of the H3 cell counts, and the client agrees with the server on who is inside."""
    home = ground()
    cell = h3.latlng_to_cell(*home, 9)
    spot = beyond(h3.cell_to_latlng(cell), 90, 4000)
    page = open_page(node, {"cell": cell}, h3=True)
    page.online()
    assert page.call("places") == [{"cell": cell}]
    [shape] = node.publish(body := alert(spot, area=circle(spot, 4000 - cell_reach(cell))))["area"]
    assert shape["radius_m"] < 4000 + cell_reach(cell)
    assert page.wait(event="alert", id=body["id"])["affected"]


def test_position_is_sent_when_it_matters(node, open_page):
    """`watchPosition` sends the first, a far and a much better fix, but not every step; poor accuracy is clamped."""
    home = ground()
    page = open_page(node)
    page.online()
    page.call("watch")
    page.call("fix", *home, 50_000)
    assert page.call("places") == [place(home, accuracy_m=2000)]
    page.call("fix", *home, 30)
    assert page.call("places") == [place(home, accuracy_m=30)]
    page.call("fix", *beyond(home, 0, 20), 25)
    assert page.call("places") == [place(home, accuracy_m=30)]
    body = alert(there := beyond(home, 0, 5000))
    node.publish(body)
    page.call("fix", *there, 30)
    page.wait(event="alert", id=body["id"])


# ---- the connection --------------------------------------------------------------------------------------------------


def test_client_reconnects_after_the_node_is_killed(own_node, open_page):
    """Held alerts stay and are not reported again; changes made meanwhile are reported."""
    home = ground()
    page = open_page(own_node, place(home))
    page.online()
    body, later = alert(home), alert(home)
    own_node.publish(body)
    page.wait(event="alert", id=body["id"])
    own_node.kill()
    page.wait(event="status", state="waiting", code=1006)
    assert page.held() == [(body["id"], 1, True)]
    assert page.call("setPlaces", [place(home), place(ground())]) is False
    own_node.start()
    own_node.cancel(body["id"], 2)
    own_node.publish(later)
    page.online(2)
    page.wait(event="cancel", id=body["id"])
    page.wait(event="alert", id=later["id"])
    assert len(page.said(event="alert")) == 2


def test_client_reconnects_after_the_node_drains(own_node, open_page):
    """The close code is 1012, and the delay lies within the window of the `welcome`."""
    page = open_page(own_node, place(ground()))
    page.online()
    assert own_node.terminate() == 0
    page.wait(event="status", state="waiting", code=1012)
    own_node.start()
    page.online(2)


def test_half_open_connection_is_detected(own_node, open_page, tunnel):
    """No byte and no close arrives.

    The client pings after 25 s and gives up after 10 s more, here ten times as fast.
    """
    home = ground()
    page = open_page(own_node, place(home), url=tunnel.url, speed=10)
    page.online()
    tunnel.stall()
    body = alert(home)
    own_node.publish(body)
    page.wait(event="status", state="waiting", code=1006)
    page.online(2)
    page.wait(event="alert", id=body["id"])


def test_check_detects_a_half_open_connection(own_node, open_page, tunnel):
    """A page calls `check` when it is shown again; 10 s are enough, and a working connection continues."""
    page = open_page(own_node, place(ground()), url=tunnel.url, speed=10)
    page.online()
    page.call("check")
    page.call("setPlaces", [])
    tunnel.stall()
    page.call("check")
    page.wait(event="status", state="waiting", code=1006)
    page.online(2)


def test_close_is_final(node, open_page):
    page = open_page(node, place(ground()))
    page.online()
    page.call("close")
    page.call("close")
    assert page.call("setPlaces", []) is False
    assert page.said(event="status")[-1] == {"event": "status", "state": "closed"}


# ---- tokens ----------------------------------------------------------------------------------------------------------


def test_token_is_renewed_before_it_expires(node, open_page):
    """One connection survives its first token."""
    home = ground()
    for seconds in (6, 24, 96):  # a busy machine may take this long to connect
        expiry = int(time.time()) + seconds
        tokens = [node.keys.token(sub="phone", scope=PHONE_SCOPE, **more) for more in ({"exp": expiry}, {})]
        page = open_page(node, place(home), tokens=tokens, speed=4)
        page.online()
        if time.time() < expiry - seconds / 2:
            break
    wait_until(lambda: time.time() > expiry + 1.5, "the first token is over")
    body = alert(home)
    node.publish(body)
    page.wait(event="alert", id=body["id"])
    assert [line["state"] for line in page.said(event="status")] == ["connecting", "online"]


def test_refused_token_is_not_sent_again(node, open_page):
    """After a 4401 the client connects at once with a new token, and waits while there is none."""
    expired = node.keys.token(sub="phone", scope=PHONE_SCOPE, exp=1)
    good = node.keys.token(sub="phone", scope=PHONE_SCOPE)
    page = open_page(node, place(ground()), tokens=[expired, expired, good])
    page.wait(event="status", state="waiting", code=4401)
    assert "refused" in page.wait(event="error", code="token")["cause"]
    page.online()
    assert len(page.said(event="status", state="waiting", code=4401)) == 1
    assert not any(token in str(page.lines) for token in (good, expired))


def test_token_with_a_withdrawn_key_is_replaced(own_node, open_page):
    """The key is withdrawn during a session; held alerts stay, and later ones arrive after reconnecting (rule W3a)."""
    home, new = ground(), Keys()
    fresh = [new.signed(new.claims(sub=sub, scope=EVERY_SCOPE), kid="new") for sub in ("phone", "desk-new")]
    page = open_page(own_node, place(home), tokens=[own_node.keys.token(sub="phone", scope=PHONE_SCOPE), fresh[0]])
    page.online()
    held, later = alert(home), alert(home)
    own_node.publish(held)
    page.wait(event="alert", id=held["id"])
    (own_node.home / "keys.json").write_text(json.dumps({"keys": [new.jwks()["keys"][0] | {"kid": "new"}]}))
    own_node.process.send_signal(signal.SIGHUP)
    page.wait(event="status", state="waiting", code=4401)
    own_node.publish(later, fresh[1])
    page.wait(event="alert", id=later["id"])
    assert sorted(page.held()) == sorted((body["id"], 1, True) for body in (held, later))
    assert len(page.said(event="alert", id=held["id"])) == 1


@pytest.mark.parametrize(
    ("scope", "exp", "code"), [("alerts:publish", 9e9, 4403), (PHONE_SCOPE, 1, 4401)], ids=["no scope", "expired"]
)
def test_client_stops_when_reconnecting_is_useless(node, open_page, scope, exp, code):
    """The codes are 4403, and 4401 with a fixed token."""
    page = open_page(node, place(ground()), token=node.keys.token(sub="phone", scope=scope, exp=int(exp)))
    assert page.wait(event="status", code=code)["state"] == "stopped"


# ---- the storage -----------------------------------------------------------------------------------------------------


def saved(file, *ids):
    """Wait until the stored file has these alerts."""
    wait_until(lambda: file.exists() and all(alert_id in file.read_text() for alert_id in ids), f"{ids} are stored")


def test_held_alerts_survive_the_page(own_node, open_page, tmp_path):
    """Without a server they are held at once; with one they are not reported again, but their cancels are."""
    home, file = ground(), tmp_path / "stored.json"
    first = open_page(own_node, place(home), file=str(file))
    first.online()
    body = alert(home)
    own_node.publish(body)
    first.wait(event="alert", id=body["id"])
    saved(file, body["id"])
    first.end()
    own_node.kill()
    second = open_page(own_node, file=str(file))
    wait_until(lambda: second.held() == [(body["id"], 1, True)], "it is held, without a place and without a server")
    own_node.start()
    second.online()
    assert second.call("setPlaces", [place(home)])
    assert second.said(event="alert") == []
    own_node.cancel(body["id"], 2)
    second.wait(event="cancel", id=body["id"])


def test_two_pages_share_a_storage(node, open_page, tmp_path):
    """The storage has the union of both, without alerts that either page knows to be cancelled."""
    home, work, file = ground(), ground(), tmp_path / "stored.json"
    pages = [open_page(node, place(spot), file=str(file)) for spot in (home, work)]
    for page in pages:
        page.online()
    bodies = [alert(home), alert(work), alert(home)]
    for body in bodies:
        node.publish(body)
    saved(file, *(body["id"] for body in bodies))
    node.cancel(bodies[0]["id"], 2)
    pages[0].wait(event="cancel", id=bodies[0]["id"])
    node.revise(revision_of(bodies[1], 2))
    pages[1].wait(event="update", revision=2)
    pages[0].call("close")
    pages[1].call("close")
    third = open_page(node, place(home), file=str(file))
    third.online()
    assert {(held, revision) for held, revision, _ in third.held()} == {(bodies[1]["id"], 2), (bodies[2]["id"], 1)}


# ---- fetching over a short connection --------------------------------------------------------------------------------


def test_fetch_returns_changes_and_closes(node, open_page):
    """`fetchLive` with `holding` returns new and ended alerts, acknowledges them, and leaves no connection open."""
    home = ground()
    known, gone, fresh = alert(home), alert(home), alert(home)
    for body in (known, gone, fresh):
        node.publish(body)
    node.cancel(gone["id"], 2)
    node.settle()
    page = open_page(node, place(home), fetch=True)
    got = page.call("fetch", {"holding": {known["id"]: 1, gone["id"]: 1, "unheard-of": 3}, "ack": True})
    assert [(held["alert"]["id"], held["affected"]) for held in got["alerts"]] == [(fresh["id"], True)]
    assert [(cancel["id"], cancel["revision"]) for cancel in got["cancels"]] == [(gone["id"], 2)]
    node.wait_for_counts(fresh["id"], sent=1, acked=1)


def test_fetched_and_acknowledged_alert_is_not_reported_again(node, open_page, tmp_path):
    """The app shares the storage: without `ack` the app reports the alert."""
    home, file = ground(), str(tmp_path / "stored.json")
    unshown, shown = alert(home), alert(home)
    page = open_page(node, place(home), file=file, fetch=True)
    for body, ack in ((unshown, False), (shown, True)):
        node.publish(body)
        node.settle()
        got = page.call("fetch", {"ack": ack})
        assert [held["alert"]["id"] for held in got["alerts"]] == [body["id"]]
    app = open_page(node, place(home), file=file)
    app.online()
    assert [line["alert"]["id"] for line in app.said(event="alert")] == [unshown["id"]]


def test_failed_fetch_has_the_reason(own_node, open_page):
    """The reasons are a refused token with its close code, a timeout, and an unreachable server."""
    expired = own_node.keys.token(sub="phone", scope=PHONE_SCOPE, exp=1)
    page = open_page(own_node, place(ground()), fetch=True)
    assert page.call("fetch", {"token": expired})["closeCode"] == 4401
    assert page.call("fetch", {"timeoutMs": 0})["error"] == "not done in 0 ms"
    own_node.kill()
    assert page.call("fetch")["closeCode"] == 1006
