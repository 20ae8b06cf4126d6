// The review desk's page: signs in, follows the service's events, and keeps list and detail in step.

import "/shared/trust.js";
import { Detail } from "/desk/form.js";
import { decided, List, listed, tabOf, TABS } from "/desk/list.js";
import { by, DRILLS, make, write } from "/shared/elements.js";
import { Signing } from "/desk/signing.js";
import { ServiceClient } from "/shared/service-client.js";
import { themeButton } from "/shared/theme.js";

const TICK_MS = 5000;
const KEYS = "desk-single-keys";

const items = new Map();
let desk = null;
let tab = "decide";
let offsetMs = 0;
let detail = null;
let list = null;
let signing = null;
let connected = ""; // in words, as soon as the service has answered

const now = () => Date.now() + offsetMs;
const titleOf = (item) => desk.categories[item.form?.category ?? item.category]?.title ?? "";
const openItem = () => (detail?.item ? items.get(detail.item.id) : undefined);

// ---- the service -----------------------------------------------------------------------------------------------

const service = new ServiceClient({
  main: "desk",
  question: "Who is at the desk?",
  hint: "Open the link that the desk’s service printed for you, or enter its key.",
  listen,
  silence: "The desk’s service gives no answer. Nothing is lost: try again, it is safe.",
  left: () => location.reload(),
});

function listen(on) {
  on("all", (all) => {
    items.clear();
    all.items.forEach((item) => items.set(item.id, item));
    connected = connected ? "Connected again" : "Connected";
    takeDesk(all);
    begin(all);
  });
  on("item", takeItem);
  on("desk", takeDesk);
  on("tick", ({ now: theirs }) => setClock(theirs));
}

function setClock(theirs) {
  offsetMs = theirs - Date.now();
}

function takeDesk(said) {
  desk = said;
  setClock(said.now);
  const there = new Set(said.ids);
  [...items.keys()].filter((id) => !there.has(id)).forEach((id) => items.delete(id));
  by("feed").textContent = said.feed.title;
  by("feed").title = said.feed.title;
  by("status").hidden = !DRILLS.has(said.status);
  by("status").textContent = DRILLS.get(said.status) ?? "";
  const trouble = [said.node.trouble, said.feed.trouble && `Feed: ${said.feed.trouble}`].filter(Boolean).join(" ");
  by("my-key").hidden = !said.signed;
  service.warn(trouble);
  service.connection(said.node.trouble ? "offline" : "online", said.node.trouble ? "No answer from the node" : connected);
  show();
}

function takeItem(item) {
  const before = items.get(item.id);
  if (before && before.view > item.view) {
    return; // a later event came before this answer
  }
  items.set(item.id, item);
  const last = item.history.at(-1);
  if (last && last.at !== before?.history.at(-1)?.at && last.by !== desk.me) {
    by("announce").textContent = `${item.nature}: ${decided(last)}`;
  }
  if (detail?.item?.id === item.id) {
    detail.update(item);
  }
  show();
}

// ---- output ----------------------------------------------------------------------------------------------------

function begin(all) {
  service.signedIn(all.me);
  desk = { ...desk, me: all.me };
  list ??= new List(by("list"), open);
  signing ??= new Signing({ post: service.post, me: () => desk.me });
  detail ??= new Detail({
    post: service.post,
    desk: () => desk,
    now,
    styleUrl: all.style_url,
    others: () => [...items.values()].filter((item) => item.state === "live" && item.published),
    said: takeItem,
    signing,
  });
  const known = openItem();
  if (known) {
    detail.update(known);
  } else {
    const remembered = items.get(location.hash.slice(1));
    remembered ? open(remembered.id, { focus: false }) : shut();
  }
  show();
}

function show() {
  if (!list || by("desk").hidden) {
    return;
  }
  const counts = Object.fromEntries(TABS.map(({ id }) => [id, 0]));
  items.forEach((item) => {
    counts[tabOf(item)] += 1;
  });
  for (const { id, button } of tabs) {
    button.setAttribute("aria-pressed", String(id === tab));
    button.lastChild.textContent = counts[id];
  }
  const shown = listed(items.values(), tab, now());
  list.show(shown, now(), detail.item?.id, titleOf);
  const { order, empty } = TABS.find(({ id }) => id === tab);
  by("sorted").hidden = !shown.length;
  write(by("sorted"), order);
  write(by("empty"), shown.length ? "" : empty);
  document.title = `${counts.decide ? `(${counts.decide}) ` : ""}Review desk – geocast`;
}

const tabs = TABS.map(({ id, label }) => {
  const button = make("button", "tab", label, make("span", "tab-count number", "0"));
  button.addEventListener("click", () => choose(id));
  by("tabs").append(button);
  return { id, button };
});

function choose(id) {
  tab = id;
  show();
}

function open(id, { focus = true } = {}) {
  const item = items.get(id);
  tab = tabOf(item);
  by("detail").hidden = false;
  by("nothing").hidden = true;
  by("desk").classList.add("desk-open");
  history.replaceState(null, "", `#${id}`);
  detail.open(item);
  by("detail-body").scrollTop = 0;
  show();
  if (focus) {
    by("title").focus();
  }
}

function shut() {
  const id = detail.item?.id;
  detail.close();
  by("detail").hidden = true;
  by("nothing").hidden = false;
  by("desk").classList.remove("desk-open");
  history.replaceState(null, "", location.pathname);
  show();
  if (id) {
    list.focus(id);
  }
}

// ---- keyboard --------------------------------------------------------------------------------------------------

/** Move the focus to the next or the previous row of the list, and open its incident if `opens` is true. */
function step(by, opens = false) {
  const id = list.next(by, detail.item?.id);
  if (id && opens) {
    open(id, { focus: false });
  }
  if (id) {
    list.focus(id);
  }
}

const SINGLE = {
  j: () => step(1, true),
  k: () => step(-1, true),
  e: () => detail.item && by("headline").focus(),
  x: () => detail.item && detail.toggleAside(),
  c: () => detail.item && detail.askToCancel(),
  "?": () => by("shortcuts").showModal(),
  ...Object.fromEntries(TABS.map(({ id }, index) => [String(index + 1), () => choose(id)])),
};

function pressed(event) {
  if (by("desk").hidden || document.querySelector("dialog[open]") || event.altKey) {
    return;
  }
  const isTyping = event.target.matches("input:not([type=checkbox]), textarea, select");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && detail.item) {
    event.preventDefault();
    detail.approve();
  } else if (event.key === "Escape") {
    isTyping ? by("title").focus() : detail.item && shut();
  } else if (!isTyping && !event.ctrlKey && !event.metaKey && by("single-keys").checked && SINGLE[event.key]) {
    event.preventDefault();
    SINGLE[event.key]();
  } else if (event.target.closest(".list") && ["ArrowDown", "ArrowUp"].includes(event.key)) {
    event.preventDefault();
    step(event.key === "ArrowDown" ? 1 : -1);
  }
}

// ---- start -----------------------------------------------------------------------------------------------------

themeButton(by("theme"), () => detail?.repaint());
by("help").addEventListener("click", () => by("shortcuts").showModal());
by("back").addEventListener("click", shut);
by("single-keys").checked = localStorage.getItem(KEYS) !== "off";
by("single-keys").addEventListener("change", ({ target }) => localStorage.setItem(KEYS, target.checked ? "on" : "off"));
document.addEventListener("keydown", pressed);
setInterval(show, TICK_MS);
service.open();
