// Tests of the client with a fake clock and a simulated server.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { setImmediate } from "node:timers/promises";

import { fetchLive, Geocast, watchPosition } from "../../../client_demo/web/geocast/geocast.js";
import { alert, AWAY, FakeClock, FakeSocket, HOME, memory, time } from "./fakes.mjs";

const URL_ = "ws://node/v1/stream";
let clock;
let open;

beforeEach(() => {
  [clock, open] = [new FakeClock(), []];
  FakeSocket.all = [];
});
afterEach(() => {
  for (const geocast of open) geocast.close();
  assert.equal(clock.timers.size, 0, "a timer was left");
});

/** Return a client, and what it reports as [name, id or code or state, …]. */
async function start(options = {}) {
  const geocast = new Geocast({
    url: URL_,
    places: [HOME],
    storage: null,
    random: () => 0,
    WebSocket: FakeSocket,
    clock,
    ...options,
  });
  open.push(geocast);
  const events = [];
  for (const name of ["alert", "update", "cancel", "expire"])
    geocast.on(name, (event) =>
      events.push([name, event.alert.id, event.cause ?? event.reason].filter(Boolean).join(" ")),
    );
  geocast.on("error", (problem) => events.push(`error ${problem.code}`));
  for (let turn = 0; turn < 3; turn++) await clock.pass(0);
  return { geocast, events };
}

/** Return a client that is online. */
async function join(options) {
  const joined = await start(options);
  FakeSocket.last.welcome(clock);
  assert.equal(joined.geocast.status.state, "online");
  return { ...joined, socket: FakeSocket.last };
}

const tell = (socket, id, fields) => socket.say({ type: "alert", alert: alert(clock, id, fields) });
const ids = (geocast) => geocast.held().map((held) => held.alert.id);

// ---- options ----

test("unusable options throw at once without repeating their values", () => {
  const bad = [
    { url: "https://node/v1/stream" },
    { languages: "de" },
    { url: "ws://node/v1/stream?token=secret" },
    { url: "" },
    { token: 7 },
    { places: [{ lat: 99, lng: 0 }] },
    { places: Array(9).fill(HOME) },
    { places: [{ cell: "89283082803ffff" }] },
    { filter: { categories: "secret" } },
    { WebSocket: null, url: undefined },
  ];
  for (const options of bad)
    assert.throws(
      () => new Geocast({ url: URL_, WebSocket: FakeSocket, storage: null, clock, ...options }),
      (error) => error instanceof TypeError && !/secret/.test(error.message),
    );
});

test("calls with unusable arguments throw and change nothing", async () => {
  const { geocast, socket } = await join();
  assert.throws(() => geocast.setPlaces(Array(9).fill(HOME)), TypeError);
  assert.throws(() => geocast.setPosition({ lat: 1 }), TypeError);
  assert.throws(() => geocast.setFilter({ categories: 3 }), TypeError);
  assert.throws(() => watchPosition(geocast, { geolocation: {}, resolution: 9 }), TypeError);
  assert.deepEqual(geocast.places, [HOME]);
  assert.deepEqual(socket.took("move"), []);
});

// ---- a test of one's own (TR1) ----

test("a test alert is asked for, and comes like any alert", async () => {
  const { geocast, events, socket } = await join();
  const tried = geocast.try();
  assert.equal(geocast.try(), tried); // a second click is the same request
  const [asked, ...more] = socket.took("try");
  assert.deepEqual(more, []);
  assert.match(asked.id, /^[A-Za-z0-9._:-]{8,64}$/);
  socket.say({ type: "ok", ref: asked.ref, live: 1 });
  assert.deepEqual(await tried, { id: `try:${asked.id}` });
  tell(socket, `try:${asked.id}`, { status: "test" });
  assert.deepEqual(events, [`alert try:${asked.id}`]);
});

test("a test that is refused has a reason, and the wait", async () => {
  const { geocast, socket } = await join();
  for (const [code, retry_after_s] of [["rate-limited", 1_200], ["no-place"], ["unknown-type"]]) {
    const tried = geocast.try();
    const [{ ref }] = socket.took("try");
    socket.say({ type: "error", ref, code, detail: "no", retry_after_s });
    assert.deepEqual(await tried, { reason: code, ...(retry_after_s && { retryAfterS: retry_after_s }) });
  }
});

