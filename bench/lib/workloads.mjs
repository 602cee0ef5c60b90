// The workloads: the load program's options for each, and the figures that its numbers give.

const perDelivery = (raw) => raw.server_ns / 1000 / raw.delivered;
const latency = (raw) => ({ p50_ms: raw.p50_us / 1000, p99_ms: raw.p99_us / 1000, p999_ms: raw.p999_us / 1000 });
const delivered = (raw) => ({ cpu_us: perDelivery(raw), ...latency(raw) });

/** `growth`: the same with ever more sockets. */
const growth = (sockets, rate, more = {}) => ({
  group: "growth",
  title: `Growth: ${sockets.toLocaleString("en")} sockets, each in a room of its own and all in one, ${rate} events a second to that, 128 bytes`,
  unit: "delivery",
  load: ["growth", "--sockets", sockets, "--rate", rate],
  // The floor knows no rooms: its deliveries alone show how the kernel's own cost grows.
  loads: { floor: ["steady", "--sockets", sockets, "--rate", rate] },
  figures: (raw) => ({
    ...delivered(raw),
    ...(raw.connect_ns && { connect_us: raw.connect_ns / 1000, move_us: raw.move_ns / 1000, disconnect_us: raw.disconnect_ns / 1000 }),
  }),
  ...more,
});
// So few deliveries need longer to be measured.
const rare = (sockets) => growth(sockets, 2, { times: 4 });

const BESIDE = 1000;
// p99 of some 20 broadcasts is the worst of them. No longer: the deaf answer no pings.
const BESIDE_SECONDS = 10;
const besideFigures = (raw) => ({
  ...latency(raw),
  max_ms: raw.max_us / 1000,
  cpu_us: raw.server_ns / 1000 / raw.due,
  rss_mib: (raw.rss_after_kib - raw.rss_joined_kib) / 1024,
  ...(raw.deaf && { stayed: raw.deaf_stayed, unsent_kib: raw.unsent_least_kib }),
});

const whoStayed = (expected) => (raw) =>
  raw.deaf_stayed === expected ? undefined : `${raw.deaf_stayed} of ${raw.deaf} deaf clients were still connected, and not ${expected}`;

/** `beside`: what 100 clients notice of 1,000 others, who get the same. */
const beside = (what, load, more = {}) => ({
  group: "beside",
  title: `Beside others: 100 sockets, ${what}; 10 broadcasts a second to all, 1 KiB`,
  unit: "delivery",
  load: ["steady", "--sockets", 100, "--rate", 10, "--payload", 1024, ...load],
  seconds: BESIDE_SECONDS,
  figures: besideFigures,
  charted: ["p99_ms"],
  ...more,
});

/** What each figure is called in the tables; the first of a workload is its main one. */
export const figureTitles = {
  cpu_us: "server CPU each, µs",
  with_redis_us: "with Redis, µs",
  connect_us: "connect, µs",
  move_us: "join or leave, µs",
  disconnect_us: "disconnect, µs",
  per_second: "per second",
  kib: "RSS per socket, KiB",
  silence_us: "server CPU each in 25 s, µs",
  p50_ms: "p50, ms",
  p99_ms: "p99, ms",
  p999_ms: "p99.9, ms",
  max_ms: "greatest, ms",
  near_p50_ms: "same instance p50, ms",
  near_p99_ms: "p99, ms",
  far_p50_ms: "other instance p50, ms",
  far_p99_ms: "p99, ms",
  rss_mib: "RSS grown, MiB",
  stayed: "deaf that stayed",
  unsent_kib: "waited for each, KiB",
};

/** Which figures are better if they are greater. */
export const isGreaterBetter = (figure) => figure === "per_second";

