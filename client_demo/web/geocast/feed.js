/**
 * The public feed as a source of alerts (docs/guide/feed.md, PF6): the device asks everybody's question, and decides for
 * itself. `Feed` asks, `Listing` decides. The owner calls `act` at the time that `due` returns; times in ms by its clock.
 *
 * Rule 1  A request is the same for everybody: no place, no token, no cookie, no referrer.
 * Rule 2  An alert that is missing from the document is not over: the node may be behind. Only a tombstone cancels.
 * Rule 3  The messages are those that a server would send to a session with our places, filter and `holding`, in the same
 *         order (R1, R3, R4, R5, R7, M17).
 * Rule 4  A shape of an unknown type contains nobody, because nobody has decided before us (G4).
 * Rule 5  A document says the time in whole seconds, so our clock is corrected only if it is wrong by more than that.
 */

/** @import { Alert, Filter } from "./geocast.js" */
/** @import { Spot } from "./geo.js" */
/** @import { Holdings } from "./holdings.js" */
/** @import { Message } from "./link.js" */
/** @typedef {(spots: readonly Spot[]) => boolean} Judge */
/** @typedef {{ alert: Alert, texts: readonly Alert[], reaches: Judge }} Listed */
/**
 * @typedef {object} Owner
 * @property {() => number} now
 * @property {(behind: { least: number, most: number }) => void} heard  a document came, or it is unchanged; between which
 *   limits the server's clock minus ours is (NaN if unknown)
 * @property {() => void} incomplete  the document has an alert that cannot be used
 * @property {(reason: string, retryAt: number) => void} failed
 */

import { judgeOf } from "./geo.js";
import { isWhole, mapOf, SEVERITIES } from "./holdings.js";
import { Backoff } from "./reconnect.js";

const BEHIND_MS = 6_000; // a body is made at most once a second, and caches may keep it for 5 s (PF2)
const DATE_MS = 2_000; // how far the true time may be ahead of `Date` and `Age`, each of which is in whole seconds
const ANSWER_MS = 20_000; // a request that takes longer has failed
const MAX_WAIT_MS = 600_000; // whatever `max-age` and `Retry-After` say
const WORDS = ["language", "title", "headline", "description", "instruction", "area_desc"];

export class Feed {
  #fetch;
  #url;
  #every;
  #draw;
  #owner;
  #backoff;
  #askAt = -Infinity;
  #giveUpAt = Infinity;
  /** @type {AbortController | null} of the request that is under way */
  #asking = null;
  /** @type {string | null} */
  #tag = null;
  #listing = new Listing({}, null);
  #isOver = false;
  /** How late an alert may be, in ms, as long as the requests succeed. */
  lateMs;

  /** @param {{ url: string, fetch: typeof fetch, everyMs: number }} options @param {() => number} draw @param {Owner} owner */
  constructor({ url, fetch, everyMs }, draw, owner) {
    this.#fetch = fetch;
    this.#url = url;
    this.#every = everyMs;
    this.#draw = draw;
    this.#owner = owner;
    this.#backoff = new Backoff(draw);
    this.lateMs = everyMs + BEHIND_MS;
  }

  /** The last document. */
  get listing() {
    return this.#listing;
  }