test("a test without a connection, or whose connection ends, is not sent later", async () => {
  const { geocast } = await start();
  assert.deepEqual(await geocast.try(), { reason: "not-connected" });
  FakeSocket.last.welcome(clock);
  const tried = geocast.try();
  FakeSocket.last.end(1012);
  assert.deepEqual(await tried, { reason: "not-connected" });
  await clock.pass(2_000);
  FakeSocket.last.welcome(clock);
  assert.deepEqual(FakeSocket.last.took("try"), []);
});

// ---- reconnecting ----

test("each hello has the current places, filter and held alerts", async () => {
  const { geocast, socket } = await join({ filter: { min_severity: "severe", categories: null }, token: "jwt" });
  assert.deepEqual(socket.took("hello"), [{ type: "hello", token: "jwt", places: [HOME], min_severity: "severe" }]);
  tell(socket, "a");
  geocast.setPosition(AWAY);
  geocast.setFilter({ categories: ["arson"], min_severity: null });
  socket.end(1001);
  await clock.pass(2_000);
  FakeSocket.last.onopen();
  assert.deepEqual(FakeSocket.last.took("hello"), [
    { type: "hello", token: "jwt", places: [AWAY, HOME], holding: { a: 1 }, categories: ["arson"] },
  ]);
});

test("languages are sent in the first hello, in the server's form, and changed by a filter (LA2)", async () => {
  const languages = ["de-AT", "x", "de-DE-u-co-phonebk", "de-AT", ..."abcdefgh"].map((tag) => (tag.length > 1 ? tag : `${tag}${tag}`));
  const { geocast, socket } = await join({ languages: [...languages, 5], filter: { min_severity: "severe" } });
  const wanted = ["de-AT", "xx", "aa", "bb", "cc", "dd", "ee", "ff"];
  const [hello] = socket.took("hello");
  assert.deepEqual([hello.languages, hello.min_severity], [wanted, "severe"]);
  geocast.setFilter({ languages: null });
  assert.deepEqual(socket.took("filter"), [{ type: "filter", ref: 1, languages: null }]);
  socket.end(1012);
  await clock.pass(2_000);
  FakeSocket.last.onopen();
  assert.equal("languages" in FakeSocket.last.took("hello")[0], false);
});

test("languages are withheld from an older server until it shows that it knows them (LA2)", async () => {
  const { geocast } = await start({ languages: ["de"] });
  FakeSocket.last.onopen();
  assert.deepEqual(FakeSocket.last.took("hello")[0].languages, ["de"]);
  FakeSocket.last.end(4400);
  assert.equal(geocast.status.state, "waiting");
  await clock.pass(0); // at once
  FakeSocket.last.welcome(clock);
  assert.equal("languages" in FakeSocket.last.took("hello")[0], false);
  assert.equal(await geocast.setFilter({ languages: ["fr"] }), true);
  assert.deepEqual(FakeSocket.last.took("filter"), []);
  FakeSocket.last.end(1012);
  await clock.pass(2_000);
  FakeSocket.last.welcome(clock, { languages: [] });
  assert.equal("languages" in FakeSocket.last.took("hello")[0], false);
  assert.deepEqual(FakeSocket.last.took("filter"), [{ type: "filter", ref: 1, languages: ["fr"] }]);
  FakeSocket.last.end(1012);
  await clock.pass(2_000);
  FakeSocket.last.welcome(clock, { languages: ["fr"] });
  assert.deepEqual(FakeSocket.last.took("hello")[0].languages, ["fr"]);
  FakeSocket.last.end(4400); // the hello was accepted, so languages are not the reason
  assert.equal(geocast.status.state, "stopped");
});

test("a malformed hello without languages ends the client (LA2)", async () => {
  const { geocast } = await start({ languages: ["de"] });
  FakeSocket.last.onopen();
  FakeSocket.last.end(4400);
  await clock.pass(0);
  FakeSocket.last.onopen();
  FakeSocket.last.end(4400);
  assert.equal(geocast.status.state, "stopped");
  assert.equal(FakeSocket.all.length, 2);
});

