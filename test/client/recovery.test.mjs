/**
 * Connection state recovery as the official client sees it: the same scenarios at `examples/recovery` and at Node's own server with
 * its in-memory adapter, which must not be told apart; and what we do otherwise on purpose.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { describe, test } from 'node:test';

import { Server } from 'socket.io';
import msgpack from 'socket.io-msgpack-parser';

import { EXAMPLES, MODES, admitted, ask, atEnd, client, eventually, next, startHub } from './support.mjs';

const AWAY = 120_000;
/** As soon as a ping time-out is wanted. */
const HEARTBEAT = { pingInterval: 400, pingTimeout: 300 };

/** The gateway of `test/support/recovery_gateway.rs`, in Node's words. */
function withEvents(namespace) {
  namespace.use((socket, accept) => {
    const { user, refuse } = socket.handshake.auth;
    if (refuse) return accept(new Error('not you'));
    socket.data.user = user ?? null;
    return accept();
  });
  namespace.on('connection', (socket) => {
    const on = (name, handle) => socket.on(name, async (...args) => {
      const done = typeof args.at(-1) === 'function' ? args.pop() : () => {};
      done(await handle(...args));
    });
    socket.on('disconnect', (reason) => { socket.data.left = reason; });
    on('join', (room) => { socket.join(room); });
    on('leave', (room) => { socket.leave(room); });
    on('set', (value) => { socket.data.value = value; });
    on('state', () => [socket.id, socket.recovered, [...socket.rooms].sort(), socket.data]);
    on('here', () => namespace.sockets.size);
    on('me', (...event) => { socket.emit(...event); });
    on('all', (...event) => { namespace.emit(...event); });
    on('others', (...event) => { socket.broadcast.emit(...event); });
    on('red', (...event) => { namespace.to('red').emit(...event); });
    on('all-volatile', (...event) => { namespace.volatile.emit(...event); });
    on('kick', () => { socket.disconnect(); });
    on('hang-up', () => { socket.disconnect(true); });
  });
}

async function startNode(t, { heartbeat, parser }) {
  const httpServer = http.createServer();
  const server = new Server(httpServer, {
    connectionStateRecovery: { maxDisconnectionDuration: AWAY, skipMiddlewares: true },
    ...(heartbeat ? HEARTBEAT : {}),
    ...(parser && { parser }),
  });
  withEvents(server.of('/r'));
  httpServer.listen(0, '127.0.0.1');
  await once(httpServer, 'listening');
  atEnd(t, () => server.close());
  return { url: `http://127.0.0.1:${httpServer.address().port}` };
}

const startOurs = (t, { heartbeat, parser }) => startHub(t, {
  CONNECTION_STATE_RECOVERY: String(AWAY),
  ...(heartbeat && { PING_INTERVAL: String(HEARTBEAT.pingInterval), PING_TIMEOUT: String(HEARTBEAT.pingTimeout) }),
  ...(parser && { PARSER: 'msgpack' }),
}, `${EXAMPLES}/recovery`);

/** A client that comes back only when it is told to, and notes what comes: events, and when it is connected. */
async function guest(t, server, options = {}) {
  const socket = client(t, server, { reconnection: false, ...options }, '/r');
  socket.seen = [];
  socket.on('connect', () => socket.seen.push(`connect ${socket.recovered}`));
  // The offset stands behind the arguments.
  socket.on('n', (n) => socket.seen.push(n));
  await admitted(socket);
  if (!options.transports) {
    await eventually(() => socket.io.engine.transport.name === 'websocket', 'the upgrade');
  }
  return socket;
}

/** How a client is cut off. */
const CUTS = [
  { name: 'the client drops its connection', cut: (socket) => socket.io.engine.close() },
  { name: 'the server closes it', cut: (socket) => socket.io.engine.send('2/r,{}') },
  {
    name: 'the pongs do not come',
    heartbeat: true,
    cut: (socket) => {
      const { engine } = socket.io;
      const send = engine._sendPacket.bind(engine);
      engine._sendPacket = (type, ...rest) => (type === 'pong' ? undefined : send(type, ...rest));
    },
  },
];

/** Cuts a client off, and waits until both sides know. */
async function cutOff(socket, other, cut) {
  const gone = next(socket, 'disconnect');
  cut(socket);
  await gone;
  await eventually(async () => (await ask(other, 'here'))[0] === 1, 'the server to notice');
}

async function comeBack(socket) {
  const connected = next(socket, 'connect');
  socket.connect();
  await connected;
}

