// The area on a map: the requested shape, with handles to drag, and the shape that would be published. The numbers in
// the form say the same and can be used instead.

import { Marker } from "/npm/maplibre-gl/dist/maplibre-gl.mjs";
import { latLngToCell } from "/npm/h3-js/dist/browser/h3-js.es.js";
import { Outline } from "/desk/outline.js";
import { BaseMap } from "/shared/basemap.js";
import {
  STROKE_WIDTH,
  cellPolygon,
  circlePolygon,
  isKnown,
  outskirts,
  shapePolygon,
  strokes,
  unwrapped,
} from "/shared/shapes.js";
import { make } from "/shared/elements.js";
import { coloursOf } from "/shared/theme.js";

const EARTH_RADIUS_M = 6_371_007.180918475;
const PALETTE = ["land", "grid", "accent", "text", "text-muted"];
const SOURCES = ["grid", "others", "others-beyond", "beyond", "published", "cell", "requested"];
const STEP_PX = { fine: 4, coarse: 40 }; // steps of the arrow keys
const LEAST_PX = 32; // least width of a circle; a smaller circle would be hard to find
const DRAG_PX = 3; // a press that moves farther than this is a drag
const ROUNDED = { "line-join": "round", "line-cap": "round" };
const ROUND = 5; // decimal digits of a degree, about a metre

function palette(severity) {
  const colours = coloursOf([...PALETTE, severity]);
  return { ...colours, severity: colours[severity] };
}

function layers(colours, hasStreets) {
  return [
    ...(hasStreets ? [] : [{ id: "land", type: "background", paint: { "background-color": colours.land } }]),
    { id: "grid", type: "line", source: "grid", paint: { "line-color": colours.grid, "line-width": 0.6, "line-opacity": 0.5 } },
    { id: "others", type: "line", source: "others", paint: { "line-color": colours["text-muted"], "line-width": 1.5, "line-dasharray": [1, 2] } },
    { id: "others-beyond", type: "line", source: "others-beyond", layout: ROUNDED, paint: { "line-color": colours["text-muted"], "line-opacity": 0.1, "line-width": STROKE_WIDTH } },
    { id: "beyond", type: "line", source: "beyond", layout: ROUNDED, paint: { "line-color": colours.severity, "line-opacity": 0.18, "line-width": STROKE_WIDTH } },
    { id: "published", type: "fill", source: "published", paint: { "fill-color": colours.severity, "fill-opacity": 0.18 } },
    { id: "published-rim", type: "line", source: "published", paint: { "line-color": colours.severity, "line-width": 2.5 } },
    { id: "cell", type: "line", source: "cell", paint: { "line-color": colours.severity, "line-width": 1.5 } },
    { id: "requested", type: "line", source: "requested", paint: { "line-color": colours.text, "line-width": 2, "line-dasharray": [3, 2] } },
  ];
}

/** Return a map or, without WebGL, an object that ignores the same calls; the form works without a map. */
export function circleMap(options) {
  try {
    return new CircleMap(options);
  } catch (error) {
    console.warn("no map:", error.message);
    document.getElementById(options.container).textContent = "This browser can’t draw the map. Use the numbers.";
    const nothing = () => {};
    const always = () => true; // without a map the numbers are enough, so the area always counts as seen
    return { show: nothing, published: nothing, others: nothing, fit: nothing, repaint: nothing, resize: nothing, holds: always, isSeen: always };
  }
}

class CircleMap extends BaseMap {
  /**
   * `changed({lat, lng, radius_m})` or `changed({ring})` is called while a person drags, `moved()` when the map's view
   * has changed.
   */
  constructor({ container, styleUrl, changed, moved }) {
    super({ container, styleUrl, sources: SOURCES, maxZoom: 17 });
    this._changed = changed;
    this._circle = null;
    this._severity = "moderate";
    this._centre = this._handle("handle-centre", "Centre of the circle: the arrow keys move it", ([east, south], px) => this._nudge(east * px, south * px));
    this._edge = this._handle("handle-edge", "Edge of the circle: the arrow keys change the radius", ([east, south], px) => this._stretch((east - south) * px));
    this._centre.on("drag", () => this._move(this._centre.getLngLat()));
    this._edge.on("drag", () => this._resize(distanceM(this._circle, this._edge.getLngLat())));
    this._outline = new Outline(this.map, (...options) => this._handle(...options), (ring) => this._redrawn(ring));
    // A press on the map places a circle that has no place yet, or adds a corner to a polygon.
    this._down = null; // how the last press on the map began, until its click
    this.map.getContainer().addEventListener("pointerdown", (event) => (this._down = event), { capture: true });
    this.map.on("click", ({ lngLat, originalEvent }) => this._wasDrag(originalEvent) || this._pressed(lngLat));
    this.map.on("idle", moved); // everything visible has been drawn
  }

