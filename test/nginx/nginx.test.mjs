/** Two hubs behind the real nginx, plain round-robin, no stickiness. */
import { test } from 'node:test';

import { connected, isServed } from '../client/support.mjs';
import { clientsStay } from '../support/round_robin.mjs';
import { startCluster } from './support.mjs';

clientsStay(startCluster);

test('an instance is killed: its clients go on at the other', async (t) => {
  const place = await startCluster(t);
  const token = await place.token();
  // All have upgraded: the official client has no way back from an upgrade that breaks in the middle but its heartbeat.
  const sockets = await Promise.all(Array.from({ length: 8 }, () => connected(t, place, {}, token)));
  await place.hubs[0].kill();
  for (const socket of sockets) await isServed(socket);
});
