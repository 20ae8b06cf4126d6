"""The integration in Home Assistant's core, with a real node: states, restarts, outages, tokens and forms."""

import asyncio
import contextlib
import itertools
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from custom_components import geocast
from custom_components.geocast.config_flow import SCHEMAS
from custom_components.geocast.diagnostics import async_get_config_entry_diagnostics
from homeassistant.config_entries import SOURCE_REAUTH, SOURCE_RECONFIGURE, SOURCE_USER, ConfigEntryState
from homeassistant.core import callback
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.event import async_track_state_change_event
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import MockConfigEntry, async_fire_time_changed
from real_node import PATIENCE, ROOT, stamp

GUIDE = ROOT / "docs" / "guide" / "home-assistant.md"
ENTITIES = {
    "alert": "binary_sensor",
    "connection": "binary_sensor",
    "headline": "sensor",
    "changes": "event",
    "test": "button",
}
LONGER_S = 61  # longer than the time without a connection after which nobody knows whether there is an alert
places = ((-50.0 + 0.5 * number, 20.0) for number in itertools.count())


async def until_true(holds):
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 (it is about what other parts of the core do)
            await asyncio.sleep(0.01)


class House:
    """A Home Assistant with an entry of the integration, and the events that it has fired."""

    def __init__(self, hass, entry):
        self.hass, self.entry = hass, entry
        self.place = (entry.data["location"]["latitude"], entry.data["location"]["longitude"])
        self.events = []

    @property
    def client(self):
        """The client of the entry."""
        return self.entry.runtime_data.client

    def id_of(self, key):
        """Return the id of an entity."""
        return er.async_get(self.hass).async_get_entity_id(ENTITIES[key], "geocast", f"{self.entry.entry_id}_{key}")

    def state(self, key):
        """Return the state of an entity."""
        return self.hass.states.get(self.id_of(key))

    async def until(self, key, state):
        """Wait until an entity has a state."""
        reached = asyncio.Event()

        @callback
        def look(_=None):
            if self.state(key).state == state:
                reached.set()

        stop = async_track_state_change_event(self.hass, self.id_of(key), look)
        look()
        try:
            async with asyncio.timeout(PATIENCE):
                await reached.wait()
        finally:
            stop()

    async def until_event(self, *event):
        """Wait until an event of this type has been fired for an alert."""
        await until_true(lambda: event in self.events)

    async def do(self, work, *arguments):
        """Call a function of the node in a thread."""
        return await self.hass.async_add_executor_job(lambda: work(*arguments))

    async def start(self):
        """Set the entry up, and listen to its events."""
        if self.entry.state is ConfigEntryState.NOT_LOADED:
            assert await self.hass.config_entries.async_setup(self.entry.entry_id)

        @callback
        def note(event):
            old, new = event.data["old_state"], event.data["new_state"]
            if old is not None and old.state != "unavailable" != new.state:  # the core restores the last event
                self.events.append((new.attributes["event_type"], new.attributes.get("id")))

        async_track_state_change_event(self.hass, self.id_of("changes"), note)
        return self


def data_for(node, network, place, **changes):
    """Return the data of an entry."""
    location = {"latitude": place[0], "longitude": place[1]}
    data = {"url": f"ws://127.0.0.1:{network.port}/v1/stream", "token": node.token(), "min_severity": "minor"}
    return data | {"location": location} | changes


@pytest.fixture
async def house(hass, node, network):
    """A house that is connected."""
    entry = MockConfigEntry(domain="geocast", title="Harbour", data=data_for(node, network, next(places)))
    entry.add_to_hass(hass)
    house = await House(hass, entry).start()
    await house.until("connection", "on")
    yield house
    if hass.config_entries.async_get_entry(entry.entry_id):
        await hass.config_entries.async_unload(entry.entry_id)


# ---- alerts --------------------------------------------------------------------------------------------------------