test("fetchLive tries once more without languages (LA2)", async () => {
  const fetched = fetchLive({ url: URL_, languages: ["de"], WebSocket: FakeSocket, clock });
  for (let turn = 0; turn < 3; turn++) await clock.pass(0);
  FakeSocket.last.onopen();
  FakeSocket.last.end(4400);
  for (let turn = 0; turn < 3; turn++) await clock.pass(0);
  FakeSocket.last.welcome(clock);
  assert.deepEqual((await fetched).alerts, []);
  assert.deepEqual(FakeSocket.all.map((socket) => socket.took("hello")[0].languages), [["de"], undefined]);
  const again = assert.rejects(fetchLive({ url: URL_, WebSocket: FakeSocket, clock }), { closeCode: 4400 });
  for (let turn = 0; turn < 3; turn++) await clock.pass(0);
  FakeSocket.last.onopen();
  FakeSocket.last.end(4400);
  await again;
});

test("the delay is random within the server's window, which doubles with each failure", async () => {
  const { geocast, socket } = await join({ random: () => 0.999999 });
  let high = 10_000;
  socket.end(1006);
  for (const _ of [1, 2, 3, 4, 5, 6]) {
    assert.equal(Math.round((geocast.status.retryAt - clock.wall) / 10), high / 10);
    const before = FakeSocket.all.length;
    await clock.pass(high - 10);
    assert.equal(FakeSocket.all.length, before);
    await clock.pass(10);
    assert.equal(FakeSocket.all.length, before + 1);
    FakeSocket.last.end(1006);
    high = Math.min(2 * high, 120_000);
  }
});

test("a handshake or welcome that takes longer than 10 s is given up", async () => {
  const { geocast } = await start();
  for (const act of [() => {}, () => FakeSocket.last.onopen()]) {
    act();
    await clock.pass(9_999);
    assert.equal(geocast.status.state, "connecting");
    await clock.pass(1);
    assert.equal(geocast.status.state, "waiting");
    assert.ok(FakeSocket.last.isClosed);
    await clock.pass(1_000);
  }
});

test("after a 4420 the client reconnects at once the first time, and later the next time", async () => {
  const { geocast, socket } = await join();
  socket.end(4420);
  await clock.pass(0);
  assert.equal(FakeSocket.all.length, 2);
  FakeSocket.last.welcome(clock);
  FakeSocket.last.end(4420);
  assert.equal(geocast.status.retryAt - clock.wall, 10_000);
});

test("codes of a bug, and 4403, end the client; held alerts still expire", async () => {
  for (const code of [1002, 1003, 1007, 1009, 4400, 4403]) {
    const { geocast, events, socket } = await join();
    tell(socket, "a");
    socket.end(code);
    assert.deepEqual([geocast.status.state, geocast.status.code], ["stopped", code]);
    const before = FakeSocket.all.length;
    await clock.pass(3_600_000);
    assert.equal(FakeSocket.all.length, before);
    assert.deepEqual(events, ["alert a", "expire a expired"]);
  }
});

test("a server without our subprotocol, or a url that the browser refuses, ends the client", async () => {
  const { geocast } = await start();
  FakeSocket.last.protocol = "";
  FakeSocket.last.onopen();
  assert.equal(geocast.status.state, "stopped");
  const refusing = await start({
    WebSocket: class {
      constructor() {
        throw new DOMException("mixed content");
      }
    },
  });
  assert.equal(refusing.geocast.status.state, "stopped");
});

test("the client is online when all messages announced by the welcome have come", async () => {
  const { geocast } = await start();
  FakeSocket.last.welcome(clock, { live: 2 });
  assert.equal(geocast.status.state, "connecting");
  FakeSocket.last.say({ type: "cancel", id: "b", revision: 2, reason: "", cancelled_at: "" });
  tell(FakeSocket.last, "a");
  assert.equal(geocast.status.state, "online");
});

test("a welcome with malformed fields is accepted, and the window does not change", async () => {
  const { geocast } = await start();
  FakeSocket.last.welcome(clock, {
    live: "many",
    retry: { min_ms: "soon" },
    heartbeat_s: -1,
    now: 7,
    token_expires_at: {},
  });
  assert.equal(geocast.status.state, "online");
  FakeSocket.last.end(1006);
  assert.equal(geocast.status.retryAt - clock.wall, 1_000);
});

