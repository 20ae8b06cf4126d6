// Signatures in the reviewer's browser, with a key that can't be exported from it. The text is shown before it is signed
// (docs/reference/approval-rules.md), and the displayed members are parsed from exactly the text that is signed. The
// service gets only public keys and signatures.

import { clock } from "/desk/list.js";
import { by, foreign, make } from "/shared/elements.js";

const ED25519 = "Ed25519"; // the name in WebCrypto, and the `alg` of the signature (RFC 9864)
const NO_KEY = "You have no key in this browser yet: see “My key”.";
const NAMES = {
  what: "This is", headline: "Headline", description: "Description", reason: "Reason", title: "Category", severity: "Severity",
  status: "Status", area: "Area", expires_at: "Ends", occurred_at: "Happened", confirm: "Confirmed", source: "Published by",
  revision: "Revision", aud: "For", id: "Id", category: "Category’s key", location_resolution: "Resolution", v: "Version",
};

// ---- keys --------------------------------------------------------------------------------------------------------

/** Run one request on this browser's store of keys, by reviewer. */
function keys(mode, act) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open("geocast-desk", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("keys");
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const change = opening.result.transaction("keys", mode);
      const asked = act(change.objectStore("keys"));
      change.oncomplete = () => resolve(asked.result);
      change.onabort = () => reject(change.error);
    };
  });
}

const keyOf = (name) => keys("readonly", (store) => store.get(name));

/** Make a key pair for a reviewer. The private key can't be exported, not even by this page. */
async function draw(name) {
  const pair = await crypto.subtle.generateKey(ED25519, false, ["sign", "verify"]);
  const x = base64url(new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey)));
  const key = { kid: await thumbprint(x), x, privateKey: pair.privateKey };
  await keys("readwrite", (store) => store.add(key, name)); // an existing key is not replaced
  return key;
}

