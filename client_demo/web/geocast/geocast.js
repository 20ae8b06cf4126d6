/**
 * A client for geocast's stream: web pages, React Native, Node. `geocast.d.ts` documents the exports.
 *
 * Rule 1  The places, the filter and the held alerts outlive the connection; each `hello` sends them again.
 * Rule 2  A token that was refused is not sent again.
 * Rule 3  A call with invalid arguments throws at once; later failures are reported by `error` events.
 * Rule 4  With `verify`, an alert that its proof does not confirm is dropped before any listener: it is neither held nor
 *         acknowledged.
 * Rule 5  A server of an older release closes a `hello` that contains `languages`. The client then reconnects without
 *         them. If a `welcome` shows that the server knows languages, the client sends them in a `filter`, and in each
 *         `hello` after that. The member `here` of a place works in the same way: it is sent after the first `welcome`
 *         with `quals`, and in each `hello` after that.
 * Rule 6  A responder's answers outlive the connection too; `calls.js` decides when each is sent, and sent again.
 * Rule 7  A storage that a service worker shares is written at once and read before each connection. An alert that the
 *         worker hands over is treated like one from a connection: an alert that comes both ways is shown once.
 * Rule 8  There is one timer. Due work is found by the clock, so that nothing is lost when a device sleeps.
 * Rule 9  With the source `auto`, the feed is followed after three failures in a row to open a connection, or after a
 *         minute without one, and also if the server refuses us for good. Meanwhile a connection is tried every 10
 *         minutes, and at once when the browser is online again. The first `welcome` ends it. Held alerts stay.
 * Rule 10 No message ends the client: what a `hello` could not list is dropped, counted and reported as an `error` event. If a
 *         server refuses a `hello` nevertheless, the client comes back once without `holding`.
 */

/** @import { Alert, Events, Filter, H3, Handed, HeldCall, Options, Place, Problem, Status } from "./geocast.js" */
/** @typedef {import("./geocast.js").Geocast} Declared */
/** @import { CallChange } from "./calls.js" */
/** @import { Change, Stored } from "./holdings.js" */
/** @import { Message } from "./link.js" */
/** @import { After } from "./reconnect.js" */
/** @import { Spot } from "./geo.js" */

import { Calls } from "./calls.js";
import { OwnClock } from "./clock.js";
import { awayM, distanceM, spotOf, spotsOf } from "./geo.js";
import { Feed } from "./feed.js";
import { fetchLive, GeocastError } from "./fetch.js";
import { Holdings, MAX_HOLDING, timeOf } from "./holdings.js";
import { countOf, Link } from "./link.js";
import { Listeners } from "./listeners.js";
import { connectionOf, defaultKey, feedOf, filterOf, helloOf, knowsLanguages, notTooMany } from "./options.js";
import { qualsOf, tokenExpiry, tokenFrom, wiresOf, withoutLanguages, withValues } from "./options.js";
import { follow } from "./position.js";
import { afterClose, Backoff, HELLO_REFUSED, MALFORMED, meaning, NO_CLOSE_FRAME } from "./reconnect.js";
import { defaultStorage, Store } from "./store.js";

export { distanceM, fetchLive, GeocastError };

const LOOK_MS = 15_000; // a sleeping machine's timer may stop, so look at the clock this often
const LATE_MS = 5_000; // after an absence this long, ping to test the connection
const GONE_MS = 90_000; // after this long the connection is lost: the server drops clients that are silent for 60 s, and a hidden page's timers come late
const STORAGE_MS = 3_000; // do not delay alerts longer for a slow storage; its content is merged at the next save
const SAVE_MS = 250; // changes within this time are written together
const TOKEN_MS = 30_000; // a token function that takes longer has failed
const RENEW_MS = 60_000; // before a token expires, or after 80 % of its life if that is later
const RENEW_AGAIN_MS = 5_000; // after a failed renewal
const MAX_FAILURES = 3; // to open a connection, before the feed is followed (Rule 9) and the reason says more
const NEVER_ANSWERED =
  "no stream has ever answered at this url: check the host, the port (the stream's, not the api's) and, for a page, that the server allows its origin";
const PATIENCE_MS = 60_000; // without a connection, before the feed is followed
const TRY_AGAIN_MS = 600_000; // between two attempts to connect, while the feed is followed

