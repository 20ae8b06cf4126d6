/**
 * Web Push for a service worker; `geocast-push-sw.d.ts` documents the exports.
 *
 * Rule 1  Each push shows a notification before its event ends, whatever the push contains and whatever fails: browsers
 *         end the subscription of a page whose pushes show none.
 * Rule 2  The first notification is shown at once. If more has to be fetched or a page has to be asked, another
 *         notification replaces it later.
 * Rule 3  Pushes are handled one after the other, in the order in which they come.
 * Rule 4  With `verify`, an alert that its proof does not confirm is announced without any of its words.
 */

/** @import { Fetched } from "./geocast.js" */
/** @import { WorkerOptions } from "./geocast-push-sw.js" */
/** @import { Message, Notice } from "./notices.js" */
/** @import { Registration } from "./registration.js" */

import { fetchLive } from "./fetch.js";
import { Holdings, readStored, timeOf } from "./holdings.js";
import { Kept } from "./kept.js";
import { texts, woken } from "./notices.js";
import { tokenFrom } from "./options.js";
import { dateText, filled, wordsFor } from "./push-words.js";
import { closeOver, holdingOf, keyOf, offerOf, readdressed, registered, REGISTRATION, TOLD } from "./registration.js";
import { Verifier } from "./verify.js";

const FETCH_MS = 10_000; // systems end a worker that takes much longer
const PAGE_MS = 3_000; // a page that shows the alert answers sooner
const RENEW_MS = 15_000;
// No alert has this tag, because ids contain no spaces.
const UNKNOWN_TAG = "geocast unknown";
const RENEW_TAG = "geocast renew";

/** @type {typeof import("./geocast-push-sw.js").handle} */
export function handle(scope, options) {
  const worker = new Worker(scope, options);
  /** @type {[string, (event: any) => unknown][]} */
  const listeners = [
    ["push", ({ data }) => worker.pushed(data)],
    ["notificationclick", ({ notification }) => worker.clicked(notification)],
    ["pushsubscriptionchange", (event) => worker.resubscribed(event)],
  ];
  for (const [name, listener] of listeners)
    /** @type {any} */ (scope).addEventListener(name, (/** @type {any} */ event) => event.waitUntil(listener(event)));
}

class Worker {
  #scope;
  #options;
  #verifier;
  #kept = new Kept();
  /** @type {Promise<unknown>} Rule 3 */
  #turn = Promise.resolve();

  /** @param {any} scope @param {WorkerOptions} options */
  constructor(scope, options) {
    if (typeof scope?.registration?.showNotification !== "function") throw new TypeError("scope: expected a worker's self");
    if (typeof options?.app !== "string") throw new TypeError("app: expected an address");
    this.#scope = scope;
    this.#options = options;
    this.#verifier = options.verify && new Verifier(options.verify);
  }

  // ---- pushes -----------------------------------------------------------------------------------------------------

  /** @param {{ text(): string } | null} data */
  async pushed(data) {
    const raw = parsed(data);
    const fetched = raw?.type === "fetch" ? await this.#fetched().catch(() => null) : null;
    const isRenewed = raw?.type === "renew" && (await this.#renewed());
    await this.#inTurn(() => this.#tell(raw, fetched, isRenewed).catch(() => this.#tellUnknown()));
    if (raw?.cut !== true) return;
    const rest = await this.#fetched().catch(() => null); // if fetching fails, the notification of the cut alert stays
    if (rest) await this.#inTurn(() => this.#takeAll(rest));
  }

  /**
   * Show the notification of a push; rejects if the push can't be shown.
   * @param {any} raw @param {Fetched | null} fetched @param {boolean} isRenewed
   */
  async #tell(raw, fetched, isRenewed) {
    if (raw.type === "renew") return this.#tellRenewal(timeOf(raw.until), isRenewed);
    if (fetched) return this.#tellFetched(fetched);
    return this.#take(this.#verifier ? await this.#verifier.read(raw) : raw, timeOf(raw.now));
  }

