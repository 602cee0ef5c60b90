/**
 * Emitters, which are no servers: Node's, `sockhop emit` and its like, and one in Python. Each tells two of Node's servers and two
 * Sockhop instances the same, and clients of all four see it alike.
 *
 * Source: @socket.io/redis-emitter 5.1; wire.md 5.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { promisify } from 'node:util';

import { Emitter } from '@socket.io/redis-emitter';
import { createClient } from 'redis';

import { SERVERS, leaves, mixedOfSuite, sorted, versionOf } from './mixed.support.mjs';
import { HUB_BIN, PATIENCE, ROOT, eventually } from './support.mjs';

const PYTHON = path.join(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target'), 'tools/bin/python');
const EMITTER_PY = path.join(ROOT, 'test/client/emitter.py');
const BYTES = Buffer.from([0, 1, 2, 253, 254, 255]);
const WHEN = new Date(1_700_000_000_500);

/** The cluster of the suite, and a connection to its Redis. */
let mixed;
let redis;

/** Runs a program to its end. Returns `{code, stderr}`. */
async function run(file, args, env = {}) {
  try {
    // A directory without `.env`.
    const options = { cwd: path.join(ROOT, 'test'), env: { PATH: process.env.PATH, ...env }, timeout: PATIENCE };
    return { code: 0, ...await promisify(execFile)(file, args, options) };
  } catch (error) {
    return error;
  }
}

const sockhop = (...args) => run(HUB_BIN, args, { REDIS_URL: mixed().redis.url });

/** Has published what the order says, by Node's emitter. */
function byNode(order) {
  let emitter = new Emitter(redis).of(order.namespace ?? '/ops');
  if (order.kind === 'server') return emitter.serverSideEmit(...order.args);
  for (const room of order.rooms ?? []) emitter = emitter.to(room);
  for (const room of order.except ?? []) emitter = emitter.except(room);
  if (order.flags?.volatile) emitter = emitter.volatile;
  if (order.flags?.compress === false) emitter = emitter.compress(false);
  switch (order.kind) {
    case 'emit': return emitter.emit(...order.args);
    case 'join': return emitter.socketsJoin(order.join);
    case 'leave': return emitter.socketsLeave(order.join);
    default: return emitter.disconnectSockets(order.close);
  }
}

/** The words of the command line for an order. */
function words(order) {
  const selection = [
    '--namespace', order.namespace ?? '/ops',
    ...(order.rooms ?? []).flatMap((room) => ['--to', room]),
    ...(order.except ?? []).flatMap((room) => ['--except', room]),
  ];
  const [event, ...args] = order.args ?? [];
  const said = [event, ...args.map((arg) => JSON.stringify(arg))];
  switch (order.kind) {
    case 'emit': return ['emit', ...selection,
      ...(order.flags?.volatile ? ['--volatile'] : []),
      ...(order.flags?.compress === false ? ['--no-compress'] : []), ...said];
    case 'join': return ['sockets-join', ...selection, ...order.join];
    case 'leave': return ['sockets-leave', ...selection, ...order.join];
    case 'disconnect': return ['disconnect-sockets', ...selection, ...(order.close ? ['--close'] : [])];
    default: return ['server-side-emit', ...selection, ...said];
  }
}

async function byShell(order) {
  const { code, stderr } = await sockhop(...words(order));
  assert.equal(code, 0, stderr);
  assert.equal(stderr, '');
}

async function byPython(order) {
  // As it stands in emitter.py.
  const value = (x) => {
    if (Buffer.isBuffer(x)) return { $bytes: x.toString('hex') };
    if (x instanceof Date) return { $date: x.getTime() / 1000 };
    if (Array.isArray(x)) return x.map(value);
    if (x && typeof x === 'object') return Object.fromEntries(Object.entries(x).map(([key, y]) => [key, value(y)]));
    return x;
  };
  const orders = [value({ namespace: '/ops', ...order })];
  const { code, stderr } = await run(PYTHON, [EMITTER_PY, mixed().redis.url, JSON.stringify(orders)]);
  assert.equal(code, 0, `${stderr}\n(is ${PYTHON} there? \`make tools\` installs it)`);
}

