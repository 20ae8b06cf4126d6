/**
 * The alerts that a client holds. Takes alerts, cancels and the time, returns changes to show. No I/O; times in ms: `now`
 * is the server's time as far as it is known, `own` the client's own clock, which nobody sets.
 *
 * Rule 1  A higher revision replaces a lower one; every other revision of the same id is ignored.
 * Rule 2  No alert is shown after its `expires_at`, by the client's own clock corrected by the server's `now`. This `now`
 *         may be wrong, and be corrected later. So an alert that has ended by the corrected clock is kept, and shown again
 *         if a later correction makes it live again. It is deleted when it has also ended by the client's own clock: an
 *         alert lives at most from `issued_at` to `expires_at`, counted from its arrival.
 * Rule 3  A cancelled id does not come back: a node that is behind may still send the alert.
 * Rule 4  Frames are the same for everybody: whether we are inside is decided here, by the places that we know.
 * Rule 5  Alerts that do not fit into `holding` are dropped before it is sent, so that the server knows every alert that
 *         we show, or may show again.
 * Rule 6  Saving merges with the content of the storage: another page beside this one may hold other alerts.
 *
 *     shown before   affected before   now   event when a revision comes     when we move
 *     no             -                 yes   alert                           alert
 *     no             -                 no    none; held in case we walk in   none
 *     yes            any               any   update                          update, if `affected` is another
 *
 * An alert that has expired counts as not shown before, so an alert that is live again causes an `alert` event again.
 */

/** @import { Alert, Cancel, Events, Held } from "./geocast.js" */
/** @import { Spot } from "./geo.js" */
/** @typedef {{ alert: Alert, expiresAt: number, keepUntil: number, affected: boolean, shown: boolean, over: boolean }} Entry */
/** @typedef {"alert" | "update" | "cancel" | "expire"} Kind */
/** @typedef {{ [Name in Kind]: [Name, Events[Name]] }[Kind]} Change  An event to emit. */
/** @typedef {{ ahead: number | null, held: Entry[], cancelled: [string, number][] }} Stored */

import { isInside } from "./geo.js";

export const MAX_HOLDING = 256; // protocol, `hello`; also the limit of alerts that only the server's clock has ended
const MAX_HELD = 4_096; // on one connection, to bound the memory of a page
const MAX_CANCELLED = 1_024; // ids kept for Rule 3, of at most 128 characters each
export const SEVERITIES = ["extreme", "severe", "moderate", "minor"];

/** @param {unknown} value @returns {Record<string, unknown>} */
export const mapOf = (value) => (typeof value === "object" && value !== null ? /** @type {any} */ (value) : {});

/** @param {unknown} value @returns {number} ms since 1970; NaN for any other value */
export const timeOf = (value) => (typeof value === "string" ? Date.parse(value) : NaN);

const MAX_DEPTH = 32; // of nested maps and lists (protocol, L1)
const MAX_REVISION = 2 ** 31 - 1;
const TEXTS = ["category", "title", "headline", "description", "instruction", "area_desc", "severity", "status", "source", "web"];

/** @param {unknown} value @returns {value is string} whether it is an id of the protocol (A1) */
export const isId = (value) => typeof value === "string" && /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/.test(value);

/** Return whether a value can be stored: finite numbers, JSON's types, no deep nesting. @param {any} value @returns {boolean} */
function isPlain(value, depth = MAX_DEPTH) {
  if (typeof value === "number") return Number.isFinite(value);
  if (typeof value !== "object" || value === null) return value === null || ["string", "boolean"].includes(typeof value);
  const isMap = [Object.prototype, null].includes(Object.getPrototypeOf(value));
  return depth > 0 && (isMap || Array.isArray(value)) && Object.values(value).every((each) => isPlain(each, depth - 1));
}

/**
 * Return whether a `hello` may list an alert, a call or a task: otherwise a server would refuse it (protocol, M1).
 * @param {any} said
 */
export const isListable = (said) =>
  isId(said.id) && Number.isInteger(said.revision) && said.revision > 0 && said.revision <= MAX_REVISION && isPlain(said);

/** @param {any} said @returns {boolean} whether the members that people read are texts */
export const hasTexts = (said) => TEXTS.every((name) => ["string", "undefined"].includes(typeof said[name]));

