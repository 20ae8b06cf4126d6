// Tests of a responder with a fake clock and a simulated server.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { fetchLive, Geocast, watchPosition } from "../../../client_demo/web/geocast/geocast.js";
import { alert, FakeClock, FakeSocket, HOME, memory, time } from "./fakes.mjs";

const HERE = { lat: 47.6772, lng: 8.83, accuracy_m: 10, here: true };
const UNSAID = { lat: 47.6772, lng: 8.83, accuracy_m: 10 };
const NEAR = { type: "circle", lat: 47.67825933515865, lng: 8.830423174775438, radius_m: 210 };
const PLACE = { lat: 47.6780089, lng: 8.8311129, kind: "residence", access: "Door code 4711." };
const ID = "cad-3.8f1c02aa";
const ACCEPT = { type: "accept", id: ID, eta_s: 240 };
const DECLINE = { type: "decline", id: ID };
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

/** Return a responder on duty, with the reported events. */
async function join(options = {}, welcome = {}) {
  const fields = { url: "ws://node/v1/stream", places: [HERE], storage: null, random: () => 0, WebSocket: FakeSocket, clock };
  const geocast = new Geocast({ ...fields, ...options });
  open.push(geocast);
  const events = [];
  geocast.on("call", ({ call }) => events.push(`call ${call.id} ${call.revision}`));
  geocast.on("task", ({ task }) => events.push(`task ${task.id} ${task.revision}`));
  geocast.on("standdown", ({ id, reason }) => events.push(`standdown ${id} ${reason}`));
  geocast.on("error", ({ code }) => events.push(`error ${code}`));
  for (let turn = 0; turn < 3; turn++) await clock.pass(0);
  FakeSocket.last.welcome(clock, { quals: ["cpr"], ...welcome });
  return { geocast, events, socket: FakeSocket.last };
}

/** Lose the connection, and return the socket of the next one after its welcome. */
async function comeBack(socket, welcome = { quals: ["cpr"] }) {
  socket.end(1012);
  await clock.pass(2_000);
  const [hello] = (FakeSocket.last.onopen(), FakeSocket.last.took("hello"));
  FakeSocket.last.onopen = () => {};
  FakeSocket.last.welcome(clock, welcome);
  return { hello, socket: FakeSocket.last };
}

const call = (revision = 1, fields = {}) => ({
  id: ID,
  revision,
  category: "cardiac_arrest",
  title: "Cardiac arrest: CPR needed",
  headline: "Adult, not breathing.",
  status: "actual",
  source: "cad-3",
  occurred_at: time(clock.wall - 2_000),
  issued_at: time(clock.wall),
  expires_at: time(clock.wall + 1_800_000),
  answer_s: 30,
  near: NEAR,
  ...fields,
});
const ring = (socket, revision, fields) => socket.say({ type: "call", call: call(revision, fields) });
const send = (socket, revision = 2, fields = {}) =>
  socket.say({
    type: "task",
    id: ID,
    revision,
    seat: 1,
    role: "cpr",
    place: PLACE,
    aeds: [],
    status: "actual",
    expires_at: time(clock.wall + 1_800_000),
    ...fields,
  });
const standDown = (socket, reason) => socket.say({ type: "standdown", id: ID, reason });

test("`here` is sent once a welcome has quals, and in each later hello (RQ4)", async () => {
  const { geocast, socket } = await join();
  assert.deepEqual(socket.took("hello")[0].places, [UNSAID]);
  assert.deepEqual(socket.took("move"), [{ type: "move", ref: 1, places: [HERE] }]);
  assert.deepEqual([...geocast.quals], ["cpr"]);
  const { hello, socket: second } = await comeBack(socket);
  assert.deepEqual(hello.places, [HERE]);
  assert.deepEqual(second.took("move"), []);
  geocast.setPlaces([UNSAID]);
  assert.deepEqual(second.took("move")[0].places, [UNSAID], "off duty");
});

test("a responder who has helped knows until when nobody calls (RQ7)", async () => {
  const { geocast, socket } = await join();
  assert.equal(geocast.restUntil, null);
  const until = new Date(geocast.now() + 60_000).toISOString();
  socket.say({ type: "standdown", id: "c", reason: "over", rest_until: until });
  assert.equal(geocast.restUntil, Date.parse(until));
  socket.say({ type: "standdown", id: "d", reason: "full" });
  assert.equal(geocast.restUntil, Date.parse(until), "a standdown without a time changes nothing");
  await clock.pass(61_000);
  assert.equal(geocast.restUntil, null);
});

