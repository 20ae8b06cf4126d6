// Tests of reconnection delays: the table of docs/protocol.md, and the window.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { afterClose, Backoff, CLOSE_CODES } from "../../../client_demo/web/geocast/reconnect.js";

const IN_WORDS = {
  "yes, within the window": "window",
  "yes, later": "later",
  "yes, the first time at once": "at once",
  "with a new token": "new token",
  no: "never",
};

test("every close code is handled as docs/protocol.md says", () => {
  const text = readFileSync(new URL("../../../docs/protocol.md", import.meta.url), "utf-8").split("### Close codes")[1];
  const rows = [...text.matchAll(/^\| (\d{4}) \| [^|]+ \| ([^|]+) \|$/gm)];
  assert.ok(rows.length > 12);
  for (const [, code, words] of rows) assert.equal(afterClose(Number(code)), IN_WORDS[words], code);
  for (const code of [1000, 1006, 3000, 4999]) assert.equal(afterClose(code), "window");
  assert.deepEqual(new Set(Object.keys(CLOSE_CODES)), new Set([...rows.map(([, code]) => code), "1000", "1006"]));
});

const windowOf = (prepare) =>
  [0, 1].map((draw) => {
    const backoff = new Backoff(() => draw);
    return prepare(backoff);
  });

test("before a welcome the window is 1 to 30 s, and its upper end doubles up to 120 s", () => {
  for (const high of [30_000, 60_000, 120_000, 120_000]) {
    const times = { 30_000: 1, 60_000: 2, 120_000: 3 }[high];
    const nth = (backoff) => Array.from({ length: times }, () => backoff.delay("window")).at(-1);
    assert.deepEqual(windowOf(nth), [1_000, high]);
  }
});

test("a welcome gives the window and ends the doubling", () => {
  const afterWelcome = (backoff) => {
    backoff.delay("window");
    backoff.delay("window");
    backoff.welcomed(500, 5_000);
    return backoff.delay("window");
  };
  assert.deepEqual(windowOf(afterWelcome), [500, 5_000]);
});

test("the delay of `later` is beyond the window", () => {
  assert.deepEqual(
    windowOf((backoff) => backoff.delay("later")),
    [30_000, 60_000],
  );
});

test("the first 4420 or 4401 is retried at once; the next 4420 waits for `later`, the next 4401 for the window", () => {
  for (const [after, ends] of [
    ["at once", [30_000, 60_000]],
    ["new token", [1_000, 30_000]],
  ]) {
    assert.deepEqual(
      windowOf((backoff) => backoff.delay(after)),
      [0, 0],
    );
    assert.deepEqual(
      windowOf((backoff) => (backoff.delay(after), backoff.delay(after))),
      ends,
    );
  }
});

test("a token that was good for a session may be renewed at once; a second 4420 waits", () => {
  const again = (after) => (backoff) => {
    backoff.delay(after);
    backoff.welcomed(1_000, 30_000);
    return backoff.delay(after);
  };
  assert.deepEqual(windowOf(again("new token")), [0, 0]);
  assert.deepEqual(windowOf(again("at once")), [30_000, 60_000]);
});