/** @param {Alert} alert as it came @returns {boolean} whether it has what is needed to hold it */
export const isWhole = (alert) =>
  isListable(alert) &&
  hasTexts(alert) &&
  !Number.isNaN(timeOf(alert.expires_at)) &&
  Array.isArray(alert.area) &&
  alert.area.every((shape) => typeof shape === "object" && shape !== null);

/**
 * @param {unknown} value @param {number} own when it came
 * @returns {Entry | null} an alert that was not shown yet; null for an incomplete one
 */
function entryOf(value, own) {
  const alert = /** @type {Alert} */ (/** @type {unknown} */ (mapOf(value)));
  const expiresAt = timeOf(alert.expires_at);
  if (!isWhole(alert)) return null;
  const keepUntil = own + lifeOf(alert);
  return { alert: Object.freeze(alert), expiresAt, keepUntil, affected: false, shown: false, over: false };
}

/** Return the longest time that the alert can live after its arrival; 0 if its times cannot be read. @param {Alert} alert */
const lifeOf = (alert) => Math.max(0, timeOf(alert.expires_at) - timeOf(alert.issued_at)) || 0;

/** @param {Entry} a @param {Entry} b */
const latestEndFirst = (a, b) => b.expiresAt - a.expiresAt;

/** @param {Entry} entry @returns {Held} */
const heldOf = ({ alert, affected }) => ({ alert, affected });

/** @param {Held} a @param {Held} b  the most severe first, then the latest issued */
const byUrgency = (a, b) =>
  SEVERITIES.indexOf(a.alert.severity) - SEVERITIES.indexOf(b.alert.severity) ||
  timeOf(b.alert.issued_at) - timeOf(a.alert.issued_at) ||
  (a.alert.id < b.alert.id ? -1 : 1);

export class Holdings {
  /** A number that grows with each change of the held alerts. */
  version = 0;
  /** @type {Map<string, Entry>} */
  #held = new Map();
  /** @type {Map<string, number>} id -> when the alert would have ended, by the client's own clock */
  #cancelled = new Map();
  /** @type {readonly Spot[] | null} null: not known yet, so the stored `affected` counts */
  #spots = null;
  #shows;

  /** @param {boolean} shows whether changes are reported; otherwise only `show` makes an alert count as shown */
  constructor(shows = true) {
    this.#shows = shows;
  }

