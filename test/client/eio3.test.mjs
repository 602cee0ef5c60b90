/** The official client of old, 2.x, which speaks Engine.IO revision 3, by every transport; and today's client beside it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import io2 from 'socket.io-client-2';

import { CHAT_BIN, MODES, PATIENCE, atEnd, connected, eventually, next, startHub } from './support.mjs';

/** Makes a client 2.x, which ends with the test. */
function client2(t, hub, namespace, options = {}) {
  const socket = io2(hub.url + namespace, {
    forceNew: true,
    reconnectionDelay: 50,
    reconnectionDelayMax: 200,
    ...options,
  });
  atEnd(t, () => socket.close());
  return socket;
}

/** Emits and returns the ack's arguments. This client has no time-out of its own. */
function ask(socket, event, ...args) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ack of ${event} within ${PATIENCE} ms`)), PATIENCE);
    timer.unref();
    socket.emit(event, ...args, (...reply) => {
      clearTimeout(timer);
      resolve(reply);
    });
  });
}

/** Waits until the socket is in its namespace and, with an upgrade in view, on a WebSocket. */
async function ready(socket, options) {
  await Promise.race([
    next(socket, 'connect'),
    next(socket, 'error').then(([error]) => { throw new Error(`refused: ${JSON.stringify(error)}`); }),
  ]);
  const { engine } = socket.io;
  const goal = options.transports?.[0] ?? 'websocket';
  await eventually(() => engine.transport.name === goal && !engine.upgrading, goal);
}

const TEXT = 'grüße, 漢字, 🙂🏽, "quoted", 5:4x, \u2028, \u001e';
const BYTES = Buffer.from([0, 1, 127, 128, 254, 255]);

for (const { name, options } of MODES) {
  describe(`2.x, ${name}`, () => {
    test('events, acks and binary go both ways, also to and from a client of today', async (t) => {
      const hub = await startHub(t, { ALLOW_EIO3: 'true' });
      const token = await hub.token();
      const old = client2(t, hub, '/events', { ...options, query: { token } });
      await ready(old, options);
      assert.equal(old.id, `/events#${old.io.engine.id}`);
      assert.deepEqual(await ask(old, 'echo', TEXT, { n: 1 }), [TEXT, { n: 1 }]);
      const [text, bytes] = await ask(old, 'echo', TEXT, BYTES);
      assert.equal(text, TEXT);
      assert.deepEqual(Buffer.from(bytes), BYTES);

      const today = await connected(t, hub, options, token);
      for (const [from, to] of [[old, today], [today, old]]) {
        const arrives = next(to, 'test-event');
        from.emit('test-event', TEXT, { deep: BYTES });
        const [gotText, { deep }] = await arrives;
        assert.equal(gotText, TEXT);
        assert.deepEqual(Buffer.from(deep), BYTES);
      }
    });

    test('the client acknowledges, and its id is the one that the server knows it by', async (t) => {
      const chat = await startHub(t, { ALLOW_EIO3: 'true' }, CHAT_BIN);
      const ann = client2(t, chat, '/chat', { ...options, query: { name: 'Ann' } });
      const ben = client2(t, chat, '/chat', { ...options, query: { name: 'Ben' } });
      await Promise.all([ready(ann, options), ready(ben, options)]);
      const whispers = [];
      ben.on('whispered', (from, text, acknowledge) => {
        whispers.push([from, text]);
        acknowledge(BYTES);
      });
      assert.deepEqual(await ask(ann, 'whisper', ben.id, TEXT), []);
      assert.deepEqual(whispers, [[{ id: ann.id, name: 'Ann' }, TEXT]]);
    });

    test('the connection outlives many heartbeats', async (t) => {
      const hub = await startHub(t, { ALLOW_EIO3: 'true', PING_INTERVAL: '200', PING_TIMEOUT: '5000' });
      const old = client2(t, hub, '/events', { ...options, query: { token: await hub.token() } });
      await ready(old, options);
      const { engine } = old.io;
      for (let n = 0; n < 5; n += 1) await next(old, 'pong');
      assert.deepEqual(await ask(old, 'echo', 1), [1]);
      assert.equal(old.io.engine, engine, 'it is the same connection');
    });
  });
}

test('a refusal is an error with the data of the refusal', async (t) => {
  const hub = await startHub(t, { ALLOW_EIO3: 'true' });
  const old = client2(t, hub, '/events', { query: { token: 'garbage' } });
  const [error] = await next(old, 'error');
  assert.equal(error.code, 'token_invalid');
});

test('who waits for a main namespace that is not there is told', async (t) => {
  const hub = await startHub(t, { ALLOW_EIO3: 'true', CONNECT_TIMEOUT: '500' });
  const old = client2(t, hub, '/');
  assert.deepEqual(await next(old, 'error'), [{ message: 'Invalid namespace' }]);
});

test('where 2.x is not let in, it is told what to use', async (t) => {
  const hub = await startHub(t);
  for (const transports of [['polling'], ['websocket']]) {
    const old = client2(t, hub, '/events', { transports });
    await next(old, 'connect_error');
    old.close();
  }
  const response = await fetch(`${hub.url}/socket.io/?EIO=3&transport=polling`);
  assert.equal(response.status, 400);
  const { code, message, advice } = await response.json();
  assert.deepEqual([code, message], [5, 'Unsupported protocol version']);
  assert.match(advice, /socket\.io-client 3 or 4.*ALLOW_EIO3=true/);
});
