// The state of a call: how many people were called, who is coming, and who has arrived.

import { by, DRILLS, foreign, make } from "/shared/elements.js";

const STATES = { ringing: "Calling", full: "Enough are going", ended: "Ended", expired: "Over" };
const TASKS = { cpr: "CPR", aed: "Fetch the AED" };
const SEATS = { going: "is going", aed: "has the AED", arrived: "is there" };
const PENDING = { open: "Opening…", correct: "Correcting…", end: "Ending…" };

export const isOver = (call) => ["ended", "expired"].includes(call.state?.state);

export function wordOf(call) {
  return PENDING[call.pending] || STATES[call.state?.state] || (call.troubles.length ? "Refused" : "");
}

/** Return one line with the search radius, and the numbers of people who were called and who rest after another call. */
export function countsOf({ ring_m: ring, rung, seen, declined }) {
  return `within ${ring} m: ${rung} called, ${seen} have seen it, ${declined} can’t`;
}

/** Show a call's state. */
export function showState(call) {
  const { state } = call;
  const drill = DRILLS.get(state?.call.status);
  by("state-word").textContent = wordOf(call);
  by("drill").hidden = !drill;
  by("drill").textContent = drill ?? "";
  by("counts").textContent = state ? countsOf(state) : "";
  by("headline").textContent = state?.call.headline ?? "";
  const seats = state?.seats ?? [];
  by("seats").replaceChildren(...seats.map(row));
  by("nobody").hidden = seats.length > 0;
  by("acts").hidden = !state || isOver(call) || Boolean(call.pending);
}

function row({ seat, role, responder, state, eta_s: eta }) {
  const minutes = eta === undefined || state === "arrived" ? "" : `, in ${Math.ceil(eta / 60)} min as said`;
  const cells = [String(seat), TASKS[role] ?? role, foreign("span", responder, "code"), `${SEATS[state] ?? state}${minutes}`];
  return make("tr", "", ...cells.map((cell) => make("td", "", cell)));
}
