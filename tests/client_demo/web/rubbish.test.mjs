// Tests of malformed server messages, and of ids that are properties of every object.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { fetchLive, Geocast } from "../../../client_demo/web/geocast/geocast.js";
import { Backoff } from "../../../client_demo/web/geocast/reconnect.js";
import { alert, FakeClock, FakeSocket, HOME, memory, time } from "./fakes.mjs";

const url = "ws://node/v1/stream";
const INHERITED = ["constructor", "toString", "valueOf", "hasOwnProperty"];
let clock;

beforeEach(() => {
  clock = new FakeClock();
  FakeSocket.all = [];
});

/** Return a `fetchLive` in progress, and its socket. */
async function fetching(options = {}) {
  const done = fetchLive({ url, places: [HOME], clock, WebSocket: FakeSocket, ...options });
  done.catch(() => {});
  await clock.pass(0);
  return { done, socket: FakeSocket.last };
}

test("fetchLive returns alerts whose ids are property names of every object", async () => {
  const { done, socket } = await fetching();
  socket.welcome(clock, { live: INHERITED.length });
  for (const id of INHERITED) socket.say({ type: "alert", alert: alert(clock, id) });
  const { alerts } = await done;
  assert.deepEqual(alerts.map((item) => item.alert.id).sort(), [...INHERITED].sort());
});

for (const code of [4400, 1007, 1009])
  test(`fetchLive comes back once without holding after ${code}`, async () => {
    const { done, socket } = await fetching({ holding: { kept: 1 } });
    socket.onopen();
    socket.end(code);
    await clock.pass(1_000);
    const again = FakeSocket.last;
    assert.notEqual(again, socket);
    again.welcome(clock, { live: 1 });
    assert.deepEqual(socket.took("hello")[0].holding, { kept: 1 });
    assert.equal(again.took("hello")[0].holding, undefined);
    again.say({ type: "alert", alert: alert(clock, "fresh") });
    assert.deepEqual((await done).alerts.map((item) => item.alert.id), ["fresh"]);
  });

test("fetchLive rejects when the hello without holding is refused, too", async () => {
  const { done, socket } = await fetching({ holding: { kept: 1 } });
  socket.onopen();
  socket.end(4400);
  await clock.pass(1_000);
  FakeSocket.last.onopen();
  FakeSocket.last.end(4400);
  await assert.rejects(done, { closeCode: 4400 });
  assert.equal(FakeSocket.all.length, 2);
});

test("odd messages are counted, also before the welcome", async () => {
  const { geocast, socket } = await welcomed({});
  socket.say({ type: "alert", alert: alert(clock, "a b") });
  socket.say("{");
  assert.equal(geocast.dropped, 2);
  socket.end(1012);
  await clock.pass(2_000);
  FakeSocket.last.onopen();
  FakeSocket.last.say({ type: "greetings" });
  assert.equal(geocast.dropped, 3);
  geocast.close();
});

test("after three attempts without any answer the reason says what to check", async () => {
  const geocast = new Geocast({ url, places: [HOME], clock, WebSocket: FakeSocket, storage: null, random: () => 0 });
  const reasons = [];
  geocast.on("status", ({ state, reason }) => state === "waiting" && reasons.push(reason));
  for (let count = 1; count <= 3; count++) {
    await clock.pass(0);
    FakeSocket.last.end(1006);
    await clock.pass(4_000);
  }
  assert.doesNotMatch(reasons[1], /port/);
  assert.match(reasons[2], /host, the port .* origin/);
  FakeSocket.last.welcome(clock);
  for (let count = 1; count <= 4; count++) {
    FakeSocket.last.end(1006);
    await clock.pass(60_000);
  }
  assert.doesNotMatch(reasons.slice(3).join(), /port/);
  geocast.close();
});

