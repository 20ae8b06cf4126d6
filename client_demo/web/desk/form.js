// One incident: its record, the form of its alert, and the alert as people nearby would see it.
// After each change the node makes a preview. An alert can be approved only if the node would accept it and its area has
// been on the screen, so that nobody decides about an area without looking at it.

import { circleMap } from "/desk/map.js";
import { ago, clock, counted, decided, greyed, isStale, span, stateWord } from "/desk/list.js";
import { by, DRILLS, drillNote, foreign, make } from "/shared/elements.js";
import { isKnown } from "/shared/shapes.js";

const TEXTS = ["headline", "description", "category", "severity"];
const NUMBERS = ["radius_m", "lat", "lng"];
const LIMITS = { headline: 140, description: 1000 };
const PREVIEW_MS = 250;
const GLANCE_MS = 600; // an area counts as seen after this time on the screen, longer than a double click
const LOOK_AGAIN_MS = 15_000; // after this time the preview is renewed, because the incident may have become too old

export class Detail {
  /** `post(path, body)` sends a request to the service, `desk()` returns its state, `now()` its clock. */
  constructor({ post, desk, now, styleUrl, others, said, signing }) {
    Object.assign(this, { _post: post, _desk: desk, _now: now, _others: others, _said: said, _signing: signing });
    this.item = null;
    this._drafts = new Map(); // item -> the typed form, with the version of the item at that time
    this._asked = 0;
    this._good = null; // the form, as JSON text, if the node would accept it; otherwise null
    this._seen = new Set(); // the shapes, as JSON text, that have been seen since the item was opened
    this._held = newHeld(); // the parts that need a person's confirmation, by the id of the element with their boxes
    this._notice = ""; // why the last decision failed, until the next action
    this._map = circleMap({ container: "map", styleUrl, changed: (shape) => this._fromMap(shape), moved: () => this._glance() });
    by("form").addEventListener("input", (event) => this._input(event.target));
    by("form").addEventListener("submit", (event) => this._submit(event));
    by("look").addEventListener("click", () => this._look());
    by("detail-body").addEventListener("scroll", () => this._glance(), { passive: true });
    document.addEventListener("visibilitychange", () => this._glance());
    // In the next frame, because a size that changes while sizes are observed is an error in WebKit.
    new ResizeObserver(() => requestAnimationFrame(() => this._resized())).observe(by("map"));
    by("dismiss").addEventListener("click", () => this._decide("dismiss", {}));
    by("reopen").addEventListener("click", () => this._decide("reopen", {}));
    by("cancel").addEventListener("click", () => this.askToCancel());
    by("countersign").addEventListener("click", () => this.countersign());
    by("keep").addEventListener("click", () => this._keep());
    by("cancel-form").addEventListener("submit", (event) => this._cancel(event));
    by("reason").addEventListener("input", () => this._release("reason")); // the confirmation was for another text
    setInterval(() => this.item && this._isOpen() && this._preview(), LOOK_AGAIN_MS);
  }

  get _isEditable() {
    return this.item.pending === null && this.item.signing === null && (this.item.state === "waiting" || this.item.state === "live") && !this.item.locked;
  }

  _isOpen() {
    return this._isEditable && !document.hidden;
  }

  repaint() {
    this._map.repaint();
  }

  // ---- opening and updating ----------------------------------------------------------------------------------

  open(item) {
    this.item = item;
    this._notice = "";
    this._good = this._area = null;
    this._seen.clear();
    this._release("text", "area");
    this._keep();
    this._recallReason();
    this._fill(this._drafts.get(item.id)?.form ?? this._base());
    by("confirmed").checked = false;
    this._troubles(item.troubles);
    this._show();
    this._map.resize();
    this._map.fit(this._inView());
    this._isToFit = true;
    this._preview();
  }

  /** Return the shapes to keep in view, with space for the published circle, which is wider than the requested one. */
  _inView() {
    const asked = this._shape() ?? this._circle();
    const shapes = (this.item.published?.area ?? []).filter(isKnown);
    return asked ? [...shapes, this._withRoom(asked)] : shapes;
  }

