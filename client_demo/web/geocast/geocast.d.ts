/**
 * A client for geocast's stream: web pages, React Native, Node.
 *
 *     const geocast = new Geocast({ url: "wss://alerts.example/v1/stream", token: fetchToken });
 *     watchPosition(geocast);
 *     geocast.on("alert", ({ alert }) => { show(alert); geocast.ack(alert); });
 *
 * The client stays connected, and on reconnecting sends the list of alerts that it holds. It removes alerts that have
 * ended by the server's clock (and shows them again if that clock was wrong), and keeps alerts across page loads. Members
 * of messages keep their names (`accuracy_m`, `min_severity`, `expires_at`); everything else is camelCase. All texts of an
 * alert come from outside: put them on the page with `textContent`.
 */

// ---- messages -----------------------------------------------------------------------------------------------------

export type Severity = "extreme" | "severe" | "moderate" | "minor";

/** A shape of an area. New types may come: show the alert even if you cannot draw it. */
export interface Circle {
  readonly type: "circle";
  readonly lat: number;
  readonly lng: number;
  readonly radius_m: number;
}
/** One ring of [longitude, latitude], the last equal to the first; arcs of great circles between them. */
export interface Polygon {
  readonly type: "Polygon";
  readonly coordinates: readonly (readonly (readonly [number, number])[])[];
  /** Metres that the area reaches beyond its ring; 0 if left out. */
  readonly buffer_m?: number;
}
export interface UnknownShape {
  readonly type: string;
  readonly [field: string]: unknown;
}
export type Shape = Circle | Polygon | UnknownShape;

/** One revision of an alert, as the server sent it; frozen. Times are RFC 3339, in UTC. Fields may be added. */
export interface Alert {
  readonly id: string;
  readonly revision: number;
  readonly category: string;
  /** The category's name for people. */
  readonly title: string;
  readonly headline: string;
  readonly description?: string;
  /** What people should do; show it. Official warnings have this member and the next ones, up to `languages`. */
  readonly instruction?: string;
  /** The area in words. */
  readonly area_desc?: string;
  /** The language of the texts above; left out if the alert has only one version. */
  readonly language?: string;
  /** All languages in which the alert exists. */
  readonly languages?: readonly string[];
  readonly severity: Severity;
  /** A word of CAP, in official warnings only, like `certainty`. */
  readonly urgency?: "immediate" | "expected" | "future" | "past" | "unknown";
  readonly certainty?: "observed" | "likely" | "possible" | "unlikely" | "unknown";
  /** Show `exercise` and `test` as such. They reach only those whose token has the scope `alerts:test`. */
  readonly status: "actual" | "exercise" | "test";
  /** The desk or organisation that published this revision. */
  readonly source: string;
  readonly occurred_at: string;
  /** When the danger is expected to begin; in official warnings only. */
  readonly onset_at?: string;
  readonly issued_at: string;
  readonly expires_at: string;
  /** A page with more information. Show it as a link with its host's name, and never open it without a click. */
  readonly web?: string;
  readonly area: readonly Shape[];
}

/**
 * One revision of a call for help nearby, as it is sent to responders; frozen. Fields may be added.
 * `near` is a circle around the place. Only a task, which follows an accept, has the exact place.
 */
export interface Call {
  readonly id: string;
  readonly revision: number;
  readonly category: string;
  /** The category's name for people. */
  readonly title: string;
  readonly headline: string;
  /** Show `exercise` and `test` as such. */
  readonly status: "actual" | "exercise" | "test";
  readonly source: string;
  readonly occurred_at: string;
  readonly issued_at: string;
  readonly expires_at: string;
  /** Seconds to answer before more people are called. */
  readonly answer_s: number;
  readonly near: Circle;
}

/** A defibrillator. `open` is null if unknown. Only the one to fetch has a `code`. */
export interface Aed {
  readonly id: string;
  readonly lat: number;
  readonly lng: number;
  readonly where?: string;
  readonly level?: string;
  readonly indoor?: boolean;
  readonly open: boolean | null;
  readonly code?: string;
}

