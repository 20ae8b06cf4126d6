/**
 * One WebSocket connection: its queue of messages, the requests that wait for answers, and its liveness.
 * A connection knows nothing about alerts. Its owner calls `act` at the time that `due` returns; times in ms by the owner's
 * clock.
 */

/** @import { MessagePack } from "./geocast.js" */
/** @typedef {{ type: string, [field: string]: unknown }} Message */
/**
 * @typedef {object} Wire  one of the two formats
 * @property {string} subprotocol
 * @property {(message: Message) => string | Uint8Array} encode
 * @property {(frame: unknown) => unknown} decode  may throw anything
 */
/**
 * @typedef {object} Owner
 * @property {() => number} now
 * @property {() => Message} hello
 * @property {(welcome: Message) => void} welcomed
 * @property {(message: Message) => void} take
 * @property {(message: Message) => Promise<Message>} [read]  returns the message to take instead; rejects a message to drop
 * @property {(message: Message, cause: unknown) => void} [dropped]  `read` has rejected
 * @property {(why: string) => void} refused  a `move`, `filter`, `token` or `try` was answered with an `error`
 * @property {() => void} unreadable  a frame has no message, or one before the welcome
 * @property {(code: number) => void} ended  once; never after `close`
 */

import { NO_CLOSE_FRAME } from "./reconnect.js";

const HANDSHAKE_MS = 10_000; // until the 101, and again from there until the welcome
const PONG_MS = 10_000; // dead if silent for 10 s after our ping (protocol, "Close codes")
const HEARTBEAT_MS = 25_000; // if the welcome has no valid interval
const MAX_HEARTBEAT_MS = 3_600_000; // with a longer interval a dead connection would go unnoticed
const PER_S = 8; // below the server's 10 and 300, which also count our answers to its pings
const BURST = 200;
const MAX_ACKS = 1_000;

/** @param {MessagePack | undefined} msgpack @returns {Wire} */
export function wireOf(msgpack) {
  if (!msgpack)
    return { subprotocol: "geocast.v1.json", encode: JSON.stringify, decode: (frame) => JSON.parse(String(frame)) };
  return {
    subprotocol: "geocast.v1.msgpack",
    encode: (message) => msgpack.encode(message),
    decode: (frame) => msgpack.decode(new Uint8Array(/** @type {ArrayBuffer} */ (frame))),
  };
}

/** Return the same format with the reviewers' signatures (F9). @param {Wire} wire @returns {Wire} */
export const signed = (wire) => ({ ...wire, subprotocol: `${wire.subprotocol}.signed` });

/** Return how many messages a welcome announces. @param {unknown} live @returns {number} 0 for an invalid number */
export const countOf = (live) => (Number.isSafeInteger(live) && Number(live) > 0 ? Number(live) : 0);

/** A token bucket. */
export class Pace {
  #left = BURST;
  #at;

  /** @param {number} now */
  constructor(now) {
    this.#at = now;
  }

  /** @param {number} now @returns {boolean} whether a message may be sent now; if so, it counts as sent */
  take(now) {
    this.#left = Math.min(BURST, this.#left + ((now - this.#at) * PER_S) / 1_000);
    this.#at = now;
    if (this.#left < 1) return false;
    this.#left--;
    return true;
  }

  /** Return when the next message may be sent. */
  due() {
    return this.#at + Math.max(0, ((1 - this.#left) * 1_000) / PER_S);
  }
}

export class Link {
  #owner;
  #wire;
  #socket;
  #pace;
  #hasGreeted = false;
  #isWelcomed = false;
  #isOver = false;
  #heartbeat = HEARTBEAT_MS;
  #deadline; // for the handshake, the welcome, and the answer to a ping
  #heardAt;
  #pings = 0; // pings that wait to be sent: 0 or 1
  /** @type {Map<string, { fields: object, answered: ((answer: Message | null) => void)[] }>} by type, not sent yet */
  #wishes = new Map();
  /** @type {Map<string, { ref: number, answered: ((answer: Message | null) => void)[] }>} by type, sent */
  #asked = new Map();
  /** @type {Message[]} */
  #acks = [];
  /** @type {Message[]} a responder's answers, which are sent first */
  #words = [];
  #refs = 0;
  /** @type {Promise<void>} handles received messages one by one, as `read` takes time */
  #turn = Promise.resolve();

