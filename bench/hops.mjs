// `make bench-hops`: what it costs that sessions hop. Each figure beside the same without a hop, in turn, within one run.
//
// Three instances (release build) on a Redis, and the balancer of the tests in this process. See README.md beside it.

import { readFileSync, mkdirSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { cpus } from "node:os";
import { join } from "node:path";

import { client } from "../test/client/support.mjs";
import { startBalancer } from "../test/support/balancer.mjs";
import { Cluster } from "../test/support/cluster.mjs";
import { HUB_BIN, ROOT } from "../test/support/hub.mjs";

const positive = (name, fallback) => {
  const value = Number(process.env[name] || fallback);
  if (!(value > 0)) throw new Error(`${name}=${process.env[name]} is not a number above 0`);
  return Math.ceil(value);
};
const reps = positive("BENCH_REPS", 5);
const numPolls = positive("BENCH_POLLS", 1000);
const numUpgrades = positive("BENCH_UPGRADES", 100);
const numHandshakes = positive("BENCH_HANDSHAKES", 600);
const numParked = positive("BENCH_PARKED", 1000);
/** Handshakes that are under way at a time. */
const AT_A_TIME = 16;

/** The stack of what is to be ended, in the form that the tests' helpers want. */
class Scope {
  after(cleanUp) {
    this.end = cleanUp;
  }
}

const quantile = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
const sort = (list) => [...list].sort((a, b) => a - b);
const median = (list) => quantile(sort(list), 0.5);
const timed = async (doIt) => {
  const since = performance.now();
  await doIt();
  return performance.now() - since;
};
const latencies = (list) => ({ p50: quantile(sort(list), 0.5), p99: quantile(sort(list), 0.99) });

/** Processor time of these processes so far, in milliseconds. */
const cpuOf = (pids) => pids.reduce((sum, pid) => {
  const [user, system] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ").slice(11, 13).map(Number);
  return sum + (user + system) * 10;
}, 0);

/** Memory of a process, in KiB. */
const memoryOf = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]);

/** What Redis has done so far: messages that were published, and KiB that went in and out. */
function traffic(redis) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(Number(new URL(redis.url).port), "127.0.0.1");
    let text = "";
    socket.on("error", reject).on("end", () => {
      const number = (pattern) => Number(pattern.exec(text)?.[1] ?? 0);
      resolve({
        messages: number(/cmdstat_publish:calls=(\d+)/),
        kib: (number(/total_net_input_bytes:(\d+)/) + number(/total_net_output_bytes:(\d+)/)) / 1024,
      });
    }).on("data", (chunk) => (text += chunk));
    socket.write("INFO everything\r\nQUIT\r\n");
  });
}

/** What `doIt` cost the servers and Redis, for each of `num`. */
async function costOf(num, doIt) {
  const [cpu, before] = [cpuOf(pids), await traffic(cluster.redis)];
  const result = await doIt();
  const after = await traffic(cluster.redis);
  return {
    result,
    cpu: (cpuOf(pids) - cpu) / num,
    messages: (after.messages - before.messages) / num,
    kib: (after.kib - before.kib) / num,
  };
}

// ---- polls ----------------------------------------------------------------------------------------------------------------

const agent = new http.Agent({ keepAlive: true });

function request(hub, method, query, body) {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(hub.url);
    const path = `/socket.io/?EIO=4&transport=polling${query}`;
    const sent = http.request({ hostname, port, method, path, agent }, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (chunk) => (text += chunk)).on("end", () => {
        if (answer.statusCode === 200) resolve(text);
        else reject(new Error(`${method} answered ${answer.statusCode}: ${text}`));
      }).on("error", reject);
    });
    sent.on("error", reject).end(body);
  });
}

