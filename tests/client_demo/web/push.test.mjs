// Tests of the page's side of Web Push in a simulated browser. (In a real browser: tests/pages/test_push.py.)

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { coarsened } from "../../../client_demo/web/geocast/coarse.js";
import { Push } from "../../../client_demo/web/geocast/geocast-push.js";
import { Geocast } from "../../../client_demo/web/geocast/geocast.js";
import { Kept } from "../../../client_demo/web/geocast/kept.js";
import { REGISTRATION } from "../../../client_demo/web/geocast/registration.js";
import { alert, FakeClock, FakeSocket, HOME, memory, time } from "./fakes.mjs";
import { FakeBrowser, settled } from "./push_fakes.mjs";

const h3 = await import("../../../client_demo/web/node_modules/h3-js/dist/h3-js.js").then(
  (module) => module.default,
  () => undefined,
);
const needsH3 = { skip: h3 ? false : "no npm packages" };
const DAY = 86_400_000;
const MINUTE = 60_000;
const [CELL, OTHER] = ["8926cb19c93ffff", "8926cb19c97ffff"];
let browser;
let clock;
let asked;
let answers;
let open;

beforeEach(() => {
  [browser, clock, asked, open] = [new FakeBrowser(), new FakeClock(), [], []];
  browser.install();
  answers = {};
  const offer = { vapid: "B1", cells: [5, 9], lease_s: 2_592_000 };
  globalThis.fetch = async (url, { method, headers, body }) => {
    asked.push({ method, url, bearer: headers.Authorization, body: body && JSON.parse(body) });
    const told = { GET: offer, PUT: { until: time(clock.wall + 30 * DAY), secret: "s" }, DELETE: {} }[method];
    const { status = 200, retry, ...said } = { ...told, ...answers[method] };
    if (status === 0) throw new TypeError("no network");
    return { ok: status < 400, status, headers: new Headers(retry && { "Retry-After": retry }), json: async () => said };
  };
});
afterEach(() => {
  for (const push of open) push.close();
  browser.uninstall();
  delete globalThis.fetch;
  assert.equal(clock.timers.size, 0, "a timer was left");
});

const all = { url: "https://node/v1", token: () => "jwt", worker: "/sw.js", places: [{ cell: CELL }] };

/** Open the page. */
async function opens(options = {}) {
  const push = new Push({ ...all, clock, ...options });
  open.push(push);
  const events = [];
  push.on("state", ({ state }) => events.push(state));
  push.on("error", ({ code, message }) => events.push(`${code}: ${message}`));
  await settled();
  return { push, events };
}

/** Enable push, and forget the requests so far. */
async function enabled(options) {
  const opened = await opens(options);
  assert.equal((await opened.push.enable()).state, "on");
  asked = [];
  return opened;
}

/** Close the page, and open it again later. */
async function opensAgain({ push }, ms, options) {
  push.close();
  await clock.pass(ms);
  return opens(options);
}

const puts = () => asked.filter(({ method }) => method === "PUT").map(({ body }) => body);
const kept = () => browser.globals.indexedDB.kept.get(REGISTRATION);

// ---- states ----

test("a missing browser feature is reported without a request", async () => {
  const cases = [
    [() => (globalThis.isSecureContext = false), "unsupported"],
    [() => browser.without("PushManager"), "unsupported"],
    [() => browser.without("Notification"), "unsupported"],
    [() => browser.without("indexedDB"), "unsupported"],
    [() => (browser.without("PushManager"), (globalThis.navigator.standalone = false)), "home-screen"],
    [() => (browser.permission = "denied"), "denied"],
    [() => {}, "off"],
  ];
  for (const [happens, state] of cases) {
    browser.uninstall();
    browser = new FakeBrowser();
    browser.install();
    happens();
    const { push } = await opens();
    assert.equal(push.state.state, state);
    if (state === "unsupported" || state === "home-screen") assert.equal((await push.enable()).state, state);
  }
  assert.deepEqual([asked, browser.asked], [[], 0]);
});

