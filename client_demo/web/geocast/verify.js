/**
 * Verification of reviewers' signatures: a client that verifies need not trust any node (protocol, C11 to C15).
 *
 * Rule 1  The bytes of the form are checked as they came, and parsed afterwards. Nothing is serialised again for a check.
 * Rule 2  The returned message contains only what the proof contains: the fields of the form and, as its time, that of the
 *         newest approval. The one exception is a cancel's number, which may be higher than that in the form (AP8).
 * Rule 3  A signature by an unknown key does not count (its owner may be new). A wrong signature by a known key makes the
 *         whole proof invalid (AP3).
 * Rule 4  Approvals are counted by person, and the publisher's own does not count (AP5).
 */

/** @import { Reviewers, Verify } from "./geocast.js" */
/** @import { Message } from "./link.js" */
/** @typedef {"unsigned" | "signature" | "other-place" | "unknown-key" | "too-few"} Reason */
/** @typedef {(signature: Uint8Array, signed: Uint8Array) => Promise<boolean>} Check */
/** @typedef {{ person: string, check: Check }} Key */
/** @typedef {{ person: string, iat: number }} Approval */

const ALGORITHM = "Ed25519";
const TYPE = "geocast-approval";
const MAX_FORM_BYTES = 20 * 1_024;
const MAX_SIGNATURES = 8;
const MAX_PROTECTED = 1_024; // characters; a `kid` is short
const MAX_IAT = 253_402_300_799; // the last second of the year 9999
const HEADER = ["alg", "iat", "kid", "typ"];

/** The error for an alert or a cancel that must be dropped (C14). */
export class Untrusted extends Error {
  /** @param {Reason} reason @param {unknown} [cause] */
  constructor(reason, cause) {
    super(reason);
    this.name = "Untrusted";
    this.reason = reason;
    this.cause = cause;
  }
}

/** A verifier with the settings that a client pins: keys, deployment, and numbers of approvals (C11). */
export class Verifier {
  /** @type {Map<string, Key>} by `kid` */
  #keys;
  #audience;
  #approvals;
  #cancelApprovals;

  /** Throws TypeError for invalid options. @param {Verify} verify */
  constructor({ keys, audience, approvals, cancelApprovals = 1, with: check = withWebCrypto() }) {
    if (typeof audience !== "string" || !audience) throw new TypeError("verify.audience: expected a name");
    this.#audience = audience;
    this.#approvals = countOf("approvals", approvals, 1);
    this.#cancelApprovals = countOf("cancelApprovals", cancelApprovals, 0);
    if (typeof check !== "function") throw new TypeError("verify.with: expected a function");
    this.#keys = keysOf(keys, check);
  }