// ---- silent connections ----

test("the client pings after 25 s without a message, and gives the connection up 10 s later", async () => {
  const { geocast, socket } = await join();
  await clock.pass(24_000);
  tell(socket, "a");
  await clock.pass(24_999);
  assert.deepEqual(socket.took("ping"), []);
  await clock.pass(1);
  assert.equal(socket.took("ping").length, 1);
  socket.say({ type: "pong", now: time(clock.wall) });
  await clock.pass(25_000);
  assert.equal(socket.took("ping").length, 1);
  await clock.pass(9_999);
  assert.equal(geocast.status.state, "online");
  await clock.pass(1);
  assert.deepEqual([geocast.status.state, geocast.status.code, socket.isClosed], ["waiting", 1006, 1000]);
});

test("after a short sleep the client pings; after a long one it reconnects and ignores old messages", async () => {
  const { geocast, socket, events } = await join();
  tell(socket, "a", { expires_at: time(clock.wall + 600_000) });
  clock.sleep(20_000);
  geocast.check();
  assert.equal(socket.took("ping").length, 1);
  clock.sleep(900_000);
  assert.deepEqual(geocast.held(), [], "the ended alert is not held, even for a moment");
  socket.say({ type: "pong", now: time(clock.wall - 900_000) });
  assert.equal(geocast.status.state, "waiting");
  assert.deepEqual(geocast.held(), []);
  await clock.pass(2_000);
  assert.equal(FakeSocket.all.length, 2);
  assert.deepEqual(events, ["alert a", "expire a expired"]);
});

test("a short sleep is detected by the timer, and an answer that comes too late is ignored", async () => {
  const { geocast, socket } = await join();
  clock.sleep(6_000);
  await clock.pass(15_000);
  assert.equal(socket.took("ping").length, 1);
  clock.sleep(20_000);
  socket.say({ type: "pong", now: time(clock.wall - 20_000) });
  assert.equal(geocast.status.state, "waiting");
  tell(socket, "a");
  socket.end(4403);
  assert.deepEqual([geocast.status.state, geocast.held()], ["waiting", []], "messages of a lost connection are ignored");
});

test("a message that was in transit when the device went to sleep is requested again", async () => {
  const { geocast, socket } = await join();
  clock.sleep(120_000);
  tell(socket, "a");
  assert.deepEqual([geocast.status.state, geocast.held()], ["waiting", []]);
  await clock.pass(2_000);
  FakeSocket.last.welcome(clock);
  tell(socket, "a");
  assert.deepEqual(geocast.held(), []);
});

test("an alert ended only by the server's clock is shown again when that clock is right", async () => {
  const { geocast, socket, events } = await join();
  tell(socket, "a");
  await clock.pass(25_000);
  socket.say({ type: "pong", now: time(clock.wall + 7_200_000) });
  assert.deepEqual([geocast.held(), events], [[], ["alert a", "expire a expired"]]);
  geocast.setPlaces([AWAY]);
  geocast.setPlaces([HOME]);
  socket.end(1012);
  await clock.pass(2_000);
  FakeSocket.last.onopen();
  assert.deepEqual(FakeSocket.last.took("hello")[0].holding, { a: 1 });
  FakeSocket.last.welcome(clock);
  assert.deepEqual([ids(geocast), events.at(-1), events.length], [["a"], "alert a", 3]);
  await clock.pass(3_600_000);
  assert.deepEqual([geocast.held(), events.at(-1)], [[], "expire a expired"]);
});

test("an alert that has ended on arrival makes the client ask for the time, and is shown if it is live", async () => {
  const { geocast, events } = await start();
  FakeSocket.last.welcome(clock, { now: time(clock.wall + 7_200_000) });
  for (const id of ["a", "b"]) tell(FakeSocket.last, id);
  assert.deepEqual([geocast.held(), FakeSocket.last.took("ping").length > 0], [[], true]);
  FakeSocket.last.say({ type: "pong", now: time(clock.wall) });
  assert.deepEqual([ids(geocast), events], [["a", "b"], ["alert a", "alert b"]]);
  tell(FakeSocket.last, "ended", { issued_at: time(clock.wall - 2), expires_at: time(clock.wall - 2) });
  assert.deepEqual(FakeSocket.last.took("ping"), []);
});

