// Tests of the sphere, the places, and which positions are worth sending.

import assert from "node:assert/strict";
import { test } from "node:test";

import { distanceM } from "../../../client_demo/web/geocast/geocast.js";
import { isInside, spotOf, spotsOf } from "../../../client_demo/web/geocast/geo.js";
import { cellAround, cellMatters, positionMatters } from "../../../client_demo/web/geocast/position.js";

const QUARTER_M = (6_371_007.180918475 * Math.PI) / 2;
const circle = (lat, lng, radius_m) => ({ type: "circle", lat, lng, radius_m });

test("distances are right at the poles and across the antimeridian", () => {
  const near = (a, b) => assert.ok(Math.abs(a - b) < 0.001, `${a} is not ${b}`);
  near(distanceM({ lat: 90, lng: 17 }, { lat: 0, lng: -120 }), QUARTER_M);
  near(distanceM({ lat: 0, lng: 179 }, { lat: 0, lng: -179 }), QUARTER_M / 45);
  near(distanceM({ lat: 0, lng: 180 }, { lat: 0, lng: -180 }), 0);
  near(distanceM({ lat: 90, lng: 0 }, { lat: -90, lng: 0 }), 2 * QUARTER_M);
});

test("the reach counts, and the edge is inside", () => {
  const off = distanceM({ lat: 0, lng: 0 }, { lat: 0, lng: 1 });
  const at = (accuracy_m) => [spotOf({ lat: 0, lng: 1, accuracy_m }, undefined, "place")];
  assert.ok(isInside([circle(0, 0, off)], at(0)));
  assert.ok(!isInside([circle(0, 0, off - 1)], at(0)));
  assert.ok(isInside([circle(0, 0, off - 1)], at(1)));
  assert.ok(isInside([circle(50, 50, 1), circle(0, 0, off)], at(0)), "a union of shapes");
  assert.ok(!isInside([circle(0, 0, off)], []), "nowhere");
});

test("a shape of unknown type counts as inside", () => {
  const [home] = spotsOf([{ lat: 1, lng: 2 }], undefined);
  for (const shape of [{ type: "polygon", points: [] }, {}, { type: "circle", lat: 1, lng: 2 }, circle(NaN, 0, 5)])
    assert.ok(isInside([shape], [home]), JSON.stringify(shape));
});

test("an invalid place is refused without repeating it", () => {
  const bad = [
    null,
    7,
    {},
    { lat: 91.77, lng: 0 },
    { lat: "1.77", lng: 0 },
    { lat: 0, lng: -180.77 },
    { lat: NaN, lng: 0 },
  ];
  bad.push({ lat: 0, lng: 0, accuracy_m: -1.77 }, { lat: 0, lng: 0, accuracy_m: NaN }, { cell: "891.77" });
  for (const place of bad)
    assert.throws(
      () => spotsOf([place], undefined),
      (error) => error instanceof TypeError && !/77/.test(error.message),
    );
  assert.throws(() => spotsOf("home", undefined), TypeError);
});

test("a poor accuracy is clamped, and only fields of the protocol are sent", () => {
  assert.deepEqual(spotOf({ lat: 1, lng: 2, accuracy_m: 9e9, speed: 3 }, undefined, "p").wire, {
    lat: 1,
    lng: 2,
    accuracy_m: 2_000,
  });
  assert.deepEqual(spotOf({ lat: 1, lng: 2, accuracy_m: 0 }, undefined, "p").wire, { lat: 1, lng: 2 });
  assert.deepEqual(spotOf({ lat: 1, lng: 2, accuracy_m: null }, undefined, "p").wire, { lat: 1, lng: 2 });
});

const spot = (lat, accuracy_m) => spotOf({ lat, lng: 0, accuracy_m }, undefined, "p");
const METRE = 1 / 111_195;

test("a position is sent if the last disc does not cover it, is too wide, or is too old", () => {
  const matters = (told, fix, elapsed = 0) => positionMatters(told, fix, elapsed, 25, 300_000);
  assert.ok(matters(null, spot(0, 10)));
  assert.ok(!matters(spot(0, 30), spot(20 * METRE, 30)));
  assert.ok(matters(spot(0, 30), spot(30 * METRE, 30)));
  assert.ok(matters(spot(0, 30), spot(0, 60)), "the person may be outside of the disc that was sent");
  assert.ok(matters(spot(0, 2_000), spot(0, 30)), "the position is now known better");
  assert.ok(matters(spot(0, 30), spot(20 * METRE, 30), 300_000));
  assert.ok(!matters(spot(0, 30), spot(0, 30), 300_000), "the same position");
});

test("the finest accepted cell is used, without switching back and forth at a border", async (t) => {
  const h3 = await import("../../../client_demo/web/node_modules/h3-js/dist/h3-js.js").catch(() => null);
  if (!h3) return t.skip("no npm packages");
  const { latLngToCell, cellToLatLng, cellToBoundary, isValidCell, getResolution } = h3.default;
  const lib = { latLngToCell, cellToLatLng, cellToBoundary, isValidCell, getResolution };
  const resolution = (accuracy) => getResolution(cellAround(spot(45, accuracy), lib, 10).wire.cell);
  assert.deepEqual([10, 100, 500, 2_000].map(resolution), [10, 9, 8, 7]);

  for (const cell of [latLngToCell(1, 2, 6), "zz", "8928308280fffff0", undefined])
    assert.throws(() => spotOf({ cell }, lib, "place"), TypeError);
  assert.throws(() => spotOf({ cell: latLngToCell(1, 2, 9) }, undefined, "place"), /h3/);

  const told = cellAround(spot(45, 10), lib, 9);
  const [lat, lng] = cellToBoundary(told.wire.cell)[0];
  const corner = (farther) =>
    spotOf({ lat: told.lat + (lat - told.lat) * farther, lng: told.lng + (lng - told.lng) * farther }, lib, "p");
  assert.ok(!cellMatters(told, cellAround(corner(0.99), lib, 9), corner(0.99)));
  assert.ok(cellMatters(told, cellAround(corner(1.2), lib, 9), corner(1.2)));
  const widest = cellAround(spot(45, 2_000), lib, 9);
  assert.ok(!cellMatters(widest, cellAround(spot(45, 2_000), lib, 9), spot(45, 2_000)), "the widest cell is sent once, not at every fix");
});
