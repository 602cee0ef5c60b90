// The servers that are measured: how each is started, found and ended. Every measurement gets a fresh one.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const bench = resolve(import.meta.dirname, "..");
const root = resolve(bench, "..");
const target = resolve(root, process.env.CARGO_TARGET_DIR ?? "target");

export const paths = {
  bench,
  root,
  target,
  hub: join(target, "release/sockhop"),
  rooms: join(target, "release/examples/bench_rooms"),
  built: join(target, "bench-build"),
  load: join(target, "bench-build/release/load"),
};

const hasRooms = (workload) => workload === "rooms" || workload.startsWith("growth");
const hub = (workload) => [hasRooms(workload) ? paths.rooms : paths.hub];
const node = (engine) => () => [process.execPath, join(bench, "peers/node/server.mjs"), engine];
const built = (name) => () => [join(paths.built, "release", name)];

/** What can be measured, in the order of the tables: in all workloads but those that it lacks, or only in some. */
export const servers = {
  floor: { title: "floor: one send per delivery", command: built("floor"), lacks: ["polling", "cluster", "beside"] },
  "floor-two": { title: "floor of two threads", command: () => [...built("floor")(), "--two"], only: ["steady"] },
  sockhop: { title: "Sockhop", command: hub, isHub: true },
  "node-ws": { title: "Node socket.io, ws", command: node("ws"), lacks: ["growth"] },
  "node-uws": { title: "Node socket.io, µWebSockets", command: node("uws") },
  socketioxide: { title: "socketioxide", command: built("sockhop-bench-socketioxide"), lacks: ["cluster", "growth"] },
};

const START_PATIENCE = 20_000;
const END_PATIENCE = 10_000;
const running = new Set();

/** Ends whatever still runs; for an interrupted run. */
export function endAll() {
  for (const one of running) one.child.kill("SIGKILL");
}

async function start(command, env, isUp) {
  const directory = mkdtempSync(join(tmpdir(), "sockhop-bench-"));
  // Open files: as many as the hard limit allows. Exec keeps the process id.
  const child = spawn("sh", ["-c", 'ulimit -n "$(ulimit -Hn)"; exec "$@"', "sh", ...command], {
    cwd: directory,
    env: { PATH: process.env.PATH, HOME: directory, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let log = "";
  let ended = false;
  const one = { child, pid: child.pid, log: () => log };
  running.add(one);
  const end = new Promise((done) => child.once("exit", done)).then(() => {
    ended = true;
    running.delete(one);
    rmSync(directory, { recursive: true, force: true });
  });
  one.stop = async () => {
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), END_PATIENCE);
    await end;
    clearTimeout(timer);
  };
  const up = new Promise((done) => {
    const read = (bytes) => {
      // Enough to find the address and to tell what went wrong.
      if (log.length < 20_000) log += bytes;
      const found = isUp(log);
      if (found) done(found);
    };
    child.stdout.on("data", read);
    child.stderr.on("data", read);
  });
  let timer;
  const late = new Promise((done) => (timer = setTimeout(done, START_PATIENCE)));
  const found = await Promise.race([up, end, late]);
  clearTimeout(timer);
  if (!found) {
    if (!ended) await one.stop();
    throw new Error(`${command.join(" ")} did not start:\n${log}`);
  }
  return { ...one, found };
}

/** Starts a Redis of its own, without persistence. */
export async function startRedis() {
  // It takes no port 0 and tells none: ask the kernel for a free one, as near to its use as can be.
  const { createServer } = await import("node:net");
  const probe = createServer();
  const port = await new Promise((done) => probe.listen(0, "127.0.0.1", () => done(probe.address().port)));
  await new Promise((done) => probe.close(done));
  const command = ["redis-server", "--bind", "127.0.0.1", "--port", String(port), "--save", "", "--appendonly", "no"];
  const redis = await start(command, {}, (log) => log.includes("Ready to accept connections"));
  return { ...redis, url: `redis://127.0.0.1:${port}` };
}

/** Starts a server for a workload, with settings of its own: one instance, or two over Redis. */
export async function startServer(name, workload, settings = {}) {
  const server = servers[name];
  const started = [];
  const also = [];
  const stop = async () => {
    for (const one of started.reverse()) await one.stop();
  };
  try {
    const env = { ...(server.isHub ? { HOST: "127.0.0.1", PORT: "0" } : { NODE_ENV: "production" }), ...settings };
    let num = 1;
    if (workload === "cluster") {
      const redis = await startRedis();
      started.push(redis);
      also.push(redis.pid);
      env.REDIS_URL = redis.url;
      num = 2;
    }
    const instances = [];
    for (let i = 0; i < num; i++) {
      const isUp = (log) => log.match(/listening on http:\/\/(127\.0\.0\.1:\d+)/)?.[1];
      const instance = await start(server.command(workload), env, isUp);
      started.push(instance);
      instances.push(instance);
    }
    const targets = instances.map((instance) => instance.found);
    const token = server.isHub && !hasRooms(workload) ? await register(targets[0]) : undefined;
    return { targets, pids: instances.map((instance) => instance.pid), also, token, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The hub's own clients bring a token, which it checks at each connect. */
async function register(target) {
  const answer = await fetch(`http://${target}/auth/register`, {
    method: "POST",
    headers: { "content-type": "application/json", connection: "close" },
    body: JSON.stringify({ username: "bench", password: "a long enough password" }),
  });
  if (answer.status !== 201) throw new Error(`register: ${answer.status} ${await answer.text()}`);
  return (await answer.json()).access_token;
}