  _withRoom(shape) {
    return shape.type === "Polygon" ? shape : { ...shape, radius_m: shape.radius_m * 1.2 + 200 };
  }

  close() {
    this.item = null;
  }

  /** Show the open item's new state. A typed form is kept unless somebody else has decided; a refused form stays. */
  update(item) {
    const before = this.item;
    this.item = item;
    if (item.version !== before.version) {
      this._drafts.delete(item.id);
      this._release("text", "area");
      this._fill(this._base());
      this._troubles(item.troubles);
      this._good = null;
      this._keep();
      this._recallReason();
      this._preview();
    }
    this._show();
  }

  /** Return the initial form: that of the pending or refused decision, otherwise the published one. */
  _base() {
    const { draft } = this.item;
    return draft && !isReason(draft) ? draft : this._accepted();
  }

  _accepted() {
    return this.item.form ?? this.item.proposal;
  }

  /** Put the reason of a refused cancel into the form again. */
  _recallReason() {
    const { draft, state } = this.item;
    if (state === "live" && draft && isReason(draft)) {
      this._openCancel();
      by("reason").value = draft.reason;
    }
  }

  _show() {
    const { item } = this;
    const [now, live] = [this._now(), item.state === "live"];
    by("title").textContent = item.nature;
    by("when").replaceChildren(...when(item, now));
    by("history").replaceChildren(...item.history.map((decision) => make("li", "", decided(decision))));
    const reason = greyed(item, now);
    by("obstacle").hidden = !reason;
    by("obstacle").textContent = `${reason}. ${advice(item)}`;
    by("detail").classList.toggle("detail-locked", item.locked);
    by("record").replaceChildren(...record(item));
    by("told").hidden = !item.delivery;
    by("sent").textContent = counted(item.delivery, "sent");
    by("acked").textContent = counted(item.delivery, "acked");
    by("pushed-part").hidden = !item.delivery?.pushed;
    by("pushed").textContent = item.delivery?.pushed ? counted(item.delivery, "pushed") : "";
    by("ends").textContent = item.published ? clock(Date.parse(item.published.expires_at)) : "–";
    by("form-title").textContent = item.revision ? `Alert, revision ${live ? item.revision + 1 : item.revision}` : "Alert";
    by("waits").textContent = item.waits || (item.pending ? `${stateWord(item)}…` : "");
    for (const field of by("form").elements) {
      field.disabled = !this._isEditable;
    }
    by("countersign").hidden = !item.signing;
    by("dismiss").hidden = item.state !== "waiting" || item.signing !== null;
    by("reopen").hidden = item.state !== "dismissed";
    by("cancel").hidden = !live;
    by("dismiss").disabled = by("reopen").disabled = by("cancel").disabled = item.pending !== null;
    this._buttons();
    this._draw();
  }

  // ---- the form ----------------------------------------------------------------------------------------------

  _fill(form) {
    const categories = Object.entries(this._desk().categories).map(([key, { title }]) => option(key, title));
    by("category").replaceChildren(...(form.category ? [] : [option("", "Choose…")]), ...categories);
    [...TEXTS, ...NUMBERS].forEach((name) => {
      by(name).value = form[name] ?? "";
    });
    by("shape").value = form.ring ? "polygon" : "circle";
    by("corners").value = lines(form.ring ?? []);
    this._count();
  }

  /** Show the fields of the chosen shape; a polygon can be chosen if the policy allows it. */
  _shapes() {
    const takes = this._desk().categories[by("category").value]?.polygons === true;
    const isPolygon = this._ring() !== null;
    by("shape-row").hidden = !takes && !isPolygon;
    by("corners-row").hidden = !isPolygon;
    document.querySelectorAll(".of-circle").forEach((row) => {
      row.hidden = isPolygon;
    });
  }

  /** Return the corners of a polygon, [lng, lat] each; null for a circle. Unreadable lines are skipped. */
  _ring() {
    return by("shape").value === "polygon" ? cornersIn(by("corners").value) : null;
  }