/**
 * The place to go to for a responder who has a seat; frozen. Show it only to the holder of the seat, not on a lock screen;
 * keep no copy; remove it at `standdown`.
 */
export interface Task {
  readonly id: string;
  readonly revision: number;
  /** The seat's number; 0 for an extra seat. */
  readonly seat: number;
  /** What to do: go straight to CPR, or fetch a defibrillator on the way. New roles may be added. */
  readonly role: "cpr" | "aed";
  readonly place: {
    readonly lat: number;
    readonly lng: number;
    readonly kind: "public" | "residence";
    readonly address?: string;
    /** How to get in. */
    readonly access?: string;
    /** The telephone number of the dispatcher. */
    readonly callback_phone?: string;
  };
  readonly aeds: readonly Aed[];
  /** Index in `aeds` of the one to bring; for the role `aed` only. */
  readonly fetch?: number;
  readonly status: "actual" | "exercise" | "test";
  readonly expires_at: string;
}

export type Report = "aed" | "arrived";

/** A point. `accuracy_m` is its reach, as given by geolocation; more than 2,000 m counts as 2,000. */
export interface Point {
  lat: number;
  lng: number;
  accuracy_m?: number;
  /**
   * The person is there now. A person with a qualification in the token is on duty with such a place, and off duty
   * without one. At most one place may have it. It is sent only to servers that know this member.
   */
  here?: boolean;
}
/** An H3 cell of resolution 7 to 15: the exact place never leaves the device. Needs the option `h3`. */
export interface Cell {
  cell: string;
  /** The same as for a point. */
  here?: boolean;
}
export type Place = Point | Cell;

/** Which alerts the person wants; an alert must match both. `extreme` passes every filter. */
export interface Filter {
  /** Only these categories; null or left out: all. */
  categories?: readonly string[] | null;
  /** Only this severity and worse; null or left out: all. */
  min_severity?: Severity | null;
  /** The same as the option `languages`; it filters nothing. null: the first language of each alert. */
  languages?: readonly string[] | null;
}

// ---- held alerts --------------------------------------------------------------------------------------------------

/** An alert that is live, by the server's clock, and known here. */
export interface Held {
  readonly alert: Alert;
  /**
   * Whether one of our places is inside its area. After walking out an alert is still held (its revisions and its cancel
   * still come), with `affected` false. An unknown shape counts as inside.
   */
  readonly affected: boolean;
}

/** `revision`: a higher revision came. `moved`: the places changed, and with them `affected`. */
export interface Update extends Held {
  readonly cause: "revision" | "moved";
}
export interface Cancel extends Held {
  /** Empty, like `cancelled_at`, if another page or a push received the cancel while this page slept. */
  readonly reason: string;
  readonly cancelled_at: string;
}
/** `expired`: its time is over. `dropped`: too many alerts are held; those that end first are dropped first. */
export interface Expire extends Held {
  readonly cause: "expired" | "dropped";
}

// ---- calls, for responders ----------------------------------------------------------------------------------------

/** A call to show: it is new, its content has changed, or a seat is free again. */
export interface Rung {
  readonly call: Call;
  /** From here (or else the nearest place) to the centre of `near`, in metres; null without places. */
  readonly distanceM: number | null;
}
export interface Tasked {
  readonly task: Task;
  /** null: it was accepted on another device, or before this page was loaded. */
  readonly call: Call | null;
}
/**
 * The call is over, for us or for all. Remove everything about it, also the place and notifications. `full`: enough are
 * going. `over`: the call has ended, or never was for us. `left`: we gave the seat back. `far`: we are outside of the
 * search radius now. `held-off`: we hold another seat, or held one lately. `expired`: its time is over; the server sends
 * no message for that.
 */
export interface Standdown {
  readonly id: string;
  readonly call: Call | null;
  readonly reason: "full" | "over" | "left" | "far" | "held-off" | "expired";
}
/** A held call: `task` is null without a seat; `accepted` is true also before the answer to an accept. */
export interface HeldCall {
  readonly id: string;
  readonly call: Call | null;
  readonly task: Task | null;
  readonly accepted: boolean;
  readonly distanceM: number | null;
}

