// The responder's page: calls, answers, and the place to go to while the responder has a seat.
//
// Rule 1  The page shows a place only while `client.calls()` has its task, and redraws everything from this list each time.
//         So a deleted place remains nowhere: not on the page, in its title, in a storage or in a notification (RU2).
// Rule 2  Only the token outlives a reload, in this tab. It comes after the # in the page's address, a part that no server
//         gets.
// Rule 3  Exercises and tests are marked as such, and make no alarm (RU1).

import "/shared/trust.js";
import { Geocast, distanceM, watchPosition } from "/geocast/geocast.js";
import { callMap } from "/shared/callmap.js";
import { arrange, by } from "/shared/elements.js";
import { notify, showStatus } from "/shared/status.js";
import { themeButton } from "/shared/theme.js";
import { Alarm } from "/respond/alarm.js";
import { card, metres } from "/respond/card.js";

const TOKEN = "responder-token";
const TITLE = document.title;
const REASONS = {
  full: "Enough people are going. Thank you.",
  over: "This call is over. Thank you.",
  left: "You have given your place back.",
  far: "You are not near enough now.",
  "held-off": "You are on another call, or have just been on one.",
  expired: "This call is over.",
};
const WORDS = { online: "Connected", waiting: "No connection" };

const view = await (await fetch("/view.json")).json();
const client = new Geocast({ url: view.stream, token: tokenOfThisTab(), storage: null });
const map = callMap({ container: "map", styleUrl: view.style, place: view.place, dragged: (_, where) => moved(where) });
const alarm = new Alarm();
themeButton(by("theme"), () => map.repaint());

function tokenOfThisTab() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(TOKEN, given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(TOKEN) ?? undefined;
}

// ---- on duty, and where ------------------------------------------------------------------------------------------

let place = view.place ?? null; // the place of the blue mark
let followsDevice = !place;
let isOnDuty = false;
let unwatch = () => {};

by("duty").addEventListener("click", () => {
  isOnDuty = !isOnDuty;
  tellPlace();
});
by("locate").addEventListener("click", () => {
  followsDevice = true;
  tellPlace();
});

/** Use the mark's new place as the person's place. */
function moved(where) {
  place = where;
  followsDevice = false;
  tellPlace();
}

function tellPlace() {
  alarm.allow();
  unwatch();
  unwatch = () => {};
  if (!isOnDuty) {
    client.setPosition(null);
  } else if (!followsDevice) {
    client.setPosition({ ...place, here: true });
  } else {
    try {
      unwatch = watchPosition(client, { here: true });
    } catch {
      notify("This browser does not tell where you are. Drag the blue mark instead.");
    }
  }
  show();
}

/** Return the place that the server has; otherwise the mark's. */
const here = () => client.places.find((each) => each.here) ?? place;

// ---- calls and tasks ---------------------------------------------------------------------------------------------

const said = new Map(); // id -> the last report, while the call is held
let drawn = ""; // the calls to which the map was fitted

function show() {
  const calls = client.calls();
  const ids = new Set(calls.map(({ id }) => id));
  [...said.keys()].filter((id) => !ids.has(id)).forEach((id) => said.delete(id));
  arrange(by("calls"), calls.map(entry));
  draw(calls);
  const rings = calls.filter(({ task, accepted }) => !task && !accepted);
  alarm.ring(rings.some(({ call }) => call?.status === "actual"));
  document.title = rings.length ? `Call for help – ${TITLE}` : TITLE;
  showDuty();
}

function entry(held) {
  const version = [held.call?.revision, held.task?.revision, held.accepted, said.get(held.id)].join(" ");
  return [held.id, version, () => card(held, said.get(held.id), answers), away(held)];
}

function away({ task, distanceM: nearM }) {
  const from = here();
  const exact = task && from && "lat" in from ? distanceM(from, task.place) : null;
  const far = exact ?? nearM;
  return far === null ? "Your distance is not known." : `${metres(far)} from you`;
}

function draw(calls) {
  const you = here();
  const marks = you && "lat" in you ? [{ key: "you", kind: "you", label: "You", movable: true, ...you }] : [];
  for (const { id, task } of calls) {
    if (task) {
      marks.push({ key: `${id} patient`, kind: "patient", label: "Patient", lat: task.place.lat, lng: task.place.lng });
      task.aeds.forEach(({ lat, lng }, at) => {
        const isMine = at === task.fetch;
        marks.push({ key: `${id} aed ${at}`, kind: isMine ? "fetch" : "aed", label: isMine ? "Fetch this AED" : "AED", lat, lng });
      });
    }
  }
  const circles = calls.filter(({ call }) => call).map(({ call }) => ({ circle: call.near, drill: call.status !== "actual" }));
  map.circles(circles);
  map.marks(marks);
  const version = calls.map(({ id, task }) => `${id} ${Boolean(task)}`).join(" ");
  if (version !== drawn) {
    drawn = version;
    map.fit(calls.length ? [...marks, ...(calls.some(({ task }) => task) ? [] : circles.map(({ circle }) => circle))] : marks);
  }
}

const answers = {
  accept(id) {
    client.accept(id);
    by("calls").focus();
  },
  decline(id) {
    client.decline(id);
    by("calls").focus();
  },
  report(id, state) {
    client.report(id, state);
    said.set(id, [...new Set([...(said.get(id) ?? []), state])]);
    show();
  },
};

client.on("call", ({ call, distanceM: far }) => {
  client.ack(call);
  const drill = call.status === "actual" ? "" : `${call.status}, no emergency: `;
  announce(`${drill}${call.title}. ${call.headline}${far === null ? "" : ` ${metres(far)} from you.`}`);
});
client.on("task", () => announce("You have a place. Where to go is on the screen.")); // if the place were read aloud, others could hear it
client.on("standdown", ({ reason }) => notify(REASONS[reason] ?? REASONS.over));
client.on("change", show);
client.on("error", ({ message }) => notify(message));

function announce(text) {
  by("announce").textContent = text;
}

// ---- the connection ----------------------------------------------------------------------------------------------

function showDuty() {
  const { state } = client.status;
  const isHere = isOnDuty && client.places.some((each) => each.here);
  const may = client.quals.length > 0;
  by("duty").setAttribute("aria-checked", String(isOnDuty));
  const words = isHere ? `You are on duty as ${client.quals.join(", ")}. If somebody near you needs help, you are called.` : "Where are you? Your device has not said it yet.";
  const without = state === "online" && !may ? "Your token has no qualification that counts here: nobody will call you." : words;
  const rest = client.restUntil && new Date(client.restUntil).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const resting = `You have helped, so you are not called to anybody else until ${rest}.`;
  const isLost = isOnDuty && state !== "online";
  const lost = "Without a connection you can’t be called.";
  by("duty-text").textContent = !isOnDuty ? "You are not called." : isLost ? lost : may && rest ? resting : without;
  by("quiet").textContent = !isOnDuty ? "Go on duty to be called." : isLost ? lost : rest ? `You rest until ${rest}.` : "Nobody near you needs help.";
  const where = here();
  by("place").textContent = where && "lat" in where ? `${where.lat.toFixed(4)}, ${where.lng.toFixed(4)}` : "not known";
}

client.on("status", () => {
  showStatus(client.status, WORDS);
  show();
});

show();
showStatus(client.status, WORDS);
setInterval(() => {
  showStatus(client.status, WORDS);
  show(); // the person may have moved
}, 1000);
document.documentElement.dataset.ready = "true"; // for tests that wait for the page
