/**
 * Two of Node's servers with `createShardedAdapter` and two Sockhop instances with `REDIS_ADAPTER=sharded`: the server API, from
 * each to all four, in each mode on one Redis and on a Redis Cluster.
 *
 * On a Cluster rooms are on different nodes, so there is no order between two rooms; the tests wait for what they expect, then
 * for all channels to be empty.
 *
 * Source: Socket.IO server API; wire.md 4. The classic adapter is in mixed.test.mjs.
 */
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';

import { createShardedAdapter } from '@socket.io/redis-adapter';
import { createClient, createCluster } from 'redis';

import { SERVERS, leaves, mixedOfSuite, sorted, versionOf } from './mixed.support.mjs';
import { eventually, startRedisCluster } from './support.mjs';

const BYTES = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
const PAYLOADS = [
  'grüße, 漢字, 🙂🏽', null, true, 0.1, -9007199254740991, 4294967296, [], {}, [[{ a: [null, ''] }]],
  { bytes: BYTES, more: [Buffer.from('é'), { x: Buffer.alloc(0) }], _placeholder: 'no' }, BYTES, 'x'.repeat(300),
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
/** A room that looks like a socket's id to whoever publishes. */
const LONG = 'twenty-letters-long!';

const named = (names, value) => Object.fromEntries(names.map((name) => [name, [value]]));
const byName = (list) => [...list].sort((a, b) => (a.name < b.name ? -1 : 1));

/** Node's adapter does not wait for the end of its subscriptions, nor catch that the client is closed by then. */
function forgiving(redis) {
  const unsubscribe = redis.sUnsubscribe.bind(redis);
  redis.sUnsubscribe = (...args) => unsubscribe(...args).catch(() => {});
  return redis;
}
const single = (url) => forgiving(createClient({ url }));
const cluster = (url) => forgiving(createCluster({ rootNodes: [{ url }] }));

const PLACES = [
  { place: 'one Redis', mode: 'static', connect: single },
  { place: 'one Redis', mode: 'dynamic', connect: single },
  { place: 'one Redis', mode: 'dynamic-private', connect: single },
  { place: 'a Redis Cluster', mode: 'static', start: startRedisCluster, connect: cluster },
  { place: 'a Redis Cluster', mode: 'dynamic', start: startRedisCluster, connect: cluster },
];

for (const { place, mode, ...redis } of PLACES) {
  describe(`${mode} on ${place}, beside Node’s servers (adapter ${versionOf('@socket.io/redis-adapter')})`, () => {
    const mixed = mixedOfSuite({
      ...redis,
      adapter: createShardedAdapter,
      subscriptionMode: mode,
      env: { REDIS_ADAPTER: 'sharded', REDIS_SUBSCRIPTION_MODE: mode },
    });

    /** Emits until whoever is selected hears it: a room's first member is heard by others a moment later. */
    const reaches = async (origin, select, selected) => {
      await eventually(async () => {
        const event = mixed().fresh('probe');
        await mixed().of(origin).ok('emit', { ...select, event, args: 0 });
        await mixed().fence(mixed().of(origin));
        const names = Object.keys(mixed().who(event));
        return names.length === selected.length;
      }, () => `${JSON.stringify(select)} of ${origin} reaches ${selected}`);
    };

    before(async () => {
      for (const client of mixed().clients) await client.join(LONG);
      for (const origin of SERVERS) {
        for (const { select, selected } of SELECTIONS) await reaches(origin, select, selected);
        await reaches(origin, { to: [LONG] }, SERVERS);
        for (const { id, name } of mixed().clients) await reaches(origin, { to: [id] }, [name]);
      }
    });

    for (const origin of SERVERS) {
      describe(`from ${origin}`, () => {
        const own = () => mixed().of(origin);

        test('broadcasts reach whom they select, once', async () => {
          const rooms = [
            ...SELECTIONS,
            { name: 'long', select: { to: [LONG] }, selected: SERVERS },
            ...mixed().clients.map(({ id, name }) => ({ name: `id of ${name}`, select: { to: [id] }, selected: [name] })),
          ];
          const sent = [];
          for (const { name, select, selected } of rooms) {
            const event = mixed().fresh('event');
            await own().ok('emit', { ...select, event, args: name });
            await eventually(() => Object.keys(mixed().who(event)).length === selected.length, () => `${name} of ${origin}`);
            sent.push([event, named(selected, name)]);
          }
          await mixed().fence(own());
          for (const [event, expected] of sent) assert.deepEqual(mixed().who(event), expected);
          const event = mixed().fresh('local');
          await own().ok('emit', { local: true, event, args: 1 });
          await mixed().fence(own());
          assert.deepEqual(mixed().who(event), named([origin], 1));
        });

        test('values and bytes arrive as they were sent, in order', async () => {
          for (const select of [{}, { to: [LONG] }]) {
            const event = mixed().fresh('value');
            for (const args of PAYLOADS) await own().ok('emit', { ...select, event, args });
            for (const client of mixed().clients) {
              await eventually(() => client.got(event).length >= PAYLOADS.length, () => `all at ${client.name}`);
              assert.deepEqual(client.got(event), PAYLOADS.map((value) => [value]), client.name);
            }
          }
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
              assert.deepEqual(sorted(rooms), sorted([id, LONG, `of ${who}`, who.slice(0, -1), who.slice(-1)]));
            }
          }
        });

        test('sockets everywhere join and leave rooms', async () => {
          const red = mixed().fresh('red');
          const members = async () => sorted((await own().ok('fetch', { to: [red] })).map(({ data }) => data.name));
          await own().ok('join', { to: ['1', 'of node2'], except: ['of node1'], rooms: [red] });
          await eventually(async () => (await members()).length === 2, 'the members');
          assert.deepEqual(await members(), ['node2', 'sockhop1']);
          for (const other of SERVERS) await reaches(other, { to: [red] }, ['node2', 'sockhop1']);
          await own().ok('leave', { rooms: [red] });
          await eventually(async () => (await members()).length === 0, 'all have left');
        });

        test('sockets everywhere are disconnected', async (t) => {
          const room = mixed().fresh('doomed');
          const left = [];
          for (const name of SERVERS) {
            const visitor = await mixed().visit(name, t);
            await visitor.join(room);
            left.push(leaves(visitor.socket));
          }
          await own().ok('disconnect', { to: [room], close: true });
          for (const reason of left) assert.equal(await reason, 'io server disconnect');
          await eventually(async () => (await own().ok('fetch')).length === SERVERS.length, 'they are gone');
        });

        test('clients of all servers acknowledge a broadcast', async () => {
          for (const { name, select, selected } of SELECTIONS) {
            const acks = await own().ok('ask', { ...select, event: 'q', args: name, ms: 20_000 });
            assert.deepEqual(byName(acks), sorted(selected).map((who) => ({ name: who, x: name })), name);
          }
          const x = { bytes: BYTES, list: [Buffer.from([1])] };
          const acks = await own().ok('ask', { event: 'q', args: x, ms: 20_000 });
          assert.deepEqual(byName(acks), sorted(SERVERS).map((name) => ({ name, x })));
        });

        test('one socket that was fetched can be told and asked, wherever it is', async () => {
          for (const { id, name } of mixed().clients) {
            const [to, event, x] = [[id], mixed().fresh('event'), { name, bytes: BYTES }];
            assert.deepEqual(await own().ok('ask-one', { to, event: 'q', args: x, ms: 20_000 }), { name, x });
            await own().ok('emit-one', { to, event, args: x });
            await eventually(() => mixed().of(name).got(event).length, 'it is told');
            assert.deepEqual(mixed().who(event), { [name]: [x] });
          }
        });

        test('events for servers reach all others, who reply, and not itself', async () => {
          for (const client of mixed().clients) client.heard.length = 0;
          const x = { from: origin, n: [1, null, 'é'] };
          await own().ok('server-emit', { event: 'server-tell', args: x });
          const others = SERVERS.filter((name) => name !== origin);
          await eventually(() => Object.keys(mixed().who('told')).length >= 3, 'three are told');
          await mixed().fence(own());
          assert.deepEqual(mixed().who('told'), named(others, x));
          const replies = await own().ok('server-ask', { event: 'server-ping', args: 'é', ms: 20_000 });
          assert.deepEqual(replies, [{ pong: 'é' }, { pong: 'é' }, { pong: 'é' }]);
        });
      });
    }

    test('a Sockhop tells the ids and rooms of all sockets', async () => {
      for (const name of ['sockhop1', 'sockhop2']) {
        const own = mixed().of(name);
        const ids = await own.ok('ids', { to: ['1'] });
        assert.deepEqual(sorted(ids), sorted([mixed().of('node1').id, mixed().of('sockhop1').id]));
        const expected = mixed().clients.flatMap((client) => [client.id, `of ${client.name}`]);
        assert.deepEqual(sorted(await own.ok('rooms')), sorted([...expected, LONG, 'node', 'sockhop', '1', '2']));
      }
    });

    test('every server still hears every other', () => mixed().allHearAll());
  });
}
