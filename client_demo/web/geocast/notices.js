/**
 * What a push says → what is shown of it, and what is held from then on. No I/O, no clock of its own; times in ms:
 * `own` is this device's clock.
 *
 * Rule 1  Each message has exactly one notice. It rings if it is news: a live alert of a higher revision than the person
 *         was shown, by whichever way.
 * Rule 2  What is held already, or of a lower revision, is the held one once more, and silent; so is an end.
 * Rule 3  What was cut lacks its area, so it is not held (the server would never send the rest). That it was shown is
 *         remembered here, and so is a cancel of what is not held: an older push of the same alert may still come.
 * Rule 4  A push may be late. Its `now` says how late it is at least: for this push the clock is set forward by it, and
 *         never back. It is not kept: a server whose clock was wrong once would end all that comes later.
 */

/** @import { Alert } from "./geocast.js" */
/** @import { Stored } from "./holdings.js" */
/** @import { Spot } from "./geo.js" */
/** @import { WordsByTag } from "./push-words.js" */
/** @typedef {{ type: string, [field: string]: any }} Message */
/** @typedef {{ id: string, revision: number, alert: Partial<Alert>, isCancelled: boolean, reason: string }} Told */
/**
 * @typedef {object} Known  what page and worker share
 * @property {Stored | null} stored  what is held
 * @property {readonly Told[]} told  Rule 3, the latest last
 * @property {readonly Spot[] | null} spots  where the person is and what they care about; null: nobody knows
 */
/**
 * @typedef {object} Notice
 * @property {"alert" | "cancel" | "ended"} kind
 * @property {boolean} isNews  Rule 1
 * @property {string} id
 * @property {Partial<Alert>} alert  what is known of it
 * @property {string} reason  of a cancel
 * @property {boolean} isOutside  of all places that are known
 * @property {number} now  the server's clock, as well as it is known
 */

import { isInside } from "./geo.js";
import { Holdings, timeOf } from "./holdings.js";
import { filled, timeText, wordsFor } from "./push-words.js";

const MAX_TOLD = 256;
const MAX_TITLE = 160; // characters; systems show fewer
const MAX_LINE = 600;
/** Anywhere: who was sent a push is inside, as far as the server knows. @type {readonly Spot[]} */
const ANYWHERE = [{ lat: 0, lng: 0, reach: Infinity, here: false, wire: { lat: 0, lng: 0 } }];
// Controls of terminals, and those that turn the direction of what stands behind them.
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]+/g;

/**
 * Take an `alert` or a `cancel`, as it has been verified.
 * @param {Message} message @param {Known} known @param {number} own @param {number} said the push's own `now`, else NaN
 * @returns {{ notice: Notice, stored: Stored, told: readonly Told[] } | null} null for what lacks something
 */
export function woken(message, known, own, said) {
  const parts = partsOf(message);
  if (parts === null) return null;
  const ahead = Math.max(known.stored?.ahead ?? 0, Number.isNaN(said) ? -Infinity : said - own); // Rule 4
  const now = own + ahead;
  const holdings = new Holdings(false);
  if (known.stored) holdings.restore(known.stored, now, own);
  const spots = known.spots?.length ? known.spots : null;
  holdings.move(spots ?? ANYWHERE);
  const [before, told] = [holdings.entry(parts.id), known.told.find(({ id }) => id === parts.id)];
  const [isCancel, isCut] = [message.type === "cancel", message.cut === true];
  const isOff = holdings.isCancelled(parts.id) || told?.isCancelled === true;
  if (isCancel) holdings.cancel(message);
  else if (!isCut && !isOff && holdings.take(message.alert, now, own) === null) return null;
  const held = holdings.entry(parts.id);
  const shown = Math.max(before?.shown ? before.alert.revision : 0, told?.revision ?? 0);
  const { kind, alert, isNews = false } =
    isCancel || isOff
      ? ofEnd(isCancel ? held?.alert : undefined, before?.alert ?? (told?.alert.title ? told.alert : message.alert))
      : ofLive(isCut ? newest(message.alert, told?.alert, held?.alert) : (held?.alert ?? message.alert), shown, now);
  if (kind === "alert") holdings.show(parts.id);
  const isOutside = kind === "alert" && spots !== null && !!alert.area && !isInside(alert.area, spots);
  const reason = String(message.reason ?? told?.reason ?? "");
  const isToBeTold = isCancel ? kind === "cancel" : isCut && kind === "alert";
  return {
    notice: { kind, isNews, id: parts.id, alert, reason, isOutside, now },
    stored: holdings.merged(null, now, own, known.stored?.ahead ?? null),
    told: isToBeTold ? remembered(known.told, parts, alert, isCancel, reason) : known.told,
  };
}

