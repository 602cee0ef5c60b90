/** The matrix: every client that people run, by every transport, in every place, in everything that they do. See matrix_server.rs. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  CLIENTS, TRANSPORTS, Visitor, ask, endOfTransport, isActive, serverOfSuite, startServer,
} from './matrix.support.mjs';
import { PLACES, eventually, next } from './support.mjs';

/** What JSON can hold, with what tends to be lost on the way. */
const RICH = {
  numbers: [0, -17, 0.1, 5e-324, 1.7976931348623157e308, 9007199254740991],
  words: [null, true, false, '', [], {}],
  nested: { a: [1, [2, [3, { b: null }]]] },
  text: 'grüße, 漢字, 🙂🏽, "quoted", back\\slash, \u2028, \u0000, \u001e',
  _placeholder: 'no placeholder',
};
const BYTES = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
const BINARY = { list: [BYTES, { deep: Buffer.from([0, 255, 30]) }], empty: Buffer.alloc(0), text: 'é' };
/** Just below the server's limit of a million bytes, and beyond it. */
const LONG = 'x'.repeat(900_000);
const TOO_LONG = 'x'.repeat(1_100_000);

let numRooms = 0;
/** A room that no other test uses. */
const newRoom = () => `room ${numRooms += 1}`;

/** What each client does, in each way. The server is shared with the other cases. */
const CASES = {
  'connects, with what it brings': async (visitor) => {
    const socket = await visitor.connect('/matrix', { auth: { name: 'Ada' } });
    const [me] = await ask(socket, 'who-am-i');
    assert.equal(me.id, socket.id);
    assert.deepEqual(me.auth, visitor.client.bringsAuth ? { name: 'Ada' } : {});
  },

  'connects to the main namespace': async (visitor) => {
    const socket = await visitor.connect('/');
    assert.equal((await ask(socket, 'who-am-i'))[0].id, socket.id);
  },

  'a refusal comes with its message and data, and is final': async (visitor) => {
    const { client } = visitor;
    const socket = visitor.open('/matrix', client.toBeRefused);
    const [error] = await next(socket, client.refusedBy);
    assert.deepEqual(client.refusal(error), { message: 'No entry', data: { code: 'refused', wish: true } });
    assert.equal(socket.connected, false);
  },

  'an unknown namespace is refused': async (visitor) => {
    const { client } = visitor;
    const socket = visitor.open('/nowhere');
    const [error] = await next(socket, client.refusedBy);
    assert.equal(error.message, 'Invalid namespace');
  },

  'events arrive, both ways': async (visitor) => {
    const socket = await visitor.connect();
    for (const args of [[RICH], ['one', 2, null, [3]], ['']]) {
      const came = next(socket, 'echo-event');
      socket.emit('echo-event', ...args);
      assert.deepEqual(await came, args);
    }
  },

  'an event without arguments arrives without any': async (visitor) => {
    const socket = await visitor.connect();
    const came = next(socket, 'echo-event');
    socket.emit('echo-event');
    assert.deepEqual(await came, []);
  },

  'events arrive in the order sent': async (visitor) => {
    const socket = await visitor.connect();
    const received = [];
    socket.on('echo-event', (number) => received.push(Buffer.isBuffer(number) ? number[0] : number));
    const sent = Array.from({ length: 100 }, (_, i) => i);
    // Every tenth has an attachment, which must not be overtaken.
    for (const number of sent) socket.emit('echo-event', number % 10 ? number : Buffer.from([number]));
    await eventually(() => received.length >= sent.length, () => `100 events (${received.length} are there)`);
    assert.deepEqual(received, sent);
  },

  'the server acknowledges': async (visitor) => {
    const socket = await visitor.connect();
    assert.deepEqual(await ask(socket, 'echo', RICH), [RICH]);
    assert.deepEqual(await ask(socket, 'echo', 1, 'two', [3]), [1, 'two', [3]]);
    assert.deepEqual(await ask(socket, 'echo'), []);
  },

  'the client acknowledges': async (visitor) => {
    const socket = await visitor.connect();
    socket.on('question', (value, answer) => answer({ asked: value }));
    assert.deepEqual(await ask(socket, 'ask-me', RICH), [{ asked: RICH }]);
  },

  'bytes arrive, both ways': async (visitor) => {
    const socket = await visitor.connect();
    const came = next(socket, 'echo-event');
    socket.emit('echo-event', BYTES, 'between', BINARY);
    assert.deepEqual(await came, [BYTES, 'between', BINARY]);
  },

  'bytes are acknowledged with bytes, both ways': async (visitor) => {
    const socket = await visitor.connect();
    assert.deepEqual(await ask(socket, 'echo', BYTES, BINARY), [BYTES, BINARY]);
    socket.on('question', (bytes, answer) => answer(Buffer.from(bytes).reverse()));
    assert.deepEqual(await ask(socket, 'ask-me-binary', BYTES), [Buffer.from(BYTES).reverse()]);
  },

  'a 900 kB message arrives, both ways': async (visitor) => {
    const socket = await visitor.connect();
    const came = next(socket, 'echo-event');
    socket.emit('echo-event', LONG);
    const [text] = await came;
    assert.ok(text === LONG);
    const bytes = Buffer.alloc(600_000, 'bytes');
    const [answer] = await ask(socket, 'echo', bytes);
    assert.ok(bytes.equals(answer));
  },

  'a message over the limit ends this connection alone, and the client comes back': async (visitor) => {
    const socket = await visitor.connect();
    const other = await visitor.connect();
    const others = [];
    other.on('disconnect', (reason) => others.push(reason));
    const { name } = socket.io.engine.transport;
    const transportEnds = endOfTransport(socket);
    const ended = next(socket, 'disconnect');
    socket.emit('echo-event', TOO_LONG);
    if (name === 'polling') {
      assert.equal((await ended)[0], 'transport error');
      assert.equal(await transportEnds, 413, 'Payload Too Large');
    } else {
      assert.equal((await ended)[0], 'transport close');
      assert.equal(await transportEnds, 1009, 'Message Too Big');
    }
    await visitor.settled(socket);
    assert.deepEqual(await ask(socket, 'echo', 'back again'), ['back again']);
    assert.deepEqual(await ask(other, 'echo', 'unharmed'), ['unharmed']);
    assert.deepEqual(others, []);
  },

  'what is said in a room reaches who is in it': async (visitor) => {
    const room = newRoom();
    const [speaker, member, former, stranger] = await Promise.all([1, 2, 3, 4].map(() => visitor.connect()));
    const heard = new Map();
    for (const socket of [speaker, member, former, stranger]) {
      heard.set(socket, []);
      socket.on('said', (text) => heard.get(socket).push(text));
    }
    for (const socket of [speaker, member, former]) await ask(socket, 'join', room);
    await ask(speaker, 'say', room, 'to both');
    await eventually(() => heard.get(former).length, 'what was said to both');
    await ask(former, 'leave', room);
    await ask(speaker, 'say', room, 'to one');
    await eventually(() => heard.get(member).length >= 2, 'what was said to one');
    // An answer comes behind whatever was sent before.
    for (const socket of [speaker, former, stranger]) await ask(socket, 'echo');
    assert.deepEqual([...heard.values()], [[], ['to both', 'to one'], ['to both'], []]);
  },

  'two namespaces share a connection, not their events or their ends': async (visitor) => {
    const main = await visitor.connect('/');
    const socket = await visitor.share(main, '/matrix');
    const room = newRoom();
    await Promise.all([ask(socket, 'join', room), ask(main, 'join', room)]);
    const heard = [];
    main.on('said', (text) => heard.push(text));
    await ask(socket, 'say', room, 'to nobody');
    assert.deepEqual(await ask(main, 'echo', 'here'), ['here']);
    assert.deepEqual(heard, []);
    const ended = next(socket, 'disconnect');
    socket.emit('kick');
    assert.equal((await ended)[0], 'io server disconnect');
    assert.deepEqual(await ask(main, 'echo', 'still here'), ['still here']);
  },

  'the client leaves, and may come back': async (visitor) => {
    const watcher = await visitor.connect();
    await ask(watcher, 'watch');
    const socket = await visitor.connect();
    const { id } = socket;
    const gone = leaves(watcher, id);
    const ended = next(socket, 'disconnect');
    socket.disconnect();
    assert.equal((await ended)[0], 'io client disconnect');
    assert.equal(isActive(socket), false);
    assert.equal(await gone, 'client namespace disconnect');
    socket.connect();
    await visitor.settled(socket);
    assert.notEqual(socket.id, id);
    assert.deepEqual(await ask(socket, 'echo', 'back'), ['back']);
  },

  'the client ends its connection without a word in the namespace': async (visitor) => {
    const watcher = await visitor.connect();
    await ask(watcher, 'watch');
    const socket = await visitor.connect('/matrix', { reconnection: false });
    const gone = leaves(watcher, socket.id);
    socket.io.engine.close();
    assert.equal(await gone, 'transport close');
  },

  'the server ends the membership, and the client stays away': async (visitor) => {
    const watcher = await visitor.connect();
    await ask(watcher, 'watch');
    const socket = await visitor.connect();
    const gone = leaves(watcher, socket.id);
    const ended = next(socket, 'disconnect');
    socket.emit('kick');
    assert.equal((await ended)[0], 'io server disconnect');
    assert.equal(isActive(socket), false);
    assert.equal(await gone, 'server namespace disconnect');
    socket.connect();
    await visitor.settled(socket);
    assert.deepEqual(await ask(socket, 'echo', 'back'), ['back']);
  },

  'the server ends the whole connection, and the client stays away': async (visitor) => {
    const main = await visitor.connect('/');
    const socket = await visitor.share(main, '/matrix');
    const ended = [next(socket, 'disconnect'), next(main, 'disconnect')];
    socket.emit('kick-all');
    for (const end of ended) assert.equal((await end)[0], 'io server disconnect');
    assert.deepEqual([isActive(socket), isActive(main)], [false, false]);
  },

  'stays connected from heartbeat to heartbeat': async (visitor) => {
    const socket = await visitor.connect();
    const ends = [];
    socket.on('disconnect', (reason) => ends.push(reason));
    let numBeats = 0;
    socket.io.engine.on('packet', ({ type }) => { if (/^p[io]ng$/.test(type)) numBeats += 1; });
    await eventually(() => numBeats >= 3, () => `3 heartbeats (${numBeats} came)`);
    assert.deepEqual(await ask(socket, 'echo', 'alive'), ['alive']);
    assert.deepEqual(ends, []);
  },
};

