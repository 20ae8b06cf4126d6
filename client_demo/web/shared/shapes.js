// Conversion of shapes to GeoJSON for drawing, in degrees and metres. It needs neither a map nor a page.

import { cellToBoundary, cellToParent, getResolution, polygonToCells } from "/npm/h3-js/dist/browser/h3-js.es.js";

const EARTH_RADIUS_M = 6_371_007.180918475; // the radius that H3 uses, as the protocol says
const CORNERS = 72;
const WORLD_PX = 512; // the width of the world at zoom 0
const LEAST_SCALE = 0.05; // the least scale of the map, as nothing is drawn beyond 87°
const MOST_CELLS = 6000;
const RESOLUTIONS = [ // [zoom, resolution]: from this zoom on, cells of this resolution are about 15 to 50 pixels wide
  [13.9, 10],
  [12.1, 9],
  [10.4, 8],
  [9, 7],
  [7.6, 6],
  [6.2, 5],
];

const radians = (degrees) => (degrees * Math.PI) / 180;
const degrees = (angle) => (angle * 180) / Math.PI;

export const collection = (features) => ({ type: "FeatureCollection", features });

const polygon = (ring, properties) => ({
  type: "Feature",
  properties,
  geometry: { type: "Polygon", coordinates: [ring] },
});

/** Return the point at this distance and bearing (radians from north) on the sphere; its longitude may pass 180. */
function at({ lat, lng }, distanceM, bearing) {
  const [along, from] = [distanceM / EARTH_RADIUS_M, radians(lat)];
  const to = Math.asin(Math.sin(from) * Math.cos(along) + Math.cos(from) * Math.sin(along) * Math.cos(bearing));
  const east = Math.atan2(
    Math.sin(bearing) * Math.sin(along) * Math.cos(from),
    Math.cos(along) - Math.sin(from) * Math.sin(to),
  );
  return { lat: degrees(to), lng: lng + degrees(east) };
}

export function circlePolygon(circle, properties) {
  const ring = Array.from({ length: CORNERS + 1 }, (_, n) => {
    const corner = at(circle, circle.radius_m, (2 * Math.PI * (n % CORNERS)) / CORNERS);
    return [corner.lng, corner.lat];
  });
  return polygon(ring, properties);
}

/** Return whether this shape can be drawn. */
export const isKnown = ({ type }) => type === "circle" || type === "Polygon";

/** Return a circle, or the ring of a polygon. `strokes` draw the buffer around the ring. */
export function shapePolygon(shape, properties) {
  return shape.type === "Polygon" ? polygon(unwrapped(shape.coordinates[0]), properties) : circlePolygon(shape, properties);
}

/** A source for `strokes`, with tiles so coarse that no stroke is cut off at the edge of a tile. */
export const STROKES = { type: "geojson", data: collection([]), maxzoom: 10, buffer: 512, tolerance: 0 };

/** The width of a stroke in pixels, which doubles with each zoom. */
export const STROKE_WIDTH = ["interpolate", ["exponential", 2], ["zoom"], 0, ["get", "width"], 24, ["*", 2 ** 24, ["get", "width"]]];

/**
 * Return the buffer of a published polygon: its ring, as a line that is twice as wide as the buffer. The map's scale grows
 * towards the poles, so the width is exact at the corner nearest to a pole, and elsewhere too large, never too small.
 */
export function strokes(shape, properties) {
  if (shape.type !== "Polygon" || !shape.buffer_m) {
    return [];
  }
  const coordinates = unwrapped(shape.coordinates[0]);
  const scale = Math.cos(radians(mostLat(coordinates) + degrees(shape.buffer_m / EARTH_RADIUS_M)));
  const width = (2 * shape.buffer_m * WORLD_PX) / (2 * Math.PI * EARTH_RADIUS_M * Math.max(scale, LEAST_SCALE));
  return [{ type: "Feature", properties: { ...properties, width }, geometry: { type: "LineString", coordinates } }];
}

const mostLat = (ring) => Math.max(...ring.map(([, lat]) => Math.abs(lat)));

/** Return points, [lng, lat], whose bounding box contains the whole shape with its buffer. */
export function outskirts(shape) {
  const ring = shapePolygon(shape).geometry.coordinates[0];
  const up = degrees((shape.buffer_m ?? 0) / EARTH_RADIUS_M);
  const over = up / Math.max(Math.cos(radians(mostLat(ring) + up)), LEAST_SCALE);
  return ring.flatMap(([lng, lat]) => [[lng - over, Math.max(-90, lat - up)], [lng + over, Math.min(90, lat + up)]]);
}

/** Shift longitudes so that corners across the antimeridian do not jump to the other side of the map. */
export function unwrapped(ring) {
  let before = ring[0]?.[0] ?? 0;
  return ring.map(([lng, lat]) => [(before = lng + 360 * Math.round((before - lng) / 360)), lat]);
}

/** Return the centre of a shape, from which distances are measured, and its greatest distance from there. */
export function middle(shape) {
  if (shape.type !== "Polygon") {
    return { lat: shape.lat, lng: shape.lng, radius_m: shape.radius_m };
  }
  const corners = shape.coordinates[0].slice(1).map(([lng, lat]) => vector(lat, lng));
  const sum = [0, 1, 2].map((axis) => corners.reduce((total, corner) => total + corner[axis], 0));
  const length = Math.hypot(...sum) || 1;
  const [x, y, z] = sum.map((each) => each / length);
  const farthest = Math.max(...corners.map((corner) => Math.hypot(corner[0] - x, corner[1] - y, corner[2] - z)));
  return {
    lat: degrees(Math.atan2(z, Math.hypot(x, y))),
    lng: degrees(Math.atan2(y, x)),
    radius_m: 2 * EARTH_RADIUS_M * Math.asin(Math.min(1, farthest / 2)) + (shape.buffer_m ?? 0),
  };
}

function vector(lat, lng) {
  const [phi, theta] = [radians(lat), radians(lng)];
  return [Math.cos(phi) * Math.cos(theta), Math.cos(phi) * Math.sin(theta), Math.sin(phi)];
}

export function cellPolygon(cell, properties) {
  return polygon(unwrapped(cellToBoundary(cell, true)), properties); // [lng, lat], closed
}

/** Return the resolution whose cells have a good size at this zoom; null if all cells would be too small. */
export function resolutionAt(zoom) {
  return RESOLUTIONS.find(([from]) => zoom >= from)?.[1] ?? null;
}

/** Return all visible cells, or coarser ones if there were too many, as on a wall of screens. */
export function cellsWithin(bounds, resolution) {
  const [west, south, east, north] = [bounds.getWest(), bounds.getSouth(), bounds.getEast(), bounds.getNorth()];
  const cells = polygonToCells([[south, west], [south, east], [north, east], [north, west]], resolution);
  return cells.length > MOST_CELLS ? cellsWithin(bounds, resolution - 1) : cells;
}

/** Return the cell of this resolution that contains `cell`; a coarser cell is returned unchanged. */
export function coarser(cell, resolution) {
  return resolution < getResolution(cell) ? cellToParent(cell, resolution) : cell;
}
