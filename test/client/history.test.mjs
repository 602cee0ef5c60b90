/**
 * The history of every client while its session moves from one instance to another: nothing is missing, doubled or out of order.
 *
 * Environment: `HISTORY_ROUNDS` (default 1), how often each is done in a row; `make hops-test` does 50. `HISTORY_SEED` (default:
 * another each time, told by the test), what the delays are made from.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { describe, test } from 'node:test';

import { Cluster } from '../support/cluster.mjs';
import { random, slow } from '../support/proxy.mjs';
import { History, keepHistory } from './history.support.mjs';
import { atEnd } from './support.mjs';

const ROUNDS = Number(process.env.HISTORY_ROUNDS ?? 1);
const SIZE = { num: 200, perSecond: 25, rate: 20, staySeconds: 1 };
/**
 * Of one chunk between an instance and Redis, in milliseconds. A move takes up to a dozen, one after the other, and is given up after
 * five seconds. They hold up all that is behind them, too: with much longer ones the events alone would be more than gets through.
 */
const LONGEST_DELAYS = [10, 60, 5, 30];

/** Keeps the histories of many clients, all of which must be flawless, and leaves nothing behind. */
async function check(t, cluster) {
  const { faults, numEvents } = await keepHistory(t, cluster, SIZE);
  const moves = cluster.balancer.upgrades.filter(({ from, to, status }) => from !== to && status === 101).length;
  t.diagnostic(`${moves} sessions moved while ${numEvents} events were published`);
  assert.deepEqual(faults.slice(0, 20), [], `${faults.length} faults`);
  // Of the clients and of the publisher. Otherwise nothing was shown.
  assert.equal(moves, SIZE.num + 1);
}

describe('every history is whole', () => {
  for (let round = 1; round <= ROUNDS; round += 1) {
    test(`when sessions move: round ${round} of ${ROUNDS}`, async (t) => {
      await check(t, await Cluster.start(t));
    });

    test(`when sessions move, and every step takes its time: round ${round} of ${ROUNDS}`, async (t) => {
      const seed = Number(process.env.HISTORY_SEED ?? randomInt(2 ** 32));
      const longest = LONGEST_DELAYS[(round - 1) % LONGEST_DELAYS.length];
      t.diagnostic(`HISTORY_SEED=${seed}, delays of up to ${longest} ms`);
      const cluster = await Cluster.start(t, {}, { proxied: true });
      const chance = random(seed);
      for (const proxy of cluster.proxies) proxy.gate = slow(longest, chance);
      await check(t, cluster);
    });
  }
});

describe('the check itself', () => {
  /** What a history says of events with these numbers, of which `floor` were published before the client was connected. */
  const faultsOf = (floor, numbers, total) => {
    const publisher = { name: 'p', next: floor };
    const history = new History('c', [publisher]);
    history.begin();
    for (const number of numbers) history.take({ from: 'p', number, bytes: number % 5 ? undefined : Buffer.of(1) });
    publisher.next = total;
    return history.end();
  };
  for (const [rule, ...history] of [
    ['from the first after the CONNECT', 2, [2, 3, 4], 5],
    ['from one that was on its way before', 2, [1, 2, 3, 4], 5],
  ]) {
    test(`a whole history is one: ${rule}`, () => assert.deepEqual(faultsOf(...history), []));
  }
  for (const [rule, ...history] of [
    ['begins too late', 2, [3, 4], 5],
    ['has a gap', 2, [2, 4], 5],
    ['has one twice', 2, [2, 3, 3, 4], 5],
    ['is out of order', 2, [3, 2, 4], 5],
    ['ends too early', 2, [2, 3], 5],
    ['is empty', 2, [], 5],
  ]) {
    test(`one is not that ${rule}`, () => assert.equal(faultsOf(...history).length, 1));
  }

  test('what is lost between Redis and an instance is missed', async (t) => {
    const cluster = await Cluster.start(t, {}, { proxied: true, policy: 'sticky' });
    // Redis keeps nothing for who is away.
    const timer = setTimeout(() => cluster.proxies[0].cut(), 1000);
    atEnd(t, () => clearTimeout(timer));
    const { faults } = await keepHistory(t, cluster, { num: 9, perSecond: 20, rate: 50, staySeconds: 1.5 });
    assert.ok(faults.some((fault) => /is missing/.test(fault)), String(faults));
  });
});
