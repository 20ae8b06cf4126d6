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

/** The words of a notification around those of the alert, in one language. Names in braces are filled in. */
export interface Words {
  /** The word before the title of an exercise (C6). */
  readonly exercise: string;
  readonly test: string;
  /** "until {time}" */
  readonly until: string;
  /** "Called off: {title}" */
  readonly cancelled: string;
  /** The alert's title in a cancel of an unknown alert. */
  readonly anAlert: string;
  /** The title if the alert had ended before it came. */
  readonly ended: string;
  /** The note that the phone's own place is outside the area. */
  readonly outside: string;
  /** The title if the push can't be read or verified. */
  readonly unknown: string;
  readonly open: string;
  /** The title if the lease ends soon and the page has to be opened; `renewBody` contains "{date}". */
  readonly renew: string;
  readonly renewBody: string;
  /** The title after the lease has been renewed shortly before its end. */
  readonly renewed: string;
}

export interface WorkerOptions {
  /** The address that a click opens or brings to the front, within the worker's scope. */
  app: string;
  /** Addresses of pictures, as `showNotification` takes them. */
  icon?: string;
  badge?: string;
  /**
   * Fetches a token from within the worker (for example by a cookie). With it the lease is renewed without a page, and
   * alerts that do not fit into a push are fetched, if the page's `Push` has `h3` and no cell is coarser than 7, the
   * limit of a stream. Without it, the person is asked to open the page.
   */
  token?: TokenSource;
  /** Show only alerts that reviewers have signed, as in `Geocast`. The page's `Push` needs `proofs`. */
  verify?: Verify;
  /** More words by language tag, besides "en" and "es": { de: { … } }. */
  words?: Readonly<Record<string, Words>>;
}

/** Start listening. Throws TypeError for options that cannot work. `scope` is the worker's `self`. */
export declare function handle(scope: unknown, options: WorkerOptions): void;
