// `make bench`: measures the hub beside others, in turn, on this machine. See README.md beside it.

import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { join } from "node:path";

import { chart } from "./lib/chart.mjs";
import { isTracked, TRACKED } from "./lib/conntrack.mjs";
import { judge, markdown, number, summarise, targetText } from "./lib/report.mjs";
import { endAll, paths, servers, startServer } from "./lib/servers.mjs";
import { circumstances, figureTitles, lengthOf, workloads } from "./lib/workloads.mjs";

const OPEN_FILES = 10_100;

function die(text) {
  console.error(`bench: ${text}`);
  process.exit(1);
}

function positive(name, fallback) {
  const text = process.env[name] || String(fallback);
  const value = Number(text);
  if (!(value > 0)) die(`${name}=${text} is not a number above 0`);
  return value;
}

function chosen(name, all) {
  const words = (process.env[name] || Object.keys(all).join(",")).split(",").map((word) => word.trim());
  const isMeant = (word) => (key) => key === word || all[key].group === word;
  for (const word of words) {
    if (!Object.keys(all).some(isMeant(word))) die(`${name}: ${word} is none of ${Object.keys(all).join(", ")}`);
  }
  return Object.keys(all).filter((key) => words.some((word) => isMeant(word)(key)));
}

const reps = Math.ceil(positive("BENCH_REPS", 5));
const seconds = positive("BENCH_SECONDS", 5);
const only = chosen("BENCH_ONLY", workloads);
const which = chosen("BENCH_SERVERS", servers);

const openFiles = execFileSync("sh", ["-c", "ulimit -Hn"], { encoding: "utf8" }).trim();
if (openFiles !== "unlimited" && Number(openFiles) < OPEN_FILES) {
  die(
    `${openFiles} open files are allowed and ${OPEN_FILES} needed. As root: ulimit -n ${OPEN_FILES}; for good, a line ` +
      `"* hard nofile ${OPEN_FILES}" in /etc/security/limits.conf. Or leave out what needs them: BENCH_ONLY=steady,flood,acks.`,
  );
}
if (only.includes("cluster")) {
  try {
    execFileSync("redis-server", ["--version"], { stdio: "ignore" });
  } catch {
    die("redis-server is missing: install it, or leave cluster out with BENCH_ONLY");
  }
}

const quiet = (command, ...args) => {
  try {
    return execFileSync(command, args, { encoding: "utf8", cwd: paths.root, stdio: ["ignore", "pipe", "ignore"] }).trim();
  } catch {
    return "unknown";
  }
};
const version = (lock, name) => readFileSync(lock, "utf8").split(`name = "${name}"\nversion = "`)[1]?.split('"')[0];
const nodePackages = JSON.parse(readFileSync(join(paths.bench, "peers/node/package.json"))).dependencies;
const cores = cpus().length;
const begun = new Date();
const settings = ["BENCH_ONLY", "BENCH_SERVERS", "BENCH_REPS", "BENCH_SECONDS"]
  .filter((name) => process.env[name])
  .map((name) => ` ${name}=${process.env[name]}`);
const about = {
  date: begun.toISOString().slice(0, 16).replace("T", " "),
  command: `make bench${settings.join("")}`,
  commit: quiet("git", "rev-parse", "--short", "HEAD") + (quiet("git", "status", "--porcelain", "src", "Cargo.lock") ? " and changes" : ""),
  machine: `${cores} × ${cpus()[0].model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}`,
  versions:
    `Node ${process.version}, socket.io ${nodePackages["socket.io"]}, ws ${nodePackages.ws}, ` +
    `uws-js-unofficial ${nodePackages["@trufflesuite/uws-js-unofficial"]}, ` +
    `socketioxide ${version(join(paths.bench, "peers/socketioxide/Cargo.lock"), "socketioxide")}, ${quiet("rustc", "--version")}`,
  load_average_before: loadavg(),
  connections_tracked: await isTracked(),
  reps,
  seconds,
};

if (about.connections_tracked) console.error(`bench: ${TRACKED}`);

const out = join(paths.target, "bench", begun.toISOString().slice(0, 19).replace(/:/g, "-"));
mkdirSync(out, { recursive: true });
const { targets } = JSON.parse(readFileSync(join(paths.bench, "targets.json")));
const repetitions = [];

