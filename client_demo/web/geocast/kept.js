/**
 * What a page and its service worker both know, in one IndexedDB store: what is held (as geocast.js stores it), and what
 * was registered. What is written depends on what was read, and both are one transaction: of two that are told the same
 * at once, one comes second and finds what the first has written.
 */

/** @import { Storage } from "./geocast.js" */
/** @typedef {Pick<Kept, "read" | "change" | "clear">} Keeping  What a test may put in its place. */

const DATABASE = "geocast-push";
const STORE = "kept";

export class Kept {
  /** @type {Promise<IDBDatabase> | null} */
  #opening = null;

  /** @param {string} key @returns {Promise<any>} null where there is nothing */
  async read(key) {
    const database = await this.#open();
    const request = database.transaction(STORE).objectStore(STORE).get(key);
    return new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result ?? null);
      request.onerror = () => reject(request.error);
    });
  }

  /**
   * Put in the place of what these keys have what `change` makes of it: undefined leaves it, null takes it away.
   * @param {readonly string[]} keys @param {(...values: any[]) => readonly unknown[]} change at once: it can't wait
   * @returns {Promise<void>}
   */
  async change(keys, change) {
    const database = await this.#open();
    const transaction = database.transaction(STORE, "readwrite");
    const store = transaction.objectStore(STORE);
    const found = keys.map((key) => store.get(key));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
      const last = /** @type {IDBRequest} */ (found.at(-1)); // requests are answered in their order
      last.onsuccess = () => {
        try {
          for (const [at, value] of change(...found.map(({ result }) => result ?? null)).entries())
            if (value === null) store.delete(/** @type {string} */ (keys[at]));
            else if (value !== undefined) store.put(value, keys[at]);
        } catch (cause) {
          reject(cause);
          transaction.abort();
        }
      };
    });
  }

  /** Forget all. @returns {Promise<void>} */
  async clear() {
    const database = await this.#open();
    const transaction = database.transaction(STORE, "readwrite");
    transaction.objectStore(STORE).clear();
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
    });
  }

  #open() {
    this.#opening ??= this.#opened().catch((cause) => {
      this.#opening = null;
      throw cause;
    });
    return this.#opening;
  }

  /** @returns {Promise<IDBDatabase>} */
  #opened() {
    return new Promise((resolve, reject) => {
      const request = globalThis.indexedDB.open(DATABASE, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE);
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const database = request.result;
        database.onclose = () => (this.#opening = null);
        database.onversionchange = () => {
          database.close(); // somebody deletes it, or is a later release
          this.#opening = null;
        };
        resolve(database);
      };
    });
  }
}

/**
 * The store as geocast.js wants a storage.
 * @param {Keeping} kept @param {NonNullable<Storage["watch"]>} watch @returns {Storage}
 */
export const storageOf = (kept, watch) => ({
  getItem: (key) => kept.read(key),
  setItem: (key, value) => kept.change([key], () => [value]),
  removeItem: (key) => kept.change([key], () => [null]),
  update: (key, change) => kept.change([key], (value) => [change(value)]),
  watch,
});
