// The web client as the conformance kit wants a client: it goes where GEOCAST_STREAM_URL says, fetches its tokens, and
// acknowledges what it shows.

const [library, format] = process.argv.slice(2);
const { createRequire } = await import("node:module");
const { Geocast } = await import(library);

const { GEOCAST_STREAM_URL: url, GEOCAST_TOKEN_URL: tokenUrl } = process.env;
const msgpack = format === "msgpack" && (await import(createRequire(library).resolve("@msgpack/msgpack")));
const geocast = new Geocast({
  url,
  token: async () => (await fetch(tokenUrl)).text(),
  places: [{ lat: 32.7767, lng: -96.797 }],
  storage: null,
  ...(msgpack && { msgpack }),
});
geocast.on("alert", ({ alert }) => geocast.ack(alert));
geocast.on("update", ({ alert, cause }) => cause === "revision" && geocast.ack(alert));
setInterval(() => {}, 60_000); // a page stays
