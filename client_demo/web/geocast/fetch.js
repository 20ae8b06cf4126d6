/** A short connection for a phone that was woken in the background. */

/** @import { Clock, Fetched, FetchOptions, Filter } from "./geocast.js" */

import { Calls } from "./calls.js";
import { OwnClock } from "./clock.js";
import { spotsOf } from "./geo.js";
import { Holdings, isId, isListable, timeOf } from "./holdings.js";
import { countOf, Link } from "./link.js";
import { connectionOf, defaultKey, helloOf, notTooMany, tokenFrom, wiresOf, withoutLanguages } from "./options.js";
import { HELLO_REFUSED, MALFORMED, meaning, NO_CLOSE_FRAME } from "./reconnect.js";
import { Store } from "./store.js";

const AGAIN_MS = 500; // at least, and twice that at most, before a hello without `holding`: the caller waits for the answer
const OF_CALLS = new Set(["call", "task", "standdown"]);

export class GeocastError extends Error {
  /** @param {string} message @param {number} [closeCode] */
  constructor(message, closeCode) {
    super(message);
    this.name = "GeocastError";
    this.closeCode = closeCode;
  }
}

/** @type {typeof import("./geocast.js").fetchLive} */
export async function fetchLive(options) {
  const { clock, ...connection } = connectionOf(options);
  const { timeoutMs = 20_000 } = options;
  const fetching = new Fetching(connection, options, clock);
  /** @type {unknown} */
  let timer;
  const timeout = new Promise((_, reject) => {
    timer = clock.setTimeout(() => reject(new GeocastError(`not done in ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    return await Promise.race([fetching.run(), /** @type {Promise<never>} */ (timeout)]);
  } finally {
    clock.clearTimeout(timer);
    fetching.end();
  }
}

/**
 * Return the entries of `holding`. Looking ids up in an object would find an inherited `constructor`.
 * @param {FetchOptions["holding"]} holding @returns {Iterable<[string, number]>}
 */
const entriesOf = (holding = {}) => (holding instanceof Map ? holding.entries() : Object.entries(holding));

/** One short connection, and the messages that it received. */
class Fetching {
  #connection;
  #options;
  #clock;
  #own;
  #holdings = new Holdings(false);
  #calls = new Calls();
  /** @type {Fetched["standdowns"]} */
  #standdowns = [];
  #store;
  #spots;
  #ahead = 0;
  #isOver = false;
  #isWelcomed = false;
  /** @type {any[]} the dropped messages */
  #untrusted = [];
  /** @type {Link | null} */
  #link = null;

  /**
   * @param {Omit<ReturnType<typeof connectionOf>, "clock">} connection
   * @param {FetchOptions} options @param {Required<Clock>} clock
   */
  constructor(connection, options, clock) {
    this.#connection = connection;
    this.#options = options;
    this.#clock = clock;
    this.#own = new OwnClock(clock);
    const { storage = null, storageKey = defaultKey(options), places = [] } = options;
    this.#spots = notTooMany(spotsOf(places, options.h3));
    this.#store = new Store(storage, storageKey, () => {}); // if the storage fails, the caller still gets the alerts
  }

  /** @returns {Promise<Fetched>} */
  async run() {
    const stored = await this.#store.load();
    this.#ahead = stored?.ahead ?? 0;
    if (stored) this.#holdings.restore(stored, this.#now(), this.#own.now());
    this.#holdings.move(this.#spots);
    const known = new Map([...this.#holdings.holding(this.#now(), this.#own.now())[0], ...entriesOf(this.#options.holding)]);
    // An alert that was over by the stored time and is live by the welcome's `now` is new to the caller too.
    const live = this.#holdings.list(this.#now()).map(({ alert }) => /** @type {const} */ ([alert.id, alert.revision]));
    const before = new Map([...live, ...entriesOf(this.#options.holding)]);
    const cancels = await this.#exchange(known, await tokenFrom(this.#connection.token));
    const alerts = this.#holdings.list(this.#now()).filter(({ alert }) => alert.revision > (before.get(alert.id) ?? 0));
    for (const { alert } of alerts.filter(({ affected }) => affected && this.#options.ack)) {
      this.#link?.ack(alert.id, alert.revision);
      this.#holdings.show(alert.id);
    }
    await this.#store.save((stored) => this.#holdings.merged(stored, this.#now(), this.#own.now(), this.#ahead));
    const calls = this.#calls.list().flatMap(({ call, task }) => (call && !task ? [call] : []));
    const tasks = this.#calls.list().flatMap(({ task }) => (task ? [task] : []));
    return { alerts, cancels, calls, tasks, standdowns: this.#standdowns, untrusted: this.#untrusted, now: this.#now() };
  }

  end() {
    this.#isOver = true;
    this.#link?.close();
  }

  #now() {
    return this.#own.now() + this.#ahead;
  }

  /**
   * Send the hello and receive the messages that the welcome announces. A server of an older release closes a hello that
   * has `languages` or a place that is `here`; then the hello is sent again without them. If it is refused nevertheless,
   * it is sent once without `holding`.
   * @param {ReadonlyMap<string, number>} known @param {string | undefined} token
   * @returns {Promise<Fetched["cancels"]>}
   */
  async #exchange(known, token) {
    const { filter } = this.#connection;
    const mayBeTooNew = filter.languages != null || this.#spots.some(({ here }) => here);
    let [holding, ours, isNew] = [known, filter, mayBeTooNew];
    for (;;) {
      try {
        return await this.#exchangeOnce(holding, token, ours, isNew || !mayBeTooNew);
      } catch (error) {
        const code = error instanceof GeocastError && !this.#isWelcomed ? (error.closeCode ?? 0) : 0;
        if (code === MALFORMED && isNew) {
          [ours, isNew] = [withoutLanguages(filter), false];
        } else if (HELLO_REFUSED.includes(code) && holding.size > 0) {
          holding = new Map();
          await new Promise((resolve) => this.#clock.setTimeout(() => resolve(null), AGAIN_MS * (1 + Math.random())));
        } else {
          throw error;
        }
      }
    }
  }

  /** @param {any} message */
  #takeOfCalls(message) {
    if (message.type === "call") this.#calls.call(message.call, this.#now(), this.#own.now());
    if (message.type === "task") this.#calls.task(message, this.#now(), this.#own.now());
    if (message.type === "standdown" && isId(message.id)) this.#standdowns.push({ id: message.id, reason: String(message.reason) });
  }

  /**
   * @param {ReadonlyMap<string, number>} known @param {string | undefined} token @param {Filter} filter
   * @param {boolean} saysHere @returns {Promise<Fetched["cancels"]>}
   */
  #exchangeOnce(known, token, filter, saysHere) {
    const { WebSocket, url, wire, verifier } = this.#connection;
    /** @type {any[]} */
    const cancels = [];
    let toCome = 0;
    return new Promise((resolve, reject) => {
      if (this.#isOver) return reject(new GeocastError("not done in time"));
      const isDone = () => toCome <= 0 && resolve(cancels);
      this.#link = new Link(WebSocket, url, wire, {
        now: () => this.#own.now(),
        hello: () => helloOf(wiresOf(this.#spots, saysHere), known, token, filter),
        welcomed: ({ now, live }) => {
          this.#isWelcomed = true;
          this.#ahead = (timeOf(now) || this.#now()) - this.#own.now();
          toCome = countOf(live);
          isDone();
        },
        take: (message) => {
          const { type, id, revision, reason } = message;
          if (type === "alert") this.#holdings.take(message.alert, this.#now(), this.#own.now());
          else if (type === "cancel") this.#holdings.cancel(message);
          else if (OF_CALLS.has(type)) this.#takeOfCalls(message);
          else return;
          if (type === "cancel" && isListable(message) && Number(revision) > (known.get(String(id)) ?? Infinity))
            cancels.push({ id, revision, reason });
          toCome--;
          isDone();
        },
        ...(verifier && { read: (message) => verifier.read(message) }),
        dropped: ({ type }, cause) => {
          const { reason } = /** @type {any} */ (cause);
          this.#untrusted.push({ type, reason });
          toCome--;
          isDone();
        },
        refused: () => {},
        unreadable: () => {},
        ended: (code) => reject(new GeocastError(code === NO_CLOSE_FRAME ? "no connection" : meaning(code), code)),
      });
    });
  }
}