  /** Return the form for the service; invalid numbers become null. */
  _form() {
    const texts = TEXTS.map((name) => [name, by(name).value]);
    const numbers = NUMBERS.map((name) => [name, by(name).value === "" ? null : by(name).valueAsNumber]);
    return { ...Object.fromEntries([...texts, ...numbers]), ring: this._ring(), ...this._saidSo() };
  }

  /** Return the reviewer's confirmations of this form, for the desk and for the node. */
  _saidSo() {
    const [areaKm2] = ticked("held-area");
    return { confirmed: by("confirmed").checked, confirm: { area_km2: areaKm2 ? Number(areaKm2) : null, text: ticked("held-text") } };
  }

  /** Return the requested shape once it is complete. */
  _shape() {
    const ring = this._ring();
    if (ring) {
      return ring.length > 2 ? { type: "Polygon", coordinates: [[...ring, ring[0]]] } : null;
    }
    return this._circle();
  }

  _circle() {
    const { lat, lng, radius_m: radiusM } = this._form();
    return lat === null || lng === null || !(radiusM > 0) || Math.abs(lat) > 90 ? null : { lat, lng, radius_m: radiusM };
  }

  _input(field) {
    if (field.id === "category") {
      this._reword();
    }
    if (field.id === "headline" || field.id === "description") {
      by("confirmed").checked = false; // the confirmation was for another text
      this._release("text");
    } else if (!field.dataset.kind && field.id !== "confirmed" && field.id !== "severity") {
      this._release("area", ...(field.id === "category" ? ["text"] : []));
    }
    this._changed();
    this._isToFit = NUMBERS.includes(field.id) || field.id === "corners";
    this._fit([]);
  }

  /** Propose the words of the chosen category, unless the reviewer has written their own. */
  _reword() {
    const { wordings } = this._desk();
    const wording = wordings[by("category").value];
    const proposed = ["", ...Object.values(wordings).map(({ headline }) => headline)];
    if (wording && !this.item.revision && proposed.includes(by("headline").value)) {
      by("headline").value = wording.headline;
      by("severity").value = wording.severity;
      by("radius_m").value = wording.radius_m;
    }
  }

  _fromMap({ lat, lng, radius_m: radiusM, ring }) {
    this._release("area");
    if (ring) {
      by("corners").value = lines(ring);
    } else {
      by("lat").value = lat;
      by("lng").value = lng;
      by("radius_m").value = radiusM;
    }
    this._changed();
  }

  _changed() {
    this._notice = "";
    this._drafts.set(this.item.id, { form: this._form() });
    this._count();
    this._draw();
    this._buttons();
    this._glance();
    clearTimeout(this._soon);
    this._soon = setTimeout(() => this._preview(), PREVIEW_MS);
  }

  _count() {
    for (const [name, limit] of Object.entries(LIMITS)) {
      const length = [...by(name).value].length;
      by(`${name}-count`).textContent = `${length} of ${limit}`;
      by(`${name}-count`).classList.toggle("count-over", length > limit);
    }
  }

  // ---- preview -----------------------------------------------------------------------------------------------

  async _preview() {
    clearTimeout(this._soon);
    const { item } = this;
    if (!this._isEditable) {
      const { area, expires_at } = (item.signing && JSON.parse(item.signing.form)) || item.published || {};
      this._previewed({ area: area ?? item.published?.area, expires_at });
      return;
    }
    const [form, turn] = [this._form(), (this._asked += 1)];
    const { body, problem } = await this._post(`/api/items/${item.id}/preview`, { form });
    if (turn !== this._asked || this.item?.id !== item.id) {
      return;
    }
    this._troubles(problem ? [{ field: "", text: problem }] : body.troubles, form);
    if (problem) {
      return;
    }
    this._good = body.troubles.length ? null : JSON.stringify(form);
    this._previewed(body);
    this._buttons();
  }

  _previewed({ area, expires_at: expiresAt }) {
    const form = this._form();
    this._area = area;
    const shape = (area ?? []).find(isKnown);
    const resolution = this._desk().categories[form.category]?.location_resolution;
    this._map.published(area, resolution);
    this._fit(this._shown());
    this._isToFit = false;
    this._glance();
    by("preview").dataset.severity = form.severity;
    by("preview").replaceChildren(...card(form, this._desk()));
    by("preview-note").textContent = shape ? `${asPublished(shape)} It ends at ${clock(Date.parse(expiresAt))}.` : "";
  }

