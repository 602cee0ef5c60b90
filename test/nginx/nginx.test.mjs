/** Two hubs behind the real nginx, plain round-robin, no stickiness. */
import { test } from 'node:test';

import { admitted, client, isServed } from '../client/support.mjs';
import { clientsStay } from '../support/round_robin.mjs';
import { startCluster } from './support.mjs';

clientsStay(startCluster);

test('an instance is killed: its clients go on at the other', async (t) => {
  const place = await startCluster(t);
  const token = await place.token();
  const sockets = Array.from({ length: 8 }, () => client(t, place, { auth: { token } }));
  for (const socket of sockets) await admitted(socket);
  await place.hubs[0].kill();
  for (const socket of sockets) await isServed(socket);
});
