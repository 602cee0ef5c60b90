/** Two hubs behind the real Traefik, plain round-robin, no stickiness: what clients see of it, and of instances that go away. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  account, arrive, arriveAll, ask, census, crosses, eventually, newUsername, proper, receivesProper, startCluster, startHub,
  startRedis, startTraefik,
} from './support.mjs';
import { clientsStay } from '../support/round_robin.mjs';

/** Waits until both hubs hear each other. */
async function joined(sockets) {
  const [first] = sockets;
  const other = sockets.find(({ instance }) => instance !== first.instance);
  await crosses(first, other);
  await crosses(other, first);
}

/** Waits until all are connected to `instance`. */
function gathered(sockets, instance) {
  return eventually(
    () => sockets.every((socket) => socket.connected && socket.instance === instance),
    () => `all at ${instance} (they are at ${sockets.map((socket) => socket.instance)}; failed attempts: ${
      sockets.flatMap(({ errors }) => errors.map(String))})`,
  );
}

test('clients land on both instances, and one event reaches all, its sender included', async (t) => {
  const { traefik, instances } = await startCluster(t);
  const sockets = await arriveAll(t, traefik, await traefik.token(), 6);
  const counts = census(sockets);
  assert.deepEqual([...counts.keys()].sort(), [...instances.keys()].sort());
  for (const count of counts.values()) assert.ok(count >= 2, `evenly, more or less: ${[...counts.values()]}`);
  await joined(sockets);
  // Stickiness would come as a cookie.
  assert.equal((await fetch(`${traefik.url}/readyz`)).headers.get('set-cookie'), null);

  const payload = { text: 'grüße, 🙂', bytes: Buffer.from([0, 255]) };
  for (const socket of sockets) await ask(socket, 'test-event', payload);
  for (const socket of sockets) assert.deepEqual(await receivesProper(socket, 6), Array(6).fill(payload));
  // Nothing came twice: had it, it would have come ahead of these.
  await joined(sockets);
  for (const socket of sockets) assert.equal(proper(socket).length, 6);
});

clientsStay(async (t, front) => {
  const { traefik, ...cluster } = await startCluster(t, front);
  return { ...cluster, url: traefik.url, token: () => traefik.token() };
});

test('who registers through Traefik logs in at either instance, and the other way round', async (t) => {
  const { traefik, hubs } = await startCluster(t);
  for (let round = 0; round < 2; round += 1) {
    const username = newUsername();
    await traefik.register(username);
    for (const at of [...hubs, traefik]) assert.equal((await account(at, 'login', username)).user.username, username);
  }
  for (const [here, there] of [hubs, [...hubs].reverse()]) {
    const username = newUsername();
    const { access_token: token } = await here.register(username);
    await account(there, 'login', username);
    for (const socket of await arriveAll(t, traefik, token, 2)) assert.ok(socket.connected);
  }
});

describe('when an instance goes away', () => {
  for (const [how, leave, expected] of [
    ['without a word', (hub) => hub.kill(), { code: null, signal: 'SIGKILL' }],
    ['in order', (hub) => hub.stop(), { code: 0, signal: null }],
  ]) {
    test(`${how}: its clients go on at the other, whose own clients notice nothing`, async (t) => {
      const { traefik, instances } = await startCluster(t);
      const token = await traefik.token();
      const sockets = await arriveAll(t, traefik, token, 6);
      await joined(sockets);
      const [gone, left] = [sockets[0].instance, sockets.find(({ instance }) => instance !== sockets[0].instance).instance];
      const moved = sockets.filter(({ instance }) => instance === gone);
      const stayed = sockets.filter(({ instance }) => instance === left);

      assert.deepEqual(await leave(instances.get(gone)), expected);
      await gathered(sockets, left);
      t.diagnostic(`attempts that failed on the way: ${sockets.flatMap(({ errors }) => errors).length}`);
      for (const socket of moved) assert.deepEqual(socket.disconnects, ['transport close']);
      for (const socket of stayed) assert.deepEqual(socket.disconnects, []);
      for (const socket of sockets) await ask(socket, 'test-event', 'after');
      for (const socket of sockets) assert.deepEqual(await receivesProper(socket, 6), Array(6).fill('after'));

      // New clients and plain requests do not meet the one that is gone.
      for (let number = 0; number < 6; number += 1) assert.equal((await traefik.get('/readyz')).status, 200);
      await gathered(await arriveAll(t, traefik, token, 2), left);
    });
  }

  test('and comes back: it takes its share again', async (t) => {
    const { traefik, hubs: [first], instances } = await startCluster(t);
    const token = await traefik.token();
    const old = (await first.readyz()).instance;
    const other = [...instances.keys()].find((id) => id !== old);
    await first.kill();
    await gathered(await arriveAll(t, traefik, token, 2), other);
    await first.start();
    const { instance } = await first.readyz();
    await eventually(async () => (await traefik.readyz()).instance === instance, 'Traefik sends to it again');
    const sockets = await arriveAll(t, traefik, token, 4);
    assert.deepEqual([...census(sockets).keys()].sort(), [instance, other].sort());
    await joined(sockets);
  });
});

test('an instance that is not ready gets no clients until it is', async (t) => {
  const [good, bad] = [await startRedis(t), await startRedis(t)];
  await bad.kill();
  // Alive, but without the key that tokens are checked with: that one is in a Redis which is not there.
  const [ready, waiting] = [await startHub(t, { REDIS_URL: good.url }), await startHub(t, { REDIS_URL: bad.url })];
  await eventually(async () => (await ready.readyz()).ready, 'the first hub is ready');
  assert.equal((await waiting.readyz()).ready, false);
  const { instance } = await ready.readyz();
  const traefik = await startTraefik(t, [ready.url, waiting.url]);
  const answers = async () => {
    const found = [];
    for (let number = 0; number < 6; number += 1) found.push(await traefik.get('/readyz'));
    return found;
  };
  await eventually(async () => (await answers()).every(({ status }) => status === 200), 'only the ready one answers');
  const token = await traefik.token();
  for (let number = 0; number < 4; number += 1) assert.equal((await arrive(t, traefik, token)).instance, instance);

  await bad.start();
  await eventually(async () => (
    new Set((await answers()).map(({ status, body }) => status === 200 && JSON.parse(body).instance)).size === 2
  ), 'the other one answers, too');
});

