/**
 * The notification for a push, and the alerts that are held afterwards. No I/O, no clock of its own; times in ms: `own` is
 * this device's clock.
 *
 * Rule 1  Each message gives exactly one notice. It makes a sound if it is news: a live alert of a higher revision than
 *         the person was shown, by a push or otherwise.
 * Rule 2  A message whose revision is held already, or is lower, shows the held alert again without a sound. The end of an
 *         alert makes no sound either.
 * Rule 3  A cut alert has no area, so it is not held (otherwise the server would never send the rest). Cut alerts that were
 *         shown are remembered here, and so are cancels of alerts that are not held: an older push of the same alert may
 *         still come.
 * Rule 4  A push may be late, and its `now` is a lower bound of the present: for this push the clock is set forward to it,
 *         and never back. The change is not kept: otherwise a server whose clock was wrong once would end all later alerts.
 */

/** @import { Alert } from "./geocast.js" */
/** @import { Stored } from "./holdings.js" */
/** @import { Spot } from "./geo.js" */
/** @import { WordsByTag } from "./push-words.js" */
/** @typedef {{ type: string, [field: string]: any }} Message */
/** @typedef {{ id: string, revision: number, alert: Partial<Alert>, isCancelled: boolean, reason: string }} Told */
/**
 * @typedef {object} Known  the state that page and worker share
 * @property {Stored | null} stored  the held alerts
 * @property {readonly Told[]} told  Rule 3, the latest last
 * @property {readonly Spot[] | null} spots  the person's places; null if unknown
 */
/**
 * @typedef {object} Notice
 * @property {"alert" | "cancel" | "ended"} kind
 * @property {boolean} isNews  Rule 1
 * @property {string} id
 * @property {Partial<Alert>} alert  its known members
 * @property {string} reason  of a cancel
 * @property {boolean} isOutside  whether all known places are outside
 * @property {number} now  the server's clock, as far as it is known
 */

import { isInside } from "./geo.js";
import { Holdings, timeOf } from "./holdings.js";
import { filled, timeText, wordsFor } from "./push-words.js";

const MAX_TOLD = 256;
const MAX_TITLE = 160; // characters; systems show fewer
const MAX_LINE = 600;
/** A place inside every area: as far as the server knows, the receiver of a push is inside. @type {readonly Spot[]} */
const ANYWHERE = [{ lat: 0, lng: 0, reach: Infinity, here: false, wire: { lat: 0, lng: 0 } }];
// Control characters, and characters that change the direction of the text after them.
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]+/g;

/**
 * Take a verified `alert` or `cancel`, and return the notice and the new state.
 * @param {Message} message @param {Known} known @param {number} own @param {number} said the push's own `now`, else NaN
 * @returns {{ notice: Notice, stored: Stored, told: readonly Told[] } | null} null for an incomplete message
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
 * Return the highest revision; among equal ones the last, which has more members.
 * @param {Partial<Alert>} alert @param {(Partial<Alert> | undefined)[]} others @returns {Partial<Alert>}
 */
const newest = (alert, ...others) =>
  others.reduce((/** @type {Partial<Alert>} */ a, b) => (b && Number(b.revision) >= Number(a.revision) ? b : a), alert);

/**
 * Return the notice of a cancel; an alert that is still held has a higher revision than the cancel (C1).
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
 * Return the remembered messages with this one (Rule 3). Only members that fit into a push are kept.
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

// ---- texts ----------------------------------------------------------------------------------------------------------

/**
 * Return the texts of a notification (C6, C7). The words around the alert's own are in its language, or else in the
 * phone's.
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

/** Return the text as one line of at most `most` characters. @param {unknown} text @param {number} most */
function plain(text, most) {
  const line = [...String(text).replace(CONTROLS, " ").replace(/\s+/g, " ").trim()];
  return line.length > most ? `${line.slice(0, most - 1).join("")}…` : line.join("");
}