test("if the answer with the secret is lost, the page registers with another id", async () => {
  const { push } = await opens();
  const [answered, there] = [globalThis.fetch, new Set()];
  answers.PUT = { status: 0 };
  await push.enable();
  const { id } = kept();
  there.add(`https://node/v1/devices/${id}`);
  globalThis.fetch = (url, call) => {
    answers.PUT = there.has(url) ? { secret: undefined } : {};
    there.add(url);
    return answered(url, call);
  };
  asked = [];
  assert.equal((await push.check()).state, "on");
  const urls = asked.filter(({ method }) => method === "PUT").map(({ url }) => url);
  assert.deepEqual(urls, [id, kept().id].map((each) => `https://node/v1/devices/${each}`));
  assert.notEqual(kept().id, id);
  assert.equal(kept().secret, "s");
  asked = [];
  await opensAgain({ push }, DAY);
  assert.equal(puts().length, 1, "the device already has a secret");
  assert.equal(kept().secret, "s");
});

test("enabling asks the person at once, subscribes and registers", async () => {
  const { push, events } = await opens({ filter: { min_severity: "severe" } });
  const enabling = push.enable();
  assert.equal(browser.asked, 1, "the question is asked during the click");
  assert.deepEqual(await enabling, { state: "on", until: clock.wall + 30 * DAY });
  assert.deepEqual(events, ["off", "on"]);
  assert.equal(browser.key, "B1");
  const [offer, put] = asked;
  assert.deepEqual([offer.url, offer.bearer], ["https://node/v1/push", undefined]);
  assert.match(put.url, /^https:\/\/node\/v1\/devices\/[A-Za-z0-9_-]{22}$/);
  assert.equal(put.bearer, "Bearer jwt");
  assert.deepEqual(put.body, {
    subscription: { endpoint: "https://push.example/1", keys: {} },
    places: [{ cell: CELL }],
    languages: ["es-MX", "en"],
    min_severity: "severe",
    holding: {},
  });
  assert.ok(!JSON.stringify([...browser.globals.indexedDB.kept]).includes("jwt"), "no token is kept");
});

test("a person who denies permission, or ignores the question, is not registered", async () => {
  const { push } = await opens();
  browser.answers = "default";
  assert.equal((await push.enable()).state, "off");
  browser.answers = "denied";
  assert.equal((await push.enable()).state, "denied");
  assert.deepEqual(asked, []);
});

// ---- renewals (WPC6) ----

test("opening the page within a day does not register again, unless the registration has changed", async () => {
  let page = await enabled();
  const again = async (ms, options) => {
    asked = [];
    page = await opensAgain(page, ms, options);
    assert.equal(page.push.state.state, "on");
    return puts().length;
  };
  assert.equal(await again(DAY - 1_000), 0);
  assert.equal(await again(1_000), 1, "a day has passed");
  assert.equal(await again(0), 0);
  assert.equal(await again(0, { places: [{ cell: OTHER }] }), 1);
  assert.equal(await again(0, { places: undefined }), 0, "the places are kept");
  assert.equal(await again(0, { filter: { categories: ["arson"] } }), 1);
  assert.equal(await again(0, { filter: { categories: ["arson"] }, proofs: true }), 1);
  assert.equal(await again(0), 1);
  browser.subscribe("B1");
  assert.equal(await again(0), 1, "the subscription has changed (Safari sends its worker no event)");
  browser.subscription = null;
  assert.equal(await again(0), 1, "none");
  assert.equal(await again(0, { url: "https://other/v1", stream: "wss://node/v1/stream" }), 1);
  clock.wall -= DAY;
  assert.equal(await again(0), 1, "the device's clock was set");
});

test("a page that is shown again counts as opened", async () => {
  await enabled();
  clock.wall += DAY;
  browser.document.dispatchEvent(new Event("visibilitychange"));
  await settled();
  assert.equal(puts().length, 1);
});

test("another key of the server makes a new subscription at the daily PUT", async () => {
  const page = await enabled();
  answers.GET = { vapid: "B2" };
  await opensAgain(page, DAY);
  assert.deepEqual([browser.key, browser.subscribed, puts()[0].subscription.endpoint], ["B2", 2, "https://push.example/2"]);
});

