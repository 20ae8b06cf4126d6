/**
 * Web Push for a page: whoever sleeps is told all the same.
 *
 *     const push = new Push({ url: "https://alerts.example/v1", token: fetchToken, worker: "/sw.js", places });
 *     const geocast = new Geocast({ url: "wss://alerts.example/v1/stream", token: fetchToken, storage: push.storage });
 *     button.onclick = () => push.enable(); // asks the person, so it has to be a click
 *
 * The service worker is yours, and calls `handle` (geocast-push-sw.d.ts). Page and worker keep what they hold in one
 * IndexedDB store, so what a socket and a push both tell is shown once.
 */

import type { Clock, Filter, H3, Place, Storage, TokenSource } from "./geocast.js";

/**
 * `starting`        not known yet: the first look at the browser and the store is under way
 * `unsupported`     there is no Web Push here; `reason` says what is missing
 * `home-screen`     an iPhone or iPad: pages have Web Push there once the person has put them on the home screen
 * `denied`          the person does not want notifications of this page; only they can change it, in the browser
 * `off`             it can be enabled
 * `on`              registered until `until`
 * `not-registered`  the person wants it, and the server, or the browser's push service, does not (yet): see `reason`.
 *                   It is tried again at the next opening, sooner where waiting is all that it needs
 */
export interface PushState {
  readonly state: "starting" | "unsupported" | "home-screen" | "denied" | "off" | "on" | "not-registered";
  /** In words of this library, for people who know what a server is. */
  readonly reason?: string;
  /** What the server's problem is called, of `not-registered`: "too-many-devices", "full", "endpoint-not-allowed" … */
  readonly problem?: string;
  /** When the lease ends, in ms since 1970; it is renewed daily at an opening. */
  readonly until?: number;
}

/**
 * Something went wrong, and it goes on. `code`:
 * `token`         the token function failed
 * `server`        the server refused something or can't be reached; what was registered before stands
 * `subscription`  the browser gives no subscription
 * `storage`       IndexedDB failed
 * `listener`      a listener of yours threw
 * Neither field ever holds a token, a place or an endpoint; `cause` is what was thrown.
 */
export interface PushProblem {
  readonly code: "token" | "server" | "subscription" | "storage" | "listener";
  readonly message: string;
  readonly cause?: unknown;
}

export interface PushEvents {
  state: PushState;
  error: PushProblem;
}

export interface PushOptions {
  /** `https://host/v1`, under which `push` and `devices` are; without a query. */
  url: string;
  /** A JWT with the scope `alerts:receive`, or a function that fetches one: the one that `Geocast` has. */
  token: TokenSource;
  /** The address of your service worker, which calls `handle`. */
  worker: string;
  /** "classic" for a bundle, where browsers are to be reached whose workers can't be modules. Default "module". */
  workerType?: "module" | "classic";
  /**
   * At most 8, the position of `setPosition` included. The server is told H3 cells: of a point the one of `resolution`
   * (a point needs `h3`), of a cell finer than 9 the one around it. The places themselves stay on this device, where the
   * worker says of an alert that it is not where you are. Default: those that were said last.
   */
  places?: readonly Place[];
  /** Of the cells that the server is told, 5 to 9: at 8 one reaches some 0.6 km, at 9 some 0.2 km. Default 8. */
  resolution?: number;
  filter?: Filter;
  /** As of `Geocast`. Default: the browser's. */
  languages?: readonly string[];
  /** Have each push say what reviewers have signed. Give the worker's `handle` what it is to be checked by. */
  proofs?: boolean;
  /** Needed for places that are points. With it the worker also knows where cells are: what is outside of them it says. */
  h3?: H3;
  /** The stream of the same deployment, as your `Geocast` has it. Default: `url`, with `ws` for `http`, and `/stream`. */
  stream?: string;
  /** Default: the machine's. */
  clock?: Clock;
}

export declare class Push {
  /** Looks at once whether it is on, and renews what is due. Throws TypeError for options that cannot work. */
  constructor(options: PushOptions);

  /** Call `listener` at each event of this name. The answer ends that. */
  on<Name extends keyof PushEvents>(name: Name, listener: (event: PushEvents[Name]) => unknown): () => void;

  readonly state: PushState;

  /** For `Geocast` and `fetchLive`: what the worker has told is held there, too, and what they hold it does not tell. */
  readonly storage: Storage;

  /**
   * Ask the person, subscribe, register. Call it in the handler of a click, first of all: browsers want a gesture.
   * Resolves to what has become of it, and never rejects.
   */
  enable(): Promise<PushState>;

  /** Have the server forget this device, unsubscribe, take notifications away, and drop what is held. */
  disable(): Promise<PushState>;

  /** The places the person cares about, the whole list. Told at once if a cell is another one. Throws TypeError. */
  setPlaces(places: readonly Place[]): void;

  /**
   * Where the person is: one more place; null for nowhere. Told if its cell is another one, every 10 minutes at most.
   * Throws TypeError.
   */
  setPosition(position: Place | null): void;

  /** What is left out stays, null clears. Throws TypeError. */
  setFilter(filter: Filter): void;

  /** Look again, as at an opening. Called by itself when the page is shown again. */
  check(): Promise<PushState>;

  /** Listen no more; the registration stays. */
  close(): void;
}
