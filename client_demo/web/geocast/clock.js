/**
 * The clock of a client: it goes on while the device sleeps, and does not go back when somebody sets the wall clock.
 */

/** @import { Clock } from "./geocast.js" */

const STEP_MS = 1_000;

/** @returns {Clock} the machine's */
export const machineClock = () => ({
  now: () => Date.now(),
  steady: () => globalThis.performance?.now() ?? Date.now(),
  setTimeout: (callback, ms) => setTimeout(callback, ms),
  clearTimeout: (timer) => clearTimeout(/** @type {any} */ (timer)),
});

/**
 * The client's own time, in ms, which begins as the wall clock. A steady clock may stop during sleep, so the amount by
 * which the wall clock has run ahead of it is added. Setting the wall clock back changes nothing; setting it forward
 * looks like sleep.
 */
export class OwnClock {
  #clock;
  #ahead;
  #slept = 0;
  #begin;

  /** @param {Clock} clock */
  constructor(clock) {
    this.#clock = clock;
    this.#begin = clock.now() - clock.steady();
    this.#ahead = this.#begin;
  }

  now() {
    const steady = this.#clock.steady();
    const step = this.#clock.now() - steady - this.#ahead;
    if (Math.abs(step) >= STEP_MS) {
      this.#ahead += step;
      this.#slept += Math.max(0, step);
    }
    return this.#begin + steady + this.#slept;
  }
}