async def test_entities_of_an_alert_its_update_and_its_cancel_follow_at_once(house, node):
    """The sensors change, and each change is an event."""
    await house.until("alert", "off")
    assert house.state("headline").state == "unknown"

    alert = await house.do(lambda: node.publish("followed", house.place, severity="moderate"))
    await house.until("alert", "on")
    headline = house.state("headline")
    assert headline.state == "Fire: followed"
    shown = {name: headline.attributes[name] for name in ("alerts", "id", "category", "severity", "status", "revision")}
    what = {"id": "followed", "category": "fire_structure", "severity": "moderate"}
    assert shown == what | {"alerts": 1, "status": "actual", "revision": 1}
    assert headline.attributes["expires_at"].endswith("Z")
    assert "area" not in headline.attributes

    await house.do(lambda: node.revise(alert, headline="The fire grows."))
    await house.until("headline", "The fire grows.")
    await house.do(node.cancel, "followed", 3)
    await house.until("alert", "off")
    assert house.state("headline").state == "unknown"
    assert house.events == [("new", "followed"), ("updated", "followed"), ("cancelled", "followed")]
    assert house.state("changes").attributes["reason"] == "False alarm"


async def test_headline_of_two_alerts_is_that_of_the_more_severe_one(house, node):
    """The sensor stays on until the last alert has gone."""
    await house.do(lambda: node.publish("worse", house.place, severity="extreme"))
    await house.do(lambda: node.publish("milder", house.place, severity="minor"))
    await house.until_event("new", "milder")
    assert house.state("headline").state == "Fire: worse"
    assert house.state("headline").attributes["alerts"] == 2
    await house.do(node.cancel, "worse")
    await house.until("headline", "Fire: milder")
    assert house.state("alert").state == "on"


async def test_alert_elsewhere_or_below_the_lowest_severity_is_not_shown(hass, node, network):
    """The alert in the place comes after the others, so these would have been shown before."""
    place = next(places)
    data = data_for(node, network, place, min_severity="severe")
    entry = MockConfigEntry(domain="geocast", title="Harbour", data=data)
    entry.add_to_hass(hass)
    house = await House(hass, entry).start()
    await house.until("connection", "on")
    await house.do(lambda: node.publish("elsewhere", (place[0] + 0.1, place[1])))
    await house.do(lambda: node.publish("too-mild", place, severity="moderate"))
    await house.do(lambda: node.publish("here", place))
    await house.until("alert", "on")
    assert house.events == [("new", "here")]
    await hass.config_entries.async_unload(entry.entry_id)


async def test_alert_that_reaches_its_end_turns_the_sensor_off(house, node):
    """The end is an event."""
    await house.do(lambda: node.publish("brief", house.place, expires_at=stamp(2.0)))
    await house.until("alert", "on")
    await house.until("alert", "off")
    assert house.events == [("new", "brief"), ("expired", "brief")]


async def test_button_fires_a_test_event_and_turns_nothing_on(house):
    """A second test within the hour is refused with its reason."""
    press = {"entity_id": house.id_of("test")}
    await house.hass.services.async_call("button", "press", press, blocking=True)
    await until_true(lambda: house.events)
    assert house.state("changes").attributes["status"] == "test"
    assert house.state("alert").state == "off"
    with pytest.raises(HomeAssistantError, match="rate-limited"):
        await house.hass.services.async_call("button", "press", press, blocking=True)