/** The same, with a server of the case's own, which does not stay. */
const RESTARTS = {
  'is told of a stop, and comes back after it': async (visitor) => {
    const socket = await visitor.connect();
    const { id } = socket;
    const ended = next(socket, 'disconnect');
    const { code, signal } = await visitor.hub.stop();
    assert.deepEqual({ code, signal }, { code: 0, signal: null });
    // At once, not by a heartbeat that stays away ("ping timeout"). A poll that was just on its way finds a closed port.
    assert.match((await ended)[0], visitor.transport.endsWith === 'polling' ? /^transport (close|error)$/ : /^transport close$/);
    assert.equal(isActive(socket), true);
    await comesBack(visitor, socket, id);
  },

  'comes back after kill -9': async (visitor) => {
    const socket = await visitor.connect();
    const { id } = socket;
    const ended = next(socket, 'disconnect');
    await visitor.hub.kill();
    assert.equal((await ended)[0], visitor.transport.endsWith === 'polling' ? 'transport error' : 'transport close');
    assert.equal(isActive(socket), true);
    await comesBack(visitor, socket, id);
  },
};

/** Waits until the watcher is told that this socket left, and returns why. */
function leaves(watcher, id) {
  let reason;
  watcher.on('left', (who, why) => { if (who === id) reason = why; });
  return eventually(() => reason, `that ${id} leaves`);
}

