/** The table says what whoever reads its figures must know of the system. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { TRACKED } from "./conntrack.mjs";
import { markdown } from "./report.mjs";

test("that the system tracks connections is said if it does, and only then", () => {
  for (const tracked of [true, false]) {
    const table = markdown({}, [], { connections_tracked: tracked });
    assert.equal(table.includes(TRACKED), tracked);
  }
});

test("how long is measured is said where it is not as long as usual", () => {
  const cells = { steady: { sockhop: {} }, beside_deaf: { sockhop: {} }, growth100_rare: { sockhop: {} } };
  const lengths = (seconds) => {
    const headings = markdown(cells, [], { seconds }).matchAll(/^## .*: .*$/gm);
    return [...headings].map(([heading]) => / (\d+) s each$/.exec(heading)?.[1]);
  };
  assert.deepEqual(lengths(2), [undefined, "10", "8"]);
  assert.deepEqual(lengths(10), [undefined, undefined, "40"]);
});
