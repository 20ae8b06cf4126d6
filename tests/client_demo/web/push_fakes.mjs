// A simulated browser for Web Push: the store, a service worker with its notifications and pages, a page with its
// permission and subscription, and the server of registrations. Nothing takes time, and a notification stays open
// until somebody closes it.

import { setImmediate } from "node:timers/promises";

/** A database with one store, as kept.js uses it: requests and transactions complete in order. */
export class FakeIndexedDB {
  kept = new Map();
  fails = false;

  open() {
    const request = { result: this };
    queueMicrotask(() => {
      if (this.fails) return request.onerror?.();
      request.onupgradeneeded?.();
      request.onsuccess?.();
    });
    return request;
  }
  createObjectStore() {}
  close() {}

  transaction() {
    const changes = [];
    let isOver = false;
    const transaction = { abort: () => (isOver = true) };
    const asked = [];
    const request = (key) => {
      const made = { key };
      asked.push(made);
      return made;
    };
    const store = {
      get: (key) => request(key),
      put: (value, key) => changes.push(() => this.kept.set(key, structuredClone(value))),
      delete: (key) => changes.push(() => this.kept.delete(key)),
      clear: () => changes.push(() => this.kept.clear()),
    };
    queueMicrotask(() => {
      for (const each of asked) each.result = structuredClone(this.kept.get(each.key));
      for (const each of asked) each.onsuccess?.();
      if (isOver) return transaction.onabort?.();
      for (const change of changes) change();
      transaction.oncomplete?.();
    });
    return { ...transaction, objectStore: () => store, set oncomplete(done) { transaction.oncomplete = done; },
      set onabort(done) { transaction.onabort = done; } };
  }
}

/** A stand-in for `self` in a service worker. */
export class FakeWorker {
  shown = new Map(); // by tag
  said = []; // all notifications ever shown
  pages = [];
  opened = [];
  failsToShow = 0;
  navigator = { languages: ["en-GB"] };
  location = { href: "https://app.example/sw.js" };
  subscription = null;
  #listeners = new Map();

  registration = {
    showNotification: async (title, options) => {
      if (options.renotify && !options.tag) throw new TypeError("renotify needs a tag");
      structuredClone(options.data);
      const made = { title, ...options, close: () => this.shown.delete(options.tag) };
      this.said.push(made);
      this.shown.set(options.tag, made);
    },
    getNotifications: async () => [...this.shown.values()],
    pushManager: {
      getSubscription: async () => this.subscription,
      subscribe: async (options) => (this.subscription = { options, toJSON: () => ({ endpoint: "https://push.example/new" }) }),
    },
  };
  clients = {
    matchAll: async () => this.pages,
    openWindow: async (url) => this.opened.push(url),
  };
  addEventListener(name, listener) {
    this.#listeners.set(name, listener);
  }

  /** Have an event handled completely, and return the notifications that it has shown. */
  async has(name, event = {}) {
    const before = this.said.length;
    const waits = [];
    this.#listeners.get(name)({ ...event, waitUntil: (promise) => waits.push(promise) });
    await Promise.all(waits);
    return this.said.slice(before);
  }
  push(message) {
    const text = typeof message === "string" ? message : JSON.stringify(message);
    return this.has("push", { data: { text: () => text } });
  }
}

/** An open page; it replies to the worker's messages with `answer`, or not at all. */
export const fakePage = (answer, fields = {}) => {
  const page = {
    url: "https://app.example/",
    visibilityState: "visible",
    heard: [],
    isFocused: false,
    postMessage: (message, [port]) => {
      page.heard.push(message);
      if (answer === undefined) return;
      Promise.resolve(answer(message)).then((said) => port.postMessage(said));
    },
    focus: async () => (page.isFocused = true),
    ...fields,
  };
  return page;
};

export const settled = async () => {
  for (let turn = 0; turn < 50; turn++) await setImmediate();
};

/** A page's side: the browser's Web Push features, and the person who grants permission. */
export class FakeBrowser {
  permission = "default";
  answers = "granted"; // the person's decision
  asked = 0;
  subscription = null;
  subscribed = 0;
  notifications = [];
  #before = new Map();

  constructor() {
    const page = new EventTarget();
    const registration = {
      active: {},
      getNotifications: async () => this.notifications,
      pushManager: {
        getSubscription: async () => this.subscription,
        subscribe: async ({ applicationServerKey }) => this.subscribe(applicationServerKey),
      },
    };
    this.serviceWorker = Object.assign(new EventTarget(), { register: async () => registration });
    this.document = Object.assign(page, { visibilityState: "visible" });
    const browser = this;
    this.globals = {
      isSecureContext: true,
      indexedDB: new FakeIndexedDB(),
      document: this.document,
      navigator: { languages: ["es-MX", "en"], serviceWorker: this.serviceWorker },
      PushManager: class {},
      Notification: {
        get permission() {
          return browser.permission;
        },
        requestPermission: async () => {
          browser.asked++;
          return (browser.permission = browser.answers);
        },
      },
    };
  }

  subscribe(key) {
    if (this.refuses) throw new Error("no push service");
    this.key = key;
    const endpoint = `https://push.example/${++this.subscribed}`;
    this.subscription = { toJSON: () => ({ endpoint, keys: {} }), unsubscribe: async () => (this.subscription = null) };
    return this.subscription;
  }

  install() {
    for (const [name, value] of Object.entries(this.globals)) {
      this.#before.set(name, Object.getOwnPropertyDescriptor(globalThis, name));
      Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    }
  }
  uninstall() {
    for (const [name, before] of this.#before) {
      delete globalThis[name];
      if (before) Object.defineProperty(globalThis, name, before);
    }
  }
  without(name) {
    delete globalThis[name];
  }
}
