/**
 * A device's registration with `geocast push`: the requests of page and worker, and the stored state
 * (docs/reference/push-rules.md). Errors contain no token, no place and no endpoint.
 */

/** @import { Place } from "./geocast.js" */
/** @import { Spot } from "./geo.js" */
/**
 * @typedef {object} Registration  the state stored under REGISTRATION
 * @property {boolean} isWanted  the person has enabled it
 * @property {string} id  drawn once (WPR1)
 * @property {string} url
 * @property {string} stream
 * @property {string} [secret]  for the worker; it only permits changing the subscription
 * @property {number} until  the end of the lease, in ms since 1970; 0: not registered
 * @property {string} [vapid]  the key that the subscription is bound to
 * @property {number} finest  the finest resolution of cells that the operator accepts
 * @property {Body} [body]  the last one that the server accepted
 * @property {number} putAt  when the server accepted it
 * @property {readonly Place[]} [places]  the page's exact places; they and the position stay on this device
 * @property {{ place: Place, cell: string } | null} [position]
 * @property {readonly Spot[] | null} spots  the same in the form for judging; null if that needs h3
 * @property {readonly { lat: number, lng: number, accuracy_m: number }[] | null} discs  the cells of `body`, in a form for a stream
 */
/**
 * @typedef {{
 *   subscription: any, places: { cell: string }[], proofs?: boolean, categories?: readonly string[],
 *   min_severity?: string, languages?: readonly string[]
 * }} Body
 */

import { readStored } from "./holdings.js";
import { defaultKey } from "./options.js";

export const REGISTRATION = "registration";
export const TOLD = "told"; // the messages that the worker remembers (notices.js, Rule 3)
const ANSWER_MS = 20_000;
const MAX_HOLDING_BYTES = 12_000; // a body may have 16 KiB, and has other members too

/** The server refused a request, or did not answer. */
export class Refused extends Error {
  /** @param {string} message @param {string} [problem] the problem's slug @param {number} [retryMs] */
  constructor(message, problem, retryMs) {
    super(message);
    this.name = "Refused";
    this.problem = problem;
    this.retryMs = retryMs;
  }
}

/** @returns {string} a new random id */
export function drawnId() {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/={1,2}$/, "");
}

/**
 * Return the storage key of the held alerts, the same that `Geocast` uses for this stream.
 * @param {string} stream @param {boolean} verifies
 */
export const keyOf = (stream, verifies) =>
  defaultKey({ url: stream, ...(verifies && { verify: /** @type {any} */ (true) }) });

/** Return the `holding` of the stored alerts. @param {string | null} text as geocast.js stores it @returns {Map<string, number>} */
export function holdingOf(text) {
  const held = (text && readStored(text)?.held) || [];
  return new Map(held.map(({ alert }) => [alert.id, alert.revision]));
}

/**
 * Return the server's key and its finest resolution, which a subscription needs.
 * @param {string} url @returns {Promise<{ vapid: string, finest: number }>}
 */
export async function offerOf(url) {
  const { vapid, cells } = await asked(`${url}/push`, {});
  const finest = Array.isArray(cells) && Number.isInteger(cells[1]) ? cells[1] : 9;
  if (typeof vapid !== "string") throw new Refused("the server offers no push");
  return { vapid, finest };
}

/**
 * Register a device, or renew its lease. Throws Refused.
 * @param {string} url @param {string} id @param {string} token @param {Body} body
 * @param {ReadonlyMap<string, number>} holding  the held alerts
 * @param {string} [test]  the id of a test that this device is to be pushed (TR1)
 * @returns {Promise<{ until: number, secret?: string }>}
 */
export async function registered(url, id, token, body, holding, test) {
  const call = { method: "PUT", bearer: token, body: { ...body, ...(test && { try: test }), holding: fitting(holding) } };
  const { until, secret } = await asked(`${url}/devices/${id}`, call);
  return { until: Date.parse(until) || 0, ...(typeof secret === "string" && { secret }) };
}

/** Return as many entries as fit; an alert that is left out is pushed again, without a sound. @param {ReadonlyMap<string, number>} holding */
function fitting(holding) {
  let left = MAX_HOLDING_BYTES;
  return Object.fromEntries([...holding].filter(([id, revision]) => (left -= `"${id}":${revision},`.length) >= 0));
}

/**
 * Send the browser's new subscription. Throws Refused.
 * @param {string} url @param {string} id @param {string} secret @param {unknown} subscription
 * @returns {Promise<number>} the end of the lease
 */
export async function readdressed(url, id, secret, subscription) {
  const call = { method: "PUT", bearer: secret, body: { subscription } };
  return Date.parse((await asked(`${url}/devices/${id}/subscription`, call)).until) || 0;
}

/** Delete a device's registration. Throws Refused. @param {string} url @param {string} id @param {string} token */
export async function forgotten(url, id, token) {
  await asked(`${url}/devices/${id}`, { method: "DELETE", bearer: token });
}

/** @param {string} url @param {{ method?: string, bearer?: string, body?: unknown }} call @returns {Promise<any>} */
async function asked(url, { method = "GET", bearer, body }) {
  const said = body !== undefined && { body: JSON.stringify(body) };
  const headers = {
    ...(bearer && { Authorization: `Bearer ${bearer}` }),
    ...(said && { "Content-Type": "application/json" }),
  };
  const cut = new AbortController();
  const timer = setTimeout(() => cut.abort(), ANSWER_MS);
  try {
    const answer = await globalThis.fetch(url, { method, headers, signal: cut.signal, ...said }).catch(() => {
      throw new Refused("the server can't be reached", undefined, 0);
    });
    const found = await answer.json().catch(() => ({}));
    if (answer.ok) return found;
    const problem = String(found?.type ?? "").split("/").at(-1) || undefined;
    const wait = Number(answer.headers.get("Retry-After")) * 1_000 || 0;
    const why = `the server says ${answer.status}${problem ? `, ${problem}` : ""}`;
    throw new Refused(why, problem, isLater(answer.status) ? wait : undefined);
  } finally {
    clearTimeout(timer);
  }
}

/** @param {number} status whether a later request may get another status */
const isLater = (status) => status === 429 || status >= 500;

/**
 * Close notifications of alerts that have ended (WPC5): a sleeping worker has no timer.
 * @param {any} registration the worker's @param {number} now @param {(id: string) => boolean} [isOver] further ids to close
 */
export async function closeOver(registration, now, isOver = () => false) {
  for (const notification of await registration.getNotifications()) {
    const { geocast: id, until, over } = notification.data ?? {};
    if (id !== undefined && (over || until <= now || isOver(id))) notification.close();
  }
}