async def test_documented_automation_turns_the_siren_on_and_off(hass, node, network):
    """docs/guide/home-assistant.md, "A siren": the ids of the entities are those of a server at alerts.example."""
    [written] = re.findall(r"^## A siren$.*?^```yaml\n(.*?)^```", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    turned = []
    for action in ("turn_on", "turn_off"):
        hass.services.async_register(
            "siren", action, lambda call: turned.append((call.service, call.data["entity_id"]))
        )
    assert await async_setup_component(hass, "automation", {"automation": [yaml.safe_load(written)]})
    entry = MockConfigEntry(domain="geocast", title="alerts.example", data=data_for(node, network, next(places)))
    entry.add_to_hass(hass)
    house = await House(hass, entry).start()
    await house.until("connection", "on")
    await house.do(lambda: node.publish("siren", house.place))
    await until_true(lambda: turned[-1:] == [("turn_on", ["siren.hall"])])
    await house.do(node.cancel, "siren")
    await until_true(lambda: turned[-1:] == [("turn_off", ["siren.hall"])])
    await hass.config_entries.async_unload(entry.entry_id)


# ---- restarts and outages ------------------------------------------------------------------------------------------


async def test_restart_of_the_node_keeps_the_sensor_on_and_a_later_cancel_arrives(house, node):
    """The alert is not new again."""
    await house.do(lambda: node.publish("through-restart", house.place))
    await house.until("alert", "on")
    await house.do(node.kill)
    await house.until("connection", "off")
    assert house.state("alert").state == "on"
    await house.do(node.start)
    await house.until("connection", "on")
    assert house.state("alert").state == "on"
    await house.do(node.cancel, "through-restart")
    await house.until("alert", "off")
    assert house.events == [("new", "through-restart"), ("cancelled", "through-restart")]


async def test_outage_lets_alerts_end_and_is_made_up_for_when_the_network_is_back(house, node, network):
    """During the outage one alert ends, one is cancelled, and one is published."""
    await house.do(lambda: node.publish("ends", house.place, expires_at=stamp(3.0)))
    await house.do(lambda: node.publish("cancelled-meanwhile", house.place))
    await house.until_event("new", "cancelled-meanwhile")
    await house.do(network.refuse)
    await house.do(network.cut)
    await house.until("connection", "off")
    await house.until_event("expired", "ends")
    await house.do(node.cancel, "cancelled-meanwhile")
    await house.do(lambda: node.publish("published-meanwhile", house.place, severity="extreme"))
    async_fire_time_changed(house.hass, dt_util.utcnow() + timedelta(seconds=LONGER_S))
    await house.hass.async_block_till_done()
    assert house.state("headline").state == "Fire: cancelled-meanwhile"

    await house.do(network.accept)
    await house.until("headline", "Fire: published-meanwhile")
    await house.until_event("cancelled", "cancelled-meanwhile")
    assert house.state("alert").state == "on"
    await house.do(node.cancel, "published-meanwhile")
    await house.until("alert", "off")


async def test_long_outage_without_an_alert_makes_the_sensors_unavailable_until_it_ends(house, network):
    """A short one changes only the sensor of the connection."""
    await house.do(network.refuse)
    await house.do(network.cut)
    await house.until("connection", "off")
    assert house.state("alert").state == "off"
    assert house.state("test").state == "unavailable"
    async_fire_time_changed(house.hass, dt_util.utcnow() + timedelta(seconds=LONGER_S))
    await house.until("alert", "unavailable")
    assert house.state("headline").state == "unavailable"
    await house.do(network.accept)
    await house.until("alert", "off")


async def test_restart_of_home_assistant_without_a_network_shows_the_stored_alert(house, node, network):
    """The alert is not new again, and its cancel arrives when the network is back."""
    await house.do(lambda: node.publish("stored", house.place))
    await house.until("alert", "on")
    await house.do(network.refuse)
    assert await house.hass.config_entries.async_unload(house.entry.entry_id)
    assert house.state("alert").state == "unavailable"
    assert await house.hass.config_entries.async_setup(house.entry.entry_id)
    assert house.state("alert").state == "on"
    await house.do(node.cancel, "stored")
    await house.do(network.accept)
    await house.until("alert", "off")
    assert house.events == [("new", "stored"), ("cancelled", "stored")]


async def test_good_alerts_are_heard_after_each_odd_message_and_after_a_restart(hass, node, network, odd_node):
    """The entry is loaded again from its store. Odd alerts are counted, and none is listed to a node later."""
    entry = MockConfigEntry(domain="geocast", data=data_for(node, network, next(places), url=odd_node.url))
    entry.add_to_hass(hass)
    house = await House(hass, entry).start()
    for name in (*odd_node.good, "after-1"):
        await house.until_event("new", name)
    assert house.client.dropped >= len(odd_node.odd)
    odd_node.has_heard.set()
    await house.until_event("new", "after-2")
    assert await house.do(odd_node.heard, 2) == odd_node.good | {"after-1"}
    assert await hass.config_entries.async_unload(entry.entry_id)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await house.until_event("new", "after-3")
    assert await house.do(odd_node.heard, 3) == odd_node.good | {"after-1", "after-2"}
    assert house.state("alert").state == "on"
    await hass.config_entries.async_unload(entry.entry_id)


async def test_removed_entry_leaves_no_stored_alerts(house, node, hass_storage):
    """Stored alerts have no place of the user, and no token."""
    await house.do(lambda: node.publish("left-behind", house.place))
    await house.until("alert", "on")
    name = f"geocast.{house.entry.entry_id}"
    await house.hass.config_entries.async_unload(house.entry.entry_id)
    assert "left-behind" in json.dumps(hass_storage[name])
    assert house.entry.data["token"] not in json.dumps(hass_storage[name])
    await house.hass.config_entries.async_remove(house.entry.entry_id)
    assert name not in hass_storage


# ---- tokens --------------------------------------------------------------------------------------------------------


def reauths(hass):
    """Return the flows that wait for another token."""
    return [flow for flow in hass.config_entries.flow.async_progress() if flow["context"]["source"] == SOURCE_REAUTH]


async def test_refused_token_asks_for_another_and_alerts_still_end(house, node):
    """The keys of the node change. Home Assistant shows a repair, until the user has entered a token that works."""
    await house.do(lambda: node.publish("ends-without-token", house.place, expires_at=stamp(6.0)))
    await house.until("alert", "on")
    await house.do(node.kill)
    node.new_key()
    await house.do(node.start)
    await until_true(lambda: reauths(house.hass))
    await house.hass.async_block_till_done()
    [issue] = ir.async_get(house.hass).issues.values()
    assert (issue.issue_domain, issue.translation_key) == ("geocast", "config_entry_reauth")
    await house.until("alert", "off")
    assert ("expired", "ends-without-token") in house.events

    [flow] = reauths(house.hass)
    again = await house.hass.config_entries.flow.async_configure(flow["flow_id"], {"token": "still.not.good"})
    assert again["errors"] == {"base": "invalid_auth"}
    done = await house.hass.config_entries.flow.async_configure(flow["flow_id"], {"token": node.token()})
    assert done["reason"] == "reauth_successful"
    await house.hass.async_block_till_done()
    await house.until("connection", "on")
    assert not ir.async_get(house.hass).issues


@contextlib.asynccontextmanager
async def token_server(answer):
    """Serve tokens: `answer` returns the status and the text for each GET."""

    async def get(_):
        status, text = answer()
        return web.Response(status=status, text=text)

    server = web.Application()
    server.router.add_get("/token", get)
    runner = web.AppRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    finally:
        await runner.cleanup()


async def test_token_url_serves_tokens_and_its_refusal_asks_the_user(hass, node, network):
    """A URL that gives only bad tokens asks the user, too."""
    answers = [(200, node.token() + "\n"), (403, "no")]
    async with token_server(lambda: answers[0]) as url:
        data = data_for(node, network, next(places), token_url=url)
        del data["token"]
        entry = MockConfigEntry(domain="geocast", title="Harbour", data=data)
        entry.add_to_hass(hass)
        house = await House(hass, entry).start()
        await house.until("connection", "on")
        assert not reauths(hass)
        for refused in (answers[1], (200, "bad.token.one")):
            answers[0] = refused
            await house.do(network.cut)
            await until_true(lambda: reauths(hass))
            hass.config_entries.flow.async_abort(reauths(hass)[0]["flow_id"])
            answers[0] = (200, node.token())
            await hass.config_entries.async_reload(entry.entry_id)
            await house.until("connection", "on")
        await hass.config_entries.async_unload(entry.entry_id)


# ---- forms ---------------------------------------------------------------------------------------------------------


async def test_form_of_a_new_entry_names_each_error_and_then_creates_it(hass, node, network):
    """The place is home, if the user does not choose another. A second entry for it is refused."""
    home = next(places)
    hass.config.latitude, hass.config.longitude = home
    form = await hass.config_entries.flow.async_init("geocast", context={"source": SOURCE_USER})
    [field] = [key for key in form["data_schema"].schema if key == "location"]
    location = field.description["suggested_value"]
    assert location == {"latitude": home[0], "longitude": home[1]}

    good = {"url": f"http://127.0.0.1:{network.port}/", "token": f" {node.token()}\n", "location": location}
    errors = [
        ({"url": "harbour.example"}, {"url": "invalid_url"}, ""),
        ({"url": "https://user@harbour.example"}, {"url": "invalid_url"}, ""),
        ({"token_url": "https://tokens.example"}, {"token_url": "two_tokens"}, ""),
        ({"token": "", "token_url": "tokens.example"}, {"token_url": "invalid_token_url"}, ""),
        ({"token": "bad"}, {"base": "invalid_auth"}, "the token is missing, invalid or expired"),
        ({"token": ""}, {"base": "invalid_auth"}, "the token is missing, invalid or expired"),
        ({"token": node.token("alerts:publish")}, {"base": "invalid_auth"}, "may not receive alerts"),
        ({"url": f"http://127.0.0.1:{network.port}/wrong"}, {"base": "cannot_connect"}, "answered 404"),
    ]
    for change, error, reason in errors:
        form = await hass.config_entries.flow.async_configure(form["flow_id"], good | change)
        assert (form["type"], form["errors"]) == (FlowResultType.FORM, error)
        assert reason in form["description_placeholders"]["reason"]
    await hass.async_add_executor_job(network.refuse)
    form = await hass.config_entries.flow.async_configure(form["flow_id"], good)
    assert form["errors"] == {"base": "cannot_connect"}
    assert "no connection to ws://127.0.0.1" in form["description_placeholders"]["reason"]

    await hass.async_add_executor_job(network.accept)
    created = await hass.config_entries.flow.async_configure(form["flow_id"], good)
    assert created["type"] == FlowResultType.CREATE_ENTRY
    assert created["title"] == "127.0.0.1"
    entry = created["result"]
    assert entry.data == data_for(node, network, home, token=entry.data["token"])
    house = await House(hass, entry).start()
    await house.until("connection", "on")

    form = await hass.config_entries.flow.async_init("geocast", context={"source": SOURCE_USER})
    second = await hass.config_entries.flow.async_configure(form["flow_id"], good)
    assert second["reason"] == "already_configured"
    await hass.config_entries.async_unload(entry.entry_id)


async def test_reconfigured_entry_follows_its_new_place(house, node):
    """The token stays."""
    token, place = house.entry.data["token"], next(places)
    context = {"source": SOURCE_RECONFIGURE, "entry_id": house.entry.entry_id}
    form = await house.hass.config_entries.flow.async_init("geocast", context=context)
    url, location = house.entry.data["url"], {"latitude": place[0], "longitude": place[1]}
    changes = {"url": url, "location": location, "min_severity": "minor"}
    done = await house.hass.config_entries.flow.async_configure(form["flow_id"], changes)
    assert done["reason"] == "reconfigure_successful"
    await house.hass.async_block_till_done()
    await house.until("connection", "on")
    await house.do(lambda: node.publish("at-the-new-place", place))
    await house.until("alert", "on")
    assert house.entry.data["token"] == token


def test_translations_have_each_field_of_each_form():
    """Otherwise a form would show the name in the code."""
    english = Path(geocast.__file__).parent / "translations" / "en.json"
    steps = json.loads(english.read_text("utf-8"))["config"]["step"]
    assert {step: list(shown["data"]) for step, shown in steps.items()} == {
        step: list(map(str, schema.schema)) for step, schema in SCHEMAS.items()
    }


# ---- diagnostics ---------------------------------------------------------------------------------------------------


async def test_diagnostics_contain_no_place_token_or_alert(house, node):
    """They have the state of the connection, and numbers."""
    await house.do(lambda: node.publish("not-in-diagnostics", house.place))
    await house.until("alert", "on")
    said = await async_get_config_entry_diagnostics(house.hass, house.entry)
    assert (said["connected"], said["alerts_here"]) == (True, 1)
    text = json.dumps(said)
    for secret in (*map(str, house.place), house.entry.data["token"], "not-in-diagnostics", "Fire"):
        assert secret not in text
