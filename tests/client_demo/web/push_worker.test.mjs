// Tests of the service worker in a simulated browser. (In a real browser: tests/pages/test_push.py.)

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { afterEach, beforeEach, mock, test } from "node:test";

import { handle } from "../../../client_demo/web/geocast/geocast-push-sw.js";
import { Geocast } from "../../../client_demo/web/geocast/geocast.js";
import { spotsOf } from "../../../client_demo/web/geocast/geo.js";
import { Kept, storageOf } from "../../../client_demo/web/geocast/kept.js";
import { closeOver, REGISTRATION } from "../../../client_demo/web/geocast/registration.js";
import { alert, FakeClock, FakeSocket, HOME, time } from "./fakes.mjs";
import { FakeIndexedDB, fakePage, FakeWorker, settled } from "./push_fakes.mjs";

const STREAM = "wss://node/v1/stream";
const vectors = JSON.parse(
  readFileSync(new URL("../../../client_demo/conformance/vectors/notices.json", import.meta.url), "utf-8"),
);
const NOON = Date.UTC(2031, 4, 1, 12);
const clock = new FakeClock();
let worker;

beforeEach(() => {
  mock.timers.enable({ apis: ["Date"], now: NOON });
  globalThis.indexedDB = new FakeIndexedDB();
  worker = new FakeWorker();
});
afterEach(() => {
  mock.timers.reset();
  delete globalThis.fetch;
});

const REGISTERED = {
  isWanted: true,
  id: "a-device-of-the-test",
  url: "https://node/v1",
  stream: STREAM,
  secret: "a secret",
  until: NOON + 86_400_000,
  vapid: "B1",
  finest: 9,
  putAt: NOON,
  body: { subscription: { endpoint: "https://push.example/old" }, places: [{ cell: "8926cb19c93ffff" }] },
  spots: spotsOf([HOME], undefined),
  discs: [{ ...HOME, accuracy_m: 200 }],
};
const register = (fields = {}) => globalThis.indexedDB.kept.set(REGISTRATION, { ...REGISTERED, ...fields });
const registration = () => globalThis.indexedDB.kept.get(REGISTRATION);
const told = (id, fields) => ({ type: "alert", now: time(NOON), alert: alert(clock, id, fields) });

for (const { why, rule, places, steps, verifies } of vectors.cases)
  test(`${why} (a vector of the conformance kit, ${rule})`, async () => {
    const verify = verifies && { keys: vectors.reviewers, audience: vectors.audience, approvals: 2 };
    handle(worker, { app: "/", ...(verify && { verify }) });
    register({ spots: places.length ? spotsOf(places, undefined) : null });
    for (const step of steps) await takes(step, places, verify);
  });

async function takes({ at, push, socket, opened, visible, shows, open }, places, verify) {
  mock.timers.setTime(Date.parse(at));
  worker.pages = visible ? [fakePage(() => true)] : [];
  const said = push ? await worker.push(push) : [];
  if (socket) await hears(socket, places, verify);
  if (opened) await closeOver(worker.registration, Date.now());
  if (shows === null) assert.deepEqual(said, []);
  else isShown(said, shows);
  const ids = [...worker.shown.keys()].filter((tag) => !tag.includes(" "));
  assert.deepEqual(ids.sort(), open);
}

function isShown(said, { tag, sound, stays, text, first, until, outside, lang }) {
  assert.equal(said.length, 1);
  const [{ title, body, ...options }] = said;
  const words = `${title}\n${body}`;
  if (tag === null) assert.match(options.tag, / /);
  else assert.equal(options.tag, tag);
  if (sound !== null) assert.equal(options.silent !== true, sound);
  if (sound && tag !== null) assert.equal(options.renotify, true);
  assert.equal(options.requireInteraction === true, stays);
  let from = 0;
  for (const part of text) {
    const at = words.indexOf(part, from);
    assert.ok(at >= 0, `${part} in ${words}`);
    from = at + part.length;
  }
  if (first) assert.ok(title.toLowerCase().startsWith(first));
  if (until) {
    const timed = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" }).format(new Date(until));
    assert.ok(body.endsWith(timed), body);
  }
  if (outside !== undefined) assert.equal(/not where this phone was last|no donde este/.test(body), outside);
  if (lang) assert.equal(options.lang, lang);
}