  /**
   * Decide about a message, store the result, show it. Rejects for an incomplete message.
   * @param {Message} message @param {number} said the push's `now`
   */
  async #take(message, said) {
    const found = await this.#decided(message, said);
    if (found === null) throw new TypeError("the message is incomplete");
    await this.#show(found.notice, message);
  }

  /** @param {Message} message @param {number} said @returns {Promise<ReturnType<typeof woken>>} */
  async #decided(message, said) {
    /** @type {ReturnType<typeof woken>} */
    let found = null;
    try {
      const registration = await this.#registration();
      const key = this.#key(registration);
      await this.#kept.change([key, TOLD], (text, told) => {
        const known = { stored: text ? readStored(text) : null, told: told ?? [], spots: registration?.spots ?? null };
        found = woken(message, known, Date.now(), said);
        return found ? [JSON.stringify(found.stored), found.told] : [];
      });
    } catch {
      found ??= woken(message, { stored: null, told: [], spots: null }, Date.now(), said); // showing an alert twice is better than never
    }
    return found;
  }

  // ---- notifications ----------------------------------------------------------------------------------------------

  /** @param {Notice} notice @param {Message} message */
  async #show(notice, message) {
    const pages = await this.#pages();
    const isSeen = notice.isNews && pages.some(isVisible);
    const verified = this.#verifier !== undefined;
    const answers = pages.map((page) => {
      const told = !(notice.isNews && isVisible(page));
      return answered(page, { geocast: "told", message, told, verified }, PAGE_MS);
    });
    await closeOver(this.#scope.registration, notice.now).catch(() => {});
    await this.#showOne(notice, notice.isNews && !isSeen);
    if (isSeen && !(await Promise.all(answers)).includes(true)) await this.#showOne(notice, true); // no page has shown it
  }

  /** @param {Notice} notice @param {boolean} rings */
  async #showOne(notice, rings) {
    const { kind, id, alert } = notice;
    const { title, body, lang } = texts(notice, this.#languages(), this.#options.words);
    const isLive = kind === "alert";
    await this.#notify(title, {
      body,
      lang,
      tag: id,
      silent: !rings,
      renotify: rings,
      requireInteraction: isLive && alert.severity === "extreme",
      timestamp: timeOf(alert.issued_at) || notice.now,
      data: { geocast: id, until: timeOf(alert.expires_at), over: !isLive },
    });
  }

  /** Show that an alert has come, without its words, for a push that can't be read or verified. */
  async #tellUnknown() {
    const { tag, words } = wordsFor(this.#languages(), this.#options.words);
    await closeOver(this.#scope.registration, Date.now()).catch(() => {});
    const options = { body: words.open, lang: tag, tag: UNKNOWN_TAG, data: { geocast: UNKNOWN_TAG, until: Infinity } };
    await this.#notify(words.unknown, options);
  }

  /** @param {string} title @param {object} options */
  async #notify(title, options) {
    const { icon, badge } = this.#options;
    await this.#scope.registration.showNotification(title, { ...options, ...(icon && { icon }), ...(badge && { badge }) });
  }

  /** @returns {readonly string[]} the phone's languages */
  #languages() {
    return this.#scope.navigator?.languages ?? [];
  }

  // ---- fetching ---------------------------------------------------------------------------------------------------

  /** Fetch alerts by one short connection. @returns {Promise<Fetched>} */
  async #fetched() {
    const registration = await this.#registration();
    const { token, verify } = this.#options;
    const { stream, discs, body } = registration ?? {};
    if (!token || !stream || !discs) throw new Error("the worker can't fetch alerts");
    const holding = holdingOf(await this.#kept.read(this.#key(registration)));
    const { categories, min_severity, languages } = body ?? {};
    const filter = /** @type {import("./geocast.js").Filter} */ ({ categories, min_severity, languages });
    return fetchLive({ url: stream, token, places: discs, filter, holding, timeoutMs: FETCH_MS, ...(verify && { verify }) });
  }

  /**
   * Show fetched alerts after a push without content. Each new one is shown: nobody near must wait for another push.
   * @param {Fetched} fetched
   */
  async #tellFetched(fetched) {
    const { alerts, cancels, untrusted, now } = fetched;
    if (alerts.length + cancels.length) return this.#takeAll(fetched);
    if (untrusted.length) throw new Error("the alert can't be verified");
    const stored = readStored((await this.#kept.read(this.#key(await this.#registration()))) ?? "");
    const holdings = new Holdings(false);
    if (stored) holdings.restore(stored, now, Date.now());
    const [first] = holdings.list(now);
    if (first) return this.#take({ type: "alert", alert: first.alert }, now);
    await closeOver(this.#scope.registration, now).catch(() => {});
    /** @type {Notice} */
    const over = { kind: "ended", isNews: false, id: UNKNOWN_TAG, alert: {}, reason: "", isOutside: false, now };
    return this.#showOne(over, false);
  }

  /** @param {Fetched} fetched */
  async #takeAll({ alerts, cancels, now }) {
    for (const { alert } of alerts) await this.#take({ type: "alert", alert }, now);
    for (const cancel of cancels) await this.#take({ type: "cancel", ...cancel }, now);
  }

  // ---- the registration -------------------------------------------------------------------------------------------

  /** Renew the lease, which ends soon, by a page or else here. @returns {Promise<boolean>} */
  async #renewed() {
    return (await this.#renewedByPage()) || this.#renewedHere().catch(() => false);
  }

  /** Say that the lease was renewed, or ask the person to open a page. @param {number} until @param {boolean} isDone */
  async #tellRenewal(until, isDone) {
    const { tag, words } = wordsFor(this.#languages(), this.#options.words);
    await closeOver(this.#scope.registration, Date.now()).catch(() => {});
    const body = isDone ? "" : filled(words.renewBody, { date: dateText(until, tag) });
    const data = { geocast: RENEW_TAG, until: until || Infinity, over: isDone };
    await this.#notify(isDone ? words.renewed : words.renew, { body, lang: tag, tag: RENEW_TAG, silent: isDone, data });
  }

  async #renewedByPage() {
    const pages = await this.#pages();
    return (await Promise.all(pages.map((page) => answered(page, { geocast: "renew" }, RENEW_MS)))).includes(true);
  }

  /** Send the last registration again. @returns {Promise<boolean>} */
  async #renewedHere() {
    const registration = await this.#registration();
    if (!this.#options.token || !registration?.isWanted || !registration.body) return false;
    const token = /** @type {string} */ (await tokenFrom(this.#options.token));
    const subscription = await this.#scope.registration.pushManager.getSubscription();
    const body = { ...registration.body, ...(subscription && { subscription: subscription.toJSON() }) };
    const holding = holdingOf(await this.#kept.read(this.#key(registration)));
    const { url, id } = registration;
    const answer = await registered(url, id, token, body, holding);
    await this.#keep(id, { ...answer, body, putAt: Date.now() });
    return true;
  }

  /** Send the browser's new subscription to the server, or ask the browser for one first. @param {{ newSubscription?: any }} event */
  async resubscribed({ newSubscription }) {
    const registration = await this.#registration();
    if (!registration?.isWanted || !registration.secret || !registration.body) return;
    const { url, id, secret, body } = registration;
    const { vapid } = newSubscription ? registration : await offerOf(url);
    const options = { userVisibleOnly: true, applicationServerKey: vapid };
    const found = newSubscription ?? (await this.#scope.registration.pushManager.subscribe(options));
    const subscription = found.toJSON();
    const until = await readdressed(url, id, secret, subscription);
    await this.#keep(id, { until, vapid, body: { ...body, subscription } });
  }

  /** @returns {Promise<Registration | null>} */
  async #registration() {
    return this.#kept.read(REGISTRATION);
  }

  /** Change the stored registration if it still has this id. @param {string} id @param {Partial<Registration>} changed */
  async #keep(id, changed) {
    await this.#kept.change([REGISTRATION], (now) => (now?.id === id ? [{ ...now, ...changed }] : []));
  }

  /** @param {Registration | null} registration */
  #key(registration) {
    return keyOf(registration?.stream ?? "", this.#verifier !== undefined);
  }

  // ---- pages ------------------------------------------------------------------------------------------------------

  /** @param {any} notification */
  async clicked(notification) {
    if (notification.data?.geocast === undefined) return;
    notification.close();
    const app = new URL(this.#options.app, this.#scope.location.href).href;
    const open = (await this.#pages()).find(({ url }) => url.split(/[?#]/)[0] === app.split(/[?#]/)[0]);
    if (!(await open?.focus().catch(() => null))) await this.#scope.clients.openWindow(app);
  }

  /** @returns {Promise<any[]>} all open pages */
  async #pages() {
    return this.#scope.clients.matchAll({ type: "window", includeUncontrolled: true }).catch(() => []);
  }

  /** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
  #inTurn(work) {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }
}

/** @param {any} page */
const isVisible = (page) => page.visibilityState === "visible";

/** Return the pushed JSON value; null for anything else. @param {{ text(): string } | null} data @returns {any} */
function parsed(data) {
  try {
    return JSON.parse(data?.text() ?? "");
  } catch {
    return null;
  }
}

/**
 * Send a message to a page and return its answer, or false if none comes in time.
 * @param {any} page @param {object} message @param {number} ms @returns {Promise<boolean>}
 */
function answered(page, message, ms) {
  const { port1: near, port2: far } = new MessageChannel();
  return new Promise((resolve) => {
    const answer = (/** @type {boolean} */ said) => {
      clearTimeout(timer);
      near.close();
      resolve(said);
    };
    const timer = setTimeout(() => answer(false), ms);
    near.onmessage = ({ data }) => answer(data === true);
    page.postMessage(message, [far]);
  });
}
