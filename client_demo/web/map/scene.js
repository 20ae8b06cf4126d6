// The map itself: outlines, grid, simulated subscribers, areas, and your own place. Callers supply the content; this module
// talks to no server. Colours come from the style sheet, so that they are defined in one place.

import { Marker } from "/npm/maplibre-gl/dist/maplibre-gl.mjs";
import feature from "/npm/topojson-client/src/feature.js";
import mesh from "/npm/topojson-client/src/mesh.js";
import { flatMap } from "/shared/basemap.js";
import { creditsOf } from "/shared/credits.js";
import {
  STROKES,
  STROKE_WIDTH,
  cellPolygon,
  cellsWithin,
  coarser,
  collection,
  isKnown,
  middle,
  outskirts,
  resolutionAt,
  shapePolygon,
  strokes,
} from "/shared/shapes.js";
import { foreign, make } from "/shared/elements.js";
import { coloursOf } from "/shared/theme.js";
import { countingDown, isSoon, remaining } from "/map/list.js";

const SEVERITIES = ["minor", "moderate", "severe", "extreme"]; // the worst is drawn last, on top
const PALETTE = ["sea", "land", "border", "county", "county-name", "grid", "people", "you", ...SEVERITIES];
const STEP_PX = { fine: 12, coarse: 80 }; // steps of the arrow keys
const WAVE_MS = 1400; // duration of a fan-out on the screen, whatever its real duration
const HOLD_MS = 900;
const FADE_MS = 1600;
const BRIGHT = 0.75; // the opacity of a cell whose people have just received an alert
const PADDING = { top: 16, right: 16, bottom: 40, left: 16 };
const [CHIP_PX, YOU_PX] = [24, 32];
const LABEL_PX = { most: 240, height: 22, gap: 3, padding: 14, time: 40 };
const EMPTY = collection([]);
const ROUNDED = { "line-join": "round", "line-cap": "round" };
const OF_SOURCES = { lit: { promoteId: "cell" }, beyond: STROKES }; // options of some sources, by name

const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** Return MapLibre's `match` with a colour for each severity, and one for unknown severities. */
function bySeverity(value, colours) {
  return ["match", value, ...SEVERITIES.flatMap((severity) => [severity, colours[severity]]), colours["county-name"]];
}

/** Return our own layers from bottom to top; the first ones replace streets. */
function layers(colours, hasStreets) {
  const severity = bySeverity(["get", "severity"], colours);
  const lit = bySeverity(["feature-state", "severity"], colours);
  const opacity = ["case", ["get", "affecting"], 0.22, 0.09];
  const ground = [
    { id: "sea", type: "background", paint: { "background-color": colours.sea } },
    { id: "land", type: "fill", source: "land", paint: { "fill-color": colours.land } },
    { id: "counties", type: "line", source: "counties", minzoom: 6, paint: { "line-color": colours.county, "line-width": 1.2 } },
    { id: "borders", type: "line", source: "borders", paint: { "line-color": colours.border, "line-width": 1 } },
    {
      id: "county-names",
      type: "symbol",
      source: "county-names",
      minzoom: 7.5,
      layout: { "text-field": ["get", "name"], "text-font": ["sans-serif"], "text-size": 13, "text-letter-spacing": 0.12, "text-transform": "uppercase" },
      paint: { "text-color": colours["county-name"], "text-halo-color": colours.land, "text-halo-width": 1.5 },
    },
  ];
  return [
    ...(hasStreets ? [] : ground),
    { id: "people", type: "fill", source: "people", paint: { "fill-color": colours.people, "fill-opacity": ["*", 0.5, ["get", "share"]] } },
    { id: "grid", type: "line", source: "grid", paint: { "line-color": colours.grid, "line-width": 0.6, "line-opacity": 0.4 } },
    { id: "lit", type: "fill", source: "lit", paint: { "fill-color": lit, "fill-opacity": ["coalesce", ["feature-state", "lit"], 0] } },
    { id: "beyond", type: "line", source: "beyond", layout: ROUNDED, paint: { "line-color": severity, "line-opacity": opacity, "line-width": STROKE_WIDTH } },
    { id: "circles", type: "fill", source: "circles", paint: { "fill-color": severity, "fill-opacity": opacity } },
    { id: "rims", type: "line", source: "circles", filter: ["==", ["get", "status"], "actual"], paint: { "line-color": severity, "line-width": ["case", ["get", "affecting"], 3, 1.5] } },
    { id: "drill-rims", type: "line", source: "circles", filter: ["!=", ["get", "status"], "actual"], paint: { "line-color": severity, "line-width": 2, "line-dasharray": [3, 3] } },
    { id: "own-cell", type: "line", source: "own-cell", paint: { "line-color": colours.you, "line-width": 2.5 } },
  ];
}