const EMITTERS = [
  { name: `@socket.io/redis-emitter ${versionOf('@socket.io/redis-emitter')}`, publish: byNode, hasBytes: true },
  { name: 'sockhop emit', publish: byShell, hasBytes: false },
  { name: 'an emitter in Python', publish: byPython, hasBytes: true },
];

describe('beside servers of both kinds', () => {
  // Hooks run in the order in which they stand here: the connection ends before its Redis does.
  after(() => redis?.close());
  mixed = mixedOfSuite();
  before(async () => {
    redis = createClient({ url: mixed().redis.url });
    await redis.connect();
  });
  afterEach(() => mixed().allHearAll());

  for (const { name, publish, hasBytes } of EMITTERS) {
    describe(name, () => {
      const args = [{ text: 'é 🙂', list: [1, null, -2.5, true] }, 'two', 3, ...(hasBytes ? [BYTES, { when: WHEN, deep: [BYTES] }] : [])];
      const expected = JSON.parse(JSON.stringify(args.slice(0, 3)));
      if (hasBytes) expected.push(BYTES, { when: WHEN.toISOString(), deep: [BYTES] });

      test('events reach whom they select, values and bytes unchanged', async () => {
        for (const [selection, selected] of [
          [{}, SERVERS],
          [{ rooms: ['of sockhop1'] }, ['sockhop1']],
          [{ rooms: ['1'] }, ['node1', 'sockhop1']],
          [{ rooms: ['1', 'sockhop'] }, ['node1', 'sockhop1', 'sockhop2']],
          [{ except: ['of node1', 'of sockhop1'] }, ['node2', 'sockhop2']],
          [{ rooms: ['2'], except: ['node'], flags: { compress: false } }, ['sockhop2']],
        ]) {
          const event = mixed().fresh('event');
          await publish({ kind: 'emit', ...selection, args: [event, ...args] });
          await eventually(
            () => selected.every((who) => mixed().of(who).got(event).length),
            () => `${selected} hear it (${JSON.stringify(mixed().clients.map((client) => client.got(event)))})`,
          );
          // Published behind it, so that who should not hear it would have.
          await mixed().fence(mixed().of('node1'));
          await mixed().fence(mixed().of('sockhop1'));
          for (const client of mixed().clients) {
            assert.deepEqual(client.got(event), selected.includes(client.name) ? [expected] : [], client.name);
          }
        }
      });

      test('a volatile event is one', async () => {
        const event = mixed().fresh('volatile');
        await eventually(async () => {
          await publish({ kind: 'emit', rooms: ['2'], flags: { volatile: true }, args: [event, 1] });
          await mixed().fence(mixed().of('node1'));
          return Object.keys(mixed().who(event)).length >= 2;
        });
        assert.deepEqual(sorted(Object.keys(mixed().who(event))), ['node2', 'sockhop2']);
      });

      test('sockets join, leave and are disconnected', async (t) => {
        const [red, blue] = [mixed().fresh('red'), mixed().fresh('blue')];
        const own = mixed().of('sockhop1');
        const members = async (room) => sorted((await own.ok('fetch', { to: [room] })).map(({ data }) => data.name));
        await publish({ kind: 'join', rooms: ['1', 'of node2'], except: ['of node1'], join: [red, blue] });
        await eventually(async () => (await members(blue)).length === 2, 'they have joined');
        assert.deepEqual(await members(red), ['node2', 'sockhop1']);
        await publish({ kind: 'leave', rooms: [red], join: [red, blue] });
        await eventually(async () => (await members(blue)).length === 0, 'they have left');
        assert.deepEqual(await members(red), []);
        for (const close of [false, true]) {
          const doomed = [];
          for (const server of SERVERS) {
            const visitor = await mixed().visit(server, t);
            await visitor.join(red);
            visitor.main = visitor.socket.io.socket('/');
            await eventually(() => visitor.main.connected, '/');
            visitor.left = leaves(visitor.socket);
            doomed.push(visitor);
          }
          await publish({ kind: 'disconnect', rooms: [red], close });
          for (const visitor of doomed) {
            assert.equal(await visitor.left, 'io server disconnect', visitor.name);
            if (close) await eventually(() => !visitor.main.connected, () => `${visitor.name} has left / too`);
          }
          await mixed().fence(own);
          for (const visitor of doomed) assert.equal(visitor.main.connected, !close, visitor.name);
        }
      });

      test('events for servers reach all of them', async () => {
        await publish({ kind: 'server', args: ['server-tell', { x: [1, 'é'] }] });
        await eventually(() => Object.keys(mixed().who('told')).length === SERVERS.length, 'all are told');
        for (const who of SERVERS) assert.deepEqual(mixed().who('told')[who], [{ x: [1, 'é'] }]);
        await publish({ kind: 'server', args: ['nobody has it', 1] });
      });
    });
  }

  test('from a shell the bytes are those of Node’s emitter', async (t) => {
    const heard = [];
    const listener = redis.duplicate();
    await listener.connect();
    t.after(() => listener.close());
    await listener.pSubscribe('socket.io*#/nobody*', (payload, channel) => heard.push([String(channel), payload]), true);
    const args = ['event', { text: 'é 🙂', n: [1, -5, 300, 70000, 1e10, 2.5, null] }, 'x'.repeat(300), []];
    for (const order of [
      { kind: 'emit', args },
      { kind: 'emit', args: ['event'], rooms: ['a'] },
      { kind: 'emit', args, rooms: ['a', 'b', 'a'], except: ['x', 'y'], flags: { volatile: true } },
      { kind: 'emit', args, flags: { compress: false } },
      { kind: 'emit', args, namespace: 'nobody' },
      { kind: 'join', join: ['a', 'é'], rooms: ['b'] },
      { kind: 'leave', join: ['a'], rooms: ['b'], except: ['c'] },
      { kind: 'disconnect', close: true },
      { kind: 'disconnect', close: false, rooms: ['a'] },
      { kind: 'server', args },
    ]) {
      heard.length = 0;
      byNode({ namespace: '/nobody', ...order });
      await byShell({ namespace: '/nobody', ...order });
      await eventually(() => heard.length === 2, 'both are heard');
      assert.deepEqual(heard[1], heard[0], JSON.stringify(order));
    }
  });

  test('a shell is told what is wrong, and whether anything was published', async () => {
    const nobody = await sockhop('emit', '--namespace', '/nobody at all', 'event');
    assert.equal(nobody.code, 0);
    assert.match(nobody.stderr, /no server listens on .*nobody at all.*REDIS_PREFIX/);
    const { url } = mixed().redis;
    for (const [line, env, code, said] of [
      [['emit', 'event', 'no quotes'], { REDIS_URL: url }, 1, /argument 1 .* is not JSON.*quotes/],
      [['emit', 'connect'], { REDIS_URL: url }, 1, /reserved/],
      [['server-side-emit', 'error'], { REDIS_URL: url }, 1, /reserved/],
      [['emit', 'event'], {}, 1, /REDIS_URL is not set/],
      [['emit', 'event'], { REDIS_URL: 'redis://:hunter2@127.0.0.1:1' }, 1, /REDIS_URL.*cannot connect/],
      [['emit', 'event'], { REDIS_URL: 'redis://:hunter2@' }, 1, /REDIS_URL/],
      [['emit'], { REDIS_URL: url }, 2, /Usage: sockhop emit/],
      [['sockets-join', '--to', 'a'], { REDIS_URL: url }, 2, /<ROOM>/],
    ]) {
      const ended = await run(HUB_BIN, line, env);
      assert.equal(ended.code, code, `${line}: ${ended.stderr}`);
      assert.match(ended.stderr, said);
      assert.doesNotMatch(ended.stderr, /hunter2|panicked/);
    }
  });
});