const INSIDE = Symbol("internals for watchPosition only");

/** @implements {Declared} */
export class Geocast {
  #options;
  #own;
  #ahead = 0; // the server's clock minus the client's own clock
  #knowsClock = false;
  #holdings = new Holdings();
  #calls = new Calls();
  /** @type {readonly string[]} */
  #quals = [];
  /** @type {number | null} */
  #restUntil = null; // by the server's clock
  #store;
  #backoff;
  #listeners = new Listeners();
  /** @type {Status} */
  #status = { state: "connecting" };
  /** @type {Spot[]} */
  #spots = [];
  /** @type {Spot | null} */
  #position = null;
  #filter;
  #saysLanguages = true; // Rule 5
  #saysHere = false; // Rule 5
  #helloMayBeTooNew = false; // whether the last hello had languages or `here` and is unanswered
  #saysHolding = true; // whether the next hello has `holding` (Rule 10)
  #helloHasHolding = false; // whether the last hello had `holding` and is unanswered
  #isAnswered = false; // whether the last attempt to connect was answered
  #unanswered = 0; // attempts in a row, as long as nothing has ever answered; then -Infinity
  #droppedMessages = 0;
  /** @type {Link | null} */
  #link = null;
  #feedOptions;
  /** @type {Feed | null} null: it is not followed */
  #feed = null;
  #random;
  #failures = 0; // attempts to connect that failed since the last welcome
  #wasWelcomed = false; // on the present or last connection
  /** @type {ReturnType<Declared["try"]> | null} */
  #trying = null;
  #attempt = 0; // number of the attempt, which identifies a token that comes too late
  #catchUp = 0; // messages that the welcome announced and that have not come yet
  /** @type {string | undefined} */
  #token;
  /** @type {string | undefined} */
  #refusedToken;
  /** @type {After} */
  #after = "window";
  #toldVersion = 0;
  #toldCalls = 0;
  /** @type {unknown} */
  #timer;
  // The times of due work, by the client's own clock.
  #retryAt = Infinity;
  #tokenBy = Infinity;
  #renewAt = Infinity;
  #saveAt = Infinity;
  #feedBy = Infinity;
  #lookAt = Infinity;
  /** @type {(() => void)[]} */
  #unwatch = [];

  /** @param {Options} options */
  constructor(options) {
    this.#feedOptions = feedOf(options);
    this.#options = { ...connectionOf(options), source: options.source ?? "socket" };
    this.#filter = this.#options.filter;
    this.#own = new OwnClock(this.#options.clock);
    this.#random = options.random ?? Math.random;
    this.#backoff = new Backoff(this.#random);
    const { storage = defaultStorage(), storageKey = defaultKey({ ...options, url: options.url ?? options.feed }) } = options;
    this.#store = new Store(storage, storageKey, (cause) =>
      this.#problem("storage", "the storage failed; held alerts are kept until the page is closed", cause),
    );
    if (options.places) this.#move(spotsOf(options.places, options.h3), null);
    this.#watchPage();
    this.#unwatch.push(this.#store.watch((handed) => this.#handed(handed)));
    Promise.resolve().then(() => this.#start());
  }

  // ---- for the caller ---------------------------------------------------------------------------------------------

  /** @type {Declared["on"]} */
  on(name, listener) {
    return this.#listeners.on(name, listener);
  }

  get status() {
    return this.#status;
  }

  held() {
    return this.#holdings.list(this.now());
  }

  now() {
    return this.#own.now() + this.#ahead;
  }

  get places() {
    return this.#allSpots().map(({ wire }) => wire);
  }

  /** @param {readonly Place[]} places */
  setPlaces(places) {
    return this.#move(spotsOf(places, this.#options.h3), this.#position);
  }

  /** @param {Place | null} position */
  setPosition(position) {
    return this.#move(this.#spots, position && spotOf(position, this.#options.h3, "position"));
  }

  /** @param {Filter} filter */
  setFilter(filter) {
    const fields = filterOf(filter);
    this.#filter = { ...this.#filter, ...fields };
    this.#takeFeed();
    const said = this.#saysLanguages ? fields : withoutLanguages(fields);
    return Object.keys(said).length ? this.#ask("filter", said) : Promise.resolve(true);
  }

