/**
 * The listeners of each event; if a listener throws, the others still get the event.
 */

import { withValues } from "./options.js";

export class Listeners {
  /** @type {Map<string, Set<(event: any) => unknown>>} by the event's name */
  #byName = new Map();

  /** @param {string} name @param {(event: any) => unknown} listener @returns {() => void} */
  on(name, listener) {
    const listeners = this.#byName.get(name) ?? new Set();
    this.#byName.set(name, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** @param {string} name @param {unknown} event */
  emit(name, event) {
    for (const listener of [...(this.#byName.get(name) ?? [])]) {
      try {
        listener(event);
      } catch (cause) {
        if (name === "error" || !this.#byName.get("error")?.size) console.error("geocast: a listener failed:", cause);
        else this.problem("listener", `a listener for ${name} failed`, cause);
      }
    }
  }

  /** @param {string} code @param {string} message @param {unknown} [cause] */
  problem(code, message, cause) {
    this.emit("error", withValues({ code, message, cause }));
  }
}