// ---- status and events --------------------------------------------------------------------------------------------

/**
 * `connecting`  an attempt is under way, or what the server announced is still coming in
 * `online`      connected, and everything that concerns us has come; or the last request of the feed has succeeded
 * `waiting`     not connected; the next attempt is at `retryAt`
 * `stopped`     the server said that reconnecting makes no sense (or there will be no other token); see `reason`
 * `closed`      `close()` was called
 */
export interface Status {
  readonly state: "connecting" | "online" | "waiting" | "stopped" | "closed";
  /**
   * Why the last connection ended, in words of this library, for people. After three attempts without an answer from the
   * URL ever, it names what to check: host, port, and the page's origin.
   */
  readonly reason?: string;
  /** The close code of the last connection; 1006 when there was no close frame. */
  readonly code?: number;
  /** When `waiting`: the time of the next attempt by `Date.now()`. */
  readonly retryAt?: number;
  /** `feed`: the alerts come from the public feed, and the server knows no place. Left out for a connection. */
  readonly source?: "feed";
  /** When `online` with the feed: an alert may come this many ms after it was accepted. Tell the person. */
  readonly lateMs?: number;
}

/**
 * A failure after which the client goes on. `code`:
 * `token`     the token function failed, or returned a token that the server had refused
 * `refused`   the server refused a `move`, `filter` or `token` message
 * `message`   the server sent data that is not a valid message
 * `untrusted` with `verify`: an alert or a cancel was dropped, for the reason that `message` names
 * `storage`   reading or writing the storage failed
 * `position`  the device gives no position (from `watchPosition`)
 * `listener`  a listener of yours threw; printed on the console when nobody listens for `error`
 * Neither field ever holds a token or a place; `cause` is whatever your own code threw.
 */
export interface Problem {
  readonly code: "token" | "refused" | "message" | "untrusted" | "storage" | "position" | "listener";
  readonly message: string;
  readonly cause?: unknown;
}

export interface Events {
  /**
   * An alert that concerns us and has not been shown yet, also not before a page load. After an `expire` it comes again
   * if the server's clock was wrong and has been corrected.
   */
  alert: Held;
  /** A shown alert has a higher revision, or its `affected` has changed. */
  update: Update;
  /** A shown alert was cancelled. */
  cancel: Cancel;
  /** A shown alert is over. */
  expire: Expire;
  /** A responder is called. Play a sound that wakes the person, and `ack` the call when it is shown. */
  call: Rung;
  /** The accept got a seat: this is the place to go to. The event comes again when its content has changed. */
  task: Tasked;
  standdown: Standdown;
  /** `held()` or `calls()` has changed for any reason (also after a page load, from the storage). */
  change: void;
  status: Status;
  error: Problem;
}

// ---- options ------------------------------------------------------------------------------------------------------

/** Where the held alerts are kept. `localStorage` fits, and React Native's AsyncStorage. */
export interface Storage {
  getItem(key: string): string | null | undefined | Promise<string | null | undefined>;
  setItem(key: string, value: string): unknown;
  removeItem(key: string): unknown;
  /** For a storage with several writers: replace a value by the result of `change`, in one step. */
  update?(key: string, change: (value: string | null) => string): unknown;
  /** For a storage that a service worker shares (`Push.storage`): call `take` with each message of a push. */
  watch?(take: (handed: Handed) => Promise<boolean>): () => void;
}

/** A message from a service worker to a page: an `alert` or a `cancel`, and whether a notification has shown it. */
export interface Handed {
  readonly message: any;
  readonly told: boolean;
  /** Whether its proof has been checked. */
  readonly verified: boolean;
}

