/**
 * A client for geocast's stream: web pages, React Native, Node.
 *
 *     const geocast = new Geocast({ url: "wss://alerts.example/v1/stream", token: fetchToken });
 *     watchPosition(geocast);
 *     geocast.on("alert", ({ alert }) => { show(alert); geocast.ack(alert); });
 *
 * It stays connected by itself, says on return what it holds, takes away what has ended by the server's clock (and shows
 * it again if that clock was wrong), and keeps what it holds across page loads. What crosses the wire keeps its name (`accuracy_m`, `min_severity`, `expires_at`);
 * everything else is camelCase. All text of an alert is text from outside: put it on the page with `textContent`.
 */

// ---- what crosses the wire ----------------------------------------------------------------------------------------

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
  /** How many metres it reaches beyond its ring; 0 if left out. */
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
  /** What people are to do: show it. This, and what follows up to `languages`, is of official warnings. */
  readonly instruction?: string;
  /** The area in words. */
  readonly area_desc?: string;
  /** Of the texts above; left out where the alert is the same for everybody. */
  readonly language?: string;
  /** All in which the alert is to be had. */
  readonly languages?: readonly string[];
  readonly severity: Severity;
  /** The words of CAP, of official warnings; and so is `certainty`. */
  readonly urgency?: "immediate" | "expected" | "future" | "past" | "unknown";
  readonly certainty?: "observed" | "likely" | "possible" | "unlikely" | "unknown";
  /** Show `exercise` and `test` as such. They reach only those whose token has the scope `alerts:test`. */
  readonly status: "actual" | "exercise" | "test";
  /** The desk or organisation that published this revision. */
  readonly source: string;
  readonly occurred_at: string;
  /** When what it warns of is expected to begin, of official warnings. */
  readonly onset_at?: string;
  readonly issued_at: string;
  readonly expires_at: string;
  /** Where more is to be read. Offer it by its host's name, and never open it by itself. */
  readonly web?: string;
  readonly area: readonly Shape[];
}

/**
 * Somebody needs help near: one revision of a call, as it is rung; frozen. Fields may be added.
 * `near` is a circle round where that is. Who has accepted is told exactly where, by a task.
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
  /** So many seconds there are to answer before more people are called. */
  readonly answer_s: number;
  readonly near: Circle;
}

/** A defibrillator. `open`: null where that is not known. `code` only of the one to fetch. */
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
 * A seat is ours, and this is where to go; frozen. Show it to who holds the seat and to nobody else, not on a lock
 * screen; keep no copy; take it away with `standdown`.
 */
export interface Task {
  readonly id: string;
  readonly revision: number;
  /** Its number; 0 of one beyond those that there are. */
  readonly seat: number;
  /** What to do: CPR, or by way of a defibrillator. New ones may come. */
  readonly role: "cpr" | "aed";
  readonly place: {
    readonly lat: number;
    readonly lng: number;
    readonly kind: "public" | "residence";
    readonly address?: string;
    /** How to get in. */
    readonly access?: string;
  };
  readonly aeds: readonly Aed[];
  /** Which of `aeds` to bring; of the role `aed` only. */
  readonly fetch?: number;
  readonly status: "actual" | "exercise" | "test";
  readonly expires_at: string;
}

export type Report = "aed" | "arrived";

/** A point. `accuracy_m` is its reach, as geolocation gives it; more than 2,000 m counts as 2,000. */
export interface Point {
  lat: number;
  lng: number;
  accuracy_m?: number;
  /**
   * The person is there now: who has a qualification in the token is on duty with such a place, and off duty without
   * one. One place at most. It is said to servers that know of it.
   */
  here?: boolean;
}
/** An H3 cell of resolution 7 to 15: the exact place never leaves the device. Needs the option `h3`. */
export interface Cell {
  cell: string;
  /** As of a point. */
  here?: boolean;
}
export type Place = Point | Cell;

/** What the person wants to hear of; both have to pass. `extreme` passes every filter. */
export interface Filter {
  /** Only these categories; null or left out: all. */
  categories?: readonly string[] | null;
  /** Only this severity and worse; null or left out: all. */
  min_severity?: Severity | null;
  /** Holds nothing back: as the option `languages`. null: the first language of each alert. */
  languages?: readonly string[] | null;
}

