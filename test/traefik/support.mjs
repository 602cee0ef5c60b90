/**
 * A cluster as it is deployed: two hubs on one Redis behind the real Traefik, with the repository's own traefik/ directory.
 *
 * Only the ports differ. The packages are those of test/client and test/browser, so nothing is installed here.
 * Environment: `TRAEFIK` (default: where `make test` puts it, else the one on the PATH), and that of ../support/hub.mjs.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import {
  PASSWORD, PATIENCE, ROOT, admitted, atEnd, client, eventually, freePort, newUsername, startHubs, startRedis,
} from '../client/support.mjs';

export * from '../client/support.mjs';

const CONFIGURATION = path.join(ROOT, 'traefik');
const INSTALLED = path.join(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target'), 'tools/bin/traefik');
const TRAEFIK = process.env.TRAEFIK ?? (existsSync(INSTALLED) ? INSTALLED : 'traefik');

/** Whoever serves HTTP as the hubs do: Traefik on this machine, or the published port of docker compose. */
export class Entrance {
  constructor(url) {
    this.url = url;
  }

  async get(route) {
    const response = await fetch(this.url + route, { signal: AbortSignal.timeout(PATIENCE) });
    return { status: response.status, body: await response.text() };
  }

  async readyz() {
    return JSON.parse((await this.get('/readyz')).body);
  }

  /** Waits until it lets requests through to a hub that is ready. */
  async ready(ms = PATIENCE) {
    await eventually(async () => (await this.get('/readyz')).status === 200, `a ready hub behind ${this.url}`, ms);
  }

  register(username = newUsername()) {
    return account(this, 'register', username);
  }

  login(username) {
    return account(this, 'login', username);
  }

  async token() {
    return (await this.register()).access_token;
  }
}

/** Registers or logs in at anything with a `url`, and returns the whole answer. */
export async function account(at, action, username) {
  const response = await fetch(`${at.url}/auth/${action}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ username, password: PASSWORD }),
    signal: AbortSignal.timeout(PATIENCE),
  });
  const body = await response.text();
  if (!response.ok) throw new Error(`${action} at ${at.url} answered ${response.status}: ${body}`);
  return JSON.parse(body);
}

/** Replaces `from`, which must be there, so that a changed configuration is noticed here. */
function replaced(text, from, to) {
  if (!text.includes(from)) throw new Error(`traefik/traefik.yml no longer says ${from}`);
  return text.replace(from, to);
}

/** Starts Traefik in front of these two addresses; it ends with the test. */
export async function startTraefik(t, [first, second]) {
  const directory = await mkdtemp(path.join(tmpdir(), 'sockhop-traefik-'));
  atEnd(t, () => rm(directory, { recursive: true, force: true }));
  const port = await freePort();
  let text = await readFile(path.join(CONFIGURATION, 'traefik.yml'), 'utf8');
  text = replaced(text, '":8080"', `"127.0.0.1:${port}"`);
  text = replaced(text, '"127.0.0.1:8082"', `"127.0.0.1:${await freePort()}"`);
  const file = path.join(directory, 'traefik.yml');
  await writeFile(file, text);

  const child = spawn(TRAEFIK, [`--configFile=${file}`], {
    // The dynamic part is found from here, as it is in the container.
    cwd: CONFIGURATION,
    env: { PATH: process.env.PATH, HUB_1_URL: first, HUB_2_URL: second },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const traefik = new Entrance(`http://127.0.0.1:${port}`);
  traefik.log = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk) => { traefik.log += chunk; });
  }
  const ended = new Promise((resolve) => {
    child.once('error', (error) => { traefik.log += `${TRAEFIK}: ${error.message}\n`; resolve(); });
    child.once('close', resolve);
  });
  const killWithUs = () => child.kill('SIGKILL');
  process.once('exit', killWithUs);
  atEnd(t, async () => {
    child.kill('SIGKILL');
    await ended;
    process.off('exit', killWithUs);
    if (process.env.SHOW_LOGS) console.error(`--- log of Traefik\n${traefik.log}`);
  });
  let hasEnded = false;
  ended.then(() => { hasEnded = true; });
  await eventually(async () => hasEnded || (await traefik.get('/healthz')).status === 200, 'an answer through Traefik');
  if (hasEnded) throw new Error(`Traefik ended:\n${traefik.log}`);
  return traefik;
}

/** The whole of it. `instances` maps the id of each instance to its hub. Traefik reaches each by way of `front(t, hub)`. */
export async function startCluster(t, front = (_, hub) => hub) {
  const redis = await startRedis(t);
  const hubs = await startHubs(t, [{ REDIS_URL: redis.url }, { REDIS_URL: redis.url }]);
  const instances = new Map();
  for (const hub of hubs) {
    await eventually(async () => (await hub.readyz()).ready, 'a hub that is ready');
    instances.set((await hub.readyz()).instance, hub);
  }
  const fronts = [];
  for (const hub of hubs) fronts.push(await front(t, hub));
  const traefik = await startTraefik(t, fronts.map(({ url }) => url));
  return { redis, hubs, fronts, instances, traefik };
}

/**
 * Connects one client of /events, unless told otherwise by WebSocket only, and waits until it knows which instance it is at.
 *
 * `instance` follows it from one instance to the next; `received`, `disconnects` and `errors` (attempts that failed) grow.
 */
export async function arrive(t, at, token, options = { transports: ['websocket'] }) {
  const socket = client(t, at, { auth: { token }, ...options });
  Object.assign(socket, { received: [], disconnects: [], errors: [], instance: null });
  socket.on('test-event', (payload) => socket.received.push(payload));
  socket.on('instance', ({ id }) => { socket.instance = id; });
  socket.on('connect_error', (error) => socket.errors.push(error));
  socket.on('disconnect', (reason) => {
    socket.instance = null;
    socket.disconnects.push(reason);
  });
  await admitted(socket);
  await eventually(() => socket.instance, 'the instance event');
  return socket;
}

/** Connects clients one after the other, so that round-robin deals them out evenly. */
export async function arriveAll(t, at, token, count, options) {
  const sockets = [];
  for (let number = 0; number < count; number += 1) sockets.push(await arrive(t, at, token, options));
  return sockets;
}

/** How many of these are at each instance. */
export function census(sockets) {
  const counts = new Map();
  for (const { instance } of sockets) counts.set(instance, (counts.get(instance) ?? 0) + 1);
  return counts;
}
