/** The test page through Traefik, in a real Chromium: the proof that a person sees. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { TestPage, startBrowser } from '../browser/support.mjs';
import { startCluster } from './support.mjs';

let browser;
before(async () => { browser = await startBrowser(); });
after(() => browser.close());

test('three clients behind Traefik, one click, 3 of 3 received', async (t) => {
  const { traefik, instances } = await startCluster(t);
  const page = await TestPage.open(t, browser, traefik.url);
  await page.sees(/Instance .+, cluster mode\. Ready/);
  await page.register();
  await page.connect();
  // As every client begins; where each of them ends up is the balancer's affair, and the card says it.
  for (const number of [1, 2, 3]) {
    await page.part(number, 'transport', /^websocket, upgraded$/);
    await page.part(number, 'instance', /[^–]/);
    const place = await page.card(number).locator('[data-part="instance"]').textContent();
    assert.ok(instances.has(place), place);
  }
  await page.send();
  await page.verdict('3 of 3 received');
  await page.sees(/^Unchanged, .*acknowledged/);
  if (process.env.SCREENSHOT) await page.page.screenshot({ path: process.env.SCREENSHOT, fullPage: true });
  assert.deepEqual(page.complaints, []);
});
