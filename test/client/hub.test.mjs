/** The official client by every transport, against one hub, and against three whose balancer is against sticky sessions. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Manager } from 'socket.io-client';

import {
  MODES, PLACES, admitted, ask, atEnd, client, connected, eventually, next, receives, startHub,
} from './support.mjs';

/** What JSON can hold, with what tends to be lost on the way. */
const RICH = {
  int: 42,
  big: 9007199254740991,
  negative: -17,
  float: 0.1,
  tiny: 5e-324,
  huge: 1.7976931348623157e308,
  zero: 0,
  nothing: null,
  yes: true,
  no: false,
  empty: ['', [], {}],
  nested: { a: [1, [2, [3, { b: null }]]] },
  text: 'grüße, 漢字, 🙂🏽, "quoted", back\\slash, \u2028, \u0000, \u001e',
  _placeholder: 'no placeholder',
  'key with "quotes"': 1,
};

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Clients that stay, at least one at each instance. */
async function everywhere(t, hub) {
  const missing = new Set(await hub.instances());
  const witnesses = [];
  while (missing.size) {
    const witness = await connected(t, hub, { transports: ['websocket'] });
    // A session's id begins with its instance's.
    missing.delete(witness.io.engine.id.slice(0, 8));
    witnesses.push(witness);
  }
  return witnesses;
}

const ALL = PLACES.flatMap(({ name: place, start }) => MODES.map((mode) => ({ ...mode, place, start })));