const SOURCES = ["land", "borders", "counties", "county-names", "grid", "people", "lit", "beyond", "circles", "own-cell"];

export class Scene {
  /** `moved(place, ended)` is called while somebody moves the marker. */
  constructor({ container, styleUrl, place, moved }) {
    this.map = flatMap({
      container,
      styleUrl,
      center: [place?.lng ?? 0, place?.lat ?? 25],
      zoom: place ? 10.5 : 1.5,
      minZoom: 1,
      maxZoom: 17,
      refreshExpiredTiles: false,
    });
    this._hasStreets = Boolean(styleUrl);
    this._data = Object.fromEntries(SOURCES.map((name) => [name, EMPTY]));
    this._people = {};
    this._resolution = null;
    this._waves = [];
    this._lit = new Set();
    this._chips = new Map();
    this._own(place ?? { lat: 25, lng: 0 }, moved);
    this.ready = new Promise((resolve) => this.map.once("style.load", resolve)).then(() => this._begin());
    this.map.on("moveend", () => this._look());
    this.map.on("move", () => this._nameChips());
    this._pen = document.createElement("canvas").getContext("2d");
    this._pen.font = `600 12px ${getComputedStyle(document.body).fontFamily}`;
  }

  _begin() {
    for (const name of SOURCES) {
      this.map.addSource(name, { type: "geojson", ...OF_SOURCES[name], data: this._data[name] });
    }
    layers(coloursOf(PALETTE), this._hasStreets).forEach((layer) => this.map.addLayer(layer));
    this.repaint();
    this._look();
    if (!this._hasStreets) {
      this._outlines();
    }
  }

  _set(source, data) {
    this._data[source] = data;
    this.map.getSource(source)?.setData(data);
  }

  /** Replace a style that can't be loaded, if it has not been drawn yet. */
  withoutStreets() {
    if (this._hasStreets && !this.map.getSource("circles")) {
      this._hasStreets = false;
      this.map.setStyle({ version: 8, sources: {}, layers: [] }, { diff: false });
    }
  }

  /** Return the map's credits as nodes: a style with streets has them for each of its sources. */
  credits() {
    return creditsOf(this.map);
  }

  /** Use the colours of the present theme. */
  repaint() {
    for (const { id, paint } of layers(coloursOf(PALETTE), this._hasStreets)) {
      if (this.map.getLayer(id)) {
        Object.entries(paint).forEach(([property, value]) => this.map.setPaintProperty(id, property, value));
      }
    }
  }

  async _outlines() {
    const [world, us] = await Promise.all(
      ["/npm/world-atlas/countries-50m.json", "/npm/us-atlas/counties-10m.json"].map(async (url) => (await fetch(url)).json()),
    );
    const inner = (a, b) => a !== b;
    this._set("land", feature(world, world.objects.land));
    this._set("borders", mesh(world, world.objects.countries, inner));
    this._set("counties", mesh(us, us.objects.counties, inner));
    this._set("county-names", collection(feature(us, us.objects.counties).features.map(nameOf)));
    this.map.getContainer().dataset.outlines = "set"; // for tests that wait for the map
  }

  // ---- the view ----------------------------------------------------------------------------------------------

