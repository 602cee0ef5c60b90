/** The official client with the official MessagePack parser, against `examples/msgpack.rs` and a hub with PARSER=msgpack. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import parser from 'socket.io-msgpack-parser';

import {
  EXAMPLES, MODES, admitted, ask, client, connected, eventually, next, receives, startHub,
} from './support.mjs';

const MOMENT = new Date(1700000000123);
const ISO = '2023-11-14T22:13:20.123Z';

/** Starts the example, whose handlers do more than the hub's own. */
const startExample = (t) => startHub(t, {}, `${EXAMPLES}/msgpack`);

for (const { name, options } of MODES) {
  describe(`msgpack, ${name}`, () => {
    const guest = (t, hub, more = {}) => client(t, hub, { ...options, parser, auth: { name: 'Ada' }, ...more }, '/');

    /** Connects, and waits for the upgrade if one is in view. */
    async function joined(t, hub, more) {
      const socket = guest(t, hub, more);
      await admitted(socket);
      if (!options.transports) {
        await eventually(() => socket.io.engine.transport.name === 'websocket', 'the upgrade');
      }
      return socket;
    }

    test('auth arrives, a date in it as text, what is undefined not at all', async (t) => {
      const hub = await startExample(t);
      const socket = guest(t, hub, { auth: { name: 'Ada', since: MOMENT, nothing: undefined, list: [undefined] } });
      const hello = next(socket, 'hello');
      await admitted(socket);
      assert.match(socket.id, /^[\w-]{20}$/);
      assert.deepEqual(await hello, [{ name: 'Ada', since: ISO, list: [null] }]);
    });

    test('without auth the application decides, and its refusal arrives', async (t) => {
      const hub = await startExample(t);
      const socket = guest(t, hub, { auth: undefined });
      const [error] = await next(socket, 'connect_error');
      assert.equal(error.message, 'Who are you?');
      assert.deepEqual(error.data, { code: 'name_missing' });
      assert.equal(socket.active, false, 'the client does not try again');
      const elsewhere = client(t, hub, { ...options, parser }, '/nowhere');
      assert.equal((await next(elsewhere, 'connect_error'))[0].message, 'Invalid namespace');
    });

    test('events and acks carry what JSON can, and binary, both ways', async (t) => {
      const hub = await startExample(t);
      const socket = await joined(t, hub);
      const all = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
      const rich = {
        int: 42, big: 9007199254740991, negative: -17, float: 0.1, tiny: 5e-324, nothing: null, yes: true, no: false,
        empty: ['', [], {}], text: 'grüße, 漢字, 🙂🏽, "quoted", back\\slash, \u0000, \u001e', bytes: [all, Buffer.alloc(0)],
      };
      assert.deepEqual(await ask(socket, 'echo', rich, -1.5, all), [rich, -1.5, all]);
      for (const int of [0, 127, 128, 255, 256, 65535, 65536, 2 ** 32, -1, -32, -33, -128, -129, -32769, -(2 ** 31) - 1]) {
        assert.deepEqual(await ask(socket, 'echo', int), [int]);
      }
      assert.deepEqual(await ask(socket, 'echo'), []);
    });

    test('a date becomes its text, undefined null or nothing, a typed array bytes', async (t) => {
      const hub = await startExample(t);
      const socket = await joined(t, hub);
      assert.deepEqual(
        await ask(socket, 'echo', MOMENT, undefined, { a: undefined, b: [MOMENT] }),
        [ISO, null, { b: [ISO] }],
      );
      // One byte and eight are what the dialect's undefined and date have, too.
      for (const length of [0, 1, 2, 8, 300, 70000]) {
        const bytes = new Uint8Array(length).fill(7);
        assert.deepEqual(await ask(socket, 'echo', bytes, bytes.buffer), [Buffer.from(bytes), Buffer.from(bytes)], `${length} bytes`);
      }
    });

    test('the server asks and the client acknowledges, with binary', async (t) => {
      const hub = await startExample(t);
      const socket = await joined(t, hub);
      socket.on('question', (text, bytes, reply) => reply({ text, at: MOMENT }, Buffer.from([...bytes].reverse())));
      assert.deepEqual(
        await ask(socket, 'ask-me', 'what?', Buffer.from([1, 2, 3])),
        [[{ text: 'what?', at: ISO }, Buffer.from([3, 2, 1])]],
      );
    });

    test('a broadcast reaches several clients, of all transports, in order', async (t) => {
      const hub = await startExample(t);
      const sockets = [await joined(t, hub), await joined(t, hub)];
      for (const mode of MODES) {
        const socket = client(t, hub, { ...mode.options, parser, auth: { name: 'Bob' } }, '/');
        await admitted(socket);
        sockets.push(socket);
      }
      for (const socket of sockets) {
        socket.received = [];
        socket.on('shared', (...args) => socket.received.push(args));
      }
      const sent = [[1], ['text', { bytes: Buffer.from([1, 2, 3, 255, 0]) }], [], [null, [Buffer.from('é')]]];
      for (const args of sent) assert.deepEqual(await ask(sockets[0], 'share', ...args), [true]);
      for (const socket of sockets) assert.deepEqual(await receives(socket, sent.length), sent);
    });

    test('a large message passes', async (t) => {
      const hub = await startExample(t);
      const socket = await joined(t, hub);
      const bytes = Buffer.alloc(600_000, 7);
      const [text, echoed] = await ask(socket, 'echo', 'x'.repeat(70_000), bytes);
      assert.equal(text.length, 70_000);
      assert.ok(bytes.equals(echoed));
    });

    test('a client disconnects and may come back', async (t) => {
      const hub = await startExample(t);
      const socket = await joined(t, hub);
      const ended = next(socket, 'disconnect');
      socket.disconnect();
      assert.equal((await ended)[0], 'io client disconnect');
      await eventually(async () => (await hub.readyz()).connections === 0, 'no connection left');
      socket.connect();
      await admitted(socket);
      assert.deepEqual(await ask(socket, 'echo', 1), [1]);
    });

    test('the server disconnects a client, and the client knows that it did', async (t) => {
      const hub = await startExample(t);
      // Over polling the end of the whole connection travels in one payload with the disconnect, and the client acts on it first.
      for (const whole of name === 'polling only' ? [false] : [false, true]) {
        const socket = await joined(t, hub);
        const ended = next(socket, 'disconnect');
        socket.emit('kick', whole);
        assert.equal((await ended)[0], 'io server disconnect');
      }
    });

    test('the hub itself speaks it with PARSER=msgpack', async (t) => {
      const hub = await startHub(t, { PARSER: 'msgpack' });
      assert.equal((await hub.readyz()).parser, 'msgpack');
      const token = await hub.token();
      const [one, other] = [
        await connected(t, hub, { ...options, parser }, token),
        await connected(t, hub, { ...options, parser }, token),
      ];
      const payload = { text: 'hello', bytes: Buffer.from([1, 2]) };
      assert.deepEqual(await ask(one, 'test-event', payload), [{ ok: true }]);
      for (const socket of [one, other]) assert.deepEqual(await receives(socket, 1), [payload]);
    });

    test('a client with another parser is not let in, and harms nobody', async (t) => {
      const hub = await startExample(t);
      const socket = await joined(t, hub);
      const stranger = client(t, hub, { ...options, reconnection: false, auth: { name: 'Eve' } }, '/');
      await next(stranger.io, 'close');
      assert.equal(stranger.connected, false);
      assert.deepEqual(await ask(socket, 'echo', 'unharmed'), ['unharmed']);
    });
  });
}
