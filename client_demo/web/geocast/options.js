/** What a caller passes in, checked at once: TypeErrors name the option and never repeat its value. */

/** @import { ConnectionOptions, Filter, TokenSource } from "./geocast.js" */
/** @import { Spot } from "./geo.js" */
/** @import { Message } from "./link.js" */

import { machineClock } from "./clock.js";
import { MAX_PLACES } from "./geo.js";
import { wireOf } from "./link.js";

/** What the two ways to connect have in common. @param {ConnectionOptions} options */
export function connectionOf(options) {
  const { url, token, filter = {}, msgpack, h3, clock = machineClock() } = options;
  if (!/^wss?:\/\/[^/?#\s]+(\/[^?#\s]*)?$/.test(url))
    throw new TypeError("url: expected ws://host/path or wss://host/path, without a query (the token is an option)");
  if (token !== undefined && typeof token !== "string" && typeof token !== "function")
    throw new TypeError("token: expected a string or a function");
  const WebSocket = options.WebSocket ?? globalThis.WebSocket;
  if (!WebSocket) throw new TypeError("WebSocket: there is none here; pass the constructor");
  return { url, token, filter: filterOf(filter), wire: wireOf(msgpack), h3, clock, WebSocket };
}

/** @param {Filter} filter @returns {Filter} what the wire knows of it */
export function filterOf({ categories, min_severity }) {
  if (categories != null && !Array.isArray(categories)) throw new TypeError("categories: expected an array or null");
  return {
    ...(categories !== undefined && { categories }),
    ...(min_severity !== undefined && { min_severity }),
  };
}

/** @param {Record<string, unknown>} fields @returns {any} a message without the fields that have no value */
export const withValues = (fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value != null));

/**
 * @param {readonly Spot[]} spots @param {ReadonlyMap<string, number>} holding @param {string | undefined} token
 * @param {Filter} filter @returns {Message}
 */
export function helloOf(spots, holding, token, filter) {
  const held = holding.size ? Object.fromEntries(holding) : undefined;
  return withValues({ type: "hello", token, places: spots.map(({ wire }) => wire), holding: held, ...filter });
}

/** @param {readonly Spot[]} spots @returns {readonly Spot[]} */
export function notTooMany(spots) {
  if (spots.length > MAX_PLACES) throw new TypeError(`places: at most ${MAX_PLACES}, the position included`);
  return spots;
}

/** @param {TokenSource | undefined} source @returns {Promise<string | undefined>} undefined: none is needed */
export async function tokenFrom(source) {
  const token = typeof source === "function" ? await source() : source;
  if (source !== undefined && typeof token !== "string") throw new TypeError("token: expected a string");
  return token;
}

/** The `exp` of a JWT in ms since 1970, unverified, just to know when to fetch the next one. @param {string} token */
export function tokenExpiry(token) {
  try {
    const payload = (token.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/");
    return Number(JSON.parse(atob(payload)).exp) * 1_000;
  } catch {
    return NaN;
  }
}
