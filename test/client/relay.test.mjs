/** The official client behind a balancer that sends no two requests of a session to the same one of three instances. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Cluster } from '../support/cluster.mjs';
import { admitted, ask, client, eventually, next } from './support.mjs';

const WAYS = [
  { name: 'polling only', options: { transports: ['polling'] } },
  { name: 'websocket only', options: { transports: ['websocket'] } },
  { name: 'default transports', options: {} },
];

async function join(t, cluster, options) {
  cluster.shared ??= await cluster.token();
  const socket = client(t, cluster, { auth: { token: cluster.shared }, ...options });
  socket.received = [];
  socket.ends = [];
  socket.on('test-event', (payload) => socket.received.push(payload));
  socket.on('disconnect', (reason) => socket.ends.push(reason));
  await admitted(socket);
  if (!options.transports) await eventually(() => socket.io.engine.transport.name === 'websocket', 'the upgrade');
  return socket;
}

for (const { name, options } of WAYS) {
  describe(name, () => {
    test('events, acks and binary go both ways, in order, once, and nobody is thrown out', async (t) => {
      const all = await Cluster.start(t);
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
      const all = await Cluster.start(t, { PING_INTERVAL: '300', PING_TIMEOUT: '4000' });
      const socket = await join(t, all, options);
      for (let n = 0; n < 5; n += 1) await next(socket.io.engine, 'heartbeat');
      assert.deepEqual(await ask(socket, 'echo', 1), [1]);
      assert.deepEqual(socket.ends, []);
    });

    test('a client leaves, and its session with it', async (t) => {
      const all = await Cluster.start(t);
      const socket = await join(t, all, options);
      socket.disconnect();
      await eventually(async () => await all.numConnections() === 0, 'no connections');
    });
  });
}

test('an instance is killed: whoever was on it, or polled by way of it, comes back by itself, and nobody else is thrown out', async (t) => {
  const all = await Cluster.start(t);
  const sockets = await Promise.all(Array.from({ length: 9 }, () => join(t, all, { transports: ['polling'] })));
  const instanceOf = (socket) => socket.io.engine.id.slice(0, 8);
  const killed = all.balancer.openerOf(sockets[0].io.engine.id);
  const rest = all.hubs.filter((hub) => hub !== killed);
  const ofKilled = sockets.filter((socket) => instanceOf(socket) === killed.instance);
  assert.ok(ofKilled.length < sockets.length, 'another instance has some, too');
  // From now on new requests go elsewhere; those of before, parked there or on their way, break with it.
  all.balancer.remove(killed);
  await killed.kill();
  await eventually(
    () => sockets.every((socket) => socket.connected && rest.some((hub) => hub.instance === instanceOf(socket))),
    'every client on an instance that lives',
  );
  for (const socket of sockets) {
    assert.deepEqual(await ask(socket, 'echo', 1), [1]);
    assert.ok(socket.ends.length <= 1, `${socket.ends}`);
    for (const reason of socket.ends) assert.match(reason, /^transport (error|close)$/);
  }
  for (const socket of ofKilled) assert.equal(socket.ends.length, 1);
});
