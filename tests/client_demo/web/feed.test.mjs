// Tests of the sources `feed` and `auto`, with a fake clock, a simulated server and a simulated feed.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { Geocast } from "../../../client_demo/web/geocast/geocast.js";
import { alert, AWAY, FakeClock, FakeFeed, FakeSocket, HOME, memory } from "./fakes.mjs";

const FEED = "https://node/v1/alerts.geojson";
const SOCKET = { url: "ws://node/v1/stream", source: "auto" };
const THERE = { area: [{ type: "circle", ...AWAY, radius_m: 1_000 }] };
let clock;
let feed;
let open;

beforeEach(() => {
  clock = new FakeClock();
  [feed, open, FakeSocket.all] = [new FakeFeed(clock), [], []];
});
afterEach(() => {
  for (const geocast of open) geocast.close();
  assert.equal(clock.timers.size, 0, "a timer was left");
});

/** Return a client that follows the feed (or tries to connect, with SOCKET), and what it reports. */
async function start(options = {}) {
  const usual = { source: "feed", feed: FEED, places: [HOME], storage: null, random: () => 1, clock };
  const geocast = new Geocast({ ...usual, fetch: feed.fetch, WebSocket: FakeSocket, ...options });
  open.push(geocast);
  const events = [];
  for (const name of ["alert", "update", "cancel", "expire"])
    geocast.on(name, ({ alert: { id, revision }, cause, reason, affected }) =>
      events.push([name, id, revision, cause ?? reason, affected ? "here" : "away"].filter(Boolean).join(" ")),
    );
  geocast.on("error", ({ code }) => events.push(`error ${code}`));
  await settle();
  return { geocast, events, took: () => events.splice(0) };
}

/** Let pending promises finish. */
async function settle() {
  for (let turn = 0; turn < 6; turn++) await clock.pass(0);
}

/** Let half a minute pass, after which the client asks again. */
async function next() {
  await clock.pass(30_000);
  await settle();
}

const ids = (geocast) => geocast.held().map((held) => held.alert.id);

// ---- following the feed ----

test("a late joiner gets what concerns its places, the most severe first, and asks without naming them", async () => {
  feed.put("minor", { severity: "minor" });
  feed.put("there", THERE);
  feed.put("extreme", { severity: "extreme" });
  const { geocast, took } = await start();
  assert.deepEqual(took(), ["alert extreme 1 here", "alert minor 1 here"]);
  assert.deepEqual(geocast.status, { state: "online", source: "feed", lateMs: 36_000 });
  const [[url, { signal, ...request }]] = feed.asked;
  assert.deepEqual([url, request], [FEED, { cache: "no-cache", credentials: "omit", referrerPolicy: "no-referrer" }]);
  assert.equal(FakeSocket.all.length, 0);
});

test("a revision that leaves us is an update, a tombstone a cancel, and a missing alert stays", async () => {
  for (const id of ["leaves", "ends", "missing"]) feed.put(id);
  const { geocast, took } = await start();
  took();
  feed.put("leaves", { revision: 2, ...THERE });
  feed.cancel("ends", 2);
  feed.cancel("unknown", 2);
  feed.features = feed.features.filter(({ id }) => id !== "missing");
  await next();
  assert.deepEqual(took(), ["cancel ends 1 Over. here", "update leaves 2 revision away"]);
  assert.deepEqual(ids(geocast).sort(), ["leaves", "missing"]);
  feed.put("ends"); // a node that is behind
  await next();
  assert.deepEqual(took(), []);
});