  // ---- whether the area has been seen ------------------------------------------------------------------------

  /** Return the shapes that would be published; until the node's preview comes, the requested ones. */
  _shown() {
    const shapes = (this._area ?? []).filter(isKnown);
    const asked = this._shape();
    return shapes.length || !asked ? shapes : [asked];
  }

  get _isSeen() {
    return this._seen.has(JSON.stringify(this._shown()));
  }

  /** Count the shapes as seen if they are on the screen now and still are a moment later. */
  _glance() {
    clearTimeout(this._glancing);
    if (!this.item || !this._isEditable || this._isSeen) {
      return;
    }
    const shapes = this._shown();
    if (!document.hidden && this._map.isSeen(shapes)) {
      this._glancing = setTimeout(() => {
        if (!document.hidden && this.item && this._map.isSeen(shapes)) {
          this._seen.add(JSON.stringify(shapes));
          this._buttons();
        }
      }, GLANCE_MS);
    }
    this._buttons();
  }

  /** Scroll to the map, and bring the shapes into its view. */
  _look() {
    by("map").scrollIntoView({ block: "center" });
    this._map.fit(this._shown());
    by("title").focus({ preventScroll: true }); // the pressed button disappears
    this._glance();
  }

  _resized() {
    this._map.resize();
    this._isToFit = true;
    this._fit(this._shown());
    this._glance();
  }

  /** Let the map follow a circle that typed numbers have moved out of view, until the node has answered. */
  _fit(published) {
    const asked = this._shape();
    const shapes = [...published, ...(asked ? [asked] : [])];
    if (this._isToFit && this.item && !this._map.holds(shapes)) {
      this._map.fit([...published, ...(asked ? [this._withRoom(asked)] : [])]);
    }
  }

  /** Show troubles beside their fields. `texts` are the texts that the troubles concern. */
  _troubles(troubles, texts = this._form()) {
    const said = (name) => troubles.filter(({ field }) => field === name).map(({ text }) => text);
    for (const name of ["headline", "description", "category", "severity", "place", "radius_m", "corners", "reason"]) {
      const sentences = [...new Set(said(name))].map((text) => foreign("span", text));
      by(`${name}-trouble`).replaceChildren(...sentences, ...marked(texts[name], troubles.filter(({ field }) => field === name)));
      const fields = name === "place" ? [by("lat"), by("lng")] : [by(name)];
      fields.forEach((field) => field.setAttribute("aria-invalid", String(said(name).length > 0)));
    }
    const whole = [this._notice, ...said("")].filter((text, n, all) => text && all.indexOf(text) === n);
    by("whole-trouble").replaceChildren(...whole.map((text) => foreign("p", text)));
    this._hold(troubles, texts);
    const reads = (name) => said(name).some((text) => /^“.*reads like/s.test(text));
    by("confirm-row").hidden = !(reads("headline") || reads("description") || by("confirmed").checked);
    by("reason-confirm-row").hidden = !(reads("reason") || by("reason-confirmed").checked);
  }

  // ---- confirmations -----------------------------------------------------------------------------------------

  /** Show a box for each kind that may be confirmed; ticked boxes stay ticked. */
  _hold(troubles, texts) {
    for (const { field, held } of troubles) {
      if (held && BOXES[held.kind]) {
        const where = held.kind === "area" ? "area" : field === "reason" ? "reason" : "text";
        const what = held.kind === "area" ? String(held.area_km2) : cut(texts[field], held);
        this._held[where].set(held.kind, (this._held[where].get(held.kind) ?? new Set()).add(what));
      }
    }
    for (const [where, kinds] of Object.entries(this._held)) {
      const [box, on] = [by(`held-${where}`), ticked(`held-${where}`)];
      box.replaceChildren(...[...kinds].map(([kind, found]) => choice(kind, [...found], on)));
    }
  }

