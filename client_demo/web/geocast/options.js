/**
 * Immediate checks of a caller's options. TypeErrors name the option and never repeat its value.
 */

/** @import { ConnectionOptions, Filter, Options, TokenSource } from "./geocast.js" */
/** @import { Spot } from "./geo.js" */
/** @import { Message } from "./link.js" */

import { machineClock } from "./clock.js";
import { MAX_PLACES } from "./geo.js";
import { signed, wireOf } from "./link.js";
import { Verifier } from "./verify.js";

const MAX_LANGUAGES = 8;

/** Return the checked options that the two ways to connect share. @param {Omit<ConnectionOptions, "url"> & { url?: string, source?: string }} options */
export function connectionOf(options) {
  const { url = "", token, languages, filter = {}, msgpack, h3, clock = machineClock() } = options;
  const isFeed = options.source === "feed"; // no connection is opened
  if (!isFeed && !/^wss?:\/\/[^/?#\s]+(\/[^?#\s]*)?$/.test(url))
    throw new TypeError("url: expected ws://host/path or wss://host/path, without a query (the token is an option)");
  if (token !== undefined && typeof token !== "string" && typeof token !== "function")
    throw new TypeError("token: expected a string or a function");
  const WebSocket = options.WebSocket ?? globalThis.WebSocket;
  if (!WebSocket && !isFeed) throw new TypeError("WebSocket: there is none here; pass the constructor");
  const verifier = options.verify && new Verifier(options.verify);
  const wire = verifier ? signed(wireOf(msgpack)) : wireOf(msgpack);
  return { url, token, filter: filterOf({ languages, ...filter }), wire, verifier, h3, clock, WebSocket };
}

/** Return the default key of the storage; verified alerts have a key of their own. */
export const defaultKey = (/** @type {{ url?: string, verify?: unknown }} */ { url, verify }) => (verify ? `geocast-verified:${url}` : `geocast:${url}`);

/**
 * Return the checked options of the feed; null without a feed.
 * @param {Options} options @returns {{ url: string, fetch: typeof fetch, everyMs: number } | null}
 */
export function feedOf({ source = "socket", feed, feedEveryMs = 30_000, verify, ...options }) {
  if (!["socket", "feed", "auto"].includes(source)) throw new TypeError('source: expected "socket", "feed" or "auto"');
  if (source === "socket" && feed === undefined) return null;
  if (verify) throw new TypeError('verify: the feed has no signatures; only the source "socket" has');
  if (typeof feed !== "string" || !/^(https?:\/\/[^/?#\s]+|)\/[^?#\s]*$/.test(feed))
    throw new TypeError("feed: expected the URL of the feed's alerts.geojson, without a query");
  if (!(feedEveryMs >= 100 && feedEveryMs <= 600_000)) throw new TypeError("feedEveryMs: expected 100 to 600,000 ms");
  const fetch = options.fetch ?? (globalThis.fetch && ((...request) => globalThis.fetch(...request)));
  if (typeof fetch !== "function") throw new TypeError("fetch: there is none here; pass the function");
  return { url: feed, fetch, everyMs: feedEveryMs };
}

/** @param {Filter} filter @returns {Filter} the fields that the protocol has */
export function filterOf({ categories, min_severity, languages }) {
  if (categories != null && !Array.isArray(categories)) throw new TypeError("categories: expected an array or null");
  if (languages != null && !Array.isArray(languages)) throw new TypeError("languages: expected an array or null");
  return {
    ...(languages !== undefined && { languages: languages && tagsOf(languages) }),
    ...(categories !== undefined && { categories }),
    ...(min_severity !== undefined && { min_severity }),
  };
}

/**
 * Return the tags that the server accepts. `navigator.languages` may have others, for which it would close the connection.
 * @param {readonly unknown[]} languages @returns {string[]}
 */
function tagsOf(languages) {
  const tags = languages.map(String).filter((tag) => /^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$/.test(tag));
  return [...new Set(tags)].slice(0, MAX_LANGUAGES);
}

/** Return whether the welcome shows that the server knows languages. @param {Message} welcome */
export const knowsLanguages = (welcome) => Array.isArray(welcome.languages);

/** Return the valid qualifications that a welcome lists. @param {Message} welcome @returns {readonly string[]} */
export const qualsOf = ({ quals }) =>
  Object.freeze(Array.isArray(quals) ? quals.filter((each) => typeof each === "string") : []);

/** Return the filter without its languages. @param {Filter} filter @returns {Filter} */
export const withoutLanguages = ({ languages: _, ...filter }) => filter;

/** @param {Record<string, unknown>} fields @returns {any} a message without the fields that have no value */
export const withValues = (fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value != null));

/**
 * Return places in the form for the server.
 * @param {readonly Spot[]} spots @param {boolean} saysHere false for a server of an older release, which gets no `here`
 */
export const wiresOf = (spots, saysHere) =>
  spots.map(({ wire }) => (saysHere ? wire : withValues({ ...wire, here: undefined })));

/**
 * @param {readonly object[]} places @param {ReadonlyMap<string, number>} holding @param {string | undefined} token
 * @param {Filter} filter @returns {Message}
 */
export function helloOf(places, holding, token, filter) {
  const held = holding.size ? Object.fromEntries(holding) : undefined;
  return withValues({ type: "hello", token, places, holding: held, ...filter });
}

/** @param {readonly Spot[]} spots @returns {readonly Spot[]} */
export function notTooMany(spots) {
  if (spots.length > MAX_PLACES) throw new TypeError(`places: at most ${MAX_PLACES}, the position included`);
  if (spots.filter(({ here }) => here).length > 1) throw new TypeError("here: one place at most, the position included");
  return spots;
}

/** @param {TokenSource | undefined} source @returns {Promise<string | undefined>} undefined: none is needed */
export async function tokenFrom(source) {
  const token = typeof source === "function" ? await source() : source;
  if (source !== undefined && typeof token !== "string") throw new TypeError("token: expected a string");
  return token;
}

/** Return the `exp` of a JWT in ms since 1970, unverified: it only says when to fetch the next token. @param {string} token */
export function tokenExpiry(token) {
  try {
    const payload = (token.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/");
    return Number(JSON.parse(atob(payload)).exp) * 1_000;
  } catch {
    return NaN;
  }
}
