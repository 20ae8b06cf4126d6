// The one string that may become code on these pages: the address of the map's worker. Everything else that would turn
// a string into markup or script is refused by the browser (Trusted Types; the policy is in web_server.py).

const WORKER = "/npm/maplibre-gl/dist/maplibre-gl-worker.mjs";

globalThis.trustedTypes?.createPolicy("default", {
  createScriptURL(address) {
    const url = new URL(address, location.href);
    return url.origin === location.origin && url.pathname === WORKER ? url.href : null;
  },
});
