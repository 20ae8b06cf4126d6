// The web client as the conformance kit requires it: it connects to GEOCAST_STREAM_URL, fetches its tokens,
// acknowledges the alerts that it shows, and accepts every call. With GEOCAST_FEED_URL it follows this feed instead, and
// reports what it holds and shows.

const [library, format] = process.argv.slice(2);
const { createRequire } = await import("node:module");
const { Geocast } = await import(library);

const { GEOCAST_STREAM_URL: url, GEOCAST_TOKEN_URL: tokenUrl } = process.env;
const { GEOCAST_FEED_URL: feed, GEOCAST_REPORT_URL: reportUrl } = process.env;
const msgpack = format === "msgpack" && (await import(createRequire(library).resolve("@msgpack/msgpack")));
const here = { lat: 32.7767, lng: -96.797, here: true };
const geocast = new Geocast({
  ...(feed ? { source: "feed", feed, feedEveryMs: 100, random: () => 0 } : { url, token: async () => (await fetch(tokenUrl)).text() }),
  places: [here],
  storage: null,
  languages: ["en"],
  ...(msgpack && { msgpack }),
});
let reporting = Promise.resolve();
const report = (shown) => {
  const holding = Object.fromEntries(geocast.held().map(({ alert }) => [alert.id, alert.revision]));
  const body = JSON.stringify({ places: geocast.places, holding, shown });
  reporting = reporting.then(() => fetch(reportUrl, { method: "POST", body })).catch(() => {});
};
const show = ({ id, revision }) => (feed ? report({ id, revision }) : geocast.ack({ id, revision }));
if (feed) {
  report();
  geocast.on("change", () => report());
}
geocast.on("alert", ({ alert }) => show(alert));
geocast.on("update", ({ alert, cause }) => cause === "revision" && show(alert));
geocast.on("call", ({ call }) => {
  geocast.ack(call);
  geocast.setPlaces([here]);
  geocast.accept(call.id, 120);
});
geocast.on("task", ({ task }) => geocast.arrived(task.id));
setInterval(() => {}, 60_000); // keep the process running, as an open page would
