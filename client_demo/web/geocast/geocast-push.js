/**
 * Web Push for a page; `geocast-push.d.ts` documents the exports.
 *
 * Rule 1  The last registration that was sent is kept. If the subscription, the places or the filter differ from it, the
 *         page registers again. It also does so once a day, since that renews the lease.
 * Rule 2  The server gets cells. The exact places stay in this browser, for the worker (protocol, C4).
 * Rule 3  A call with invalid arguments throws at once; later failures are reported by the state and an `error` event.
 * Rule 4  Tasks run one after the other, and each sees the options as they are when it begins.
 */

/** @import { Filter, Handed, Place } from "./geocast.js" */
/** @import { PushEvents, PushOptions, PushProblem, PushState } from "./geocast-push.js" */
/** @import { Body, Registration } from "./registration.js" */
/** @typedef {import("./geocast-push.js").Push} Declared */
/** @import { Spot } from "./geo.js" */
/** @typedef {{ place: Place, cell: string }} Position */

import { machineClock } from "./clock.js";
import { cellOf, coarsened, COARSEST, exactly, FINEST } from "./coarse.js";
import { cellSpot, COARSEST_CELL, MAX_PLACES, spotOf } from "./geo.js";
import { Kept, storageOf } from "./kept.js";
import { Listeners } from "./listeners.js";
import { filterOf, tokenFrom, withValues } from "./options.js";
import { cellMatters } from "./position.js";
import { closeOver, drawnId, forgotten, holdingOf, keyOf, offerOf, Refused, registered, REGISTRATION } from "./registration.js";

const DAY_MS = 86_400_000;
const MOVE_MS = 600_000; // between two PUTs if only the position changed
const RETRY_MS = 60_000;

