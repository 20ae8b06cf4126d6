// Tests of a verifying client: its options, and what happens to a message. (vectors.test.mjs: what it accepts.)

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { afterEach, beforeEach, test } from "node:test";
import { setImmediate } from "node:timers/promises";

import { fetchLive, Geocast } from "../../../client_demo/web/geocast/geocast.js";
import { Verifier } from "../../../client_demo/web/geocast/verify.js";
import { FakeClock, FakeSocket, HOME, memory } from "./fakes.mjs";

const URL_ = "ws://node/v1/stream";
const file = new URL("../../../client_demo/conformance/vectors/approvals.json", import.meta.url);
const { reviewers, audience, cases } = JSON.parse(readFileSync(file, "utf-8"));
const vector = (why) => cases.find((one) => one.why === why).message;
const GOOD = vector("two reviewers have signed"); // revision 2
const FORGED = vector("moved after it was signed");
const BARE = vector("a cancel without a proof");
const CANCEL = vector("a cancel"); // revision 3
const verify = { keys: reviewers, audience, approvals: 2 };
const all = { url: URL_, places: [HOME], storage: null, WebSocket: FakeSocket, verify };
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

/** Return a client after its handshake, and what it reports. */
async function join(options = {}, welcome = {}) {
  const geocast = new Geocast({ ...all, clock, ...options });
  open.push(geocast);
  const events = [];
  for (const name of ["alert", "update", "cancel", "expire"])
    geocast.on(name, ({ alert, reason }) => events.push([name, alert.revision, reason].filter(Boolean).join(" ")));
  geocast.on("error", ({ code, message }) => events.push(`${code}: ${message}`));
  geocast.on("alert", ({ alert }) => geocast.ack(alert));
  geocast.on("status", ({ state }) => state !== "connecting" && events.push(state));
  await clock.pass(0);
  await clock.pass(0);
  const socket = FakeSocket.last;
  socket.welcome(clock, welcome);
  await settled();
  return { geocast, events, socket };
}

/** Wait until WebCrypto, which uses its own threads, has answered every request and the client has handled it. */
async function settled() {
  for (let quiet = 0; quiet < 20; quiet++) {
    await setImmediate();
    if (asking.size) {
      await Promise.allSettled(asking);
      quiet = 0;
    }
  }
}

const asking = new Set(); // requests that WebCrypto has not answered yet
for (const name of ["digest", "importKey", "verify"]) {
  const ask = SubtleCrypto.prototype[name];
  SubtleCrypto.prototype[name] = function (...args) {
    const answer = ask.apply(this, args);
    asking.add(answer);
    const done = () => asking.delete(answer);
    answer.then(done, done);
    return answer;
  };
}

/** A `verify.with` that is answered by the test, in any order. */
function byHand() {
  const asked = [];
  const check = () => new Promise((answer, fail) => asked.push({ answer, fail }));
  return { asked, check };
}

test("unusable options throw at once without repeating their values", () => {
  const [first] = reviewers.keys;
  const keys = (...some) => ({ keys: { keys: some } });
  const bad = [
    { audience: "" },
    { audience: 7 },
    { approvals: 0 },
    { approvals: undefined },
    { approvals: 9 },
    { approvals: "2" },
    { cancelApprovals: -1 },
    { cancelApprovals: 1.5 },
    { with: "secret" },
    { keys: undefined },
    { keys: [first] },
    keys(),
    keys(first, first),
    keys({ ...first, d: "secret" }),
    keys({ ...first, alg: "EdDSA" }),
    keys({ ...first, kty: "oct" }),
    keys({ ...first, sub: undefined }),
    keys({ ...first, kid: "" }),
    keys({ ...first, x: "AAAA" }),
    keys({ ...first, x: undefined }),
    keys("secret"),
  ];
  for (const options of bad)
    assert.throws(
      () => new Geocast({ ...all, clock, verify: { ...verify, ...options } }),
      (error) => error instanceof TypeError && /verify/.test(error.message) && !/secret/.test(error.message),
    );
});

test("a verifying client insists on a signed stream, in either format", async () => {
  const { socket } = await join();
  assert.equal(socket.protocol, "geocast.v1.json.signed");
  await join({ msgpack: { encode: JSON.stringify, decode: JSON.parse } });
  assert.equal(FakeSocket.last.protocol, "geocast.v1.msgpack.signed");
});

test("a text with an unpaired surrogate is not accepted as signed", async () => {
  const form = GOOD.proof.form.replace("Building", "\ud83d");
  const forged = { ...GOOD, proof: { ...GOOD.proof, form } };
  await assert.rejects(new Verifier(verify).read(forged), { reason: "signature" });
});

