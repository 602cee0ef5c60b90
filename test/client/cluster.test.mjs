/** Two hubs on one Redis, Node's own server as a third, and what happens when that Redis goes away. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  MODES, PASSWORD, ask, client, connected, crosses, eventually, newUsername, proper, receivesProper, startHubs,
  startNodePeer, startRedis,
} from './support.mjs';

const WEBSOCKET = { transports: ['websocket'] };
const CLUSTER_LINE = '[EventsGateway] Redis adapter configured for WebSocket scalability';
const SINGLE_LINE = '[EventsGateway] REDIS_URL not configured. Running in single-instance mode';

const PAYLOADS = [
  { text: 'grüße, 漢字, 🙂🏽', null: null, float: 0.1, int: -9007199254740991, deep: [[{ a: [true, false, ''] }]] },
  { bytes: Buffer.from(Array.from({ length: 256 }, (_, i) => i)), more: [Buffer.from('é'), { x: Buffer.alloc(0) }] },
  Buffer.from([0, 1, 2]),
  'text', 17, null, [1, 2.5, 'three'],
];

/** Two instances on a Redis of their own. */
async function cluster(t, env = {}) {
  const redis = await startRedis(t);
  const [a, b] = await startHubs(t, [{ REDIS_URL: redis.url, ...env }, { REDIS_URL: redis.url, ...env }]);
  return { redis, a, b };
}

test('the log tells single instance and cluster apart', async (t) => {
  const [single] = await startHubs(t, [{}]);
  assert.ok(single.log.includes(SINGLE_LINE), single.log);
  assert.ok(!single.log.includes(CLUSTER_LINE), single.log);
  assert.equal((await single.readyz()).mode, 'single');
  const { a } = await cluster(t);
  assert.ok(a.log.includes(CLUSTER_LINE), a.log);
  assert.ok(!a.log.includes(SINGLE_LINE), a.log);
  assert.equal((await a.readyz()).mode, 'cluster');
});

test('who registered at one logs in at the other, and each takes the other’s tokens', async (t) => {
  const { a, b } = await cluster(t);
  const username = newUsername();
  const { access_token: token } = await a.register(username);
  const response = await fetch(`${b.url}/auth/login`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ username, password: PASSWORD }),
  });
  assert.equal(response.status, 200);
  const { access_token: other } = await response.json();
  await connected(t, b, WEBSOCKET, token);
  await connected(t, a, WEBSOCKET, other);
  await assert.rejects(b.register(username), /409/);
});

for (const { name, options } of MODES) {
  test(`events cross both ways unchanged, once each and in order: ${name}`, async (t) => {
    const { a, b } = await cluster(t);
    const token = await a.token();
    const left = await connected(t, a, options, token);
    const right = await connected(t, b, options, token);
    await crosses(left, right);
    await crosses(right, left);

    for (const payload of PAYLOADS) await ask(left, 'test-event', payload);
    const back = PAYLOADS.map((payload) => ({ back: payload }));
    for (const side of [left, right]) assert.deepEqual(await receivesProper(side, PAYLOADS.length), PAYLOADS);
    for (const payload of back) await ask(right, 'test-event', payload);
    for (const side of [left, right]) {
      assert.deepEqual(await receivesProper(side, 2 * PAYLOADS.length), [...PAYLOADS, ...back]);
    }

    const before = 2 * PAYLOADS.length;
    for (let number = 0; number < 100; number += 1) left.emit('test-event', { number });
    // What comes behind the last of them on the same way: had there been a duplicate, it would be here by now.
    await ask(left, 'test-event', 'end');
    for (const side of [left, right]) {
      await eventually(() => proper(side).includes('end'), 'the end mark');
      await crosses(left, right);
      assert.deepEqual(
        proper(side).slice(before),
        [...Array.from({ length: 100 }, (_, number) => ({ number })), 'end'],
      );
    }
  });
}

