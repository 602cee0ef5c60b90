/**
 * Instances that die, hang or lose Redis while they serve a session together: whatever becomes of the session, its client is
 * served again within the time that it takes to notice and to reconnect, by one instance, and none keeps what is left of it.
 *
 * The steps of a move are not listed here: they are the messages that instances exchange in one that succeeds.
 *
 * Environment: `KILLS=all`, to have everything go wrong at every step, as `make hops-test` does; else it is what is quick.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Cluster } from '../support/cluster.mjs';
import { DOWN, UP } from '../support/proxy.mjs';
import { PATIENCE, admitted, client, eventually, isServed, next, within } from './support.mjs';

/** An instance that is gone is noticed within 2 s, the client reconnects within 0.2 s; a heartbeat would take 9 s, which is no excuse. */
const BACK_WITHIN = PATIENCE / 2;
const ENV = { PING_INTERVAL: '3000', PING_TIMEOUT: '6000' };
const HEARTBEAT = 9_000;
/** What instances say to each other about polling requests. All else is about moves. */
const POLLING = new Set(['poll', 'post', 'body', 'too_large', 'wrong_type', 'abort', 'payload', 'ok', 'refused', 'error']);
const ALL = process.env.KILLS === 'all';
const isByWebSocket = (socket) => socket.io.engine?.transport?.name === 'websocket';

