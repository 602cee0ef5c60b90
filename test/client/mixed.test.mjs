/**
 * Two of Node's servers and two Sockhop instances on one Redis: every operation of the server API, from each to all four.
 *
 * Source: Socket.IO server API; wire.md 3. The emitters are in emitter.test.mjs.
 */
import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';

import { createAdapter as createAdapter7 } from 'redis-adapter-7';

import { NODE_ONLY, AT_ONCE, SERVERS, Mixed, leaves, mixedOfSuite, sorted, versionOf } from './mixed.support.mjs';
import { PATIENCE, eventually } from './support.mjs';

/** More than what must come at once may take. (Node keeps a timer for as long, whatever comes.) */
const LONG = AT_ONCE + 1000;
const BYTES = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
const PAYLOADS = [
  'grüße, 漢字, 🙂🏽', null, true, 0.1, -9007199254740991, 4294967296, [], {}, [[{ a: [null, ''] }]],
  { bytes: BYTES, more: [Buffer.from('é'), { x: Buffer.alloc(0) }], _placeholder: 'no' }, BYTES,
  'x'.repeat(300), Array.from({ length: 20 }, (_, i) => i), { ['k'.repeat(40)]: { n: -1.5e-300 } },
];

/** Who is selected, by the rooms of `Mixed.start`. */
const SELECTIONS = [
  { name: 'all', select: {}, selected: SERVERS },
  { name: 'a room of one', select: { to: ['of node2'] }, selected: ['node2'] },
  { name: 'a room on both sides', select: { to: ['1'] }, selected: ['node1', 'sockhop1'] },
  { name: 'several rooms, each socket once', select: { to: ['1', 'sockhop'] }, selected: ['node1', 'sockhop1', 'sockhop2'] },
  { name: 'all but some', select: { except: ['of sockhop2', 'of node1'] }, selected: ['node2', 'sockhop1'] },
  { name: 'a room but some', select: { to: ['2'], except: ['node'] }, selected: ['sockhop2'] },
  { name: 'nobody', select: { to: ['a room of nobody'] }, selected: [] },
];

const named = (names, value) => Object.fromEntries(names.map((name) => [name, [value]]));
const byName = (list) => [...list].sort((a, b) => (a.name < b.name ? -1 : 1));