  _layers(hasStreets) {
    return layers(palette(this._severity), hasStreets);
  }

  /** Use the colours of the present theme and of the severity. */
  repaint(severity = this._severity) {
    this._severity = severity;
    super.repaint();
  }

  /** Adapt to a new size of the element. */
  resize() {
    this.map.resize();
  }

  // ---- output ------------------------------------------------------------------------------------------------

  /** Show the requested circle, or a polygon's `ring`, or nothing (null); `radiusM` is the radius of a new circle. */
  show(circle, { editable, radiusM, ring = null }) {
    this._ring = ring;
    this._circle = ring ? null : circle && { ...circle };
    this._radiusM = circle?.radius_m ?? radiusM;
    this._isEditable = editable;
    this._draw();
  }

  /** Show the shapes that are or would be published, and the cell whose centre is the centre of a circle. */
  published(area, resolution = 9) {
    const shapes = (area ?? []).filter(isKnown);
    const circles = shapes.filter((shape) => shape.type === "circle");
    this._set("published", shapes.map((shape) => shapePolygon(shape, {})));
    this._set("beyond", shapes.flatMap((shape) => strokes(shape, {})));
    this._set("cell", circles.map((circle) => cellPolygon(latLngToCell(circle.lat, circle.lng, resolution), {})));
  }

  /** Show the shapes of other live alerts. */
  others(shapes) {
    this._set("others", shapes.map((shape) => shapePolygon(shape, {})));
    this._set("others-beyond", shapes.flatMap((shape) => strokes(shape, {})));
  }

  /** Bring these shapes into view. */
  fit(shapes) {
    const points = shapes.flatMap(outskirts);
    if (points.length) {
      const [lngs, lats] = [points.map(([lng]) => lng), points.map(([, lat]) => lat)];
      const padding = Math.min(48, this.map.getContainer().clientHeight / 10);
      this.map.fitBounds([Math.min(...lngs), Math.min(...lats), Math.max(...lngs), Math.max(...lats)], { padding, maxZoom: 15, animate: false });
    }
  }

  /** Return whether all of these shapes are on the map, and none is a mere dot. */
  holds(shapes) {
    const { clientWidth: width, clientHeight: height } = this.map.getContainer();
    return this._boxes(shapes).every(
      ({ left, right, top, bottom }) =>
        left >= 0 && right <= width && top >= 0 && bottom <= height && Math.max(right - left, bottom - top) >= LEAST_PX,
    );
  }

  /** Return whether all of these shapes are visible on the screen: drawn, and not hidden in part by scrolling. */
  isSeen(shapes) {
    const frame = this.map.getContainer();
    const { left, top } = frame.getBoundingClientRect();
    const seen = visible(frame);
    return (
      this._isReady === true &&
      this.holds(shapes) &&
      this._boxes(shapes).every(
        (box) => left + box.left >= seen.left && left + box.right <= seen.right && top + box.top >= seen.top && top + box.bottom <= seen.bottom,
      )
    );
  }

  /** Return the boxes of shapes on the map, in pixels from its corner. */
  _boxes(shapes) {
    return shapes.map((shape) => {
      const corners = outskirts(shape).map((corner) => this.map.project(corner));
      const [xs, ys] = [corners.map(({ x }) => x), corners.map(({ y }) => y)];
      return { left: Math.min(...xs), right: Math.max(...xs), top: Math.min(...ys), bottom: Math.max(...ys) };
    });
  }

  _draw() {
    const circle = this._circle;
    this._set("requested", this._ring ? drawn(this._ring) : circle ? [circlePolygon(circle, {})] : []);
    this._outline.show(this._ring ?? [], this._isEditable);
    for (const [handle, at] of [[this._centre, circle], [this._edge, circle && east(circle)]]) {
      if (circle && this._isEditable) {
        handle.setLngLat([at.lng, at.lat]);
        handle.getElement().isConnected || handle.addTo(this.map); // adding a handle again would remove its focus
      } else {
        handle.remove();
      }
    }
  }

