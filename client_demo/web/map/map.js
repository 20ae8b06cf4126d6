// The live map's page: a subscriber like any other (geocast.js), with more events from the demo's own process.

import "/shared/trust.js";
import { Geocast, distanceM } from "/geocast/geocast.js";
import { Push } from "/geocast/geocast-push.js";
import { themeButton } from "/shared/theme.js";
import * as h3 from "/npm/h3-js/dist/browser/h3-js.es.js";
import { card, distance, row, tick, timeLeft } from "/map/list.js";
import { Scene, shapesOf } from "/map/scene.js";
import { arrange, by } from "/shared/elements.js";
import { middle } from "/shared/shapes.js";
import { notify, showStatus } from "/shared/status.js";

const COARSE_RESOLUTION = 8;
const MOVE_EVERY_MS = 250; // while the marker is dragged; the server takes ten messages a second
const AROUND_M = 1000; // the surroundings of the own place that are always in view
const SAMPLES = 60;
const FEED_LATE_MS = 36_000; // until the feed has been read
const CHECK_MS = [1_000, 5_000];
const FEW = 5; // least number of samples for a median
const RANKS = ["extreme", "severe", "moderate", "minor"];

const view = await (await fetch("/view.json")).json();

const scene = new Scene({ container: by("map"), styleUrl: view.style, place: view.place, moved });
const push = view.push && new Push({ url: view.push, stream: view.stream, token: view.token, worker: "/worker.js", h3 });
const SECRET = "geocast-map-secret"; // set in the storage while the server is told nothing
const source = view.feed && localStorage.getItem(SECRET) ? "feed" : "socket";
const client = new Geocast({ url: view.stream, source, feed: view.feed, token: view.token, languages: navigator.languages, h3, ...(push && { storage: push.storage }) });

if (view.style) {
  scene.map.on("idle", () => by("credits").replaceChildren(...scene.credits()));
  scene.map.on("error", () => {
    notify("The streets can’t be loaded.");
    scene.withoutStreets();
  });
}
themeButton(by("theme"), () => scene.repaint());

// ---- your own place ----------------------------------------------------------------------------------------------

let place = view.place ?? null;
let since = 0; // alerts issued before this time count as walked into; by a clock that nobody sets, because the server's may be corrected
let toldAt = 0;
let later;

function moved(where, ended) {
  place = where;
  by("place").textContent = `${where.lat.toFixed(4)}, ${where.lng.toFixed(4)}`;
  clearTimeout(later);
  const wait = ended ? 0 : toldAt + MOVE_EVERY_MS - Date.now();
  if (wait > 0) {
    later = setTimeout(tellPlace, wait);
  } else {
    tellPlace();
  }
}

function tellPlace() {
  toldAt = Date.now();
  since = performance.now();
  const cell = by("coarse").checked ? h3.latLngToCell(place.lat, place.lng, COARSE_RESOLUTION) : null;
  scene.ownCell(cell);
  client.setPosition(cell ? { cell } : place);
  if (!by("secret").checked) {
    push?.setPosition(cell ? { cell } : place);
  }
  show();
}

/** Follow the feed, of which this page takes what concerns the place; or tell the server the place again. */
function keepSecret(isSecret) {
  by("secret").checked = isSecret;
  by("coarse").disabled = isSecret;
  by("secret-help").hidden = !isSecret;
  if (push) {
    showPush();
  }
}

by("secret-choice").hidden = !view.feed;
by("secret").addEventListener("change", () => {
  const isSecret = by("secret").checked;
  if (isSecret) {
    localStorage.setItem(SECRET, "yes");
    push?.disable();
  } else {
    localStorage.removeItem(SECRET);
  }
  client.setSource(isSecret ? "feed" : "socket");
  keepSecret(isSecret);
});
by("coarse").addEventListener("change", () => place && tellPlace());
by("find").addEventListener("click", () => place && scene.go(place));
by("locate").addEventListener("click", () => {
  navigator.geolocation.getCurrentPosition(
    ({ coords }) => {
      const here = { lat: coords.latitude, lng: coords.longitude };
      scene.place(here);
      scene.go(here);
      moved(here, true);
    },
    () => notify("The browser does not tell where you are."),
  );
});

const NOT_TRIED = {
  "not-connected": () => "There is no connection: no test can come.",
  "no-place": () => "Choose your place first: nothing reaches nowhere.",
  "rate-limited": ({ retryAfterS }) => `You have had a test within the last hour. The next one: in ${timeLeft(retryAfterS * 1000)}.`,
};

by("try").addEventListener("click", async () => {
  const sent = await client.try();
  if (!sent.id) {
    notify(NOT_TRIED[sent.reason]?.(sent) ?? "This server sends no tests.");
  }
});

// ---- while the page is closed ------------------------------------------------------------------------------------

const NO_SERVICE =
  "This browser can’t be told: it has no push service, or can’t reach it. One that was started without a window has none, " +
  "and the others need the internet. (The phones that sleep in the demo have one of the demo’s own.)";