/** The needed functions of h3-js; pass the module. `latLngToCell` is only for `watchPosition` with `resolution`. */
export interface H3 {
  cellToLatLng(cell: string): number[];
  cellToBoundary(cell: string): number[][];
  isValidCell(cell: string): boolean;
  getResolution(cell: string): number;
  latLngToCell?(lat: number, lng: number, resolution: number): string;
}

/** The needed functions of @msgpack/msgpack; pass the module. */
export interface MessagePack {
  encode(value: unknown): Uint8Array;
  decode(bytes: Uint8Array): unknown;
}

/** A JWKS of public Ed25519 keys, as made by `geocast keygen --reviewer` and used in an operator's `--reviewers`. */
export interface Reviewers {
  readonly keys: readonly {
    readonly kty: "OKP";
    readonly crv: "Ed25519";
    readonly alg: "Ed25519";
    /** Names the key. */
    readonly kid: string;
    /** An opaque name of the person; approvals are counted by it. */
    readonly sub: string;
    readonly x: string;
    readonly [member: string]: unknown;
  }[];
}

/**
 * The pinned keys and limits. They must come with the app or from the review desk's own site: keys from a node would make
 * verification useless. An alert without enough valid signatures is dropped with an `error` of the code `untrusted`.
 */
export interface Verify {
  readonly keys: Reviewers;
  /** The name of the deployment, as in its policy. */
  readonly audience: string;
  /** How many reviewers must have approved an alert: 1 or more. */
  readonly approvals: number;
  /** The same for a cancel; 1 if left out. 0 also accepts cancels without a proof, as some policies allow. */
  readonly cancelApprovals?: number;
  /**
   * Returns whether an Ed25519 signature is valid, where WebCrypto lacks it (React Native): for example `verifyAsync` of
   * `@noble/ed25519`. Default: WebCrypto, which pages have in secure contexts only.
   */
  readonly with?: (signature: Uint8Array, signed: Uint8Array, publicKey: Uint8Array) => boolean | Promise<boolean>;
}

/** For tests. `now` is the wall clock, `steady` a clock that nobody sets; in milliseconds. */
export interface Clock {
  now(): number;
  steady(): number;
  setTimeout(callback: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
}

/** A JWT with the scope `alerts:receive`, or a function that fetches one. */
export type TokenSource = string | (() => string | Promise<string>);

export interface ConnectionOptions {
  /** `wss://host/v1/stream`; without a query, which the server refuses. */
  url: string;
  /**
   * A function is called before each connection, a minute before the token expires, and after the server has refused a
   * token; a refused token is never sent again. Without this option no token is sent (for a server in `--dev` mode).
   */
  token?: TokenSource;
  /** At most 8, the position of `setPosition` and `watchPosition` included. */
  places?: readonly Place[];
  filter?: Filter;
  /**
   * The wanted languages of alerts that exist in several, the preferred first: tags such as "de-AT". Invalid tags, and
   * those behind the eighth, are left out, so `navigator.languages` can be passed.
   */
  languages?: readonly string[];
  /** With it the stream is MessagePack, without it JSON. */
  msgpack?: MessagePack;
  /** Show only alerts that reviewers have signed, so that no node has to be trusted. Needs a stream that has proofs. */
  verify?: Verify;
  /** Needed when a place is a cell. */
  h3?: H3;
  /** Default: the global one (browsers, React Native, Node 22 and later). */
  WebSocket?: unknown;
  /** Default: the machine's. */
  clock?: Clock;
}

export interface Options extends Omit<ConnectionOptions, "url"> {
  /** As in `ConnectionOptions`. It may be left out if the `source` is `feed`. */
  url?: string;
  /**
   * Where alerts come from, with the same events and the same state. `socket`, the default: a connection. `feed`: the
   * public feed, of which this device takes what concerns it. The server learns an address and a time, and no place. An
   * alert comes later, see `Status`. There are no calls, tests and exercises, nobody is told of an `ack`, and `verify` is
   * refused. `auto`: a connection; and the feed while none can be made, for example because a proxy forbids it.
   */
  source?: "socket" | "feed" | "auto";
  /** For `feed`, `auto` and `setSource`: the URL of the feed's document, such as `https://alerts.example/v1/alerts.geojson`. */
  feed?: string;
  /** The longest pause between two requests of the feed, in ms: 100 to 600,000. Default 30,000. */
  feedEveryMs?: number;
  /** Default: the global one. */
  fetch?: typeof globalThis.fetch;
  /** Default: `localStorage` where there is one. null: nothing is kept. Places and tokens are never written to it. */
  storage?: Storage | null;
  /**
   * Default: `geocast:` and the url; with `verify` `geocast-verified:` and the url. Pages with the same key share what
   * they hold, so they all verify or none does.
   */
  storageKey?: string;
  /** Gives numbers in [0, 1). Default: `Math.random`. */
  random?: () => number;
}

// ---- the client ---------------------------------------------------------------------------------------------------

export declare class Geocast {
  /**
   * Starts to connect once the calling code is done, so listeners that are added at once miss nothing.
   * Throws TypeError for options that cannot work; nothing is thrown later.
   */
  constructor(options: Options);

