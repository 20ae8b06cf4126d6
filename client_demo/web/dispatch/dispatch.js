// The dispatch page: signs in, follows the service's events, and keeps lists, one call and its map in step.
//
// Rule 1  Events never overwrite typed text: the form is filled in only when another record or call is chosen.
// Rule 2  Repeated clicks, even by two people, open only one call: the service says who was first.

import "/shared/trust.js";
import { countsOf, isOver, showState, wordOf } from "/dispatch/call.js";
import * as form from "/dispatch/form.js";
import { callMap } from "/shared/callmap.js";
import { arrange, by, DRILLS, foreign, make } from "/shared/elements.js";
import { ServiceClient } from "/shared/service-client.js";
import { themeButton } from "/shared/theme.js";

const DEFAULT_HEADLINE = "Somebody does not breathe. CPR and a defibrillator are needed.";

let all = null;
let chosen = null; // {record: key} or {call: id}
let isCorrecting = false;
let map = null;
let fitted = "";

const service = new ServiceClient({
  main: "dispatch",
  question: "Who is dispatching?",
  hint: "Open the link that the service printed for you, or enter its key.",
  listen: (on) => on("all", take),
  silence: "The service gives no answer. Try again, it is safe: one record is one call.",
});

// ---- the lists ---------------------------------------------------------------------------------------------------

