// The incidents on the desk, in four lists. Texts of the feed are set as textContent.

import { foreign, make } from "/shared/elements.js";

const BY_TIME = "Latest decision first.";

export const TABS = [
  { id: "decide", label: "To decide", order: "Newest first; by severity within 5 minutes.", empty: "Nothing to decide. New incidents appear here by themselves." },
  { id: "live", label: "Live", order: BY_TIME, empty: "No alert is live." },
  { id: "other", label: "Kept back", order: "Newest first.", empty: "Nothing has been kept back." },
  { id: "done", label: "Done", order: BY_TIME, empty: "Nothing has been dismissed or has ended yet." },
];

const BAND_MS = 300_000;
const SEVERITIES = ["extreme", "severe", "moderate", "minor"];
const PAST = { publish: "approved", revise: "revised", cancel: "cancelled", dismiss: "dismissed", reopen: "put back", sign: "signed", withdraw: "taken back" };
const SENDING = { publish: "Being published", revise: "Being revised", cancel: "Being cancelled" };
const ENDED = { dismissed: "Dismissed", cancelled: "Cancelled", expired: "Expired" };

/** Return the list to which an item belongs. */
export function tabOf(item) {
  if (item.state === "live") {
    return "live";
  }
  if (item.state !== "waiting") {
    return "done";
  }
  return item.category || item.pending || item.signing ? "decide" : "other";
}

export const isStale = (item, now) => item.state === "waiting" && (item.stale_at === null || now > item.stale_at);

/** Return the reason why a waiting item is greyed, as a sentence; "" if it is not greyed. */
export function greyed(item, now) {
  if (item.state !== "waiting") {
    return "";
  }
  if (item.obstacle) {
    return `${item.locked ? "Not for an alert" : "Kept back"} – ${item.obstacle}`;
  }
  if (!isStale(item, now)) {
    return "";
  }
  const reason = item.stale_at === null ? "the record has no time" : `happened more than ${span(item.stale_at - item.occurred_at)} ago`;
  return `Can’t be published – ${reason}`;
}

