/** The protocols' official suites, against three instances whose balancer is against sticky sessions: `test/conformance` says what they are. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Cluster } from '../support/cluster.mjs';
import { ROOT, exampleBin, startProcess } from './support.mjs';

test('every case of the official suites passes, wherever its requests land', async (t) => {
  const cluster = await Cluster.start(t, {}, { bin: exampleBin('conformance') });
  const { host } = new URL(cluster.url);
  const run = startProcess('cargo', ['test', '--locked', '--test', 'conformance', '--', 'suites::'], {
    cwd: ROOT,
    env: { ...process.env, CONFORMANCE_ADDR: host },
  });
  const { code } = await run.ended;
  assert.equal(code, 0, run.log);
  const passed = Number(/(\d+) passed; 0 failed; 0 ignored/.exec(run.log)?.[1]);
  assert.equal(passed, 57, run.log);
  assert.ok(cluster.balancer.numRequests.every((num) => num > 20), String(cluster.balancer.numRequests));
  t.diagnostic(`requests at each instance: ${cluster.balancer.numRequests}`);
});
