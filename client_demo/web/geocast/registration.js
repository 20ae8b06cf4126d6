/**
 * A device's registration with `geocast push`: what page and worker say to it, and what they keep of that (docs/reference/push-rules.md).
 * Errors name no token, no place and no endpoint.
 */

/** @import { Place } from "./geocast.js" */
/** @import { Spot } from "./geo.js" */
/**
 * @typedef {object} Registration  what is kept of it, under REGISTRATION
 * @property {boolean} isWanted  the person has enabled it
 * @property {string} id  drawn once (WPR1)
 * @property {string} url
 * @property {string} stream
 * @property {string} [secret]  for the worker: it takes a new subscription, and nothing else
 * @property {number} until  the end of the lease, in ms since 1970; 0: not registered
 * @property {string} [vapid]  to which the subscription is
 * @property {number} finest  the finest resolution of cells that the operator takes
 * @property {Body} [body]  the last one that the server took
 * @property {number} putAt  when that was
 * @property {readonly Place[]} [places]  these and the position, as the page has them: they stay here
 * @property {{ place: Place, cell: string } | null} [position]
 * @property {readonly Spot[] | null} spots  the same, to be judged by; null: it takes h3 to know where they are
 * @property {readonly { lat: number, lng: number, accuracy_m: number }[] | null} discs  of the cells of `body`, for a stream
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
export const TOLD = "told"; // what the worker remembers (notices.js, Rule 3)
const ANSWER_MS = 20_000;
const MAX_HOLDING_BYTES = 12_000; // a body has 16 KiB, and says other things, too

/** The server has refused, or nobody answers. */
export class Refused extends Error {
  /** @param {string} message @param {string} [problem] its slug @param {number} [retryMs] */
  constructor(message, problem, retryMs) {
    super(message);
    this.name = "Refused";
    this.problem = problem;
    this.retryMs = retryMs;
  }
}

/** @returns {string} an id that nobody else has */
export function drawnId() {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/={1,2}$/, "");
}

/**
 * Where what is held is kept: where `Geocast` keeps it, of the same stream.
 * @param {string} stream @param {boolean} verifies
 */
export const keyOf = (stream, verifies) =>
  defaultKey({ url: stream, ...(verifies && { verify: /** @type {any} */ (true) }) });

/** What is held, as `holding` says it. @param {string | null} text as geocast.js stores it @returns {Map<string, number>} */
export function holdingOf(text) {
  const held = (text && readStored(text)?.held) || [];
  return new Map(held.map(({ alert }) => [alert.id, alert.revision]));
}

/**
 * What has to be known before a browser is asked to subscribe.
 * @param {string} url @returns {Promise<{ vapid: string, finest: number }>}
 */
export async function offerOf(url) {
  const { vapid, cells } = await asked(`${url}/push`, {});
  const finest = Array.isArray(cells) && Number.isInteger(cells[1]) ? cells[1] : 9;
  if (typeof vapid !== "string") throw new Refused("the server offers no push");
  return { vapid, finest };
}

/**
 * Register, or renew. Throws Refused.
 * @param {string} url @param {string} id @param {string} token @param {Body} body
 * @param {ReadonlyMap<string, number>} holding  what is held
 * @returns {Promise<{ until: number, secret?: string }>}
 */
export async function registered(url, id, token, body, holding) {
  const call = { method: "PUT", bearer: token, body: { ...body, holding: fitting(holding) } };
  const { until, secret } = await asked(`${url}/devices/${id}`, call);
  return { until: Date.parse(until) || 0, ...(typeof secret === "string" && { secret }) };
}

/** So many of them as fit: what is left out is pushed again, and not heard. @param {ReadonlyMap<string, number>} holding */
function fitting(holding) {
  let left = MAX_HOLDING_BYTES;
  return Object.fromEntries([...holding].filter(([id, revision]) => (left -= `"${id}":${revision},`.length) >= 0));
}

/**
 * Say that the browser has another subscription now. Throws Refused.
 * @param {string} url @param {string} id @param {string} secret @param {unknown} subscription
 * @returns {Promise<number>} until when the lease is
 */
export async function readdressed(url, id, secret, subscription) {
  const call = { method: "PUT", bearer: secret, body: { subscription } };
  return Date.parse((await asked(`${url}/devices/${id}/subscription`, call)).until) || 0;
}

/** Have a device forgotten. Throws Refused. @param {string} url @param {string} id @param {string} token */
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

/** @param {number} status whether it may be another one after a while */
const isLater = (status) => status === 429 || status >= 500;

/**
 * Take away the notifications of what is over (WPC5): there is no timer in a worker that sleeps.
 * @param {any} registration the worker's @param {number} now @param {(id: string) => boolean} [isOver] beside those
 */
export async function closeOver(registration, now, isOver = () => false) {
  for (const notification of await registration.getNotifications()) {
    const { geocast: id, until, over } = notification.data ?? {};
    if (id !== undefined && (over || until <= now || isOver(id))) notification.close();
  }
}
