/**
 * What a session takes along when it moves to another instance: everything. Its client has done something by polling, then upgrades
 * at another instance, and goes on as if nothing had been.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Emitter } from '@socket.io/redis-emitter';
import { io } from 'socket.io-client';
import { createClient } from 'redis';

import { Cluster } from '../support/cluster.mjs';
import { ask, atEnd, eventually, exampleBin, next } from './support.mjs';

const isByWebSocket = (socket) => socket.io.engine.transport.name === 'websocket';

/** A cluster, in which the sessions of those that `come` stay where they are until `move`. */
class Movers {
  static async start(t, example, env) {
    const movers = new Movers();
    movers.t = t;
    movers.cluster = await Cluster.start(t, env, { bin: exampleBin(example) });
    movers.letGo = movers.cluster.balancer.holdUpgrades();
    return movers;
  }

  /** A client with default transports that is connected, by polling. All that it hears is in `heard`, its ends in `ends`. */
  async come(namespace, options = {}) {
    const socket = this.stay(namespace, { transports: undefined, ...options });
    await eventually(() => socket.connected, 'a client');
    assert.equal(isByWebSocket(socket), false);
    return socket;
  }

  /** A client that came by WebSocket, and goes nowhere. */
  stay(namespace, options = {}) {
    const socket = io(`${this.cluster.url}${namespace}`, { forceNew: true, transports: ['websocket'], ...options });
    atEnd(this.t, () => socket.disconnect());
    socket.heard = [];
    socket.ends = [];
    socket.onAny((...event) => socket.heard.push(event.filter((x) => typeof x !== 'function')));
    socket.on('disconnect', (reason) => socket.ends.push(reason));
    return socket;
  }

  /** Waits until all of these have upgraded, each at another instance than the one that it came to. */
  async move(...sockets) {
    const before = sockets.map(({ id, io: { engine } }) => [id, engine.id]);
    this.letGo();
    for (const socket of sockets) await eventually(() => isByWebSocket(socket), 'the upgrade');
    assert.deepEqual(sockets.map(({ id, io: { engine } }) => [id, engine.id]), before, 'all ids stay');
    for (const socket of sockets) assert.deepEqual(socket.ends, []);
    for (const [, sid] of before) {
      const { from, to } = this.cluster.balancer.upgrades.find((upgrade) => upgrade.sid === sid);
      assert.notEqual(from.url, to.url);
      await eventually(async () => (await to.readyz()).connections > 0, 'the session is there');
    }
  }
}

const heardOf = (socket, event) => socket.heard.filter(([name]) => name === event).map(([, ...args]) => args);
const op = async (socket, what, order = {}) => {
  const [answer] = await ask(socket, 'op', { op: what, ...order });
  assert.ok(answer && 'ok' in answer, JSON.stringify(answer));
  return answer.ok;
};