// ---- what is held -------------------------------------------------------------------------------------------------

/** An alert that is live, by the server's clock, and known here. */
export interface Held {
  readonly alert: Alert;
  /**
   * Whether one of our places is inside its area. Alerts stay held after walking out (their revisions and their cancel
   * still come), with `affected` false. With a shape that is not known here: true.
   */
  readonly affected: boolean;
}

/** `revision`: a higher revision came. `moved`: the places changed, and with them `affected`. */
export interface Update extends Held {
  readonly cause: "revision" | "moved";
}
export interface Cancel extends Held {
  /** Empty where another page, or a push, was told it while this page slept; and so is `cancelled_at`. */
  readonly reason: string;
  readonly cancelled_at: string;
}
/** `expired`: its time is over. `dropped`: more is held than can be kept; those that end first go first. */
export interface Expire extends Held {
  readonly cause: "expired" | "dropped";
}

// ---- calls, for responders ----------------------------------------------------------------------------------------

/** A call that rings: it is new, its content has changed, or a seat is free again. */
export interface Rung {
  readonly call: Call;
  /** From here (else from the nearest place) to the middle of `near`, in metres; null without places. */
  readonly distanceM: number | null;
}
export interface Tasked {
  readonly task: Task;
  /** null: it was accepted on another device, or before this page was loaded. */
  readonly call: Call | null;
}
/**
 * It is called off for us, or over. Take all of it away, the place and its notifications too. `full`: enough are going.
 * `over`: it has ended, or never was for us. `left`: we gave the seat back. `far`: not within the ring now. `held-off`: we
 * hold another seat, or held one lately. `expired`: its time is over, of which the server says nothing.
 */
export interface Standdown {
  readonly id: string;
  readonly call: Call | null;
  readonly reason: "full" | "over" | "left" | "far" | "held-off" | "expired";
}
/** A call that is held: `task` is null without a seat; `accepted`, also while there is no answer yet. */
export interface HeldCall {
  readonly id: string;
  readonly call: Call | null;
  readonly task: Task | null;
  readonly accepted: boolean;
  readonly distanceM: number | null;
}

// ---- how it goes --------------------------------------------------------------------------------------------------

/**
 * `connecting`  an attempt is under way, or what the server announced is still coming in
 * `online`      connected, and everything that concerns us has come
 * `waiting`     not connected; the next attempt is at `retryAt`
 * `stopped`     the server said that coming back makes no sense (or no token can be had, ever); see `reason`
 * `closed`      `close()` was called
 */
export interface Status {
  readonly state: "connecting" | "online" | "waiting" | "stopped" | "closed";
  /** Why the last connection ended, in words of this library, for people. */
  readonly reason?: string;
  /** The close code of the last connection; 1006 when there was no close frame. */
  readonly code?: number;
  /** When `waiting`: the time of the next attempt by `Date.now()`. */
  readonly retryAt?: number;
}

/**
 * Something went wrong and the client goes on. `code`:
 * `token`     the token function failed, or gave again what the server had refused
 * `refused`   the server refused a `move`, `filter` or `token` message
 * `message`   the server sent something that is no message
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
   * An alert that concerns us and has not been shown yet, over page loads too. After an `expire` it comes again if the
   * server's clock was wrong, and is right now.
   */
  alert: Held;
  /** Something that was shown has a higher revision, or `affected` has changed. */
  update: Update;
  /** Something that was shown is called off. */
  cancel: Cancel;
  /** Something that was shown is over. */
  expire: Expire;
  /** A responder is called. Ring so that it wakes, and `ack` it when it is shown. */
  call: Rung;
  /** An accept was heard in time: this is where to go. It comes again when its content has changed. */
  task: Tasked;
  standdown: Standdown;
  /** `held()` or `calls()` is different now, for whatever reason (also after page load, when it comes from the storage). */
  change: void;
  status: Status;
  error: Problem;
}

// ---- what is passed in --------------------------------------------------------------------------------------------

