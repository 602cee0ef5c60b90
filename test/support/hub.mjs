/**
 * Hubs, Redis servers and static file servers for tests that look at the hub from outside.
 *
 * Node built-ins only, so that test/client and test/browser share it. Everything that is started here listens on a free
 * port of 127.0.0.1, works in a directory of its own, and ends with the test that started it.
 *
 * Environment: `SOCKHOP_BIN` (default: target/debug/sockhop; anything that behaves alike will do), `PATIENCE`, a
 * factor for slow machines by which every waiting time is multiplied, and `SHOW_LOGS`, to see what the hubs print.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, existsSync } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
export const HUB_BIN = process.env.SOCKHOP_BIN
  ? path.resolve(process.env.SOCKHOP_BIN)
  : path.join(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target'), 'debug/sockhop');
/** Where cargo puts an example of this name. */
export const exampleBin = (name) => path.join(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target'), 'debug/examples', name);
/** The example of the chat, which `cargo build --examples` leaves there. */
export const CHAT_BIN = exampleBin('chat');

/** Where cargo puts the examples: beside the hub. */
export const EXAMPLES = path.join(path.dirname(HUB_BIN), 'examples');

/** How long a test waits for what should happen at once, in milliseconds. */
export const PATIENCE = 10_000 * Number(process.env.PATIENCE ?? 1);
/** How long a process may take to end after SIGTERM before it is killed. */
const GRACE = 10_000 * Number(process.env.PATIENCE ?? 1);

/** Children that still run, killed if the test process itself goes away. */
const children = new Set();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});
// A signal alone would end this process without `exit`.
for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143]]) process.once(signal, () => process.exit(code));

/** Starts a process and keeps what it prints. It is killed if the test process goes away; `ended` is the promise of `{code, signal}`. */
export function startProcess(command, args, options) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  const started = { child, log: '', ended: null };
  const keep = (chunk) => { started.log += chunk; child.emit('log'); };
  child.stdout.setEncoding('utf8').on('data', keep);
  child.stderr.setEncoding('utf8').on('data', keep);
  children.add(child);
  started.ended = new Promise((resolve) => {
    child.once('error', (error) => { keep(`${error.message}\n`); resolve({ code: null, signal: null }); });
    child.once('close', (code, signal) => resolve({ code, signal }));
  }).then((end) => { children.delete(child); return end; });
  return started;
}

/** Waits for this promise, but no longer than that. */
export async function within(ms, promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what()} (waited ${ms} ms)`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const cleanups = new WeakMap();

/**
 * Runs `cleanup` when the test ends, the last registered first: a client leaves before its hub stops, and a directory
 * goes after the process that writes to it. (`t.after` alone runs them the other way round.)
 */
export function atEnd(t, cleanup) {
  if (!cleanups.has(t)) {
    const stack = [];
    cleanups.set(t, stack);
    t.after(async () => {
      const faults = [];
      while (stack.length) {
        try {
          await stack.pop()();
        } catch (fault) {
          faults.push(fault);
        }
      }
      if (faults.length) throw new AggregateError(faults, 'clean-up failed');
    });
  }
  cleanups.get(t).push(cleanup);
}

/** Waits until `probe` returns something truthy, and returns that. What it throws meanwhile is told when time is up. */
export async function eventually(probe, what = 'the condition', ms = PATIENCE) {
  const deadline = performance.now() + ms;
  let last;
  for (;;) {
    try {
      last = undefined;
      const found = await probe();
      if (found) return found;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) {
      throw new Error(`${typeof what === 'function' ? what() : what}: not within ${ms} ms`, last && { cause: last });
    }
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
}

async function temporaryDirectory(t) {
  const directory = await mkdtemp(path.join(tmpdir(), 'sockhop-'));
  atEnd(t, () => rm(directory, { recursive: true, force: true }));
  return directory;
}

export async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

// ---- the hub ----------------------------------------------------------------------------------------------------------

/** One running instance. `url` stays the same across `restart`. */
class Hub {
  constructor(directory, env, bin) {
    this.directory = directory;
    this.bin = bin;
    this.env = env;
    this.url = null;
    this.process = null;
  }

  get port() {
    return Number(new URL(this.url).port);
  }

  /** All that this run of it has printed. */
  get log() {
    return this.process?.log ?? '';
  }

  get isRunning() {
    const child = this.process?.child;
    return Boolean(child) && child.exitCode === null && child.signalCode === null;
  }

  /** The ids of all instances that a client may land at; a cluster has several. */
  async instances() {
    return [(await this.readyz()).instance];
  }

  async numConnections() {
    return (await this.readyz()).connections;
  }

  async start() {
    const started = startProcess(this.bin, [], {
      // Its own directory, so that no .env of the repository takes part.
      cwd: this.directory,
      env: {
        PATH: process.env.PATH,
        HOST: '127.0.0.1',
        PORT: this.url ? String(this.port) : '0',
        DATA_DIR: path.join(this.directory, 'data'),
        RUST_LOG: 'info',
        ...this.env,
      },
    });
    this.process = started;
    const listening = new Promise((resolve, reject) => {
      started.child.on('log', () => {
        const found = /listening on (http:\/\/[\d.]+:\d+)/.exec(started.log);
        if (found) resolve(found[1]);
      });
      started.ended.then(({ code, signal }) => reject(
        new Error(`${this.bin} ended (code ${code}, signal ${signal}) before it listened:\n${started.log}`),
      ));
    });
    listening.catch(() => {});
    try {
      this.url = await within(PATIENCE, listening, () => `${this.bin} does not say that it listens:\n${started.log}`);
    } catch (error) {
      await this.kill();
      throw error;
    }
    return this;
  }

  /** Ends it as an operator would. Returns `{code, signal}`. */
  async stop() {
    const { child, ended } = this.process;
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), GRACE);
    const end = await ended;
    clearTimeout(timer);
    return end;
  }

  /** Ends it without a word. */
  async kill() {
    this.process.child.kill('SIGKILL');
    return this.process.ended;
  }

  /** Starts it again at the same port with the same data. */
  async restart() {
    await this.stop();
    return this.start();
  }

  async readyz() {
    return (await fetch(`${this.url}/readyz`)).json();
  }

  /** Registers a user (a new one unless named) and returns the whole answer. */
  async register(username = newUsername(), password = PASSWORD) {
    const response = await fetch(`${this.url}/auth/register`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ username, password }),
    });
    if (response.status !== 201) throw new Error(`register answered ${response.status}: ${await response.text()}`);
    return response.json();
  }

  /** Registers a new user and returns its token. */
  async token() {
    return (await this.register()).access_token;
  }
}

export const PASSWORD = 'correct horse battery staple';
export const newUsername = () => `user${randomBytes(4).toString('hex')}`;

/** Starts one hub, or another program of its kind, with these settings; it ends with the test. */
export async function startHub(t, env = {}, bin = HUB_BIN) {
  const directory = await temporaryDirectory(t);
  const hub = new Hub(directory, env, bin);
  atEnd(t, async () => {
    if (hub.process) await hub.stop();
    if (process.env.SHOW_LOGS) console.error(`--- log of ${hub.url}\n${hub.log}`);
  });
  return hub.start();
}

/** Starts one hub for each of these settings, one after the other. */
export async function startHubs(t, envs) {
  const hubs = [];
  for (const env of envs) hubs.push(await startHub(t, env));
  return hubs;
}

// ---- Redis --------------------------------------------------------------------------------------------------------------

class Redis {
  constructor(directory, port, args = []) {
    this.directory = directory;
    this.port = port;
    this.args = args;
    this.url = `redis://127.0.0.1:${port}`;
    this.process = null;
  }

  /** Starts it and waits until it answers PING. What it held before is there again. */
  async start() {
    this.process = startProcess('redis-server', [
      '--port', String(this.port), '--bind', '127.0.0.1', '--dir', this.directory,
      '--save', '', '--appendonly', 'yes', '--appendfsync', 'always', ...this.args,
    ]);
    let hasEnded = false;
    this.process.ended.then(() => { hasEnded = true; });
    await eventually(async () => hasEnded || await ping(this.port) === '+PONG', 'PONG from Redis');
    if (hasEnded) throw new Error(`redis-server ended:\n${this.process.log}`);
    return this;
  }

  /** Ends it without a word. */
  async kill() {
    this.process.child.kill('SIGKILL');
    return this.process.ended;
  }
}