  /** @param {number} now the server's time @returns {Held[]} the held alerts that are not over */
  list(now) {
    const live = [...this.#held.values()].filter((entry) => entry.expiresAt > now);
    return live.map(heldOf).sort(byUrgency);
  }

  /**
   * Return when, by the client's own clock, the next alert ends or is deleted; Infinity when nothing is held.
   * @param {number} ahead the server's clock minus this clock
   */
  nextExpiry(ahead) {
    const next = (/** @type {Entry} */ entry) => (entry.over ? entry.keepUntil : entry.expiresAt - ahead);
    return Math.min(Infinity, ...[...this.#held.values()].map(next));
  }

  /** The number of alerts that are over by the server's clock but kept, as this clock may be wrong (Rule 2). */
  get kept() {
    return [...this.#held.values()].filter((entry) => entry.over).length;
  }

  /** @param {string} id @returns {number} the revision that is held; 0 for none */
  revision(id) {
    return this.#held.get(id)?.alert.revision ?? 0;
  }

  /** Apply the clocks. @param {number} now @param {number} own @returns {Change[]} alerts that ended or are live again */
  expire(now, own) {
    const changes = [...this.#held.values()].flatMap((entry) => this.#look(entry, now));
    this.#forget(own);
    return changes;
  }

  /**
   * Take a revision from an `alert` message.
   * @param {unknown} value @param {number} now @param {number} own @returns {Change[] | null} null for an invalid alert
   */
  take(value, now, own) {
    const entry = entryOf(value, own);
    if (entry === null) return null;
    const { id, revision } = entry.alert;
    const held = this.#held.get(id);
    const isOver = entry.expiresAt <= now && entry.keepUntil <= own;
    if (this.#cancelled.has(id) || isOver || revision <= (held?.alert.revision ?? 0)) return [];
    if (held) [entry.affected, entry.shown] = [held.affected, held.shown];
    this.#held.set(id, entry);
    this.version++;
    const changes = [...this.#look(entry, now), ...this.#reassess(entry, "revision"), ...this.#dropBeyond(MAX_HELD)];
    this.#forget(own);
    return changes;
  }

  /**
   * Take a `cancel` message; it has no effect on an id that is not held.
   * @param {Record<string, unknown>} message @returns {Change[] | null} null for an invalid cancel
   */
  cancel(message) {
    const { id, revision, reason, cancelled_at } = /** @type {any} */ (message);
    const entry = this.#held.get(id);
    if (typeof id !== "string" || (entry && !isListable(message))) return null;
    if (entry === undefined || revision <= entry.alert.revision) return [];
    this.#remember(id, entry.keepUntil);
    return this.#end(id, { reason: String(reason ?? ""), cancelled_at: String(cancelled_at ?? "") });
  }

  /** Drop a cancelled alert. @param {string} id @param {Pick<Cancel, "reason" | "cancelled_at">} why @returns {Change[]} */
  #end(id, why) {
    const entry = this.#held.get(id);
    if (!entry) return [];
    this.#drop(entry);
    return entry.shown ? [["cancel", { ...heldOf(entry), ...why }]] : [];
  }

  /** Return the entry of a held alert, over or not. @param {string} id @returns {Readonly<Entry> | undefined} */
  entry(id) {
    return this.#held.get(id);
  }

  /** @param {string} id @returns {boolean} whether it was held and then cancelled */
  isCancelled(id) {
    return this.#cancelled.has(id);
  }

  /** Count an alert as shown to the person. @param {string} id */
  show(id) {
    const entry = this.#held.get(id);
    if (entry) entry.shown = true;
  }

  /** Replace the places. @param {readonly Spot[]} spots @returns {Change[]} */
  move(spots) {
    this.#spots = spots;
    return [...this.#held.values()].flatMap((entry) => this.#reassess(entry, "moved"));
  }

  /**
   * Return the `holding` of a `hello` (id -> revision), and the changes that were needed for it (Rules 2 and 5). Alerts
   * whose area we have left are listed too: a cancel, or a revision that brings the alert back, is still for us. So are
   * alerts that only the server's clock has ended: one that becomes live again may have been cancelled meanwhile.
   * @param {number} now @param {number} own @param {number} limit the most that may be listed, as calls come before alerts
   * @returns {[Map<string, number>, Change[]]}
   */
  holding(now, own, limit = MAX_HOLDING) {
    const changes = [...this.expire(now, own), ...this.#dropBeyond(limit)];
    return [new Map([...this.#held].map(([id, { alert }]) => [id, alert.revision])), changes];
  }

  // ---- the storage ------------------------------------------------------------------------------------------------

  /**
   * Merge stored alerts; a held alert of the same or a higher revision stays.
   * @param {Stored} stored @param {number} now @param {number} own @returns {Change[]}
   */
  restore({ held, cancelled }, now, own) {
    const changes = cancelled.flatMap(([id, until]) => {
      this.#remember(id, until);
      return this.#end(id, { reason: "", cancelled_at: "" });
    });
    for (const entry of held.filter(({ alert }) => !this.#cancelled.has(alert.id))) this.#restoreOne(entry, now, own);
    this.#forget(own);
    return [...changes, ...[...this.#held.values()].flatMap((entry) => this.#reassess(entry, "moved"))];
  }

  /** Restore one alert. The client's own clock may have restarted, so no alert is kept for longer than it can live. An alert that is over ends silently.
   * @param {Entry} entry @param {number} now @param {number} own */
  #restoreOne(entry, now, own) {
    const { alert, expiresAt } = entry;
    const mine = this.#held.get(alert.id);
    if (mine) mine.shown ||= entry.shown && !mine.over;
    if (alert.revision <= this.revision(alert.id)) return;
    const over = expiresAt <= now;
    const keepUntil = Math.min(entry.keepUntil, own + lifeOf(alert));
    this.#held.set(alert.id, { ...entry, over, keepUntil, shown: !over && (mine?.shown ?? entry.shown) });
    this.version++;
  }

  /**
   * Return what to store (Rule 6): the highest revision that either side has, and no alert that either side saw cancelled.
   * @param {Stored | null} stored the present content of the storage
   * @param {number} now @param {number} own @param {number | null} ahead @returns {Stored}
   */
  merged(stored, now, own, ahead) {
    const both = new Holdings(false);
    both.restore({ ahead, held: [...this.#held.values()], cancelled: [...this.#cancelled] }, now, own);
    if (stored) both.restore(stored, now, own);
    both.#dropBeyond(MAX_HOLDING);
    return { ahead, held: [...both.#held.values()], cancelled: [...both.#cancelled] };
  }

  // ---- expiry and places ------------------------------------------------------------------------------------------

  /** Update whether the alert is over by the server's clock (Rule 2). @param {Entry} entry @param {number} now @returns {Change[]} */
  #look(entry, now) {
    const { over: wasOver, shown: wasShown } = entry;
    entry.over = entry.expiresAt <= now;
    if (entry.over !== wasOver) this.version++;
    if (!entry.over) return wasOver ? this.#reassess(entry, "moved") : [];
    entry.shown = false;
    return wasShown ? [["expire", { ...heldOf(entry), cause: "expired" }]] : [];
  }

  /** Delete alerts that both clocks have ended, and those above the limit of kept ones; none is shown. @param {number} own */
  #forget(own) {
    for (const [id, until] of this.#cancelled) if (until <= own) this.#cancelled.delete(id);
    const over = [...this.#held.values()].filter((entry) => entry.over).sort(latestEndFirst);
    const kept = new Set(over.filter(({ keepUntil }) => keepUntil > own).slice(0, MAX_HOLDING));
    for (const entry of over) if (!kept.has(entry)) this.#drop(entry);
  }

  /** Judge an alert by the places, and apply the table above. @param {Entry} entry @param {"revision" | "moved"} cause @returns {Change[]} */
  #reassess(entry, cause) {
    const before = entry.affected;
    if (this.#spots) entry.affected = isInside(entry.alert.area, this.#spots);
    const differs = entry.affected !== before;
    if (entry.over) return [];
    if (differs) this.version++;
    if (entry.shown) return cause === "revision" || differs ? [["update", { ...heldOf(entry), cause }]] : [];
    if (!entry.affected || !this.#shows) return [];
    entry.shown = true;
    return [["alert", heldOf(entry)]];
  }

  /** @param {number} limit @returns {Change[]} */
  #dropBeyond(limit) {
    if (this.#held.size <= limit) return [];
    const dropped = [...this.#held.values()].sort(latestEndFirst).slice(limit);
    for (const entry of dropped) this.#drop(entry);
    return dropped.filter(({ shown }) => shown).map((entry) => ["expire", { ...heldOf(entry), cause: "dropped" }]);
  }

  /** @param {Entry} entry */
  #drop(entry) {
    this.#held.delete(entry.alert.id);
    this.version++;
  }

  /** @param {string} id @param {number} until */
  #remember(id, until) {
    this.#cancelled.set(id, until);
    const [oldest] = this.#cancelled.keys();
    if (this.#cancelled.size > MAX_CANCELLED && oldest !== undefined) this.#cancelled.delete(oldest);
  }
}

/** Return stored text as an object; null if it is malformed. @param {string} text @returns {Stored | null} */
export function readStored(text) {
  try {
    const { ahead, held, cancelled } = mapOf(JSON.parse(text)); // an earlier release may have stored odd alerts
    if (!Array.isArray(held) || !Array.isArray(cancelled)) return null;
    return {
      ahead: typeof ahead === "number" ? ahead : null,
      held: held.slice(0, MAX_HOLDING).flatMap((item) => {
        const { alert, affected, shown, keepUntil } = mapOf(item);
        const entry = entryOf(alert, 0);
        if (!entry) return [];
        const until = typeof keepUntil === "number" ? keepUntil : 0; // 0: written by an older version
        return [{ ...entry, keepUntil: until, affected: affected === true, shown: shown === true }];
      }),
      cancelled: cancelled
        .slice(0, MAX_CANCELLED)
        .filter((pair) => Array.isArray(pair) && isId(pair[0]) && typeof pair[1] === "number"),
    };
  } catch {
    return null;
  }
}