test("held alerts are sent, as many as fit into the body", async () => {
  const page = await enabled();
  const stream = { url: "wss://node/v1/stream", places: [HOME], WebSocket: FakeSocket, clock };
  const geocast = new Geocast({ ...stream, storage: page.push.storage });
  await clock.pass(0);
  await settled();
  FakeSocket.last.welcome(clock);
  FakeSocket.last.say(told("a", { revision: 3, expires_at: time(clock.wall + 3 * DAY) }));
  await clock.pass(0);
  await settled();
  geocast.close();
  await settled();
  const { push } = await opensAgain(page, DAY);
  assert.deepEqual(puts()[0].holding, { a: 3 });
  const key = "geocast:wss://node/v1/stream";
  const many = JSON.parse(browser.globals.indexedDB.kept.get(key));
  const [one] = many.held;
  const named = (at) => ({ ...one, alert: { ...one.alert, id: `${at}`.padEnd(128, "x") } });
  many.held = Array.from({ length: 256 }, (_, at) => named(at));
  browser.globals.indexedDB.kept.set(key, JSON.stringify(many));
  await opensAgain({ push }, DAY);
  assert.ok(Object.keys(puts()[1].holding).length > 80);
  assert.ok(JSON.stringify(puts()[1]).length < 16 * 1_024);
});

// ---- places ----

test("a point is sent as a cell, and stays on the device", needsH3, async () => {
  const { push } = await enabled({ h3, places: [HOME], resolution: 7 });
  const cell = h3.latLngToCell(HOME.lat, HOME.lng, 7);
  push.setPosition({ lat: 32.9, lng: -96.9, accuracy_m: 20 });
  await settled();
  assert.deepEqual(puts(), [], "it moved less than ten minutes after the last PUT");
  assert.deepEqual(kept().spots.map(({ lat, reach }) => [lat, reach]), [[32.9, 20], [HOME.lat, 0]]);
  push.setPosition({ lat: 32.9001, lng: -96.9, accuracy_m: 20 });
  await clock.pass(10 * MINUTE);
  await settled();
  assert.deepEqual(puts().map(({ places }) => places), [[{ cell: h3.latLngToCell(32.9, -96.9, 7) }, { cell }]]);
  await clock.pass(20 * MINUTE);
  push.setPosition({ lat: 32.9, lng: -96.9, accuracy_m: 20 });
  await settled();
  assert.equal(puts().length, 1, "the same cell");
  push.setPosition(null);
  await settled();
  assert.deepEqual(puts()[1].places, [{ cell }]);
  assert.ok(!JSON.stringify(asked).includes("32.9"));
});

test("an opened page knows the last place", needsH3, async () => {
  const page = await enabled({ h3 });
  await clock.pass(10 * MINUTE);
  page.push.setPosition(HOME);
  await settled();
  assert.equal(puts()[0].places.length, 2);
  await opensAgain(page, MINUTE, { h3 });
  assert.equal(puts().length, 1);
});

test("a cell is as coarse as the operator requires, and as the accuracy of the place allows", needsH3, async () => {
  answers.GET = { cells: [5, 6] };
  const page = await enabled({ h3 });
  assert.deepEqual(kept().body.places, [{ cell: h3.cellToParent(CELL, 6) }]);
  assert.equal(kept().discs, null, "a stream does not accept such a coarse cell");
  await opensAgain(page, 1_000, { h3 });
  assert.deepEqual(puts(), [], "the registration has not changed");
  await opensAgain(page, 1_000, { h3, places: [{ ...HOME, accuracy_m: 1_900 }], resolution: 9 });
  assert.equal(h3.getResolution(puts()[0].places[0].cell), 6);
});

test("coarser cells are those of H3", needsH3, () => {
  for (let at = 0; at < 200; at++) {
    const cell = h3.latLngToCell(Math.sin(at) * 89, (at * 37) % 180, 5 + (at % 11));
    for (let coarse = 5; coarse <= h3.getResolution(cell); coarse++)
      assert.equal(coarsened(cell, coarse), h3.cellToParent(cell, coarse));
  }
});

// ---- errors ----

test("a refusal is reported, and retried if the answer may change", async () => {
  answers.PUT = { status: 409, type: "/problems/too-many-devices" };
  const { push, events } = await opens();
  const { state, problem, reason } = await push.enable();
  assert.deepEqual([state, problem, reason], ["not-registered", "too-many-devices", "the server says 409, too-many-devices"]);
  assert.deepEqual(events, ["off", "server: the server says 409, too-many-devices", "not-registered"]);
  assert.equal(clock.timers.size, 0);
  answers.PUT = { status: 503, type: "/problems/full", retry: "30" };
  assert.equal((await push.check()).problem, "full");
  answers = {};
  await clock.pass(30_000);
  await settled();
  assert.equal(push.state.state, "on");
});