/** @implements {Declared} */
export class Push {
  #options;
  #clock;
  #kept = new Kept();
  #listeners = new Listeners();
  /** @type {PushState} */
  #state = Object.freeze({ state: "starting" });
  /** @type {readonly Place[] | undefined} undefined: use the stored ones */
  #places;
  /** @type {Position | null | undefined} undefined: use the stored one */
  #position;
  #filter;
  /** @type {Promise<unknown>} Rule 4 */
  #turn = Promise.resolve();
  #isUrgent = true; // something other than the position has changed
  #hasPut = false;
  /** @type {unknown} */
  #timer;
  /** @type {Set<(handed: Handed) => Promise<boolean>>} */
  #takers = new Set();
  /** @type {(() => void)[]} */
  #unwatch = [];
  /** @type {Declared["storage"]} */
  storage = storageOf(this.#kept, (take) => {
    this.#takers.add(take);
    return () => void this.#takers.delete(take);
  });

  /** @param {PushOptions} options */
  constructor(options) {
    this.#options = checked(options);
    this.#clock = options.clock ?? machineClock();
    this.#filter = filterOf({ languages: options.languages ?? globalThis.navigator?.languages, ...options.filter });
    if (options.places) this.#setPlaces(options.places);
    this.#watch(globalThis.navigator?.serviceWorker, "message", (event) => this.#hear(event));
    this.#watch(globalThis.document, "visibilitychange", () => this.#isVisible() && this.check());
    globalThis.navigator?.serviceWorker?.startMessages?.();
    this.check();
  }

  // ---- for the caller ---------------------------------------------------------------------------------------------

  /** @type {Declared["on"]} */
  on(name, listener) {
    return this.#listeners.on(name, listener);
  }

  get state() {
    return this.#state;
  }

  enable() {
    if (lacking()) return this.check();
    const asked = Promise.resolve(Notification.requestPermission()).catch(() => "default"); // at once, because browsers require a user gesture
    return this.#inTurn(async () => {
      const want = (/** @type {Partial<Registration>} */ { id = drawnId() }) => ({ id, isWanted: true });
      if ((await asked) === "granted")
        await this.#keep(want).catch((cause) => this.#problem("storage", "the store can't be written", cause));
      return this.#look();
    });
  }

  disable() {
    return this.#inTurn(() => this.#forget());
  }

  /** @param {readonly Place[]} places */
  setPlaces(places) {
    this.#setPlaces(places);
    this.check();
  }

  /** @param {Place | null} position */
  setPosition(position) {
    this.#position = position && this.#followed(position);
    notTooMany(this.#places, this.#position);
    this.#inTurn(() => this.#look());
  }

  /** @param {Filter} filter */
  setFilter(filter) {
    this.#filter = { ...this.#filter, ...filterOf(filter) };
    this.check();
  }

  check() {
    this.#isUrgent = true;
    return this.#inTurn(() => this.#look());
  }

  /** @type {Declared["try"]} */
  try() {
    return this.#inTurn(async () => {
      const [test, known] = [drawnId(), await this.#kept.read(REGISTRATION).catch(() => null)];
      if (this.#state.state !== "on" || !known) return { reason: "not-registered" };
      try {
        const worker = await this.#worker();
        await this.#put(known, worker, await worker.pushManager.getSubscription(), test);
        return { id: `try:${test}` };
      } catch (/** @type {any} */ cause) {
        const wait = Math.ceil((cause.retryMs ?? 0) / 1_000);
        return withValues({ reason: String(cause.problem ?? cause.message), retryAfterS: wait || undefined });
      }
    });
  }

  close() {
    for (const unwatch of this.#unwatch.splice(0)) unwatch();
    this.#clock.clearTimeout(this.#timer);
    this.#clock = { ...this.#clock, setTimeout: () => undefined };
  }

  // ---- registering ------------------------------------------------------------------------------------------------

  /** Determine the state, and register again if something changed (Rule 1). @returns {Promise<PushState>} */
  async #look(isForced = false) {
    const isUrgent = this.#isUrgent || isForced;
    this.#isUrgent = false;
    const lack = lacking();
    if (lack) return this.#setState(lack);
    const known = await this.#kept.read(REGISTRATION).catch((cause) => {
      this.#problem("storage", "the store can't be read", cause);
    });
    const { permission } = Notification;
    if (!known?.isWanted || permission !== "granted")
      return this.#setState({ state: permission === "denied" ? "denied" : "off" });
    try {
      return await this.#bring(await this.#localised(known), isUrgent, isForced);
    } catch (cause) {
      return this.#failed(known, cause);
    }
  }

  /**
   * @param {Registration} known @param {boolean} isUrgent @param {boolean} isForced
   * @returns {Promise<PushState>}
   */
  async #bring(known, isUrgent, isForced) {
    const now = this.#clock.now();
    const worker = await this.#worker();
    await closeOver(worker, now);
    const subscription = await worker.pushManager.getSubscription();
    const body = this.#body(known, subscription?.toJSON(), known.finest);
    const isSame = known.url === this.#options.url && same(known.body, body);
    const isRecent = now >= known.putAt && now < Math.min(known.putAt + DAY_MS, known.until);
    if (subscription && isSame && isRecent && !isForced) return this.#on(known.until);
    const mayWait = subscription && !isUrgent && isRecent && now < known.putAt + MOVE_MS;
    if (mayWait) return this.#later(known.putAt + MOVE_MS - now), this.#on(known.until);
    return this.#on(await this.#put(known, worker, subscription));
  }

  /**
   * @param {Registration} known @param {any} worker @param {any} before
   * @param {string} [test]  the id of a test that this device is to be pushed (TR1)
   * @returns {Promise<number>} until when
   */
  async #put(known, worker, before, test) {
    const { url, token } = this.#options;
    const { vapid, finest } = await offerOf(url);
    const subscription = await this.#subscribed(worker, before, known.vapid, vapid);
    const body = this.#body(known, subscription.toJSON(), finest);
    const holding = holdingOf(await this.#kept.read(this.#key()));
    const jwt = await tokenFrom(token).catch((cause) => {
      throw new Failed("token", "no token could be fetched", cause);
    });
    let { id } = known;
    let answer = await registered(url, id, String(jwt), body, holding, test);
    if (!answer.secret && !known.secret)
      // The answer with the secret was lost. A new id gets a new secret, and the server forgets the old id (WPR8).
      answer = await registered(url, (id = drawnId()), String(jwt), body, holding);
    const kept = { ...answer, id, vapid, finest, body, putAt: this.#clock.now(), discs: this.#discs(body) };
    await this.#keep((now) => (now.id === known.id ? kept : {}));
    this.#hasPut = true;
    return answer.until;
  }

  /**
   * Return a subscription to the server's key.
   * @param {any} worker @param {any} before @param {string | undefined} to @param {string} vapid
   */
  async #subscribed(worker, before, to, vapid) {
    if (before && to === vapid) return before;
    try {
      await before?.unsubscribe();
      return await worker.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: vapid });
    } catch (cause) {
      throw new Failed("subscription", "the browser gives no subscription", cause);
    }
  }

  /** Register the worker, and wait until its registration allows a subscription. @returns {Promise<any>} */
  async #worker() {
    const { worker, workerType: type = "module" } = this.#options;
    try {
      const registration = await navigator.serviceWorker.register(worker, { type });
      const coming = registration.installing ?? registration.waiting;
      while (coming && !registration.active && coming.state !== "redundant")
        await new Promise((changed) => coming.addEventListener("statechange", changed, { once: true }));
      return registration;
    } catch (cause) {
      throw new Failed("subscription", "the service worker can't be registered", cause);
    }
  }

  /** Report a failure. The former registration is valid until its lease ends. @param {Registration} known @param {any} cause */
  #failed(known, cause) {
    const isOurs = cause instanceof Failed || cause instanceof Refused;
    const message = isOurs ? cause.message : "the store failed";
    if (cause instanceof Failed) this.#problem(cause.code, message, cause.why);
    else this.#problem(isOurs ? "server" : "storage", message, cause);
    if (cause.retryMs !== undefined) this.#later(cause.retryMs || RETRY_MS);
    if (known.until > this.#clock.now()) return this.#on(known.until);
    return this.#setState({ state: "not-registered", reason: message, problem: cause.problem });
  }

  async #forget() {
    const known = await this.#kept.read(REGISTRATION).catch(() => null);
    const { url, token } = this.#options;
    try {
      if (known?.until) await forgotten(url, known.id, String(await tokenFrom(token)));
    } catch (cause) {
      // The subscription is ended below, so the server notices at the next push (WPR9).
      this.#problem("server", "the server could not be asked to delete this device's registration", cause);
    }
    try {
      if (known && !lacking()) await this.#unsubscribe();
      await this.#kept.clear();
    } catch (cause) {
      this.#problem("subscription", "the browser does not end the subscription", cause);
    }
    return this.#look();
  }

  async #unsubscribe() {
    const worker = await this.#worker();
    await closeOver(worker, Infinity, () => true);
    await (await worker.pushManager.getSubscription())?.unsubscribe();
  }

  // ---- the body of a registration ---------------------------------------------------------------------------------

  /** @param {Registration} known @param {any} subscription @param {number} finest @returns {Body} */
  #body(known, subscription, finest) {
    const { resolution = 8, h3, proofs } = this.#options;
    const cells = (known.places ?? []).map((place, at) => cellOf(place, h3, resolution, `places[${at}]`));
    const all = known.position ? [known.position.cell, ...cells] : cells;
    const places = [...new Set(all.map((cell) => coarsened(cell, finest)))].map((cell) => ({ cell }));
    return withValues({ subscription, places, ...(proofs && { proofs }), ...this.#filter });
  }

  /** Return the cells as points with their reach, as a stream takes them; null if a cell is too coarse for it. @param {Body} body */
  #discs({ places }) {
    const { h3 } = this.#options;
    const isFine = places.every(({ cell }) => parseInt(cell.charAt(1), 16) >= COARSEST_CELL);
    if (!h3 || !isFine) return null;
    return places.map(({ cell }) => {
      const { lat, lng, reach } = cellSpot(cell, h3, "place");
      return { lat, lng, accuracy_m: reach };
    });
  }

  /** Store the exact places for the worker (Rule 2). @param {Registration} known @returns {Promise<Registration>} */
  async #localised(known) {
    const { h3 } = this.#options;
    const places = this.#places ?? known.places ?? [];
    const position = (this.#position = this.#position === undefined ? (known.position ?? null) : this.#position);
    const all = [...(position ? [position.place] : []), ...places];
    const exact = all.map((place) => exactly(place, h3, "place"));
    const local = { places, position, spots: exact.includes(null) ? null : exact };
    const before = { places: known.places, position: known.position, spots: known.spots };
    if (!same(before, local))
      await this.#keep((now) => (now.id === known.id ? /** @type {any} */ (local) : {}));
    return { ...known, .../** @type {any} */ (local) };
  }

  /**
   * Return a position with its cell: the former cell if it still fits, so that it does not alternate at a border.
   * @param {Place} place @returns {Position}
   */
  #followed(place) {
    const { h3, resolution = 8 } = this.#options;
    const cell = cellOf(place, h3, resolution, "position");
    const told = this.#position?.cell;
    if ("cell" in place || !told || !h3) return { place, cell };
    const [before, now] = [told, cell].map((each) => cellSpot(each, h3, "position", COARSEST));
    const isOther = cellMatters(before ?? null, /** @type {Spot} */ (now), spotOf(place, h3, "position"));
    return { place, cell: isOther ? cell : told };
  }

  /** @param {readonly Place[]} places */
  #setPlaces(places) {
    const { h3, resolution = 8 } = this.#options;
    if (!Array.isArray(places)) throw new TypeError("places: expected an array");
    places.forEach((place, at) => cellOf(place, h3, resolution, `places[${at}]`));
    notTooMany(places, this.#position);
    this.#places = places.map((place) => ({ ...place }));
  }

  #key() {
    return keyOf(this.#options.stream, this.#options.proofs === true);
  }

  /** @param {(now: Partial<Registration>) => Partial<Registration>} change */
  async #keep(change) {
    const { url, stream } = this.#options;
    const none = { isWanted: false, until: 0, putAt: 0, finest: FINEST, spots: null, discs: null };
    await this.#kept.change([REGISTRATION], (now) => [{ ...none, ...now, url, stream, ...change(now ?? {}) }]);
  }

  // ---- messages from the worker -----------------------------------------------------------------------------------

  /** @param {MessageEvent} event */
  async #hear({ data, ports: [port] }) {
    if (data?.geocast === "renew") port?.postMessage(await this.#renewed());
    if (data?.geocast !== "told") return;
    const shown = await Promise.all([...this.#takers].map((take) => take(data).catch(() => false)));
    port?.postMessage(shown.includes(true) && this.#isVisible());
  }

  /** @returns {Promise<boolean>} */
  #renewed() {
    return this.#inTurn(async () => {
      this.#hasPut = false;
      await this.#look(true);
      return this.#hasPut;
    });
  }

  #isVisible() {
    return globalThis.document?.visibilityState === "visible";
  }

  // ---- events -----------------------------------------------------------------------------------------------------

  /** @param {EventTarget | undefined} target @param {string} name @param {(event: any) => unknown} listener */
  #watch(target, name, listener) {
    target?.addEventListener(name, listener);
    this.#unwatch.push(() => target?.removeEventListener(name, listener));
  }

  /** @param {number} ms */
  #later(ms) {
    this.#clock.clearTimeout(this.#timer);
    this.#timer = this.#clock.setTimeout(() => this.check(), ms);
  }

  /** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
  #inTurn(work) {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }

  /** @param {number} until */
  #on(until) {
    return this.#setState({ state: "on", until });
  }

  /** @param {PushState} state */
  #setState(state) {
    const next = Object.freeze(withValues({ ...state }));
    if (same(next, this.#state)) return this.#state;
    this.#state = next;
    this.#emit("state", next);
    return next;
  }

  /** @param {PushProblem["code"]} code @param {string} message @param {unknown} [cause] */
  #problem(code, message, cause) {
    this.#listeners.problem(code, message, cause);
  }

  /** @template {keyof PushEvents} Name @param {Name} name @param {PushEvents[Name]} event */
  #emit(name, event) {
    this.#listeners.emit(name, event);
  }
}