/** Return the first 16 hex digits of the key's thumbprint (RFC 7638, 8037). */
async function thumbprint(x) {
  const text = new TextEncoder().encode(JSON.stringify({ crv: ED25519, kty: "OKP", x }));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", text));
  return Array.from(digest.subarray(0, 8), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return a key from an envelope: a private JWK in a file, used only until the page is left. */
async function fromEnvelope(file) {
  const { kty, crv, x, d, kid } = JSON.parse(await file.text());
  const privateKey = await crypto.subtle.importKey("jwk", { kty, crv, x, d }, ED25519, false, ["sign"]);
  return { kid: String(kid), privateKey };
}

/** Sign a form: JWS with detached content (RFC 7515, appendix F). */
async function signWith({ kid, privateKey }, form) {
  const encoder = new TextEncoder();
  const header = { alg: ED25519, typ: "geocast-approval", kid, iat: Math.floor(Date.now() / 1000) };
  const head = base64url(encoder.encode(JSON.stringify(header)));
  const signed = encoder.encode(`${head}.${base64url(encoder.encode(form))}`);
  return { protected: head, signature: base64url(new Uint8Array(await crypto.subtle.sign(ED25519, privateKey, signed))) };
}

function base64url(bytes) {
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return text.replaceAll("+", "-").replaceAll("/", "_").replace(/={1,2}$/, "");
}

/** Return the JWK that the operator adds to the file of reviewers. The operator chooses `sub`, which names the person. */
const publicHalf = (name, { kid, x }) => {
  const sub = name.replace(/[^A-Za-z0-9._:-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(0, 128) || "reviewer";
  return JSON.stringify({ kty: "OKP", crv: ED25519, alg: ED25519, kid, sub, x }, null, 1);
};

// ---- the dialogs -------------------------------------------------------------------------------------------------

export class Signing {
  /** `post(path, body)` sends a request to the service; `me()` returns the name of the signed-in person. */
  constructor({ post, me }) {
    Object.assign(this, { _post: post, _me: me, _done: () => {} });
    by("sign").addEventListener("click", () => this._sign());
    by("withdraw").addEventListener("click", () => this._withdraw());
    by("not-now").addEventListener("click", () => by("signing").close());
    by("signing").addEventListener("close", () => this._done({ status: 0, body: null, problem: "" }));
    by("envelope").addEventListener("change", () => this._show());
    by("my-key").addEventListener("click", () => this._myKey());
    by("draw-key").addEventListener("click", () => this._draw());
  }

  /**
   * Show the text, and let the reviewer sign or not. Resolves to the service's answer, in the form of `post`, or to an
   * answer with status 0 if the reviewer has not signed.
   */
  ask(item, asked) {
    Object.assign(this, { _item: item, _asked: asked });
    by("envelope").value = "";
    by("signing-trouble").textContent = "";
    this._show();
    by("signing").showModal();
    by("signing").scrollTop = 0;
    return new Promise((done) => (this._done = done));
  }

  async _show() {
    const { form, signed, needed, what } = this._asked;
    const left = needed - signed.length;
    by("signed").replaceChildren(...described(JSON.parse(form)));
    by("signed-text").textContent = form;
    const who = signed.map(({ by: name, at }) => `${name} at ${clock(at)}`).join(" and ");
    by("signing-who").textContent = `${who ? `Signed by ${who}. ` : ""}${left > 1 ? `It takes ${left} signatures, each by another person.` : "Yours is the signature that it needs."}`;
    const sends = what === "cancel" ? "Sign and cancel" : what === "revise" ? "Sign and revise" : "Sign and publish";
    by("sign").textContent = left > 1 ? "Sign" : sends;
    by("sign").className = what === "cancel" ? "button-danger" : "button-primary";
    by("withdraw").hidden = signed.length === 0;
    const key = await keyOf(this._me()).catch(() => undefined);
    const isOut = by("envelope").files.length > 0;
    const hasSigned = !isOut && signed.some(({ kid }) => kid === key?.kid);
    by("signing-key").textContent = isOut ? "With the key in the envelope. Its use is noted." : key ? `With your key ${key.kid}.` : NO_KEY;
    if (hasSigned) by("signing-key").textContent = "You have signed. Somebody else has to, with a key of their own.";
    by("sign").disabled = hasSigned || (!isOut && !key);
  }

  async _sign() {
    const { id, version } = this._item;
    const [file] = by("envelope").files;
    by("sign").disabled = true;
    try {
      const key = file ? await fromEnvelope(file) : await keyOf(this._me());
      const signature = await signWith(key, this._asked.form);
      this._answered(await this._post(`/api/items/${id}/sign`, { version, form: this._asked.form, signature }));
    } catch {
      by("signing-trouble").textContent = file ? "This file has no private key of Ed25519 in it." : "This browser can’t sign: it has no Ed25519.";
      by("sign").disabled = false;
    }
  }

  async _withdraw() {
    const { id, version } = this._item;
    this._answered(await this._post(`/api/items/${id}/withdraw`, { version }));
  }

  /** Close the dialog, and resolve the promise of its caller. */
  _answered(answer) {
    const done = this._done;
    this._done = () => {};
    by("signing").close();
    done(answer);
  }

  // ---- the reviewer's own key ------------------------------------------------------------------------------------

  async _myKey() {
    by("key-panel").showModal();
    await this._showKey();
  }

  async _showKey() {
    const key = await keyOf(this._me()).catch(() => undefined);
    by("key-note").textContent = key ? `Its name is ${key.kid}.` : "There is none in this browser yet.";
    by("key-public-row").hidden = !key;
    by("key-public").value = key ? publicHalf(this._me(), key) : "";
    by("draw-key").hidden = Boolean(key);
  }

  async _draw() {
    try {
      await draw(this._me());
      by("key-trouble").textContent = "";
    } catch {
      by("key-trouble").textContent = "This browser can’t make such a key, or keep it: it needs Ed25519 (Chrome 137, Firefox 129, Safari 17), a secure address, and a window that is not private.";
    }
    await this._showKey();
  }
}

/** Return all members of a form in words; a member that this page has no word for is shown by its own name. */
function described(form) {
  const known = Object.keys(NAMES).filter((name) => name in form);
  const names = [...known, ...Object.keys(form).filter((name) => !(name in NAMES))];
  return names.flatMap((name) => [make("dt", "", NAMES[name] ?? name), foreign("dd", inWords(name, form[name]))]);
}

function inWords(name, value) {
  if (name === "what") return value === "cancel" ? "a cancel" : "an alert";
  if (name === "expires_at" || name === "occurred_at") return `${new Date(value).toLocaleString()} (${value})`;
  if (name === "area") return value.map(shapeInWords).join("; ");
  return typeof value === "string" ? value : JSON.stringify(value);
}

function shapeInWords(shape) {
  if (shape.type === "circle") return `a circle of ${shape.radius_m} m round ${shape.lat}, ${shape.lng}`;
  if (shape.type !== "Polygon") return JSON.stringify(shape);
  const corners = shape.coordinates[0].slice(1).map(([lng, lat]) => `${lat}, ${lng}`);
  return `a polygon of ${corners.length} corners${shape.buffer_m ? ` and ${shape.buffer_m} m around it` : ""}: ${corners.join("; ")}`;
}
