// Tests of holdings that two sides store, and of alerts that are fetched without being shown.

import assert from "node:assert/strict";
import { test } from "node:test";

import { spotsOf } from "../../../client_demo/web/geocast/geo.js";
import { Holdings, readStored } from "../../../client_demo/web/geocast/holdings.js";
import { alert, FakeClock, HOME, time } from "./fakes.mjs";

const clock = new FakeClock();
const [now, home] = [clock.wall, spotsOf([HOME], undefined)];

/** Return holdings at home with one alert, and the data that they would store. */
function holding(shows, revision = 1, stored = null) {
  const holdings = new Holdings(shows);
  holdings.move(home);
  holdings.take(alert(clock, "a", { revision }), now, now);
  return readStored(JSON.stringify(holdings.merged(stored, now, now, 0)));
}

test("an alert fetched without being shown is reported by the page", () => {
  const page = new Holdings();
  assert.deepEqual(
    page.restore(holding(false), now, now).map(([name]) => name),
    ["alert"],
    "the alert is reported even if no place is known",
  );
});

test("an alert shown by either side counts as shown, and the higher revision is kept", () => {
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
      assert.deepEqual(page.restore(stored, now, now), []);
      assert.equal(page.revision("a"), Math.max(shown, unshown));
    }
  }
});

test("an ended alert is neither stored nor restored", () => {
  const later = now + 3_600_000;
  const stored = holding(true);
  assert.deepEqual(new Holdings().merged(stored, later, later, 0).held, []);
  const page = new Holdings();
  page.restore(stored, later, later);
  assert.deepEqual(page.list(0), []);
});

test("256 alerts ended only by the server's clock are kept, those that end last", () => {
  const holdings = new Holdings();
  holdings.move(home);
  const ahead = now + 7_200_000;
  for (let n = 0; n < 257; n++) {
    const expires_at = time(now + 3_600_000 + n);
    assert.deepEqual(holdings.take(alert(clock, `n${n}`, { expires_at }), ahead, now), []);
  }
  assert.equal(holdings.kept, 256);
  holdings.take(alert(clock, "live", { expires_at: time(ahead + 1) }), ahead, now);
  const [listed, dropped] = holdings.holding(ahead, now);
  assert.deepEqual([listed.size, listed.has("live"), listed.has("n0"), listed.has("n1"), dropped.length], [256, true, false, false, 0]);
});

test("kept alerts are stored for their lifetime", () => {
  const ahead = now + 7_200_000;
  const stored = readStored(JSON.stringify(new Holdings().merged(holding(true), ahead, now + 1_800_000, 0)));
  for (const [own, kept] of [
    [now + 1_800_000, 1],
    [now + 3_600_000, 0],
    [now - 86_400_000, 1], // the device's clock is set back, and the page is loaded again
  ]) {
    const page = new Holdings();
    page.move(home);
    assert.deepEqual(page.restore(stored, ahead, own), [], "an ended alert is not reported");
    assert.deepEqual([page.list(ahead), page.kept], [[], kept]);
    if (kept) assert.ok(page.nextExpiry(ahead - own) <= own + 3_600_000);
    const again = page.expire(now, own).map(([name]) => name);
    assert.deepEqual(again, kept ? ["alert"] : []);
  }
});

test("an alert stored by an older release is held, but not kept after its end", () => {
  const { held, ...rest } = JSON.parse(JSON.stringify(new Holdings().merged(holding(true), now, now, 0)));
  const stored = readStored(JSON.stringify({ ...rest, held: held.map(({ alert, affected, shown }) => ({ alert, affected, shown })) }));
  const page = new Holdings();
  page.restore(stored, now, now);
  assert.equal(page.list(now).length, 1);
  assert.deepEqual(page.expire(now + 7_200_000, now).map(([name, { cause }]) => `${name} ${cause}`), ["expire expired"]);
  assert.equal(page.kept, 0);
});

test("a cancel is remembered by the client's own clock, so a server's wrong clock brings no alert back", () => {
  const page = new Holdings();
  page.move(home);
  page.take(alert(clock, "a"), now, now);
  page.cancel({ type: "cancel", id: "a", revision: 2, reason: "over", cancelled_at: time(now) });
  page.expire(now + 7_200_000, now + 1);
  assert.deepEqual(page.take(alert(clock, "a"), now, now + 2), []);
  assert.deepEqual(page.list(now), []);
});