  /** Call `listener` at each event of this name. Returns a function that removes the listener. */
  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => unknown): () => void;

  /** The present status of the connection. */
  readonly status: Status;

  /** All held alerts that are not over: the most severe first, then the latest issued. */
  held(): Held[];

  /** The server's clock in ms since 1970, as far as it is known. For "ends in …" and latencies. */
  now(): number;

  /**
   * Set the complete list of places that matter to the person, besides `position`. Held alerts are judged again at once.
   * Resolves to true when the server has confirmed the places, to false when there is no connection (the next one sends
   * them) or the server refused them (an `error` says why). Never rejects. Throws TypeError for an invalid place.
   */
  setPlaces(places: readonly Place[]): Promise<boolean>;

  /** Set the person's position, one more place before the others; null removes it. Resolves as `setPlaces` does. */
  setPosition(position: Place | null): Promise<boolean>;

  /** All places as the server gets them: the position first, if there is one. */
  readonly places: readonly Place[];

  /** Change the filter: what is left out stays, null clears. Resolves as `setPlaces` does. */
  setFilter(filter: Filter): Promise<boolean>;

  /**
   * Change the source. What is held stays, and no event is repeated. From `socket` to `feed` the server forgets our places
   * at once. Throws TypeError without the option `feed` (or `url`).
   */
  setSource(source: "socket" | "feed" | "auto"): void;

  /** How many messages were dropped because they were odd, since the client was made; an `error` event told each. */
  readonly dropped: number;

  /** The valid qualifications of our token, from the server's last welcome; without one there are no calls. */
  readonly quals: readonly string[];
  /**
   * Until when we are not called because we have just helped somebody, in ms since 1970 by the server's clock; null if
   * we may be called.
   */
  readonly restUntil: number | null;

  /** The held calls: those with a task first, then those that end last. */
  calls(): HeldCall[];

  /**
   * Accept a call, arriving in `etaS` seconds. A `task` or a `standdown` follows; until then the accept is repeated, also
   * on later connections. Throws TypeError for an `etaS` outside 0 to 7,200 and for a malformed id.
   */
  accept(id: string, etaS?: number): void;

  /** Decline a call, also after an accept: then the seat is free again. The call is dropped, and not reported again. */
  decline(id: string): void;

  /**
   * Report to the dispatcher: I have a defibrillator, or I have arrived. Only the last report in 6 s is sent. Throws
   * TypeError without a task of this id.
   */
  report(id: string, state: Report): void;

  /** The same as `report(id, "arrived")`. */
  arrived(id: string): void;

  /**
   * Ask for one test alert to this connection alone, at most once in an hour for each subject. It comes as an `alert` event
   * with the status `test`, right after the promise has resolved to its `id`. Otherwise the promise resolves to a `reason`:
   * `not-connected`, `no-place`, `rate-limited` (try again after `retryAfterS`), or `unknown-type` from an older server. The
   * refusal is an `error` event too. Never rejects.
   */
  try(): Promise<{ id: string } | { reason: string; retryAfterS?: number }>;