test("an alert ended by a wrong clock is kept over a page load, and shown when the clock is right", async () => {
  const storage = memory();
  const { geocast, socket } = await join({ storage });
  tell(socket, "a");
  await clock.pass(25_000);
  socket.say({ type: "pong", now: time(clock.wall + 7_200_000) });
  geocast.close();
  const again = await start({ storage });
  assert.deepEqual([again.geocast.held(), again.events], [[], []]);
  FakeSocket.last.onopen();
  assert.deepEqual(FakeSocket.last.took("hello")[0].holding, { a: 1 });
  FakeSocket.last.welcome(clock);
  assert.deepEqual([ids(again.geocast), again.events], [["a"], ["alert a"]]);
});

test("a clock set back has no effect; a clock set forward by a year costs one connection", async () => {
  const { geocast, socket } = await join();
  tell(socket, "a");
  clock.sleep(-86_400_000);
  await clock.pass(25_000);
  assert.equal(socket.took("ping").length, 1, "the client still notices the silence");
  socket.say({ type: "pong", now: time(clock.wall + 86_400_000) });
  assert.deepEqual(ids(geocast), ["a"]);
  clock.sleep(365 * 86_400_000);
  await clock.pass(15_000);
  assert.equal(geocast.status.state, "waiting", "the reconnected client gets alerts again that were dropped by mistake");
  assert.deepEqual(geocast.held(), []);
});

test("an `online` event of the browser makes a new random delay, but never a later one", async () => {
  const listeners = {};
  globalThis.window = {
    addEventListener: (name, call) => (listeners[name] = call),
    removeEventListener: (name) => delete listeners[name],
  };
  globalThis.document = { ...globalThis.window, visibilityState: "visible" };
  try {
    const draws = [0.9, 0.9, 0.9, 0.5, 0.9];
    const { geocast } = await start({ random: () => draws.shift() });
    for (const _ of [1, 2]) {
      FakeSocket.last.onopen();
      FakeSocket.last.end(1006);
      await clock.pass(geocast.status.retryAt - clock.wall);
    }
    FakeSocket.last.end(1006);
    assert.ok(geocast.status.retryAt - clock.wall > 100_000);
    listeners.online();
    assert.equal(geocast.status.retryAt - clock.wall, 15_500);
    listeners.online();
    assert.equal(geocast.status.retryAt - clock.wall, 15_500);
    await clock.pass(15_500);
    FakeSocket.last.welcome(clock);
    listeners.visibilitychange();
    assert.equal(FakeSocket.last.took("ping").length, 1);
    geocast.close();
    assert.deepEqual(listeners, {});
  } finally {
    delete globalThis.window;
    delete globalThis.document;
  }
});

// ---- held alerts ----

test("only a higher revision replaces an alert, and a cancelled id does not come back", async () => {
  const { geocast, events, socket } = await join();
  for (const revision of [2, 1, 2, 3]) tell(socket, "a", { revision });
  const cancel = { type: "cancel", id: "a", reason: "over", cancelled_at: time(clock.wall) };
  socket.say({ ...cancel, revision: 3 });
  socket.say({ ...cancel, revision: 4, id: "never heard of" });
  socket.say({ ...cancel, revision: 4 });
  tell(socket, "a", { revision: 5 });
  assert.deepEqual(events, ["alert a", "update a revision", "cancel a over"]);
  assert.deepEqual(geocast.held(), []);
});

test("an alert that arrives after we left is held silently until we are inside", async () => {
  const { geocast, events, socket } = await join();
  geocast.setPlaces([AWAY]);
  tell(socket, "a");
  assert.deepEqual([events, geocast.held()[0].affected], [[], false]);
  geocast.setPlaces([HOME]);
  geocast.setPlaces([AWAY]);
  assert.deepEqual(events, ["alert a", "update a moved"]);
});