describe(`beside Node’s servers (adapter ${versionOf('@socket.io/redis-adapter')})`, () => {
  const mixed = mixedOfSuite();
  afterEach(() => mixed().allHearAll());

  for (const origin of SERVERS) {
    describe(`from ${origin}`, () => {
      const own = () => mixed().of(origin);

      test('broadcasts reach whom they select, once', async () => {
        for (const { name, select, selected } of SELECTIONS) {
          const event = mixed().fresh('event');
          await own().ok('emit', { ...select, event, args: name });
          await mixed().fence(own());
          assert.deepEqual(mixed().who(event), named(selected, name), name);
        }
        const event = mixed().fresh('local');
        await own().ok('emit', { local: true, event, args: 1 });
        await mixed().fence(own());
        assert.deepEqual(mixed().who(event), named([origin], 1));
      });

      test('values and bytes arrive as they were sent', async () => {
        const event = mixed().fresh('value');
        for (const args of PAYLOADS) await own().ok('emit', { event, args });
        await mixed().fence(own());
        for (const client of mixed().clients) {
          assert.deepEqual(client.got(event), PAYLOADS.map((value) => [value]), client.name);
        }
      });

      test('a volatile broadcast reaches whom it selects, and nobody else', async () => {
        const event = mixed().fresh('volatile');
        // Whoever is being written to may miss one.
        await eventually(async () => {
          await own().ok('emit', { to: ['1'], volatile: true, event, args: 1 });
          await mixed().fence(own());
          return Object.keys(mixed().who(event)).length >= 2;
        });
        assert.deepEqual(sorted(Object.keys(mixed().who(event))), ['node1', 'sockhop1']);
      });

      test('sockets are fetched from everywhere, with rooms, data and handshake', async () => {
        for (const { name, select, selected } of SELECTIONS) {
          const found = await own().ok('fetch', select);
          const expected = selected.map((who) => mixed().of(who).id);
          assert.deepEqual(sorted(found.map(({ id }) => id)), sorted(expected), name);
          for (const { id, rooms, data, query } of found) {
            const { name: who, data: known } = mixed().clients.find((client) => client.id === id);
            assert.deepEqual(data, known);
            assert.equal(query, 'websocket');
            assert.deepEqual(sorted(rooms), sorted([id, `of ${who}`, who.slice(0, -1), who.slice(-1)]));
          }
        }
        const local = await own().ok('fetch', { local: true });
        assert.deepEqual(local.map(({ id }) => id), [own().id]);
      });

      test('all rooms of all servers are told, each once', async () => {
        const ids = mixed().clients.map(({ id }) => id);
        const rooms = SERVERS.map((name) => `of ${name}`);
        assert.deepEqual(sorted(await own().ok('rooms')), sorted([...ids, ...rooms, 'node', 'sockhop', '1', '2']));
      });

      test('sockets everywhere join and leave rooms', async () => {
        const [red, blue] = [mixed().fresh('red'), mixed().fresh('blue')];
        const members = async (room) => sorted((await own().ok('fetch', { to: [room] })).map(({ data }) => data.name));
        await own().ok('join', { to: ['1', 'of node2'], except: ['of node1'], rooms: [red, blue] });
        await mixed().fence(own());
        // Node applies its own request when it comes back to it.
        await eventually(async () => (await members(red)).length === 2, 'the members');
        assert.deepEqual(await members(red), ['node2', 'sockhop1']);
        assert.deepEqual(await members(blue), ['node2', 'sockhop1']);
        await own().ok('leave', { to: ['of sockhop1'], rooms: [red] });
        await eventually(async () => (await members(red)).length === 1, 'one has left');
        assert.deepEqual(await members(red), ['node2']);
        assert.deepEqual(await members(blue), ['node2', 'sockhop1']);
        await own().ok('leave', { rooms: [red, blue] });
        await eventually(async () => !(await own().ok('rooms')).some((room) => [red, blue].includes(room)), 'no such room');
      });

      for (const close of [false, true]) {
        test(`sockets everywhere are disconnected, ${close ? 'connection and all' : 'from the namespace alone'}`, async (t) => {
          const room = mixed().fresh('doomed');
          const doomed = [];
          for (const name of SERVERS) {
            const visitor = await mixed().visit(name, t);
            await visitor.join(room);
            visitor.main = visitor.socket.io.socket('/');
            await eventually(() => visitor.main.connected, '/');
            visitor.left = leaves(visitor.socket);
            doomed.push(visitor);
          }
          await own().ok('disconnect', { to: [room], close });
          for (const { name, left } of doomed) assert.equal(await left, 'io server disconnect', name);
          if (close) {
            for (const { main, name } of doomed) await eventually(() => !main.connected, () => `${name} has left / too`);
          }
          await mixed().fence(own());
          for (const { main, name } of doomed) assert.equal(main.connected, !close, name);
          assert.equal((await own().ok('fetch')).length, SERVERS.length);
        });
      }

      test('clients of all servers acknowledge a broadcast', async () => {
        for (const { name, select, selected } of SELECTIONS) {
          const acks = await own().ok('ask', { ...select, event: 'q', args: name, ms: LONG });
          assert.deepEqual(byName(acks), sorted(selected).map((who) => ({ name: who, x: name })), name);
        }
        const x = { bytes: BYTES, list: [Buffer.from([1])] };
        const acks = await own().ok('ask', { event: 'q', args: x, ms: LONG });
        assert.deepEqual(byName(acks), sorted(SERVERS).map((name) => ({ name, x })));
        // Node counts all servers even then, and waits for those that it has not asked.
        const local = await own().op('ask', { event: 'q', args: 1, ms: 500, local: true });
        assert.deepEqual(local.ok ?? local.arrived, [{ name: origin, x: 1 }]);
        assert.equal('ok' in local, origin.startsWith('sockhop'));
      });

      test('an ack without arguments and one of bytes alone are acks, too', async (t) => {
        const room = mixed().fresh('room');
        const visitors = [];
        for (const name of SERVERS) {
          const visitor = await mixed().visit(name, t);
          await visitor.join(room);
          visitor.socket.on('nothing?', (_, reply) => reply());
          visitor.socket.on('null?', (_, reply) => reply(null));
          visitor.socket.on('bytes?', (_, reply) => reply(BYTES));
          visitors.push(visitor);
        }
        for (const [event, ack] of [['nothing?', null], ['null?', null], ['bytes?', BYTES]]) {
          const acks = await own().ok('ask', { to: [room], event, args: 1, ms: LONG });
          assert.deepEqual(acks, SERVERS.map(() => ack), event);
        }
      });

      for (const silent of ['node2', 'sockhop2']) {
        test(`what others acknowledged is told if the client of ${silent} never does`, async (t) => {
          const room = mixed().fresh('room');
          const mute = await mixed().visit(silent, t);
          await mute.join(room);
          mute.socket.off('q');
          const answer = await own().op('ask', { to: ['1', room], event: 'q', args: 1, ms: 700 });
          assert.match(answer.error, origin.startsWith('node') ? /timed out/ : /1 clients did not answer/);
          assert.deepEqual(byName(answer.arrived), [{ name: 'node1', x: 1 }, { name: 'sockhop1', x: 1 }]);
          assert.equal(mute.got('q').length, 1);
          const alone = await own().op('ask-one', { to: [room], event: 'q', args: 1, ms: 300 });
          assert.ok(alone.error, 'one that is asked alone does not answer either');
        });
      }

      test('one socket that was fetched can be told, asked, moved and disconnected, wherever it is', async (t) => {
        for (const name of SERVERS) {
          const visitor = await mixed().visit(name, t);
          const to = [visitor.id];
          const [room, event] = [mixed().fresh('room'), mixed().fresh('event')];
          const x = { name, bytes: BYTES };
          assert.deepEqual(await own().ok('ask-one', { to, event: 'q', args: x, ms: LONG }), { name, x });
          await own().ok('emit-one', { to, event, args: x });
          await own().ok('join-one', { to, rooms: [room] });
          await mixed().fence(own(), [...mixed().clients, visitor]);
          assert.deepEqual(visitor.got(event), [[x]]);
          assert.deepEqual(mixed().who(event), {});
          await eventually(async () => (await own().ok('fetch', { to: [room] })).length === 1, 'it has joined');
          await own().ok('leave-one', { to, rooms: [room] });
          await eventually(async () => (await own().ok('fetch', { to: [room] })).length === 0, 'it has left');
          const left = leaves(visitor.socket);
          await own().ok('disconnect-one', { to, close: true });
          assert.equal(await left, 'io server disconnect');
          await eventually(async () => (await own().ok('fetch')).length === SERVERS.length, 'it is gone');
        }
      });

      test('an event for servers reaches all others, and not itself', async () => {
        const x = { from: origin, n: [1, null, 'é'] };
        await own().ok('server-emit', { event: 'server-tell', args: x });
        const others = SERVERS.filter((name) => name !== origin);
        await eventually(() => Object.keys(mixed().who('told')).length >= 3, 'three are told');
        await mixed().fence(own());
        assert.deepEqual(mixed().who('told'), named(others, x));
        // Nobody listens to this one.
        await own().ok('server-emit', { event: 'nobody has it', args: x });
      });

      test('the other servers reply to an event for servers', async () => {
        const replies = await own().ok('server-ask', { event: 'server-ping', args: 'é', ms: LONG });
        assert.deepEqual(replies, [{ pong: 'é' }, { pong: 'é' }, { pong: 'é' }]);
      });
    });
  }

  test('sockets’ ids are asked of Node’s servers, too', async () => {
    for (const name of ['sockhop1', 'sockhop2']) {
      const ids = await mixed().of(name).ok('ids', { to: ['1'] });
      assert.deepEqual(sorted(ids), sorted([mixed().of('node1').id, mixed().of('sockhop1').id]));
    }
  });

  test('dates, undefined and numbers beyond JSON of Node’s arrive as its own clients get them', async () => {
    for (const name of ['node1', 'node2']) {
      const event = mixed().fresh('odd');
      const when = new Date('2023-11-14T22:13:20.123Z');
      const args = [when, undefined, { u: undefined, when, nan: NaN, inf: -Infinity }, [undefined, new Date(0)], 5.0, -0];
      mixed().servers[name].ops.emit(event, ...args);
      await mixed().fence(mixed().of(name));
      const iso = when.toISOString();
      const expected = [iso, null, { when: iso, nan: null, inf: null }, [null, '1970-01-01T00:00:00.000Z'], 5, 0];
      for (const client of mixed().clients) assert.deepEqual(client.got(event), [expected], `${name} to ${client.name}`);
    }
  });

  test('rooms with names of channels, patterns and numbers are rooms', async () => {
    for (const room of ['a#b', '*', '[x]?', '#', 'é\\', '42']) {
      for (const client of mixed().clients) await client.join(room);
      for (const from of mixed().clients) {
        const event = mixed().fresh('odd room');
        await from.ok('emit', { to: [room], event, args: room });
        await mixed().fence(from);
        assert.deepEqual(mixed().who(event), named(SERVERS, room), `${room} of ${from.name}`);
        assert.equal((await from.ok('fetch', { to: [room] })).length, SERVERS.length);
      }
      await mixed().of('node1').ok('leave', { rooms: [room] });
      await eventually(async () => !(await mixed().of('node1').ok('rooms')).includes(room), 'all have left');
    }
    // To Node a number is another room than its text; it is the text here.
    for (const client of mixed().clients) await client.join('43');
    const event = mixed().fresh('number');
    mixed().servers.node1.ops.to(43).emit(event, 1);
    await mixed().fence(mixed().of('node1'));
    assert.deepEqual(mixed().who(event), named(['sockhop1', 'sockhop2'], 1));
    await mixed().of('sockhop1').ok('leave', { rooms: ['43'] });
  });

  test('Node waits for nobody in a namespace that it alone has', async () => {
    const spaces = ['node1', 'node2'].map((name) => mixed().servers[name].peer.of(NODE_ONLY));
    spaces.forEach((space) => space.on('ping', (reply) => reply('pong')));
    for (const space of spaces) {
      const began = performance.now();
      assert.deepEqual(await space.fetchSockets(), []);
      assert.deepEqual([...await space.adapter.allRooms()], []);
      assert.deepEqual(await space.timeout(10_000).emitWithAck('q', 1), []);
      assert.deepEqual(await space.serverSideEmitWithAck('ping'), ['pong']);
      assert.ok(performance.now() - began < AT_ONCE, 'all of it at once');
    }
  });

  test('namespaces of a pattern are shared for as long as either side has clients there', async (t) => {
    const namespace = '/ops-17';
    const atNode = await mixed().visit('node1', t, namespace);
    assert.deepEqual((await atNode.ok('fetch')).map(({ id }) => id), [atNode.id]);
    const atSockhop = await mixed().visit('sockhop1', t, namespace);
    const both = sorted([atNode.id, atSockhop.id]);
    for (const own of [atNode, atSockhop]) {
      // The namespace is listened to a moment after its first client has come.
      await eventually(async () => (await own.ok('fetch')).length === 2, 'both are there');
      assert.deepEqual(sorted((await own.ok('fetch')).map(({ id }) => id)), both);
      await mixed().fence(own, [atNode, atSockhop]);
      assert.equal((await own.ok('ask', { event: 'q', args: BYTES, ms: LONG })).length, 2);
      assert.deepEqual(await own.ok('server-ask', { event: 'server-ping', args: 1, ms: LONG }), [{ pong: 1 }]);
    }
    // Nobody waits for Sockhop while it has no clients but listens, nor when it has ceased to.
    atSockhop.socket.disconnect();
    const numListeners = () => mixed().servers.node1.numListeners(namespace);
    await eventually(async () => (await atNode.ok('fetch')).length === 1, 'one has left');
    assert.equal(await numListeners(), 2, 'it still listens, should somebody return');
    await eventually(async () => await numListeners() === 1, 'Sockhop does not listen any more', 2 * PATIENCE);
    assert.deepEqual((await atNode.ok('fetch')).map(({ id }) => id), [atNode.id]);
  });

  test('what a peer left without an answer does not end a Sockhop’s question early or late', async () => {
    for (const name of ['sockhop1', 'sockhop2']) {
      const own = mixed().of(name);
      const part = await own.op('server-ask', { event: 'node-alone', args: 1, ms: 700 });
      assert.deepEqual(part.arrived, [{ node: 1 }, { node: 1 }]);
      assert.match(part.error, /1 of 3 other instances/);
      const none = await own.op('server-ask', { event: 'nobody has it', args: 1, ms: 300 });
      assert.deepEqual(none.arrived, []);
    }
  });
});

