// The common part of the pages' maps: streets or plain land, the grid of cells, layers in the colours of the theme.

import { Map as GlMap, NavigationControl, ScaleControl } from "/npm/maplibre-gl/dist/maplibre-gl.mjs";
import { creditsOf } from "/shared/credits.js";
import { STROKES, cellPolygon, cellsWithin, collection, resolutionAt } from "/shared/shapes.js";

/** Return a map that moves and zooms, with buttons and a scale. `styleUrl` is a style with streets; others are MapLibre's options. */
export function flatMap({ styleUrl, ...options }) {
  const map = new GlMap({
    style: styleUrl ?? { version: 8, sources: {}, layers: [] },
    dragRotate: false,
    pitchWithRotate: false,
    touchPitch: false,
    attributionControl: false,
    ...options,
  });
  map.touchZoomRotate.disableRotation();
  map.keyboard.disableRotation();
  map.addControl(new NavigationControl({ showCompass: false }), "top-right");
  map.addControl(new ScaleControl({ maxWidth: 120 }), "bottom-left");
  const { dataset } = map.getContainer(); // for tests that wait for the map
  ["dataloading", "render"].forEach((change) => map.on(change, () => (dataset.idle = "false")));
  map.on("idle", () => (dataset.idle = "true"));
  return map;
}

export class BaseMap {
  /**
   * `sources` are the names of the sources, "grid" among them; those that end in "beyond" are strokes. A subclass
   * returns their layers from `_layers(hasStreets)`. Throws where no map can be drawn.
   */
  constructor({ container, styleUrl, sources, maxZoom, center = [0, 25], zoom = 1.5 }) {
    this._hasStreets = Boolean(styleUrl);
    this._data = Object.fromEntries(sources.map((name) => [name, collection([])]));
    this.map = flatMap({ container, styleUrl, center, zoom, maxZoom });
    this.map.getCanvas().setAttribute("aria-label", "Map; the arrow keys move it, plus and minus zoom");
    if (styleUrl) {
      this._streets();
    }
    this.map.on("moveend", () => this._grid());
    this.map.once("style.load", () => this._begin());
  }

  /** Show the streets' credits. If the style can't be loaded, draw the map without streets, as reviewers need a map. */
  _streets() {
    const credits = document.getElementById("credits");
    credits.hidden = false;
    this.map.on("idle", () => this._hasStreets && credits.replaceChildren(...creditsOf(this.map).slice(0, -1)));
    this.map.on("error", () => {
      credits.textContent = "The streets can’t be loaded.";
      if (!this._isReady) {
        this._hasStreets = false;
        this.map.setStyle({ version: 8, sources: {}, layers: [] }, { diff: false });
      }
    });
  }

  _begin() {
    for (const [name, data] of Object.entries(this._data)) {
      this.map.addSource(name, { ...(name.endsWith("beyond") ? STROKES : { type: "geojson" }), data });
    }
    this._layers(this._hasStreets).forEach((layer) => this.map.addLayer(layer));
    this._isReady = true;
    this._grid();
  }

  _set(source, features) {
    this._data[source] = collection(features);
    if (this._isReady) {
      this.map.getSource(source).setData(this._data[source]);
    }
  }

  _grid() {
    const resolution = resolutionAt(this.map.getZoom());
    const cells = resolution === null ? [] : cellsWithin(this.map.getBounds(), resolution);
    this._set("grid", cells.map((cell) => cellPolygon(cell, {})));
  }

  /** Use the colours of the present theme. */
  repaint() {
    if (!this._isReady) {
      return;
    }
    for (const { id, paint } of this._layers(this._hasStreets)) {
      Object.entries(paint).forEach(([property, value]) => this.map.setPaintProperty(id, property, value));
    }
  }
}