test("the most severe alerts come first, then the latest issued", async () => {
  const { geocast, socket } = await join();
  tell(socket, "old", { issued_at: time(clock.wall - 1) });
  tell(socket, "minor", { severity: "minor" });
  tell(socket, "new");
  tell(socket, "extreme", { severity: "extreme" });
  assert.deepEqual(ids(geocast), ["extreme", "new", "old", "minor"]);
});

test("an alert is dropped when it ends, and an ended one is not shown", async () => {
  const { geocast, events, socket } = await join();
  tell(socket, "over", { expires_at: time(clock.wall) });
  tell(socket, "a", { expires_at: time(clock.wall + 1_000) });
  await clock.pass(999);
  assert.deepEqual(ids(geocast), ["a"]);
  await clock.pass(1);
  assert.deepEqual(events, ["alert a", "expire a expired"]);
});

test("at most 256 alerts are listed, those that expire last; the others are dropped first", async () => {
  const { geocast, events, socket } = await join();
  for (let n = 0; n < 300; n++) tell(socket, `a${n}`, { expires_at: time(clock.wall + 3_600_000 + n) });
  socket.end(1006);
  await clock.pass(2_000);
  FakeSocket.last.onopen();
  const { holding } = FakeSocket.last.took("hello")[0];
  assert.deepEqual([Object.keys(holding).length, holding.a299, holding.a43], [256, 1, undefined]);
  assert.equal(events.filter((event) => event.endsWith("dropped")).length, 44);
  assert.equal(geocast.held().length, 256);
});

test("the memory of cancelled ids is bounded", async () => {
  const { geocast, socket } = await join();
  for (let n = 0; n < 4_200; n++) tell(socket, `a${n}`);
  assert.equal(geocast.held().length, 4_096);
});

test("unknown messages are ignored, malformed ones are reported, and later ones are read", async () => {
  const { geocast, events, socket } = await join();
  socket.say({ type: "weather", alert: alert(clock, "x") });
  for (const frame of ["{", "[]", "null", "7", "{}", '{"type":7}']) socket.say(frame);
  for (const hostile of [
    null,
    7,
    {},
    { id: "y" },
    alert(clock, "y", { area: [null] }),
    alert(clock, "y", { expires_at: "soon" }),
  ])
    socket.say({ type: "alert", alert: hostile });
  socket.say({ type: "cancel", id: {}, revision: "9" });
  socket.say({ type: "pong", now: "late" });
  assert.deepEqual(new Set(events), new Set(["error message"]));
  tell(socket, "a", { area: [{ type: "polygon", points: [[1, 2]] }], added: { later: true } });
  tell(socket, "constructor");
  assert.deepEqual(ids(geocast).sort(), ["a", "constructor"]);
  socket.end(1006);
  await clock.pass(2_000);
  FakeSocket.last.onopen();
  assert.deepEqual(Object.entries(FakeSocket.last.took("hello")[0].holding).sort(), [
    ["a", 1],
    ["constructor", 1],
  ]);
});

test("a listener that throws does not disturb others", async () => {
  const { geocast, events, socket } = await join();
  geocast.on("alert", () => {
    throw new Error("mine");
  });
  const later = [];
  geocast.on("alert", ({ alert }) => later.push(alert.id));
  const off = geocast.on("alert", () => later.push("never"));
  off();
  tell(socket, "a");
  assert.deepEqual([later, events], [["a"], ["alert a", "error listener"]]);
});

// ---- sending ----

test("one move is in progress at a time, and only the last waiting one is sent", async () => {
  const { geocast, socket } = await join();
  const answers = [1, 2, 3].map((lat) => geocast.setPlaces([{ lat, lng: 0 }]));
  const [first] = socket.took("move");
  assert.deepEqual([first.places, socket.took("move")], [[{ lat: 1, lng: 0 }], []]);
  socket.say({ type: "ok", ref: first.ref, live: 0 });
  const [second] = socket.took("move");
  assert.deepEqual(second.places, [{ lat: 3, lng: 0 }]);
  socket.say({ type: "error", code: "bad-field", detail: "no", ref: second.ref });
  assert.deepEqual(await Promise.all(answers), [true, false, false]);
});

