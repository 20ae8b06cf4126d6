/**
 * The sphere of the protocol ("Distance"): a client decides for itself whether it is inside.
 * Coordinates are in degrees, distances in metres.
 */

/** @import { Circle, H3, Place, Shape } from "./geocast.js" */
/** @typedef {{ lat: number, lng: number, reach: number, here: boolean, wire: Place }} Spot  A place, in the form for judging and, as `wire`, for sending. */

import { circleAround, depthOf, isPolygon } from "./polygon.js";

const EARTH_RADIUS_M = 6_371_007.180918475; // the radius that H3 uses, as the protocol says
const MAX_ACCURACY_M = 2_000;
export const MAX_PLACES = 8;
export const COARSEST_CELL = 7; // the coarsest resolution that a stream accepts

const radians = (/** @type {number} */ degrees) => (degrees * Math.PI) / 180;

/**
 * Return the great-circle distance, by the haversine formula.
 * @type {typeof import("./geocast.js").distanceM}
 */
export function distanceM(a, b) {
  const [south, north] = [radians(a.lat), radians(b.lat)];
  const square =
    Math.sin((north - south) / 2) ** 2 + Math.cos(south) * Math.cos(north) * Math.sin(radians(b.lng - a.lng) / 2) ** 2;
  return 2 * EARTH_RADIUS_M * Math.asin(Math.min(1, Math.sqrt(square)));
}

/** @param {unknown} value @param {number} limit @returns {value is number} */
const within = (value, limit) => typeof value === "number" && Math.abs(value) <= limit;

/** @param {unknown} value @returns {value is object} */
const isObject = (value) => typeof value === "object" && value !== null;

/**
 * Check and convert a caller's places. Throws TypeError, which never repeats a value.
 * @param {unknown} places @param {H3 | undefined} h3 @returns {Spot[]}
 */
export function spotsOf(places, h3) {
  if (!Array.isArray(places)) throw new TypeError("places: expected an array");
  return places.map((place, index) => spotOf(place, h3, `places[${index}]`));
}

/** @param {unknown} place @param {H3 | undefined} h3 @param {string} name @returns {Spot} */
export function spotOf(place, h3, name) {
  if (!isObject(place)) throw new TypeError(`${name}: expected {lat, lng} or {cell}`);
  const { here = false } = /** @type {{ here?: unknown }} */ (place);
  if (typeof here !== "boolean") throw new TypeError(`${name}.here: expected true or false`);
  const spot = "cell" in place ? cellSpot(place.cell, h3, name) : pointSpot(place, name);
  return here ? { ...spot, here, wire: { ...spot.wire, here } } : spot;
}

/** @param {object} place @param {string} name @returns {Spot} */
function pointSpot(place, name) {
  const { lat, lng, accuracy_m } = /** @type {Record<string, unknown>} */ (place);
  if (!within(lat, 90)) throw new TypeError(`${name}.lat: expected a number from -90 to 90`);
  if (!within(lng, 180)) throw new TypeError(`${name}.lng: expected a number from -180 to 180`);
  const reach = accuracy_m ?? 0;
  if (typeof reach !== "number" || !(reach >= 0)) throw new TypeError(`${name}.accuracy_m: expected metres, 0 or more`);
  const clamped = Math.min(reach, MAX_ACCURACY_M);
  return { lat, lng, reach: clamped, here: false, wire: clamped ? { lat, lng, accuracy_m: clamped } : { lat, lng } };
}

/** @param {unknown} cell @param {H3 | undefined} h3 @param {string} name @param {number} [coarsest] @returns {Spot} */
export function cellSpot(cell, h3, name, coarsest = COARSEST_CELL) {
  if (!h3) throw new TypeError(`${name}: a cell needs the option h3 (import * as h3 from "h3-js")`);
  const isCell = typeof cell === "string" && /^[0-9a-f]{15}$/i.test(cell) && h3.isValidCell(cell);
  if (!isCell || h3.getResolution(cell) < coarsest)
    throw new TypeError(`${name}.cell: expected an H3 cell of resolution ${coarsest} to 15`);
  const [lat = 0, lng = 0] = h3.cellToLatLng(cell);
  // The point of an edge that is farthest from the centre is one of the edge's ends.
  const corners = h3.cellToBoundary(cell).map(([lat = 0, lng = 0]) => ({ lat, lng }));
  const reach = Math.max(...corners.map((corner) => distanceM({ lat, lng }, corner)));
  return { lat, lng, reach, here: false, wire: { cell: cell.toLowerCase() } };
}

/** @param {Shape} shape @returns {shape is Circle} */
const isCircle = (shape) =>
  shape.type === "circle" && within(shape.lat, 90) && within(shape.lng, 180) && within(shape.radius_m, Infinity);

/**
 * Return whether one of the places is inside one of the shapes; the edge belongs to the inside. An unknown shape counts
 * as inside: the alert must be shown (protocol, "Growing").
 * @param {readonly Shape[]} area @param {readonly Spot[]} spots
 */
export function isInside(area, spots) {
  return area.some((shape) => spots.some((spot) => isInShape(shape, spot)));
}

/**
 * Return a function that says whether one of the places is inside an area for which only this device decides: an unknown
 * shape contains nobody (G4). Polygons far away are excluded by the circles around them, which are computed once.
 * @param {unknown} area @returns {(spots: readonly Spot[]) => boolean}
 */
export function judgeOf(area) {
  const known = (Array.isArray(area) ? area : []).filter((shape) => isObject(shape) && (isCircle(/** @type {any} */ (shape)) || isPolygon(/** @type {any} */ (shape))));
  const shapes = known.map((shape) => ({ shape, around: isCircle(shape) ? shape : circleAround(shape, EARTH_RADIUS_M) }));
  return (spots) =>
    shapes.some(({ shape, around }) =>
      spots.some((spot) => distanceM(spot, around) <= around.radius_m + spot.reach && isInShape(shape, spot)),
    );
}

/**
 * Return the metres from here, or else from the nearest place, to the centre of a circle; null if unknown.
 * @param {any} circle @param {readonly Spot[]} spots @returns {number | null}
 */
export function awayM(circle, spots) {
  if (!isObject(circle) || !isCircle(/** @type {any} */ (circle))) return null;
  const here = spots.filter((spot) => spot.here);
  const distances = (here.length ? here : spots).map((spot) => distanceM(spot, /** @type {Circle} */ (circle)));
  return distances.length ? Math.min(...distances) : null;
}

/** @param {Shape} shape @param {Spot} spot */
function isInShape(shape, spot) {
  if (isPolygon(shape)) return depthOf(shape, spot, EARTH_RADIUS_M) + spot.reach >= 0;
  return !isCircle(shape) || distanceM(spot, shape) <= shape.radius_m + spot.reach;
}