/** Starts the server again and waits for the client, which must be as good as new: events, acks and rooms. */
async function comesBack(visitor, socket, formerId) {
  await visitor.hub.start();
  await visitor.settled(socket);
  assert.notEqual(socket.id, formerId);
  assert.deepEqual(await ask(socket, 'echo', RICH, BYTES), [RICH, BYTES]);
  const other = await visitor.connect();
  const room = newRoom();
  await ask(socket, 'join', room);
  const said = next(socket, 'said');
  await ask(other, 'say', room, 'welcome back');
  assert.deepEqual(await said, ['welcome back']);
}

for (const place of PLACES) {
  for (const client of CLIENTS) {
    for (const transport of TRANSPORTS) {
      const name = `${client.name}, ${transport.name}, ${place.name}`;
      // At a time, because most of a case is waiting.
      describe(name, { concurrency: 4 }, () => {
        const server = serverOfSuite(place, client.env);
        for (const [rule, run] of Object.entries(CASES)) {
          test(`${name}: ${rule}`, (t) => run(new Visitor(t, server(), client, transport)));
        }
        for (const [rule, run] of Object.entries(RESTARTS)) {
          test(`${name}: ${rule}`, async (t) => {
            await run(new Visitor(t, await startServer(t, place, client.env), client, transport));
          });
        }
      });
    }
  }
}
