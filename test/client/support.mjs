/** The official client as the tests use it: connected sockets that end with the test, and what they have received. */
import { once } from 'node:events';
import http from 'node:http';

import { createAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';
import { io } from 'socket.io-client';

import { Cluster } from '../support/cluster.mjs';
import { PATIENCE, atEnd, eventually, startHub } from '../support/hub.mjs';

export * from '../support/hub.mjs';

/** The three ways in which clients come. The last is the client's own default. */
export const MODES = [
  { name: 'polling only', options: { transports: ['polling'] } },
  { name: 'websocket only', options: { transports: ['websocket'] } },
  { name: 'polling, then upgrade', options: {} },
];

/** Where clients come to: one instance, or three behind a balancer that is against sticky sessions. `start` is as `startHub`. */
export const PLACES = [
  { name: 'at one instance', start: startHub },
  { name: 'never twice at the same instance', start: (t, env, bin) => Cluster.start(t, env, { bin }) },
];

/** Makes a client that is not yet connected to anything but may be on its way; it ends with the test. */
export function client(t, hub, options = {}, namespace = '/events') {
  const socket = io(hub.url + namespace, {
    forceNew: true,
    reconnectionDelay: 50,
    reconnectionDelayMax: 200,
    ...options,
  });
  atEnd(t, () => socket.disconnect());
  return socket;
}

/** Waits for one event and returns its arguments. */
export function next(emitter, event) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      emitter.off(event, done);
      reject(new Error(`no ${event} within ${PATIENCE} ms`));
    }, PATIENCE);
    // Who lost a race must not keep the test run from ending.
    timer.unref();
    function done(...args) {
      clearTimeout(timer);
      resolve(args);
    }
    emitter.once(event, done);
  });
}

/** Makes a client of /events and waits until it is connected. With an upgrade in view, until that is done, too. */
export async function connected(t, hub, options, token) {
  const socket = client(t, hub, { auth: { token: token ?? await hub.token() }, ...options });
  socket.received = [];
  socket.on('test-event', (payload) => socket.received.push(payload));
  await admitted(socket);
  if (!options?.transports) {
    await eventually(() => socket.io.engine.transport.name === 'websocket', 'the upgrade');
  }
  return socket;
}

/** Waits until the socket is connected, or says why it was refused. */
export async function admitted(socket) {
  if (socket.connected) return;
  await Promise.race([
    next(socket, 'connect'),
    next(socket, 'connect_error').then(([error]) => {
      if (!socket.active) throw new Error(`refused: ${error.message} ${JSON.stringify(error.data)}`);
      return next(socket, 'connect');
    }),
  ]);
}

/** Waits until this client has received these payloads, or as many, and returns all that it has. */
export async function receives(socket, count) {
  await eventually(() => socket.received.length >= count, () => `${count} events (${socket.received.length} are there)`);
  return socket.received;
}

/** Emits and returns the ack's arguments. */
export function ask(socket, event, ...args) {
  return new Promise((resolve, reject) => {
    socket.timeout(PATIENCE).emit(event, ...args, (error, ...reply) => (error ? reject(error) : resolve(reply)));
  });
}

/**
 * Waits until the server answers this client, whose connection may end meanwhile, or have ended without its knowing. If it is to be
 * `isSettled`, as well.
 */
export async function isServed(socket, ms = PATIENCE, isSettled = () => true) {
  await eventually(
    async () => {
      if (!socket.connected || !isSettled(socket)) return false;
      // An event that is lost with its connection is answered by nobody: ask again soon.
      const answer = await socket.timeout(PATIENCE / 10).emitWithAck('echo', 'served?');
      return answer === 'served?' && isSettled(socket);
    },
    () => `a client that is served (connected: ${socket.connected}, by ${socket.io.engine?.transport?.name}, which is ${socket.io.engine?.transport?.readyState})`,
    ms,
  );
}

let probes = 0;

/**
 * Waits until events cross from one client to another, then forgets the probes that were sent for it.
 *
 * A bridge that comes up (or back) does so at its own time; this is how a client can know.
 */
export async function crosses(from, to) {
  const probe = `probe ${process.pid} ${probes += 1}`;
  await eventually(() => {
    from.emit('test-event', { probe });
    return new Promise((resolve) => {
      const timer = setTimeout(() => { to.off('test-event', look); resolve(false); }, 100);
      function look(payload) {
        if (payload?.probe !== probe) return;
        clearTimeout(timer);
        to.off('test-event', look);
        resolve(true);
      }
      to.on('test-event', look);
    });
  }, 'an event that crosses');
  return probe;
}

/** What a client has received, without the probes of `crosses`. */
export const proper = (socket) => socket.received.filter((payload) => !payload?.probe);

/** Waits for so many events that are no probes. */
export async function receivesProper(socket, count) {
  await eventually(() => proper(socket).length >= count, () => `${count} events (${proper(socket).length} are there)`);
  return proper(socket);
}

/** Starts Node's own Socket.IO server on the same Redis, as a peer of the hub's instances. Admits everyone. */
export async function startNodePeer(t, redis) {
  const publisher = createClient({ url: redis.url });
  const subscriber = publisher.duplicate();
  // Without a listener an outage would end this process.
  for (const connection of [publisher, subscriber]) connection.on('error', () => {});
  await Promise.all([publisher.connect(), subscriber.connect()]);
  const server = http.createServer();
  const peer = new Server(server, { adapter: createAdapter(publisher, subscriber) });
  const events = peer.of('/events');
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  atEnd(t, async () => {
    await peer.close();
    await Promise.all([publisher.close(), subscriber.close()]);
  });
  return { url: `http://127.0.0.1:${server.address().port}`, events };
}
