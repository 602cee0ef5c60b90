/**
 * A balancer that is against sticky sessions: no two requests of one session in a row go to the same instance, and no upgrade
 * goes to the instance that opened the session if there are three to choose from.
 *
 * HTTP and WebSocket upgrades; no retries, no health checks: what an instance answers is what the client gets. Two kinder ways
 * to choose are there to compare with. Node built-ins only.
 *
 * Environment: `BALANCE` (default: `adversarial`; `round-robin`, `sticky`), how those choose that are not told.
 */
import { once } from 'node:events';
import http from 'node:http';

import { atEnd } from './hub.mjs';

/** How the next hub is chosen: of `hubs`, in turn `turn`, for a session of which this is known (nothing, if it is to be opened). */
const POLICIES = {
  adversarial(hubs, turn, session, isUpgrade) {
    const inTurn = hubs.map((_, n) => hubs[(turn + n) % hubs.length]);
    if (!session) return inTurn[0];
    const others = inTurn.filter((hub) => hub !== session.last);
    return (isUpgrade && others.find((hub) => hub !== session.opener)) || others[0] || inTurn[0];
  },
  'round-robin': (hubs, turn) => hubs[turn % hubs.length],
  sticky: (hubs, turn, session) => (hubs.includes(session?.opener) ? session.opener : hubs[turn % hubs.length]),
};

/**
 * Starts one in front of these hubs. Returns `{url, numRequests, upgrades, holdUpgrades, openerOf, remove, add}`: how many
 * requests each hub got; of every upgrade of a session that began with polling, who opened the session and who got the upgrade, as
 * `{sid, from, to, status}`; how to keep upgrades waiting, until what is returned is called; who opened a session; and how to take
 * a hub away or bring it back.
 */
export async function startBalancer(t, all, policy = process.env.BALANCE ?? 'adversarial') {
  const choose = POLICIES[policy];
  if (!choose) throw new Error(`BALANCE=${policy} is none of ${Object.keys(POLICIES)}`);
  const hubs = [...all];
  /** Of each session, by its id: who opened it, and who got its last request. */
  const sessions = new Map();
  const numRequests = all.map(() => 0);
  const upgrades = [];
  const agent = new http.Agent({ keepAlive: true });
  let turn = 0;
  /** What upgrades of sessions that began with polling wait for. */
  let held = null;

  const forward = (request, isUpgrade) => {
    const sid = new URL(request.url, 'http://balancer').searchParams.get('sid');
    const session = sid && (sessions.get(sid) ?? sessions.set(sid, {}).get(sid));
    turn += 1;
    const hub = choose(hubs, turn, session, isUpgrade);
    if (!hub) return {};
    if (session) session.last = hub;
    numRequests[all.indexOf(hub)] += 1;
    const { hostname, port } = new URL(hub.url);
    const { method, url: path, headers } = request;
    const outgoing = http.request({ hostname, port, method, path, headers, agent: isUpgrade ? false : agent });
    return { hub, sid, session, outgoing };
  };

  const server = http.createServer((request, response) => {
    const { hub, outgoing } = forward(request, false);
    if (!outgoing) {
      response.destroy();
      return;
    }
    outgoing.on('response', (incoming) => {
      response.writeHead(incoming.statusCode, incoming.headers);
      incoming.once('data', (chunk) => {
        // The answer that opens a session, of either revision; so that its next request goes elsewhere, too.
        const sid = /^[^{]{0,16}\{"sid":"([^"]+)"/.exec(chunk.toString('latin1'));
        if (sid) sessions.set(sid[1], { opener: hub, last: hub });
      });
      incoming.on('error', () => response.destroy());
      incoming.pipe(response);
    });
    outgoing.on('error', () => response.destroy());
    response.on('close', () => outgoing.destroy());
    request.pipe(outgoing);
  });
  server.on('upgrade', async (request, socket, head) => {
    socket.on('error', () => socket.destroy());
    if (/[?&]sid=/.test(request.url)) await held;
    const { hub, sid, session, outgoing } = forward(request, true);
    if (!outgoing) {
      socket.destroy();
      return;
    }
    const noted = { sid, from: session?.opener, to: hub, status: null };
    if (sid) upgrades.push(noted);
    const end = () => { socket.destroy(); outgoing.destroy(); };
    outgoing.on('upgrade', (incoming, upstream, upstreamHead) => {
      noted.status = 101;
      const lines = [`HTTP/1.1 101 ${incoming.statusMessage}`];
      for (let n = 0; n < incoming.rawHeaders.length; n += 2) lines.push(`${incoming.rawHeaders[n]}: ${incoming.rawHeaders[n + 1]}`);
      for (const stream of [socket, upstream]) stream.setNoDelay(true);
      socket.write(`${lines.join('\r\n')}\r\n\r\n`);
      socket.write(upstreamHead);
      upstream.write(head);
      upstream.on('error', end).on('close', end);
      socket.on('close', () => { upstream.destroy(); end(); });
      upstream.pipe(socket).pipe(upstream);
    });
    outgoing.on('response', (incoming) => {
      noted.status = incoming.statusCode;
      socket.write(`HTTP/1.1 ${incoming.statusCode} ${incoming.statusMessage}\r\nConnection: close\r\n\r\n`);
      incoming.on('error', end);
      incoming.pipe(socket);
    });
    outgoing.on('error', end);
    socket.on('close', () => outgoing.destroy());
    outgoing.end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  atEnd(t, () => {
    agent.destroy();
    server.closeAllConnections();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    numRequests,
    upgrades,
    holdUpgrades: () => {
      let letGo;
      held = new Promise((resolve) => { letGo = resolve; });
      return () => {
        held = null;
        letGo();
      };
    },
    openerOf: (sid) => sessions.get(sid)?.opener,
    remove: (hub) => { if (hubs.includes(hub)) hubs.splice(hubs.indexOf(hub), 1); },
    add: (hub) => { if (!hubs.includes(hub)) hubs.push(hub); },
  };
}