/** The types of the messages between instances in these bytes. */
const typesIn = (chunk) => [...chunk.toString('latin1').matchAll(/\{"v":\d+,"id":\d+,"from":"[\w-]+","type":"(\w+)"/g)].map(([, type]) => type);

/** What an instance is to the session that moves: the latest that an upgrade was asked for. */
function roleOf(cluster, hub) {
  const upgrade = cluster.balancer.upgrades.at(-1);
  if (!upgrade) return null;
  if (hub === upgrade.from) return 'owner';
  return hub === upgrade.to ? 'adopter' : null;
}

/** Calls `look(hub, direction, type)` for each message between instances, as it passes; what that returns is waited for. */
function watch(cluster, look) {
  for (const hub of cluster.hubs) {
    hub.proxy.gate = (chunk, direction) => {
      const waits = typesIn(chunk).map((type) => look(hub, direction, type)).filter(Boolean);
      return waits.length ? Promise.all(waits) : null;
    };
  }
}

/** Stops all that comes and goes between this instance and Redis from now on. */
function freeze(hub) {
  hub.proxy.gate = () => new Promise(() => {});
  return new Promise(() => {});
}

/** Lets through what comes from now on, on new connections: the old ones broke. */
function thaw(hub) {
  hub.proxy.gate = null;
  hub.proxy.cut();
}

/** Thaws it, and lets clients come to it when a balancer would that looks at `/readyz`: once it has Redis again. */
async function backOnceReady(cluster, hub) {
  const numConnected = () => hub.log.match(/Redis at \S+ connected/g)?.length ?? 0;
  const before = numConnected();
  thaw(hub);
  await eventually(async () => numConnected() > before && (await hub.readyz()).ready, () => `an instance that has Redis again: ${hub.log}`);
  cluster.balancer.add(hub);
}

const start = (t) => Cluster.start(t, ENV, { proxied: true });

function visit(t, cluster, token, options = {}) {
  const socket = client(t, cluster, { auth: { token }, ...options });
  socket.ends = [];
  socket.on('disconnect', (reason) => socket.ends.push(reason));
  return socket;
}

/** Waits until this client is served again, as soon as it can be. */
async function served(socket, isSettled) {
  try {
    await isServed(socket, BACK_WITHIN, isSettled);
  } catch (error) {
    // The official client stops polling when its probe is answered, and does not begin again if its WebSocket ends before it could
    // send the `5`. Only its heartbeat tells it then, whatever the server is.
    if (socket.io.engine?.transport?.readyState !== 'paused') throw error;
    await isServed(socket, HEARTBEAT + BACK_WITHIN, isSettled);
  }
}

/** Waits until the instances that run have as many sessions as there are clients, and none once these leave. */
async function leavesNothing(cluster, sockets) {
  const numbers = async (expected) => {
    let connections;
    await eventually(async () => {
      connections = await cluster.connections();
      return connections.reduce((sum, num) => sum + num, 0) === expected;
    }, () => `${expected} sessions in all (there are ${connections})`, 2 * PATIENCE);
  };
  await numbers(sockets.length);
  for (const socket of sockets) socket.disconnect();
  await numbers(0);
}

/** One step of a move: who sends or hears what. */
const stepName = ({ role, direction, type }) => `${role === 'it' ? '' : 'the '}${role} ${direction === UP ? 'sends' : 'hears'} ${type}`;

/** Has a client whose session moves, once it has told `arm(cluster)` of it. */
async function mover(t, arm) {
  const cluster = await start(t);
  const letGo = cluster.balancer.holdUpgrades();
  const socket = visit(t, cluster, await cluster.token());
  await admitted(socket);
  arm(cluster);
  letGo();
  return { cluster, socket };
}

/** The steps of a move that succeeds, in their order. */
async function stepsOfMove(t) {
  const steps = [];
  const { cluster, socket } = await mover(t, (at) => watch(at, (hub, direction, type) => {
    const role = roleOf(at, hub);
    const isNew = !steps.some((step) => step.role === role && step.direction === direction && step.type === type);
    if (role && !POLLING.has(type) && isNew) steps.push({ role, direction, type });
  }));
  await served(socket, isByWebSocket);
  // Until here: that it leaves is another matter.
  watch(cluster, () => null);
  const { from, to } = cluster.balancer.upgrades.at(-1);
  assert.notEqual(from.url, to.url);
  await leavesNothing(cluster, [socket]);
  return steps;
}

/** Waits for this message at an instance that `isIts` accepts, and does `act(hub)` then: what it returns, the message waits for. */
function message(cluster, isIts, direction, type, act = () => null) {
  const passes = new Promise((resolve) => {
    let isDone = false;
    watch(cluster, (hub, way, what) => {
      if (isDone || way !== direction || what !== type || !isIts(hub)) return null;
      isDone = true;
      resolve(hub);
      return act(hub);
    });
  });
  return within(PATIENCE, passes, () => `${type} goes ${direction}`);
}

/** What goes wrong with an instance at a step, the rest of which waits for what is returned. */
const FAULTS = [
  {
    name: 'dies before',
    isQuick: true,
    fault(cluster, hub) {
      cluster.balancer.remove(hub);
      hub.kill();
      return freeze(hub);
    },
  },
  {
    name: 'dies after',
    fault(cluster, hub) {
      cluster.balancer.remove(hub);
      // Once the message is on its way.
      setImmediate(() => hub.kill());
      return null;
    },
  },
  {
    name: 'hears nothing from Redis, nor is heard, for two seconds, when',
    fault(cluster, hub) {
      cluster.balancer.remove(hub);
      setTimeout(() => backOnceReady(cluster, hub).catch(() => {}), 2000).unref();
      return freeze(hub);
    },
  },
  {
    name: 'is cut off from Redis, and gets new connections, when',
    // Who comes back by way of it before it has these is sent away again.
    mayEndTwice: true,
    fault(_, hub) {
      hub.proxy.cut();
      return null;
    },
  },
];

/** All that goes wrong at one step. */
const casesOf = (step) => [
  ...FAULTS.map(({ name, ...fault }) => ({ name: `the ${step.role} ${name} ${stepName({ ...step, role: 'it' })}`, step, ...fault })),
  {
    name: `Redis restarts when ${stepName(step)}`,
    step,
    // Once for each role, where everything is at stake.
    isQuick: step.type === 'state',
    mayEndTwice: true,
    fault(cluster) {
      cluster.isRestarted = cluster.redis.kill().then(() => cluster.redis.start());
      return null;
    },
  },
];

test('a session moves, and something fails at each of its steps', { concurrency: 3 }, async (t) => {
  let steps;
  await t.test('the steps of one that succeeds', async (t2) => {
    steps = await stepsOfMove(t2);
    t2.diagnostic(steps.map(stepName).join('; '));
    for (const role of ['owner', 'adopter']) {
      for (const direction of [UP, DOWN]) {
        assert.ok(steps.some((step) => step.role === role && step.direction === direction), `the ${role} says and hears something`);
      }
    }
  });
  if (!steps) return;
  const cases = steps.flatMap(casesOf).filter(({ isQuick }) => ALL || isQuick);
  await Promise.all(cases.map(({ name, step, mayEndTwice, fault }) => t.test(name, async (t2) => {
    let hit;
    const { cluster, socket } = await mover(t2, (at) => {
      hit = message(at, (hub) => roleOf(at, hub) === step.role, step.direction, step.type, (hub) => fault(at, hub));
    });
    await hit;
    await cluster.isRestarted;
    // A session that did not get so far as to move stays where it is, and its client on polling.
    await served(socket);
    if (!mayEndTwice) assert.ok(socket.ends.length <= 1, `ended ${socket.ends.length} times: ${socket.ends}`);
    for (const reason of socket.ends) assert.match(reason, /^(transport (close|error)|ping timeout)$/);
    await leavesNothing(cluster, [socket]);
  })));
});

describe('a session of another instance is polled', { concurrency: 3 }, () => {
  /** A client that polls, and whose session it is. */
  async function polling(t) {
    const cluster = await start(t);
    const socket = visit(t, cluster, await cluster.token(), { transports: ['polling'] });
    await admitted(socket);
    const owner = cluster.balancer.openerOf(socket.io.engine.id);
    return { cluster, socket, owner };
  }

  test('the owner dies while a poll is parked', async (t) => {
    const { cluster, socket, owner } = await polling(t);
    await message(cluster, (hub) => hub === owner, DOWN, 'poll');
    cluster.balancer.remove(owner);
    await owner.kill();
    await served(socket, () => cluster.balancer.openerOf(socket.io.engine.id) !== owner);
    assert.deepEqual(socket.ends.length, 1);
    await leavesNothing(cluster, [socket]);
  });

  test('who relays a parked poll dies', async (t) => {
    const { cluster, socket, owner } = await polling(t);
    const relaying = await message(cluster, (hub) => hub !== owner, UP, 'poll');
    const ended = next(socket, 'disconnect');
    cluster.balancer.remove(relaying);
    await relaying.kill();
    await ended;
    await served(socket);
    await leavesNothing(cluster, [socket]);
  });

  for (const type of ['post', 'body']) {
    test(`the owner dies before it hears the ${type} of a POST`, async (t) => {
      const { cluster, socket, owner } = await polling(t);
      const stopped = message(cluster, (hub) => hub === owner, DOWN, type, freeze);
      // Until one of them is relayed.
      const sending = setInterval(() => socket.emit('test-event', 'x'), 50);
      await stopped;
      clearInterval(sending);
      cluster.balancer.remove(owner);
      await owner.kill();
      await served(socket, () => cluster.balancer.openerOf(socket.io.engine.id) !== owner);
      assert.equal(socket.ends.length, 1);
      await leavesNothing(cluster, [socket]);
    });

    test(`who relays a POST dies before it sends its ${type}`, async (t) => {
      const { cluster, socket, owner } = await polling(t);
      const stopped = message(cluster, (hub) => hub !== owner, UP, type, freeze);
      const sending = setInterval(() => socket.emit('test-event', 'x'), 50);
      const relaying = await stopped;
      clearInterval(sending);
      const ended = next(socket, 'disconnect');
      cluster.balancer.remove(relaying);
      await relaying.kill();
      await ended;
      await served(socket);
      await leavesNothing(cluster, [socket]);
    });
  }

  test('the owner dies after it took a POST, before its answer is heard', async (t) => {
    const { cluster, socket, owner } = await polling(t);
    const stopped = message(cluster, (hub) => hub === owner, UP, 'ok', freeze);
    const sending = setInterval(() => socket.emit('test-event', 'x'), 50);
    await stopped;
    clearInterval(sending);
    cluster.balancer.remove(owner);
    await owner.kill();
    await served(socket, () => cluster.balancer.openerOf(socket.io.engine.id) !== owner);
    assert.equal(socket.ends.length, 1);
    await leavesNothing(cluster, [socket]);
  });

  test('the owner loses its connections to Redis, and gets new ones, while a poll is parked', async (t) => {
    const { cluster, socket, owner } = await polling(t);
    await message(cluster, (hub) => hub === owner, DOWN, 'poll');
    const ended = next(socket, 'disconnect');
    owner.proxy.cut();
    await within(BACK_WITHIN, ended, () => 'the end of a session that nobody can reach');
    await served(socket);
    await leavesNothing(cluster, [socket]);
  });

  test('Redis restarts while polls are parked', async (t) => {
    const { cluster, socket, owner } = await polling(t);
    await message(cluster, (hub) => hub === owner, DOWN, 'poll');
    await cluster.redis.kill();
    await cluster.redis.start();
    await served(socket);
    await leavesNothing(cluster, [socket]);
  });
});