/** Where the held alerts are kept. `localStorage` fits, and React Native's AsyncStorage. */
export interface Storage {
  getItem(key: string): string | null | undefined | Promise<string | null | undefined>;
  setItem(key: string, value: string): unknown;
  removeItem(key: string): unknown;
  /** Of a storage that others write to: what is there becomes what `change` makes of it, in one step. */
  update?(key: string, change: (value: string | null) => string): unknown;
  /** Of a storage that a service worker shares (`Push.storage`): have `take` called with what a push has told. */
  watch?(take: (handed: Handed) => Promise<boolean>): () => void;
}

/** What a service worker hands to a page: an `alert` or a `cancel`, and whether a notification has told of it. */
export interface Handed {
  readonly message: any;
  readonly told: boolean;
  /** Whether its proof has been checked. */
  readonly verified: boolean;
}

/** What is needed of h3-js: pass the module itself. `latLngToCell` only for `watchPosition` with `resolution`. */
export interface H3 {
  cellToLatLng(cell: string): number[];
  cellToBoundary(cell: string): number[][];
  isValidCell(cell: string): boolean;
  getResolution(cell: string): number;
  latLngToCell?(lat: number, lng: number, resolution: number): string;
}

/** What is needed of @msgpack/msgpack: pass the module itself. */
export interface MessagePack {
  encode(value: unknown): Uint8Array;
  decode(bytes: Uint8Array): unknown;
}

/** What `geocast keygen --reviewer` draws and an operator's `--reviewers` has: a JWKS of public Ed25519 keys. */
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
 * What is pinned. It comes with the app, or from the review desk's own site: whoever gets it from a node need not
 * verify. An alert that is without as many good signatures is dropped, and an `error` with the code `untrusted` says so.
 */
export interface Verify {
  readonly keys: Reviewers;
  /** The name of the deployment, as its policy has it. */
  readonly audience: string;
  /** How many reviewers must have approved an alert: 1 or more. */
  readonly approvals: number;
  /** The same for a cancel; 1 if left out. 0 takes cancels without a proof too, as some policies allow them. */
  readonly cancelApprovals?: number;
  /**
   * Whether an Ed25519 signature is good, where there is no WebCrypto that knows (React Native):
   * `verifyAsync` of `@noble/ed25519`, for one. Default: WebCrypto, which pages have in secure contexts only.
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
   * A function is called before each connection, a minute before the token expires, and after the server has refused
   * one; a token that was refused is never sent again. Left out: none is sent (a server in `--dev` mode).
   */
  token?: TokenSource;
  /** At most 8, the position of `setPosition` and `watchPosition` included. */
  places?: readonly Place[];
  filter?: Filter;
  /**
   * In which languages alerts are wanted that come in several, the most wanted first: tags such as "de-AT". What is no
   * such tag is left out, and so is what comes behind the eighth: `navigator.languages` will do.
   */
  languages?: readonly string[];
  /** With it the stream is MessagePack, without it JSON. */
  msgpack?: MessagePack;
  /** Believe no node: show only what reviewers have signed. Needs a stream that has proofs. */
  verify?: Verify;
  /** Needed when a place is a cell. */
  h3?: H3;
  /** Default: the global one (browsers, React Native, Node 22 and later). */
  WebSocket?: unknown;
  /** Default: the machine's. */
  clock?: Clock;
}

export interface Options extends ConnectionOptions {
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