  /** Delete confirmations, which were for another text or area. */
  _release(...places) {
    for (const where of places) {
      this._held[where].clear();
      by(`held-${where}`).replaceChildren();
    }
  }

  _draw() {
    this._map.repaint(by("severity").value || "moderate");
    this._shapes();
    const [editable, radiusM] = [this._isEditable, Number(by("radius_m").value) || 800];
    this._map.show(this.item.locked ? null : this._circle(), { editable, radiusM, ring: this.item.locked ? null : this._ring() });
    this._map.others(this._others().filter(({ id }) => id !== this.item.id).flatMap(({ published }) => published.area.filter(isKnown)));
  }

  // ---- decisions ---------------------------------------------------------------------------------------------

  _buttons() {
    const { item } = this;
    const live = item.state === "live";
    const isNew = JSON.stringify(this._form()) !== JSON.stringify({ ...sorted(this._accepted()), ...this._saidSo() });
    const what = DRILLS.get(this._desk().status);
    by("approve").hidden = item.locked || item.signing !== null || !(item.state === "waiting" || live);
    by("approve").textContent = this._desk().signed ? "Read and sign…" : live ? `Publish revision ${item.revision + 1}` : what ? `Approve as ${what.toLowerCase()}` : "Approve and publish";
    const isReady = this._isEditable && this._good === JSON.stringify(this._form()) && (!live || isNew);
    by("approve").disabled = !isReady || !this._isSeen;
    const isHidden = isReady && !this._isSeen && !this._map.isSeen(this._shown());
    by("look").hidden = !isHidden;
    by("unseen").textContent = isHidden ? "You have not seen the area that would be published." : "";
  }

  approve() {
    by("form").requestSubmit();
  }

  toggleAside() {
    const button = by(this.item.state === "dismissed" ? "reopen" : "dismiss");
    return button.hidden || button.disabled || button.click();
  }

  _submit(event) {
    event.preventDefault();
    if (!by("approve").disabled) {
      this._decide("approve", { form: this._form() });
    } else if (!by("look").hidden) {
      this._look();
    } else {
      by("waits").textContent = this._obstacle();
      by("form").querySelector('[aria-invalid="true"]')?.focus();
    }
  }

  /** Return why the alert can't be approved now, for somebody who has pressed Ctrl+Enter. */
  _obstacle() {
    if (!this._isEditable) return this.item.waits || "This can't be approved.";
    const troubles = [...by("form").querySelectorAll(".refusal"), by("whole-trouble")];
    const trouble = troubles.map(({ textContent }) => textContent.trim()).find(Boolean);
    if (trouble) return `Not approved: ${trouble}`;
    const isLive = this.item.state === "live" && this._good === JSON.stringify(this._form());
    return isLive ? "Nothing has changed since the last revision." : "Not approved yet: the node is checking the form.";
  }

  askToCancel() {
    if (!by("cancel").hidden && !by("cancel").disabled) {
      this._openCancel();
      by("reason").focus();
    }
  }

  _openCancel() {
    by("cancel-form").hidden = false;
    by("cancel").setAttribute("aria-expanded", "true");
  }

  _keep() {
    by("cancel-form").hidden = true;
    by("cancel-form").reset();
    this._release("reason");
    by("cancel").setAttribute("aria-expanded", "false");
  }

  _cancel(event) {
    event.preventDefault();
    this._decide("cancel", { reason: by("reason").value, confirmed: by("reason-confirmed").checked, confirm: { text: ticked("held-reason") } });
  }

  /** Send a decision, after signing it with the reviewer's key if it must be signed. */
  async _carryOut(item, what, body) {
    const isSigned = this._desk().signed && (what === "approve" || what === "cancel");
    const asked = isSigned ? await this._post(`/api/items/${item.id}/ask`, { ...body, what }) : null;
    if (asked && !(asked.status === 200 && asked.body.signing === null)) {
      by("waits").textContent = "";
      return asked.status === 200 ? this._signing.ask(item, asked.body.signing) : asked;
    }
    return this._post(`/api/items/${item.id}/${what}`, body);
  }