  /** Bring these shapes and the cells, except the outermost, into view. */
  fit(shapes, cells) {
    const points = shapes.flatMap(outskirts);
    const corners = cells.map((cell) => cellPolygon(cell).geometry.coordinates[0][0]);
    const range = (axis) => {
      const sorted = corners.map((point) => point[axis]).sort((a, b) => a - b);
      const inner = sorted.slice(Math.floor(sorted.length * 0.03), Math.ceil(sorted.length * 0.97));
      const all = [...points.map((point) => point[axis]), ...inner];
      return [Math.min(...all), Math.max(...all)];
    };
    const [[west, east], [south, north]] = [range(0), range(1)];
    this.map.fitBounds([west, south, east, north], { padding: { ...PADDING, top: this._legendHeight() }, maxZoom: 14, animate: false });
  }

  /** Return the distance from the map's top to the bottom of the legend, in pixels. */
  _legendHeight() {
    const [map, legend] = [this.map.getContainer(), document.querySelector(".legend")].map((each) => each.getBoundingClientRect());
    return PADDING.top + Math.max(0, Math.min(legend.bottom, map.bottom) - Math.max(legend.top, map.top));
  }

  /** Centre the map on a circle or a place. */
  go({ lat, lng, radius_m: radiusM }) {
    const zoom = radiusM ? Math.log2((40_075_017 * Math.cos((lat * Math.PI) / 180)) / (radiusM * 5)) : 13;
    this.map.easeTo({ center: [lng, lat], zoom: Math.min(15, Math.max(zoom, this._hasStreets ? 10 : 9)), duration: calm.matches ? 0 : 700 });
  }

  _look() {
    const resolution = resolutionAt(this.map.getZoom());
    const cells = resolution === null ? [] : cellsWithin(this.map.getBounds(), resolution);
    this._set("grid", collection(cells.map((cell) => cellPolygon(cell, {}))));
    if (resolution !== this._resolution) {
      this._resolution = resolution;
      this._drawPeople();
      this._drawWaves();
    }
    this._nameChips();
  }

  // ---- simulated subscribers ---------------------------------------------------------------------------------

  get _peopleResolution() {
    return Math.min(9, this._resolution ?? 6);
  }

  people(cells) {
    this._people = cells;
    this._drawPeople();
  }

  _drawPeople() {
    const numbers = new Map();
    for (const [cell, n] of Object.entries(this._people)) {
      const drawn = coarser(cell, this._peopleResolution);
      numbers.set(drawn, n + (numbers.get(drawn) ?? 0));
    }
    const most = Math.max(...numbers.values());
    this._set(
      "people",
      collection([...numbers].map(([cell, n]) => cellPolygon(cell, { share: 0.25 + 0.75 * Math.sqrt(n / most) }))),
    );
  }

  /**
   * Light the cells in the order of their times, slowed down: `cells` is cell -> [number of people, ms]. `progress(share,
   * told)` is called on the way from the first to the last.
   */
  wave(cells, severity, lastMs, progress) {
    const firstMs = Math.min(...Object.values(cells).map(([, ms]) => ms));
    const length = calm.matches || !(lastMs > firstMs) ? 0 : WAVE_MS;
    const times = Object.entries(cells).map(([cell, [count, ms]]) => ({
      cell,
      count,
      at: length && (length * (ms - firstMs)) / (lastMs - firstMs),
    }));
    this._waves.push({ times, severity, began: performance.now(), length, progress });
    this._drawWaves();
    if (this._waves.length === 1) {
      requestAnimationFrame(() => this._glow());
    }
  }

  /** Draw the cells of all waves, dark at first; their state lights them frame by frame. */
  _drawWaves() {
    const cells = this._waves.flatMap(({ times }) => times);
    cells.forEach((each) => (each.drawn = coarser(each.cell, this._peopleResolution)));
    const drawn = new Set(cells.map((each) => each.drawn));
    this._set("lit", collection([...drawn].map((cell) => cellPolygon(cell, { cell }))));
  }

  _glow() {
    const now = performance.now();
    const levels = new Map();
    for (const wave of this._waves) {
      const age = now - wave.began;
      let told = 0;
      for (const { drawn, count, at } of wave.times) {
        told += age >= at ? count : 0;
        const faded = (at + HOLD_MS + FADE_MS - age) / FADE_MS;
        const lit = age < at ? 0 : BRIGHT * Math.min(1, Math.max(0, faded));
        if (lit > (levels.get(drawn)?.lit ?? 0)) {
          levels.set(drawn, { lit, severity: wave.severity });
        }
      }
      wave.progress?.(wave.length ? Math.min(1, age / wave.length) : 1, told);
    }
    this._light(levels);
    this._waves = this._waves.filter((wave) => now - wave.began < wave.length + HOLD_MS + FADE_MS);
    const isLit = this._waves.length > 0 || this._lit.size > 0;
    this.map.getContainer().dataset.lit = isLit; // for tests that wait for the map
    if (isLit) {
      requestAnimationFrame(() => this._glow());
    }
  }

