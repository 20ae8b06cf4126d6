// A load for k6: sockets inside an area and outside, and alerts at a fixed rate, however long each takes (an open loop).
// Each alert's id has the time at which it was due; a phone's latency is counted from then.
import { WebSocket } from "k6/experimental/websockets";
import http from "k6/http";
import { Counter, Trend } from "k6/metrics";

const { STREAM, API, DESK, PHONE, ALERT, SESSIONS, ALERTS_PER_S, SECONDS, RAMP_S, OUT } = __ENV;
const VUS = 4, GRACE_S = 5, OUTSIDE_EVERY = 10;
const alert = JSON.parse(ALERT);
const { lat, lng } = alert.area;

const joined = new Counter("joined"), lost = new Counter("lost"), refused = new Counter("refused");
const expected = new Counter("expected"), told = new Counter("told");
const twice = new Counter("told_twice"), outside = new Counter("told_outside");
const latency = new Trend("due_to_received_ms"), published = new Trend("due_to_201_ms");

export const options = {
  scenarios: {
    phones: {
      executor: "per-vu-iterations", exec: "phones", vus: VUS, iterations: 1, maxDuration: "10m", gracefulStop: "0s",
    },
    desk: {
      executor: "constant-arrival-rate", exec: "desk", rate: Number(ALERTS_PER_S), timeUnit: "1s", preAllocatedVUs: 20,
      startTime: `${RAMP_S}s`, duration: `${SECONDS}s`,
    },
  },
  summaryTrendStats: ["count", "p(50)", "p(90)", "p(99)", "p(99.9)", "max"],
};

export function phones() {
  const mine = Math.round(Number(SESSIONS) / VUS), ends = Date.now() + (Number(RAMP_S) + Number(SECONDS) + GRACE_S) * 1000;
  for (let number = 0; number < mine; number++)
    setTimeout(() => phone(number % OUTSIDE_EVERY !== 0, ends), (number / mine) * RAMP_S * 800);
}

function phone(isInside, ends) {
  const socket = new WebSocket(STREAM, ["geocast.v1.json"]), seen = new Set();
  let isOver = false;
  socket.onopen = () => {
    const place = { lat: isInside ? lat : -lat, lng };
    socket.send(JSON.stringify({ type: "hello", token: PHONE, places: [place] }));
    setTimeout(() => { isOver = true; socket.close(); }, ends - Date.now());
  };
  socket.onmessage = ({ data }) => {
    const now = Date.now(), message = JSON.parse(data);
    if (message.type === "welcome") joined.add(1);
    if (message.type !== "alert") return;
    const { id } = message.alert;
    (isInside ? told : outside).add(1);
    latency.add(now - id.split("-")[1]);
    if (seen.has(id)) twice.add(1);
    seen.add(id);
  };
  socket.onclose = ({ code, reason }) => {
    if (isOver) return;
    lost.add(1);
    console.error(`closed: ${code} ${reason}`);
  };
}

export function desk() {
  const due = Date.now(), stamp = (ms) => new Date(ms).toISOString();
  const body = { ...alert, id: `k6-${due}-${__VU}`, occurred_at: stamp(due), expires_at: stamp(due + 600_000) };
  body.approval = { ...alert.approval, approved_at: stamp(due) };
  const headers = { "Authorization": `Bearer ${DESK}`, "Content-Type": "application/json" };
  const answer = http.post(`${API}/v1/alerts`, JSON.stringify(body), { headers });
  published.add(Date.now() - due);
  if (answer.status !== 201) {
    refused.add(1);
    console.error(answer.body);
    return;
  }
  const each = Math.round(Number(SESSIONS) / VUS);
  expected.add(VUS * (each - Math.ceil(each / OUTSIDE_EVERY)));
}

export function handleSummary({ metrics }) {
  const found = Object.entries(metrics).map(([name, { values }]) => [name, values]);
  return { [OUT]: JSON.stringify(Object.fromEntries(found)) };
}
