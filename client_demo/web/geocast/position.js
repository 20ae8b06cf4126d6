/**
 * Following the device: its position is sent to the server whenever the change matters.
 */

/** @import { Geocast, H3, Problem, WatchOptions } from "./geocast.js" */
/** @import { Spot } from "./geo.js" */

import { cellSpot, COARSEST_CELL, distanceM, spotOf } from "./geo.js";

/**
 * @param {Geocast} geocast @param {{ h3: H3 | undefined, problem: (problem: Problem) => void }} inside
 * @param {WatchOptions} options @returns {() => void} a function that stops following
 */
export function follow(geocast, { h3, problem }, options) {
  const { resolution, thresholdM = 25, refreshMs = 300_000, geolocation = globalThis.navigator?.geolocation } = options;
  const { positionOptions = { enableHighAccuracy: false, maximumAge: 30_000 } } = options;
  if (!geolocation) throw new TypeError("geolocation: there is none here; pass it");
  if (resolution !== undefined && !h3?.latLngToCell) throw new TypeError("resolution: needs the client's option h3");
  /** @type {Spot | null} */
  let told = null;
  let toldAt = 0;
  /** @param {Spot} fix @returns {Spot | null} the place to send; null if it makes no difference */
  const toTell = (fix) => {
    if (resolution === undefined)
      return positionMatters(told, fix, Date.now() - toldAt, thresholdM, refreshMs) ? fix : null;
    const cell = cellAround(fix, /** @type {H3} */ (h3), resolution);
    return cellMatters(told, cell, fix) ? cell : null;
  };
  const failed = (/** @type {unknown} */ cause) =>
    problem({ code: "position", message: "the device gives no position", cause });
  const take = (/** @type {{ coords: GeolocationCoordinates }} */ { coords }) => {
    const { latitude: lat, longitude: lng, accuracy: accuracy_m } = coords;
    const spot = toTell(spotOf({ lat, lng, accuracy_m }, h3, "position"));
    if (spot === null) return;
    [told, toldAt] = [spot, Date.now()];
    geocast.setPosition(options.here ? { ...spot.wire, here: true } : spot.wire);
    options.push?.setPosition({ lat, lng, accuracy_m });
  };
  const takeSafely = (/** @type {any} */ fix) => {
    try {
      take(fix);
    } catch (cause) {
      failed(cause);
    }
  };
  /** A call has come: send the position now, whatever was sent last (protocol, RU1). */
  const comeNear = () => {
    told = null;
    geolocation.getCurrentPosition?.(takeSafely, failed, { ...positionOptions, enableHighAccuracy: true, maximumAge: 0 });
  };
  const unwatchCalls = options.here ? geocast.on("call", comeNear) : () => {};
  const id = geolocation.watchPosition(takeSafely, failed, positionOptions);
  return () => {
    unwatchCalls();
    geolocation.clearWatch(id);
  };
}

/**
 * Return the cell around a position, of this resolution, or of a coarser one if the position is less accurate.
 * @param {Spot} fix @param {H3} h3 @param {number} resolution
 * @param {number} [coarsest] @returns {Spot}
 */
export function cellAround(fix, h3, resolution, coarsest = COARSEST_CELL) {
  const spot = cellSpot(h3.latLngToCell?.(fix.lat, fix.lng, resolution), h3, "position", coarsest);
  return spot.reach < fix.reach && resolution > coarsest ? cellAround(fix, h3, resolution - 1, coarsest) : spot;
}

/**
 * Return whether to send a new cell: the disc of the former cell no longer contains the position, or a finer cell is
 * possible. At the border of two cells the cell does not alternate.
 * @param {Spot | null} told @param {Spot} spot the new cell @param {Spot} fix the position
 */
export function cellMatters(told, spot, fix) {
  if (told === null) return true;
  const isOther = told.lat !== spot.lat || told.lng !== spot.lng;
  return isOther && (Math.max(distanceM(told, fix), fix.reach) > told.reach || told.reach > 2 * spot.reach);
}

/**
 * Return whether to send a new position: the former disc no longer covers it or is much too wide, or the position has
 * differed at all for `refreshMs`.
 * @param {Spot | null} told @param {Spot} spot @param {number} elapsedMs since the former position was sent
 * @param {number} thresholdM @param {number} refreshMs
 */
export function positionMatters(told, spot, elapsedMs, thresholdM, refreshMs) {
  if (told === null) return true;
  const moved = distanceM(told, spot);
  if (elapsedMs >= refreshMs && (moved > 0 || told.reach !== spot.reach)) return true;
  return moved + spot.reach > told.reach + thresholdM || told.reach > 2 * spot.reach + thresholdM;
}
