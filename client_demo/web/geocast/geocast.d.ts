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
  readonly severity: Severity;
  /** Show `exercise` and `test` as such. They reach only those whose token has the scope `alerts:test`. */
  readonly status: "actual" | "exercise" | "test";
  /** The desk or organisation that published this revision. */
  readonly source: string;
  readonly occurred_at: string;
  readonly issued_at: string;
  readonly expires_at: string;
  readonly area: readonly Shape[];
}

/** A point. `accuracy_m` is its reach, as geolocation gives it; more than 2,000 m counts as 2,000. */
export interface Point {
  lat: number;
  lng: number;
  accuracy_m?: number;
}
/** An H3 cell of resolution 7 to 15: the exact place never leaves the device. Needs the option `h3`. */
export interface Cell {
  cell: string;
}
export type Place = Point | Cell;

/** What the person wants to hear of; both have to pass. `extreme` passes every filter. */
export interface Filter {
  /** Only these categories; null or left out: all. */
  categories?: readonly string[] | null;
  /** Only this severity and worse; null or left out: all. */
  min_severity?: Severity | null;
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
  readonly reason: string;
  readonly cancelled_at: string;
}
/** `expired`: its time is over. `dropped`: more is held than can be kept; those that end first go first. */
export interface Expire extends Held {
  readonly cause: "expired" | "dropped";
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
 * `storage`   reading or writing the storage failed
 * `position`  the device gives no position (from `watchPosition`)
 * `listener`  a listener of yours threw; printed on the console when nobody listens for `error`
 * Neither field ever holds a token or a place; `cause` is whatever your own code threw.
 */
export interface Problem {
  readonly code: "token" | "refused" | "message" | "storage" | "position" | "listener";
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
  /** `held()` is different now, for whatever reason (also after page load, when it comes from the storage). */
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
  /** With it the stream is MessagePack, without it JSON. */
  msgpack?: MessagePack;
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
  /** Default: `geocast:` and the url. Pages with the same key share what they hold. */
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

  /** Say that the person has been shown this revision. It counts once, for what came on the present connection. */
  ack(alert: Pick<Alert, "id" | "revision">): void;

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
  /** How far the position may be off before it is told again, in metres beyond its accuracy. Default 25. */
  thresholdM?: number;
  /** A position that differs at all is told after this long. Default 300,000 (5 minutes). */
  refreshMs?: number;
  /** Default: `navigator.geolocation`. React Native: `@react-native-community/geolocation`. */
  geolocation?: {
    watchPosition(success: (fix: any) => void, failure?: (error: any) => void, options?: object): number;
    clearWatch(id: number): void;
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