test("a move without an answer returns false after a while; offline it returns false at once", async () => {
  const { geocast, socket } = await join();
  const [move, filter] = [geocast.setPlaces([]), geocast.setFilter({ categories: null })];
  socket.end(1006);
  assert.deepEqual(await Promise.all([move, filter, geocast.setPlaces([HOME])]), [false, false, false]);
});

test("a move between hello and welcome is sent after the welcome", async () => {
  const { geocast } = await start();
  const socket = FakeSocket.last;
  socket.onopen();
  geocast.setPlaces([AWAY]);
  assert.deepEqual([socket.took("hello")[0].places, socket.took("move")], [[HOME], []]);
  socket.say({ type: "welcome", now: time(clock.wall), live: 0, heartbeat_s: 25, retry: { min_ms: 1, max_ms: 2 } });
  await clock.pass(15_000);
  assert.deepEqual(socket.took("move")[0].places, [AWAY]);
});

test("many acknowledgements are paced below the server's limit, and a ping overtakes them", async () => {
  const { geocast, socket } = await join();
  for (let n = 0; n < 300; n++) geocast.ack({ id: `a${n}`, revision: 1 });
  assert.ok(socket.took("ack").length < 200);
  await clock.pass(5_000);
  assert.equal(socket.took("ack").length, 40);
  geocast.check();
  await clock.pass(125);
  assert.equal(socket.took("ping").length, 1);
  socket.say({ type: "pong", now: time(clock.wall) });
  await clock.pass(9_000);
  assert.ok(socket.took("ack").length > 55);
});

test("the queue of acknowledgements is bounded", async () => {
  const { geocast, socket } = await join();
  for (let n = 0; n < 2_000; n++) geocast.ack({ id: `a${n}`, revision: 1 });
  for (let passed = 0; passed < 300_000; passed += 10_000) {
    await clock.pass(10_000);
    socket.say({ type: "pong", now: time(clock.wall) });
  }
  assert.equal(socket.took("ack").length, 199 + 1_000);
});

// ---- tokens ----

const jwt = (exp, name) => `h.${btoa(JSON.stringify({ exp: exp / 1_000, name }))}.s`;

test("a token is renewed a minute before it expires; while there is none, it is requested every 5 s", async () => {
  const tokens = ["first"];
  const { events, socket } = await join({ token: async () => tokens.shift() ?? Promise.reject(new Error("down")) });
  socket.end(1006);
  tokens.push("again");
  await clock.pass(2_000);
  const link = FakeSocket.last;
  link.welcome(clock, { token_expires_at: time(clock.wall + 600_000) });
  const second = jwt(clock.wall + 1_200_000, "second");
  const beat = async (ms) => {
    for (let passed = 0; passed < ms; passed += 20_000) {
      await clock.pass(Math.min(20_000, ms - passed));
      link.say({ type: "pong", now: time(clock.wall) });
    }
  };
  await beat(539_999);
  assert.deepEqual(events, []);
  await clock.pass(1);
  assert.deepEqual([events, link.took("token")], [["error token"], []]);
  tokens.push(second);
  await clock.pass(5_000);
  assert.deepEqual(link.took("token"), [{ type: "token", ref: 1, token: second }]);
  tokens.push("third");
  await beat(594_999);
  assert.deepEqual(link.took("token"), []);
  await clock.pass(1);
  assert.deepEqual(link.took("token"), [], "a token request is already under way");
  link.say({ type: "ok", ref: 1, live: 0 });
  assert.deepEqual(link.took("token"), [{ type: "token", ref: 2, token: "third" }]);
});

test("the same token again does not count as a fresh one", async () => {
  const { socket } = await start({ token: () => "same" });
  FakeSocket.last.welcome(clock, { token_expires_at: time(clock.wall + 20_000) });
  await clock.pass(18_000);
  assert.deepEqual([socket, FakeSocket.last.took("token")], [undefined, []]);
});

test("a token function that throws, returns nonsense or never returns is called again within the window", async () => {
  const ways = [
    () => {
      throw new Error("no");
    },
    () => 7,
    () => new Promise(() => {}),
    () => "good",
  ];
  const { geocast, events } = await start({ token: () => ways.shift()() });
  assert.equal(geocast.status.state, "waiting");
  await clock.pass(1_000 + 1_000 + 30_000 + 1_000);
  FakeSocket.last.welcome(clock);
  assert.deepEqual([geocast.status.state, FakeSocket.last.took("hello")[0].token], ["online", "good"]);
  assert.deepEqual(events, ["error token", "error token", "error token"]);
});

