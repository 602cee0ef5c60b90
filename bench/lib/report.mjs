// From raw repetitions to medians, the verdict on the targets, and the tables in Markdown.

import { TRACKED } from "./conntrack.mjs";
import { servers } from "./servers.mjs";
import { circumstances, figureTitles, lengthOf, workloads } from "./workloads.mjs";

/** Median, least and greatest of some numbers. */
export function spread(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, min: sorted[0], max: sorted.at(-1), num: sorted.length };
}

/** Repetitions `[{workload, server, raw | error}]` to `{workload: {server: {figure: spread, …}}}`. */
export function summarise(repetitions, cores) {
  const summary = {};
  for (const { workload, server, raw, error } of repetitions) {
    const cell = ((summary[workload] ??= {})[server] ??= { failures: 0, values: {} });
    if (error) {
      cell.failures++;
      continue;
    }
    const all = { ...workloads[workload].figures(raw), ...circumstances(raw, cores) };
    for (const [name, value] of Object.entries(all)) (cell.values[name] ??= []).push(value);
  }
  for (const row of Object.values(summary)) {
    for (const cell of Object.values(row)) {
      for (const [name, values] of Object.entries(cell.values)) cell[name] = spread(values);
      if (cell.lost) cell.totalLost = cell.values.lost.reduce((sum, lost) => sum + lost, 0);
      if (cell.disordered) cell.totalDisordered = cell.values.disordered.reduce((sum, num) => sum + num, 0);
      if (cell.faults) cell.totalFaults = cell.values.faults.reduce((sum, num) => sum + num, 0);
      delete cell.values;
    }
  }
  return summary;
}

/** Each target with its ratio (to another server, or to ourselves in another workload), or with none where one was not measured. */
export function judge(summary, targets) {
  return targets.map((target) => {
    const row = summary[target.workload] ?? {};
    const ours = row.sockhop?.[target.figure];
    // Without either the figure itself is judged.
    const other = target.than ? (summary[target.than] ?? {}) : row;
    const isAlone = !target.to && !target.than;
    const theirs = isAlone ? { median: 1 } : other[target.to ?? "sockhop"]?.[target.figure];
    if (!ours || !theirs) return { ...target, verdict: "not measured" };
    const ratio = ours.median / theirs.median;
    const isMet = target.at_most === undefined ? ratio >= target.at_least : ratio <= target.at_most;
    return { ...target, ratio, verdict: isMet ? "met" : "NOT MET" };
  });
}

export function number(value) {
  if (value === undefined || !Number.isFinite(value)) return "–";
  const digits = Math.abs(value) >= 1000 ? 0 : Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

const range = (cell) => (cell ? `${number(cell.median)} (${number(cell.min)}–${number(cell.max)})` : "–");
const percent = (cell) => (cell ? `${Math.round(100 * cell.median)} %` : "–");

export function targetText(target) {
  const limit = target.at_most === undefined ? `≥ ${target.at_least}` : `≤ ${target.at_most}`;
  return { what: `${target.workload}: ${figureTitles[target.figure]}${target.to ? `, ratio to ${target.to}` : ""}${target.than ? `, ratio to ${target.than}` : ""}`, limit };
}

export function markdown(summary, verdicts, about) {
  const lines = [`# Sockhop beside others, ${about.date}`, ""];
  lines.push(`\`${about.command}\`, commit ${about.commit}, on ${about.machine}.`, "");
  if (about.connections_tracked) lines.push(`Mind: ${TRACKED}.`, "");
  lines.push(`${about.versions}.`, "");
  lines.push(
    `Medians of ${about.reps} repetitions, each server's in turn, with least and greatest; ${about.seconds} s each, if nothing else is said. ` +
      "CPU is user and system time of all threads of the server (of both instances in the cluster; of Redis only where it says so), divided by what " +
      "arrived. Load and others are shares of one core and of the machine: where the load program is near 100 %, the rate is its own; " +
      "where others were busy, rates and latencies say little and CPU is a little too high.",
    "",
  );
  for (const [name, row] of Object.entries(summary)) {
    const cells = Object.values(row);
    const figures = Object.keys(figureTitles).filter((figure) => cells.some((cell) => cell[figure]));
    const titles = ["server", ...figures.map((figure) => figureTitles[figure]), "lost", "load", "others"];
    const length = lengthOf(workloads[name], about.seconds);
    const said = length === about.seconds ? "" : `, ${length} s each`;
    lines.push(`## ${workloads[name].title}${said}`, "", `| ${titles.join(" | ")} |`, `| --- ${"| ---: ".repeat(titles.length - 1)}|`);
    for (const server of Object.keys(servers).filter((server) => row[server])) {
      const cell = row[server];
      const failed = cell.failures ? ` (**failed ${cell.failures} times**)` : "";
      const disordered = cell.totalDisordered ? ` (${cell.totalDisordered} out of order)` : "";
      const faults = cell.totalFaults ? ` (**${cell.totalFaults} faults**)` : "";
      const values = [...figures.map((figure) => range(cell[figure])), cell.totalLost ?? "–", percent(cell.load_cores), percent(cell.others_share)];
      lines.push(`| ${servers[server].title}${failed}${faults}${disordered} | ${values.join(" | ")} |`);
    }
    lines.push("");
  }
  lines.push("## Targets", "", "| what | target | measured | |", "| --- | ---: | ---: | --- |");
  for (const verdict of verdicts) {
    const { what, limit } = targetText(verdict);
    lines.push(`| ${what} | ${limit} | ${number(verdict.ratio)} | ${verdict.verdict} |`);
  }
  return `${lines.join("\n")}\n`;
}