const callOf = (id) => all.calls.find((call) => call.id === id);
const recordOf = (key) => all.records.find((record) => record.key === key);
const timeOf = (at) => new Date(at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
const recordedAt = ({ recorded_at: at }) => (at === null ? "no time" : timeOf(at));

function take(news) {
  const before = all;
  all = news;
  service.signedIn(all.me);
  by("feed").textContent = all.feed;
  service.warn(all.trouble);
  service.connection(all.trouble ? "offline" : "online", all.trouble ? "No answer from the node" : "Connected");
  map ??= callMap({ container: "map", styleUrl: all.style_url, dragged: (key, where) => key === "place" && movedTo(where) });
  lists();
  const running = all.calls.findLast((call) => call.state && !isOver(call));
  if (!chosen && running) {
    choose({ call: running.id });
  }
  const opened = chosen?.record && recordOf(chosen.record)?.call;
  if (opened && callOf(opened).state) {
    choose({ call: opened });
  } else {
    show();
  }
  tellNews(before);
}

/** Show each running call, the ended ones behind one line, and each record that is not a call yet. */
function lists() {
  const calls = all.calls.toReversed();
  const ended = calls.filter(isOver);
  arrange(by("calls"), calls.filter((call) => !isOver(call)).map(lineOf));
  arrange(by("ended-calls"), ended.map(lineOf));
  by("no-calls").textContent = ended.length ? "None is running." : "None yet.";
  by("ended").hidden = ended.length === 0;
  by("ended-count").textContent = `${ended.length} ended ${ended.length === 1 ? "call" : "calls"}`;
  arrange(by("records"), all.records.filter(({ call }) => !call).map((record) => {
    const obstacle = record.obstacle && "No call: no location";
    return item(record.key, { record: record.key }, record.nature, recordedAt(record), { facts: [record.address || "no address"], obstacle, drill: DRILLS.get(record.status) });
  }));
  by("no-records").textContent = all.records.length ? "Each record has become a call." : "None in this feed.";
}

/** Return the line of a call. A record that became a call is a line of its call. */
function lineOf(call) {
  const record = all.records.find(({ call: id }) => id === call.id);
  const more = `${wordOf(call)}${call.state ? `, ${call.state.seats.length} going` : ""}`;
  const { address } = record ?? call.form ?? {};
  const at = record ? recordedAt(record) : call.state && timeOf(call.state.call.occurred_at);
  const facts = [record && "From a record", isOver(call) ? "" : address, at]; // the address disappears with the call
  return item(call.id, { call: call.id }, titleOf(call), more, { facts, drill: DRILLS.get(call.state?.call.status) });
}

const titleOf = (call) => call.state?.call.title ?? all.categories[call.form?.category] ?? "Call";

/** Return an entry of a list for `arrange`: a button that opens a record or a call. `more` is the part that changes often. */
function item(key, target, title, more, { facts, obstacle, drill }) {
  const isCurrent = JSON.stringify(target) === JSON.stringify(chosen);
  const build = () => {
    const known = facts.filter(Boolean).flatMap((fact) => [" · ", foreign("span", fact)]).slice(1);
    const lines = [known.length && make("span", "small muted", ...known), make("span", "small muted more"), obstacle && make("span", "small obstacle", obstacle), drill && make("span", "badge badge-drill", drill)];
    const button = make("button", "", foreign("span", title), ...lines.filter(Boolean));
    button.setAttribute("aria-current", String(isCurrent));
    button.addEventListener("click", () => choose(target, true));
    return make("li", "", button);
  };
  return [key, JSON.stringify([title, facts, obstacle, drill, isCurrent]), build, more];
}

/** Let screen readers announce who is coming to the call that is open here. */
function tellNews(before) {
  const [now, then] = [chosen?.call && callOf(chosen.call), before?.calls.find(({ id }) => id === chosen?.call)];
  if (now?.state && JSON.stringify(now.state.seats) !== JSON.stringify(then?.state?.seats)) {
    by("announce").textContent = `${now.state.seats.length} going. ${countsOf(now.state)}.`;
  }
}

// ---- one record or call ------------------------------------------------------------------------------------------

function choose(target, byHand = false) {
  chosen = target;
  isCorrecting = false;
  by("end-form").hidden = true;
  form.clear();
  const record = target.record && recordOf(target.record);
  if (record) {
    const category = record.category || Object.keys(all.categories)[0];
    form.fill({ ...record, category, status: record.status ?? all.status, headline: DEFAULT_HEADLINE }, all.categories, true);
  }
  lists();
  show();
  if (byHand) {
    by("title").focus();
    by("title").scrollIntoView();
  }
}

function show() {
  const call = chosen?.call && callOf(chosen.call);
  const record = chosen?.record && recordOf(chosen.record);
  by("title").textContent = call ? titleOf(call) : (record?.nature ?? "Choose a record");
  by("subtitle").textContent = call ? [call.form?.address, call.by && `last by ${call.by}`].filter(Boolean).join(" · ") : (record?.address ?? "");
  by("state").hidden = !call;
  by("form").hidden = !(record && !record.obstacle && !record.call) && !(call && isCorrecting && !isOver(call));
  by("replay-note").hidden = !record || !all.retimed;
  const obstacle = record?.obstacle || (document.querySelector("#form [aria-invalid]") ? "" : record?.refused);
  if (obstacle) {
    by("problem").textContent = obstacle;
  }
  if (call) {
    showState(call);
    by("correct").setAttribute("aria-expanded", String(isCorrecting));
    by("end").setAttribute("aria-expanded", String(!by("end-form").hidden));
    by("end-form").hidden ||= isOver(call);
  }
  draw(call, record);
}

function draw(call, record) {
  const typed = by("form").hidden ? null : form.read();
  const said = typed ?? call?.form ?? null;
  const marks = said?.lat == null || said.lng == null ? [] : [{ key: "place", kind: "patient", label: "Patient", lat: said.lat, lng: said.lng, movable: Boolean(typed) }];
  const circles = call?.near ? [{ circle: call.near, drill: call.state?.call.status !== "actual", ring: call.state && !isOver(call) && call.near.radius_m + call.state.ring_m }] : [];
  map.circles(circles);
  map.marks(marks);
  const version = JSON.stringify([chosen, call?.near, call?.state?.ring_m, record?.key]);
  if (version !== fitted) {
    fitted = version;
    const places = circles.length ? circles.map(({ circle, ring }) => ({ ...circle, radius_m: ring || circle.radius_m })) : marks.map((each) => ({ ...each, radius_m: 500 }));
    map.fit(places.length ? places : all.area);
  }
}

function movedTo(where) {
  form.place(where);
  show();
}

by("form").addEventListener("input", show);
by("correct").addEventListener("click", () => {
  const call = callOf(chosen.call);
  isCorrecting = !isCorrecting;
  // The place of a call that was opened elsewhere is not known here, so it must be entered again.
  form.fill(call.form ?? { ...call.state.call, kind: "" }, all.categories, !call.form);
  show();
});
by("end").addEventListener("click", () => {
  by("end-form").hidden = !by("end-form").hidden;
  show();
  if (!by("end-form").hidden) {
    by("reason").focus();
  }
});

by("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const target = chosen;
  const said = form.read();
  const body = target.call ? { content: callOf(target.call).state.content, form: said } : { record: target.record, form: said };
  by("send").disabled = true;
  const answer = await service.post(target.call ? `/api/calls/${target.call}/correct` : "/api/open", body);
  by("send").disabled = false;
  if (JSON.stringify(target) === JSON.stringify(chosen)) {
    after(answer);
  }
});

by("end-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  after(await service.post(`/api/calls/${chosen.call}/end`, { reason: by("reason").value }));
});

function after({ body, problem }) {
  form.refuse(problem ? [{ field: "", text: problem }] : (body?.troubles ?? []));
  if (body?.call) {
    isCorrecting = false;
    by("end-form").hidden = true;
    show();
  }
}

// ---- start -------------------------------------------------------------------------------------------------------

themeButton(by("theme"), () => map?.repaint());
service.open();
document.documentElement.dataset.ready = "true"; // for tests that wait for the page
