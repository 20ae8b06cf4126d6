// The web client as the conformance kit requires it: it connects to GEOCAST_STREAM_URL, fetches its tokens,
// acknowledges the alerts that it shows, and accepts every call.

const [library, format] = process.argv.slice(2);
const { createRequire } = await import("node:module");
const { Geocast } = await import(library);

const { GEOCAST_STREAM_URL: url, GEOCAST_TOKEN_URL: tokenUrl } = process.env;
const msgpack = format === "msgpack" && (await import(createRequire(library).resolve("@msgpack/msgpack")));
const here = { lat: 32.7767, lng: -96.797, here: true };
const geocast = new Geocast({
  url,
  token: async () => (await fetch(tokenUrl)).text(),
  places: [here],
  storage: null,
  languages: ["en"],
  ...(msgpack && { msgpack }),
});
geocast.on("alert", ({ alert }) => geocast.ack(alert));
geocast.on("update", ({ alert, cause }) => cause === "revision" && geocast.ack(alert));
geocast.on("call", ({ call }) => {
  geocast.ack(call);
  geocast.setPlaces([here]);
  geocast.accept(call.id, 120);
});
geocast.on("task", ({ task }) => geocast.arrived(task.id));
setInterval(() => {}, 60_000); // keep the process running, as an open page would