test("an unverified message is neither held nor acknowledged, and held alerts stay (C13, C14)", async () => {
  const { geocast, events, socket } = await join({}, { live: 2 });
  for (const message of [FORGED, GOOD, BARE, FORGED]) socket.say(message);
  await settled();
  assert.deepEqual(events, [
    "untrusted: an alert was dropped: signature",
    "alert 2",
    "online",
    "untrusted: a cancel was dropped: unsigned",
    "untrusted: an alert was dropped: signature",
  ]);
  assert.deepEqual(socket.took("ack"), [{ type: "ack", id: GOOD.alert.id, revision: 2 }]);
  const [{ alert }] = geocast.held();
  assert.equal(alert.issued_at, "2031-05-01T11:59:05.000Z");
  assert.equal(alert.headline, JSON.parse(GOOD.proof.form).headline);
  socket.say(CANCEL);
  await settled();
  assert.equal(events.at(-1), "cancel 2 The fire is out.");
  assert.deepEqual(geocast.held(), []);
});

test("messages are handled in order although the first takes longest; the close comes last (C15)", async () => {
  const { asked, check } = byHand();
  const { events, socket } = await join({ verify: { ...verify, with: check } }, { live: 1 });
  socket.say(GOOD);
  socket.say(CANCEL);
  socket.say({ type: "pong", now: "2031-05-01T12:50:00.000Z" });
  socket.end(1012);
  const [one, two, ofTheCancel] = asked.map(({ answer }) => answer);
  ofTheCancel(true);
  await settled();
  assert.deepEqual(events, []);
  one(true);
  two(true);
  await settled();
  assert.deepEqual(events, ["alert 2", "online", "cancel 2 The fire is out.", "waiting"]);
});

test("`ok` stays a barrier (C15, R8)", async () => {
  const { asked, check } = byHand();
  const { geocast, events, socket } = await join({ verify: { ...verify, with: check } });
  geocast.setPlaces([HOME]).then((done) => events.push(`moved ${done}`));
  const [{ ref }] = socket.took("move");
  socket.say(GOOD);
  socket.say({ type: "ok", ref, live: 0 });
  await settled();
  for (const { answer } of asked) answer(true);
  await settled();
  assert.deepEqual(events, ["online", "alert 2", "moved true"]);
});

test("a message that is verified after the close is ignored", async () => {
  const { asked, check } = byHand();
  const { geocast, events, socket } = await join({ verify: { ...verify, with: check } });
  socket.say(GOOD);
  socket.say(FORGED);
  geocast.close();
  for (const { answer } of asked) answer(true);
  await settled();
  assert.deepEqual(events, ["online", "closed"]);
});

test("a function that fails, or returns anything but true, has not verified", async () => {
  for (const check of [() => Promise.reject(new Error("no")), () => { throw new Error("no"); }, () => 1, () => {}]) {
    const { events, socket } = await join({ verify: { ...verify, with: check } });
    socket.say(GOOD);
    await settled();
    assert.deepEqual(events, ["online", "untrusted: an alert was dropped: signature"]);
  }
});

test("`verify.with` gets its arguments in the order of @noble/ed25519's verifyAsync", async () => {
  const { asked, check } = { asked: [], check: (...args) => asked.push(args.map((each) => each.length)) && true };
  await new Verifier({ ...verify, with: check }).read(GOOD);
  const { form, signatures } = GOOD.proof;
  const signed = signatures[0].protected.length + 1 + Math.ceil((Buffer.byteLength(form) * 4) / 3);
  assert.deepEqual(asked[0], [64, signed, 32]);
});

test("verified alerts are stored under a separate key", async () => {
  const storage = memory();
  const { geocast, socket } = await join({ storage });
  socket.say(GOOD);
  await settled();
  geocast.close();
  assert.deepEqual([...storage.entries.keys()], [`geocast-verified:${URL_}`]);
});

test("fetchLive returns accepted messages and reports the others", async () => {
  const done = fetchLive({ ...all, clock });
  await setImmediate();
  FakeSocket.last.welcome(clock, { live: 3 });
  for (const message of [BARE, GOOD, FORGED]) FakeSocket.last.say(message);
  const { alerts, cancels, untrusted } = await done;
  assert.deepEqual([alerts.map(({ alert }) => alert.revision), cancels], [[2], []]);
  assert.deepEqual(untrusted, [
    { type: "cancel", reason: "unsigned" },
    { type: "alert", reason: "signature" },
  ]);
});