for (const [who, start] of [['ours', startOurs], ["Node's", startNode]]) {
  for (const { name: mode, options } of MODES) {
    describe(`${who}, ${mode}`, () => {
      for (const { name, cut, heartbeat } of CUTS) {
        test(`${name}: it comes back as who it was, and missed events come once, in order, before the connect`, async (t) => {
          const server = await start(t, { heartbeat });
          const other = await guest(t, server, { transports: ['websocket'] });
          const socket = await guest(t, server, options);
          const { id } = socket;
          assert.equal(socket.recovered, false);
          await ask(socket, 'join', 'red');
          await ask(socket, 'set', { deep: [1, 'two', null] });
          await ask(other, 'all', 'n', 0);
          await ask(socket, 'me', 'n', 1);
          await eventually(() => socket.seen.length === 3, 'its first events');

          await cutOff(socket, other, cut);
          for (const [n, how] of ['red', 'others', 'all', 'red', 'all'].entries()) await ask(other, how, 'n', n + 2, 'more');
          await ask(other, 'all-volatile', 'n', 'volatile');
          await comeBack(socket);

          await ask(other, 'red', 'n', 'live');
          await eventually(() => socket.seen.at(-1) === 'live', 'an event of the room');
          assert.deepEqual(socket.seen, ['connect false', 0, 1, 2, 3, 4, 5, 6, 'connect true', 'live']);
          assert.equal(socket.id, id);
          const [[ownId, recovered, rooms, data]] = await ask(socket, 'state');
          assert.deepEqual([ownId, recovered, rooms], [id, true, [id, 'red'].sort()]);
          assert.deepEqual(data.value, { deep: [1, 'two', null] });
        });
      }

      test('it comes back again and again', async (t) => {
        const server = await start(t, {});
        const other = await guest(t, server, { transports: ['websocket'] });
        const socket = await guest(t, server, options);
        const { id } = socket;
        const expected = ['connect false'];
        for (let round = 0; round < 5; round += 1) {
          // A marker that it surely has before it is cut off: a burst right before it may be lost on the way, or not.
          await ask(socket, 'me', 'n', `${round} marker`);
          await eventually(() => socket.seen.includes(`${round} marker`), 'the marker');
          for (const n of [1, 2, 3]) other.emit('all', 'n', `${round} burst ${n}`);
          await cutOff(socket, other, CUTS[0].cut);
          await ask(other, 'all', 'n', `${round} away`);
          await comeBack(socket);
          assert.equal(socket.id, id);
          expected.push(...['marker', 'burst 1', 'burst 2', 'burst 3', 'away'].map((what) => `${round} ${what}`));
        }
        const events = socket.seen.filter((what) => !what.startsWith('connect true'));
        assert.deepEqual(events, expected);
      });

      test('who was thrown out, and who left, is someone new', async (t) => {
        const server = await start(t, {});
        const other = await guest(t, server, { transports: ['websocket'] });
        const socket = await guest(t, server, options);
        for (const leave of [
          () => socket.emit('kick'), () => socket.emit('hang-up'), () => socket.disconnect(),
        ]) {
          await ask(socket, 'me', 'n', 1);
          const { id } = socket;
          await cutOff(socket, other, leave);
          await comeBack(socket);
          assert.notEqual(socket.id, id);
          assert.ok(!socket.recovered);
        }
      });
    });
  }

  test(`${who}: another process knows nothing of the session`, async (t) => {
    const [server, another] = [await start(t, {}), await start(t, {})];
    const socket = await guest(t, server, { transports: ['websocket'] });
    await ask(socket, 'me', 'n', 1);
    const { id } = socket;
    socket.io.uri = another.url;
    const gone = next(socket, 'disconnect');
    socket.io.engine.close();
    await gone;
    await comeBack(socket);
    assert.notEqual(socket.id, id);
    assert.ok(!socket.recovered);
    assert.deepEqual(await ask(socket, 'here'), [1]);
  });

  test(`${who}: with the MessagePack parser, binary events among those that were missed`, async (t) => {
    const server = await start(t, { parser: msgpack });
    const options = { transports: ['websocket'], parser: msgpack };
    const other = await guest(t, server, options);
    const socket = await guest(t, server, options);
    const { id } = socket;
    await ask(socket, 'me', 'n', 0);
    await cutOff(socket, other, CUTS[0].cut);
    await ask(other, 'others', 'n', { bytes: Buffer.from([1, 2, 3]), text: 'grüße' });
    await comeBack(socket);
    assert.deepEqual(socket.seen, [
      'connect false', 0, { bytes: Buffer.from([1, 2, 3]), text: 'grüße' }, 'connect true',
    ]);
    assert.equal(socket.id, id);
  });
}

describe('what we do otherwise than Node', () => {
  /** A client that was cut off, and one that stayed. */
  async function away(t, server, auth) {
    const other = await guest(t, server, { transports: ['websocket'] });
    const socket = await guest(t, server, { transports: ['websocket'], auth });
    await ask(socket, 'me', 'n', 0);
    const { id } = socket;
    await cutOff(socket, other, CUTS[0].cut);
    return { other, socket, id };
  }

  for (const [who, start] of [['ours', startOurs], ["Node's", startNode]]) {
    const is = (expected) => (who === 'ours' ? expected : !expected);

    test(`${who}: a refusal of whoever comes back ${is(true) ? 'stands' : 'is not asked for'}`, async (t) => {
      const { socket, id } = await away(t, await start(t, {}), {});
      socket.auth = { refuse: true };
      const end = Promise.race([next(socket, 'connect_error'), next(socket, 'connect')]);
      socket.connect();
      assert.equal((await end)[0]?.message, is(true) ? 'not you' : undefined);
      if (!is(true)) return assert.equal(socket.id, id);
      socket.auth = {};
      await comeBack(socket);
      assert.equal(socket.id, id, 'it is still there for whoever is let in');
    });

    test(`${who}: someone else with the pid is ${is(true) ? 'someone new' : 'taken for the same'}`, async (t) => {
      const { socket, id } = await away(t, await start(t, {}), { user: 'ada' });
      socket.auth = { user: 'eve' };
      await comeBack(socket);
      assert.equal(socket.id === id, is(false));
      const [[, recovered, , data]] = await ask(socket, 'state');
      assert.deepEqual([recovered, data.user], is(true) ? [false, 'eve'] : [true, 'ada']);
    });

    test(`${who}: a client that got no event yet ${is(true) ? 'is known again' : 'is someone new'}`, async (t) => {
      const server = await start(t, {});
      const other = await guest(t, server, { transports: ['websocket'] });
      const socket = await guest(t, server, { transports: ['websocket'] });
      const { id } = socket;
      await cutOff(socket, other, CUTS[0].cut);
      await ask(other, 'others', 'n', 'missed');
      await comeBack(socket);
      assert.equal(socket.id === id, is(true));
      assert.deepEqual(socket.seen, is(true) ? ['connect false', 'missed', 'connect true'] : ['connect false', 'connect false']);
    });
  }
});