export const workloads = {
  steady: {
    title: "Broadcast at a steady rate: 1,000 sockets, 20 a second, 128 bytes",
    unit: "delivery",
    load: ["steady", "--sockets", 1000, "--rate", 20],
    figures: delivered,
  },
  flood: {
    title: "Broadcast flood: 1,000 sockets, 64 broadcasts in flight, 128 bytes",
    unit: "delivery",
    load: ["flood", "--sockets", 1000, "--window", 64],
    figures: (raw) => ({ cpu_us: perDelivery(raw), per_second: raw.delivered / raw.seconds, ...latency(raw) }),
  },
  acks: {
    title: "Acks: 1,000 sockets, 8 events of each in flight, 128 bytes",
    unit: "ack",
    load: ["acks", "--sockets", 1000, "--window", 8],
    figures: (raw) => ({ cpu_us: raw.server_ns / 1000 / raw.acked, per_second: raw.acked / raw.seconds, ...latency(raw) }),
  },
  connect: {
    title: "Connect: 2,000 sockets after 2,000, 64 at a time (Sockhop checks a token, the others none)",
    unit: "connect",
    load: ["connect", "--sockets", 2000],
    figures: (raw) => ({
      cpu_us: raw.server_ns / 1000 / raw.sockets,
      per_second: raw.sockets / raw.seconds,
      p50_ms: raw.connect_p50_us / 1000,
      p99_ms: raw.connect_p99_us / 1000,
      p999_ms: raw.connect_p999_us / 1000,
    }),
  },
  idle: {
    title: "Idle: 8,000 sockets after 100",
    unit: "socket",
    load: ["idle", "--sockets", 8000],
    figures: (raw) => ({ kib: (raw.rss_after_kib - raw.rss_before_kib) / raw.sockets, silence_us: raw.silence_ns / 1000 }),
    flaw: (raw) => (raw.ended_in_silence ? `${raw.ended_in_silence} clients were thrown out in silence` : undefined),
  },
  rooms: {
    title: "Rooms: 10,000 sockets in 1,000 rooms, 2,000 events a second to 10 each, 128 bytes",
    unit: "delivery",
    load: ["rooms", "--sockets", 10000, "--rooms", 1000, "--rate", 2000],
    figures: delivered,
  },
  large16: {
    title: "Large payloads: 200 sockets, 20 broadcasts a second, 16 KiB",
    unit: "delivery",
    load: ["steady", "--sockets", 200, "--rate", 20, "--payload", 16384],
    figures: delivered,
  },
  large256: {
    title: "Large payloads: 50 sockets, 10 broadcasts a second, 256 KiB",
    unit: "delivery",
    load: ["steady", "--sockets", 50, "--rate", 10, "--payload", 262144],
    figures: delivered,
  },
  polling: {
    title: "Polling: 1,000 clients, 3 broadcasts a second, 128 bytes",
    unit: "delivery",
    load: ["steady", "--sockets", 1000, "--rate", 3, "--transport", "polling"],
    figures: delivered,
  },
  cluster: {
    title: "Two instances over Redis: 500 sockets on each, 20 broadcasts a second from one of them, 128 bytes",
    unit: "delivery",
    load: ["steady", "--sockets", 1000, "--rate", 20],
    figures: (raw) => ({
      cpu_us: perDelivery(raw),
      with_redis_us: (raw.server_ns + raw.also_ns) / 1000 / raw.delivered,
      near_p50_ms: raw.near_p50_us / 1000,
      near_p99_ms: raw.near_p99_us / 1000,
      far_p50_ms: raw.far_p50_us / 1000,
      far_p99_ms: raw.far_p99_us / 1000,
    }),
  },
  // Events are as much rarer as sockets are more, so that deliveries are as many: each socket rests a hundred times as long.
  growth100: growth(100, 200),
  growth1000: growth(1000, 20),
  growth10000: growth(10_000, 2),
  // Each socket gets as many events as among 10,000: their number alone is another.
  growth100_rare: rare(100),
  growth1000_rare: rare(1000),
  beside_none: beside("alone", ["--beside", 0]),
  beside_readers: beside("beside 1,000 that read", ["--beside", BESIDE]),
  beside_deaf: beside("beside 1,000 that do not read", ["--deaf", BESIDE], { flaw: whoStayed(BESIDE) }),
  // What may wait is so little that all of them are thrown out at once, after a second or so; or some later, because the kernel may take as
  // much more of what is for one as it has taken.
  beside_overflow: beside("beside 1,000 that do not read and are thrown out meanwhile", ["--deaf", BESIDE, "--fill", 32], {
    servers: ["sockhop"],
    // These are gone before they could be pinged.
    seconds: 15,
    flaw: whoStayed(0),
    env: { MAX_BACKLOG: 48 * 1024, MAX_HTTP_BUFFER_SIZE: 32 * 1024 },
  }),
};

/** How many seconds of a workload are measured: its own, or so many times what is usual. */
export const lengthOf = ({ seconds, times = 1 }, usual) => seconds ?? times * usual;

/** Besides its figures: what went wrong, and how trustworthy the measurement is. */
export function circumstances(raw, cores) {
  const seconds = raw.seconds * 1e9;
  return {
    lost: raw.lost,
    disordered: raw.disordered,
    faults: raw.duplicated + raw.strange + raw.ended,
    server_cores: raw.server_ns / seconds,
    load_cores: raw.load_ns / seconds,
    // Ticks of 10 ms: a little below zero is zero.
    others_share: Math.max(0, raw.machine_ns - raw.server_ns - raw.load_ns) / seconds / cores,
  };
}