/** Open the app's page for a moment, with these messages on its socket. */
async function hears(message, places, verify) {
  const [fakes, store] = [new FakeClock(), storageOf(new Kept(), () => () => {})];
  fakes.wall = Date.now();
  const all = { url: STREAM, places, storage: store, WebSocket: FakeSocket, clock: fakes, ...(verify && { verify }) };
  const geocast = new Geocast(all);
  for (let turn = 0; turn < 5; turn++) await fakes.pass(0);
  FakeSocket.last.welcome(fakes);
  FakeSocket.last.say(message);
  await fakes.pass(300);
  geocast.close();
  await settled();
}

const renew = { type: "renew", now: time(NOON), until: time(NOON + 3 * 86_400_000) };

test("an older push of a cancelled alert does not bring it back, even if the alert was never held", async () => {
  handle(worker, { app: "/" });
  register();
  await worker.push({ type: "cancel", now: time(NOON), id: "a", revision: 2, reason: "Over." });
  const [again] = await worker.push(told("a"));
  assert.deepEqual([again.title, again.silent], ["Called off: Arson", true]);
});

test("a push from a clock that is ahead ends its own alert, but not later ones", async () => {
  handle(worker, { app: "/" });
  register();
  const [ended] = await worker.push({ ...told("a"), now: time(NOON + 2 * 3_600_000) });
  assert.equal(ended.title, "An alert here has ended");
  const [live, again] = [await worker.push(told("b")), await worker.push(told("a"))];
  assert.deepEqual([live[0].title, live[0].silent, again[0].title, again[0].silent], ["Arson", false, "Arson", false]);
});

test("each push shows one notification, whatever it contains", async () => {
  handle(worker, { app: "/" });
  register();
  const cancel = { type: "cancel", now: time(NOON), id: "a", revision: 2, reason: "Over.", cancelled_at: time(NOON) };
  const values = [undefined, null, true, -1, 1.5, 1e400, "", "x", "__proto__", [], [null], {}, { toString: 1 }];
  for (const whole of [told("a"), { ...told("a"), cut: true }, cancel, renew])
    for (const value of values) {
      const changed = Object.keys(whole).map((name) => ({ ...whole, [name]: value }));
      const deep = Object.keys(whole.alert ?? {}).map((name) => ({ ...whole, alert: { ...whole.alert, [name]: value } }));
      for (const message of [...changed, ...deep]) {
        const shown = await worker.push(message);
        assert.equal(shown.length, 1, JSON.stringify(message));
        assert.ok(shown[0].title, JSON.stringify(message));
      }
    }
});

test("two simultaneous pushes of one alert make one sound", async () => {
  handle(worker, { app: "/" });
  register();
  const both = await Promise.all([worker.push(told("a")), worker.push(told("a"))]);
  assert.deepEqual(worker.said.map(({ silent }) => silent), [false, true]);
  assert.equal(both.length, 2);
});

test("a failing store does not prevent notifications", async () => {
  handle(worker, { app: "/" });
  globalThis.indexedDB.fails = true;
  const [shown] = await worker.push(told("a"));
  assert.deepEqual([shown.tag, shown.silent], ["a", false]);
});

test("a visible page that does not show the alert, or never replies, does not silence the notification", async () => {
  handle(worker, { app: "/" });
  register();
  worker.pages = [fakePage(() => false)];
  assert.deepEqual((await worker.push(told("a"))).map(({ silent }) => silent), [true, false]);
  mock.timers.reset();
  mock.timers.enable({ apis: ["Date", "setTimeout"], now: NOON });
  worker.pages = [fakePage(undefined)];
  const pushed = worker.push(told("b"));
  await settled();
  mock.timers.tick(3_000);
  assert.deepEqual((await pushed).map(({ silent }) => silent), [true, false]);
  assert.deepEqual([...worker.shown.keys()], ["a", "b"]);
});