test("a token that comes after close opens no connection", async () => {
  let give;
  const { geocast } = await start({ token: () => new Promise((resolve) => (give = resolve)) });
  geocast.close();
  give("late");
  await clock.pass(60_000);
  assert.equal(FakeSocket.all.length, 0);
});

// ---- the storage ----

for (const isSlow of [false, true]) {
  test(`held alerts are kept in a storage that answers ${isSlow ? "later" : "at once"}`, async () => {
    const storage = memory(isSlow);
    const { socket, geocast } = await join({ storage });
    tell(socket, "a");
    tell(socket, "b", { revision: 2 });
    socket.say({ type: "cancel", id: "b", revision: 3, reason: "over", cancelled_at: "" });
    await clock.pass(250);
    await setImmediate();
    assert.doesNotMatch([...storage.entries.values()].join(), /"places"|"token"/);
    geocast.close();
    const second = await start({ storage, places: undefined });
    await clock.pass(10);
    assert.deepEqual(
      second.geocast.held().map(({ alert, affected }) => [alert.id, affected]),
      [["a", true]],
    );
    FakeSocket.last.welcome(clock);
    second.events.length = 0;
    tell(FakeSocket.last, "b", { revision: 2 });
    assert.deepEqual(second.events, []);
    second.geocast.close();
    await second.geocast.forget();
    assert.equal(storage.entries.size, 0);
  });
}

test("alerts cancelled by another page are not stored again, and alerts shown there count as shown", async () => {
  const storage = memory();
  const { socket, geocast } = await join({ storage });
  tell(socket, "a");
  tell(socket, "b");
  await clock.pass(250);
  const beside = await join({ storage });
  beside.socket.say({ type: "cancel", id: "a", revision: 2, reason: "over", cancelled_at: "" });
  await clock.pass(250);
  tell(socket, "c");
  geocast.close();
  beside.geocast.close();
  const stored = JSON.parse([...storage.entries.values()][0]);
  assert.deepEqual(stored.held.map(({ alert }) => alert.id).sort(), ["b", "c"]);
  const third = await start({ storage });
  assert.deepEqual(ids(third.geocast).sort(), ["b", "c"]);
  assert.deepEqual(third.events, []);
});

test("a stored alert ends at its end on a device whose clock is wrong", async () => {
  const storage = memory();
  const { socket, geocast } = await start({ storage });
  FakeSocket.last.welcome(clock, { now: time(clock.wall - 7_200_000) });
  FakeSocket.last.say({ type: "alert", alert: alert(clock, "a", { expires_at: time(clock.wall - 7_000_000) }) });
  assert.equal(socket, undefined);
  geocast.close();
  const second = await start({ storage });
  assert.deepEqual(ids(second.geocast), ["a"]);
  await clock.pass(200_000);
  assert.deepEqual(second.events, ["expire a expired"]);
});

test("a storage that never answers is not waited for", async () => {
  const silent = { getItem: () => new Promise(() => {}), setItem() {}, removeItem() {} };
  const { geocast } = await start({ storage: silent });
  await clock.pass(3_000);
  FakeSocket.last.welcome(clock);
  assert.equal(geocast.status.state, "online");
});

test("with a failing or malformed storage only persistence is lost", async () => {
  const failing = {
    getItem: () => {
      throw new Error("blocked");
    },
    setItem: () => {
      throw new Error("full");
    },
    removeItem() {},
  };
  const { socket, events, geocast } = await join({ storage: failing });
  tell(socket, "a");
  await clock.pass(250);
  assert.deepEqual(events, ["error storage", "alert a", "error storage"]);
  geocast.close();
  for (const text of ["{", "7", "null", '{"held":7}', '{"held":[null,7,{"alert":{}}],"cancelled":[7,[1,2]]}']) {
    const storage = memory(false, new Map([[`geocast:${URL_}`, text]]));
    const { geocast, events } = await start({ storage });
    assert.deepEqual([geocast.held(), events], [[], []]);
    geocast.close();
  }
});