  // ---- handles -----------------------------------------------------------------------------------------------

  /** Return a handle: `step(direction, px)` is for the arrow keys, `keys` has the actions of other keys. */
  _handle(name, label, step, keys = {}) {
    const element = make("button", `handle ${name}`);
    element.type = "button";
    element.setAttribute("aria-label", label);
    element.addEventListener("click", (event) => event.stopPropagation()); // otherwise the map would be pressed too
    element.addEventListener("keydown", (event) => {
      if (keys[event.key] && !event.altKey && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        event.stopPropagation();
        keys[event.key]();
        return;
      }
      const direction = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
      if (direction && !event.altKey && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        event.stopPropagation(); // otherwise the map would move too
        step(direction, event.shiftKey ? STEP_PX.coarse : STEP_PX.fine);
      }
    });
    return new Marker({ element, draggable: true });
  }

  /**
   * Return whether a click ends a drag. The map forgets where a press began if it is resized or moved meanwhile. Assistive
   * software such as a screen reader may send a click without a press before it.
   */
  _wasDrag({ clientX, clientY }) {
    const down = this._down;
    this._down = null;
    return down !== null && (down.target.closest(".handle") !== null || Math.hypot(clientX - down.clientX, clientY - down.clientY) > DRAG_PX);
  }

  _pressed(lngLat) {
    if (this._isEditable && this._ring) {
      this._outline.add(lngLat);
    } else if (this._isEditable && this._circle === null) {
      this._move(lngLat);
    }
  }

  _redrawn(ring) {
    this._ring = ring;
    this._draw();
    this._changed({ ring });
  }

  _nudge(x, y) {
    const at = this.map.project(this._centre.getLngLat());
    this._move(this.map.unproject([at.x + x, at.y + y]));
  }

  _stretch(px) {
    const at = this.map.project(this._edge.getLngLat());
    const radiusM = distanceM(this._circle, this.map.unproject([at.x + px, at.y]));
    this._resize(px < 0 ? Math.min(radiusM, this._circle.radius_m - 10) : Math.max(radiusM, this._circle.radius_m + 10));
  }

  _move(lngLat) {
    const { lat, lng } = lngLat.wrap();
    const rounded = { lat: Number(Math.max(-90, Math.min(90, lat)).toFixed(ROUND)), lng: Number(lng.toFixed(ROUND)) };
    this._circle = { ...rounded, radius_m: this._circle?.radius_m ?? this._radiusM };
    this._draw();
    this._changed(this._circle);
  }

  _resize(radiusM) {
    this._circle = { ...this._circle, radius_m: Math.max(10, Math.round(radiusM / 10) * 10) };
    this._draw();
    this._changed(this._circle);
  }
}

/** Return the part of the window in which an element is visible, inside all scrolling ancestors. */
function visible(element) {
  const seen = { left: 0, top: 0, right: innerWidth, bottom: innerHeight };
  for (let box = element; box; box = box.parentElement) {
    if (box === element || getComputedStyle(box).overflowY !== "visible") {
      const { left, top, right, bottom } = box.getBoundingClientRect();
      seen.left = Math.max(seen.left, left);
      seen.top = Math.max(seen.top, top);
      seen.right = Math.min(seen.right, right);
      seen.bottom = Math.min(seen.bottom, bottom);
    }
  }
  return seen;
}

function distanceM(a, b) {
  const rad = Math.PI / 180;
  const half = (angle) => Math.sin((angle * rad) / 2) ** 2;
  const square = half(b.lat - a.lat) + Math.cos(a.lat * rad) * Math.cos(b.lat * rad) * half(b.lng - a.lng);
  return 2 * EARTH_RADIUS_M * Math.asin(Math.min(1, Math.sqrt(square)));
}

/** Return a ring that is being drawn: a line while it has too few corners. */
function drawn(ring) {
  if (ring.length > 2) {
    return [shapePolygon({ type: "Polygon", coordinates: [[...ring, ring[0]]] }, {})];
  }
  return [{ type: "Feature", properties: {}, geometry: { type: "LineString", coordinates: unwrapped(ring) } }];
}

/** Return about the easternmost point of a circle, for its handle. */
function east(circle) {
  const ring = circlePolygon(circle).geometry.coordinates[0];
  const [lng, lat] = ring.reduce((best, point) => (point[0] > best[0] ? point : best));
  return { lat, lng };
}
