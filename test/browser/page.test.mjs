/** The test page on one hub: what it shows when all is well, and what it says when something is not. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { TestPage, eventually, newUsername, startBrowser, startHub, startRedis, startStatic } from './support.mjs';

describe('the test page', () => {
  let browser;
  before(async () => { browser = await startBrowser(); });
  after(() => browser.close());

  const open = (t, url, options) => TestPage.open(t, browser, url, options);

  describe('when all is well', () => {
    for (const [transport, shown] of [
      ['WebSocket only', /^websocket$/],
      ['Polling, then upgrade', /^websocket, upgraded$/],
      ['Polling only', /^polling$/],
    ]) {
      test(`three clients receive one event: ${transport}`, async (t) => {
        const hub = await startHub(t);
        const page = await open(t, hub.url);
        const { instance } = await hub.readyz();
        await page.sees(`Instance ${instance}, single-instance mode`);
        await page.register();
        await page.field('Transport').selectOption({ label: transport });
        await page.connect();
        for (const number of [1, 2, 3]) {
          await page.part(number, 'transport', shown);
          await page.part(number, 'instance', instance);
          await page.part(number, 'socket', /^[\w-]{20}$/);
          await page.part(number, 'roundtrip', /^[\d.]+ ms$/);
        }
        await page.send();
        await page.verdict('3 of 3 received');
        await page.sees(/Unchanged, .*acknowledged/);
        for (const number of [1, 2, 3]) await page.card(number).getByText('Hello from client 1').waitFor();
        assert.deepEqual(page.complaints, []);
      });
    }

    test('a binary attachment arrives unchanged', async (t) => {
      const hub = await startHub(t);
      const page = await open(t, hub.url);
      await page.register();
      await page.connect();
      await page.field('Binary attachment').check();
      await page.field('Sent by').selectOption({ label: 'Client 2' });
      await page.send();
      await page.verdict('3 of 3 received');
      await page.sees(/^Unchanged/);
      await page.card(3).getByText('"text": "Hello from client 2"').waitFor();
      await page.card(3).getByText('‹16 bytes›').waitFor();
      assert.deepEqual(page.complaints, []);
    });

    test('a hub that speaks MessagePack is met with the client for it', async (t) => {
      const hub = await startHub(t, { PARSER: 'msgpack' });
      const page = await open(t, hub.url);
      await page.register();
      await page.connect();
      await page.field('Binary attachment').check();
      await page.send();
      await page.verdict('3 of 3 received');
      await page.sees(/^Unchanged/);
      assert.deepEqual(page.complaints, []);
    });

    test('any JSON can be sent, and what is no JSON is said to be none', async (t) => {
      const hub = await startHub(t);
      const page = await open(t, hub.url);
      await page.register();
      await page.connect();
      await page.field('Payload (JSON)').fill('{"broken": ');
      await page.send();
      await page.sees('This is not JSON');
      await page.field('Payload (JSON)').fill('[1, -2.5, null, "grüße 🙂", {"nested": [true]}]');
      await page.send();
      await page.verdict('3 of 3 received');
      await page.sees(/^Unchanged/);
      await page.card(2).getByText('[1, -2.5, null, "grüße 🙂", {"nested": [true]}]').waitFor();
    });

    test('the number of clients can be changed, while they are connected too', async (t) => {
      const hub = await startHub(t);
      const page = await open(t, hub.url);
      await page.register();
      await page.connect(3);
      await page.field('Clients').fill('5');
      await page.connect(5);
      await page.send();
      await page.verdict('5 of 5 received');
      await page.field('Clients').fill('2');
      await page.connect(2);
      await page.send();
      await page.verdict('2 of 2 received');
      await page.field('Clients').fill('21');
      await page.button('Connect all clients').click();
      await page.sees('Choose from 1 to 20 clients.');
    });

    test('twenty clients connect by polling and upgrade', async (t) => {
      const hub = await startHub(t);
      const page = await open(t, hub.url);
      await page.register();
      await page.field('Clients').fill('20');
      await page.field('Transport').selectOption({ label: 'Polling, then upgrade' });
      await page.connect(20);
      for (const number of [1, 10, 20]) await page.part(number, 'transport', /^websocket, upgraded$/);
      await page.send();
      await page.verdict('20 of 20 received');
    });

    test('more polling clients than a browser can hold are not begun', async (t) => {
      const hub = await startHub(t);
      const page = await open(t, hub.url);
      await page.register();
      await page.field('Transport').selectOption({ label: 'Polling only' });
      await page.field('Clients').fill('6');
      await page.button('Connect all clients').click();
      await page.sees('choose at most 5 clients');
      await page.field('Clients').fill('5');
      await page.connect(5);
      await page.send();
      await page.verdict('5 of 5 received');
    });

    test('the keyboard alone suffices', async (t) => {
      const hub = await startHub(t);
      const page = await open(t, hub.url);
      await page.sees('Ready');
      const { keyboard } = page.page;
      const username = newUsername();
      await page.tabTo(page.field('Username'));
      await keyboard.type(username);
      await page.tabTo(page.field('Password'));
      await keyboard.type('correct horse battery staple');
      await page.tabTo(page.button('Register'));
      await keyboard.press('Enter');
      await page.sees(`Signed in as ${username}.`);
      await page.tabTo(page.field('Clients'));
      await keyboard.press('Enter');
      await page.sees('3 of 3 connected');
      await page.tabTo(page.button('Send test event'));
      const outline = await page.button('Send test event').evaluate((button) => getComputedStyle(button).outlineStyle);
      assert.equal(outline, 'solid', 'the focus can be seen');
      await keyboard.press('Enter');
      await page.verdict('3 of 3 received');
      await page.tabTo(page.field('Payload (JSON)'), 'Shift+Tab');
      await keyboard.press('Control+Enter');
      await page.card(3).locator('.total').filter({ hasText: /^2$/ }).waitFor();
      assert.deepEqual(page.complaints, []);
    });

    test('a phone of 360 pixels needs no sideways scrolling', async (t) => {
      const hub = await startHub(t);
      const page = await open(t, hub.url, { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
      assert.equal(await page.overflow(), 0, 'at first');
      await page.register();
      await page.connect();
      await page.field('Payload (JSON)').fill(JSON.stringify({ unbreakable: 'x'.repeat(400) }));
      await page.send();
      await page.verdict('3 of 3 received');
      assert.equal(await page.overflow(), 0, 'with cards full of long words');
    });

    test('a reload keeps the token, another tab does not see it', async (t) => {
      const hub = await startHub(t);
      const page = await open(t, hub.url);
      const username = await page.register();
      await page.page.reload();
      await page.sees(`Signed in as ${username}.`);
      const other = await page.page.context().newPage();
      await other.goto(hub.url);
      await other.getByLabel('Username').waitFor();
      await page.button('Forget').click();
      await page.page.reload();
      await page.field('Username').waitFor();
    });
  });

  describe('says in words', () => {
    test('that a client was not connected, and which', async (t) => {
      const hub = await startHub(t);
      const page = await open(t, hub.url);
      await page.send();
      await page.verdict('Nothing was sent');
      await page.sees('No client is connected.');
      await page.register();
      await page.connect(3);
      await page.field('Clients').fill('4');
      await page.field('Clients').blur();
      await page.send();
      await page.verdict('3 of 4 received – client 4 did not, it is not connected');
    });

    test('that the password is wrong, or the name is taken', async (t) => {
      const hub = await startHub(t);
      const page = await open(t, hub.url);
      const { user } = await hub.register();
      await page.fillAccount(user.username, 'not the right password');
      await page.button('Log in').click();
      await page.sees('Then press Register.');
      await page.fillAccount(user.username);
      await page.button('Register').click();
      await page.sees('otherwise choose another');
      await page.field('Password').press('Enter');
      await page.sees(`Signed in as ${user.username}.`);
    });

    test('which field is missing, and what the hub has against it', async (t) => {
      const hub = await startHub(t);
      const page = await open(t, hub.url);
      await page.button('Register').click();
      await page.sees('Enter a username.');
      await page.sees('Enter a password.');
      await page.fillAccount('!', 'x');
      await page.button('Register').click();
      await page.page.locator('#password-error:not(:empty)').waitFor();
      assert.notEqual(await page.page.locator('#password-error').textContent(), 'Enter a password.');
    });

    test('that a token is missing or no good', async (t) => {
      const hub = await startHub(t);
      const page = await open(t, hub.url);
      await page.button('Connect all clients').click();
      await page.sees('The hub asks for a token, and there is none.');
      await page.useToken('garbage.garbage.garbage');
      await page.button('Connect all clients').click();
      await page.sees('The hub does not accept this token');
      await page.sees('Unauthorized: token_invalid');
      await page.allCards('refused', 3);
      await page.register();
      await page.connect();
    });

    test('that a token has expired', async (t) => {
      const hub = await startHub(t, { JWT_EXPIRES_IN: '1' });
      const page = await open(t, hub.url);
      await page.register();
      await page.sees('The token has expired: log in again.');
      // The hub's clock decides, and it counts whole seconds: it may still admit for a moment what the page calls expired.
      await eventually(async () => {
        await page.button('Disconnect all').click();
        await page.button('Connect all clients').click();
        await page.page.waitForFunction(() => [...document.querySelectorAll('.card')].every(
          (card) => ['connected', 'refused'].includes(card.dataset.state),
        ));
        return await page.page.locator('.card[data-state="refused"]').count() === 3;
      }, 'the refusal of an expired token');
      await page.sees('The token has expired. Log in again in step 2');
    });

    test('that nobody answers', async (t) => {
      const hub = await startHub(t);
      const page = await open(t, hub.url);
      await page.sees('Ready');
      await page.register();
      const gone = await startHub(t);
      await gone.kill();
      await page.field('Server address').fill(gone.url);
      await page.button('Check').click();
      await page.sees(`No server answers at ${gone.url}. Is it running`);
      // The token of one hub is not another's business.
      await page.field('Username').waitFor();
      await page.field('Server address').fill(hub.url);
      await page.connect();
      await page.field('Server address').fill(gone.url);
      await page.button('Connect all clients').click();
      await page.page.locator('#connect-problem', { hasText: `No server answers at ${gone.url}.` }).waitFor();
      await page.allCards('reconnecting', 3);
      await page.field('Server address').fill('ftp://nowhere');
      await page.button('Check').click();
      await page.sees('must begin with http:// or https://');
    });

    test('that the hub went away; and all is well again when it returns', async (t) => {
      const hub = await startHub(t);
      const page = await open(t, hub.url);
      await page.register();
      await page.connect();
      // A client that is between its transports when the hub dies has no request under way: it notices by its ping time-out alone.
      for (const number of [1, 2, 3]) await page.part(number, 'transport', /^websocket, upgraded$/);
      await hub.kill();
      await page.sees(`No server answers at ${hub.url}.`);
      await page.sees('The clients keep trying and come back by themselves.');
      await page.card(2).getByText('reconnecting').waitFor();
      await hub.start();
      await page.sees('3 of 3 connected');
      await page.sees('Ready');
      await page.send();
      await page.verdict('3 of 3 received');
      await page.sees(/^Unchanged/);
      assert.equal(await page.page.locator('#connect-problem').textContent(), '');
    });
  });

  describe('in a cluster', () => {
    test('says that it is one, and when its Redis is gone: events still reach this instance’s clients', async (t) => {
      const redis = await startRedis(t);
      const hub = await startHub(t, { REDIS_URL: redis.url });
      const page = await open(t, hub.url);
      await page.sees(/Instance .+, cluster mode\. Ready/);
      await page.register();
      await page.connect();
      await redis.kill();
      await eventually(async () => (await hub.readyz()).redis.state === 'down', 'Redis is down');
      await page.button('Check').click();
      await page.sees('It does not reach its Redis');
      await page.send();
      await page.verdict('3 of 3 received');
      await redis.start();
      await eventually(async () => (await hub.readyz()).redis.state === 'up', 'Redis is up');
      await page.button('Check').click();
      await page.sees('cluster mode. Ready');
    });
  });

  describe('from another web server', () => {
    test('works when FRONTEND_URL lists its origin', async (t) => {
      const other = await startStatic(t);
      const hub = await startHub(t, { FRONTEND_URL: other.url });
      for (const transport of ['WebSocket only', 'Polling, then upgrade']) {
        const page = await open(t, `${other.url}/test/websocket-test.html?server=${hub.url}`);
        await page.sees('Ready');
        assert.equal(await page.field('Server address').inputValue(), hub.url);
        await page.register();
        await page.field('Transport').selectOption({ label: transport });
        await page.connect();
        await page.send();
        await page.verdict('3 of 3 received');
      }
    });

    test('names FRONTEND_URL when it does not list its origin', async (t) => {
      const other = await startStatic(t);
      const hub = await startHub(t, { FRONTEND_URL: 'http://elsewhere.example' });
      const page = await open(t, `${other.url}/test/websocket-test.html?server=${hub.url}`);
      await page.sees(`The server at ${hub.url} is up but does not allow this page’s origin, ${other.url}. Start the hub with FRONTEND_URL=${other.url}.`);
      // A token from elsewhere does not help: the WebSocket, too, is refused.
      await page.useToken(await hub.token());
      for (const transport of ['WebSocket only', 'Polling only']) {
        await page.field('Transport').selectOption({ label: transport });
        await page.button('Connect all clients').click();
        await page.allCards('refused', 3);
        await page.page.locator('#connect-problem', { hasText: `FRONTEND_URL=${other.url}` }).waitFor();
      }
    });
  });
});