  _light(levels) {
    if (!this.map.getSource("lit")) {
      return;
    }
    for (const cell of this._lit) {
      if (!levels.has(cell)) {
        this.map.setFeatureState({ source: "lit", id: cell }, { lit: 0 });
        this._lit.delete(cell);
      }
    }
    for (const [cell, state] of levels) {
      this.map.setFeatureState({ source: "lit", id: cell }, state);
      this._lit.add(cell);
    }
  }

  // ---- alerts ------------------------------------------------------------------------------------------------

  /** Draw only these alerts, [{alert, affected}]. `open(alert)` is called when one is pressed. */
  alerts(shown, now, open) {
    const ranked = [...shown].sort((a, b) => rank(a) - rank(b));
    const drawn = ranked.flatMap(({ alert, affected }) => {
      const look = { severity: alert.severity, status: alert.status, affecting: affected };
      return shapesOf(alert).map((shape) => ({ shape, look }));
    });
    this._set("circles", collection(drawn.map(({ shape, look }) => shapePolygon(shape, look))));
    this._set("beyond", collection(drawn.flatMap(({ shape, look }) => strokes(shape, look))));
    const gone = new Set(this._chips.keys());
    for (const item of ranked) {
      gone.delete(item.alert.id);
      this._chip(item, now, open);
    }
    gone.forEach((id) => this._dropChip(id));
    this._nameChips();
  }

  _chip({ alert, affected }, now, open) {
    const [shape] = shapesOf(alert);
    const version = `${alert.revision} ${affected}`;
    if (this._chips.get(alert.id)?.version === version) {
      return;
    }
    this._dropChip(alert.id);
    if (!shape) {
      return;
    }
    const { lat, lng } = middle(shape);
    const element = countingDown(make("div", "chip"), alert);
    element.setAttribute("aria-hidden", "true"); // the lists have the same content
    element.classList.toggle("chip-affecting", affected);
    element.append(
      make("span", "ring"),
      make(
        "span",
        "chip-text",
        foreign("span", alert.title),
        " ",
        make("span", "chip-time time number", remaining(alert, now).text),
        foreign("span", alert.headline, "chip-more"),
      ),
    );
    element.style.setProperty("--left", remaining(alert, now).share.toFixed(3));
    element.addEventListener("click", (event) => {
      event.stopPropagation();
      open(alert);
    });
    element.toggleAttribute("data-soon", isSoon(alert, now));
    const marker = new Marker({ element }).setLngLat([lng, lat]);
    marker.addTo(this.map);
    const width = Math.min(LABEL_PX.most, this._pen.measureText(alert.title).width + LABEL_PX.padding);
    this._chips.set(alert.id, { marker, element, version, width, order: rank({ alert, affected }) });
  }

  _dropChip(id) {
    this._chips.get(id)?.marker.remove();
    this._chips.delete(id);
  }

  /**
   * Put names beside as many chips as there is space for, the most severe first. A name is to the right, left, below or
   * above, wherever it hides no chip, no other name and not your own place. Chips without a name show it when pointed at.
   */
  _nameChips() {
    const { clientWidth: width, clientHeight: height } = this.map.getContainer();
    const chips = [...this._chips.values()].sort((a, b) => b.order - a.order);
    const at = new Map(chips.map((chip) => [chip, this.map.project(chip.marker.getLngLat())]));
    const rings = chips.map((chip) => around(at.get(chip), CHIP_PX, CHIP_PX));
    const taken = [...rings, around(this.map.project(this.you.getLngLat()), YOU_PX, YOU_PX), ...this._panels()];
    for (const chip of chips) {
      const sides = labelBoxes(at.get(chip), chip.width + (chip.element.hasAttribute("data-soon") ? LABEL_PX.time : 0));
      const isOn = (box) => box.left >= 0 && box.right <= width && box.top >= 0 && box.bottom <= height;
      const [side, box] = sides.find(([, each]) => isOn(each) && !taken.some((other) => overlap(each, other))) ?? ["", null];
      chip.element.dataset.side = side;
      taken.push(...(box ? [box] : []));
    }
  }

