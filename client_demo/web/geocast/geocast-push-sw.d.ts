/**
 * Web Push for a service worker:
 *
 *     import { handle } from "./geocast-push-sw.js";
 *     handle(self, { app: "/", icon: "/icon.png" });
 *
 * It listens for `push`, `notificationclick` and `pushsubscriptionchange`. Call it while the worker's script runs, and
 * have no other listener for these.
 */

import type { TokenSource, Verify } from "./geocast.js";

/** What a notification says besides what the alert says, in one language. `{…}` is put in. */
export interface Words {
  /** C6: in front of the title. */
  readonly exercise: string;
  readonly test: string;
  /** "until {time}" */
  readonly until: string;
  /** "Called off: {title}" */
  readonly cancelled: string;
  /** Where no alert is known that is called off. */
  readonly anAlert: string;
  /** It was over when it came. */
  readonly ended: string;
  /** The phone's own place is outside. */
  readonly outside: string;
  /** What came can't be read, or believed. */
  readonly unknown: string;
  readonly open: string;
  /** The lease ends: the page has to be opened. "… {date} …" */
  readonly renew: string;
  readonly renewBody: string;
  /** The lease ended soon, and goes on. */
  readonly renewed: string;
}

export interface WorkerOptions {
  /** What a click opens, or brings to the front: an address of the worker's scope. */
  app: string;
  /** Addresses of pictures, as `showNotification` takes them. */
  icon?: string;
  badge?: string;
  /**
   * Fetches a token from within the worker (by a cookie, say). With it the lease is renewed without a page, and what does
   * not fit into a push is fetched, if the page's `Push` has `h3` and no cell is coarser than 7, which is what a stream
   * takes. Without it, the person is told to open the page.
   */
  token?: TokenSource;
  /** Believe no server: as of `Geocast`. The page's `Push` needs `proofs`. */
  verify?: Verify;
  /** By language tag, beside "en" and "es": { de: { … } }. */
  words?: Readonly<Record<string, Words>>;
}

/** Listen. Throws TypeError for options that cannot work. `scope` is the worker's `self`. */
export declare function handle(scope: unknown, options: WorkerOptions): void;