  /** Sign a text that somebody else has signed already. */
  async countersign() {
    const { item } = this;
    const { body, problem } = await this._signing.ask(item, item.signing);
    this._notice = problem || whole(body);
    if (body?.item) {
      this._said(body.item);
    }
    if (this.item?.id === item.id) {
      this._show();
      this._troubles(body?.troubles ?? []);
    }
  }

  /** Decide on the shown version. A second press does nothing while the first request is under way. */
  async _decide(what, body) {
    const { item } = this;
    const turn = `${item.id} ${item.version}`;
    if (this._deciding === turn) {
      return;
    }
    this._deciding = turn;
    this._notice = "";
    by("waits").textContent = "Sending…";
    by("title").focus(); // the form will be disabled, which would lose the focus
    const { status, body: answer, problem } = await this._carryOut(item, what, { ...body, version: item.version });
    if (this._deciding === turn) {
      this._deciding = null;
    }
    const isOpen = this.item?.id === item.id;
    if (isOpen) {
      // A lost answer does not matter if an event has already reported the result.
      const isTold = status === 0 && this.item.version > item.version;
      this._notice = isTold ? "" : problem || (this._desk().signed ? whole(answer) : "");
    }
    if (answer?.item) {
      this._said(answer.item);
    }
    if (isOpen) {
      this._show();
      this._troubles(status === 422 ? answer.troubles : [], { ...this._form(), reason: by("reason").value });
    }
  }
}

// The kinds that a person may confirm to the node (protocol, P23 and P24); other kinds can't be confirmed.
const BOXES = {
  area: ([km2]) => `Everybody in ${Math.ceil(Number(km2)).toLocaleString("en")} km² is to be told`,
  address: (found) => `${quoted(found)}: may be told, or is no street address`,
  units: (found) => `${quoted(found)}: may be told, or says nothing of units`,
  phone: (found) => `${quoted(found)}: may be told, or is no telephone number`,
  contact: (found) => `${quoted(found)}: may be told, or is no e-mail address, link or handle`,
  name: (found) => `${quoted(found)}: may be told, or is nobody's name`,
};
const quoted = (found) => found.map((words) => `“${words}”`).join(", ");
const newHeld = () => ({ text: new Map(), area: new Map(), reason: new Map() });
const cut = (text, { start, end }) => [...text].slice(start, end).join(""); // the node counts code points

/** Return the first reason against the form as a whole, which no preview would repeat after a signature. */
const whole = (answer) => answer?.troubles?.find(({ field }) => field === "")?.text ?? "";

/** Return the values of the ticked boxes: kinds, or the size of an area. */
const ticked = (id) => [...by(id).querySelectorAll("input:checked")].map(({ value }) => value);

function choice(kind, found, on) {
  const box = make("input");
  Object.assign(box, { type: "checkbox", value: kind === "area" ? found.at(-1) : kind });
  box.dataset.kind = kind;
  box.checked = on.includes(box.value);
  return make("label", "row choice", box, " ", foreign("span", BOXES[kind](kind === "area" ? found.slice(-1) : found)));
}

/** Return the text with the found parts marked; an empty list if nothing was found. */
function marked(text, troubles) {
  const spans = troubles.map(({ held }) => held).filter((held) => held?.end);
  if (!spans.length) {
    return [];
  }
  const [characters, parts] = [[...text], []];
  let end = 0;
  for (const span of spans) {
    parts.push(characters.slice(end, span.start).join(""), make("mark", "", characters.slice(span.start, span.end).join("")));
    end = span.end;
  }
  const line = make("span", "marked", ...parts, characters.slice(end).join(""));
  line.dir = "auto";
  return [line];
}

const isReason = (draft) => "reason" in draft; // a cancel's draft; otherwise it is a form
const metres = (m) => (m < 1000 ? `${m} m` : `${(m / 1000).toFixed(m % 1000 ? 2 : 0)} km`);
const sorted = (form) => ({
  ...Object.fromEntries([...TEXTS, ...NUMBERS].map((name) => [name, form[name] ?? (NUMBERS.includes(name) ? null : "")])),
  ring: form.ring ?? null,
});