/** Return a length of time such as `12 min`, `3 h` or `2 days`. */
export function span(ms) {
  const minutes = Math.max(0, Math.floor(ms / 60_000));
  if (minutes < 120) {
    return minutes === 60 ? "an hour" : `${Math.max(1, minutes)} min`;
  }
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} days`;
}

export function ago(ms, now) {
  if (ms === null) {
    return "time unknown";
  }
  return now - ms < 60_000 ? "just now" : `${span(now - ms)} ago`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

export function decided({ what, by, at }) {
  return `${PAST[what]} by ${by} at ${clock(at)}`;
}

/** Return an item's state in a word or two; "" while it waits. */
export function stateWord(item) {
  return SENDING[item.pending] ?? (item.signing ? "To sign" : null) ?? ENDED[item.state] ?? (item.state === "live" ? "Live" : "");
}

/** Return the node's count of deliveries: exact, or rounded down without alerts:audit. */
export function counted(delivery, name) {
  if (!delivery) return "–";
  const number = delivery[name].toLocaleString();
  if (!delivery.rounded) return number;
  return delivery[name] ? `${number} or more` : "fewer than 20";
}

/** Return the counts as one line, with pushes if there were any. */
export function told(delivery) {
  if (!delivery) return "";
  const pushed = delivery.pushed ? `, pushed ${counted(delivery, "pushed")}` : "";
  return `sent ${counted(delivery, "sent")}, shown ${counted(delivery, "acked")}${pushed}`;
}

/**
 * Return the items of a list, sorted: items that can still be published before those that are too old, then the latest
 * first. Among waiting items of the same five minutes by the clock, the most severe comes first.
 */
export function listed(items, tab, now) {
  return [...items]
    .filter((item) => tabOf(item) === tab)
    .sort(
      (a, b) =>
        isStale(a, now) - isStale(b, now) ||
        band(b) - band(a) ||
        rank(a) - rank(b) ||
        latest(b) - latest(a) ||
        (a.id < b.id ? -1 : 1),
    );
}

const latest = (item) => (item.state === "waiting" ? item.occurred_at : item.history.at(-1)?.at) ?? 0;
const band = (item) => (item.state === "waiting" ? Math.floor(latest(item) / BAND_MS) : latest(item));
/** Return the rank of an item's severity; only items with a proposal have a severity. */
const rank = (item) => (item.category ? SEVERITIES.indexOf(severityOf(item)) : SEVERITIES.length);
const severityOf = (item) => (item.form ?? item.proposal).severity;

/** Return whether a title adds to a name: "Burglary" adds nothing to "Burglary, residence". */
function saysMore(title, name) {
  const [said, known] = [title, name].map((text) => new Set(text.toLowerCase().split(/[\s,;:/()-]/).filter(Boolean)));
  const isIn = (a, b) => [...a].every((word) => b.has(word));
  return !isIn(said, known) && !isIn(known, said);
}

export class List {
  /** `open(id)` is called when an incident is pressed. */
  constructor(element, open) {
    this._element = element;
    this._open = open;
    this._rows = new Map();
  }

  /** Show these items in this order, without moving the focus. */
  show(items, now, openId, titleOf) {
    const gone = new Set(this._rows.keys());
    const focused = document.activeElement?.closest?.("[data-item]")?.dataset.item;
    items.forEach((item, index) => {
      gone.delete(item.id);
      const row = this._row(item, now, titleOf);
      row.firstChild.setAttribute("aria-current", String(item.id === openId));
      if (this._element.children[index] !== row) {
        this._element.insertBefore(row, this._element.children[index] ?? null);
      }
    });
    gone.forEach((id) => {
      this._rows.get(id).element.remove();
      this._rows.delete(id);
    });
    if (focused && document.activeElement === document.body) {
      this.focus(focused);
    }
  }

  _row(item, now, titleOf) {
    const reason = greyed(item, now);
    const seen = JSON.stringify([item.version, item.row_count, reason, ago(item.occurred_at, now), item.delivery, item.waits, titleOf(item)]);
    const known = this._rows.get(item.id);
    if (known?.seen === seen) {
      return known.element;
    }
    const element = known?.element ?? this._new(item);
    const button = element.firstChild;
    button.classList.toggle("item-grey", Boolean(reason));
    button.dataset.severity = severityOf(item);
    button.replaceChildren(...content(item, now, reason, titleOf(item)));
    this._rows.set(item.id, { element, seen });
    return element;
  }

  _new(item) {
    const button = make("button", "item");
    button.dataset.item = item.id;
    button.addEventListener("click", () => this._open(item.id));
    return make("li", "", button);
  }

  focus(id) {
    this._rows.get(id)?.element.firstChild.focus();
  }

  /** Return the id `step` places after the focused one, or after `from`. */
  next(step, from) {
    const ids = [...this._element.children].map((row) => row.firstChild.dataset.item);
    const at = ids.indexOf(document.activeElement?.dataset?.item ?? from);
    return ids[Math.max(0, Math.min(ids.length - 1, at < 0 ? 0 : at + step))];
  }
}

function content(item, now, reason, title) {
  const word = stateWord(item);
  const records = item.row_count === 1 ? "1 record" : `${item.row_count} records`;
  const facts = [ago(item.occurred_at, now), item.district, records].filter(Boolean).join(" · ");
  const name = item.form?.headline && item.revision ? item.form.headline : item.nature;
  const counts = told(item.delivery);
  return [
    make(
      "span",
      "item-head",
      ...(title ? [make("span", "severity-mark")] : []),
      foreign("span", name, "item-name"),
      ...(word ? [make("span", `badge ${item.state === "live" ? "badge-live" : ""}`, word)] : []),
    ),
    ...(title && saysMore(title, name) ? [make("span", "item-category small", title)] : []),
    foreign("span", facts, "small muted"),
    ...(counts ? [make("span", "small number", counts)] : []),
    ...(reason ? [foreign("span", reason, "item-reason small")] : []),
    ...(item.waits ? [make("span", "item-reason small", item.waits)] : []),
  ];
}