test("an unchanged document costs a 304 and repeats no event", async () => {
  feed.put("a");
  const { took } = await start();
  took();
  await next();
  await next();
  assert.equal(feed.asked.length, 3);
  assert.match(feed.asked[2][1].headers["If-None-Match"], /^"/);
  assert.deepEqual(took(), []);
});

test("moving and filtering decide again at once, without a request", async () => {
  feed.put("there", { ...THERE, severity: "minor" });
  feed.put("extreme", { ...THERE, severity: "extreme", category: "robbery" });
  const { geocast, took } = await start({ filter: { min_severity: "severe", categories: ["arson"] } });
  assert.equal(await geocast.setPlaces([AWAY]), true);
  assert.deepEqual(took(), ["alert extreme 1 here"]);
  assert.equal(await geocast.setFilter({ min_severity: null }), true);
  assert.deepEqual(took(), ["alert there 1 here"]);
  await geocast.setPosition(HOME);
  await geocast.setPlaces([]);
  assert.deepEqual(took(), ["update extreme 1 moved away", "update there 1 moved away"]);
  assert.equal(feed.asked.length, 1);
});

test("accuracy, cells and the edge of a circle count as on the stream", async () => {
  const cell = { cellToLatLng: () => [HOME.lat, HOME.lng], cellToBoundary: () => [[HOME.lat + 0.01, HOME.lng]] };
  const h3 = { ...cell, isValidCell: () => true, getResolution: () => 8 };
  const near = (metres) => [{ type: "circle", lat: HOME.lat + (metres / 6_371_007.18) * (180 / Math.PI), lng: HOME.lng, radius_m: 100 }];
  feed.put("exact", { area: near(99) });
  feed.put("by-accuracy", { area: near(149) });
  feed.put("beyond", { area: near(151) });
  const { geocast, took } = await start({ places: [{ ...HOME, accuracy_m: 50 }], h3 });
  assert.deepEqual(took(), ["alert exact 1 here", "alert by-accuracy 1 here"]);
  geocast.setPlaces([{ cell: "8826cb19c9fffff" }]);
  assert.deepEqual(took(), ["alert beyond 1 here"]);
});

test("a shape of an unknown type contains nobody, because no server has decided (G4)", async () => {
  feed.put("strange", { area: [{ type: "blob" }] });
  feed.put("both", { area: [{ type: "blob" }, { type: "circle", ...HOME, radius_m: 10 }] });
  assert.deepEqual((await start()).took(), ["alert both 1 here"]);
});

test("an alert in several languages is taken in the wanted one (LA3)", async () => {
  const texts = [
    { language: "en", title: "Flood", headline: "Flood", instruction: "Go." },
    { language: "de-AT", title: "Hochwasser", headline: "Hochwasser" },
  ];
  feed.put("flood", { ...texts[0], languages: ["en", "de-AT"], texts: [null, ...texts] });
  for (const [languages, headline, instruction] of [
    [["fr", "de"], "Hochwasser", undefined],
    [["de-CH"], "Hochwasser", undefined],
    [["fr"], "Flood", "Go."],
  ]) {
    const { geocast } = await start({ languages });
    const [{ alert: shown }] = geocast.held();
    assert.deepEqual([shown.headline, shown.instruction, shown.texts], [headline, instruction, undefined]);
  }
});

test("alerts expire by the feed's clock, which a `Date` of the same second does not change", async () => {
  feed.put("brief", { expires_at: new Date(clock.wall + 10_400).toISOString() });
  const { geocast, took } = await start();
  assert.equal(geocast.now(), clock.wall);
  await clock.pass(10_399);
  assert.deepEqual(took(), ["alert brief 1 here"]);
  await clock.pass(1);
  assert.deepEqual(took(), ["expire brief 1 expired here"]);
});

test("a device whose clock is wrong follows the feed's clock", async () => {
  feed.ahead = 3_600_000;
  feed.put("over", { expires_at: new Date(clock.wall + 1_800_000).toISOString() });
  feed.put("live", { expires_at: new Date(clock.wall + 3_700_000).toISOString() });
  const { geocast, took } = await start();
  assert.deepEqual(took(), ["alert live 1 here"]);
  assert.equal(geocast.now(), clock.wall + 3_600_000);
  feed.ahead = 0; // the clock was wrong, and is corrected (C2a)
  await next();
  assert.deepEqual(took(), ["alert over 1 here"]);
});

test("check asks at once, and only one request is under way", async () => {
  const { geocast } = await start();
  geocast.check();
  geocast.check();
  await settle();
  assert.equal(feed.asked.length, 2);
});

test("a failing feed is asked again, not before its Retry-After, and says why", async () => {
  feed.put("a");
  const { geocast, took } = await start();
  for (const [failure, reason] of [
    ["offline", /reached/],
    [{ status: 503, headers: { "Retry-After": "100" } }, /503/],
    [{ status: 404 }, /404/],
    [{ body: "<html>" }, /GeoJSON/],
    [{ body: '{"features": 7}' }, /GeoJSON/],
    [{ hangs: true }, /in time/],
    [{ isDeaf: true }, /in time/],
  ]) {
    feed.failure = failure;
    geocast.check();
    await clock.pass(20_000);
    await settle();
    assert.equal(geocast.status.state, "waiting");
    assert.match(geocast.status.reason, reason);
    if (failure.headers) assert.ok(geocast.status.retryAt >= clock.wall + 80_000);
  }
  feed.failure = null;
  await clock.pass(600_000);
  await settle();
  assert.equal(geocast.status.state, "online");
  assert.deepEqual([took(), ids(geocast)], [["alert a 1 here"], ["a"]]);
});

test("an incomplete alert is reported once and takes nothing with it", async () => {
  feed.put("a");
  feed.features.push({ properties: { id: "b", area: [7] } }, null);
  const { took } = await start();
  assert.deepEqual(took(), ["error message", "alert a 1 here"]);
  await next();
  assert.deepEqual(took(), []);
});

test("after a reload the stored alerts are held and not told again; `ack` does nothing", async () => {
  const storage = memory();
  feed.put("a");
  const first = await start({ storage });
  first.geocast.ack({ id: "a", revision: 1 });
  await clock.pass(1_000);
  first.geocast.close();
  const second = await start({ storage });
  assert.deepEqual([second.took(), ids(second.geocast)], [[], ["a"]]);
  second.geocast.close();
  feed.cancel("a", 2);
  assert.deepEqual((await start({ storage })).took(), ["cancel a 1 Over. here"]);
});

test("unusable options throw at once without repeating their values", () => {
  const reviewers = { keys: { keys: [] }, audience: "a", approvals: 1 };
  const bad = [
    { source: "secret" },
    { feed: undefined },
    { feed: "wss://secret/v1" },
    { feed: `${FEED}?place=secret` },
    { feedEveryMs: 10 },
    { fetch: "secret" },
    { verify: reviewers },
    { source: "auto" },
  ];
  for (const options of bad)
    assert.throws(
      () => new Geocast({ source: "feed", feed: FEED, storage: null, WebSocket: FakeSocket, clock, ...options }),
      (error) => error instanceof TypeError && !/secret/.test(error.message),
    );
});

// ---- automatically ----

/** Fail to open a connection. */
async function fail() {
  const count = FakeSocket.all.length;
  FakeSocket.last.end(1006);
  await settle();
  return count;
}

test("auto follows the feed after three failures to connect, and connects again after ten minutes", async () => {
  feed.put("a");
  const { geocast, took } = await start({ ...SOCKET, random: () => 0 });
  for (let tries = 1; tries <= 2; tries++) {
    await fail();
    assert.deepEqual([geocast.status.state, geocast.status.source], ["waiting", undefined]);
    await clock.pass(1_000);
  }
  await fail();
  await settle();
  assert.deepEqual(geocast.status, { state: "online", source: "feed", lateMs: 36_000 });
  assert.deepEqual(took(), ["alert a 1 here"]);
  await clock.pass(539_000);
  assert.equal(FakeSocket.all.length, 3);
  await clock.pass(1_000);
  assert.equal(FakeSocket.all.length, 4);
  await fail();
  assert.equal(geocast.status.source, "feed");
  await clock.pass(540_000);
  FakeSocket.last.welcome(clock, { live: 1 });
  assert.deepEqual(FakeSocket.last.took("hello")[0].holding, { a: 1 });
  assert.equal(geocast.status.source, "feed", "not before everything has come");
  FakeSocket.last.say({ type: "alert", alert: alert(clock, "b") });
  assert.deepEqual(geocast.status, { state: "online" });
  const asked = feed.asked.length;
  await clock.pass(34_000);
  assert.equal(feed.asked.length, asked);
  assert.deepEqual([took(), ids(geocast).sort()], [["alert b 1 here"], ["a", "b"]]);
});

test("auto follows the feed after a minute without a connection", async () => {
  const { geocast } = await start({ ...SOCKET, random: () => 0.999 });
  FakeSocket.last.onopen(); // somebody answers, so that the next attempt does not come within seconds
  await fail();
  await clock.pass(59_000);
  assert.equal(geocast.status.source, undefined);
  await clock.pass(1_000);
  await settle();
  assert.equal(geocast.status.source, "feed");
  assert.ok(FakeSocket.all.length <= 3);
});

test("auto keeps what it holds when the connection is lost, and repeats no event", async () => {
  feed.put("a");
  const { geocast, took } = await start({ ...SOCKET, random: () => 0 });
  FakeSocket.last.welcome(clock, { retry: { min_ms: 100, max_ms: 1_000 } });
  FakeSocket.last.say({ type: "alert", alert: alert(clock, "a") });
  FakeSocket.last.end(1006);
  for (let tries = 1; tries <= 3; tries++) {
    await clock.pass(1_000);
    await fail();
  }
  assert.equal(geocast.status.source, "feed");
  assert.deepEqual(took(), ["alert a 1 here"]);
});

test("auto follows the feed when the server refuses us for good", async () => {
  feed.put("a");
  const { geocast, took } = await start(SOCKET);
  FakeSocket.last.onopen();
  FakeSocket.last.end(4403);
  await settle();
  assert.deepEqual(took(), ["error refused", "alert a 1 here"]);
  await clock.pass(3_000_000);
  assert.deepEqual([FakeSocket.all.length, geocast.status.source], [1, "feed"]);
});

test("auto follows the feed when no token can be fetched", async () => {
  const token = () => Promise.reject(new Error("offline"));
  const { geocast } = await start({ ...SOCKET, token, random: () => 0 });
  await clock.pass(3_000);
  await settle();
  assert.deepEqual([geocast.status.source, FakeSocket.all.length], ["feed", 0]);
});

// ---- by choice ----

test("the source can be changed: the connection is closed, what is held stays, and no event is repeated", async () => {
  feed.put("a");
  feed.put("b");
  const { geocast, took } = await start({ ...SOCKET, source: "socket" });
  FakeSocket.last.welcome(clock);
  FakeSocket.last.say({ type: "alert", alert: alert(clock, "a") });
  geocast.setSource("feed");
  assert.equal(FakeSocket.last.isClosed, 1000);
  await settle();
  assert.deepEqual([geocast.status.source, took()], ["feed", ["alert a 1 here", "alert b 1 here"]]);
  await clock.pass(3_000_000);
  assert.equal(FakeSocket.all.length, 1);
  geocast.setSource("socket");
  await settle();
  FakeSocket.last.welcome(clock);
  assert.deepEqual(FakeSocket.last.took("hello")[0].holding, { a: 1, b: 1 });
  assert.deepEqual([geocast.status, took()], [{ state: "online" }, []]);
  const asked = feed.asked.length;
  await clock.pass(20_000);
  assert.equal(feed.asked.length, asked);
});

test("a source that lacks its option is refused", async () => {
  const { geocast } = await start();
  assert.throws(() => geocast.setSource("socket"), TypeError);
  assert.throws(() => geocast.setSource("other"), TypeError);
  const { geocast: other } = await start({ ...SOCKET, source: "socket", feed: undefined });
  assert.throws(() => other.setSource("feed"), TypeError);
});
