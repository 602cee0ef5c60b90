/**
 * What stands between an instance and its Redis when a test is to slow it down, stop it, or cut it off: a TCP proxy that keeps
 * the order of each direction of each connection. Node built-ins only.
 *
 * Every chunk asks `proxy.gate` as it comes, and waits for the answer before it goes on, and those behind it wait, too. So a gate that
 * takes its time delays, one that never answers freezes, and one that looks at the bytes stops whatever it wants at whichever step.
 */
import { once } from 'node:events';
import net from 'node:net';

import { atEnd } from './hub.mjs';

/** One of these: from the instance to Redis, and back. */
export const UP = 'up';
export const DOWN = 'down';

/** Bytes that may wait in one direction of a connection. */
const MAX_WAITING = 16 * 1024 * 1024;

/** A generator of numbers from 0 to below 1, the same for the same seed, so that a failure can be had again. */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    // Mulberry32.
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A gate that keeps each chunk for 0 to `max` milliseconds, mostly few of them. */
export const slow = (max, chance) => () => new Promise((resolve) => { setTimeout(resolve, max * chance() ** 3); });

/**
 * Passes on what one side sends to the other, in its order, each chunk when the gate lets it through. A chunk that waits delays those
 * behind it, but does not add to their own delays.
 */
function pump(proxy, direction, from, to) {
  let previous = Promise.resolve();
  let numWaiting = 0;
  const then = (pass) => {
    previous = previous.then(pass).catch(() => to.destroy());
  };
  from.on('data', (chunk) => {
    const passing = proxy.gate?.(chunk, direction);
    numWaiting += chunk.length;
    if (numWaiting > MAX_WAITING) from.pause();
    then(async () => {
      await passing;
      numWaiting -= chunk.length;
      if (to.destroyed) return;
      if (!to.write(chunk)) await Promise.race([once(to, 'drain'), once(to, 'close')]);
      from.resume();
    });
  });
  from.on('end', () => then(() => to.end()));
}

/**
 * Starts one in front of this Redis, which need not be up. Returns `{url, gate, cut}`: what to give the instance as `REDIS_URL`;
 * the gate, `(chunk, UP or DOWN) => promise or nothing`, which may be set at any time; and how to end all connections now.
 */
export async function startProxy(t, redis) {
  const connections = new Set();
  const server = net.createServer({ noDelay: true }, (near) => {
    const far = net.connect({ port: redis.port, host: '127.0.0.1', noDelay: true });
    const pair = [near, far];
    connections.add(pair);
    for (const [one, other] of [[near, far], [far, near]]) {
      one.on('error', () => other.destroy());
      one.on('close', () => {
        other.destroy();
        connections.delete(pair);
      });
    }
    pump(proxy, UP, near, far);
    pump(proxy, DOWN, far, near);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const proxy = {
    url: `redis://127.0.0.1:${server.address().port}`,
    gate: null,
    cut: () => { for (const [near, far] of connections) { near.destroy(); far.destroy(); } },
  };
  atEnd(t, () => {
    server.close();
    proxy.cut();
  });
  return proxy;
}