const ping = (port) => command(port, 'PING');

/** Sends one command and returns the answer's first line. */
const command = async (port, line) => (await answerOf(port, line)).split('\r\n')[0];

/** Sends one command and returns the first that comes back. */
async function answerOf(port, line) {
  const socket = net.connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    socket.write(`${line}\r\n`);
    const [answer] = await once(socket, 'data');
    return String(answer);
  } finally {
    socket.destroy();
  }
}

/** Starts a Redis server of the test's own. */
export async function startRedis(t) {
  const redis = new Redis(await temporaryDirectory(t), await freePort());
  atEnd(t, () => redis.process && redis.kill());
  return redis.start();
}

/** Starts a Redis Cluster of three masters of the test's own. Its address is that of the first. */
export async function startRedisCluster(t) {
  const nodes = [];
  for (let n = 0; n < 3; n += 1) {
    const busPort = await freePort();
    const node = new Redis(await temporaryDirectory(t), await freePort(), [
      '--cluster-enabled', 'yes', '--cluster-port', String(busPort),
    ]);
    atEnd(t, () => node.process && node.kill());
    await node.start();
    nodes.push(Object.assign(node, { busPort }));
  }
  const obey = async (node, line) => {
    const answer = await command(node.port, line);
    if (answer !== '+OK') throw new Error(`${line}: ${answer}`);
  };
  for (const [n, node] of nodes.entries()) {
    await obey(node, `CLUSTER ADDSLOTSRANGE ${Math.floor((n * 16384) / 3)} ${Math.floor(((n + 1) * 16384) / 3) - 1}`);
    await obey(node, `CLUSTER SET-CONFIG-EPOCH ${n + 1}`);
  }
  for (const node of nodes.slice(1)) await obey(nodes[0], `CLUSTER MEET 127.0.0.1 ${node.port} ${node.busPort}`);
  const sees = async (node) => {
    const [info, all] = await Promise.all(['CLUSTER INFO', 'CLUSTER NODES'].map((line) => answerOf(node.port, line)));
    return info.includes('cluster_state:ok') && info.includes('cluster_known_nodes:3') && !all.includes('handshake');
  };
  for (const node of nodes) await eventually(() => sees(node), 'a cluster that is whole');
  return { url: nodes[0].url, nodes };
}

// ---- another web server -------------------------------------------------------------------------------------------------

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** Serves `root` as any simple web server would. Returns `{url}`. */
export async function startStatic(t, root = ROOT) {
  const server = http.createServer(async (request, response) => {
    const asked = decodeURIComponent(new URL(request.url, 'http://static').pathname);
    let file = path.join(root, path.normalize(asked));
    if (existsSync(file) && (await stat(file)).isDirectory()) file = path.join(file, 'index.html');
    if (!existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { 'Content-Type': TYPES[path.extname(file)] ?? 'application/octet-stream' });
    createReadStream(file).pipe(response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  atEnd(t, () => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${server.address().port}` };
}
