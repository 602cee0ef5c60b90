/**
 * A balancer that is against sticky sessions: no two requests of one session in a row go to the same instance.
 *
 * HTTP and WebSocket upgrades; no retries, no health checks: what an instance answers is what the client gets. Node built-ins
 * only.
 */
import { once } from 'node:events';
import http from 'node:http';

import { atEnd } from './hub.mjs';

/** Starts one in front of these hubs. Returns `{url, numRequests, remove}`: how many requests each hub got, and how to take one away. */
export async function startBalancer(t, all) {
  const hubs = [...all];
  const lastOf = new Map();
  const numRequests = all.map(() => 0);
  const agent = new http.Agent({ keepAlive: true });
  let turn = 0;

  const choose = (url) => {
    const sid = new URL(url, 'http://balancer').searchParams.get('sid');
    turn += 1;
    let hub = hubs[turn % hubs.length];
    if (sid) {
      if (hub === (lastOf.get(sid) ?? ownerOf.get(sid))) hub = hubs[(turn + 1) % hubs.length];
      lastOf.set(sid, hub);
    }
    numRequests[all.indexOf(hub)] += 1;
    return hub;
  };
  // The instance that opened a session, so that the second request goes elsewhere, too.
  const ownerOf = new Map();
  const forward = (request) => {
    const hub = choose(request.url);
    const { hostname, port } = new URL(hub.url);
    const { method, url: path, headers } = request;
    return { hub, outgoing: http.request({ hostname, port, method, path, headers, agent: headers.upgrade ? false : agent }) };
  };

  const server = http.createServer((request, response) => {
    const { hub, outgoing } = forward(request);
    outgoing.on('response', (incoming) => {
      response.writeHead(incoming.statusCode, incoming.headers);
      incoming.on('data', (chunk) => {
        const sid = /^0\{"sid":"([^"]+)"/.exec(chunk.toString('latin1'));
        if (sid) ownerOf.set(sid[1], hub);
      });
      incoming.pipe(response);
    });
    outgoing.on('error', () => response.destroy());
    response.on('close', () => outgoing.destroy());
    request.pipe(outgoing);
  });
  server.on('upgrade', (request, socket, head) => {
    const { outgoing } = forward(request);
    const end = () => { socket.destroy(); outgoing.destroy(); };
    outgoing.on('upgrade', (incoming, upstream, upstreamHead) => {
      const lines = [`HTTP/1.1 101 ${incoming.statusMessage}`];
      for (let n = 0; n < incoming.rawHeaders.length; n += 2) lines.push(`${incoming.rawHeaders[n]}: ${incoming.rawHeaders[n + 1]}`);
      socket.write(`${lines.join('\r\n')}\r\n\r\n`);
      socket.write(upstreamHead);
      upstream.write(head);
      upstream.on('error', end).on('close', end);
      socket.on('error', end).on('close', () => { upstream.destroy(); end(); });
      upstream.pipe(socket).pipe(upstream);
    });
    outgoing.on('response', (incoming) => {
      socket.write(`HTTP/1.1 ${incoming.statusCode} ${incoming.statusMessage}\r\nConnection: close\r\n\r\n`);
      incoming.pipe(socket);
    });
    outgoing.on('error', end);
    socket.on('error', end);
    outgoing.end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  atEnd(t, () => {
    agent.destroy();
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${server.address().port}`, numRequests, remove: (hub) => hubs.splice(hubs.indexOf(hub), 1) };
}
