// The corners of a polygon on the map: a press on the map adds a corner, the handle of a corner moves or removes it, and a
// handle between two corners adds another corner there.

const MOST_HANDLES = 60; // a ring with more corners has no handles, and can be changed only in the form
const ROUND = 5; // decimal digits of a degree, about a metre

export class Outline {
  /** `handle(name, label, step, keys)` makes a marker; `changed(ring)` gets the corners, [lng, lat] each. */
  constructor(map, handle, changed) {
    Object.assign(this, { _map: map, _handle: handle, _changed: changed });
    this._ring = [];
    this._corners = [];
    this._between = [];
  }

  /** Show handles for these corners, or no handles. */
  show(ring, isEditable) {
    this._ring = ring;
    const count = isEditable && ring.length <= MOST_HANDLES ? ring.length : 0;
    if (count !== this._corners.length) {
      this._make(count);
    }
    this._corners.forEach((marker, n) => marker.setLngLat(ring[n]));
    this._between.forEach((marker, n) => marker.setLngLat(this._middle(n)));
  }

  /** Add a corner behind the last. */
  add(lngLat) {
    this._put(this._ring.length, rounded(lngLat));
  }

  _make(count) {
    const focused = this._corners.findIndex((marker) => marker.getElement() === document.activeElement);
    [...this._corners, ...this._between].forEach((marker) => marker.remove());
    this._between = count > 2 ? Array.from({ length: count }, (_, n) => this._marker(this._betweenHandle(n, count), n)) : [];
    this._corners = Array.from({ length: count }, (_, n) => this._marker(this._cornerHandle(n, count), n));
    if (focused >= 0) {
      this._focus(Math.min(focused, count - 1));
    }
  }

  _marker(marker, n) {
    return marker.setLngLat(this._ring[n]).addTo(this._map);
  }

  _focus(n) {
    this._corners[n]?.getElement().focus();
  }

  _cornerHandle(n, count) {
    const label = `Corner ${n + 1} of ${count}: the arrow keys move it, Delete takes it away`;
    const away = () => this._take(n);
    const step = ([east, south], px) => this._nudge(n, east * px, south * px);
    const marker = this._handle("handle-corner", label, step, { Delete: away, Backspace: away });
    marker.on("drag", () => this._replace(n, rounded(marker.getLngLat())));
    return marker;
  }

  _betweenHandle(n, count) {
    const label = `One more corner between ${n + 1} and ${((n + 1) % count) + 1}`;
    const add = () => {
      this._put(n + 1, rounded({ lng: this._middle(n)[0], lat: this._middle(n)[1] }));
      this._focus(n + 1);
    };
    const marker = this._handle("handle-between", label, () => {}, { Enter: add, " ": add });
    marker.getElement().addEventListener("click", add);
    marker.setDraggable(false);
    return marker;
  }

  /** Return the point half-way to the next corner, along the shorter way around the earth. */
  _middle(n) {
    const [[lng, lat], [toLng, toLat]] = [this._ring[n], this._ring[(n + 1) % this._ring.length]];
    const over = ((((toLng - lng + 180) % 360) + 360) % 360) - 180;
    return [lng + over / 2, (lat + toLat) / 2];
  }

  _nudge(n, x, y) {
    const at = this._map.project(this._corners[n].getLngLat());
    this._replace(n, rounded(this._map.unproject([at.x + x, at.y + y])));
  }

  _replace(n, corner) {
    this._changed(this._ring.map((each, at) => (at === n ? corner : each)));
  }

  _put(n, corner) {
    this._changed([...this._ring.slice(0, n), corner, ...this._ring.slice(n)]);
  }

  _take(n) {
    this._changed(this._ring.filter((_, at) => at !== n));
  }
}

function rounded({ lng, lat }) {
  const wrapped = ((((lng + 180) % 360) + 360) % 360) - 180;
  return [Number(wrapped.toFixed(ROUND)), Number(Math.max(-90, Math.min(90, lat)).toFixed(ROUND))];
}