test("a responder whose token has no qualification is never on duty (RQ4)", async () => {
  const { geocast, socket } = await join({}, { quals: "cpr" });
  assert.deepEqual([...geocast.quals], []);
  geocast.setPosition({ ...HOME, here: false });
  assert.deepEqual(socket.took("move").map(({ places }) => places), [[HOME, UNSAID]]);
});

test("duty is withheld from an older server that has closed a hello over it", async () => {
  const { socket } = await join();
  const { socket: second } = await comeBack(socket);
  second.end(1012);
  await clock.pass(2_000);
  FakeSocket.last.onopen();
  FakeSocket.last.end(4400);
  await clock.pass(0);
  FakeSocket.last.onopen();
  assert.deepEqual(FakeSocket.last.took("hello")[0].places, [UNSAID]);
});

test("at most one place is marked `here`", async () => {
  assert.throws(() => new Geocast({ url: "ws://node/", WebSocket: FakeSocket, places: [HERE, HERE] }), /here: one place/);
  assert.throws(() => new Geocast({ url: "ws://node/", WebSocket: FakeSocket, places: [{ ...HOME, here: 1 }] }), /\.here/);
  const { geocast } = await join();
  assert.throws(() => geocast.setPosition({ ...HOME, here: true }), TypeError);
});

test("a call has its distance, and an accept is answered by a task with the place (M18, M21, M22)", async () => {
  const { geocast, events, socket } = await join({}, { live: 1 });
  let distance;
  geocast.on("call", ({ call, distanceM }) => {
    geocast.ack(call);
    distance = distanceM;
  });
  assert.equal(geocast.status.state, "connecting");
  ring(socket);
  assert.equal(geocast.status.state, "online", "a call is one of those that the welcome announces");
  assert.equal(Math.round(distance), 122);
  assert.deepEqual(socket.took("ack"), [{ type: "ack", id: ID, revision: 1 }]);
  geocast.accept(ID, 240.2);
  assert.deepEqual(socket.took("accept"), [ACCEPT]);
  assert.deepEqual(geocast.calls().map(({ accepted, task }) => [accepted, task]), [[true, null]]);
  send(socket);
  assert.deepEqual(geocast.calls()[0].task.place, PLACE);
  assert.deepEqual(events, [`call ${ID} 1`, `task ${ID} 2`]);
  await clock.pass(20_000);
  assert.deepEqual(socket.took("accept"), []);
});

test("an unanswered accept is repeated after 5 s and after each reconnect (RU3)", async () => {
  const { geocast, socket } = await join();
  ring(socket);
  geocast.accept(ID, 240);
  await clock.pass(4_999);
  assert.equal(socket.took("accept").length, 1);
  await clock.pass(1);
  assert.deepEqual(socket.took("accept"), [ACCEPT]);
  const { hello, socket: second } = await comeBack(socket);
  assert.deepEqual(hello.holding, { [ID]: 1 });
  assert.deepEqual(second.took("accept"), [ACCEPT]);
  standDown(second, "full");
  await clock.pass(20_000);
  assert.deepEqual(second.took("accept"), []);
  assert.deepEqual(geocast.calls(), []);
});

test("`holding` lists calls before alerts, and omits surplus alerts that end first (RU3)", async () => {
  const { socket } = await join({ places: [HERE, HOME] });
  for (let n = 0; n < 256; n++) {
    const expires_at = time(clock.wall + 3_600_000 + n);
    socket.say({ type: "alert", alert: alert(clock, `a${n}`, { expires_at }) });
  }
  ring(socket, 3);
  const { hello } = await comeBack(socket);
  assert.deepEqual(Object.entries(hello.holding)[0], [ID, 3]);
  assert.deepEqual([Object.keys(hello.holding).length, "a0" in hello.holding, "a1" in hello.holding], [256, false, true]);
});