/** Writes everything measured so far, so that an interrupted run was not for nothing. */
function save() {
  about.load_average_after = loadavg();
  const summary = summarise(repetitions, cores);
  const verdicts = judge(summary, targets);
  writeFileSync(join(out, "raw.json"), JSON.stringify({ about, summary, verdicts, repetitions }, null, 1));
  writeFileSync(join(out, "table.md"), markdown(summary, verdicts, about));
  writeFileSync(join(out, "chart.svg"), chart(summary, about));
  return { summary, verdicts };
}

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    endAll();
    console.error(`\nbench: interrupted; what was measured is in ${out}`);
    process.exit(130);
  });
}

function load(args) {
  return new Promise((done, failed) => {
    const child = spawn(paths.load, args.map(String), { stdio: ["ignore", "pipe", "pipe"] });
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (bytes) => (stdout += bytes));
    child.stderr.on("data", (bytes) => (stderr += bytes));
    child.on("error", failed);
    child.on("exit", (code) => (code === 0 ? done(JSON.parse(stdout)) : failed(new Error(stderr.trim() || `exit ${code}`))));
  });
}

async function measure(workload, server) {
  const { load: usual, loads, env, flaw } = workloads[workload];
  const started = await startServer(server, workload, env);
  try {
    const token = started.token ? ["--token", started.token] : [];
    const where = ["--targets", started.targets.join(","), "--pids", started.pids.join(",")];
    if (started.also.length) where.push("--also", started.also.join(","));
    const raw = await load([...(loads?.[server] ?? usual), "--seconds", lengthOf(workloads[workload], seconds), ...where, ...token]);
    // What was measured may be something else than what was meant.
    const found = flaw?.(raw);
    if (found) throw new Error(found);
    return { raw };
  } finally {
    await started.stop();
  }
}

const plan = [];
for (let rep = 0; rep < reps; rep++) {
  for (const workload of only) {
    const { group = workload, servers: meant } = workloads[workload];
    const isAble = ({ lacks, only }) => !lacks?.includes(group) && (only?.includes(group) ?? true);
    const able = which.filter((server) => isAble(servers[server]) && (meant?.includes(server) ?? true));
    // Each repetition begins with another server, so that none always has the same neighbour.
    able.forEach((_, i) => plan.push({ rep, workload, server: able[(i + rep) % able.length] }));
  }
}

console.log(`${plan.length} measurements: ${reps} times ${only.join(", ")}; results in ${out}`);
for (const [i, step] of plan.entries()) {
  const left = i ? Math.ceil(((Date.now() - begun) / i) * (plan.length - i) / 60_000) : undefined;
  const head = `[${i + 1}/${plan.length}${left === undefined ? "" : `, ${left} min left`}] ${step.workload} ${step.server}`;
  try {
    const { raw } = await measure(step.workload, step.server);
    repetitions.push({ ...step, raw });
    const figures = Object.entries(workloads[step.workload].figures(raw)).map(([name, value]) => `${figureTitles[name]} ${number(value)}`);
    const { lost, faults, load_cores, others_share } = circumstances(raw, cores);
    const trouble = lost || faults ? ` — LOST ${lost}, FAULTS ${faults}` : "";
    console.log(`${head}: ${figures.join("; ")}; load ${Math.round(100 * load_cores)} %, others ${Math.round(100 * others_share)} %${trouble}`);
  } catch (error) {
    repetitions.push({ ...step, error: String(error.message) });
    console.log(`${head}: FAILED: ${error.message}`);
  }
  save();
}

const { summary, verdicts } = save();
console.log(`\n${markdown(summary, verdicts, about)}`);
for (const verdict of verdicts) {
  const { what, limit } = targetText(verdict);
  console.log(`${verdict.verdict.padEnd(12)} ${what}: ${number(verdict.ratio)} (${limit})`);
}
console.log(`\n${out}/{raw.json,table.md,chart.svg}`);
// A target that is not met is a finding, not a failure; a measurement that could not be made is one.
process.exit(repetitions.some((repetition) => repetition.error) ? 1 : 0);