for (const { name, options, place, start } of ALL) {
  describe(`${name}, ${place}`, () => {
    test('a token in auth admits', async (t) => {
      const hub = await start(t);
      const instances = await hub.instances();
      const socket = client(t, hub, { ...options, auth: { token: await hub.token() } });
      const told = next(socket, 'instance');
      await admitted(socket);
      assert.match(socket.id, /^[\w-]{20}$/);
      const [{ id: instance }] = await told;
      assert.ok(instances.includes(instance), `${instance} is none of ${instances}`);
      assert.notEqual(socket.id, socket.io.engine.id, 'the socket id is not the session id');
    });

    test('a token in the Authorization header admits', async (t) => {
      const hub = await start(t);
      const socket = client(t, hub, { ...options, extraHeaders: { Authorization: `Bearer ${await hub.token()}` } });
      await admitted(socket);
      assert.equal((await ask(socket, 'echo', 'hello'))[0], 'hello');
    });

    test('no token, or a bad one, is refused in the agreed words', async (t) => {
      const hub = await start(t);
      const good = await hub.token();
      const [header, claims, signature] = good.split('.');
      const forged = `${header}.${claims}.${signature[0] === 'A' ? 'B' : 'A'}${signature.slice(1)}`;
      const unsigned = `${base64url({ alg: 'none', typ: 'JWT' })}.${claims}.`;
      for (const [auth, code] of [
        [undefined, 'token_missing'],
        [{}, 'token_missing'],
        [{ token: 'garbage' }, 'token_invalid'],
        [{ token: 'a.b.c' }, 'token_invalid'],
        [{ token: forged }, 'token_invalid'],
        [{ token: unsigned }, 'token_invalid'],
      ]) {
        const socket = client(t, hub, { ...options, auth });
        const [error] = await next(socket, 'connect_error');
        assert.equal(error.message, 'Unauthorized', JSON.stringify(auth));
        assert.deepEqual(error.data, { code }, JSON.stringify(auth));
        assert.equal(socket.active, false, 'the client does not try again');
        socket.disconnect();
      }
    });

    test('echo answers with the payload', async (t) => {
      const hub = await start(t);
      const socket = await connected(t, hub, options);
      assert.deepEqual(await ask(socket, 'echo', RICH), [RICH]);
      for (const value of [0, -1.5, '', 'text', null, true, [], [[]]]) {
        assert.deepEqual(await ask(socket, 'echo', value), [value]);
      }
    });

    test('echo answers binary with binary', async (t) => {
      const hub = await start(t);
      const socket = await connected(t, hub, options);
      const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
      assert.deepEqual(await ask(socket, 'echo', bytes), [bytes]);
      const nested = { list: [bytes, { deep: Buffer.from([0, 255, 30]) }], empty: Buffer.alloc(0), text: 'é' };
      assert.deepEqual(await ask(socket, 'echo', nested), [nested]);
    });

    test('a test-event reaches all clients, sender included, unchanged and in order', async (t) => {
      const hub = await start(t);
      const token = await hub.token();
      const sockets = [];
      for (let i = 0; i < 3; i += 1) sockets.push(await connected(t, hub, options, token));
      const binary = { head: 'binary', bytes: Buffer.from([1, 2, 3, 255, 0]), list: [Buffer.from('é')] };
      const sent = [RICH, binary, 'text', 17, null, [1, 2], { last: true }];
      for (const payload of sent) sockets[1].emit('test-event', payload);
      for (const socket of sockets) assert.deepEqual(await receives(socket, sent.length), sent);
    });

    test('a test-event is acknowledged when the client asks for it', async (t) => {
      const hub = await start(t);
      const socket = await connected(t, hub, options);
      const other = await connected(t, hub, options);
      const [answer] = await ask(socket, 'test-event', { text: 'acknowledged?' });
      assert.equal(answer.ok, true);
      const [binaryAnswer] = await ask(socket, 'test-event', Buffer.from([1]));
      assert.equal(binaryAnswer.ok, true);
      assert.deepEqual(await receives(other, 2), [{ text: 'acknowledged?' }, Buffer.from([1])]);
    });

    test('a message of 900 kB passes', async (t) => {
      const hub = await start(t);
      const socket = await connected(t, hub, options);
      const other = await connected(t, hub, options);
      const long = 'x'.repeat(900_000);
      const [echoed] = await ask(socket, 'echo', long);
      assert.ok(echoed === long);
      socket.emit('test-event', long);
      assert.ok((await receives(other, 1))[0] === long);
    });

    test('a message over the limit ends the connection, and only that one', async (t) => {
      const hub = await start(t);
      const socket = await connected(t, hub, options);
      const other = await connected(t, hub, options);
      const others = [];
      other.on('disconnect', (reason) => others.push(reason));
      const ended = next(socket, 'disconnect');
      socket.emit('test-event', 'x'.repeat(1_100_000));
      const [reason] = await ended;
      assert.match(reason, /^transport (close|error)$/);
      await admitted(socket);
      assert.deepEqual(await ask(socket, 'echo', 'back again'), ['back again']);
      socket.emit('test-event', 'after');
      assert.deepEqual(await receives(other, 1), ['after']);
      assert.deepEqual(others, []);
    });

    test('a client that disconnects receives no more, and may come back', async (t) => {
      const hub = await start(t);
      const socket = await connected(t, hub, options);
      const other = await connected(t, hub, options);
      const witnesses = await everywhere(t, hub);
      const ended = next(socket, 'disconnect');
      socket.disconnect();
      assert.deepEqual((await ended)[0], 'io client disconnect');
      await eventually(async () => await hub.numConnections() === 1 + witnesses.length, 'its connection is over');
      await ask(other, 'test-event', 'while away');
      // What still was on its way to an instance would reach whoever came there before it.
      for (const witness of witnesses) await receives(witness, 1);
      socket.connect();
      await admitted(socket);
      await ask(other, 'test-event', 'back');
      assert.deepEqual(await receives(socket, 1), ['back']);
      assert.deepEqual(other.received, ['while away', 'back']);
    });

    test('after a restart the client comes back by itself, and its token still works', async (t) => {
      const hub = await start(t);
      const socket = await connected(t, hub, options);
      const ended = next(socket, 'disconnect');
      const { code, signal } = await hub.stop();
      assert.deepEqual({ code, signal }, { code: 0, signal: null }, 'a clean end on SIGTERM');
      await ended;
      assert.equal(socket.active, true, 'the client keeps trying');
      await hub.start();
      await admitted(socket);
      assert.deepEqual(await ask(socket, 'test-event', 'again').then(([answer]) => answer.ok), true);
      assert.deepEqual(await receives(socket, 1), ['again']);
    });

    test('the same after kill -9', async (t) => {
      const hub = await start(t);
      const socket = await connected(t, hub, options);
      await hub.kill();
      await hub.start();
      await eventually(() => socket.connected, 'the client is back');
      assert.deepEqual(await ask(socket, 'echo', 1), [1]);
    });

    test('a namespace that a client asks for twice is joined once', async (t) => {
      const hub = await start(t);
      const manager = new Manager(hub.url, options);
      atEnd(t, () => manager._close());
      await next(manager, 'open');
      // The manager is open, so each of the two lines sends a CONNECT.
      const socket = manager.socket('/events', { auth: { token: await hub.token() } });
      const heard = [];
      for (const event of ['connect', 'disconnect']) socket.on(event, () => heard.push(event));
      socket.connect();
      await admitted(socket);
      assert.deepEqual(await ask(socket, 'echo', 'once'), ['once']);
      assert.deepEqual(heard, ['connect']);
    });

    test('an unknown namespace is refused in the words of Socket.IO', async (t) => {
      const hub = await start(t);
      const socket = client(t, hub, options, '/nowhere');
      const [error] = await next(socket, 'connect_error');
      assert.equal(error.message, 'Invalid namespace');
      assert.equal(error.data, undefined);
    });

    test('two namespaces do not share their events, though they may share a connection', async (t) => {
      const hub = await start(t);
      const socket = await connected(t, hub, options);
      const unknown = socket.io.socket('/nowhere');
      unknown.connect();
      const [error] = await next(unknown, 'connect_error');
      assert.equal(error.message, 'Invalid namespace');
      assert.deepEqual(await ask(socket, 'echo', 'unharmed'), ['unharmed']);
    });
  });
}