test("a declined call is declined again without asking the person (RU1)", async () => {
  const { geocast, events, socket } = await join();
  ring(socket);
  geocast.decline(ID);
  ring(socket, 7);
  assert.deepEqual(socket.took("decline"), [DECLINE, DECLINE]);
  assert.deepEqual([events, geocast.calls()], [[`call ${ID} 1`], []]);
  const { hello, socket: second } = await comeBack(socket);
  assert.equal("holding" in hello, false);
  assert.deepEqual(second.took("decline"), [], "another device may have taken a seat meanwhile");
  geocast.accept(ID);
  assert.deepEqual(second.took("accept"), [{ type: "accept", id: ID }]);
  send(second);
  assert.deepEqual(events.at(-1), `task ${ID} 2`);
});

test("a released seat is declined until answered, and its place is deleted at once (M19)", async () => {
  const { geocast, events, socket } = await join();
  ring(socket);
  send(socket);
  geocast.decline(ID);
  assert.deepEqual(geocast.calls(), []);
  await clock.pass(20_000);
  assert.equal(socket.took("decline").length, 5);
  const { socket: second } = await comeBack(socket);
  assert.deepEqual(second.took("decline"), [DECLINE]);
  send(second, 4);
  standDown(second, "left");
  assert.deepEqual(events.slice(2), [`standdown ${ID} left`]);
  await clock.pass(20_000);
  assert.deepEqual(second.took("decline"), []);
});

test("a decline is sent three times if there may have been no seat (M19)", async () => {
  const { geocast, socket } = await join();
  ring(socket);
  geocast.accept(ID);
  geocast.decline(ID);
  await clock.pass(60_000);
  assert.equal(socket.took("decline").length, 3);
  const { socket: second } = await comeBack(socket);
  send(second);
  await clock.pass(60_000);
  assert.equal(second.took("decline").length > 3, true, "after a task the decline is repeated until answered");
});

test("only the last report of 6 s is sent, and again after a reconnect (M20, RU3)", async () => {
  const { geocast, socket } = await join();
  ring(socket);
  assert.throws(() => geocast.arrived(ID), /only the holder of a seat/);
  send(socket);
  assert.throws(() => geocast.report(ID, "asleep"), TypeError);
  geocast.report(ID, "aed");
  await clock.pass(1_000);
  geocast.arrived(ID);
  assert.deepEqual(socket.took("report"), [{ type: "report", id: ID, state: "aed" }]);
  await clock.pass(4_999);
  assert.deepEqual(socket.took("report"), []);
  await clock.pass(1);
  assert.deepEqual(socket.took("report"), [{ type: "report", id: ID, state: "arrived" }]);
  await clock.pass(10_000);
  const { socket: second } = await comeBack(socket);
  assert.deepEqual(second.took("report"), [{ type: "report", id: ID, state: "arrived" }]);
});

test("the place is deleted at `expires_at`, with and without a connection (RU2)", async () => {
  const { geocast, events, socket } = await join();
  const expires_at = time(clock.wall + 10_000);
  ring(socket, 1, { expires_at });
  send(socket, 2, { expires_at });
  socket.end(1012);
  await clock.pass(9_999);
  assert.equal(geocast.calls().length, 1);
  await clock.pass(1);
  assert.deepEqual([geocast.calls(), events.at(-1)], [[], `standdown ${ID} expired`]);
});

test("the place is deleted by the client's own clock if the server's stands still (RU2)", async () => {
  const { geocast, events, socket } = await join({}, { heartbeat_s: 3_600 });
  ring(socket, 1, { expires_at: time(clock.wall + 10_000) });
  send(socket, 2, { expires_at: time(clock.wall + 10_000) });
  for (let n = 0; n < 10; n++) {
    await clock.pass(1_000);
    socket.say({ type: "pong", now: time(clock.wall - (n + 1) * 1_000) });
  }
  assert.deepEqual([geocast.calls(), events.at(-1)], [[], `standdown ${ID} expired`]);
});

test("no storage ever has a place or a call (RU2)", async () => {
  const storage = memory();
  const { geocast, socket } = await join({ storage, places: [HERE, HOME] });
  socket.say({ type: "alert", alert: alert(clock, "a") });
  ring(socket);
  send(socket);
  await clock.pass(1_000);
  geocast.close();
  await clock.pass(0);
  const written = [...storage.entries.values()].join();
  assert.match(written, /"a"/);
  assert.doesNotMatch(written, /4711|cad-3|47\.67/);
});

