/** Two hubs behind the real nginx, plain round-robin, no stickiness. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { admitted, ask, client, eventually } from '../client/support.mjs';
import { clientsStay } from '../support/round_robin.mjs';
import { startCluster } from './support.mjs';

clientsStay(startCluster);

test('an instance is killed: its clients go on at the other', async (t) => {
  const place = await startCluster(t);
  const token = await place.token();
  const sockets = Array.from({ length: 8 }, () => client(t, place, { auth: { token } }));
  for (const socket of sockets) await admitted(socket);
  const [killed, left] = place.hubs;
  await killed.kill();
  await eventually(async () => (await left.readyz()).connections === sockets.length, 'all at the other');
  await eventually(() => sockets.every((socket) => socket.connected), 'all connected');
  for (const socket of sockets) assert.deepEqual(await ask(socket, 'echo', 1), [1]);
});
