/**
 * What a client has received, checked as it comes: of each publisher everything from the client's own CONNECT on, each once, in
 * the order of that publisher. And the publishers: a client, one of Node's servers, an emitter.
 */
import { createAdapter } from '@socket.io/redis-adapter';
import { Emitter } from '@socket.io/redis-emitter';
import { createClient } from 'redis';
import { Server } from 'socket.io';

import { PATIENCE, atEnd, client, eventually } from './support.mjs';

/** What every publisher sends, so many times a second. Every fifth has an attachment, whose frame must stay with it. */
const EVENT = 'test-event';
const BYTES = Buffer.from([0, 30, 255]);
/** How many questions a client keeps under way while it upgrades. */
const UNDER_WAY = 3;

/** Sends numbered events. */
class Publisher {
  constructor(name, send) {
    this.name = name;
    this.send = send;
    /** The number of the next. */
    this.next = 0;
  }

  publish() {
    const number = this.next;
    this.next += 1;
    this.send(EVENT, number % 5 ? { from: this.name, number } : { from: this.name, number, bytes: BYTES });
  }
}

/** One client's history. A fault is a sentence, noted once for each publisher: what follows a gap says no more. */
export class History {
  constructor(name, publishers) {
    this.name = name;
    this.faults = new Map();
    /** Per publisher: the number that must come next at the latest, and then exactly. */
    this.expected = new Map(publishers.map(({ name: from }) => [from, null]));
    this.publishers = publishers;
  }

  /** The client knows that it is connected: all that is published from now on must come. */
  begin() {
    this.floors = new Map(this.publishers.map(({ name, next }) => [name, next]));
  }

  fault(from, text) {
    if (!this.faults.has(from)) this.faults.set(from, `${this.name}: ${from}: ${text}`);
  }

  take({ from, number, bytes }) {
    const expected = this.expected.get(from);
    const floor = this.floors?.get(from);
    if (expected === undefined) this.fault(from, 'nobody publishes by this name');
    else if (floor === undefined) this.fault(from, `${number} came before the CONNECT's answer`);
    else if (expected === null && number > floor) this.fault(from, `began with ${number}, though ${floor} was published after the CONNECT`);
    else if (expected !== null && number !== expected) {
      this.fault(from, number < expected ? `${number} came again, or late, after ${expected - 1}` : `${expected} is missing: ${number} came`);
    }
    if ((number % 5 === 0) !== Boolean(bytes)) this.fault(from, `${number} came with the wrong attachments: ${bytes}`);
    this.expected.set(from, number + 1);
  }

  /** Whether the last event of every publisher is here. */
  get isComplete() {
    return this.publishers.every(({ name, next }) => (this.expected.get(name) ?? this.floors?.get(name)) === next);
  }

  /** What is wrong with it, once publishers have stopped and time has passed. */
  end() {
    for (const { name, next } of this.publishers) {
      const expected = this.expected.get(name);
      if (expected !== next) this.fault(name, `${next} were published, and ${expected} would have come next`);
    }
    return [...this.faults.values()];
  }
}

/** Starts the three publishers; they publish when told. */
export async function startPublishers(t, place, token) {
  const socket = client(t, place, { auth: { token } });
  const ends = [];
  socket.on('disconnect', (reason) => ends.push(reason));

  const connections = Array.from({ length: 3 }, () => createClient({ url: place.redis.url }));
  for (const connection of connections) connection.on('error', () => {});
  await Promise.all(connections.map((connection) => connection.connect()));
  atEnd(t, () => Promise.all(connections.map((connection) => connection.close())));
  const [publisher, subscriber, emitting] = connections;
  const server = new Server({ adapter: createAdapter(publisher, subscriber) });
  const node = server.of('/events');
  const emitter = new Emitter(emitting).of('/events');
  const publishers = [
    new Publisher('client', (...event) => socket.emit(...event)),
    new Publisher('node', (...event) => node.emit(...event)),
    new Publisher('emitter', (...event) => emitter.emit(...event)),
  ];
  return { publishers, socket, ends };
}

