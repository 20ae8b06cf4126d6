/**
 * One WebSocket connection: what waits to be sent, who waits for an answer, and whether it still lives.
 * Knows nothing of alerts. Its owner calls `act` when `due` has come; times in ms by the owner's clock.
 */

/** @import { MessagePack } from "./geocast.js" */
/** @typedef {{ type: string, [field: string]: unknown }} Message */
/**
 * @typedef {object} Wire  one of the two formats
 * @property {string} subprotocol
 * @property {(message: Message) => string | Uint8Array} encode
 * @property {(frame: unknown) => unknown} decode  throws what it likes
 */
/**
 * @typedef {object} Owner
 * @property {() => number} now
 * @property {() => Message} hello
 * @property {(welcome: Message) => void} welcomed
 * @property {(message: Message) => void} take
 * @property {(message: Message) => Promise<Message>} [read]  what is to be taken instead of it; rejects if it is nothing
 * @property {(message: Message, cause: unknown) => void} [dropped]  `read` has rejected
 * @property {(why: string) => void} refused  a `move`, `filter` or `token` was answered with an `error`
 * @property {() => void} unreadable
 * @property {(code: number) => void} ended  once; never after `close`
 */

import { NO_CLOSE_FRAME } from "./reconnect.js";

const HANDSHAKE_MS = 10_000; // to the 101, and from there to the welcome
const PONG_MS = 10_000; // protocol, "Close codes": dead 10 s after our ping
const HEARTBEAT_MS = 25_000; // if a welcome gave none that makes sense
const MAX_HEARTBEAT_MS = 3_600_000; // a connection that is looked after less often may have been dead for long
const PER_S = 8; // below the server's 10 and 300: its pings are answered on top of these
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

/** The same format, with what reviewers have signed (F9). @param {Wire} wire @returns {Wire} */
export const signed = (wire) => ({ ...wire, subprotocol: `${wire.subprotocol}.signed` });

/** How many messages a welcome says are to come. @param {unknown} live @returns {number} 0 for what is no such number */
export const countOf = (live) => (Number.isSafeInteger(live) && Number(live) > 0 ? Number(live) : 0);

/** A token bucket. */
export class Pace {
  #left = BURST;
  #at;

  /** @param {number} now */
  constructor(now) {
    this.#at = now;
  }

  /** @param {number} now @returns {boolean} whether one may be sent now; then it counts as sent */
  take(now) {
    this.#left = Math.min(BURST, this.#left + ((now - this.#at) * PER_S) / 1_000);
    this.#at = now;
    if (this.#left < 1) return false;
    this.#left--;
    return true;
  }

  /** When the next one may be sent. */
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
  #deadline; // for the handshake, for the welcome, and for what follows a ping
  #heardAt;
  #pings = 0; // that wait to be sent: 0 or 1
  /** @type {Map<string, { fields: object, answered: ((done: boolean) => void)[] }>} by type, not sent yet */
  #wishes = new Map();
  /** @type {Map<string, { ref: number, answered: ((done: boolean) => void)[] }>} by type, sent */
  #asked = new Map();
  /** @type {Message[]} */
  #acks = [];
  /** @type {Message[]} what a responder answers: it goes first */
  #words = [];
  #refs = 0;
  /** @type {Promise<void>} what has come is handled one by one, where `read` takes time */
  #turn = Promise.resolve();

  /**
   * Throws what the constructor of the WebSocket throws.
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

  /** Whether the hello is out: what changes from now on has to be told. */
  get hasGreeted() {
    return this.#hasGreeted && !this.#isOver;
  }

  get isWelcomed() {
    return this.#isWelcomed && !this.#isOver;
  }

  // ---- for the owner ----------------------------------------------------------------------------------------------

  /**
   * Send a `move`, `filter` or `token`. One of a kind is under way at a time; what is asked for meanwhile goes as one.
   * @param {string} type @param {object} fields @returns {Promise<boolean>} whether the server has said `ok`
   */
  ask(type, fields) {
    return new Promise((answered) => {
      const wish = this.#wishes.get(type) ?? { fields: {}, answered: [] };
      this.#wishes.set(type, { fields: { ...wish.fields, ...fields }, answered: [...wish.answered, answered] });
      this.#flush();
    });
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

  /** Ask whether anybody is there; the answer, or anything else, has to come in time. */
  ping() {
    if (!this.isWelcomed || this.#deadline < Infinity) return;
    this.#pings = 1;
    this.#deadline = this.#owner.now() + PONG_MS;
    this.#flush();
  }

  /** When `act` is to be called next. */
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

  /** The connection is over, or counts as over: whoever waits for an answer need not wait. @param {number} code */
  lose(code) {
    if (this.#isOver) return;
    this.close();
    this.#owner.ended(code);
  }

  /** Say goodbye, and hear nothing more. */
  close() {
    if (this.#isOver) return;
    this.#isOver = true;
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = () => {};
    try {
      socket.close(1000);
    } catch {
      // Some throw when it was never open. It is over in any case.
    }
    for (const { answered } of [...this.#asked.values(), ...this.#wishes.values()])
      for (const answer of answered) answer(false);
  }

  // ---- coming in --------------------------------------------------------------------------------------------------

  #opened() {
    // Of a server that chose no subprotocol a browser makes an error; of others we do.
    if (this.#socket.protocol !== this.#wire.subprotocol) return this.lose(1002);
    this.#hasGreeted = true;
    this.#deadline = this.#owner.now() + HANDSHAKE_MS;
    this.#pace.take(this.#owner.now());
    this.#send(this.#owner.hello());
  }

  /** @param {unknown} frame */
  #heard(frame) {
    const now = this.#owner.now();
    if (now >= this.#deadline) return this.lose(NO_CLOSE_FRAME); // read after a long sleep: its `now` would mislead
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

  /** Do it now, or behind what came before and is still being read. @param {() => unknown} work */
  #inTurn(work) {
    if (!this.#owner.read) return void work();
    this.#turn = this.#turn.then(async () => void (await work())).catch((cause) => {
      queueMicrotask(() => { throw cause; }); // as if it had happened in the event's own handler
    });
  }

  /** @param {Message} message */
  #handle(message) {
    if (message.type === "welcome" && !this.#isWelcomed) this.#welcomed(message);
    else if (this.#isWelcomed && !this.#answers(message)) this.#owner.take(message);
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

  /** @param {unknown} frame @returns {Message | null} null, for what is no message: a client outlives nonsense */
  #read(frame) {
    try {
      const message = /** @type {Message | null} */ (this.#wire.decode(frame));
      return typeof message === "object" && typeof message?.type === "string" ? message : null;
    } catch {
      return null;
    }
  }

  /** Give an `ok` or `error` to who waits for it. @param {Message} message @returns {boolean} whether somebody did */
  #answers(message) {
    if (message.type !== "ok" && message.type !== "error") return false;
    const found = [...this.#asked].find(([, { ref }]) => ref === message.ref);
    if (!found) return false;
    const [type, { answered }] = found;
    this.#asked.delete(type);
    if (message.type === "error") this.#owner.refused(`the server refuses this ${type}: ${message.detail}`);
    for (const answer of answered) answer(message.type === "ok");
    this.#flush();
    return true;
  }

  // ---- going out --------------------------------------------------------------------------------------------------

  #hasMore() {
    return this.isWelcomed && (this.#words.length + this.#pings + this.#acks.length > 0 || this.#nextWish() !== undefined);
  }

  /** The first wish of a kind of which none is under way. */
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
      // Closing already: its close event says so, and the next hello says the rest.
    }
  }
}
