// Tests of the web client with the test vectors in client_demo/conformance/vectors.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { test } from "node:test";

import { Geocast } from "../../../client_demo/web/geocast/geocast.js";
import { Calls } from "../../../client_demo/web/geocast/calls.js";
import { awayM, isInside, judgeOf, spotsOf } from "../../../client_demo/web/geocast/geo.js";
import { Holdings } from "../../../client_demo/web/geocast/holdings.js";
import { afterClose, Backoff } from "../../../client_demo/web/geocast/reconnect.js";
import { Verifier } from "../../../client_demo/web/geocast/verify.js";
import { alert, FakeClock, FakeSocket, HOME, time } from "./fakes.mjs";

const vectors = (name) =>
  JSON.parse(readFileSync(new URL(`../../../client_demo/conformance/vectors/${name}.json`, import.meta.url), "utf-8"));
const h3 = await import("../../../client_demo/web/node_modules/h3-js/dist/h3-js.js").then(
  (module) => module.default,
  () => undefined,
);
const clock = new FakeClock();

test("inside matches the vectors", () => {
  for (const { why, places, area, inside, cell_place } of vectors("inside").cases) {
    if (cell_place && !h3) continue;
    const spots = spotsOf(places, h3);
    assert.equal(isInside(area, spots), inside, why);
    if (cell_place) assert.ok(Math.abs(spots[0].reach - cell_place.reach_m) < 1e-5, why);
  }
});

test("inside a polygon matches the vectors", () => {
  for (const { why, places, area, inside } of vectors("polygons").cases) {
    if ("cell" in places[0] && !h3) continue;
    assert.equal(isInside(area, spotsOf(places, h3)), inside, why);
  }
});

test("the judge of the feed matches the vectors, and excludes nobody by the circles around polygons", () => {
  for (const { why, places, area, inside } of vectors("device").cases) {
    const judge = judgeOf(area);
    for (const [n, place] of places.entries()) {
      if (typeof place === "string" && !h3) continue;
      const [lat, lng, accuracy_m] = place;
      const spots = spotsOf([typeof place === "string" ? { cell: place } : { lat, lng, accuracy_m }], h3);
      assert.equal(judge(spots), inside[n] === "1", `${why}: ${place}`);
    }
  }
});

test("an unsupported polygon counts as unknown, so its alert is shown", () => {
  const ring = [
    [0, 0],
    [1, 0],
    [1, 1],
    [0, 0],
  ];
  const strange = [undefined, null, [], [ring, ring], [[]], [[...ring, [0]]], [[...ring, ["0", 0]]], [ring.slice(1)]];
  for (const coordinates of strange)
    assert.ok(isInside([{ type: "Polygon", coordinates }], spotsOf([{ lat: 50, lng: 50 }])));
  assert.ok(isInside([{ type: "Polygon", coordinates: [ring], buffer_m: "20" }], spotsOf([{ lat: 50, lng: 50 }])));
  assert.ok(!isInside([{ type: "Polygon", coordinates: [ring] }], spotsOf([{ lat: 50, lng: 50 }])));
});

test("expiry by the server's clock matches the vectors", async () => {
  for (const { why, readings, expires_at, own_ms, live, left_ms } of vectors("clock").cases) {
    const clock = new FakeClock();
    const geocast = new Geocast({ url: "ws://h/v1/stream", places: [HOME], storage: null, WebSocket: FakeSocket, clock });
    await setImmediate();
    const [first, ...later] = readings;
    FakeSocket.last.welcome(clock, { now: first.now, heartbeat_s: 1_000 });
    FakeSocket.last.say({ type: "alert", alert: alert(clock, "a", { expires_at }) });
    let at = first.own_ms;
    for (const reading of later) {
      await clock.pass(reading.own_ms - at);
      FakeSocket.last.say({ type: "pong", now: reading.now });
      at = reading.own_ms;
    }
    await clock.pass(own_ms - at);
    assert.equal(geocast.held().length, live ? 1 : 0, why);
    assert.equal(Date.parse(expires_at) - geocast.now(), left_ms, why);
    geocast.close();
  }
});

test("alerts kept during a wrong clock match the vectors", () => {
  const { place, cases } = vectors("kept");
  for (const { why, steps } of cases) {
    const holdings = new Holdings();
    holdings.move(spotsOf([place], undefined));
    let ahead = 0;
    for (const { own_ms, now, message, shown, holding } of steps) {
      const server = () => own_ms + ahead;
      if (now) ahead = Date.parse(now) - own_ms;
      else if (message?.type === "alert") holdings.take(message.alert, server(), own_ms);
      else if (message) holdings.cancel(message);
      holdings.expire(server(), own_ms);
      const seen = holdings.list(server()).map(({ alert }) => [alert.id, alert.revision]);
      assert.deepEqual(Object.fromEntries(seen), shown, why);
      assert.deepEqual(Object.fromEntries(holdings.holding(server(), own_ms)[0]), holding, why);
    }
  }
});

