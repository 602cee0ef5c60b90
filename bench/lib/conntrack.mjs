// Whether the system keeps track of connections among its own programs, which makes every send dearer: for all servers, and for many sockets
// more than for few, so that ratios change as well.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, createServer } from "node:net";

const CONNECTIONS = 200;
const COUNT = "/proc/sys/net/netfilter/nf_conntrack_count";

function count() {
  try {
    return Number(readFileSync(COUNT, "utf8"));
  } catch {
    // The system cannot.
    return 0;
  }
}

/** Opens some connections and looks whether they are counted. */
export async function isTracked() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const before = count();
  const clients = Array.from({ length: CONNECTIONS }, () => connect(server.address().port, "127.0.0.1"));
  await Promise.all(clients.map((client) => once(client, "connect")));
  // Others come and go meanwhile.
  const tracked = count() - before > CONNECTIONS / 2;
  for (const client of clients) client.destroy();
  server.close();
  return tracked;
}

export const TRACKED =
  "this system tracks connections (conntrack): every send costs more, that of many sockets most. Rules that a container runtime left behind are a usual cause: see nft list ruleset";