describe('beside Node’s servers that respond on channels of their own and wait for 1.5 s', () => {
  const mixed = mixedOfSuite({ publishOnSpecificResponseChannel: true, requestsTimeout: 1500 });
  afterEach(() => mixed().allHearAll());

  for (const origin of SERVERS) {
    test(`all questions of ${origin} are answered`, async () => {
      const own = mixed().of(origin);
      assert.equal((await own.ok('fetch')).length, SERVERS.length);
      assert.equal((await own.ok('rooms')).length, 2 * SERVERS.length + 4);
      const acks = await own.ok('ask', { event: 'q', args: BYTES, ms: LONG });
      assert.deepEqual(byName(acks), sorted(SERVERS).map((name) => ({ name, x: BYTES })));
      for (const { id, name } of mixed().clients) {
        assert.deepEqual(await own.ok('ask-one', { to: [id], event: 'q', args: 1, ms: LONG }), { name, x: 1 });
      }
      const replies = await own.ok('server-ask', { event: 'server-ping', args: 1, ms: LONG });
      assert.equal(replies.length, 3);
    });
  }

  for (const origin of ['node1', 'node2']) {
    test(`${origin} is told how many replied when some have no listener`, async () => {
      const own = mixed().of(origin);
      const part = await own.op('server-ask', { event: 'node-alone', args: 1 });
      assert.deepEqual(part, {
        error: 'timeout reached: only 1 responses received out of 3', arrived: [{ node: 1 }],
      });
    });
  }

  test('nobody waits for a Sockhop that has ended', async (t) => {
    const own = await Mixed.start(t, { requestsTimeout: 60_000 });
    await own.servers.sockhop2.stop();
    own.clients.pop();
    for (const client of own.clients) {
      assert.equal((await client.ok('fetch')).length, 3, client.name);
      assert.equal((await client.ok('server-ask', { event: 'server-ping', args: 1, ms: LONG })).length, 2);
      assert.equal((await client.ok('ask', { event: 'q', args: 1, ms: LONG })).length, 3);
    }
    await own.allHearAll();
  });
});