test("`holding` matches the vectors", () => {
  for (const { why, now, held, holding, dropped } of vectors("holding").cases) {
    const holdings = new Holdings();
    holdings.move(spotsOf([HOME], undefined));
    const issued_at = time(Date.parse(now) - 1); // issued so long ago that it is over by every clock
    for (const one of held) holdings.take(alert(clock, one.id, { issued_at, ...one }), 0, -1e9);
    const [listed, changes] = holdings.holding(Date.parse(now), 0);
    assert.deepEqual(Object.fromEntries(listed), holding, why);
    const gone = changes.filter(([, { cause }]) => cause === "dropped").map(([, event]) => event.alert.id);
    assert.deepEqual(gone.sort(), dropped, why);
  }
});

test("revisions match the vectors", () => {
  const { place, now, cases } = vectors("revisions");
  for (const { why, steps } of cases) {
    const holdings = new Holdings();
    holdings.move(spotsOf([place], undefined));
    for (const { message, effect, held } of steps) {
      const changes =
        message.type === "alert" ? holdings.take(message.alert, Date.parse(now), 0) : holdings.cancel(message);
      const effects = changes.map(([name]) => ({ alert: "shown", update: "shown", cancel: "cancelled" })[name]);
      assert.deepEqual(effects.length ? effects : ["nothing"], [effect], why);
      const shown = holdings.list(Date.parse(now)).map(({ alert }) => [alert.id, alert.revision]);
      assert.deepEqual(Object.fromEntries(shown), held, why);
    }
  }
});

test("verification matches the vectors", async () => {
  const { reviewers: keys, audience, cases } = vectors("approvals");
  for (const { why, message, approvals = 2, cancel_approvals: cancelApprovals = 1, ...then } of cases) {
    const verifier = new Verifier({ keys, audience, approvals, cancelApprovals });
    if (then.dropped) {
      await assert.rejects(verifier.read(message), { name: "Untrusted", reason: then.dropped }, why);
      continue;
    }
    const found = await verifier.read(message);
    if (then.alert) assert.deepEqual(found, { type: "alert", alert: then.alert }, why);
    else assert.deepEqual({ ...found, ...then.cancel }, found, why);
  }
});

test("reconnection delays match the vectors", () => {
  for (const { why, steps } of vectors("reconnect").cases) {
    const backoffs = [0, 1].map((draw) => new Backoff(() => draw));
    for (const { welcome, closed, delay_ms, new_token = false } of steps) {
      if (welcome) for (const backoff of backoffs) backoff.welcomed(welcome.retry.min_ms, welcome.retry.max_ms);
      if (welcome) continue;
      const after = afterClose(closed);
      assert.equal(after === "never", delay_ms === null, why);
      if (delay_ms === null) continue;
      assert.equal(after === "new token", new_token, why);
      const [low, high] = backoffs.map((backoff) => backoff.delay(after));
      if (after === "window") assert.deepEqual([low, high], delay_ms, why);
      assert.ok(low >= delay_ms[0] && high <= (delay_ms[1] ?? Infinity), why);
    }
  }
});

test("distances to a call match the vectors (RU1)", () => {
  for (const { why, places, near, away_m } of vectors("near").cases) {
    if ("cell" in (places[0] ?? {}) && !h3) continue;
    const found = awayM(near, spotsOf(places, h3));
    assert.ok(found === away_m || Math.abs(found - away_m) < 0.005, why);
  }
});

/** Play one step and return what the person is told. */
function stepOfAResponder(calls, { own_ms: own, message, person, connected }, ahead) {
  const now = own + ahead;
  const told = calls.expire(now, own);
  if (message?.type === "call") told.push(...calls.call(message.call, now, own));
  if (message?.type === "task") told.push(...calls.task(message, now, own));
  if (message?.type === "standdown") told.push(...calls.standdown(message));
  if (person?.type === "accept") calls.accept(person.id, person.eta_s, own);
  if (person?.type === "decline") calls.decline(person.id, own);
  if (person?.type === "report") calls.report(person.id, person.state, own);
  if (connected) calls.connected(own);
  return told.map(({ kind }) => kind);
}

test("a responder's messages match the vectors (RU1 to RU3)", () => {
  for (const { why, steps } of vectors("calls").cases) {
    const calls = new Calls();
    let ahead = 0;
    for (const step of steps) {
      if (step.now) ahead = Date.parse(step.now) - step.own_ms;
      const told = stepOfAResponder(calls, step, ahead);
      const says = calls.due(step.own_ms);
      const where = `${why}, at ${step.own_ms}`;
      assert.deepEqual(told, step.told ? [step.told] : [], where);
      assert.deepEqual(Object.fromEntries(calls.holding(256)), step.holding, where);
      assert.equal(calls.list().some(({ task }) => task), step.place, where);
      assert.deepEqual(says, step.says ?? says, where);
    }
  }
});
