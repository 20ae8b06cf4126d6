/**
 * The IndexedDB store that a page and its service worker share: the held alerts (as geocast.js stores them) and the
 * registration. Reading a value and writing the value derived from it are one transaction: if page and worker receive the
 * same message at once, the second of them reads what the first has written.
 */

/** @import { Storage } from "./geocast.js" */
/** @typedef {Pick<Kept, "read" | "change" | "clear">} Keeping  The interface that a test may replace. */

const DATABASE = "geocast-push";
const STORE = "kept";

export class Kept {
  /** @type {Promise<IDBDatabase> | null} */
  #opening = null;

  /** @param {string} key @returns {Promise<any>} null without a value */
  async read(key) {
    const database = await this.#open();
    const request = database.transaction(STORE).objectStore(STORE).get(key);
    return new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result ?? null);
      request.onerror = () => reject(request.error);
    });
  }

  /**
   * Replace the values of these keys by what `change` returns for them: undefined keeps a value, null deletes it.
   * @param {readonly string[]} keys @param {(...values: any[]) => readonly unknown[]} change must be synchronous
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
      const last = /** @type {IDBRequest} */ (found.at(-1)); // requests complete in order
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

  /** Delete everything. @returns {Promise<void>} */
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
          database.close(); // the database is being deleted, or a later release opens it
          this.#opening = null;
        };
        resolve(database);
      };
    });
  }
}

/**
 * Return the store as a `Storage` of geocast.js.
 * @param {Keeping} kept @param {NonNullable<Storage["watch"]>} watch @returns {Storage}
 */
export const storageOf = (kept, watch) => ({
  getItem: (key) => kept.read(key),
  setItem: (key, value) => kept.change([key], () => [value]),
  removeItem: (key) => kept.change([key], () => [null]),
  update: (key, change) => kept.change([key], (value) => [change(value)]),
  watch,
});