  due() {
    return Math.min(this.#askAt, this.#giveUpAt);
  }

  act() {
    const now = this.#owner.now();
    if (now >= this.#giveUpAt) this.#giveUp();
    else if (now >= this.#askAt) this.ask();
  }

  #giveUp() {
    const asking = this.#asking;
    this.#asking = null; // an answer that comes nevertheless is ignored
    asking?.abort();
    this.#failed("the feed did not answer in time", null);
  }

  close() {
    this.#isOver = true;
    this.#asking?.abort();
  }

  /** Ask now, unless a request is under way. */
  async ask() {
    if (this.#asking || this.#isOver) return;
    const began = this.#owner.now();
    const asking = (this.#asking = new AbortController());
    [this.#askAt, this.#giveUpAt] = [Infinity, began + ANSWER_MS];
    const answer = await this.#fetch(this.#url, { ...this.#sent(), signal: asking.signal }).catch(() => null);
    const reason = answer ? await this.#read(answer) : "the feed cannot be reached";
    if (this.#isOver || this.#asking !== asking) return;
    this.#asking = null;
    if (answer && !reason) this.#answered(answer.headers, began);
    else this.#failed(reason, answer);
  }

  /** Take the document if it is a new one. @param {Response} answer @returns {Promise<string>} why it cannot be used, or "" */
  async #read(answer) {
    const tag = answer.headers.get("ETag");
    const isKnown = answer.status === 304 || (answer.ok && tag !== null && tag === this.#tag);
    if (isKnown || !answer.ok) {
      answer.body?.cancel().catch(() => {});
      return isKnown ? "" : `the feed answered ${answer.status}`;
    }
    const value = await answer.json().catch(() => null);
    if (!Listing.isOne(value)) return "the feed sent no complete GeoJSON document";
    [this.#listing, this.#tag] = [new Listing(value, this.#listing), tag];
    if (this.#listing.hasFaults) this.#owner.incomplete();
    return "";
  }

  /** A page leaves the tag to the browser's cache: a header of its own would need a preflight request. */
  #sent() {
    const isPage = typeof globalThis.document === "object";
    return /** @type {RequestInit} */ ({
      cache: "no-cache",
      credentials: "omit",
      referrerPolicy: "no-referrer",
      ...(this.#tag && !isPage && { headers: { "If-None-Match": this.#tag } }),
    });
  }

  /** @param {Headers} headers @param {number} began */
  #answered(headers, began) {
    const now = this.#owner.now();
    const age = secondsOf(headers.get("Age")) ?? 0;
    const fresh = secondsOf(/max-age=(\d+)/.exec(headers.get("Cache-Control") ?? "")?.[1]) ?? 0;
    const every = Math.max(this.#every, Math.min(MAX_WAIT_MS, fresh - age));
    this.#giveUpAt = Infinity;
    this.#backoff.restart();
    this.lateMs = every + BEHIND_MS;
    this.#askAt = now + every * (0.8 + 0.2 * this.#draw()); // spread, so that the clients of a page do not ask together
    const date = Date.parse(headers.get("Date") ?? "") + age;
    this.#owner.heard({ least: date - now, most: date + DATE_MS - began });
  }

  /** @param {string} reason @param {Response | null} answer */
  #failed(reason, answer) {
    const least = Math.min(MAX_WAIT_MS, secondsOf(answer?.headers.get("Retry-After")) ?? 0);
    this.#giveUpAt = Infinity;
    this.#askAt = this.#owner.now() + Math.max(least, this.#backoff.delay("window"));
    this.#owner.failed(reason, this.#askAt);
  }
}

/** @param {string | null | undefined} text whole seconds @returns {number | null} in ms */
const secondsOf = (text) => (text && /^\d{1,9}$/.test(text) ? Number(text) * 1_000 : null);

/** One document of the feed: all live alerts, and the tombstones of those that were cancelled. */
export class Listing {
  /** @type {Map<string, Listed>} */
  #alerts = new Map();
  /** @type {Message[]} */
  #cancels;
  hasFaults = false;

  /** @param {any} document @param {Listing | null} before an unchanged revision is not prepared again */
  constructor({ features = [], cancelled = [] }, before) {
    this.#cancels = (Array.isArray(cancelled) ? cancelled : []).map((each) => ({ ...mapOf(each), type: "cancel" }));
    for (const feature of features) {
      const { texts, ...alert } = /** @type {any} */ (mapOf(mapOf(feature).properties));
      if (!isWhole(alert)) {
        this.hasFaults = true;
        continue;
      }
      const known = before === null ? undefined : before.#alerts.get(alert.id);
      const versions = /** @type {any[]} */ (Array.isArray(texts) ? texts : []).map(mapOf);
      const same = known?.alert.revision === alert.revision ? known : null;
      this.#alerts.set(alert.id, same ?? { alert, texts: /** @type {any} */ (versions), reaches: judgeOf(alert.area) });
    }
  }

  /** @param {unknown} value */
  static isOne(value) {
    return Array.isArray(mapOf(value).features);
  }

  /**
   * Return the messages that a server would send us now (Rule 3).
   * @param {Holdings} holdings @param {readonly Spot[]} spots @param {Filter} filter @returns {Message[]}
   */
  messages(holdings, spots, filter) {
    const cancels = this.#cancels.filter(({ id }) => holdings.revision(String(id)) > 0);
    const lacking = [...this.#alerts.values()].filter(({ alert, reaches }) => {
      const held = holdings.revision(alert.id);
      return alert.revision > held && (held > 0 || (passes(alert, filter) && reaches(spots)));
    });
    lacking.sort((a, b) => SEVERITIES.indexOf(a.alert.severity) - SEVERITIES.indexOf(b.alert.severity));
    return [...cancels, ...lacking.map((listed) => ({ type: "alert", alert: inLanguage(listed, filter.languages ?? []) }))];
  }
}

/** @param {Alert} alert @param {Filter} filter */
function passes({ category, severity }, { categories, min_severity }) {
  if (severity === "extreme") return true;
  const isSevere = min_severity == null || SEVERITIES.indexOf(severity) <= SEVERITIES.indexOf(min_severity);
  return isSevere && (categories == null || categories.includes(category));
}

/**
 * Return the alert with its texts in the language that a server would choose (LA3).
 * @param {Listed} listed @param {readonly string[]} wanted
 */
function inLanguage({ alert, texts }, wanted) {
  const text = wanted.map((tag) => found(texts, tag.toLowerCase())).find(Boolean);
  if (!text) return { ...alert };
  return { ...Object.fromEntries(Object.entries(alert).filter(([name]) => !WORDS.includes(name))), ...text };
}

/** @param {readonly Alert[]} texts @param {string} tag */
function found(texts, tag) {
  const tagOf = (/** @type {Alert} */ { language }) => String(language).toLowerCase();
  return (
    texts.find((text) => tagOf(text) === tag) ??
    texts.find((text) => tagOf(text).startsWith(`${tag}-`)) ??
    texts.find((text) => tagOf(text).split("-")[0] === tag.split("-")[0])
  );
}