test('an expired token is refused as expired', async (t) => {
  const hub = await startHub(t, { JWT_EXPIRES_IN: '1' });
  const token = await hub.token();
  await eventually(async () => {
    const socket = client(t, hub, { auth: { token } });
    const outcome = await Promise.race([
      next(socket, 'connect').then(() => null),
      next(socket, 'connect_error').then(([error]) => error),
    ]);
    socket.disconnect();
    if (!outcome) return false;
    assert.equal(outcome.message, 'Unauthorized');
    assert.deepEqual(outcome.data, { code: 'token_expired' });
    return true;
  }, 'the refusal of an expired token');
});

for (const { name: place, start } of PLACES) {
  describe(place, () => {
    test('clients of all transports receive each other’s events', async (t) => {
      const hub = await start(t);
      const sockets = [];
      for (const { options } of MODES) sockets.push(await connected(t, hub, options));
      const sent = sockets.map((_, i) => ({ from: i, bytes: Buffer.from([i]) }));
      const isAlone = (await hub.instances()).length === 1;
      for (const [i, socket] of sockets.entries()) {
        await ask(socket, 'test-event', sent[i]);
        // Between instances each sender's order is kept and no other: there the next one sends when all have this.
        if (!isAlone) for (const each of sockets) await receives(each, i + 1);
      }
      for (const socket of sockets) assert.deepEqual(await receives(socket, sent.length), sent);
    });

    test('nothing is lost while a client upgrades', async (t) => {
      const hub = await start(t);
      const token = await hub.token();
      const sender = await connected(t, hub, { transports: ['websocket'] }, token);
      const socket = client(t, hub, { auth: { token } });
      const received = [];
      socket.on('test-event', (number) => received.push(number));
      await admitted(socket);
      let number = 0;
      let isUpgraded = false;
      socket.io.engine.once('upgrade', () => { isUpgraded = true; });
      if (socket.io.engine.transport.name === 'websocket') isUpgraded = true;
      while (!isUpgraded) await ask(sender, 'test-event', number++);
      for (let i = 0; i < 20; i += 1) await ask(sender, 'test-event', number++);
      await eventually(() => received.length >= number, 'all events');
      assert.deepEqual(received, Array.from({ length: number }, (_, i) => i));
    });
  });
}