/** @param {Message} message @returns {{ id: string, revision: number } | null} */
function partsOf({ type, alert, id, revision }) {
  const [said, number] = type === "alert" ? [alert?.id, alert?.revision] : [id, revision];
  const isEither = type === "cancel" || (type === "alert" && !Number.isNaN(timeOf(alert?.expires_at)));
  return isEither && typeof said === "string" && Number.isInteger(number) ? { id: said, revision: number } : null;
}

/**
 * Of equal ones the last, which has more.
 * @param {Partial<Alert>} alert @param {(Partial<Alert> | undefined)[]} others @returns {Partial<Alert>}
 */
const newest = (alert, ...others) =>
  others.reduce((/** @type {Partial<Alert>} */ a, b) => (b && Number(b.revision) >= Number(a.revision) ? b : a), alert);

/**
 * It is called off; but what is still held has a higher revision than the cancel (C1).
 * @param {Alert | undefined} held @param {Partial<Alert> | undefined} known
 * @returns {{ kind: Notice["kind"], alert: Partial<Alert>, isNews?: boolean }}
 */
const ofEnd = (held, known) => (held ? { kind: "alert", alert: held } : { kind: "cancel", alert: known ?? {} });

/**
 * @param {Partial<Alert>} alert @param {number} shown the revision that the person knows @param {number} now
 * @returns {{ kind: Notice["kind"], alert: Partial<Alert>, isNews?: boolean }}
 */
function ofLive(alert, shown, now) {
  if (timeOf(alert.expires_at) <= now) return { kind: "ended", alert };
  return { kind: "alert", alert, isNews: Number(alert.revision) > shown };
}

/**
 * Rule 3. Of an alert no more is kept than fits into a push.
 * @param {readonly Told[]} told @param {{ id: string, revision: number }} parts @param {Partial<Alert>} alert
 * @param {boolean} isCancelled @param {string} reason @returns {readonly Told[]}
 */
function remembered(told, { id, revision }, alert, isCancelled, reason) {
  const { title, headline, severity, status, language, issued_at, expires_at } = alert;
  const short = { id, revision: alert.revision ?? 0, title, headline, severity, status, language, issued_at, expires_at };
  const others = told.filter((each) => each.id !== id);
  const one = { id, revision: Math.max(revision, short.revision), alert: short, isCancelled, reason };
  return [...others, one].slice(-MAX_TOLD);
}

// ---- in words -------------------------------------------------------------------------------------------------------

/**
 * What a notification says (C6, C7). The words around the alert's own are in its language, else in the phone's.
 * @param {Notice} notice @param {readonly string[]} languages the phone's @param {WordsByTag} [more]
 * @returns {{ title: string, body: string, lang: string }}
 */
export function texts({ kind, alert, reason, isOutside, now }, languages, more) {
  const { tag, words } = wordsFor([alert.language, ...languages], more);
  const word = { exercise: words.exercise, test: words.test, actual: "" }[alert.status ?? "actual"] ?? alert.status;
  const title = plain(alert.title ?? "", MAX_TITLE);
  if (kind === "ended") return { title: words.ended, body: title, lang: tag };
  const said = kind === "cancel" ? filled(words.cancelled, { title: title || words.anAlert }) : title;
  const live = () => [
    plain(alert.headline ?? "", MAX_LINE),
    plain(alert.instruction ?? "", MAX_LINE),
    isOutside ? words.outside : "",
    filled(words.until, { time: timeText(timeOf(alert.expires_at), now, tag) }),
  ];
  const body = kind === "cancel" ? [plain(reason, MAX_LINE)] : live();
  return {
    title: word ? `${word}: ${said}` : said,
    body: body.filter(Boolean).join("\n"),
    lang: alert.language ?? tag,
  };
}

/** One line of text, and not too long a one. @param {unknown} text @param {number} most */
function plain(text, most) {
  const line = [...String(text).replace(CONTROLS, " ").replace(/\s+/g, " ").trim()];
  return line.length > most ? `${line.slice(0, most - 1).join("")}…` : line.join("");
}
