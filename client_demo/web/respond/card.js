// One call as a card: the call, or the place to go to. Texts are set as textContent.

import { DRILLS, foreign, make } from "/shared/elements.js";

const ROLES = { cpr: "Go straight there and do CPR.", aed: "Bring the defibrillator, by way of the place below." };
const REPORTS = { aed: "the defibrillator is with you", arrived: "you are there" };
const DIRECTIONS = "https://www.openstreetmap.org/directions?to=";

export const metres = (far) => (far < 1000 ? `${Math.round(far / 10) * 10} m` : `${(far / 1000).toFixed(1)} km`);

/** Return the card of a held call. `said` has the reports that were sent, `answers` the actions of the buttons. The page fills in the distance. */
export function card({ id, call, task, accepted }, said, answers) {
  const status = (task ?? call)?.status;
  const drill = DRILLS.get(status);
  const item = make("li", ["call", drill && "call-drill", !task && !accepted && "call-rings"].filter(Boolean).join(" "));
  item.dataset.call = id;
  if (drill) {
    item.append(make("p", "", make("span", "badge badge-drill", `${drill}: no emergency`)));
  }
  if (call) {
    item.append(foreign("h3", call.title), foreign("p", call.headline, "headline"));
  } else {
    item.append(make("h3", "", "You are going"));
  }
  item.append(make("p", "more number"));
  item.append(...(task ? going(id, task, said ?? [], answers) : accepted ? waiting(id, answers) : ringing(id, answers)));
  return item;
}

function button(text, className, act) {
  const element = make("button", className, text);
  element.addEventListener("click", act);
  return element;
}

const ringing = (id, { accept, decline }) => [
  make("p", "small", "Accept only if you go now. You are told exactly where."),
  make("div", "answers", button("I can’t", "", () => decline(id)), button("I am going", "button-primary", () => accept(id))),
];

const waiting = (id, { decline }) => [
  make("p", "", "You said that you are going. Set off towards the circle; the address is on its way."),
  make("div", "answers", button("I can’t after all", "wide button-danger", () => decline(id))),
];

function going(id, task, said, { decline, report }) {
  const { place, aeds, fetch, role } = task;
  const where = make("div", "where", make("p", "small muted", place.kind === "residence" ? "A home" : "A public place"));
  where.append(foreign("p", place.address ?? `${place.lat.toFixed(5)}, ${place.lng.toFixed(5)}`, "address"));
  if (place.access) {
    where.append(foreign("p", place.access, "access"));
  }
  where.append(directions(place, "Directions"), make("p", "small muted", "Your map app, or openstreetmap.org, is then told this place."));
  const buttons = make("div", "answers");
  for (const [state, text] of [["aed", "I have the AED"], ["arrived", "I am there"]]) {
    const each = button(text, state === "arrived" ? "button-primary" : "", () => report(id, state));
    each.disabled = said.includes(state);
    buttons.append(each);
  }
  if (place.callback_phone) {
    const href = `tel:${place.callback_phone.replaceAll(/[^+0-9]/g, "")}`;
    buttons.append(Object.assign(make("a", "button wide", "Call the dispatcher: ", foreign("span", place.callback_phone)), { href }));
  }
  buttons.append(button("I can’t after all", "wide button-danger", () => decline(id)));
  const told = said.map((state) => make("p", "said", `Told: ${REPORTS[state]}.`));
  return [make("p", "role", ROLES[role] ?? ""), where, ...list(aeds, fetch), buttons, ...told];
}

/** Return links to directions: one for the phone's map app, and one for a web page, which works without such an app. */
function directions({ lat, lng }, name) {
  const link = (text, ariaLabel, href) => Object.assign(make("a", "button", text), { ariaLabel, href, target: "_blank", rel: "noopener noreferrer" });
  const at = `${lat},${lng}`;
  return make("p", "row row-wrap", link("Directions", name, `geo:${at}?q=${at}`), link("on the web", `${name}, on the web`, `${DIRECTIONS}${at}`));
}

function list(aeds, fetch) {
  const mine = aeds[fetch];
  const others = aeds.filter((each) => each !== mine);
  const rest = make("ul", "small", ...others.map((each) => make("li", "", foreign("span", `Another AED: ${named(each)}`))));
  return [...(mine ? [toFetch(mine)] : []), ...(others.length ? [rest] : [])];
}

function toFetch(aed) {
  const box = make("div", "where fetch", make("p", "small muted", "The defibrillator to bring"), foreign("p", named(aed), "address"));
  if (aed.code) {
    box.append(make("p", "", "Code ", foreign("span", aed.code, "door")));
  }
  box.append(directions(aed, "Directions to the AED"));
  return box;
}

const named = ({ where, level, indoor, open }) =>
  [where ?? "marked on the map", level && `level ${level}`, indoor === true && "indoors", open === null && "may be closed"].filter(Boolean).join(", ");