/** Has all of them publish `rate` events a second each, evenly spread. Returns how to stop it. */
export function publishSteadily(publishers, rate) {
  const begun = performance.now();
  let num = 0;
  const timer = setInterval(() => {
    const due = ((performance.now() - begun) / 1000) * rate * publishers.length;
    for (; num < due; num += 1) publishers[num % publishers.length].publish();
  }, 5);
  return () => clearInterval(timer);
}

/**
 * A client with default transports that keeps its history and, while it upgrades, asks questions, each of which must be answered,
 * in their order.
 */
export class Visitor {
  constructor(t, place, token, publishers, name) {
    this.history = new History(name, publishers);
    this.ends = [];
    this.errors = [];
    this.numAsked = 0;
    this.numAnswered = 0;
    /** How many it is still to ask once it has upgraded. */
    this.numLeft = 2 * UNDER_WAY;
    this.isUpgraded = false;
    this.socket = client(t, place, { auth: { token } });
    this.socket.on('connect', () => {
      this.history.begin();
      this.ask();
    });
    this.socket.on(EVENT, (event) => this.history.take(event));
    this.socket.on('disconnect', (reason, details) => this.ends.push(`${reason} (${details?.context?.reason ?? ''})`));
    this.socket.on('connect_error', (error) => this.errors.push(error.message));
    this.socket.io.on('open', () => {
      this.socket.io.engine.once('upgrade', () => { this.isUpgraded = true; });
    });
  }

  /** Keeps some questions under way, until some have been asked by WebSocket: at the moment of the move there are some, too. */
  ask() {
    while (this.numAsked - this.numAnswered < UNDER_WAY && this.numLeft > 0) {
      const number = this.numAsked;
      this.numAsked += 1;
      if (this.isUpgraded) this.numLeft -= 1;
      this.socket.emit('echo', number, (answer) => {
        if (answer !== this.numAnswered) this.history.fault('echo', `${answer} was answered, and ${this.numAnswered} was due`);
        this.numAnswered += 1;
        this.ask();
      });
    }
  }

  get isSettled() {
    return this.socket.connected && this.numLeft === 0 && this.numAsked === this.numAnswered;
  }

  /** All that is wrong with it. */
  faults() {
    const { name } = this.history;
    return [
      ...this.history.end(),
      ...this.ends.map((reason) => `${name}: was disconnected: ${reason}`),
      ...this.errors.map((error) => `${name}: could not connect: ${error}`),
      ...(this.numAsked === this.numAnswered ? [] : [`${name}: ${this.numAnswered} of ${this.numAsked} questions were answered`]),
      ...(this.isUpgraded ? [] : [`${name}: did not upgrade`]),
    ];
  }
}

/**
 * Lets `num` clients come to `place`, which has a `url`, a `redis` and tokens, `perSecond` of them, while the publishers publish,
 * and stay until the end. Returns all faults, which ought to be none, and how many events there were.
 */
export async function keepHistory(t, place, { num, perSecond, rate, staySeconds }) {
  const token = await place.token();
  const { publishers, socket, ends } = await startPublishers(t, place, token);
  await eventually(() => socket.connected, 'the publishing client');
  const stop = publishSteadily(publishers, rate);
  atEnd(t, stop);
  const visitors = [];
  const begun = performance.now();
  const since = (when) => (performance.now() - when) / 1000;
  await eventually(() => {
    const due = Math.min(num, since(begun) * perSecond);
    while (visitors.length < due) visitors.push(new Visitor(t, place, token, publishers, `client ${visitors.length}`));
    return visitors.length === num;
  }, 'all on their way', (num / perSecond) * 1000 + PATIENCE);
  // Whatever keeps one of them from settling, or its history from being whole, is told by its own faults.
  await eventually(() => visitors.every(({ isSettled }) => isSettled)).catch(() => {});
  const settled = performance.now();
  await eventually(() => since(settled) > staySeconds, 'their stay', staySeconds * 1000 + PATIENCE);
  stop();
  await eventually(() => visitors.every(({ history }) => history.isComplete)).catch(() => {});
  const faults = visitors.flatMap((visitor) => visitor.faults());
  faults.push(...ends.map((reason) => `the publishing client was disconnected: ${reason}`));
  return { faults, numEvents: publishers.reduce((sum, { next }) => sum + next, 0) };
}
