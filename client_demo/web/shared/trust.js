// The only strings that may become code on these pages: the addresses of the map's workers. The browser refuses to turn any
// other string into markup or script (Trusted Types; the policy is in web/server.py).

const WORKERS = ["/npm/maplibre-gl/dist/maplibre-gl-worker.mjs", "/worker.js"];

globalThis.trustedTypes?.createPolicy("default", {
  createScriptURL(address) {
    const url = new URL(address, location.href);
    return url.origin === location.origin && WORKERS.includes(url.pathname) ? url.href : null;
  },
});
