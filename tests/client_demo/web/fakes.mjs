// A clock that a test advances, and a simulated server. Time passes only when the test says so, and a socket delivers only
// the messages of the test.

import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";

export class FakeClock {
  wall = Date.UTC(2031, 4, 1, 12);
  stood = 0; // time on the steady clock, in ms
  timers = new Map();
  now = () => this.wall;
  steady = () => this.stood;

  setTimeout = (callback, ms) => {
    const timer = {};
    this.timers.set(timer, { at: this.stood + ms, callback });
    return timer;
  };
  clearTimeout = (timer) => this.timers.delete(timer);

  /** Let time pass, timer by timer. */
  async pass(ms) {
    const end = this.stood + ms;
    await setImmediate();
    for (;;) {
      const [timer, first] = [...this.timers].sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      const next = Math.min(end, Math.max(this.stood, first?.at ?? end));
      this.wall += next - this.stood;
      this.stood = next;
      if (!first || first.at > end) return;
      this.timers.delete(timer);
      first.callback();
      await setImmediate();
    }
  }

  /** Put the device to sleep: the wall clock continues, while the steady clock and the timers stop. */
  sleep(ms) {
    this.wall += ms;
  }
}

/** A stand-in for `WebSocket`; `FakeSocket.all` lists all instances. */
export class FakeSocket {
  static all = [];
  static get last() {
    return this.all.at(-1);
  }

  sent = [];
  isClosed = false;

  constructor(url, [protocol]) {
    Object.assign(this, { url, protocol });
    FakeSocket.all.push(this);
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close(code) {
    this.isClosed = code ?? true;
  }

  // ---- the server's side ----

  say(message) {
    this.onmessage({ data: typeof message === "string" ? message : JSON.stringify(message) });
  }
  /** Accept the connection and send a welcome. */
  welcome(clock, fields = {}) {
    this.onopen();
    const retry = { min_ms: 2_000, max_ms: 10_000 };
    this.say({ type: "welcome", session: "s", now: time(clock.wall), live: 0, heartbeat_s: 25, retry, ...fields });
  }
  end(code) {
    this.onclose({ code });
  }
  /** Return the messages of a type that were sent since the last call. */
  took(type) {
    const found = this.sent.filter((message) => message.type === type);
    this.sent = this.sent.filter((message) => message.type !== type);
    return found;
  }
}

export const time = (ms) => new Date(ms).toISOString();
export const HOME = { lat: 32.7767, lng: -96.797 };
export const AWAY = { lat: 40, lng: -100 };

export const alert = (clock, id, fields = {}) => ({
  id,
  revision: 1,
  category: "arson",
  title: "Arson",
  headline: "Fire",
  severity: "severe",
  status: "actual",
  source: "desk",
  occurred_at: time(clock.wall - 60_000),
  issued_at: time(clock.wall),
  expires_at: time(clock.wall + 3_600_000),
  area: [{ type: "circle", ...HOME, radius_m: 1_000 }],
  ...fields,
});

/** Return a storage that answers at once, or later. */
export const memory = (isSlow = false, entries = new Map()) => {
  const answer = (value) => (isSlow ? setImmediate().then(() => value) : value);
  return {
    entries,
    getItem: (key) => answer(entries.get(key) ?? null),
    setItem: (key, value) => answer(void entries.set(key, value)),
    removeItem: (key) => answer(void entries.delete(key)),
  };
};

/** A stand-in for the public feed: `fetch` answers with its present content. */
export class FakeFeed {
  features = [];
  cancelled = [];
  asked = []; // the requests, as [url, options]
  failure = null; // a status and headers, or "offline", to answer instead
  ahead = 0; // its clock minus the test's

  constructor(clock) {
    this.clock = clock;
  }

  /** Publish an alert or a revision. */
  put(id, fields) {
    const properties = alert(this.clock, id, fields);
    this.features = [...this.features.filter((each) => each.id !== id), { type: "Feature", id, geometry: null, properties }];
  }
  cancel(id, revision) {
    this.features = this.features.filter((each) => each.id !== id);
    this.cancelled.push({ type: "cancel", id, revision, reason: "Over.", cancelled_at: time(this.clock.wall) });
  }

  fetch = async (url, options) => {
    this.asked.push([url, options]);
    const date = { Date: new Date(this.clock.wall + this.ahead).toUTCString() };
    if (this.failure === "offline") throw new TypeError("offline");
    if (this.failure?.isDeaf) return new Promise(() => {}); // not even an abort ends the request
    if (this.failure?.hangs) return new Promise((_, reject) => options.signal.addEventListener("abort", () => reject(new Error("aborted"))));
    if (this.failure) return new Response(this.failure.body ?? "{}", { ...this.failure, headers: { ...date, ...this.failure.headers } });
    const body = JSON.stringify({ type: "FeatureCollection", features: this.features, cancelled: this.cancelled });
    const ETag = `"${createHash("sha256").update(body).digest("hex")}"`;
    const headers = { ETag, ...date, "Cache-Control": "public, max-age=5, must-revalidate" };
    if (options.headers?.["If-None-Match"] === ETag) return new Response(null, { status: 304, headers });
    return new Response(body, { headers });
  };
}
