// What is drawn, as GeoJSON. Degrees and metres; no map, no page.

import { cellToBoundary, cellToParent, getResolution, polygonToCells } from "/npm/h3-js/dist/browser/h3-js.es.js";

const EARTH_RADIUS_M = 6_371_007.180918475; // H3's own, as the protocol says
const CORNERS = 72;
const MOST_CELLS = 6000;
const RESOLUTIONS = [ // from this zoom on, cells of this resolution: some 15 to 50 pixels across
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

/** The point this far away in this direction (radians from north), on the sphere; its longitude may pass 180. */
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

export function cellPolygon(cell, properties) {
  const ring = cellToBoundary(cell, true); // [lng, lat], closed
  const [first] = ring[0];
  // Across the antimeridian corners must not jump to the other side of the map.
  return polygon(ring.map(([lng, lat]) => [lng + 360 * Math.round((first - lng) / 360), lat]), properties);
}

/** The resolution whose cells are of a good size at this zoom; null when they would only be a texture. */
export function resolutionAt(zoom) {
  return RESOLUTIONS.find(([from]) => zoom >= from)?.[1] ?? null;
}

/** All cells that one sees, or coarser ones where those would be too many, as on a wall of screens. */
export function cellsWithin(bounds, resolution) {
  const [west, south, east, north] = [bounds.getWest(), bounds.getSouth(), bounds.getEast(), bounds.getNorth()];
  const cells = polygonToCells([[south, west], [south, east], [north, east], [north, west]], resolution);
  return cells.length > MOST_CELLS ? cellsWithin(bounds, resolution - 1) : cells;
}

/** The cell of this resolution that holds `cell`; a cell that is coarse already stays as it is. */
export function coarser(cell, resolution) {
  return resolution < getResolution(cell) ? cellToParent(cell, resolution) : cell;
}