/** A session by polling, without the heartbeats that a long one would need. */
async function openPolling(hub, token) {
  const { sid } = JSON.parse((await request(hub, "GET", "")).slice(1));
  const query = `&sid=${sid}`;
  await request(hub, "POST", query, `40/events,${JSON.stringify({ token })}`);
  let joined = "";
  while (!joined.includes('"instance"')) joined += await request(hub, "GET", query);
  return query;
}

/** POSTs and polls of one session by way of `hub`: how long a POST takes, and a poll whose answer is there. */
async function measurePolls(owner, hub, query) {
  const posts = [];
  const polls = [];
  for (let n = 0; n < numPolls; n += 1) {
    posts.push(await timed(() => request(hub, "POST", query, `42/events,${n}["echo",${n}]`)));
    // By now the ack waits to be fetched; the first that comes may be a ping, whose answer nobody waits for.
    for (let text = ""; !text.includes(`43/events,${n}[`);) {
      polls.push(await timed(async () => { text = await request(hub, "GET", query); }));
      if (text.startsWith("2")) await request(owner, "POST", query, "3");
    }
  }
  return { post: latencies(posts), poll: latencies(polls) };
}

/** Polls that wait for something to come, one of each session: memory for each, where the sessions are and, if that is elsewhere, where they came to, in KiB. */
async function measureParked(owner, hub, token) {
  const sessions = [];
  for (let n = 0; n < numParked; n += 1) sessions.push(await openPolling(owner, token));
  const all = [...new Set([owner, hub])].map((server) => server.process.child.pid);
  const before = all.map(memoryOf);
  const polls = sessions.map((query) => request(hub, "GET", query).catch(() => ""));
  // Once one more has been answered, those have arrived.
  await request(hub, "POST", sessions[0], `42/events,1["echo",1]`);
  await polls[0];
  const grown = all.map((pid, at) => (memoryOf(pid) - before[at]) / numParked);
  for (const query of sessions) await request(owner, "POST", query, "1").catch(() => "");
  await Promise.all(polls);
  return grown;
}

// ---- upgrades -----------------------------------------------------------------------------------------------------------

/**
 * Connects a client with default transports and waits until it is served by WebSocket. Returns how long that took from its `5` on: to the
 * first packet that comes. (That the client calls itself upgraded says only that it has sent the `5`.)
 */
async function upgrade(scope, place, token) {
  const socket = client(scope, place, { auth: { token }, reconnection: false });
  const took = new Promise((resolve, reject) => {
    socket.io.on("open", () => {
      const { engine } = socket.io;
      engine.once("upgrade", () => {
        const since = performance.now();
        engine.once("packet", () => resolve(performance.now() - since));
        // So that there is one. Before it is connected, this waits until it is.
        socket.emit("echo", 1, () => {});
      });
    });
    for (const event of ["connect_error", "disconnect"]) socket.on(event, (reason) => reject(new Error(`${event}: ${reason}`)));
  });
  const connected = new Promise((resolve) => socket.on("connect", resolve));
  const ms = await took;
  await connected;
  return { ms, socket };
}

async function measureUpgrades(place, token) {
  const scope = new Scope();
  const all = [];
  for (let n = 0; n < numUpgrades; n += 1) {
    const { ms, socket } = await upgrade(scope, place, token);
    all.push(ms);
    socket.off("disconnect").disconnect();
  }
  await scope.end();
  return latencies(all);
}

async function measureHandshakes(place, token) {
  const scope = new Scope();
  const since = performance.now();
  let left = numHandshakes;
  await Promise.all(Array.from({ length: AT_A_TIME }, async () => {
    while (left > 0) {
      left -= 1;
      const { socket } = await upgrade(scope, place, token);
      socket.off("disconnect").disconnect();
    }
  }));
  const seconds = (performance.now() - since) / 1000;
  await scope.end();
  return numHandshakes / seconds;
}

// ---- the run ------------------------------------------------------------------------------------------------------------

const scope = new Scope();
const cluster = await Cluster.start(scope);
const token = await cluster.token();
const pids = [...cluster.hubs, cluster.redis].map((server) => server.process.child.pid);
const places = {};
for (const policy of ["sticky", "round-robin", "adversarial"]) places[policy] = await startBalancer(scope, cluster.hubs, policy);

