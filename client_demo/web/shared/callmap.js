// A map of calls for help, with search radii, people and things. Each update replaces everything that was shown before.

import { Marker } from "/npm/maplibre-gl/dist/maplibre-gl.mjs";
import { BaseMap } from "/shared/basemap.js";
import { circlePolygon, outskirts } from "/shared/shapes.js";
import { make } from "/shared/elements.js";
import { coloursOf } from "/shared/theme.js";

const PALETTE = ["land", "grid", "extreme", "text-muted"];
const SOURCES = ["grid", "rings", "near"];
const AROUND_M = 120; // the surroundings of a mark that are shown
const [CLOSEST_ZOOM, PADDING_PX] = [16, 40];

function layers(colours, hasStreets) {
  const isDrill = ["get", "drill"];
  const near = { "line-color": colours.extreme, "line-width": 2.5 };
  return [
    ...(hasStreets ? [] : [{ id: "land", type: "background", paint: { "background-color": colours.land } }]),
    { id: "grid", type: "line", source: "grid", paint: { "line-color": colours.grid, "line-width": 0.6, "line-opacity": 0.5 } },
    { id: "rings", type: "line", source: "rings", paint: { "line-color": colours["text-muted"], "line-width": 2, "line-dasharray": [2, 2] } },
    { id: "near", type: "fill", source: "near", paint: { "fill-color": colours.extreme, "fill-opacity": 0.14 } },
    { id: "near-rim", type: "line", source: "near", filter: ["!", isDrill], paint: near },
    { id: "near-drill", type: "line", source: "near", filter: isDrill, paint: { ...near, "line-dasharray": [3, 3] } },
  ];
}

/** Return a map or, without WebGL, an object that ignores the same calls; the page's texts have the same content. */
export function callMap(options) {
  try {
    return new CallMap(options);
  } catch (error) {
    console.warn("no map:", error.message);
    document.getElementById(options.container).textContent = "This browser can’t draw the map.";
    const nothing = () => {};
    return { circles: nothing, marks: nothing, fit: nothing, repaint: nothing };
  }
}

class CallMap extends BaseMap {
  /** `dragged(mark, {lat, lng})` is called when a person has moved a movable mark. */
  constructor({ container, styleUrl, place, dragged = () => {} }) {
    super({ container, styleUrl, sources: SOURCES, maxZoom: 18, center: [place?.lng ?? 0, place?.lat ?? 25], zoom: place ? 14 : 1.5 });
    this._dragged = dragged;
    this._marks = new Map();
    this._inView = null; // what stays in view when the map's size changes, until somebody moves the map
    this.map.on("movestart", ({ originalEvent }) => originalEvent && (this._inView = null));
    this.map.on("resize", () => this._fit());
  }

  _layers(hasStreets) {
    return layers(coloursOf(PALETTE), hasStreets);
  }

  /** Draw only these calls, {circle, drill, ring}; `ring` is the search radius, if it is known. */
  circles(calls) {
    this._set("near", calls.map(({ circle, drill }) => circlePolygon(circle, { drill })));
    this._set("rings", calls.filter(({ ring }) => ring).map(({ circle, ring }) => circlePolygon({ ...circle, radius_m: ring }, {})));
  }

  /** Show only these marks, {key, kind, lat, lng, label, movable}. */
  marks(shown) {
    const gone = new Set(this._marks.keys());
    for (const mark of shown) {
      gone.delete(mark.key);
      this._mark(mark);
    }
    gone.forEach((key) => this._drop(key));
  }

  _mark(mark) {
    const version = `${mark.kind} ${mark.label} ${Boolean(mark.movable)}`;
    const known = this._marks.get(mark.key);
    if (known?.version === version) {
      known.marker.setLngLat([mark.lng, mark.lat]);
      return;
    }
    this._drop(mark.key);
    const element = make("div", `mark mark-${mark.kind}`, make("span", "mark-name", mark.label));
    element.setAttribute("aria-hidden", "true"); // the texts beside the map have the same content
    const marker = new Marker({ element, draggable: Boolean(mark.movable) }).setLngLat([mark.lng, mark.lat]).addTo(this.map);
    marker.on("dragend", () => {
      const { lat, lng } = marker.getLngLat().wrap();
      this._dragged(mark.key, { lat, lng });
    });
    this._marks.set(mark.key, { marker, version });
  }

  _drop(key) {
    this._marks.get(key)?.marker.remove();
    this._marks.delete(key);
  }

  /** Bring circles and marks, {lat, lng, radius_m}, into view. */
  fit(shapes) {
    const points = shapes.flatMap(({ lat, lng, radius_m: radiusM = AROUND_M }) => outskirts({ type: "circle", lat, lng, radius_m: radiusM }));
    if (points.length) {
      const [lngs, lats] = [points.map(([lng]) => lng), points.map(([, lat]) => lat)];
      this._inView = [Math.min(...lngs), Math.min(...lats), Math.max(...lngs), Math.max(...lats)];
      this._fit();
    }
  }

  _fit() {
    const { clientWidth: width, clientHeight: height } = this.map.getCanvas();
    if (this._inView && width && height) {
      const padding = Math.min(PADDING_PX, width / 10, height / 10); // a page that is being laid out has a small map
      this.map.fitBounds(this._inView, { padding, maxZoom: CLOSEST_ZOOM, animate: false });
    }
  }
}