test("a device is pushed a test by a registration that asks for one", async () => {
  const { push } = await enabled();
  const { id } = await push.try();
  const [body] = puts();
  assert.equal(id, `try:${body.try}`);
  assert.deepEqual((await push.check()).state, "on");
  assert.equal(puts().length, 1); // the request is no part of the registration, and is not repeated
  answers.PUT = { status: 429, retry: "1200", type: "/problems/rate-limited" };
  assert.deepEqual(await push.try(), { reason: "rate-limited", retryAfterS: 1_200 });
  assert.equal(push.state.state, "on");
});

test("a device that is not registered gets no test", async () => {
  const { push } = await opens();
  assert.deepEqual(await push.try(), { reason: "not-registered" });
  assert.deepEqual(asked, []);
});

test("an existing registration stays while the server is unavailable", async () => {
  const page = await enabled();
  answers.GET = { status: 0 };
  const { push, events } = await opensAgain(page, DAY);
  assert.equal(push.state.state, "on");
  assert.deepEqual(events, ["server: the server can't be reached", "on"]);
  answers = {};
  await clock.pass(MINUTE);
  await settled();
  assert.equal(puts().length, 1);
  answers.GET = { status: 0 };
  const late = await opensAgain({ push }, 31 * DAY);
  assert.equal(late.push.state.state, "not-registered");
});

test("a missing token or subscription is reported", async () => {
  const token = async () => {
    throw new Error("not logged in");
  };
  const first = await opens({ token });
  assert.equal((await first.push.enable()).state, "not-registered");
  assert.ok(first.events.includes("token: no token could be fetched"));
  first.push.close();
  browser.refuses = true;
  browser.subscription = null;
  const { events, push } = await opens();
  assert.equal(push.state.state, "not-registered");
  assert.ok(events.includes("subscription: the browser gives no subscription"));
});

test("a failing store is reported", async () => {
  browser.globals.indexedDB.fails = true;
  const { push, events } = await opens();
  assert.deepEqual(events.splice(0), ["storage: the store can't be read", "off"]);
  assert.equal((await push.enable()).state, "off");
  assert.deepEqual(events.splice(0), ["storage: the store can't be written", "storage: the store can't be read"]);
  assert.equal((await push.disable()).state, "off");
});

// ---- disabling and renewing ----

test("disabling deletes the device, the subscription, notifications and held alerts", async () => {
  for (const status of [200, 0]) {
    const { push, events } = await enabled();
    let isClosed = false;
    browser.notifications = [{ data: { geocast: "a", until: clock.wall + DAY }, close: () => (isClosed = true) }];
    answers.DELETE = { status };
    assert.equal((await push.disable()).state, "off");
    assert.match(`${asked.at(-1).method} ${asked.at(-1).url}`, /^DELETE https:\/\/node\/v1\/devices\/[\w-]{22}$/);
    assert.deepEqual([browser.subscription, browser.globals.indexedDB.kept.size, isClosed], [null, 0, true]);
    assert.equal(events.filter((event) => event.startsWith("server:")).length, status ? 0 : 1);
    push.close();
  }
});

test("a worker can have the page renew the lease", async () => {
  await enabled();
  const said = async () => {
    const { port1, port2 } = new MessageChannel();
    const answer = new Promise((resolve) => (port1.onmessage = ({ data }) => resolve(data)));
    browser.serviceWorker.dispatchEvent(new MessageEvent("message", { data: { geocast: "renew" }, ports: [port2] }));
    return answer.finally(() => port1.close());
  };
  assert.equal(await said(), true);
  assert.equal(puts().length, 1);
  answers.PUT = { status: 503 };
  assert.equal(await said(), false);
});

// ---- options ----

test("unusable options throw at once without repeating their values", () => {
  const bad = [
    { url: "ftp://node/v1" },
    { url: "https://node/v1?token=secret" },
    { token: undefined },
    { worker: undefined },
    { resolution: 10 },
    { resolution: 4 },
    { places: "secret" },
    { places: [{ cell: "secret" }] },
    { places: [{ cell: "8426cb1ffffffff" }] },
    { places: [HOME] },
    { places: Array(9).fill({ cell: CELL }) },
    { filter: { categories: "secret" } },
  ];
  for (const options of bad)
    assert.throws(
      () => new Push({ ...all, ...options }),
      (error) => error instanceof TypeError && !error.message.includes("secret"),
      JSON.stringify(options),
    );
});

