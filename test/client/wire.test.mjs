/**
 * What the hub publishes, read by the very decoder that Node's servers use.
 *
 * A Node server that cannot read one payload hears no other any more, so this must hold for whatever clients send. Random
 * arguments, a fixed number of cases; a failure prints the smallest case that fails and the seed.
 *
 * Environment: `SEED` repeats a run.
 */
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';

import fc from 'fast-check';
import notepack from 'notepack.io';
import { createClient } from 'redis';

import { ask, atEnd, connected, eventually, next, startHub, startRedis } from './support.mjs';

const CASES = 400;
/** Clients and servers refuse more in one packet. */
const MAX_ATTACHMENTS = 10;
const SEED = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));

const isContainer = (value) => typeof value === 'object' && value !== null && !Buffer.isBuffer(value);

/** Every value in `value`, itself included. */
function* all(value) {
  yield value;
  if (isContainer(value)) for (const inner of Object.values(value)) yield* all(inner);
}

/** What is left of `value` behind JSON: all that we send, but for the sign of a zero. */
function behindJson(value) {
  if (Array.isArray(value)) return value.map(behindJson);
  if (isContainer(value)) return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, behindJson(inner)]));
  return Object.is(value, -0) ? 0 : value;
}

/** notepack mangles whole numbers that JavaScript itself cannot tell apart; those we write in a better way. */
const isCanonical = (value) => [...all(value)].every(
  (inner) => !Number.isInteger(inner) || Number.isSafeInteger(inner),
);

const text = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.string({ unit: 'binary', maxLength: 300 }),
  fc.constantFrom('', '\u0000\u001e\u001f"\\', '\u2028\ufeff', 'x'.repeat(31), 'x'.repeat(32), 'é'.repeat(16)),
);
// notepack's decoder would set the prototype.
const key = text.filter((name) => name !== '__proto__');
const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));
const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 5, withCrossShrink: true },
    { arbitrary: text, weight: 3 },
    { arbitrary: fc.double({ noNaN: true, noDefaultInfinity: true }), weight: 2 },
    { arbitrary: fc.oneof(fc.integer(), fc.maxSafeInteger(), fc.integer({ min: -300, max: 300 })), weight: 3 },
    { arbitrary: fc.constantFrom(null, true, false, -0), weight: 2 },
    { arbitrary: bytes, weight: 1 },
    { arbitrary: fc.array(tie('value'), { maxLength: 20 }), weight: 2 },
    { arbitrary: fc.dictionary(key, tie('value'), { maxKeys: 20 }), weight: 2 },
  ),
}));
const args = fc.array(value, { maxLength: 8 })
  .filter((values) => [...all(values)].filter(Buffer.isBuffer).length <= MAX_ATTACHMENTS);

const numbered = (length) => Object.fromEntries(Array.from({ length }, (_, i) => [`k${i}`, i]));
/** The borders of MessagePack's formats. */
const EXAMPLES = [
  [0, 127, 128, 255, 256, 65535, 65536, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1],
  [-1, -32, -33, -128, -129, -32768, -32769, -(2 ** 31), -(2 ** 31) - 1, -(2 ** 53) + 1],
  [2 ** 53, 2 ** 63, 2 ** 64, -(2 ** 63), -(2 ** 64), 1e21, -1e300, Number.MIN_VALUE, Number.MAX_VALUE, 0.1, -0],
  [31, 32, 255, 256, 65535, 65536].map((length) => 'y'.repeat(length)),
  [0, 255, 256, 65535, 65536].map((length) => Buffer.alloc(length, 7)),
  [15, 16, 65535, 65536].map((length) => new Array(length).fill(null)),
  [15, 16, 2000].map(numbered),
  [numbered(65536)],
  [],
].map((example) => [example]);

/** Starts a hub, a client of it, and somebody who hears all that it publishes about /events. */
async function heard(t) {
  const redis = await startRedis(t);
  const published = new EventEmitter();
  const subscriber = createClient({ url: redis.url });
  subscriber.on('error', () => {});
  await subscriber.connect();
  atEnd(t, () => subscriber.close());
  await subscriber.pSubscribe('socket.io#/events#*', (payload, channel) => {
    published.emit('payload', { payload, channel: channel.toString() });
  }, true);
  const hub = await startHub(t, { REDIS_URL: redis.url });
  const client = await connected(t, hub, { transports: ['websocket'] });
  // Its own connection to Redis comes up at its own time, and what was said until then may be heard late.
  const seen = [];
  const keep = ({ payload }) => seen.push(payload);
  published.on('payload', keep);
  await eventually(() => { client.emit('test-event', 'probe'); return seen.length > 0; }, 'the first payload');
  await ask(client, 'test-event', 'last probe');
  await eventually(() => seen.at(-1).includes('last probe'), 'the last probe');
  published.off('payload', keep);
  return { client, published };
}

test('whatever clients send, Node’s decoder reads what was sent, and would have written the same', async (t) => {
  t.diagnostic(`SEED=${SEED}`);
  const { client, published } = await heard(t);
  let numSame = 0;
  await fc.assert(
    fc.asyncProperty(args, async (values) => {
      const [[{ payload, channel }]] = await Promise.all([
        next(published, 'payload'), ask(client, 'test-event', ...values),
      ]);
      assert.equal(channel, 'socket.io#/events#');
      // Throws if bytes are left over.
      const message = notepack.decode(payload);
      const [uid, packet, options] = message;
      assert.equal(message.length, 3);
      assert.match(uid, /^[\w-]{6}$/);
      assert.deepEqual(packet, { type: 2, data: ['test-event', ...behindJson(values)], nsp: '/events' });
      assert.deepEqual(options, { rooms: [], except: [], flags: {} });
      if (isCanonical(values)) {
        assert.deepEqual(notepack.encode(message), payload);
        numSame += 1;
      }
    }),
    { numRuns: CASES, seed: SEED, examples: EXAMPLES, endOnFailure: false },
  );
  assert.ok(numSame > CASES / 4, `only ${numSame} of ${CASES} cases had one canonical form`);
});

test('a text that has no UTF-8 is mended on its way, not refused', async (t) => {
  const { client, published } = await heard(t);
  const payload = next(published, 'payload');
  await ask(client, 'test-event', 'a\ud800b', { '\udc00': ['\ud83d\ude00'] });
  const [, packet] = notepack.decode((await payload)[0].payload);
  assert.deepEqual(packet.data, ['test-event', 'a\ufffdb', { '\ufffd': ['😀'] }]);
});
