/**
 * The held alerts in a storage such as localStorage or React Native's AsyncStorage: one key with one JSON text. A storage
 * that is shared with a service worker has more methods (kept.js).
 */

/** @import { Handed, Storage } from "./geocast.js" */
/** @import { Stored } from "./holdings.js" */

import { readStored } from "./holdings.js";

/** Return `localStorage`, or null. Some browsers throw on mere access if the page may not store anything. @returns {Storage | null} */
export function defaultStorage() {
  try {
    return globalThis.window?.localStorage ?? null;
  } catch {
    return null;
  }
}

/** @param {any} value @returns {value is PromiseLike<any>} */
const isPending = (value) => typeof value?.then === "function";

export class Store {
  #storage;
  #key;
  #failed;
  /** @type {Promise<unknown>} runs writes one after the other if the storage is asynchronous */
  #writing = Promise.resolve();

  /** @param {Storage | null} storage @param {string} key @param {(cause: unknown) => void} failed */
  constructor(storage, key, failed) {
    this.#storage = storage;
    this.#key = key;
    this.#failed = failed;
  }

  /** Whether a service worker shares the storage. */
  get isShared() {
    return this.#storage?.watch !== undefined;
  }

  /** Call `take` with each message that the worker hands over. @param {(handed: Handed) => Promise<boolean>} take @returns {() => void} a function that ends this */
  watch(take) {
    return this.#storage?.watch?.(take) ?? (() => {});
  }

  /** @returns {Promise<Stored | null>} */
  async load() {
    try {
      const text = await this.#storage?.getItem(this.#key);
      return text ? readStored(text) : null;
    } catch (cause) {
      this.#failed(cause);
      return null;
    }
  }

  /**
   * Read, merge and write. This is synchronous if the storage is, because a page that is closing has no time later.
   * @param {(stored: Stored | null) => Stored} merge @returns {void | Promise<unknown>}
   */
  save(merge) {
    const storage = this.#storage;
    if (!storage) return;
    const merged = (/** @type {string | null | undefined} */ text) =>
      JSON.stringify(merge(text ? readStored(text) : null));
    if (storage.update) return this.#later(async () => storage.update?.(this.#key, merged));
    const write = (/** @type {string | null | undefined} */ text) => storage.setItem(this.#key, merged(text));
    try {
      const read = storage.getItem(this.#key);
      if (!isPending(read)) return void write(read);
    } catch (cause) {
      return this.#failed(cause);
    }
    return this.#later(async () => write(await storage.getItem(this.#key)));
  }

  /** Delete the stored alerts. */
  async forget() {
    await this.#later(async () => this.#storage?.removeItem(this.#key));
  }

  /** @param {() => Promise<unknown>} work */
  #later(work) {
    return (this.#writing = this.#writing.then(work).catch((cause) => this.#failed(cause)));
  }
}
