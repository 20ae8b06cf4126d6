/**
 * Web Push for a page, for alerts while the page is closed.
 *
 *     const push = new Push({ url: "https://alerts.example/v1", token: fetchToken, worker: "/sw.js", places });
 *     const geocast = new Geocast({ url: "wss://alerts.example/v1/stream", token: fetchToken, storage: push.storage });
 *     button.onclick = () => push.enable(); // asks the person, so browsers require a click
 *
 * The service worker is yours, and calls `handle` (geocast-push-sw.d.ts). Page and worker share their held alerts in one
 * IndexedDB store, so an alert that comes by socket and by push is shown once.
 */

import type { Clock, Filter, H3, Place, Storage, TokenSource } from "./geocast.js";

/**
 * `starting`        not known yet: the browser and the store are being checked
 * `unsupported`     there is no Web Push here; `reason` names the missing feature
 * `home-screen`     an iPhone or iPad: pages have Web Push there once the person has put them on the home screen
 * `denied`          the person does not want notifications of this page; only they can change it, in the browser
 * `off`             it can be enabled
 * `on`              registered until `until`
 * `not-registered`  the person wants it, but the server or the browser's push service has refused or failed: see `reason`.
 *                   It is tried again when the page is opened next, or sooner if waiting may help
 */
export interface PushState {
  readonly state: "starting" | "unsupported" | "home-screen" | "denied" | "off" | "on" | "not-registered";
  /** A text of this library, for technical readers. */
  readonly reason?: string;
  /** The server's problem type, for `not-registered`: "too-many-devices", "full", "endpoint-not-allowed" … */
  readonly problem?: string;
  /** When the lease ends, in ms since 1970; it is renewed at most daily, when the page is opened. */
  readonly until?: number;
}

/**
 * A failure after which `Push` goes on. `code`:
 * `token`         the token function failed
 * `server`        the server refused something or can't be reached; the former registration stays valid
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
  /** A JWT with the scope `alerts:receive`, or a function that fetches one: the same as for `Geocast`. */
  token: TokenSource;
  /** The address of your service worker, which calls `handle`. */
  worker: string;
  /** "classic" for a bundle, to reach browsers whose workers can't be modules. Default "module". */
  workerType?: "module" | "classic";
  /**
   * At most 8, the position of `setPosition` included. The server gets H3 cells: for a point the cell of `resolution` (a
   * point needs `h3`), for a cell finer than 9 the one around it. The exact places stay on this device, where the worker
   * uses them to mark alerts that are elsewhere. Default: the places that were set last.
   */
  places?: readonly Place[];
  /** Resolution of the cells that the server gets, 5 to 9: a cell of 8 reaches about 0.6 km, of 9 about 0.2 km. Default 8. */
  resolution?: number;
  filter?: Filter;
  /** The same as for `Geocast`. Default: the browser's. */
  languages?: readonly string[];
  /** Ask for signed pushes. Pass `verify` to the worker's `handle` to check them. */
  proofs?: boolean;
  /** Needed for places that are points. With it the worker can also say that an alert is outside of your cells. */
  h3?: H3;
  /** The stream of the same deployment, as in your `Geocast`. Default: `url`, with `ws` for `http`, and `/stream`. */
  stream?: string;
  /** Default: the machine's. */
  clock?: Clock;
}

export declare class Push {
  /** Checks the state at once, and renews the lease if due. Throws TypeError for options that cannot work. */
  constructor(options: PushOptions);

  /** Call `listener` at each event of this name. Returns a function that removes the listener. */
  on<Name extends keyof PushEvents>(name: Name, listener: (event: PushEvents[Name]) => unknown): () => void;

  readonly state: PushState;

  /** A storage for `Geocast` and `fetchLive`, shared with the worker, so that neither shows an alert of the other again. */
  readonly storage: Storage;

  /**
   * Ask the person, subscribe, register. Call this first in the handler of a click, as browsers require a gesture.
   * Resolves to the new state, and never rejects.
   */
  enable(): Promise<PushState>;

  /** Delete the registration, unsubscribe, close notifications, and drop held alerts. */
  disable(): Promise<PushState>;

  /** Set the complete list of places. They are sent at once if a cell has changed. Throws TypeError. */
  setPlaces(places: readonly Place[]): void;

  /**
   * Set the person's position, one more place; null removes it. It is sent if its cell has changed, at most every 10
   * minutes. Throws TypeError.
   */
  setPosition(position: Place | null): void;

  /** Change the filter: an omitted member stays, null clears. Throws TypeError. */
  setFilter(filter: Filter): void;

  /** Check again, as when the page is opened. This also happens when the page is shown again. */
  check(): Promise<PushState>;

  /**
   * Ask for one test alert, pushed to this device alone, at most once in an hour for each subject. Resolves to its `id`, or
   * to a `reason`: `not-registered`, `rate-limited` (try again after `retryAfterS`), or what else the server says. Never
   * rejects.
   */
  try(): Promise<{ id: string } | { reason: string; retryAfterS?: number }>;

  /** Stop listening; the registration stays. */
  close(): void;
}