const PUSH_STATES = {
  off: () => "By your browser’s push service, which sees that you are told something, and not what.",
  on: ({ until }) =>
    `On until ${new Date(until).toLocaleDateString("en", { day: "numeric", month: "long" })}, also when the page is closed. ` +
    "For this the server keeps roughly where you are, to about 1 km, encrypted.",
  denied: () => "You have turned notifications of this page off; the browser’s settings turn them on.",
  "home-screen": () => "Put this page on the home screen first: there it can tell you when it is closed.",
  unsupported: ({ reason }) => `This browser can’t be told when the page is closed: ${reason}.`,
  "not-registered": ({ reason }) => (trouble === "subscription" ? NO_SERVICE : `Not on: ${reason}. It is tried again.`),
};
let trouble = ""; // the kind of the last problem

function showPush() {
  const { state } = push.state;
  const isOn = state === "on" || state === "not-registered";
  by("push-block").hidden = !(isOn || state === "off") || by("secret").checked;
  by("push").textContent = isOn ? "Don’t tell me when the page is closed" : "Tell me when the page is closed";
  by("push-state").textContent = by("secret").checked ? "" : (PUSH_STATES[state]?.(push.state) ?? "");
}

if (push) {
  push.on("error", ({ code }) => (trouble = code));
  push.on("state", showPush);
  by("push").addEventListener("click", () => (push.state.state === "off" ? push.enable() : push.disable()));
  showPush();
}
keepSecret(source === "feed");

// ---- held alerts, and all others that are published --------------------------------------------------------------

let published = { alerts: [], current: true };
let shownElsewhere = 0;
const came = new Map(); // id and revision -> words about the arrival of the alert

const liveElsewhere = (mine, now) =>
  published.alerts.filter(({ id, expires_at }) => !mine.has(id) && Date.parse(expires_at) > now);

function show() {
  const now = client.now();
  const held = client.held();
  const mine = new Set(held.map(({ alert }) => alert.id));
  const elsewhere = liveElsewhere(mine, now).sort((a, b) => RANKS.indexOf(a.severity) - RANKS.indexOf(b.severity) || (a.issued_at < b.issued_at ? 1 : -1));
  shownElsewhere = elsewhere.length;
  scene.alerts([...held, ...elsewhere.map((alert) => ({ alert, affected: false }))], now, open);
  const fresh = arrange(by("affecting"), held.filter(({ affected }) => affected).map(entry));
  fresh.forEach((item) => item.classList.add("card-new"));
  arrange(by("left"), held.filter(({ affected }) => !affected).map(entry));
  arrange(by("elsewhere"), elsewhere.map(line));
  by("left-block").hidden = !by("left").children.length;
  by("elsewhere-block").hidden = !elsewhere.length;
  by("elsewhere-count").textContent = `(${elsewhere.length})`;
  const live = held.length + elsewhere.length;
  by("summary").textContent = `${live} live ${live === 1 ? "alert" : "alerts"}`;
  tick(document, now);
}

/** Return the distance to the nearest centre of a shape; "" if unknown. */
function away(alert) {
  const near = place ? shapesOf(alert).map((shape) => distanceM(place, middle(shape))) : [];
  return near.length ? distance(Math.min(...near)) : "";
}

function entry(item) {
  const { alert, affected } = item;
  const how = came.get(`${alert.id} ${alert.revision}`) ?? "kept from your last visit";
  const where = away(alert) && `centre ${away(alert)} away`;
  const revision = alert.revision > 1 ? `version ${alert.revision}` : "";
  const more = [how, where, revision, alert.source && `from ${alert.source}`].filter(Boolean).join(" · ");
  return [alert.id, `${alert.revision} ${affected}`, () => card(item, () => open(alert)), more];
}

function line(alert) {
  const where = away(alert) && `${away(alert)} · `;
  return [alert.id, `${alert.revision}`, () => row(alert, () => open(alert)), where];
}

function open(alert) {
  const [shape] = shapesOf(alert);
  if (shape) {
    scene.go(middle(shape));
  }
}

/** Let screen readers announce a change. */
function announce(word, { alert }) {
  const drill = alert.status === "actual" ? "" : `${alert.status}, `;
  by("announce").textContent = `${word}: ${drill}${alert.severity}, ${alert.title}. ${alert.headline}`;
}

client.on("alert", (item) => {
  arrived(item);
  announce("New alert", item);
});
client.on("update", (item) => {
  if (item.cause === "revision") {
    arrived(item);
    announce("Changed", item);
  } else if (item.affected) {
    announce("You are in the area again", item);
  } else {
    announce("You have left the area", item);
  }
});
client.on("cancel", (item) => announce(`Cancelled, ${item.reason}`, item));
client.on("expire", (item) => announce("Over", item));
client.on("change", show);

function arrived({ alert }) {
  const issued = Date.parse(alert.issued_at);
  const isLate = issued < client.now() - (performance.now() - since);
  const age = client.now() - issued;
  came.set(`${alert.id} ${alert.revision}`, isLate ? `published at ${clock(issued)}` : "");
  client.ack(alert);
  if (!isLate && !document.hidden) {
    const arrivedAt = performance.now();
    // When the second frame begins, the first frame is already on the screen.
    requestAnimationFrame(() => requestAnimationFrame(() => measured(alert, age, performance.now() - arrivedAt)));
  }
}

