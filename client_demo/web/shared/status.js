// The status of the client library's connection, and messages that disappear after a while.

import { by, write } from "/shared/elements.js";

const KINDS = { connecting: "connecting", online: "online" }; // every other state is "offline"
const WORDS = { connecting: "Connecting", stopped: "Stopped", closed: "Closed" };

/** Show a client's `status`. `words` has the page's words for states, and must have those for `online` and `waiting`. */
export function showStatus({ state, reason, retryAt }, words) {
  const word = { ...WORDS, ...words }[state] ?? state;
  const seconds = retryAt ? Math.max(0, Math.ceil((retryAt - Date.now()) / 1000)) : 0;
  by("status").dataset.state = KINDS[state] ?? "offline";
  by("status").title = reason ?? "";
  write(by("status"), state === "waiting" ? `${word}, back in ${seconds} s` : word);
}

const NOTICE_MS = 12_000;
let timer;

/** Show a message for a while. */
export function notify(text) {
  clearTimeout(timer);
  by("notice").textContent = text;
  by("notice").hidden = false;
  timer = setTimeout(() => (by("notice").hidden = true), NOTICE_MS);
}