describe('a session takes along', () => {
  test('its rooms: it hears what is said there, and no more once it has left', async (t) => {
    const movers = await Movers.start(t, 'matrix');
    const [other, socket] = [movers.stay('/matrix'), await movers.come('/matrix')];
    await ask(socket, 'join', 'kept');
    await ask(socket, 'join', 'left before');
    await ask(socket, 'leave', 'left before');
    await movers.move(socket);
    await ask(other, 'say', 'left before', 'not for you');
    await ask(other, 'say', 'kept', 'for you');
    await eventually(() => heardOf(socket, 'said').length, 'what was said');
    assert.deepEqual(heardOf(socket, 'said'), [['for you']]);
    await ask(socket, 'leave', 'kept');
    await ask(other, 'say', 'kept', 'not for you');
    await ask(socket, 'join', 'new');
    await ask(other, 'say', 'new', 'for you again');
    await eventually(() => heardOf(socket, 'said').length === 2, 'what was said');
    assert.deepEqual(heardOf(socket, 'said').at(-1), ['for you again']);
  });

  test('its id, what it brought, and its data', async (t) => {
    const movers = await Movers.start(t, 'matrix');
    const socket = await movers.come('/matrix', { auth: { name: 'Ada' } });
    const before = await ask(socket, 'who-am-i');
    await movers.move(socket);
    assert.deepEqual(await ask(socket, 'who-am-i'), before);
    assert.deepEqual(before, [{ id: socket.id, auth: { name: 'Ada' } }]);
  });

  test('all its namespaces', async (t) => {
    const movers = await Movers.start(t, 'matrix');
    const socket = await movers.come('/matrix');
    const main = socket.io.socket('/');
    await next(main, 'connect');
    await movers.move(socket);
    assert.deepEqual(await ask(main, 'who-am-i'), [{ id: main.id, auth: {} }]);
    assert.deepEqual((await ask(socket, 'who-am-i'))[0].id, socket.id);
    main.disconnect();
    assert.deepEqual(await ask(socket, 'echo', 1), [1]);
  });

  test('a question of the server that it has not answered yet, and the event whose handler asked it', async (t) => {
    const movers = await Movers.start(t, 'matrix');
    const socket = await movers.come('/matrix');
    const asked = next(socket, 'question');
    const answered = ask(socket, 'ask-me', 'why?');
    const [value, answer] = await asked;
    await movers.move(socket);
    answer([value, 'because']);
    assert.deepEqual(await answered, [['why?', 'because']]);
    assert.deepEqual(await ask(socket, 'echo', 1), [1]);
  });

  test('a question with bytes', async (t) => {
    const movers = await Movers.start(t, 'matrix');
    const socket = await movers.come('/matrix');
    const asked = next(socket, 'question');
    const bytes = Buffer.from([0, 30, 255]);
    const answered = ask(socket, 'ask-me-binary', bytes);
    const [value, answer] = await asked;
    await movers.move(socket);
    answer(Buffer.from(value).reverse());
    assert.deepEqual(await answered, [Buffer.from([255, 30, 0])]);
  });

  test('the order of its events: those behind the one that is being handled wait for it', async (t) => {
    const movers = await Movers.start(t, 'matrix');
    const socket = await movers.come('/matrix');
    const asked = next(socket, 'question');
    const answered = [];
    socket.emit('ask-me', 'first', () => answered.push('first'));
    for (const n of [1, 2, 3]) socket.emit('echo', n, () => answered.push(n));
    const [, answer] = await asked;
    await movers.move(socket);
    assert.deepEqual(answered, []);
    answer('now');
    await eventually(() => answered.length === 4, () => `four answers, not ${answered}`);
    assert.deepEqual(answered, ['first', 1, 2, 3]);
  });

  test('a question that another instance asked, of many', async (t) => {
    const movers = await Movers.start(t, 'ops');
    const [other, socket] = [movers.stay('/ops'), await movers.come('/ops')];
    await ask(socket, 'join', 'asked');
    const asked = next(socket, 'question');
    const answered = op(other, 'ask', { to: ['asked'], event: 'question', args: 'all?', ms: 8000 });
    const [, answer] = await asked;
    await movers.move(socket);
    answer('here');
    assert.deepEqual(await answered, ['here']);
  });

  test('its place in the cluster: others find it, tell it, move it between rooms, and end it', async (t) => {
    const movers = await Movers.start(t, 'ops');
    const [other, socket] = [movers.stay('/ops'), await movers.come('/ops')];
    await ask(socket, 'data', { name: 'Ada' });
    await ask(socket, 'join', 'found');
    const [before] = await op(other, 'fetch', { to: ['found'] });
    await movers.move(socket);
    const found = await op(other, 'fetch', { to: ['found'] });
    assert.equal(found.length, 1);
    assert.deepEqual({ ...found[0], rooms: [...found[0].rooms].sort() }, { ...before, rooms: [...before.rooms].sort() });
    assert.equal(found[0].id, socket.id);
    assert.deepEqual(found[0].data, { name: 'Ada' });
    assert.equal((await op(other, 'fetch')).length, 2);

    await op(other, 'emit', { to: [socket.id], event: 'told', args: 1 });
    await op(other, 'join', { to: ['found'], rooms: ['fresh'] });
    await op(other, 'emit', { to: ['fresh'], event: 'told', args: 2 });
    const redis = createClient({ url: movers.cluster.redis.url });
    await redis.connect();
    atEnd(t, () => redis.close());
    new Emitter(redis).of('/ops').to(socket.id).emit('told', 3);
    await eventually(() => heardOf(socket, 'told').length === 3, () => `all that it was told, not ${JSON.stringify(socket.heard)}`);
    assert.deepEqual(heardOf(socket, 'told').map(([n]) => n).sort(), [1, 2, 3]);

    const ended = next(socket, 'disconnect');
    await op(other, 'disconnect', { to: [socket.id], close: true });
    assert.deepEqual((await ended)[0], 'io server disconnect');
    await eventually(async () => await movers.cluster.numConnections() === 1, 'the other alone is left');
  });
});

