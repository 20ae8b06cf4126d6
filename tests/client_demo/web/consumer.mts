// Never run: lines that a TypeScript project may write, and lines that must be errors (`tsc`, test_units.py).

import * as msgpack from "@msgpack/msgpack";
import { fetchLive, Geocast, GeocastError, watchPosition, type Held, type HeldCall, type Place } from "geocast-client";
import { Push, type PushState } from "geocast-client/push";
import { handle } from "geocast-client/push-worker";
import * as h3 from "h3-js";

const url = "wss://alerts.example/v1/stream";
const places: Place[] = [{ lat: 1, lng: 2, accuracy_m: 3 }, { cell: "89283082803ffff" }];
const geocast = new Geocast({ url, places, h3, msgpack, WebSocket, storage: localStorage, token: async () => "jwt" });

geocast.on("update", ({ alert, affected, cause }) => {
  const shown: string = affected && cause === "moved" ? alert.headline : (alert.description ?? "");
  for (const shape of alert.area) if (shape.type === "circle") console.log(shown, shape.radius_m);
});
geocast.on("cancel", ({ reason }) => reason.trim());
geocast.on("change", () => geocast.held().map(({ alert }: Held) => alert.id));
geocast.on("status", ({ state, retryAt }) => state === "waiting" && retryAt?.toFixed());
geocast.on("call", ({ call, distanceM }) => geocast.accept(call.id, (distanceM ?? 0) / 1.4));
geocast.on("task", ({ task }) => task.fetch !== undefined && task.aeds[task.fetch]?.code?.trim());
geocast.on("standdown", ({ id, reason }) => reason === "expired" && geocast.calls().map((held: HeldCall) => held.id === id));
watchPosition(geocast, { here: true });
watchPosition(geocast, { resolution: 9, geolocation: navigator.geolocation });
void geocast.setFilter({ min_severity: null }).then((isKnown: boolean) => isKnown);
fetchLive({ url, places, holding: { a: 1 } }).catch((error) => error instanceof GeocastError && error.closeCode);

const push = new Push({ url: "https://alerts.example/v1", token: "jwt", worker: "/sw.js", places, h3, resolution: 7 });
new Geocast({ url, storage: push.storage });
watchPosition(geocast, { push });
void push.enable().then(({ state, until }: PushState) => state === "on" && until?.toFixed());
push.on("error", ({ code, message }) => code === "server" && message.trim());
handle(globalThis, { app: "/", icon: "/icon.png", token: () => "jwt" });

const quiet = new Geocast({ source: "feed", feed: "https://alerts.example/v1/alerts.geojson", feedEveryMs: 60_000, places });
quiet.on("status", ({ source, lateMs }) => source === "feed" && lateMs?.toFixed());
quiet.setSource("auto");

// @ts-expect-error no such source
quiet.setSource("radio");
// @ts-expect-error no such state
push.on("state", ({ state }) => state === "sleeping");
// @ts-expect-error a worker needs the app that it opens
handle(globalThis, {});
// @ts-expect-error no such event
geocast.on("alarm", () => {});
// @ts-expect-error no such report
geocast.report("a", "asleep");
// @ts-expect-error no such severity
void geocast.setFilter({ min_severity: "awful" });
// @ts-expect-error a place is a point or a cell
void geocast.setPlaces([{ lat: 1 }]);
// @ts-expect-error only the client changes it
geocast.status = { state: "online" };
