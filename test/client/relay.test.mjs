/** The official client behind a balancer that sends no two requests of a session to the same one of three instances. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { startBalancer } from '../support/balancer.mjs';
import { admitted, ask, client, eventually, next, startHubs, startRedis } from './support.mjs';

const WAYS = [
  { name: 'polling only', options: { transports: ['polling'] } },
  { name: 'websocket only', options: { transports: ['websocket'] } },
  // An upgrade that lands at another instance is refused, and the client stays on polling.
  { name: 'default transports', options: {} },
];

/** Three instances on a Redis of their own, and the balancer in front. */
async function cluster(t, env = {}) {
  const redis = await startRedis(t);
  const hubs = await startHubs(t, Array.from({ length: 3 }, () => ({ REDIS_URL: redis.url, ...env })));
  const balancer = await startBalancer(t, hubs);
  return { redis, hubs, balancer, token: await hubs[0].token() };
}

async function join(t, { balancer, token }, options) {
  const socket = client(t, balancer, { auth: { token }, ...options });
  socket.received = [];
  socket.ends = [];
  socket.on('test-event', (payload) => socket.received.push(payload));
  socket.on('disconnect', (reason) => socket.ends.push(reason));
  await admitted(socket);
  return socket;
}

for (const { name, options } of WAYS) {
  describe(name, () => {
    test('events, acks and binary go both ways, in order, once, and nobody is thrown out', async (t) => {
      const all = await cluster(t);
      const sockets = await Promise.all(Array.from({ length: 4 }, () => join(t, all, options)));
      const bytes = Buffer.from([0, 1, 254, 255]);
      assert.deepEqual(await ask(sockets[0], 'echo', 'é', { bytes }), ['é', { bytes }]);
      const numbers = Array.from({ length: 100 }, (_, n) => n);
      for (const n of numbers) sockets[1].emit('test-event', n);
      for (const socket of sockets) {
        await eventually(() => socket.received.length >= 100, () => `100 events, not ${socket.received.length}`);
        assert.deepEqual(socket.received, numbers);
        assert.deepEqual(socket.ends, []);
      }
      assert.ok(all.balancer.numRequests.every((num) => num > 0), String(all.balancer.numRequests));
    });

    test('heartbeats keep a quiet client', async (t) => {
      const all = await cluster(t, { PING_INTERVAL: '300', PING_TIMEOUT: '4000' });
      const socket = await join(t, all, options);
      for (let n = 0; n < 5; n += 1) await next(socket.io.engine, 'heartbeat');
      assert.deepEqual(await ask(socket, 'echo', 1), [1]);
      assert.deepEqual(socket.ends, []);
    });

    test('a client leaves, and its session with it', async (t) => {
      const all = await cluster(t);
      const socket = await join(t, all, options);
      socket.disconnect();
      const numConnections = async () => (await Promise.all(all.hubs.map((hub) => hub.readyz()))).map((r) => r.connections);
      await eventually(async () => (await numConnections()).every((num) => num === 0), 'no connections');
    });
  });
}

test('an instance is killed: its clients come back by themselves, the others notice nothing', async (t) => {
  const all = await cluster(t);
  const sockets = await Promise.all(Array.from({ length: 9 }, () => join(t, all, { transports: ['polling'] })));
  const isOf = (hub) => (socket) => hub.instance === socket.io.engine.id.slice(0, 8);
  for (const hub of all.hubs) hub.instance = (await hub.readyz()).instance;
  const [killed, ...rest] = all.hubs;
  const ofKilled = sockets.filter(isOf(killed));
  const ofOthers = sockets.filter((socket) => !ofKilled.includes(socket));
  assert.ok(ofKilled.length > 0 && ofOthers.length > 0, `${ofKilled.length} of ${sockets.length}`);
  all.balancer.remove(killed);
  const back = ofKilled.map((socket) => next(socket, 'connect'));
  await killed.kill();
  await Promise.all(back);
  for (const socket of sockets) assert.deepEqual(await ask(socket, 'echo', 1), [1]);
  for (const socket of ofOthers) assert.deepEqual(socket.ends, []);
  for (const socket of ofKilled) assert.ok(rest.some((hub) => isOf(hub)(socket)));
});