  /** Return the boxes of elements that lie on the map and do not move with it. */
  _panels() {
    const { left: x, top: y } = this.map.getContainer().getBoundingClientRect();
    return [...document.querySelectorAll(".legend, .maplibregl-ctrl-group")].map((panel) => {
      const { left, right, top, bottom } = panel.getBoundingClientRect();
      return { left: left - x, right: right - x, top: top - y, bottom: bottom - y };
    });
  }

  // ---- your own place ----------------------------------------------------------------------------------------

  _own(place, moved) {
    const element = make("button", "you");
    element.id = "you";
    element.setAttribute("aria-label", "Your place: the arrow keys move it");
    element.setAttribute("aria-describedby", "place place-help");
    const here = () => {
      const { lat, lng } = this.you.getLngLat().wrap();
      return { lat: Math.max(-85, Math.min(85, lat)), lng };
    };
    this.you = new Marker({ element, draggable: true }).setLngLat([place.lng, place.lat]).addTo(this.map);
    this.you.on("drag", () => {
      this._nameChips();
      moved(here(), false);
    });
    this.you.on("dragend", () => moved(here(), true));
    element.addEventListener("keydown", (event) => {
      const [east, south] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key] ?? [0, 0];
      if ((!east && !south) || event.altKey || event.ctrlKey || event.metaKey) {
        return;
      }
      event.preventDefault();
      event.stopPropagation(); // otherwise the map would move too
      const px = event.shiftKey ? STEP_PX.coarse : STEP_PX.fine;
      const { x, y } = this.map.project(this.you.getLngLat());
      this.you.setLngLat(this.map.unproject([x + east * px, y + south * px]));
      moved(here(), false);
    });
    element.addEventListener("keyup", (event) => event.key.startsWith("Arrow") && moved(here(), true));
  }

  /** Move the marker to this place. */
  place({ lat, lng }) {
    this.you.setLngLat([lng, lat]);
  }

  /** Outline the cell that the server gets; null for none. */
  ownCell(cell) {
    this._set("own-cell", collection(cell ? [cellPolygon(cell, {})] : []));
  }
}

/** Return the shapes that can be drawn; an alert without any is still in the lists. */
export function shapesOf(alert) {
  return alert.area.filter(isKnown);
}

/** Return a box of this size around this centre. */
function around({ x, y }, width, height) {
  return { left: x - width / 2, right: x + width / 2, top: y - height / 2, bottom: y + height / 2 };
}

const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

/** Return the possible places of a chip's name, the best first: [side, box]. */
function labelBoxes({ x, y }, width) {
  const { height, gap } = LABEL_PX;
  const [aside, across] = [CHIP_PX / 2 + gap + width / 2, CHIP_PX / 2 + gap + height / 2];
  const middles = { right: [x + aside, y], left: [x - aside, y], below: [x, y + across], above: [x, y - across] };
  return Object.entries(middles).map(([side, [left, top]]) => [side, around({ x: left, y: top }, width, height)]);
}

function rank({ alert, affected }) {
  return SEVERITIES.indexOf(alert.severity) + (affected ? SEVERITIES.length : 0);
}

/** Return a county's name as a label in the middle of the county's biggest part. */
function nameOf(county) {
  const { type, coordinates } = county.geometry;
  const rings = type === "Polygon" ? [coordinates[0]] : coordinates.map(([outer]) => outer);
  const ring = rings.reduce((longest, other) => (other.length > longest.length ? other : longest));
  const middle = (axis) => {
    const values = ring.map((point) => point[axis]);
    return (Math.min(...values) + Math.max(...values)) / 2;
  };
  return { type: "Feature", properties: county.properties, geometry: { type: "Point", coordinates: [middle(0), middle(1)] } };
}