describe('beside Node’s own server', () => {
  test('events cross in both directions, binary and unicode unchanged', async (t) => {
    const redis = await startRedis(t);
    const [hub] = await startHubs(t, [{ REDIS_URL: redis.url }]);
    const node = await startNodePeer(t, redis);
    const atHub = await connected(t, hub, WEBSOCKET);
    const atNode = client(t, node, WEBSOCKET);
    atNode.received = [];
    atNode.on('test-event', (payload) => atNode.received.push(payload));
    await eventually(() => atNode.connected, 'the client of Node’s server');
    await crosses(atHub, atNode);

    for (const payload of PAYLOADS) await ask(atHub, 'test-event', payload);
    assert.deepEqual(await receivesProper(atNode, PAYLOADS.length), PAYLOADS);
    assert.deepEqual(proper(atHub), PAYLOADS);

    for (const payload of PAYLOADS) node.events.emit('test-event', payload);
    for (const side of [atHub, atNode]) {
      assert.deepEqual(await receivesProper(side, 2 * PAYLOADS.length), [...PAYLOADS, ...PAYLOADS]);
    }

    const several = new Promise((resolve) => { atHub.once('several', (...args) => resolve(args)); });
    node.events.emit('several', 1, 'two', { three: Buffer.from([3]) });
    assert.deepEqual(await several, [1, 'two', { three: Buffer.from([3]) }]);
  });

  test('Node’s rooms and namespaces are not mistaken for ours', async (t) => {
    const redis = await startRedis(t);
    const [hub] = await startHubs(t, [{ REDIS_URL: redis.url }]);
    const node = await startNodePeer(t, redis);
    const atHub = await connected(t, hub, WEBSOCKET);
    node.events.to('a room of nobody').emit('test-event', 'for the room');
    node.events.server.of('/other').emit('test-event', 'for another namespace');
    node.events.except(atHub.id).emit('test-event', 'for all but this one');
    node.events.to(atHub.id).emit('test-event', 'for this one');
    node.events.emit('test-event', 'for all');
    assert.deepEqual(await receivesProper(atHub, 2), ['for this one', 'for all']);
  });
});

describe('when Redis goes away', () => {
  test('local delivery goes on under traffic, and crossing returns by itself', async (t) => {
    const { redis, a, b } = await cluster(t);
    const token = await a.token();
    const [left, neighbour] = [await connected(t, a, WEBSOCKET, token), await connected(t, a, WEBSOCKET, token)];
    const right = await connected(t, b, WEBSOCKET, token);
    await crosses(left, right);

    // One event after the other for as long as the test lasts; each is acknowledged and delivered locally, or this fails.
    let isOver = false;
    let sent = 0;
    const traffic = (async () => {
      while (!isOver) {
        await ask(left, 'test-event', { number: sent });
        sent += 1;
        await new Promise((resolve) => { setTimeout(resolve, 2); });
      }
    })();
    traffic.catch(() => {});

    await receivesProper(right, 20);
    await redis.kill();
    const atOutage = sent;
    await eventually(() => sent >= atOutage + 200, '200 local events without Redis');
    await eventually(async () => (await a.readyz()).redis.state === 'down', '/readyz says that Redis is down');
    const acrossBefore = proper(right).length;

    await redis.start();
    await eventually(() => proper(right).length > acrossBefore, 'events that cross again');
    isOver = true;
    await traffic;
    for (const local of [left, neighbour]) {
      const got = await receivesProper(local, sent);
      assert.deepEqual(got, Array.from({ length: sent }, (_, number) => ({ number })), 'not one local event lost, doubled or moved');
    }
    const numbers = proper(right).map(({ number }) => number);
    assert.deepEqual(numbers, [...new Set(numbers)].sort((x, y) => x - y), 'what crossed did so once and in order');
    await crosses(right, left);
    for (const socket of [left, neighbour, right]) assert.ok(socket.connected);
  });

  test('a hub that starts without Redis serves its own clients, and joins when Redis comes', async (t) => {
    const { redis, a } = await cluster(t, { JWT_SECRET: 'a secret of at least thirty-two bytes, for this test' });
    const token = await a.token();
    await redis.kill();
    const [late] = await startHubs(t, [{
      REDIS_URL: redis.url, JWT_SECRET: 'a secret of at least thirty-two bytes, for this test',
    }]);
    const alone = await connected(t, late, WEBSOCKET, token);
    await ask(alone, 'test-event', 'local');
    assert.deepEqual(await receivesProper(alone, 1), ['local']);
    const far = await connected(t, a, WEBSOCKET, token);
    await redis.start();
    await crosses(alone, far);
    await crosses(far, alone);
  });
});
