// What no page shows by itself: what is stored by two, and what is fetched without being shown.

import assert from "node:assert/strict";
import { test } from "node:test";

import { spotsOf } from "../../../client_demo/web/geocast/geo.js";
import { Holdings, readStored } from "../../../client_demo/web/geocast/holdings.js";
import { alert, FakeClock, HOME } from "./fakes.mjs";

const clock = new FakeClock();
const [now, home] = [clock.wall, spotsOf([HOME], undefined)];

/** Holdings at home with one alert, and what they would store. */
function holding(shows, revision = 1, stored = null) {
  const holdings = new Holdings(shows);
  holdings.move(home);
  holdings.take(alert(clock, "a", { revision }), now);
  return readStored(JSON.stringify(holdings.merged(stored, now, 0)));
}

test("what is fetched without being shown is told by the page", () => {
  const page = new Holdings();
  assert.deepEqual(
    page.restore(holding(false), now).map(([name]) => name),
    ["alert"],
    "also while no place is known",
  );
});

test("what either side has shown is shown, and the higher revision stands", () => {
  for (const [shown, unshown] of [
    [1, 1],
    [1, 2],
    [2, 1],
  ]) {
    for (const stored of [
      holding(true, shown, holding(false, unshown)),
      holding(false, unshown, holding(true, shown)),
    ]) {
      const page = new Holdings();
      page.move(home);
      assert.deepEqual(page.restore(stored, now), []);
      assert.equal(page.revision("a"), Math.max(shown, unshown));
    }
  }
});

test("what has ended is neither stored nor restored", () => {
  const stored = holding(true);
  assert.deepEqual(new Holdings().merged(stored, now + 3_600_000, 0).held, []);
  const page = new Holdings();
  page.restore(stored, now + 3_600_000);
  assert.deepEqual(page.list(0), []);
});