  /**
   * Return an `alert` or `cancel` message as its proof has it, and any other unchanged. Rejects with Untrusted.
   * @param {Message} message @returns {Promise<Message>}
   */
  async read(message) {
    const { type, proof } = message;
    if (type !== "alert" && type !== "cancel") return message;
    if (proof == null && type === "cancel" && this.#cancelApprovals === 0) return message;
    if (proof == null) throw new Untrusted("unsigned");
    const { form, signatures } = partsOf(proof);
    const signed = base64url(new TextEncoder().encode(form));
    const approvals = await Promise.all(signatures.map((signature) => this.#approval(signed, signature)));
    const said = parse(form, "other-place");
    const beside = mapOf(type === "alert" ? message.alert : message);
    if (!this.#belongs(type, said, beside)) throw new Untrusted("other-place");
    const counted = approvals.filter((approval) => approval !== null && approval.person !== said.source);
    const people = new Set(counted.map((approval) => approval?.person));
    if (people.size < (type === "alert" ? this.#approvals : this.#cancelApprovals))
      throw new Untrusted(approvals.includes(null) ? "unknown-key" : "too-few");
    const newest = Math.max(...counted.map((approval) => Number(approval?.iat)));
    // If no approvals are required and none counts, the time is the one beside the proof.
    const at = counted.length ? new Date(newest * 1_000).toISOString() : beside.cancelled_at;
    if (type === "cancel") return { type, id: said.id, revision: beside.revision, reason: said.reason, cancelled_at: at };
    // The members that describe the form itself do not belong to the alert.
    const { v, what, aud, confirm, location_resolution, ...fields } = said;
    return { type, alert: { ...fields, issued_at: at } };
  }

  /**
   * Return whether the form is meant for this deployment and for the message that it came with (C12).
   * @param {string} kind @param {Record<string, unknown>} said @param {Record<string, unknown>} beside
   */
  #belongs(kind, { v, what, aud, id, revision }, beside) {
    if (!Number.isInteger(revision) || !Number.isInteger(beside.revision)) return false;
    const isForUs = v === 1 && what === kind && aud === this.#audience;
    const isNumber = kind === "alert" ? beside.revision === revision : Number(beside.revision) >= Number(revision);
    return isForUs && typeof id === "string" && id === beside.id && isNumber;
  }

  /**
   * Return the signer of the form and the time; null if the key is not known (Rule 3).
   * @param {string} form as base64url @param {unknown} value @returns {Promise<Approval | null>}
   */
  async #approval(form, value) {
    const { protected: head, signature } = mapOf(value);
    if (typeof head !== "string" || typeof signature !== "string") throw new Untrusted("signature");
    if (Math.max(head.length, signature.length) > MAX_PROTECTED) throw new Untrusted("signature");
    const header = parse(textOf(bytesOf(head)), "signature");
    const { alg, typ, kid, iat } = header;
    const isOurs = Object.keys(header).sort().join() === HEADER.join() && alg === ALGORITHM && typ === TYPE;
    if (!isOurs || typeof kid !== "string" || !Number.isInteger(iat)) throw new Untrusted("signature");
    if (Number(iat) < 0 || Number(iat) > MAX_IAT) throw new Untrusted("signature");
    const key = this.#keys.get(kid);
    if (!key) return null;
    const isGood = await key.check(bytesOf(signature), new TextEncoder().encode(`${head}.${form}`)).catch((cause) => {
      throw new Untrusted("signature", cause); // any error counts as a failed check
    });
    if (isGood !== true) throw new Untrusted("signature");
    return { person: key.person, iat: Number(iat) };
  }
}

// ---- the parts of a proof -------------------------------------------------------------------------------------------

/** @param {unknown} value @returns {Record<string, unknown>} */
const mapOf = (value) => (typeof value === "object" && value !== null ? /** @type {any} */ (value) : {});

/** @param {unknown} proof @returns {{ form: string, signatures: unknown[] }} */
function partsOf(proof) {
  const { form, signatures } = mapOf(proof);
  // The encoder replaces a lone surrogate, so the signed text would differ from the displayed one.
  const isText = typeof form === "string" && form.length <= MAX_FORM_BYTES && !/[\ud800-\udfff]/u.test(form);
  if (!isText || new TextEncoder().encode(form).length > MAX_FORM_BYTES) throw new Untrusted("signature");
  if (!Array.isArray(signatures) || signatures.length === 0 || signatures.length > MAX_SIGNATURES)
    throw new Untrusted("signature");
  return { form, signatures };
}

/** Return the map in a JSON text. @param {string} text @param {Reason} reason for the Untrusted that anything else throws */
function parse(text, reason) {
  try {
    const found = JSON.parse(text);
    if (typeof found === "object" && found !== null && !Array.isArray(found)) return mapOf(found);
  } catch {
    // The text is not JSON.
  }
  throw new Untrusted(reason);
}

/** Decode UTF-8 without a TextDecoder, which React Native lacks. @param {Uint8Array} bytes */
function textOf(bytes) {
  try {
    return decodeURIComponent(Array.from(bytes, (byte) => `%${byte.toString(16).padStart(2, "0")}`).join(""));
  } catch {
    throw new Untrusted("signature");
  }
}

/** Return the bytes of base64url text without padding (RFC 7515, 2). @param {string} text */
function bytesOf(text) {
  if (!/^[A-Za-z0-9_-]+$/.test(text) || text.length % 4 === 1) throw new Untrusted("signature");
  return Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (byte) => byte.charCodeAt(0));
}

/** @param {Uint8Array} bytes */
function base64url(bytes) {
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return text.replace(/\+/g, "-").replace(/\//g, "_").replace(/={1,2}$/, "");
}

// ---- the pinned options ---------------------------------------------------------------------------------------------

/** @param {string} name @param {unknown} value @param {number} least */
function countOf(name, value, least) {
  const isOne = Number.isInteger(value) && Number(value) >= least && Number(value) <= MAX_SIGNATURES;
  if (!isOne) throw new TypeError(`verify.${name}: expected a whole number from ${least} to ${MAX_SIGNATURES}`);
  return Number(value);
}

/** @param {Reviewers} jwks @param {NonNullable<Verify["with"]>} check @returns {Map<string, Key>} */
function keysOf(jwks, check) {
  const { keys } = mapOf(jwks);
  if (!Array.isArray(keys) || keys.length === 0) throw new TypeError("verify.keys: expected a JWKS with at least one key");
  const found = new Map();
  for (const [number, jwk] of keys.entries()) {
    const where = `verify.keys: key ${number + 1}`;
    const { kty, crv, alg, kid, sub, x, d } = mapOf(jwk);
    if (kty !== "OKP" || crv !== "Ed25519" || alg !== ALGORITHM)
      throw new TypeError(`${where} has to be of kty OKP, crv Ed25519 and alg Ed25519`);
    if (d !== undefined) throw new TypeError(`${where} is private: it belongs to its owner alone`);
    if (!isName(kid) || !isName(sub)) throw new TypeError(`${where} needs a kid and a sub, which are texts`);
    if (found.has(kid)) throw new TypeError(`${where} has the kid of another one`);
    const raw = rawOf(x, where);
    found.set(kid, { person: sub, check: async (/** @type {any} */ signature, /** @type {any} */ signed) => check(signature, signed, raw) });
  }
  return found;
}

/** @param {unknown} value */
const isName = (value) => typeof value === "string" && value !== "";

/** @param {unknown} x @param {string} where @returns {Uint8Array} */
function rawOf(x, where) {
  try {
    const raw = bytesOf(String(x));
    if (raw.length === 32) return raw;
  } catch {
    // The text is not base64url.
  }
  throw new TypeError(`${where}: x has to be 32 bytes as base64url`);
}

/** @returns {NonNullable<Verify["with"]>} */
function withWebCrypto() {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) throw new TypeError("verify: there is no WebCrypto here (it needs a secure context); pass verify.with");
  /** @type {Map<Uint8Array, Promise<CryptoKey>>} */
  const imported = new Map();
  return async (signature, signed, raw) => {
    const key = imported.get(raw) ?? subtle.importKey("raw", /** @type {any} */ (raw), ALGORITHM, false, ["verify"]);
    imported.set(raw, key);
    return subtle.verify(ALGORITHM, await key, /** @type {any} */ (signature), /** @type {any} */ (signed));
  };
}
