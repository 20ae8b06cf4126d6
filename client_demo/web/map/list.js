// The lists beside the map, which have all its content for people who can't see the map. Texts are set as textContent.

import { DRILLS, foreign, make, write } from "/shared/elements.js";

const SOON_MS = 600_000;

/** Return the time that is left, such as `1:05`, `12 min` or `2 h`. */
export function timeLeft(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  if (seconds < 600) {
    return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}

export function distance(metres) {
  return metres < 1000 ? `${Math.round(metres / 10) * 10} m` : `${(metres / 1000).toFixed(1)} km`;
}

export function drillBadge(alert) {
  const drill = DRILLS.get(alert.status);
  return drill ? [make("span", "badge badge-drill", drill)] : [];
}

/** Return the share of its time that an alert has left, and the time itself. */
export function remaining(alert, now) {
  const [from, until] = [Date.parse(alert.occurred_at), Date.parse(alert.expires_at)];
  return { share: Math.max(0, Math.min(1, (until - now) / (until - from))), text: timeLeft(until - now) };
}

/** Return whether the alert ends so soon that its name on the map shows the time. */
export const isSoon = (alert, now) => Date.parse(alert.expires_at) - now < SOON_MS;

/** Update the countdowns under `root`: elements with an `alert` of their own. */
export function tick(root, now) {
  for (const element of root.querySelectorAll("[data-ends]")) {
    const { share, text } = remaining(element.alert, now);
    element.style.setProperty("--left", share.toFixed(3));
    element.toggleAttribute("data-soon", isSoon(element.alert, now));
    write(element.querySelector(".time"), text);
  }
}

/** Mark an element as a countdown; it must contain a `.time`. */
export function countingDown(element, alert) {
  element.alert = alert;
  element.dataset.ends = alert.expires_at;
  element.dataset.severity = alert.severity;
  return element;
}

function time() {
  return make("span", "time number");
}

/** Return a card for a held alert; `open` shows it on the map. `arrange` fills in the last line. */
export function card({ alert, affected }, open) {
  const button = foreign("button", alert.title, "card-open");
  button.addEventListener("click", open);
  const severity = make("span", "severity small", make("span", "severity-mark"), alert.severity);
  const clock = make("span", "row small", make("span", "ring"), time(), make("span", "visually-hidden", "left"));
  const item = make(
    "li",
    affected ? "card" : "card card-left",
    make("div", "row row-apart", make("span", "row row-wrap", severity, ...drillBadge(alert)), clock),
    make("h3", "", button),
    foreign("p", alert.headline),
  );
  if (alert.description) {
    item.append(foreign("p", alert.description, "small"));
  }
  item.append(...advice(alert));
  if (alert.language) {
    item.querySelectorAll(".foreign").forEach((each) => (each.lang = alert.language));
  }
  item.append(make("p", "more muted small number"));
  return countingDown(item, alert);
}

/** Return the instruction of an official warning, and the host with more information (C9). */
function advice({ instruction, web }) {
  const host = hostOf(web);
  return [
    ...(instruction ? [foreign("p", instruction, "instruction")] : []),
    ...(host ? [make("p", "small", "More at ", link(web, host))] : []),
  ];
}

/** Return the host of a web page's address; "" for anything else. */
function hostOf(web) {
  const url = URL.canParse(web ?? "") ? new URL(web) : null;
  return /^https?:$/.test(url?.protocol) ? url.hostname : "";
}

function link(href, text) {
  const element = make("a", "", text);
  return Object.assign(element, { href, target: "_blank", rel: "noopener noreferrer" });
}

/** Return one line for an alert that this client does not hold; `arrange` fills in the distance. */
export function row(alert, open) {
  const mark = make("span", "severity", make("span", "severity-mark"), make("span", "visually-hidden", alert.severity));
  const left = make("span", "left muted number", make("span", "more"), time());
  const button = make("button", "small", mark, foreign("span", alert.title), ...drillBadge(alert), left);
  button.addEventListener("click", open);
  return countingDown(make("li", "", button), alert);
}
