/**
 * Depth of a place in a published polygon (docs/guide/areas.md, D4 and D5). Coordinates in degrees, distances in metres.
 */

/** @import { Polygon, Shape } from "./geocast.js" */
/** @typedef {readonly [number, number, number]} Vector  A point on the unit sphere. */
/** @typedef {{ centre: Vector, east: Vector, north: Vector }} Plane  The plane that touches the sphere at `centre`. */

const radians = (/** @type {number} */ degrees) => (degrees * Math.PI) / 180;
const degrees = (/** @type {number} */ radians) => (radians * 180) / Math.PI;
const dot = (/** @type {Vector} */ a, /** @type {Vector} */ b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

/** @param {Vector} a @param {Vector} b @returns {Vector} */
const plus = (a, b) => [a[0] + b[0], a[1] + b[1], a[2] + b[2]];

/** @param {Vector} a @param {Vector} b @returns {Vector} */
const minus = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];

/** @param {Vector} a @param {Vector} b @returns {Vector} */
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];

/** @param {Vector} v @returns {Vector} */
const normalised = (v) => {
  const length = Math.sqrt(dot(v, v)) || 1;
  return [v[0] / length, v[1] / length, v[2] / length];
};

/** @param {Vector} a @param {Vector} b */
const angle = (a, b) => {
  const off = minus(a, b);
  return 2 * Math.asin(Math.min(1, Math.sqrt(dot(off, off)) / 2));
};

/** @param {number} lat @param {number} lng @returns {Vector} */
const unitVector = (lat, lng) => {
  const [phi, theta] = [radians(lat), radians(lng)];
  return [Math.cos(phi) * Math.cos(theta), Math.cos(phi) * Math.sin(theta), Math.sin(phi)];
};

const isPosition = (/** @type {unknown} */ value) =>
  Array.isArray(value) && value.length === 2 && value.every((each) => typeof each === "number");

/**
 * Return whether this is a polygon with one ring, as areas.md defines it. Any other polygon counts as an unknown shape.
 * @param {Shape} shape @returns {shape is Polygon}
 */
export function isPolygon(shape) {
  if (shape.type !== "Polygon" || !("coordinates" in shape) || !Array.isArray(shape.coordinates)) return false;
  const [ring, hole] = /** @type {unknown[]} */ (shape.coordinates);
  const buffer = "buffer_m" in shape ? shape.buffer_m : 0;
  return Array.isArray(ring) && !hole && ring.length > 3 && ring.every(isPosition) && typeof buffer === "number";
}

/** @param {Polygon} polygon */
const cornersOf = ({ coordinates: [ring = []] }) => ring.map(([lng, lat]) => unitVector(lat, lng));

/** @param {readonly Vector[]} corners @returns {Vector} The direction of the sum of the corners. */
const middle = (corners) => normalised(corners.slice(1).reduce(plus, /** @type {Vector} */ ([0, 0, 0])));

/**
 * Return a circle that contains the polygon with its buffer; it is the whole earth if the polygon is very wide.
 * @param {Polygon} polygon @param {number} earthRadiusM
 */
export function circleAround(polygon, earthRadiusM) {
  const corners = cornersOf(polygon);
  const centre = middle(corners);
  const [x, y, z] = centre;
  const widest = Math.max(...corners.map((corner) => angle(centre, corner)));
  const radius_m = widest < 1 ? earthRadiusM * widest + (polygon.buffer_m ?? 0) + 1 : Infinity; // 1 m for rounding
  return { lat: degrees(Math.atan2(z, Math.hypot(x, y))), lng: degrees(Math.atan2(y, x)), radius_m };
}

/**
 * Return how far inside the polygon with its buffer a point is, in metres; negative outside.
 * @param {Polygon} polygon @param {{ lat: number, lng: number }} point @param {number} earthRadiusM
 */
export function depthOf(polygon, { lat, lng }, earthRadiusM) {
  const place = unitVector(lat, lng);
  const corners = cornersOf(polygon);
  const edges = corners.slice(1).map((b, n) => /** @type {const} */ ([corners[n] ?? b, b]));
  const away = earthRadiusM * Math.min(...edges.map(([a, b]) => angleToArc(place, a, b)));
  return (polygon.buffer_m ?? 0) + (windsAround(edges, middle(corners), place) ? away : -away);
}

/**
 * Return whether the winding number is not 0, on the plane that touches the sphere at `centre`.
 * @param {ReadonlyArray<readonly [Vector, Vector]>} edges @param {Vector} centre @param {Vector} place
 */
function windsAround(edges, centre, place) {
  if (dot(place, centre) <= 0) return false;
  const sizes = centre.map(Math.abs);
  const farthest = sizes.indexOf(Math.min(...sizes)); // index of the axis farthest from `centre`
  const east = normalised(cross([farthest === 0 ? 1 : 0, farthest === 1 ? 1 : 0, farthest === 2 ? 1 : 0], centre));
  const plane = { centre, east, north: cross(centre, east) };
  const point = onPlane(place, plane);
  let turns = 0;
  for (const [a, b] of edges) turns += crossing(point, onPlane(a, plane), onPlane(b, plane));
  return turns !== 0;
}

/** @param {Vector} point @param {Plane} plane @returns {readonly [number, number]} */
function onPlane(point, { centre, east, north }) {
  const ahead = dot(point, centre);
  return [dot(point, east) / ahead, dot(point, north) / ahead];
}

/**
 * Return the amount that an edge adds to the winding number.
 * @param {readonly [number, number]} point @param {readonly [number, number]} a @param {readonly [number, number]} b
 */
function crossing([x, y], [x0, y0], [x1, y1]) {
  const left = (x1 - x0) * (y - y0) - (x - x0) * (y1 - y0);
  if (y0 <= y && y < y1 && left > 0) return 1;
  return y1 <= y && y < y0 && left < 0 ? -1 : 0;
}

/**
 * Return the angle to the nearest point of the great-circle arc from a to b.
 * @param {Vector} place @param {Vector} a @param {Vector} b
 */
function angleToArc(place, a, b) {
  const normal = normalised(cross(minus(a, b), plus(a, b))); // direction of a × b, without cancellation of digits
  const beside = dot(place, cross(normal, a)) >= 0 && dot(place, cross(b, normal)) >= 0 && dot(normal, normal) > 0;
  return beside ? Math.asin(Math.min(1, Math.abs(dot(place, normal)))) : Math.min(angle(place, a), angle(place, b));
}
