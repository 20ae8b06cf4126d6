/**
 * The calls that a responder holds, with their tasks and the responder's answers. No I/O; times in ms: `now` is the
 * server's time as far as it is known, `own` the client's own clock, which nobody sets.
 *
 * Rule 1  A higher revision replaces a lower one, a `call` by a `call` and a `task` by a `task`; every other revision is
 *         ignored.
 * Rule 2  An answer is repeated until the server has received it. An `accept` is sent again every 5 s and at once on
 *         each new connection, until a `task` or a `standdown` answers it or the call is over (RU3). The `decline` of a
 *         seat is repeated in the same way. Where the responder may have no seat, a `decline` is sent three times on
 *         each connection.
 * Rule 3  A person who has declined is not asked again: when the call comes again, it is declined again (RU1).
 * Rule 4  A place is kept as long as the seat. The task is deleted at `standdown` and at `expires_at`, by whichever clock
 *         reaches it first: the client's own clock, or this clock corrected by the server's `now`. The place is never
 *         stored (RU2).
 * Rule 5  A call that was stood down stays over unless a higher revision comes: a node that is behind may still send it.
 * Rule 6  The server counts one report in 5 s, so the next report waits 6 s. Reports are not answered, so the last one is
 *         sent again on each new connection (RU3).
 */

/** @import { Call, Report, Task } from "./geocast.js" */
/** @import { Message } from "./link.js" */
/** @typedef {"call" | "task" | "standdown"} Kind */
/** @typedef {{ kind: Kind, id: string, call: Call | null, task: Task | null, reason: string }} CallChange */
/**
 * @typedef {object} Entry
 * @property {number} expiresAt
 * @property {number} keepUntil  by the client's own clock
 * @property {Call | null} call
 * @property {Task | null} task
 * @property {Report | null} report
 * @property {number} reportAt  when to send it, by the client's own clock; Infinity after it was sent
 * @property {number} nextReportAt
 */
/** @typedef {{ message: Message, at: number, until: number, left: number }} Answer  `left`: how many more times on this connection */

import { hasTexts, isId, isListable, timeOf } from "./holdings.js";

const AGAIN_MS = 5_000; // protocol, RU3
const REPORT_MS = 6_000; // the server allows one in 5 s (M20), and the second may travel faster than the first
const MAX_LIFE_MS = 7_200_000; // a call is open for two hours at most
const MAX_ETA_S = 7_200;
const MAX_REMEMBERED = 1_024; // ids kept for Rules 3 and 5, of at most 128 characters each
const DECLINES = 3; // on each connection, when no seat is known

const NO_ID = "id: expected 1 to 128 letters, digits and ._:-, as a call's id has them";

/** @param {unknown} value @returns {value is Record<string, unknown>} */
const isMap = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** Return whether this has the members that a call and a task share. @param {unknown} said */
const isWhole = (said) =>
  isMap(said) && isListable(said) && hasTexts(said) && !Number.isNaN(timeOf(said.expires_at));

/** @template V @param {Map<string, V>} known @param {string} id @param {V} value */
function remember(known, id, value) {
  known.delete(id);
  known.set(id, value);
  const [oldest] = known.keys();
  if (known.size > MAX_REMEMBERED && oldest !== undefined) known.delete(oldest);
}

export class Calls {
  /** A number that grows with each change of the held calls. */
  version = 0;
  /** @type {Map<string, Entry>} */
  #held = new Map();
  /** @type {Map<string, Answer>} */
  #answers = new Map();
  /** @type {Message[]} declines of calls in which this responder has no seat */
  #once = [];
  /** @type {Map<string, true>} */
  #declined = new Map();
  /** @type {Map<string, number>} id -> the revision that was held */
  #over = new Map();

