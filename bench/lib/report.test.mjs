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