test('nobody is told that a session leaves when it moves, and everybody when it leaves', async (t) => {
  const movers = await Movers.start(t, 'matrix');
  const watchers = [movers.stay('/matrix'), movers.stay('/matrix'), movers.stay('/matrix')];
  for (const watcher of watchers) await ask(watcher, 'watch');
  const socket = await movers.come('/matrix');
  const { id } = socket;
  await movers.move(socket);
  assert.deepEqual(await ask(socket, 'echo', 1), [1]);
  socket.disconnect();
  for (const watcher of watchers) {
    await eventually(() => heardOf(watcher, 'left').length, 'who left');
    assert.deepEqual(heardOf(watcher, 'left'), [[id, 'client namespace disconnect']]);
  }
});

test('what it was sent and did not get comes with it, once, in its order, bytes and all', async (t) => {
  const movers = await Movers.start(t, 'ops');
  const [other, socket] = [movers.stay('/ops'), await movers.come('/ops')];
  const numbers = Array.from({ length: 300 }, (_, n) => n);
  const sending = (async () => {
    for (const n of numbers) await op(other, 'emit', { event: 'n', args: n % 3 ? n : { n, bytes: Buffer.from([n % 256]) } });
  })();
  await eventually(() => heardOf(socket, 'n').length > 20, 'some of them');
  await movers.move(socket);
  await sending;
  await eventually(() => heardOf(socket, 'n').length >= numbers.length, () => `300 events, not ${heardOf(socket, 'n').length}`);
  assert.deepEqual(heardOf(socket, 'n').map(([x]) => x.n ?? x), numbers);
  for (const [x] of heardOf(socket, 'n')) if (x.bytes) assert.deepEqual(x.bytes, Buffer.from([x.n % 256]));
});

test('the heartbeat goes on where the session is, and one that stays away ends it there', async (t) => {
  const movers = await Movers.start(t, 'matrix', { PING_INTERVAL: '300', PING_TIMEOUT: '2000' });
  const socket = await movers.come('/matrix');
  await movers.move(socket);
  for (let n = 0; n < 3; n += 1) await next(socket.io.engine, 'heartbeat');
  assert.deepEqual(await ask(socket, 'echo', 1), [1]);
  assert.deepEqual(socket.ends, []);
  // The client sends nothing more, not even a pong.
  socket.io.engine.transport.send = () => {};
  await eventually(async () => await movers.cluster.numConnections() === 0, 'the end of the session');
});

test('many sessions move at once, from and to all instances', async (t) => {
  const movers = await Movers.start(t, 'matrix');
  const sockets = await Promise.all(Array.from({ length: 30 }, () => movers.come('/matrix')));
  for (const [n, socket] of sockets.entries()) await ask(socket, 'join', `room ${n}`);
  await movers.move(...sockets);
  for (const [n, socket] of sockets.entries()) {
    await ask(sockets[(n + 1) % sockets.length], 'say', `room ${n}`, `to ${n}`);
    await eventually(() => heardOf(socket, 'said').length, 'what was said');
    assert.deepEqual(heardOf(socket, 'said'), [[`to ${n}`]]);
  }
  assert.equal(await movers.cluster.numConnections(), sockets.length);
});