  /** Acknowledge that the person has seen this revision. It counts once, if it came on the present connection. */
  ack(alert: Pick<Alert | Call, "id" | "revision">): void;

  /**
   * Test the connection at once, and ask the feed at once. The client does so itself when the browser is online again or the page is shown again; in
   * React Native call it when AppState becomes `active`.
   */
  check(): void;

  /** Drop all held alerts and calls, also in the storage, after a log-out. Call `close()` first. */
  forget(): Promise<void>;

  /** Close the connection for good. Held alerts stay in the storage. */
  close(): void;
}

// ---- helpers ------------------------------------------------------------------------------------------------------

export interface WatchOptions {
  /** Send only the H3 cell of this resolution (7 to 15), never the point. Needs the option `h3` of the client. */
  resolution?: number;
  /** For responders: the position is `here` (see Point). When a call comes, a fresh position is sent at once. */
  here?: boolean;
  /** How far the position may be off before it is sent again, in metres beyond its accuracy. Default 25. */
  thresholdM?: number;
  /** A position that differs at all is sent after this many ms. Default 300,000 (5 minutes). */
  refreshMs?: number;
  /** A `Push` that also gets each position that is sent. */
  push?: { setPosition(position: Place | null): void };
  /** Default: `navigator.geolocation`. React Native: `@react-native-community/geolocation`. */
  geolocation?: {
    watchPosition(success: (fix: any) => void, failure?: (error: any) => void, options?: object): number;
    clearWatch(id: number): void;
    getCurrentPosition?(success: (fix: any) => void, failure?: (error: any) => void, options?: object): void;
  };
  /** Default `{ enableHighAccuracy: false, maximumAge: 30_000 }`. */
  positionOptions?: object;
}

/** Follow the device, and call `setPosition` when it matters. Returns a function that stops; the last position stays. */
export declare function watchPosition(geocast: Geocast, options?: WatchOptions): () => void;

export interface FetchOptions extends ConnectionOptions {
  /** Alerts that are held already: id -> revision, as a Map or as an object's own entries. Not together with `storage`. */
  holding?: ReadonlyMap<string, number> | Readonly<Record<string, number>>;
  /** Use and update the alerts that a `Geocast` with the same storage and key keeps. */
  storage?: Storage | null;
  storageKey?: string;
  /** Acknowledge the alerts that affect us; true only if they are certain to be shown. Default false. */
  ack?: boolean;
  /** Give up after this many ms. Default 20,000. */
  timeoutMs?: number;
}

export interface Fetched {
  /** New alerts and higher revisions, the most severe first. */
  readonly alerts: Held[];
  /** Cancels of alerts in `holding` or in the storage. */
  readonly cancels: { readonly id: string; readonly revision: number; readonly reason: string }[];
  /** For responders: open calls, tasks, and calls of `holding` that are over. Put no place into a notification. */
  readonly calls: Call[];
  readonly tasks: Task[];
  readonly standdowns: { readonly id: string; readonly reason: string }[];
  /** With `verify`: the dropped messages. */
  readonly untrusted: {
    readonly type: "alert" | "cancel";
    readonly reason: "unsigned" | "signature" | "other-place" | "unknown-key" | "too-few";
  }[];
  /** The server's clock, in ms since 1970. */
  readonly now: number;
}

/**
 * Open one short connection, for a phone that was woken in the background: connect, receive the waiting messages, close.
 * Rejects with a GeocastError if there is no connection, after a refusal (`closeCode` 4401: get a new token) or a timeout,
 * and with any error of the token function.
 */
export declare function fetchLive(options: FetchOptions): Promise<Fetched>;

export declare class GeocastError extends Error {
  /** The close code, where the connection was closed. */
  readonly closeCode?: number;
}

/** Great-circle distance in metres, on the protocol's sphere. */
export declare function distanceM(
  a: { readonly lat: number; readonly lng: number },
  b: { readonly lat: number; readonly lng: number },
): number;