test("a hidden page learns that the person saw the alert; a visible one is not told", async () => {
  handle(worker, { app: "/" });
  register();
  const [hidden, visible] = [fakePage(() => false, { visibilityState: "hidden" }), fakePage(() => true)];
  worker.pages = [hidden];
  assert.deepEqual((await worker.push(told("a"))).map(({ silent }) => silent), [false]);
  worker.pages = [hidden, visible];
  assert.deepEqual((await worker.push(told("b"))).map(({ silent }) => silent), [true]);
  assert.deepEqual(hidden.heard.map(({ told, message }) => [told, message.alert.id]), [[true, "a"], [true, "b"]]);
  assert.deepEqual(visible.heard.map(({ told }) => told), [false]);
});

// ---- fetching ----

/** Answer a short connection with a welcome and these messages. */
function answering(...messages) {
  globalThis.WebSocket = class {
    constructor(url, [protocol]) {
      Object.assign(this, { url, protocol });
      setImmediate(() => this.onopen());
    }
    send(text) {
      const message = JSON.parse(text);
      if (message.type !== "hello") return;
      worker.hello = message;
      const welcome = { type: "welcome", now: time(Date.now()), live: messages.length, heartbeat_s: 25, retry: {} };
      for (const each of [welcome, ...messages]) this.onmessage({ data: JSON.stringify(each) });
    }
    close() {}
  };
}

const cutOf = (id) => {
  const { area, ...short } = alert(clock, id);
  return { type: "alert", now: time(NOON), cut: true, alert: short };
};

test("a shortened alert is shown at once, and then completely without another sound", async () => {
  handle(worker, { app: "/", token: () => "jwt" });
  register();
  answering(told("a", { instruction: "Stay in." }), told("b"));
  const shown = await worker.push(cutOf("a"));
  assert.deepEqual(shown.map(({ tag, silent }) => [tag, silent]), [["a", false], ["a", true], ["b", false]]);
  assert.match(worker.shown.get("a").body, /Stay in\./);
  assert.deepEqual(worker.hello.places, [{ ...HOME, accuracy_m: 200 }]);
  assert.deepEqual((await worker.push(told("b"))).map(({ silent }) => silent), [true], "the alert's own push, which comes later, makes no sound");
});

test("an alert that cannot be fetched stays as it is", async () => {
  handle(worker, { app: "/" });
  register();
  assert.deepEqual((await worker.push(cutOf("a"))).map(({ tag, silent }) => [tag, silent]), [["a", false]]);
});

test("a push without content fetches and shows everything new, including cancels", async () => {
  handle(worker, { app: "/", token: () => "jwt" });
  register();
  await worker.push(told("old"));
  answering(told("new"), { type: "cancel", id: "old", revision: 2, reason: "Over.", cancelled_at: time(NOON) });
  const shown = await worker.push({ type: "fetch", now: time(NOON) });
  assert.deepEqual(shown.map(({ title }) => title), ["Arson", "Called off: Arson"]);
  assert.deepEqual(worker.hello.holding, { old: 1 });
  answering();
  const again = await worker.push({ type: "fetch", now: time(NOON) });
  assert.deepEqual(again.map(({ tag, silent }) => [tag, silent]), [["new", true]], "only the held alert is shown again, without a sound");
  mock.timers.setTime(NOON + 7_200_000);
  const over = await worker.push({ type: "fetch", now: time(NOON) });
  assert.deepEqual(over.map(({ title, silent }) => [title, silent]), [["An alert here has ended", true]]);
  assert.equal(worker.shown.size, 1);
});

// ---- the registration ----

/** Simulate the server: record its requests and give these answers. */
function server(answer) {
  const asked = [];
  globalThis.fetch = async (url, { method, headers, body }) => {
    asked.push([method, url, headers.Authorization, body && JSON.parse(body)]);
    const { status = 200, ...said } = answer(method, url);
    return { ok: status < 400, status, headers: new Headers(), json: async () => said };
  };
  return asked;
}

