/**
 * Decisions about reconnecting, from the protocol's table "Close codes". No clock and no randomness of its own.
 *
 * Rule 1  The code decides, never the text. A code that is not in the table means: within the window.
 * Rule 2  The delay is random over the whole window ("full jitter"), so that a node's clients return spread out.
 * Rule 3  The window is 1-30 s until a `welcome` gives another. Each delay that is drawn doubles its upper end, up to
 *         120 s; a `welcome` resets it. A `retry` is ignored if its upper end is below 100 ms or above an hour, or if it
 *         is not a valid window: otherwise a client would reconnect without a pause, or never.
 *         As long as nothing has ever answered at the URL, the window is 0.5 to 1 s and both ends double, until the upper
 *         end reaches 30 s: a client that was started before its server is there soon after it.
 * Rule 4  "Later" is a delay between the window's upper end and twice that, so that nobody overtakes the other clients.
 */

/** @typedef {"never" | "window" | "later" | "new token" | "at once"} After  The action after a connection has ended. */

export const NO_CLOSE_FRAME = 1006;
export const MALFORMED = 4400;
export const HELLO_REFUSED = [MALFORMED, 1007, 1009]; // a `hello` without `holding` may be accepted
const FIRST_WAIT_MS = 1_000;
const FIRST_MAX_MS = 30_000;
const LEAST_WINDOW_MS = 100; // lower limit of the upper end that a server may ask for
const LONGEST_WINDOW_MS = 3_600_000;
const MAX_WINDOW_MS = 120_000;

/** @type {Readonly<Record<number, readonly [After, string]>>} */
export const CLOSE_CODES = {
  1000: ["window", "closed"],
  1001: ["window", "the node is going away"],
  1002: ["never", "the server found our framing broken"],
  1003: ["never", "the server found our frames of the wrong type for this format"],
  [NO_CLOSE_FRAME]: ["window", "the connection was lost"],
  1007: ["never", "the server found our text not to be UTF-8"],
  1009: ["never", "the server found our message too long"],
  1011: ["window", "the server failed"],
  1012: ["window", "the node is draining"],
  1013: ["later", "the server is overloaded"],
  [MALFORMED]: ["never", "the server found our message malformed"],
  4401: ["new token", "the token is missing, invalid or expired"],
  4403: ["never", "this token may not receive alerts"],
  4408: ["window", "our hello came too late"],
  4420: ["at once", "we read too slowly"],
  4429: ["later", "we sent too many messages"],
};

/** @param {number} code @returns {After} */
export const afterClose = (code) => CLOSE_CODES[code]?.[0] ?? "window";

/** @param {number} code @returns {string} the close code in words */
export const meaning = (code) => CLOSE_CODES[code]?.[1] ?? `closed with code ${code}`;

/** @param {unknown} min @param {unknown} max */
const isWindow = (min, max) =>
  typeof min === "number" &&
  typeof max === "number" &&
  min >= 0 &&
  min <= max &&
  max >= LEAST_WINDOW_MS &&
  max <= LONGEST_WINDOW_MS;

/** The delays between attempts to connect, in milliseconds. */
export class Backoff {
  #draw;
  #window = { min: 1_000, max: FIRST_MAX_MS };
  #first = FIRST_WAIT_MS; // upper end of the window while nothing has ever answered
  #max = this.#window.max;
  /** @type {After | null} */
  #last = null;

  /** @param {() => number} draw gives numbers in [0, 1) */
  constructor(draw) {
    this.#draw = draw;
  }

  /** Take the `retry` window of a `welcome`, if it is valid (Rule 3), and reset the delays. @param {unknown} min @param {unknown} max */
  welcomed(min, max) {
    if (isWindow(min, max)) this.#window = { min: Number(min), max: Number(max) };
    this.restart();
    this.#first = FIRST_MAX_MS;
    if (this.#last === "new token") this.#last = null; // the new token worked, so the next one may be fetched at once too
  }

  /** Reset the window, because the failures were not the server's. */
  restart() {
    this.#max = this.#window.max;
  }

  /**
   * @param {After} after @param {boolean} [answered] whether anything answered at the URL
   * @returns {number} the delay; doubles the window's upper end for the next time
   */
  delay(after, answered = true) {
    if (answered) this.#first = FIRST_MAX_MS;
    if (this.#first < FIRST_MAX_MS) {
      const most = this.#first;
      this.#first *= 2;
      return (most * (1 + this.#draw())) / 2;
    }
    const again = after === this.#last;
    this.#last = after;
    if (!again && (after === "at once" || after === "new token")) return 0;
    let [low, high] = [this.#window.min, this.#max];
    this.#max = Math.max(high, Math.min(2 * high, MAX_WINDOW_MS));
    if (after === "later" || after === "at once") [low, high] = [Math.min(high, MAX_WINDOW_MS / 2), this.#max];
    return low + (high - low) * this.#draw();
  }
}
