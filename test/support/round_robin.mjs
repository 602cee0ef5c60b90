/** What clients see behind any balancer that deals requests out in turn, whichever it is: by every transport they stay, and miss nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { keepHistory } from '../client/history.support.mjs';
import { MODES, ask, atEnd, connected, eventually, receives } from '../client/support.mjs';
import { startBalancer } from './balancer.mjs';

const NUM_CLIENTS = 20;

/** Stands in front of one instance, to see which requests the balancer under test sends there. */
const observer = async (t, hub) => ({ hub, ...await startBalancer(t, [hub]) });

/** Which instance opened a session. */
const openerOf = (sid) => sid.slice(0, 8);

/**
 * Has other requests between those of the clients. Without them, clients that come one after the other make a pattern, in which
 * every upgrade lands where its session is, or none.
 */
function makeNoise(t, url) {
  const isOver = new AbortController();
  const { signal } = isOver;
  const round = () => {
    // Whatever becomes of it: the balancer ends sooner or later.
    fetch(`${url}/healthz`, { signal }).then((response) => response.text()).catch(() => {}).then(() => {
      if (!signal.aborted) setTimeout(round, Math.random() * 20);
    });
  };
  round();
  atEnd(t, () => isOver.abort());
}

/** How many sessions moved: upgrades that were not sent to who opened the session. */
async function numMoved({ fronts }) {
  const moved = await Promise.all(fronts.map(async ({ hub, upgrades }) => {
    const { instance } = await hub.readyz();
    return upgrades.filter(({ sid, status }) => status === 101 && openerOf(sid) !== instance).length;
  }));
  return moved.reduce((sum, num) => sum + num, 0);
}

/** Waits until no instance has a session. */
const isEmpty = ({ hubs }) => eventually(
  async () => (await Promise.all(hubs.map((hub) => hub.numConnections()))).every((num) => num === 0),
  'no session is left',
);

/** Declares the tests. `start(t, front)` starts two instances behind the balancer: returns `{url, redis, hubs, fronts, token}`. */
export function clientsStay(start) {
  for (const { name, options } of MODES) {
    test(`clients whose requests land anywhere stay, and miss nothing: ${name}`, async (t) => {
      const place = await start(t, observer);
      makeNoise(t, place.url);
      const token = await place.token();
      const sockets = [];
      const ends = [];
      // Until each instance has opened some, which a balancer's turn makes soon.
      while (sockets.length < 4 || new Set(sockets.map((socket) => openerOf(socket.io.engine.id))).size < place.hubs.length) {
        assert.ok(sockets.length < NUM_CLIENTS, `one instance opened all of ${sockets.length} sessions`);
        const socket = await connected(t, place, options, token);
        socket.on('disconnect', (reason) => ends.push(reason));
        sockets.push(socket);
      }
      const numbers = Array.from({ length: 50 }, (_, number) => number);
      for (const number of numbers) sockets[0].emit('test-event', number);
      for (const socket of sockets) assert.deepEqual(await receives(socket, 50), numbers);
      const payload = { text: 'é', bytes: Buffer.from([0, 255]) };
      for (const socket of sockets) assert.deepEqual(await ask(socket, 'echo', payload), [payload]);
      assert.deepEqual(ends, []);
      for (const socket of sockets) socket.disconnect();
      await isEmpty(place);
    });
  }

  test('every history is whole while clients upgrade, at whichever instance, and stay', async (t) => {
    const place = await start(t, observer);
    makeNoise(t, place.url);
    const size = { num: NUM_CLIENTS, perSecond: 20, rate: 30, staySeconds: 1 };
    const { faults, numEvents } = await keepHistory(t, place, size);
    const moved = await numMoved(place);
    t.diagnostic(`${moved} of ${NUM_CLIENTS + 1} sessions moved while ${numEvents} events were published`);
    assert.deepEqual(faults, []);
    assert.ok(moved > 0, 'a session moved');
  });
}