/** Figures of each repetition, by name and way. */
const figures = new Map();
const note = (name, way, value) => {
  const of = figures.get(name) ?? figures.set(name, new Map()).get(name);
  of.set(way, [...(of.get(way) ?? []), value]);
};

const [owner, other] = cluster.hubs;
// Caches, pools and compilers are warm then.
await measurePolls(owner, other, await openPolling(owner, token));
for (const place of Object.values(places)) await upgrade(scope, place, token);
for (let rep = 0; rep < reps; rep += 1) {
  // A fresh one: nobody polls it for its heartbeat meanwhile.
  const query = await openPolling(owner, token);
  for (const [way, hub] of [["at its owner", owner], ["relayed", other]]) {
    const { result: { post, poll }, cpu, messages, kib } = await costOf(numPolls, () => measurePolls(owner, hub, query));
    for (const [name, { p50, p99 }] of [["poll", poll], ["POST", post]]) {
      note(`${name}, p50 (ms)`, way, p50);
      note(`${name}, p99 (ms)`, way, p99);
    }
    note("CPU of the servers and Redis for a POST and its poll (ms)", way, cpu);
    note("messages by Redis for a POST and its poll", way, messages);
    note("KiB in and out of Redis for a POST and its poll", way, kib);
    // Only once: later there is room from before.
    if (rep > 0) continue;
    const [here, there] = await measureParked(owner, hub, token);
    note("memory of a poll that waits (KiB)", `${way}: there`, here);
    if (there !== undefined) note("memory of a poll that waits (KiB)", `${way}: where it came to`, there);
  }
  for (const [way, policy] of [["at its owner", "sticky"], ["moves", "adversarial"]]) {
    const { p50, p99 } = await measureUpgrades(places[policy], token);
    note("`5` to first packet, p50 (ms)", way, p50);
    note("`5` to first packet, p99 (ms)", way, p99);
  }
  for (const policy of ["sticky", "round-robin", "adversarial"]) {
    const { result: perSecond, cpu, messages, kib } = await costOf(numHandshakes, () => measureHandshakes(places[policy], token));
    note("handshakes per second", policy, perSecond);
    note("CPU of the servers and Redis for a handshake (ms)", policy, cpu);
    note("messages by Redis for a handshake", policy, messages);
    note("KiB in and out of Redis for a handshake", policy, kib);
  }
  await request(owner, "POST", query, "1");
  console.log(`repetition ${rep + 1} of ${reps} is done`);
}
await scope.end();

const lines = ["| figure | way | median | of the first way | each |", "| --- | --- | --- | --- | --- |"];
for (const [name, ways] of figures) {
  const [base] = ways.values();
  for (const [way, values] of ways) {
    // Of next to nothing there is no multiple.
    const factor = median(base) < 0.1 ? "" : `× ${(median(values) / median(base)).toFixed(2)}`;
    lines.push(`| ${name} | ${way} | ${median(values).toFixed(2)} | ${factor} | ${values.map((value) => value.toFixed(2)).join(", ")} |`);
  }
}
const about = `${reps} repetitions, ${numPolls} polls, ${numUpgrades} upgrades one after the other, ${numHandshakes} handshakes, ${AT_A_TIME} at a time; `
  + `${cpus().length} × ${cpus()[0].model.trim()}; Node ${process.version}; ${HUB_BIN.replace(`${ROOT}/`, "")}`;
const out = join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "bench");
mkdirSync(out, { recursive: true });
const file = join(out, `hops-${new Date().toISOString().slice(0, 19).replace(/:/g, "-")}.md`);
writeFileSync(file, `${about}\n\n${lines.join("\n")}\n`);
console.log(`\n${about}\n\n${lines.join("\n")}\n\n${file}`);
process.exit(0);