  /** @param {Pick<Alert, "id" | "revision">} alert */
  ack({ id, revision }) {
    if (this.#link?.isWelcomed) this.#link.ack(id, revision);
    this.#settle();
  }

  /** @param {"socket" | "feed" | "auto"} source */
  setSource(source) {
    if (source !== "socket" && !this.#feedOptions) throw new TypeError("source: the option feed is needed");
    if (source !== "feed" && !this.#options.url) throw new TypeError("source: the option url is needed");
    if (!["socket", "feed", "auto"].includes(source)) throw new TypeError('source: expected "socket", "feed" or "auto"');
    if (this.#status.state === "closed" || source === this.#options.source) return;
    this.#options.source = source;
    this.#failures = 0;
    this.#end({ state: "connecting" });
    if (source === "feed") this.#followFeed();
    else this.#connect();
  }

  /** @type {Declared["try"]} */
  try() {
    return (this.#trying ??= this.#try().finally(() => (this.#trying = null)));
  }

  async #try() {
    const id = `t${Math.random().toString(36).slice(2)}${Math.random().toString(36).slice(2)}`; // needs no secrecy
    const answer = this.#link?.isWelcomed ? this.#link.request("try", { id }) : null;
    this.#settle();
    const said = await answer;
    if (said?.type === "ok") return { id: `try:${id}` };
    const wait = Number(said?.retry_after_s);
    return withValues({ reason: String(said?.code ?? "not-connected"), retryAfterS: wait > 0 ? wait : undefined });
  }

  get dropped() {
    return this.#droppedMessages;
  }

  get quals() {
    return this.#quals;
  }

  get restUntil() {
    return this.#restUntil !== null && this.#restUntil > this.now() ? this.#restUntil : null;
  }

  calls() {
    return this.#calls.list().map((held) => this.#heldCall(held));
  }

  /** @param {string} id @param {number} [etaS] */
  accept(id, etaS) {
    this.#calls.accept(id, etaS, this.#own.now());
    this.#settle();
  }

  /** @param {string} id */
  decline(id) {
    this.#calls.decline(id, this.#own.now());
    this.#settle();
  }

  /** @param {string} id @param {"aed" | "arrived"} state */
  report(id, state) {
    this.#calls.report(id, state, this.#own.now());
    this.#settle();
  }

  /** @param {string} id */
  arrived(id) {
    this.report(id, "arrived");
  }

  check() {
    this.#link?.ping();
    this.#feed?.ask();
    this.#look();
  }

  async forget() {
    this.#holdings = new Holdings();
    this.#holdings.move(this.#allSpots());
    this.#toldVersion = -1;
    this.#calls.forget();
    this.#saveAt = Infinity;
    await this.#store.forget();
    this.#settle();
  }

  close() {
    if (this.#status.state === "closed") return;
    this.#end({ state: "closed" });
  }

  /** @returns {{ h3: H3 | undefined, problem: (problem: Problem) => void }} */
  [INSIDE]() {
    return { h3: this.#options.h3, problem: (problem) => this.#emit("error", problem) };
  }

  // ---- connecting -------------------------------------------------------------------------------------------------

  async #start() {
    await this.#load();
    if (this.#status.state === "closed" || this.#attempt > 0) return; // the source was changed meanwhile
    if (this.#options.source === "feed") this.#followFeed();
    else this.#connect();
  }

  /** Merge the content of the storage, if the storage answers in time. */
  async #load() {
    /** @type {unknown} */
    let timer;
    const late = new Promise((resolve) => (timer = this.#options.clock.setTimeout(() => resolve(null), STORAGE_MS)));
    const stored = await Promise.race([this.#store.load(), /** @type {Promise<null>} */ (late)]);
    this.#options.clock.clearTimeout(timer);
    if (stored && this.#status.state !== "closed") this.#restore(stored);
  }

  /** Merge what the worker or another page has stored meanwhile (Rule 7). */
  async #reload() {
    if (this.#store.isShared) await this.#load();
  }

  /** @param {Stored} stored */
  #restore(stored) {
    if (stored.ahead !== null && !this.#knowsClock) this.#setAhead(this.#options.clock.now() + stored.ahead);
    this.#report(this.#holdings.restore(stored, this.now(), this.#own.now()));
    this.#settle();
  }

  async #connect() {
    const attempt = ++this.#attempt;
    this.#wasWelcomed = this.#isAnswered = false;
    this.#retryAt = Infinity;
    if (!this.#feed) this.#setStatus({ ...this.#status, state: "connecting", retryAt: undefined });
    this.#tokenBy = this.#own.now() + TOKEN_MS;
    this.#settle();
    const [found] = await Promise.all([this.#fetchToken(), attempt > 1 && this.#reload()]);
    if (attempt !== this.#attempt) return;
    this.#tokenBy = Infinity;
    if (found === null) return this.#wait("window", "no token could be fetched");
    this.#token = found.token;
    this.#open();
  }

  /** Return a token that the server has not refused; null without one (Rule 2). @returns {Promise<{ token: string | undefined } | null>} */
  async #fetchToken() {
    try {
      const token = await tokenFrom(this.#options.token);
      if (token !== undefined && token === this.#refusedToken) throw new Error("the server has refused this one");
      return { token };
    } catch (cause) {
      this.#problem("token", "no token could be fetched", cause);
      return null;
    }
  }

  #open() {
    const { WebSocket, url, wire, verifier } = this.#options;
    try {
      this.#link = new Link(WebSocket, url, wire, {
        now: () => this.#own.now(),
        hello: () => this.#hello(),
        welcomed: (welcome) => this.#welcomed(welcome),
        take: (message) => this.#take(message),
        ...(verifier && { read: (message) => verifier.read(message) }),
        dropped: (message, cause) => this.#dropped(message, cause),
        refused: (why) => this.#problem("refused", why),
        unreadable: () => this.#drop("the server sent data that is not a message"),
        ended: (code) => this.#ended(code),
      });
    } catch {
      return this.#stop("this url cannot be connected to from here");
    }
    this.#settle();
  }

  /** @returns {Message} */
  #hello() {
    this.#expireCalls();
    const calls = this.#calls.holding(MAX_HOLDING);
    const [holding, dropped] = this.#holdings.holding(this.now(), this.#own.now(), MAX_HOLDING - calls.length);
    this.#report(dropped);
    this.#settle();
    const saysHere = this.#saysHere && this.#isHere();
    this.#helloMayBeTooNew = (this.#saysLanguages && this.#filter.languages != null) || saysHere;
    const filter = this.#saysLanguages ? this.#filter : withoutLanguages(this.#filter);
    const listed = new Map(this.#saysHolding ? [...calls, ...holding] : []);
    this.#helloHasHolding = listed.size > 0;
    this.#isAnswered = true;
    return helloOf(this.#saidPlaces(), listed, this.#token, filter);
  }

  /** @param {Message} welcome */
  #welcomed(welcome) {
    const { min_ms, max_ms } = /** @type {Record<string, unknown>} */ (welcome.retry ?? {});
    this.#backoff.welcomed(min_ms, max_ms);
    this.#setAhead(timeOf(welcome.now));
    this.#renewAt = this.#renewal(timeOf(welcome.token_expires_at));
    this.#catchUp = countOf(welcome.live);
    [this.#wasWelcomed, this.#failures, this.#feedBy] = [true, 0, Infinity];
    this.#offerLanguages(welcome);
    this.#offerHere(welcome);
    this.#calls.connected(this.#own.now());
    this.#caughtUp();
    this.#settle();
  }

  /** Send the languages that the hello had left out if the server knows them (Rule 5). @param {Message} welcome */
  #offerLanguages(welcome) {
    this.#helloMayBeTooNew = this.#helloHasHolding = false;
    this.#saysHolding = true;
    if (this.#saysLanguages || !knowsLanguages(welcome)) return;
    this.#saysLanguages = true;
    const { languages } = this.#filter;
    if (languages != null) this.#link?.ask("filter", { languages });
  }

  /** Send `here` if the server takes us for a responder and the hello had left it out (Rule 5). @param {Message} welcome */
  #offerHere(welcome) {
    const wasSaid = this.#saysHere;
    this.#quals = qualsOf(welcome);
    this.#restUntil = timeOf(welcome.rest_until) || null;
    this.#saysHere = this.#quals.length > 0;
    if (this.#saysHere && !wasSaid && this.#isHere()) this.#link?.ask("move", { places: this.#saidPlaces() });
  }

  #isHere() {
    return this.#allSpots().some(({ here }) => here);
  }

  #saidPlaces() {
    return wiresOf(this.#allSpots(), this.#saysHere);
  }

  #caughtUp() {
    if (this.#catchUp > 0 || (this.#status.state !== "connecting" && !this.#feed)) return;
    this.#feed?.close();
    this.#feed = null;
    this.#setStatus({ state: "online" });
  }

  /** @param {number} code */
  #ended(code) {
    this.#unanswered = this.#isAnswered ? -Infinity : this.#unanswered + 1;
    const none = this.#unanswered < MAX_FAILURES ? "no connection could be made" : NEVER_ANSWERED;
    const reason = code === NO_CLOSE_FRAME && !this.#wasWelcomed ? none : meaning(code);
    const after = afterClose(code);
    this.#link = null;
    this.#renewAt = Infinity;
    this.#catchUp = 0;
    if (after === "new token") this.#refusedToken = this.#token;
    if (code === MALFORMED && this.#helloMayBeTooNew) {
      this.#saysLanguages = this.#saysHere = this.#helloMayBeTooNew = false;
      return this.#wait("at once", "the server may be of an older release", code);
    }
    if (HELLO_REFUSED.includes(code) && this.#helloHasHolding) {
      this.#saysHolding = this.#helloHasHolding = false;
      return this.#wait("window", `${reason}, so the next hello lists nothing`, code);
    }
    const isHopeless = after === "never" || (after === "new token" && typeof this.#options.token !== "function");
    if (isHopeless) this.#stop(reason, code);
    else this.#wait(after, reason, code);
  }

  /** @param {After} after @param {string} reason @param {number} [code] */
  #wait(after, reason, code) {
    this.#after = after;
    if (this.#options.source === "auto" && !this.#feed) this.#countFailure();
    this.#retryIn(this.#feed ? this.#tryAgain() : this.#backoff.delay(after, this.#isAnswered || code === undefined), reason, code);
  }

  /** @param {number} delay @param {string} [reason] @param {number} [code] */
  #retryIn(delay, reason, code) {
    this.#retryAt = this.#own.now() + delay;
    if (!this.#feed) this.#setStatus({ state: "waiting", reason, code, retryAt: this.#options.clock.now() + delay });
    this.#settle();
  }

  /** @param {string} reason @param {number} [code] */
  #stop(reason, code) {
    if (this.#options.source !== "auto") return this.#end({ state: "stopped", reason, code });
    this.#problem("refused", `the server refuses a connection for good: ${reason}`);
    this.#retryAt = Infinity;
    this.#followFeed();
    this.#settle();
  }

  /**
   * End all connections. When stopped, held alerts still expire; when closed, nothing happens any more.
   * @param {Status} status
   */
  #end(status) {
    this.#attempt++;
    this.#link?.close();
    this.#feed?.close();
    this.#link = this.#feed = null;
    this.#retryAt = this.#tokenBy = this.#renewAt = this.#feedBy = Infinity;
    this.#setStatus(status);
    if (status.state === "closed") {
      this.#save();
      for (const unwatch of this.#unwatch.splice(0)) unwatch();
    }
    this.#settle();
  }

  // ---- the feed (Rule 9) ------------------------------------------------------------------------------------------

  #countFailure() {
    if (!this.#wasWelcomed) this.#failures++;
    this.#feedBy = Math.min(this.#feedBy, this.#own.now() + PATIENCE_MS);
    if (this.#failures >= MAX_FAILURES) this.#followFeed();
  }

  #tryAgain() {
    return TRY_AGAIN_MS * (0.9 + 0.1 * this.#random());
  }

  #followFeed() {
    if (this.#feed || !this.#feedOptions) return;
    this.#feedBy = Infinity;
    if (this.#retryAt < Infinity) this.#retryAt = this.#own.now() + this.#tryAgain();
    const feed = new Feed(this.#feedOptions, this.#random, {
      now: () => this.#own.now(),
      heard: (behind) => this.#heardFeed(feed, behind),
      failed: (reason, retryAt) => this.#feedFailed(reason, retryAt),
      incomplete: () => this.#drop("the feed has an alert that is incomplete"),
    });
    this.#feed = feed;
    this.#setStatus({ state: "connecting", source: "feed" });
    this.#settle();
  }

  /** @param {Feed} feed @param {{ least: number, most: number }} behind the possible values of `#ahead` */
  #heardFeed({ lateMs }, { least, most }) {
    const ahead = Math.min(Math.max(this.#ahead, least), most);
    if (ahead !== this.#ahead || !this.#knowsClock) this.#setAhead(this.#own.now() + ahead);
    this.#takeFeed();
    if (this.#status.state !== "online" || this.#status.lateMs !== lateMs)
      this.#setStatus({ state: "online", source: "feed", lateMs });
    this.#settle();
  }

  /** @param {string} reason @param {number} retryAt */
  #feedFailed(reason, retryAt) {
    const at = this.#options.clock.now() + retryAt - this.#own.now();
    this.#setStatus({ state: "waiting", source: "feed", reason, retryAt: at });
    this.#settle();
  }

  /** Take what the last document has for us: it is new, or our places or the filter are. */
  #takeFeed() {
    const messages = this.#feed?.listing.messages(this.#holdings, this.#allSpots(), this.#filter) ?? [];
    for (const message of messages) this.#report(this.#changesOf(message) ?? []);
  }

  // ---- incoming messages -------------------------------------------------------------------------------------------

  /**
   * Take the message of a push (Rule 7) and return whether this page shows it. An alert that a notification has already
   * shown causes no `alert` event.
   * @param {Handed} handed @returns {Promise<boolean>}
   */
  async #handed({ message, told, verified }) {
    if ((this.#options.verifier && !verified) || this.#status.state === "closed") return false;
    const changes = this.#changesOf(message);
    this.#report((changes ?? []).filter(([name]) => name !== "alert" || !told));
    this.#settle();
    const { id } = /** @type {Record<string, unknown>} */ (message.alert ?? message);
    return this.#holdings.entry(String(id))?.shown === true;
  }

  /** @param {Message} message */
  #take(message) {
    this.#noticeSleep();
    if (!this.#link) return;
    if (message.type === "pong") this.#setAhead(timeOf(message.now));
    if (message.type === "alert" || message.type === "cancel") {
      const { kept } = this.#holdings;
      const changes = this.#changesOf(message);
      if (this.#holdings.kept > kept) this.#link.ping(); // ended on arrival: ask for the server's time
      if (changes === null) this.#drop(`the server sent an ${message.type} that is incomplete`);
      else this.#report(changes);
      this.#took();
    }
    const taken = this.#takeOfCalls(message);
    if (taken !== undefined) {
      if (taken === null) this.#drop(`the server sent a ${message.type} that is incomplete`);
      else this.#reportCalls(taken);
      this.#took();
    }
    if (message.type === "error") this.#problem("refused", `the server refuses something: ${message.detail}`);
    this.#settle();
  }

  /** @param {Message} message an alert or a cancel @returns {Change[] | null} null for an incomplete message */
  #changesOf(message) {
    if (message.type !== "alert") return this.#holdings.cancel(message);
    return this.#holdings.take(message.alert, this.now(), this.#own.now());
  }

  /** @param {Message} message @returns {CallChange[] | null | undefined} null for an incomplete message; undefined if it concerns no call */
  #takeOfCalls(message) {
    const [now, own] = [this.now(), this.#own.now()];
    if (message.type === "call") return this.#calls.call(message.call, now, own);
    if (message.type === "task") return this.#calls.task(message, now, own);
    if (message.type === "standdown") {
      this.#restUntil = timeOf(message.rest_until) || this.#restUntil;
      return this.#calls.standdown(message);
    }
    return undefined;
  }

  /** Count one of the messages that the welcome announced. */
  #took() {
    if (this.#catchUp > 0) this.#catchUp--;
    this.#caughtUp();
  }

  /** Count a message that cannot be used, and report it (Rule 10). @param {string} why */
  #drop(why) {
    this.#droppedMessages++;
    this.#problem("message", why);
  }

  /** Report a message that too few known reviewers approved (C14). The revision that was held stays. @param {Message} message @param {any} untrusted */
  #dropped({ type }, untrusted) {
    this.#noticeSleep();
    if (!this.#link) return;
    const { reason, cause } = untrusted;
    this.#problem("untrusted", `${type === "alert" ? "an alert" : "a cancel"} was dropped: ${reason}`, cause);
    this.#took();
    this.#settle();
  }

  /** @param {number} serverNow */
  #setAhead(serverNow) {
    if (Number.isNaN(serverNow)) return;
    this.#ahead = serverNow - this.#own.now();
    this.#knowsClock = true;
    this.#report(this.#expire());
    this.#expireCalls();
  }

  #expireCalls() {
    this.#reportCalls(this.#calls.expire(this.now(), this.#own.now()));
  }

  #expire() {
    return this.#holdings.expire(this.now(), this.#own.now());
  }

  // ---- outgoing messages -------------------------------------------------------------------------------------------

  #allSpots() {
    return this.#position ? [this.#position, ...this.#spots] : this.#spots;
  }

  /** Change the places and judge the held alerts again at once. @param {Spot[]} spots @param {Spot | null} position */
  #move(spots, position) {
    notTooMany(position ? [position, ...spots] : spots);
    [this.#spots, this.#position] = [spots, position];
    this.#report([...this.#expire(), ...this.#holdings.move(this.#allSpots())]);
    this.#takeFeed();
    return this.#ask("move", { places: this.#saidPlaces() });
  }

  /** @param {string} type @param {object} fields @returns {Promise<boolean>} */
  #ask(type, fields) {
    const answer = this.#link?.hasGreeted ? this.#link.ask(type, fields) : Promise.resolve(this.#feed !== null);
    this.#settle();
    return answer; // false: the next `hello` says it (Rule 1); with the feed nobody has to be told
  }

  /** @param {number} expiry by the server's clock; NaN if unknown: then the server will close with 4401 */
  #renewal(expiry) {
    const left = expiry - this.now();
    const isKnown = !Number.isNaN(left) && typeof this.#options.token === "function";
    return isKnown ? this.#own.now() + Math.max(0, left - RENEW_MS, left * 0.8) : Infinity;
  }

  async #renew() {
    this.#renewAt = Infinity;
    const [link, before] = [this.#link, this.#token];
    const found = await this.#fetchToken();
    if (link !== this.#link || !link?.isWelcomed) return;
    if (found?.token !== undefined && found.token !== before) {
      this.#token = found.token;
      this.#renewAt = this.#renewal(tokenExpiry(found.token));
      link.ask("token", found);
    } else {
      this.#renewAt = this.#own.now() + RENEW_AGAIN_MS;
    }
    this.#settle();
  }

  // ---- time -------------------------------------------------------------------------------------------------------

  /** Do all work that is due. */
  #look() {
    if (this.#status.state === "closed") return;
    this.#noticeSleep();
    const now = this.#own.now();
    this.#report(this.#expire());
    this.#expireCalls();
    if (this.#link && now >= this.#link.due()) this.#link.act();
    if (now >= this.#tokenBy) this.#giveUpOnToken();
    if (now >= this.#renewAt) this.#renew();
    if (now >= this.#saveAt) this.#save();
    if (now >= this.#retryAt) this.#connect();
    if (now >= this.#feedBy) this.#followFeed();
    if (this.#feed && now >= this.#feed.due()) this.#feed.act();
    this.#settle();
  }

  /** After a sleep, or a clock that was set, test the connection or count it as lost. */
  #noticeSleep() {
    const late = this.#own.now() - this.#lookAt;
    if (late > GONE_MS) this.#link?.lose(NO_CLOSE_FRAME);
    else if (late > LATE_MS) this.#link?.ping();
  }

  #giveUpOnToken() {
    this.#attempt++;
    this.#tokenBy = Infinity;
    this.#problem("token", `no token came in ${TOKEN_MS / 1_000} s`);
    this.#wait("window", "no token could be fetched");
  }

  /** Emit `change` events, send due answers and set the timer; called at the end of each action. */
  #settle() {
    if (this.#toldVersion !== this.#holdings.version) {
      this.#toldVersion = this.#holdings.version;
      this.#saveAt = Math.min(this.#saveAt, this.#own.now() + (this.#store.isShared ? 0 : SAVE_MS));
      this.#toldCalls = this.#calls.version;
      this.#emit("change", undefined);
    }
    if (this.#toldCalls !== this.#calls.version) {
      this.#toldCalls = this.#calls.version;
      this.#emit("change", undefined);
    }
    if (this.#link?.isWelcomed) for (const message of this.#calls.due(this.#own.now())) this.#link.say(message);
    this.#options.clock.clearTimeout(this.#timer);
    if (this.#status.state === "closed") return;
    const now = this.#own.now();
    const expiry = Math.min(this.#holdings.nextExpiry(this.#ahead), this.#calls.nextExpiry(this.#ahead));
    const answer = this.#link?.isWelcomed ? this.#calls.nextDue() : Infinity;
    const due = [answer, this.#link?.due() ?? Infinity, expiry, this.#tokenBy, this.#renewAt, this.#saveAt, this.#retryAt, this.#feedBy, this.#feed?.due() ?? Infinity];
    const isOver = this.#status.state === "stopped" && Math.min(...due) === Infinity;
    if (isOver) return;
    this.#lookAt = Math.max(now, Math.min(now + LOOK_MS, ...due));
    this.#timer = this.#options.clock.setTimeout(() => this.#look(), this.#lookAt - now);
  }

  // ---- the page ---------------------------------------------------------------------------------------------------

  /** In a browser, look again when the page is shown, and save when it is hidden. */
  #watchPage() {
    const { window, document } = globalThis;
    if (!window?.addEventListener || !document?.addEventListener) return;
    const hideOrShow = () => (document.visibilityState === "visible" ? this.#shownAgain() : this.#save());
    this.#listen(window, "online", () => this.#onOnline());
    this.#listen(window, "pageshow", () => this.check());
    this.#listen(window, "pagehide", () => this.#save());
    this.#listen(document, "visibilitychange", hideOrShow);
  }

  async #shownAgain() {
    this.check();
    await this.#reload();
  }

  /** @param {EventTarget} target @param {string} name @param {() => void} listener */
  #listen(target, name, listener) {
    target.addEventListener(name, listener);
    this.#unwatch.push(() => target.removeEventListener(name, listener));
  }

  /** The network was down, not the server: draw a new delay from the window, and use it if it is shorter. */
  #onOnline() {
    if (!this.#feed && this.#status.state === "waiting" && this.#after === "window") {
      this.#backoff.restart();
      const { reason, code } = this.#status;
      this.#retryIn(Math.min(this.#retryAt - this.#own.now(), this.#backoff.delay("window")), reason, code);
    }
    if (this.#feed && this.#retryAt < Infinity) this.#retryAt = this.#own.now(); // this network may allow connections
    this.check();
  }

  #save() {
    this.#saveAt = Infinity;
    const ahead = this.#knowsClock ? this.now() - this.#options.clock.now() : null;
    this.#store.save((stored) => this.#holdings.merged(stored, this.now(), this.#own.now(), ahead));
  }

  // ---- events -----------------------------------------------------------------------------------------------------

  /** @param {Change[]} changes */
  #report(changes) {
    for (const [name, event] of changes) this.#emit(name, event);
  }

  /** @param {CallChange[]} changes */
  #reportCalls(changes) {
    for (const { kind, id, call, task, reason } of changes) {
      if (kind === "call" && call) this.#emit("call", { call, distanceM: awayM(call.near, this.#allSpots()) });
      if (kind === "task" && task) this.#emit("task", { task, call });
      if (kind === "standdown") this.#emit("standdown", { id, call, reason: /** @type {any} */ (reason) });
    }
  }

  /** @param {ReturnType<Calls["list"]>[number]} held @returns {HeldCall} */
  #heldCall({ id, call, task, isAccepted }) {
    return { id, call, task, accepted: isAccepted, distanceM: call && awayM(call.near, this.#allSpots()) };
  }

  /** @param {Status} status */
  #setStatus(status) {
    this.#status = Object.freeze(withValues({ ...status }));
    this.#emit("status", this.#status);
  }

  /** @param {Problem["code"]} code @param {string} message @param {unknown} [cause] */
  #problem(code, message, cause) {
    this.#listeners.problem(code, message, cause);
  }

  /** @template {keyof Events} Name @param {Name} name @param {Events[Name]} event */
  #emit(name, event) {
    this.#listeners.emit(name, event);
  }
}

/** @type {typeof import("./geocast.js").watchPosition} */
export const watchPosition = (geocast, options = {}) =>
  follow(geocast, /** @type {Geocast} */ (/** @type {unknown} */ (geocast))[INSIDE](), options);