/** A failure that is reported with its own code rather than the server's. */
class Failed extends Error {
  /** @param {PushProblem["code"]} code @param {string} message @param {unknown} why */
  constructor(code, message, why) {
    super(message);
    this.code = code;
    this.why = why;
  }
}

/** Return the state that names a missing feature; null if all are there. @returns {PushState | null} */
function lacking() {
  const { navigator, isSecureContext } = globalThis;
  const has = (/** @type {string} */ name) => name in globalThis;
  if (!isSecureContext) return { state: "unsupported", reason: "it takes a secure context: https, or this machine" };
  const isWhole = navigator && "serviceWorker" in navigator && has("PushManager") && has("Notification") && has("indexedDB");
  if (isWhole) return null;
  // Only Safari on iPhones and iPads has `standalone`: whether a page was opened from the home screen.
  if (/** @type {any} */ (navigator)?.standalone === false)
    return { state: "home-screen", reason: "pages have Web Push here once they are on the home screen" };
  return { state: "unsupported", reason: "this browser has no Web Push" };
}

/** @param {unknown} a @param {unknown} b both compared as JSON */
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** @param {readonly Place[] | undefined} places @param {Position | null | undefined} position */
function notTooMany(places = [], position) {
  if (places.length + (position ? 1 : 0) > MAX_PLACES)
    throw new TypeError(`places: at most ${MAX_PLACES}, the position included`);
}

/** @param {PushOptions} options @returns {PushOptions & { stream: string }} */
function checked(options) {
  const { token, worker, resolution = 8 } = options;
  const url = String(options.url).replace(/\/$/, "");
  if (!/^https?:\/\/[^/?#\s]+(\/[^?#\s]*)?$/.test(url)) throw new TypeError("url: expected https://host/v1, without a query");
  if (typeof token !== "string" && typeof token !== "function") throw new TypeError("token: expected a string or a function");
  if (typeof worker !== "string") throw new TypeError("worker: expected the address of a script");
  if (!Number.isInteger(resolution) || resolution < COARSEST || resolution > FINEST)
    throw new TypeError(`resolution: expected a whole number from ${COARSEST} to ${FINEST}`);
  return { ...options, url, stream: options.stream ?? `${url.replace(/^http/, "ws")}/stream` };
}
