/** What the matrix of real clients is made of: the clients, the ways in which they come, and the server that they come to. */
import { createRequire } from 'node:module';
import { after, before } from 'node:test';

import { io as io4 } from 'socket.io-client';
import { io as io3 } from 'socket.io-client-3';
import io2 from 'socket.io-client-2';

import { PATIENCE, atEnd, eventually, exampleBin, next } from './support.mjs';

const versionOf = (name) => createRequire(import.meta.url)(`${name}/package.json`).version;

/** Speaks Socket.IO 5: brings `auth`, and is refused by `connect_error` with an error. */
const current = {
  env: {},
  toBeRefused: { auth: { refuse: true } },
  refusedBy: 'connect_error',
  refusal: (error) => ({ message: error.message, data: error.data }),
  bringsAuth: true,
};
/** Speaks Socket.IO 4: has no `auth`, and is refused by `error` with the error's data, without its text. */
const former = {
  env: { ALLOW_EIO3: 'true' },
  toBeRefused: { query: { refuse: 'true' } },
  refusedBy: 'error',
  refusal: (data) => ({ message: 'No entry', data }),
  bringsAuth: false,
};

/** Every client of the matrix: a row in this list is all that one more takes. `env` is what the server must be told for it. */
export const CLIENTS = [
  { name: `socket.io-client ${versionOf('socket.io-client')}`, io: io4, ...current },
  { name: `socket.io-client ${versionOf('socket.io-client-3')}`, io: io3, ...current },
  { name: `socket.io-client ${versionOf('socket.io-client-2')}`, io: io2, ...former },
];

export const TRANSPORTS = [
  { name: 'polling', options: { transports: ['polling'] }, endsWith: 'polling' },
  { name: 'websocket', options: { transports: ['websocket'] }, endsWith: 'websocket' },
  { name: 'upgrade', options: {}, endsWith: 'websocket' },
];

/** A short heartbeat, so that it takes part in every case, and much time to answer, for a busy machine. */
const SERVER_ENV = { PING_INTERVAL: '500', PING_TIMEOUT: '20000' };

/** Starts a server of the matrix in one of the places, which ends with the test. */
export const startServer = (t, place, env) => place.start(t, { ...SERVER_ENV, ...env }, exampleBin('matrix'));

/** Has a server for all tests of this suite. Returns how to get it once they run. */
export function serverOfSuite(place, env) {
  let hub;
  let end;
  before(async () => {
    hub = await startServer({ after: (cleanUp) => { end = cleanUp; } }, place, env);
  });
  after(() => end?.());
  return () => hub;
}

/** One client of the matrix in one test: makes sockets, whatever its version, which end with the test. */
export class Visitor {
  constructor(t, hub, client, transport) {
    Object.assign(this, { t, hub, client, transport });
  }

  /** Makes a socket that is on its way. */
  open(namespace = '/matrix', options = {}) {
    const socket = this.client.io(this.hub.url + namespace, {
      forceNew: true,
      reconnectionDelay: 50,
      reconnectionDelayMax: 200,
      ...this.transport.options,
      ...options,
    });
    atEnd(this.t, () => socket.disconnect());
    return socket;
  }

  /** Makes a socket and waits until it is connected by the transport that it is to end with. */
  async connect(namespace, options) {
    const socket = this.open(namespace, options);
    await this.settled(socket);
    return socket;
  }

  /** Joins another namespace by the connection of this socket. (Not `/`: clients 2.x can join that only when they open one.) */
  async share(socket, namespace) {
    const other = socket.io.socket(namespace);
    atEnd(this.t, () => other.disconnect());
    await this.settled(other);
    return other;
  }

  /** Waits until the socket is connected, for the first time or again, by the transport that it is to end with. */
  async settled(socket) {
    await eventually(
      () => socket.connected && socket.io.engine.transport.name === this.transport.endsWith,
      () => `a connection by ${this.transport.endsWith} (connected: ${socket.connected}, `
        + `by ${socket.io.engine?.transport?.name})`,
    );
  }
}

/** Emits and returns the ack's arguments. Clients before 4.4 have no `timeout` of their own. */
export function ask(socket, event, ...args) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ack of ${event} within ${PATIENCE} ms`)), PATIENCE);
    socket.emit(event, ...args, (...answer) => {
      clearTimeout(timer);
      resolve(answer);
    });
  });
}

/** Returns whether the client means to connect (again), by itself. Version 2 has no word for it. */
export const isActive = (socket) => socket.active ?? Boolean(socket.subs);

/** Returns what ends the connection as the transport sees it: the code of the close frame, or the status of the answer. */
export function endOfTransport(socket) {
  const { engine } = socket.io;
  if (engine.transport.name === 'polling') return next(engine, 'error').then(([error]) => error.description);
  const { ws } = engine.transport;
  return new Promise((resolve) => { ws.addEventListener('close', ({ code }) => resolve(code)); });
}