test("too many places, or none, are refused", async () => {
  const { push } = await opens({ places: Array(8).fill({ cell: CELL }) });
  assert.throws(() => push.setPosition({ cell: CELL }), TypeError);
  assert.throws(() => push.setPlaces([{ lat: 91, lng: 0 }]), TypeError);
});

// ---- a page that shares held alerts with the worker ----

/** Return an online client on a shared storage, and what it reports; `hand` acts as the worker. */
async function sharing(options = {}) {
  let hand;
  const storage = { ...memory(), watch: (take) => ((hand = take), () => (hand = null)) };
  const stream = { url: "ws://node/v1/stream", places: [HOME], WebSocket: FakeSocket, clock, random: () => 0 };
  const geocast = new Geocast({ ...stream, storage, ...options });
  const events = [];
  for (const name of ["alert", "update", "cancel"])
    geocast.on(name, ({ alert: { id, revision }, reason }) => events.push([name, id, revision, reason].filter(Boolean).join(" ")));
  geocast.on("change", () => events.push("change"));
  open.push(geocast);
  await clock.pass(0);
  await settled();
  FakeSocket.last.welcome(clock);
  return { geocast, events, storage, hand: (handed) => hand(handed) };
}

const handed = (message, told, verified = false) => ({ message, told, verified });
const told = (id, fields) => ({ type: "alert", alert: alert(clock, id, fields) });

test("an alert shown by a notification is held, and not reported again", async () => {
  const { geocast, events, hand } = await sharing();
  assert.equal(await hand(handed(told("a"), true)), true);
  assert.deepEqual(events.splice(0), ["change"]);
  FakeSocket.last.say(told("a"));
  assert.deepEqual(events, [], "the alert is not reported when it comes by the socket either");
  assert.equal(await hand(handed(told("b"), false)), true);
  assert.deepEqual(events.splice(0), ["alert b 1", "change"]);
  const far = [{ type: "circle", lat: 0, lng: 0, radius_m: 1 }];
  assert.equal(await hand(handed(told("far", { area: far }), false)), false);
  events.splice(0);
  await hand(handed({ type: "cancel", id: "a", revision: 2, reason: "Over." }, true));
  assert.deepEqual(events, ["cancel a 1 Over.", "change"]);
  geocast.close();
  assert.equal(geocast.held().length, 2);
});

test("a verifying client ignores alerts that the worker has not verified", async () => {
  const key = { kty: "OKP", crv: "Ed25519", alg: "Ed25519", kid: "k", sub: "s", x: "A".repeat(43) };
  const verify = { keys: { keys: [key] }, audience: "here", approvals: 1 };
  const { events, hand } = await sharing({ verify });
  assert.equal(await hand(handed(told("a"), false)), false);
  assert.equal(await hand(handed(told("a"), false, true)), true);
  assert.deepEqual(events, ["alert a 1", "change"]);
});

test("changes made while the page slept are read before it reconnects", async () => {
  const { geocast, events, storage } = await sharing();
  FakeSocket.last.say(told("gone"));
  await clock.pass(0);
  const stream = { url: "ws://node/v1/stream", places: [HOME], WebSocket: FakeSocket, clock };
  const other = new Geocast({ ...stream, storage: { ...storage, watch: undefined } });
  open.push(other);
  const mine = FakeSocket.last;
  await clock.pass(0);
  await settled();
  const worker = FakeSocket.last;
  worker.welcome(clock);
  worker.say(told("new"));
  worker.say({ type: "cancel", id: "gone", revision: 2, reason: "Over." });
  await clock.pass(300);
  events.splice(0);
  mine.end(1012);
  await clock.pass(2_000);
  await settled();
  FakeSocket.last.onopen();
  assert.deepEqual(FakeSocket.last.took("hello")[0].holding, { new: 1 });
  assert.deepEqual(events, ["cancel gone 1", "change"]);
  assert.deepEqual(geocast.held().map(({ alert }) => alert.id), ["new"]);
});

test("changes of the store are serialized: the second one reads what the first has written", async () => {
  const kept = new Kept();
  const add = () => kept.change(["n"], (n) => [(n ?? 0) + 1]);
  await Promise.all([add(), add(), add()]);
  assert.equal(await kept.read("n"), 3);
  await assert.rejects(kept.change(["n"], () => { throw new Error("no"); }), /no/);
  await kept.change(["n", "other"], () => [undefined, null]);
  assert.equal(await kept.read("n"), 3);
  await kept.clear();
  assert.equal(await kept.read("n"), null);
});
