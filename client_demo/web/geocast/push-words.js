/**
 * The words of a notification around those of its alert.
 */

/** @import { Words } from "./geocast-push-sw.js" */

/** @type {Readonly<Record<string, Words>>} */
const WORDS = {
  en: {
    exercise: "EXERCISE",
    test: "TEST",
    until: "until {time}",
    cancelled: "Called off: {title}",
    anAlert: "an alert near you",
    ended: "An alert here has ended",
    outside: "Near you, but not where this phone was last.",
    unknown: "There is an alert near you.",
    open: "Open to see it.",
    renew: "Open to go on being alerted",
    renewBody: "Alerts reach this phone until {date}.",
    renewed: "Alerts go on reaching this phone",
  },
  es: {
    exercise: "SIMULACRO",
    test: "PRUEBA",
    until: "hasta las {time}",
    cancelled: "Cancelado: {title}",
    anAlert: "una alerta cerca de usted",
    ended: "Una alerta aquí ha terminado",
    outside: "Cerca, pero no donde este teléfono estuvo por última vez.",
    unknown: "Hay una alerta cerca de usted.",
    open: "Abra la aplicación para verla.",
    renew: "Abra la aplicación para seguir recibiendo alertas",
    renewBody: "Las alertas llegan a este teléfono hasta el {date}.",
    renewed: "Las alertas siguen llegando a este teléfono",
  },
};

/**
 * Return the words of the first of these languages that has any, and the tag for formatting times. A tag such as "es-MX"
 * also finds "es".
 * @param {readonly (string | undefined)[]} tags the preferred first @param {WordsByTag} more
 * @returns {{ tag: string, words: Words }}
 */
export function wordsFor(tags, more = {}) {
  const all = { ...WORDS, ...more };
  for (const tag of tags.filter((each) => each !== undefined)) {
    const words = all[tag] ?? all[tag.split("-")[0]?.toLowerCase() ?? ""];
    if (words) return { tag, words };
  }
  return { tag: "en", words: /** @type {Words} */ (all.en) };
}
/** @typedef {Readonly<Record<string, Words>>} WordsByTag */

/** @param {string} text @param {Record<string, string>} values the values of `{name}` */
export const filled = (text, values) =>
  Object.entries(values).reduce((sofar, [name, value]) => sofar.replace(`{${name}}`, () => value), text);

/**
 * Format a time for a person: "14:45", with the day if it is not today.
 * @param {number} at @param {number} now @param {string} tag
 */
export function timeText(at, now, tag) {
  const isToday = new Date(at).toDateString() === new Date(now).toDateString();
  const day = isToday ? {} : /** @type {const} */ ({ day: "numeric", month: "short" });
  return formatted(at, tag, { ...day, hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

/** @param {number} at @param {string} tag */
export const dateText = (at, tag) => formatted(at, tag, { day: "numeric", month: "long" });

/** @param {number} at @param {string} tag @param {Intl.DateTimeFormatOptions} options */
function formatted(at, tag, options) {
  try {
    return new Intl.DateTimeFormat(tag, options).format(at);
  } catch {
    return new Intl.DateTimeFormat("en", options).format(at); // `tag` is no language tag
  }
}
