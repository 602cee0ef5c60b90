// The chart: for each workload its main figures as bars, with least and greatest. Plain SVG, no library.

import { number } from "./report.mjs";
import { servers } from "./servers.mjs";
import { figureTitles, isGreaterBetter, workloads } from "./workloads.mjs";

const CHARTED = ["cpu_us", "per_second", "kib"];
const colours = { floor: "#9aa0a6", "floor-two": "#c4c8cc", sockhop: "#d9480f", "node-ws": "#2b8a3e", "node-uws": "#74b816", socketioxide: "#1971c2" };

const WIDTH = 480;
const LABEL = 150;
const BAR = 18;
const HEAD = 40;
const COLUMNS = 2;
const GAP = 20;

const escape = (text) => text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
const label = (server) => servers[server].title.split(":")[0];

function panel(workload, figure, row) {
  const bars = Object.keys(servers).filter((server) => row[server]?.[figure]);
  const most = Math.max(...bars.map((server) => row[server][figure].max));
  const room = WIDTH - LABEL - 70;
  const scale = (value) => (most > 0 ? (Math.max(0, value) / most) * room : 0);
  const better = isGreaterBetter(figure) ? "more is better" : "less is better";
  const [first, ...rest] = workloads[workload].title.split(":");
  const out = [
    `<text y="14" class="title">${escape(first)}: ${escape(figureTitles[figure])} (${better})</text>`,
    `<text y="29" class="small">${escape(rest.join(":").trim())}</text>`,
  ];
  bars.forEach((server, i) => {
    const { median, min, max } = row[server][figure];
    const y = HEAD + i * (BAR + 4);
    const middle = y + BAR / 2;
    out.push(
      `<text x="${LABEL - 8}" y="${middle + 4}" text-anchor="end"${server === "sockhop" ? ' class="ours"' : ""}>${escape(label(server).replace("Node socket.io", "Node"))}</text>`,
      `<rect x="${LABEL}" y="${y}" width="${scale(median).toFixed(1)}" height="${BAR}" fill="${colours[server]}"/>`,
      `<path d="M${(LABEL + scale(min)).toFixed(1)} ${middle}H${(LABEL + scale(max)).toFixed(1)}" stroke="#000" stroke-width="1.5"/>`,
      `<text x="${(LABEL + scale(max) + 6).toFixed(1)}" y="${middle + 4}">${number(median)}</text>`,
    );
  });
  return { text: out.join("\n"), height: HEAD + bars.length * (BAR + 4) + GAP };
}

export function chart(summary, about) {
  const panels = Object.entries(summary).flatMap(([workload, row]) =>
    (workloads[workload].charted ?? CHARTED).filter((figure) => Object.values(row).some((cell) => cell[figure])).map((figure) => panel(workload, figure, row)),
  );
  const bottoms = Array(COLUMNS).fill(50);
  const body = panels.map(({ text, height }) => {
    const column = bottoms.indexOf(Math.min(...bottoms));
    const y = bottoms[column];
    bottoms[column] += height;
    return `<g transform="translate(${GAP + column * (WIDTH + GAP)} ${y})">\n${text}\n</g>`;
  });
  const width = COLUMNS * (WIDTH + GAP) + GAP;
  const height = Math.max(...bottoms);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>Sockhop beside other Socket.IO servers</title>
<style>text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600}.small{font-size:11px;fill:#666}.ours{font-weight:700}</style>
<rect width="100%" height="100%" fill="#fff"/>
<text x="${GAP}" y="28" class="small">${escape(`Medians of ${about.reps}, line from least to greatest. ${about.machine}. ${about.date}`)}</text>
${body.join("\n")}
</svg>
`;
}