test("an ending lease is renewed by a page, or else by the worker, or else the person is asked", async () => {
  handle(worker, { app: "/", token: () => "jwt" });
  register();
  await worker.push(told("a"));
  worker.pages = [fakePage(({ geocast }) => geocast === "renew")];
  const [byPage] = await worker.push(renew);
  assert.deepEqual([byPage.title, byPage.silent], ["Alerts go on reaching this phone", true]);
  worker.pages = [];
  const asked = server(() => ({ until: time(NOON + 30 * 86_400_000) }));
  assert.equal((await worker.push(renew))[0].silent, true);
  const { body } = REGISTERED;
  assert.deepEqual(asked, [["PUT", `https://node/v1/devices/${REGISTERED.id}`, "Bearer jwt", { ...body, holding: { a: 1 } }]]);
  assert.equal(registration().until, NOON + 30 * 86_400_000);
  server(() => ({ status: 503, type: "/problems/full" }));
  const [unheard] = await worker.push(renew);
  assert.deepEqual([unheard.title, unheard.body, unheard.silent],
    ["Open to go on being alerted", "Alerts reach this phone until 4 May.", false]);
  assert.deepEqual([...worker.shown.keys()], ["a", "geocast renew"]);
});

test("a subscription changed by the browser is sent with the secret", async () => {
  handle(worker, { app: "/" });
  register();
  const asked = server((method) => (method === "GET" ? { vapid: "B2", cells: [5, 9] } : { until: time(NOON + 1_000_000) }));
  const at = `https://node/v1/devices/${REGISTERED.id}/subscription`;
  const given = { endpoint: "https://push.example/given" };
  await worker.has("pushsubscriptionchange", { newSubscription: { toJSON: () => given } });
  assert.deepEqual(asked.splice(0), [["PUT", at, "Bearer a secret", { subscription: given }]]);
  assert.deepEqual([registration().body.subscription, registration().vapid], [given, "B1"]);
  await worker.has("pushsubscriptionchange");
  const subscription = { endpoint: "https://push.example/new" };
  assert.deepEqual(asked[1], ["PUT", at, "Bearer a secret", { subscription }]);
  assert.deepEqual(worker.subscription.options, { userVisibleOnly: true, applicationServerKey: "B2" });
  assert.deepEqual([registration().body.subscription, registration().vapid], [subscription, "B2"]);
});

test("nothing is sent after push was disabled", async () => {
  handle(worker, { app: "/", token: () => "jwt" });
  const asked = server(() => ({}));
  await worker.has("pushsubscriptionchange");
  await worker.push(renew);
  assert.deepEqual(asked, []);
});

// ---- clicks and options ----

test("a click brings the app to the front, or opens it", async () => {
  handle(worker, { app: "/" });
  register();
  await worker.push(told("a"));
  const [other, app] = [fakePage(undefined, { url: "https://app.example/about" }), fakePage(undefined, { url: "https://app.example/?x#y" })];
  worker.pages = [other, app];
  await worker.has("notificationclick", { notification: worker.shown.get("a") });
  assert.deepEqual([worker.shown.size, app.isFocused, other.isFocused, worker.opened], [0, true, false, []]);
  worker.pages = [other];
  await worker.has("notificationclick", { notification: { data: { geocast: "a" }, close() {} } });
  assert.deepEqual(worker.opened, ["https://app.example/"]);
  await worker.has("notificationclick", { notification: { data: null, close: assert.fail } }); // of the app
});

test("notifications have the app's name, and wording in its language", async () => {
  worker.navigator.languages = ["de-AT"];
  handle(worker, { app: "/", icon: "/i.png", badge: "/b.png", words: { de: { unknown: "Eine Warnung.", open: "Öffnen." } } });
  const [{ title, body, icon, badge, lang }] = await worker.push("rubbish");
  assert.deepEqual([title, body, icon, badge, lang], ["Eine Warnung.", "Öffnen.", "/i.png", "/b.png", "de-AT"]);
});

test("unusable options throw at once", () => {
  assert.throws(() => handle({}, { app: "/" }), /scope/);
  assert.throws(() => handle(worker, {}), /app/);
  assert.throws(() => handle(worker, { app: "/", verify: {} }), /verify/);
});