  /** Return the held calls: those with a task first, then those that end last. */
  list() {
    const entries = [...this.#held].sort(([, a], [, b]) => Number(!a.task) - Number(!b.task) || b.expiresAt - a.expiresAt);
    return entries.map(([id, { call, task }]) => ({ id, call, task, isAccepted: this.#isAccepted(id) }));
  }

  /** @param {string} id */
  #isAccepted(id) {
    return this.#answers.get(id)?.message.type === "accept" || !!this.#held.get(id)?.task;
  }

  // ---- messages from the server; null for an incomplete one --------------------------------------------------------

  /** Store the call of a `call` message and return the changes. @param {any} call @param {number} now @param {number} own @returns {CallChange[] | null} */
  call(call, now, own) {
    const life = isWhole(call) ? timeOf(call.expires_at) - timeOf(call.issued_at) : NaN;
    if (Number.isNaN(life)) return null;
    const { id, revision } = call;
    if (this.#declined.has(id)) {
      this.#once.push({ type: "decline", id });
      return [];
    }
    const held = this.#held.get(id);
    const known = held ? (held.call?.revision ?? 0) : (this.#over.get(id) ?? 0);
    const [expiresAt, keepUntil] = [timeOf(call.expires_at), own + Math.min(MAX_LIFE_MS, Math.max(0, life))];
    if (revision <= known || expiresAt <= now || keepUntil <= own) return [];
    this.#put(id, { ...held, call: Object.freeze(call), expiresAt, keepUntil });
    return [this.#change("call", id)];
  }

  /**
   * Store a `task` message and return the changes. All devices of a person get the task, whichever of them accepted.
   * @param {any} task @param {number} now @param {number} own @returns {CallChange[] | null}
   */
  task(task, now, own) {
    if (!isWhole(task) || !isMap(task.place)) return null;
    const { id, revision } = task;
    const answer = this.#answers.get(id);
    if (answer?.message.type === "decline") {
      answer.left = Infinity; // a seat must be given back; the task may have crossed our decline
      return [];
    }
    const held = this.#held.get(id);
    const expiresAt = timeOf(task.expires_at);
    if (expiresAt <= now || (!held && revision <= (this.#over.get(id) ?? 0))) return [];
    this.#answers.delete(id);
    this.#declined.delete(id);
    if (revision <= (held?.task?.revision ?? 0)) return [];
    this.#put(id, { ...held, task: Object.freeze(task), expiresAt, keepUntil: held?.keepUntil ?? own + MAX_LIFE_MS });
    return [this.#change("task", id)];
  }

  /** Remove the call of a `standdown` message; no effect if the call is neither held nor answered. @param {any} message @returns {CallChange[] | null} */
  standdown({ id, reason }) {
    if (typeof id !== "string" || typeof reason !== "string") return null;
    const held = this.#held.get(id);
    const isAwaited = this.#answers.delete(id);
    if (!held && !isAwaited) return [];
    if (held && reason === "over") remember(this.#over, id, revisionOf(held));
    return [this.#drop(id, reason)];
  }

  // ---- the person's answers, which `due` returns for sending -------------------------------------------------------

  /** Accept a call. Throws TypeError for an `eta` out of range or a malformed id. @param {string} id @param {number | undefined} eta @param {number} own */
  accept(id, eta, own) {
    if (!isId(id)) throw new TypeError(NO_ID);
    if (eta !== undefined && !(eta >= 0 && eta <= MAX_ETA_S)) throw new TypeError(`etaS: expected 0 to ${MAX_ETA_S} seconds`);
    const fields = eta === undefined ? {} : { eta_s: Math.round(eta) };
    this.#declined.delete(id);
    this.#over.delete(id);
    this.#answer({ type: "accept", id, ...fields }, id, own, Infinity);
    this.version++;
  }

  /** Decline a call and drop it. Throws TypeError for a malformed id. @param {string} id @param {number} own */
  decline(id, own) {
    if (!isId(id)) throw new TypeError(NO_ID);
    const message = { type: "decline", id };
    const mayHaveSeat = this.#answers.has(id);
    if (this.#held.get(id)?.task) this.#answer(message, id, own, Infinity);
    else if (mayHaveSeat) this.#answer(message, id, own, DECLINES);
    else this.#once.push(message);
    this.#held.delete(id);
    remember(this.#declined, id, true);
    this.version++;
  }

  /** Report `aed` or `arrived`. Throws TypeError without a seat or for another state. @param {string} id @param {Report} state @param {number} own */
  report(id, state, own) {
    const held = this.#held.get(id);
    if (state !== "aed" && state !== "arrived") throw new TypeError('state: expected "aed" or "arrived"');
    if (!held?.task) throw new TypeError("report: there is no task of this id; only the holder of a seat can report");
    held.report = state;
    held.reportAt = Math.max(own, held.nextReportAt);
  }

  // ---- time -------------------------------------------------------------------------------------------------------

  /**
   * Schedule the answers and reports for sending again on a new connection (Rules 2 and 6). Declines without a seat are
   * dropped: if the server sends the call again, `call` declines it again (Rule 3).
   * @param {number} own
   */
  connected(own) {
    this.#once = [];
    for (const answer of this.#answers.values()) {
      answer.at = own;
      answer.left = answer.left === Infinity ? Infinity : DECLINES;
    }
    for (const held of this.#held.values()) if (held.report) held.reportAt = Math.max(own, held.nextReportAt);
  }

  /** Return the messages to send now, and count them as sent. @param {number} own @returns {Message[]} */
  due(own) {
    const messages = this.#once.splice(0);
    for (const answer of this.#answers.values()) {
      if (answer.at > own || answer.left === 0) continue;
      messages.push(answer.message);
      answer.at = own + AGAIN_MS;
      answer.left--;
    }
    for (const [id, held] of this.#held) {
      if (held.reportAt > own) continue;
      messages.push({ type: "report", id, state: held.report });
      [held.reportAt, held.nextReportAt] = [Infinity, own + REPORT_MS];
    }
    return messages;
  }

  /** Return when, by the client's own clock, `due` has a message to send; Infinity if nothing waits. */
  nextDue() {
    if (this.#once.length) return 0;
    const answers = [...this.#answers.values()].filter(({ left }) => left > 0).map(({ at }) => at);
    return Math.min(Infinity, ...answers, ...[...this.#held.values()].map(({ reportAt }) => reportAt));
  }

  /** Return when, by the client's own clock, `expire` must be called. @param {number} ahead the server's clock minus this clock */
  nextExpiry(ahead) {
    const held = [...this.#held.values()].map(({ expiresAt, keepUntil }) => Math.min(expiresAt - ahead, keepUntil));
    return Math.min(Infinity, ...held, ...[...this.#answers.values()].map(({ until }) => until));
  }

  /** Drop calls that are over by either clock, with their answers (Rule 4). @param {number} now @param {number} own @returns {CallChange[]} */
  expire(now, own) {
    for (const [id, { until }] of this.#answers) if (until <= own) this.#answers.delete(id);
    const over = [...this.#held].filter(([, { expiresAt, keepUntil }]) => expiresAt <= now || keepUntil <= own);
    return over.map(([id]) => {
      this.#answers.delete(id);
      return this.#drop(id, "expired");
    });
  }

  /** Drop everything without reporting changes. */
  forget() {
    this.#held.clear();
    this.#answers.clear();
    this.#once = [];
    this.version++;
  }

  /** Return id -> highest revision of the held calls (RU3). @param {number} limit @returns {[string, number][]} */
  holding(limit) {
    const ids = this.list().slice(0, limit);
    return ids.map(({ id }) => [id, revisionOf(/** @type {Entry} */ (this.#held.get(id)))]);
  }

  // ---- helpers ----------------------------------------------------------------------------------------------------

  /** @param {string} id @param {Partial<Entry> & Pick<Entry, "expiresAt" | "keepUntil">} entry */
  #put(id, entry) {
    const empty = { call: null, task: null, report: null, reportAt: Infinity, nextReportAt: 0 };
    this.#held.set(id, { ...empty, ...entry });
    this.version++;
  }

  /** @param {string} id @param {string} reason @returns {CallChange} */
  #drop(id, reason) {
    const call = this.#held.get(id)?.call ?? null;
    this.#held.delete(id);
    this.version++;
    return { kind: "standdown", id, call, task: null, reason };
  }

  /** @param {Kind} kind @param {string} id @returns {CallChange} */
  #change(kind, id) {
    const { call = null, task = null } = this.#held.get(id) ?? {};
    return { kind, id, call, task, reason: "" };
  }

  /** @param {Message} message @param {string} id @param {number} own @param {number} left */
  #answer(message, id, own, left) {
    const until = this.#held.get(id)?.keepUntil ?? own + MAX_LIFE_MS;
    this.#answers.set(id, { message, at: own, until, left });
  }
}

/** @param {Entry} entry */
const revisionOf = ({ call, task }) => Math.max(call?.revision ?? 0, task?.revision ?? 0);