test("an alert held under such an id is listed, compared and cancelled like any other", async () => {
  const holding = new Map(INHERITED.map((id) => [id, 2]));
  for (const given of [holding, JSON.parse(JSON.stringify(Object.fromEntries(holding)))]) {
    const { done, socket } = await fetching({ holding: given });
    socket.welcome(clock, { live: 3 });
    assert.deepEqual(Object.entries(socket.took("hello")[0].holding), [...holding]);
    socket.say({ type: "alert", alert: alert(clock, "constructor", { revision: 2 }) });
    socket.say({ type: "alert", alert: alert(clock, "valueOf", { revision: 3 }) });
    socket.say({ type: "cancel", id: "toString", revision: 3, reason: "over" });
    const { alerts, cancels } = await done;
    assert.deepEqual(
      alerts.map((item) => item.alert.id),
      ["valueOf"],
    );
    assert.deepEqual(cancels, [{ id: "toString", revision: 3, reason: "over" }]);
  }
});

test("such ids survive a page load in the storage", async () => {
  const storage = memory();
  const { done, socket } = await fetching({ storage });
  socket.welcome(clock, { live: INHERITED.length });
  for (const id of INHERITED) socket.say({ type: "alert", alert: alert(clock, id) });
  await done;
  const again = await fetching({ storage });
  again.socket.welcome(clock);
  assert.deepEqual(Object.keys(again.socket.took("hello")[0].holding).sort(), [...INHERITED].sort());
  assert.deepEqual((await again.done).alerts, []);
});

test("a listener for an unknown event is never called and harms nothing", async () => {
  const geocast = new Geocast({ url, places: [HOME], clock, WebSocket: FakeSocket });
  for (const name of INHERITED) geocast.on(name, () => assert.fail(name))();
  geocast.close();
});

const NO_WINDOWS = [
  [0, 0],
  [0, 99],
  [-1, 5_000],
  [5_000, 1_000],
  [1_000, 1e999],
  [1e999, 1e999],
  [NaN, 5_000],
  [1_000, 3_600_001],
];

test("an invalid retry window is ignored, so that each delay is bounded and above zero", () => {
  for (const [min, max] of NO_WINDOWS) {
    const delays = [0, 1].map((draw) => {
      const backoff = new Backoff(() => draw);
      backoff.welcomed(2_000, 9_000);
      backoff.delay("window");
      backoff.welcomed(min, max);
      return backoff.delay("window");
    });
    assert.deepEqual(delays, [2_000, 9_000], `${min} to ${max}`);
  }
});

/** Return a client that was welcomed with these fields. */
async function welcomed(fields) {
  const geocast = new Geocast({ url, places: [HOME], clock, WebSocket: FakeSocket, storage: null, random: () => 0 });
  await clock.pass(0);
  FakeSocket.last.welcome(clock, fields);
  return { geocast, socket: FakeSocket.last };
}

for (const retry of ["soon", null, { min_ms: "0", max_ms: [] }, { min_ms: 0, max_ms: 0 }])
  test(`after a welcome with a retry of ${JSON.stringify(retry)} the window is 1 to 30 s`, async () => {
    const { geocast, socket } = await welcomed({ retry });
    socket.end(1012);
    assert.equal(geocast.status.retryAt - clock.wall, 1_000);
    geocast.close();
  });

for (const heartbeat_s of [1e999, 1e9, 0, -1, "25"])
  test(`an invalid heartbeat of ${heartbeat_s} s is replaced by 25 s`, async () => {
    const text = JSON.stringify({ type: "welcome", now: time(clock.wall), live: 0 });
    const said = typeof heartbeat_s === "number" ? String(heartbeat_s).replace("Infinity", "1e999") : '"25"';
    const geocast = new Geocast({ url, places: [HOME], clock, WebSocket: FakeSocket, storage: null });
    await clock.pass(0);
    const socket = FakeSocket.last;
    socket.onopen();
    socket.say(text.replace("}", `,"heartbeat_s":${said}}`));
    await clock.pass(24_000);
    assert.equal(socket.took("ping").length, 0);
    await clock.pass(2_000);
    assert.equal(socket.took("ping").length, 1);
    geocast.close();
  });

for (const live of ["1e999", "1.5", "-1", '"2"', "[]"])
  test(`an invalid number of live alerts of ${live} counts as none: the client is online`, async () => {
    const geocast = new Geocast({ url, places: [HOME], clock, WebSocket: FakeSocket, storage: null });
    await clock.pass(0);
    FakeSocket.last.onopen();
    FakeSocket.last.say(`{"type":"welcome","now":"${time(clock.wall)}","live":${live}}`);
    assert.equal(geocast.status.state, "online");
    geocast.close();
  });