test("no call is held after logging out", async () => {
  const { geocast, socket } = await join();
  ring(socket);
  send(socket);
  geocast.close();
  await geocast.forget();
  assert.deepEqual(geocast.calls(), []);
});

test("revisions only rise, and an ended call stays ended (RJ2)", async () => {
  const { events, socket } = await join();
  for (const revision of [2, 2, 1, 10, 9]) ring(socket, revision);
  send(socket, 11);
  send(socket, 11);
  send(socket, 5);
  standDown(socket, "over");
  standDown(socket, "over");
  ring(socket, 10);
  send(socket, 11);
  ring(socket, 12);
  const told = ["call 2", "call 10", "task 11", "standdown over", "call 12"];
  assert.deepEqual(events, told.map((each) => each.replace(" ", ` ${ID} `)));
});

test("a call that has ended on arrival is not shown (E4)", async () => {
  const { events, socket } = await join();
  ring(socket, 1, { expires_at: time(clock.wall) });
  send(socket, 2, { expires_at: time(clock.wall) });
  assert.deepEqual(events, []);
});

test("an incomplete message is reported as an error, and later ones are read", async () => {
  const { geocast, events, socket } = await join({}, { live: 6 });
  for (const message of [
    { type: "call" },
    { type: "call", call: { ...call(), revision: "1" } },
    { type: "call", call: { ...call(), issued_at: null } },
    { type: "task", id: ID, revision: 2, place: null, expires_at: time(clock.wall + 1_000) },
    { type: "standdown", id: ID },
  ])
    socket.say(message);
  ring(socket, 1, { near: { type: "circle", lat: "x" } });
  assert.deepEqual(events, [...Array(5).fill("error message"), `call ${ID} 1`]);
  assert.equal(geocast.calls()[0].distanceM, null);
  assert.equal(geocast.status.state, "online");
  assert.throws(() => geocast.accept(ID, 7_201), /etaS/);
  assert.throws(() => geocast.accept(ID, NaN), /etaS/);
  for (const id of ["", "a b", "x".repeat(129), 5, undefined]) {
    assert.throws(() => geocast.accept(id), /^TypeError: id:/);
    assert.throws(() => geocast.decline(id), /^TypeError: id:/);
  }
});

test("watchPosition sends a fresh position at once when a call arrives (RU1)", async () => {
  const fix = (latitude, accuracy) => ({ coords: { latitude, longitude: 8.83, accuracy } });
  const calls = [];
  const geolocation = {
    watchPosition: (success) => (success(fix(47.6772, 10)), 7),
    clearWatch: (id) => calls.push(id),
    getCurrentPosition: (success, _, options) => (calls.push(options), success(fix(47.67721, 10))),
  };
  const { geocast, socket } = await join({ places: [] });
  const unwatch = watchPosition(geocast, { here: true, geolocation });
  const first = socket.took("move");
  assert.deepEqual(first[0].places, [HERE]);
  socket.say({ type: "ok", ref: first[0].ref, live: 0 });
  ring(socket);
  assert.deepEqual(socket.took("move").map(({ places }) => places), [[{ ...HERE, lat: 47.67721 }]]);
  unwatch();
  ring(socket, 2);
  assert.deepEqual(calls, [{ enableHighAccuracy: true, maximumAge: 0 }, 7]);
});

test("fetchLive returns calls and tasks; with an older server it omits `here`", async () => {
  const options = { url: "ws://node/v1/stream", WebSocket: FakeSocket, clock, places: [HERE], holding: { old: 1 } };
  const fetching = fetchLive(options);
  await clock.pass(0);
  FakeSocket.last.onopen();
  assert.deepEqual(FakeSocket.last.took("hello")[0].places, [HERE]);
  FakeSocket.last.end(4400);
  await clock.pass(0);
  FakeSocket.last.welcome(clock, { quals: ["cpr"], live: 3 });
  assert.deepEqual(FakeSocket.last.took("hello")[0].places, [UNSAID]);
  FakeSocket.last.say({ type: "standdown", id: "old", reason: "over" });
  send(FakeSocket.last);
  ring(FakeSocket.last, 1, { id: "other" });
  const { calls, tasks, standdowns } = await fetching;
  assert.deepEqual([calls.map(({ id }) => id), tasks.map(({ place }) => place)], [["other"], [PLACE]]);
  assert.deepEqual(standdowns, [{ id: "old", reason: "over" }]);
});