  /**
   * Open the connection. Throws what the constructor of the WebSocket throws.
   * @param {any} WebSocket @param {string} url @param {Wire} wire @param {Owner} owner
   */
  constructor(WebSocket, url, wire, owner) {
    this.#owner = owner;
    this.#wire = wire;
    this.#heardAt = owner.now();
    this.#deadline = this.#heardAt + HANDSHAKE_MS;
    this.#pace = new Pace(this.#heardAt);
    const socket = (this.#socket = new WebSocket(url, [wire.subprotocol]));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#opened();
    socket.onmessage = (/** @type {{ data: unknown }} */ { data }) => this.#heard(data);
    socket.onclose = (/** @type {{ code?: number }} */ { code }) => this.#inTurn(() => this.lose(code || NO_CLOSE_FRAME));
    socket.onerror = () => {}; // a close follows
  }

  /** Whether the hello was sent, so that later changes must be sent too. */
  get hasGreeted() {
    return this.#hasGreeted && !this.#isOver;
  }

  get isWelcomed() {
    return this.#isWelcomed && !this.#isOver;
  }

  // ---- for the owner ----------------------------------------------------------------------------------------------

  /**
   * Send a `move`, `filter` or `token`. At most one of each type is under way; later requests of that type are merged.
   * @param {string} type @param {object} fields @returns {Promise<boolean>} whether the server has said `ok`
   */
  ask(type, fields) {
    return new Promise((answered) => this.#wish(type, fields, (answer) => answered(answer?.type === "ok")));
  }

  /**
   * Ask, as `ask` does. Resolves to the answer, an `ok` or an `error`; null if the connection ended before.
   * @param {string} type @param {object} fields @returns {Promise<Message | null>}
   */
  request(type, fields) {
    return new Promise((answered) => this.#wish(type, fields, answered));
  }

  /** @param {string} type @param {object} fields @param {(answer: Message | null) => void} answered */
  #wish(type, fields, answered) {
    const wish = this.#wishes.get(type) ?? { fields: {}, answered: [] };
    this.#wishes.set(type, { fields: { ...wish.fields, ...fields }, answered: [...wish.answered, answered] });
    this.#flush();
  }

  /** @param {string} id @param {number} revision */
  ack(id, revision) {
    if (this.#acks.length < MAX_ACKS) this.#acks.push({ type: "ack", id, revision });
    this.#flush();
  }

  /** Send soon, without an `ok`. @param {Message} message */
  say(message) {
    this.#words.push(message);
    this.#flush();
  }

  /** Send a ping; the connection is lost unless some message comes in time. */
  ping() {
    if (!this.isWelcomed || this.#deadline < Infinity) return;
    this.#pings = 1;
    this.#deadline = this.#owner.now() + PONG_MS;
    this.#flush();
  }

  /** Return when `act` must be called next. */
  due() {
    const silence = this.#isWelcomed && this.#deadline === Infinity ? this.#heardAt + this.#heartbeat : Infinity;
    return Math.min(this.#deadline, silence, this.#hasMore() ? this.#pace.due() : Infinity);
  }

  act() {
    const now = this.#owner.now();
    if (now >= this.#deadline) return this.lose(NO_CLOSE_FRAME);
    if (now >= this.#heardAt + this.#heartbeat) this.ping();
    this.#flush();
  }

  /** Count the connection as over, and release all requests that wait for an answer. @param {number} code */
  lose(code) {
    if (this.#isOver) return;
    this.close();
    this.#owner.ended(code);
  }

  /** Close the connection; no callback is called any more. */
  close() {
    if (this.#isOver) return;
    this.#isOver = true;
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = () => {};
    try {
      socket.close(1000);
    } catch {
      // Some implementations throw if the socket was never open. It is over in any case.
    }
    for (const { answered } of [...this.#asked.values(), ...this.#wishes.values()])
      for (const answer of answered) answer(null);
  }

  // ---- receiving --------------------------------------------------------------------------------------------------

  #opened() {
    // A browser fails if the server chose no subprotocol; for a wrong one the error is made here.
    if (this.#socket.protocol !== this.#wire.subprotocol) return this.lose(1002);
    this.#hasGreeted = true;
    this.#deadline = this.#owner.now() + HANDSHAKE_MS;
    this.#pace.take(this.#owner.now());
    this.#send(this.#owner.hello());
  }

  /** @param {unknown} frame */
  #heard(frame) {
    const now = this.#owner.now();
    if (now >= this.#deadline) return this.lose(NO_CLOSE_FRAME); // read after a long sleep, so its `now` would mislead
    this.#heardAt = now;
    const message = this.#read(frame);
    if (message === null) return this.#owner.unreadable();
    if (this.#isWelcomed) this.#deadline = Infinity;
    if (!this.#owner.read) return this.#handle(message);
    const read = this.#owner.read(message).then(
      (found) => () => this.#handle(found),
      (cause) => () => this.#owner.dropped?.(message, cause),
    );
    this.#inTurn(async () => {
      const handle = await read;
      if (!this.#isOver) handle();
    });
  }

  /** Do the work now, or after the messages that are still being read. @param {() => unknown} work */
  #inTurn(work) {
    if (!this.#owner.read) return void work();
    this.#turn = this.#turn.then(async () => void (await work())).catch((cause) => {
      queueMicrotask(() => { throw cause; }); // reported as an error of the event's own handler would be
    });
  }

  /** @param {Message} message */
  #handle(message) {
    if (message.type === "welcome" && !this.#isWelcomed) this.#welcomed(message);
    else if (!this.#isWelcomed) this.#owner.unreadable();
    else if (!this.#answers(message)) this.#owner.take(message);
  }

  /** @param {Message} welcome */
  #welcomed(welcome) {
    this.#isWelcomed = true;
    this.#deadline = Infinity;
    const { heartbeat_s } = welcome;
    const heartbeat = Number(heartbeat_s) * 1_000;
    if (heartbeat > 0 && heartbeat <= MAX_HEARTBEAT_MS) this.#heartbeat = heartbeat;
    this.#owner.welcomed(welcome);
  }

  /** @param {unknown} frame @returns {Message | null} null for a frame without a valid message */
  #read(frame) {
    try {
      const message = /** @type {Message | null} */ (this.#wire.decode(frame));
      return typeof message === "object" && typeof message?.type === "string" ? message : null;
    } catch {
      return null;
    }
  }

  /** Give an `ok` or `error` to the request that waits for it. @param {Message} message @returns {boolean} whether one did */
  #answers(message) {
    if (message.type !== "ok" && message.type !== "error") return false;
    const found = [...this.#asked].find(([, { ref }]) => ref === message.ref);
    if (!found) return false;
    const [type, { answered }] = found;
    this.#asked.delete(type);
    if (message.type === "error") this.#owner.refused(`the server refuses this ${type}: ${message.detail}`);
    for (const answer of answered) answer(message);
    this.#flush();
    return true;
  }

  // ---- sending ----------------------------------------------------------------------------------------------------

  #hasMore() {
    return this.isWelcomed && (this.#words.length + this.#pings + this.#acks.length > 0 || this.#nextWish() !== undefined);
  }

  /** Return the first waiting request whose type has none under way. */
  #nextWish() {
    return [...this.#wishes].find(([type]) => !this.#asked.has(type));
  }

  #flush() {
    while (this.#hasMore() && this.#pace.take(this.#owner.now())) this.#send(this.#next());
  }

  /** @returns {Message} */
  #next() {
    const word = this.#words.shift();
    if (word) return word;
    if (this.#pings) {
      this.#pings = 0;
      return { type: "ping" };
    }
    const wish = this.#nextWish();
    if (!wish) return /** @type {Message} */ (this.#acks.shift());
    const [type, { fields, answered }] = wish;
    const ref = ++this.#refs;
    this.#wishes.delete(type);
    this.#asked.set(type, { ref, answered });
    return { type, ref, ...fields };
  }

  /** @param {Message} message */
  #send(message) {
    try {
      this.#socket.send(this.#wire.encode(message));
    } catch {
      // The socket is closing: its close event follows, and the next hello sends the rest.
    }
  }
}