/** Return corners as text: latitude and longitude, one line each. */
const lines = (ring) => ring.map(([lng, lat]) => `${lat}, ${lng}`).join("\n");

/** Return the corners in such a text, without malformed lines and without a last corner that repeats the first. */
function cornersIn(text) {
  const numbers = text.split("\n").map((line) => /^\s*(-?\d+(?:\.\d+)?)[\s,;]+(-?\d+(?:\.\d+)?)\s*$/.exec(line));
  const ring = numbers.filter(Boolean).map(([, lat, lng]) => [Number(lng), Number(lat)]);
  const isClosed = ring.length > 3 && ring[0].every((number, axis) => number === ring.at(-1)[axis]);
  return isClosed ? ring.slice(0, -1) : ring;
}

/** Return a sentence about the published alert. */
function asPublished(shape) {
  if (shape.type === "circle") {
    return `Published: a circle of ${metres(shape.radius_m)} round the middle of an H3 cell, so that it tells no address.`;
  }
  const beyond = shape.buffer_m ? `, and ${metres(shape.buffer_m)} around it` : "";
  return `Published: this polygon of ${shape.coordinates[0].length - 1} corners as it stands${beyond}. It hides no address.`;
}

function option(value, text) {
  const element = make("option", "", text);
  element.value = value;
  return element;
}

function when(item, now) {
  const happened = item.occurred_at === null ? "Time unknown" : `${clock(item.occurred_at)}, ${ago(item.occurred_at, now)}`;
  const recorded = item.recorded_at === null ? "" : ` (recorded ${new Date(item.recorded_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })})`;
  const word = stateWord(item);
  const left = item.state === "waiting" && item.category && !isStale(item, now) ? ` · can be published for another ${span(item.stale_at - now)}` : "";
  return [
    ...(word ? [make("span", `badge ${item.state === "live" ? "badge-live" : ""}`, word), " "] : []),
    foreign("span", [happened + recorded, item.district].filter(Boolean).join(" · ") + left),
  ];
}

function advice(item) {
  if (item.locked) {
    return "It can’t be approved under another category either.";
  }
  return item.obstacle ? "Choose a category if it concerns the community all the same." : "";
}

/** Return the rows of the feed with private parts struck out. They are shown only here, and never published. */
function record(item) {
  const rows = item.rows.map((cells) =>
    make("p", "record-row foreign", ...cells.flatMap(([column, parts]) => [
      make("span", "record-cell", make("span", "record-column", column), " ", ...parts.map(part)),
      " ",
    ])),
  );
  const [first, ...others] = rows;
  const hidden = item.row_count - item.rows.length;
  if (!others.length) {
    return [first];
  }
  const more = make("details", "", make("summary", "small", `${item.row_count - 1} more of the same incident`), ...others);
  if (hidden) {
    more.append(make("p", "small muted", `and ${hidden} that are not shown`));
  }
  return [first, more];
}

function part([text, why]) {
  if (why === null) {
    return foreign("span", text);
  }
  const struck = foreign("del", text);
  struck.title = `${why}: not published`;
  struck.prepend(make("span", "visually-hidden", `[${why}, struck:] `));
  return struck;
}

/** Return the alert as a card, as on a subscriber's screen. */
function card(form, desk) {
  const title = desk.categories[form.category]?.title ?? "No category yet";
  const severity = form.severity ? form.severity[0].toUpperCase() + form.severity.slice(1) : "";
  return [
    make(
      "p",
      "row row-wrap",
      make("span", "severity", make("span", "severity-mark"), severity),
      foreign("span", title, "muted small"),
      ...(DRILLS.has(desk.status) ? [make("span", "badge badge-drill", DRILLS.get(desk.status))] : []),
    ),
    foreign("p", form.headline || "No headline yet", "preview-headline"),
    ...(form.description ? [foreign("p", form.description, "small")] : []),
    ...(DRILLS.has(desk.status) ? [make("p", "small muted", drillNote(desk.status, "Subscribers"))] : []),
  ];
}