  /** Call `listener` at each event of this name. The answer ends that. */
  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => unknown): () => void;

  /** How the connection is now. */
  readonly status: Status;

  /** All that is held and not over: the most severe first, then the latest issued. */
  held(): Held[];

  /** The server's clock in ms since 1970, as well as it is known. For "ends in …" and latencies. */
  now(): number;

  /**
   * The places the person cares about, the whole list; `position` comes on top. At once for what is held.
   * Resolves to true when the server has confirmed it, to false when it could not be asked (the next connection says
   * it) or refused (an `error` says why). Never rejects. Throws TypeError for what is no place.
   */
  setPlaces(places: readonly Place[]): Promise<boolean>;

  /** Where the person is: one more place, before the others; null for nowhere. As `setPlaces`. */
  setPosition(position: Place | null): Promise<boolean>;

  /** All places as the server is told: the position first, if there is one. */
  readonly places: readonly Place[];

  /** Change the filter: what is left out stays, null clears. Resolves as `setPlaces` does. */
  setFilter(filter: Filter): Promise<boolean>;

  /** The qualifications of our token that count, as the server said last; without one nothing rings. */
  readonly quals: readonly string[];

  /** The calls that are held: those with a task first, then what ends last. */
  calls(): HeldCall[];

  /**
   * I am going, and there in `etaS` seconds. A `task` comes, or a `standdown`; until then it is repeated, over as many
   * connections as it takes. Throws TypeError for an `etaS` that is not 0 to 7,200, and for what is no id.
   */
  accept(id: string, etaS?: number): void;

  /** I am not going, or no longer: then the seat is free again. The call is dropped, and not told again. */
  decline(id: string): void;

  /**
   * Tell the dispatcher: I have a defibrillator, or I am there. Throws TypeError for who has no task of this id. One in
   * 6 s is sent, the last one.
   */
  report(id: string, state: Report): void;

  /** The same as `report(id, "arrived")`. */
  arrived(id: string): void;

  /** Say that the person has been shown this revision. It counts once, for what came on the present connection. */
  ack(alert: Pick<Alert | Call, "id" | "revision">): void;

  /**
   * Find out at once whether the connection still lives. Called by itself when the browser is online again or the page
   * is shown again; in React Native call it when AppState becomes `active`.
   */
  check(): void;

  /** Drop all that is held, here and in the storage: the person has logged out. Call `close()` first. */
  forget(): Promise<void>;

  /** Say goodbye and end. What is held stays in the storage. */
  close(): void;
}

// ---- helpers ------------------------------------------------------------------------------------------------------

export interface WatchOptions {
  /** Tell only the H3 cell of this resolution (7 to 15), never the point. Needs the option `h3` of the client. */
  resolution?: number;
  /** For responders: the position is `here` (see Point). When a call rings, a fresh one is told at once. */
  here?: boolean;
  /** How far the position may be off before it is told again, in metres beyond its accuracy. Default 25. */
  thresholdM?: number;
  /** A position that differs at all is told after this long. Default 300,000 (5 minutes). */
  refreshMs?: number;
  /** Tell it, too, where we are, whenever that is told. */
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

/** Follow the device: `setPosition` whenever it matters. The answer ends it; the last position stays. */
export declare function watchPosition(geocast: Geocast, options?: WatchOptions): () => void;

export interface FetchOptions extends ConnectionOptions {
  /** What is held already: id -> revision, as a Map or as an object's own entries. Not together with `storage`. */
  holding?: ReadonlyMap<string, number> | Readonly<Record<string, number>>;
  /** Use, and bring up to date, what a `Geocast` with the same storage and key keeps. */
  storage?: Storage | null;
  storageKey?: string;
  /** Acknowledge those of the alerts that affect us; true only if they are shown for sure. Default false. */
  ack?: boolean;
  /** Give up after this long. Default 20,000. */
  timeoutMs?: number;
}

export interface Fetched {
  /** New alerts and higher revisions, the most severe first. */
  readonly alerts: Held[];
  /** Of `holding`, or of what the storage held: called off. */
  readonly cancels: { readonly id: string; readonly revision: number; readonly reason: string }[];
  /** For responders: what rings now, where to go, and what is called off of `holding`. Notify of no place. */
  readonly calls: Call[];
  readonly tasks: Task[];
  readonly standdowns: { readonly id: string; readonly reason: string }[];
  /** With `verify`: what was dropped. */
  readonly untrusted: {
    readonly type: "alert" | "cancel";
    readonly reason: "unsigned" | "signature" | "other-place" | "unknown-key" | "too-few";
  }[];
  /** The server's clock, in ms since 1970. */
  readonly now: number;
}

/**
 * One short connection, for a phone that was woken in the background: connect, take what the server has for us, close.
 * Rejects with a GeocastError: no connection, a refusal (`closeCode` 4401: get a new token), or the time is over; and
 * with what the token function threw.
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