describe(`beside Node’s servers with adapter ${versionOf('redis-adapter-7')}`, () => {
  const mixed = mixedOfSuite({ adapter: createAdapter7 });
  afterEach(() => mixed().allHearAll());

  for (const origin of SERVERS) {
    test(`broadcasts, questions and orders of ${origin} go everywhere`, async () => {
      const own = mixed().of(origin);
      const event = mixed().fresh('event');
      for (const args of PAYLOADS) await own.ok('emit', { to: ['1', '2'], event, args });
      await mixed().fence(own);
      for (const client of mixed().clients) {
        assert.deepEqual(client.got(event), PAYLOADS.map((value) => [value]), client.name);
      }
      const found = await own.ok('fetch', { to: ['1'] });
      assert.deepEqual(sorted(found.map(({ data }) => data.name)), ['node1', 'sockhop1']);
      assert.equal((await own.ok('rooms')).length, 2 * SERVERS.length + 4);
      const room = mixed().fresh('room');
      await own.ok('join', { except: ['of node1'], rooms: [room] });
      await eventually(async () => (await own.ok('fetch', { to: [room] })).length === 3, 'three have joined');
      await own.ok('leave', { to: [room], rooms: [room] });
      await eventually(async () => (await own.ok('fetch', { to: [room] })).length === 0, 'all have left');
      const acks = await own.ok('ask', { event: 'q', args: BYTES, ms: LONG });
      assert.deepEqual(byName(acks), sorted(SERVERS).map((name) => ({ name, x: BYTES })));
      const replies = await own.ok('server-ask', { event: 'server-ping', args: 1, ms: LONG });
      assert.equal(replies.length, 3);
    });
  }
});