// ---- latency -----------------------------------------------------------------------------------------------------

const samples = []; // [told, drawn]: ms from acceptance to arrival, and from arrival to the screen

/** Show the server's part and the browser's part separately, as the latter depends on the machine. */
function measured(alert, told, drawn) {
  samples.push([Math.max(0, told), drawn]);
  samples.splice(0, samples.length - SAMPLES);
  const [[lastTold, lastDrawn]] = samples.slice(-1);
  came.set(`${alert.id} ${alert.revision}`, `reached you in ${milliseconds(lastTold + lastDrawn)}`);
  by("told").textContent = milliseconds(lastTold);
  by("drawn").textContent = milliseconds(lastDrawn);
  if (samples.length >= FEW) {
    by("median-of").textContent = `median of ${samples.length}`;
    by("told-median").textContent = milliseconds(median(0));
    by("drawn-median").textContent = milliseconds(median(1));
  }
  show();
}

const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
const milliseconds = (ms) => (ms < 1 ? "< 1 ms" : `${Math.round(ms)} ms`);

function median(column) {
  const ordered = samples.map((sample) => sample[column]).sort((a, b) => a - b);
  return ordered[Math.floor((ordered.length - 1) / 2)];
}

// ---- the connection ----------------------------------------------------------------------------------------------

const STALE = { connecting: "Live here; the rest of the map waits for the server" };

function connection() {
  const { state, lateMs } = client.status;
  const isStale = state === "online" && !published.current;
  const online = lateMs ? `Up to ${Math.ceil(lateMs / 1000)} s late` : "Live";
  showStatus(isStale ? { state: "connecting" } : client.status, isStale ? STALE : { online, waiting: "Disconnected" });
  by("secret-help").textContent =
    `The server learns your address and when you ask, and nothing else. An alert may come ${Math.ceil((lateMs ?? FEED_LATE_MS) / 1000)} s late.`;
}

client.on("status", ({ state }) => {
  if (state === "online") {
    since = performance.now();
  }
  connection();
});
client.on("error", ({ message }) => notify(message));
// Read the server's clock again after the page has loaded, because the `now` of a welcome that had to wait is out of date.
scene.map.once("idle", () => client.check());
CHECK_MS.forEach((ms) => setTimeout(() => client.check(), ms));

// ---- events of the demo's own process ----------------------------------------------------------------------------

const events = new EventSource("/events");
const parsed = (name, take) => events.addEventListener(name, (event) => take(JSON.parse(event.data)));
let people = 0;
let isFree = true; // nobody has moved the map yet

parsed("published", (news) => {
  published = news;
  if (!people) {
    look();
  }
  show();
  connection();
});
parsed("people", ({ cells }) => {
  const isFirst = !people;
  people = Object.values(cells).reduce((sum, n) => sum + n, 0);
  document.querySelectorAll(".simulated").forEach((each) => (each.hidden = false));
  scene.people(cells);
  if (isFirst) {
    look(Object.keys(cells));
  }
});
parsed("told", (fanOut) => scene.wave(fanOut.cells, fanOut.severity, fanOut.last_ms, fanOut.last_ms && fanOutProgress(fanOut)));

function fanOutProgress({ title, severity, told, last_ms: lastMs }) {
  by("fan-out").hidden = false;
  by("fan-out").dataset.severity = severity;
  by("fan-out-title").textContent = title;
  by("fan-out-time").textContent = `of ${people.toLocaleString("en")} simulated phones told`;
  by("fan-out-note").textContent =
    `The last of them ${Math.ceil(lastMs)} ms after it was published. The map shows this in slow motion.`;
  return (share, count) => {
    by("fan-out-told").textContent = (share < 1 ? count : told).toLocaleString("en");
    by("fan-out-bar").style.setProperty("--done", share.toFixed(3));
  };
}

/** Show the area with the alerts, unless somebody has moved the map. */
function look(cells = []) {
  const shapes = published.alerts.flatMap(shapesOf);
  if (!isFree || (!shapes.length && !cells.length)) {
    return;
  }
  scene.fit([...shapes, ...(place ? [{ ...place, radius_m: AROUND_M }] : [])], cells);
  if (!place && shapes.length) {
    const { lat, lng } = middle(shapes[0]);
    scene.place({ lat, lng });
    moved({ lat, lng }, true);
  }
}
scene.map.on("movestart", ({ originalEvent }) => (isFree &&= !originalEvent));

if (place) {
  moved(place, true);
}
connection();
setInterval(() => {
  const mine = new Set(client.held().map(({ alert }) => alert.id));
  if (liveElsewhere(mine, client.now()).length !== shownElsewhere) {
    show(); // time has passed, or the server's clock was corrected
  }
  tick(document, client.now());
  connection();
}, 1000);
document.documentElement.dataset.ready = "true"; // for tests that wait for the page
