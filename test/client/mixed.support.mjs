/**
 * A cluster of two Node servers and two Sockhop instances on one Redis, with a client of each, and one language in which each of
 * them can be told to call its own server API: the event `op` of `/ops`. test/support/ops_gateway.rs has the same in Rust.
 */
import { once } from 'node:events';
import http from 'node:http';
import { createRequire } from 'node:module';
import { after, before } from 'node:test';

import { createAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';
import { io } from 'socket.io-client';

import { ask, atEnd, eventually, exampleBin, next, startHub, startRedis } from './support.mjs';

export const versionOf = (name) => createRequire(import.meta.url)(`${name}/package.json`).version;

/** All four, in the order in which they start. */
export const SERVERS = ['node1', 'node2', 'sockhop1', 'sockhop2'];
/** A namespace that only Node has. */
export const NODE_ONLY = '/node-only';
/** Namespaces that are like `/ops`, and come and go with their clients. */
const PATTERN = /^\/ops-[0-9]+$/;
/** How long an answer may take that needs no time-out to come: well below Node's own, which is 5 s. */
export const AT_ONCE = 4_000;

/** Calls an operation of Node's server API, as test/support/ops_gateway.rs does of ours. */
async function obey(ops, order) {
  let selection = ops;
  for (const room of order.to ?? []) selection = selection.to(room);
  for (const room of order.except ?? []) selection = selection.except(room);
  if (order.local) selection = selection.local;
  if (order.volatile) selection = selection.volatile;
  const one = async () => {
    const found = await selection.fetchSockets();
    if (found.length !== 1) throw new Error(`not exactly one socket: ${found.length}`);
    return found[0];
  };
  const many = (timed, call) => new Promise((resolve) => {
    timed[call](order.event, order.args, (error, arrived) => {
      resolve(error ? { error: error.message, arrived } : { ok: arrived });
    });
  });
  const { event, args, rooms, ms } = order;
  switch (order.op) {
    case 'emit': selection.emit(event, args); return { ok: null };
    case 'ask': return many(selection.timeout(ms), 'emit');
    case 'ask-one': return { ok: await (await one()).timeout(ms).emitWithAck(event, args) };
    case 'emit-one': (await one()).emit(event, args); return { ok: null };
    case 'join-one': (await one()).join(rooms); return { ok: null };
    // Takes one room at a time.
    case 'leave-one': { const socket = await one(); rooms.forEach((room) => socket.leave(room)); return { ok: null }; }
    case 'disconnect-one': (await one()).disconnect(order.close); return { ok: null };
    case 'fetch': return { ok: (await selection.fetchSockets()).map(described) };
    case 'rooms': return { ok: [...await ops.adapter.allRooms()] };
    case 'join': selection.socketsJoin(rooms); return { ok: null };
    case 'leave': selection.socketsLeave(rooms); return { ok: null };
    case 'disconnect': selection.disconnectSockets(order.close); return { ok: null };
    case 'server-emit': ops.serverSideEmit(event, args); return { ok: null };
    case 'server-ask': return new Promise((resolve) => {
      ops.serverSideEmit(event, args, (error, arrived) => {
        resolve(error ? { error: error.message, arrived } : { ok: arrived });
      });
    });
    default: throw new Error(`no such operation: ${order.op}`);
  }
}

const described = ({ id, rooms, data, handshake }) => ({
  id, rooms: [...rooms], data, query: handshake.query.transport,
});

/** Adds what `/ops` can do to a namespace. */
function listen(ops) {
  ops.on('connection', (socket) => {
    socket.on('join', async (room, reply) => { await socket.join(room); reply(); });
    socket.on('data', (value, reply) => { socket.data = value; reply(); });
    socket.on('op', (order, reply) => obey(ops, order).then(reply, (error) => reply({ error: error.message })));
  });
  ops.on('server-ping', (x, reply) => reply({ pong: x }));
  ops.on('server-tell', (x) => ops.local.emit('told', x));
  ops.on('node-alone', (x, reply) => reply({ node: x }));
}

/** Starts one of Node's servers with `/`, `/ops`, `/ops-{number}` and `/node-only`. It ends with the test. */
async function startNode(t, redis, { adapter = createAdapter, connect = (url) => createClient({ url }), ...options }) {
  const [publisher, subscriber] = [connect(redis.url), connect(redis.url)];
  for (const connection of [publisher, subscriber]) connection.on('error', () => {});
  await Promise.all([publisher.connect(), subscriber.connect()]);
  const server = http.createServer();
  const peer = new Server(server, { adapter: adapter(publisher, subscriber, options) });
  peer.of(NODE_ONLY);
  const ops = peer.of('/ops');
  listen(ops);
  peer.of(PATTERN);
  peer.on('new_namespace', (namespace) => listen(namespace));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  atEnd(t, async () => {
    await peer.close();
    await Promise.all([publisher.close(), subscriber.close()]);
  });
  const numListeners = async (namespace) => {
    const channel = `socket.io-request#${namespace}#`;
    return (await publisher.pubSubNumSub([channel]))[channel];
  };
  return { url: `http://127.0.0.1:${server.address().port}`, peer, ops, numListeners };
}

/** A client of one server, and all that it hears: `heard` is a list of `[event, argument, …]`. */
export class Client {
  constructor(t, server, name, namespace) {
    this.name = name;
    this.heard = [];
    this.socket = io(`${server.url}${namespace}`, { forceNew: true, transports: ['websocket'], reconnection: false });
    this.socket.onAny((...event) => this.heard.push(event.filter((x) => typeof x !== 'function')));
    // What it acknowledges to `q`: its name and what it was asked.
    this.socket.on('q', (x, reply) => reply({ name, x }));
    atEnd(t, () => this.socket.disconnect());
  }

  get id() {
    return this.socket.id;
  }

  async connected() {
    await eventually(() => this.socket.connected, () => `${this.name} connected`);
    return this;
  }

  /** Lets its server do something, and returns what the operation returned. */
  async op(op, order = {}) {
    const [answer] = await ask(this.socket, 'op', { op, ...order });
    return answer;
  }

  /** The same, and it must have succeeded, at once: returns the result alone. */
  async ok(op, order) {
    const began = performance.now();
    const answer = await this.op(op, order);
    const took = performance.now() - began;
    if (!answer || !('ok' in answer)) throw new Error(`${this.name}: ${op}: ${JSON.stringify(answer)}`);
    if (took > AT_ONCE) throw new Error(`${this.name}: ${op} took ${took} ms: who did not answer?`);
    return answer.ok;
  }

  join(room) {
    return ask(this.socket, 'join', room);
  }

  /** What it has heard of one event. */
  got(event) {
    return this.heard.filter(([name]) => name === event).map(([, ...args]) => args);
  }
}

/** The running cluster. */
export class Mixed {
  /**
   * Starts it; `options` are those of Node's adapters, and: `adapter` and `connect`, which make Node's adapter and its clients of
   * Redis; `start`, which starts a Redis; `env`, what a Sockhop's environment has besides.
   */
  static async start(t, { start = startRedis, env = {}, ...options } = {}) {
    const mixed = new Mixed();
    mixed.t = t;
    mixed.num = 0;
    mixed.redis = await start(t);
    mixed.servers = {};
    for (const name of SERVERS) {
      mixed.servers[name] = name.startsWith('node')
        ? await startNode(t, mixed.redis, options)
        : await startHub(t, { REDIS_URL: mixed.redis.url, ...env }, exampleBin('ops'));
    }
    mixed.clients = [];
    for (const name of SERVERS) {
      const client = await mixed.visit(name);
      client.data = { name, n: 5, nested: { list: [null, true, 'é"'] } };
      await ask(client.socket, 'data', client.data);
      // Alone in one room, by kind in another, by number in a third.
      for (const room of [`of ${name}`, name.slice(0, -1), name.slice(-1)]) await client.join(room);
      mixed.clients.push(client);
    }
    await mixed.settle();
    return mixed;
  }

  /** One more client of a server, in no room. It ends with the test `t`, or with the cluster. */
  visit(name, t = this.t, namespace = '/ops') {
    return new Client(t, this.servers[name], name, namespace).connected();
  }

  of(name) {
    return this.clients.find((client) => client.name === name);
  }

  /** A name that nothing had before. */
  fresh(what) {
    this.num += 1;
    return `${what} ${this.num}`;
  }

  /** Waits until each server knows of all others. */
  async settle() {
    for (const client of this.clients) {
      await eventually(async () => {
        const { ok } = await client.op('fetch');
        return ok?.length === SERVERS.length;
      }, () => `${client.name} sees all`);
    }
  }

  /** Sends a mark from `from` to all and waits for it: what `from` sent before has arrived then, or never will. */
  async fence(from, clients = this.clients) {
    const mark = this.fresh('mark');
    await from.ok('emit', { event: mark, args: 0 });
    for (const client of clients) {
      await eventually(() => client.got(mark).length, () => `${client.name} hears ${mark} of ${from.name}`);
    }
  }

  /** Every server hears every other, and no server is deaf: what must be so after whatever else happened. */
  async allHearAll() {
    for (const from of this.clients) await this.fence(from);
    for (const client of this.clients) client.heard.length = 0;
  }

  /** Who of the four has heard an event, and what: `{name: [argument, …]}`. */
  who(event) {
    const heard = this.clients.map((client) => [client.name, client.got(event).map(([arg]) => arg)]);
    return Object.fromEntries(heard.filter(([, args]) => args.length));
  }
}

/** Has one cluster for all tests of this suite. Returns how to get it once they run. */
export function mixedOfSuite(options) {
  let mixed;
  let end;
  before(async () => {
    mixed = await Mixed.start({ after: (cleanUp) => { end = cleanUp; } }, options);
  });
  after(() => end?.());
  return () => mixed;
}

/** Waits until a socket has left, and returns why. */
export async function leaves(socket) {
  if (!socket.connected) return 'was gone already';
  const [reason] = await next(socket, 'disconnect');
  return reason;
}

export const sorted = (list) => [...list].sort();
