/**
 * `docker compose up --build` as a person would, and the proof through the published port. `make compose-test` runs it.
 *
 * Builds the image and starts the whole cluster of docker-compose.yml under a project name of its own, so a cluster that
 * already runs is left alone; afterwards everything of it is gone but the image. Takes what the image takes to build.
 * Environment: `COMPOSE` (default: `docker compose`, else `docker-compose`), `HTTP_PORT` (default: a free one), `SHOW_LOGS`.
 * The packages are those of test/client and test/browser.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';

import { TestPage, startBrowser } from '../browser/support.mjs';
import {
  Entrance, ROOT, account, arrive, arriveAll, ask, atEnd, census, crosses, eventually, freePort, newUsername, receivesProper,
} from '../traefik/support.mjs';

const SERVICES = ['redis', 'hub-1', 'hub-2', 'traefik'];
const GRACE = 10_000;
const PROJECT = `sockhop-test-${process.pid}`;
const COMPOSE = (process.env.COMPOSE
  ?? (spawnSync('docker', ['compose', 'version']).status === 0 ? 'docker compose' : 'docker-compose')).split(' ');

/** Containers start within seconds, or something is wrong. */
const STARTS_WITHIN = 60_000;

let entrance;

/** Runs a program in the repository and returns what it prints to its standard output. Both outputs are told if it fails. */
async function run(command, ...args) {
  const child = spawn(command, args, {
    cwd: ROOT,
    env: { ...process.env, HTTP_PORT: new URL(entrance.url).port },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const printed = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) {
    child[name].setEncoding('utf8').on('data', (chunk) => {
      printed[name] += chunk;
      if (process.env.SHOW_LOGS) process.stderr.write(chunk);
    });
  }
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`${[command, ...args].join(' ')} ended with ${code}:\n${printed.stdout}${printed.stderr}`);
  return printed.stdout;
}

const [program, ...programArgs] = COMPOSE;
const compose = (...args) => run(program, ...programArgs, '-p', PROJECT, ...args);
const lines = (text) => text.split('\n').filter(Boolean);

async function container(service) {
  const [id] = lines(await run(
    'docker', 'ps', '-aq', '-f', `label=com.docker.compose.project=${PROJECT}`, '-f', `label=com.docker.compose.service=${service}`,
  ));
  const [found] = JSON.parse(await run('docker', 'inspect', id));
  return found;
}

const healthy = (...services) => Promise.all(services.map((service) => eventually(
  async () => (await container(service)).State.Health.Status === 'healthy', `${service} is healthy`, STARTS_WITHIN,
)));

/** Does it and tells how long that took. */
async function timed(t, what, action) {
  const began = performance.now();
  const result = await action();
  t.diagnostic(`${what}: ${((performance.now() - began) / 1000).toFixed(1)} s`);
  return result;
}

/** Waits until Traefik deals requests out to two instances that are ready. */
const bothServe = () => eventually(async () => {
  const seen = new Set();
  for (let number = 0; number < 4; number += 1) {
    const { status, body } = await entrance.get('/readyz');
    if (status !== 200) return false;
    seen.add(JSON.parse(body).instance);
  }
  return seen.size === 2;
}, 'both instances serve', STARTS_WITHIN);

async function proof(t, token) {
  const sockets = await arriveAll(t, entrance, token, 3);
  assert.equal(census(sockets).size, 2, 'clients are on both instances');
  const [first] = sockets;
  await crosses(first, sockets.find(({ instance }) => instance !== first.instance));
  await crosses(sockets.find(({ instance }) => instance !== first.instance), first);
  for (const socket of sockets) await ask(socket, 'test-event', { from: socket.id });
  // In any order: what comes from the other instance may come after what was sent later at one's own.
  const expected = sockets.map(({ id }) => id).sort();
  for (const socket of sockets) {
    assert.deepEqual((await receivesProper(socket, 3)).map(({ from }) => from).sort(), expected);
  }
  return sockets;
}

// One after the other on one cluster: each goes on where the last one left it.
describe('docker compose', { concurrency: 1 }, () => {
  const username = newUsername();
  let token;

  before(async () => {
    entrance = new Entrance(`http://localhost:${process.env.HTTP_PORT ?? await freePort()}`);
  });
  after(() => compose('down', '-v', '--remove-orphans'));

  test('up --build: all that is in it becomes healthy', async (t) => {
    await timed(t, 'build', () => compose('build'));
    await timed(t, 'up', () => compose('up', '--build', '-d'));
    await timed(t, 'healthy', () => healthy(...SERVICES));
    await bothServe();
    const [image] = JSON.parse(await run('docker', 'inspect', (await container('hub-1')).Image));
    t.diagnostic(`image: ${(image.Size / 1e6).toFixed(1)} MB`);
  });

  test('the page and the client’s bundle are in the image, and the hub is nobody’s root', async () => {
    const page = await entrance.get('/');
    assert.equal(page.status, 200);
    assert.match(page.body, /Sockhop/);
    const response = await fetch(`${entrance.url}/socket.io/socket.io.js`, { redirect: 'manual' });
    assert.equal(response.status, 200, 'a redirect to the CDN would mean that npm’s files are missing');
    for (const service of ['hub-1', 'hub-2']) {
      assert.equal((await compose('exec', '-T', service, 'id', '-u')).trim(), '10001');
    }
  });

  test('three clients on both instances, and one event of each reaches all', async (t) => {
    ({ access_token: token } = await entrance.register(username));
    await proof(t, token);
  });

  test('the page: three clients, one click, 3 of 3 received', async (t) => {
    const browser = await startBrowser();
    atEnd(t, () => browser.close());
    const page = await TestPage.open(t, browser, entrance.url);
    await page.sees(/Instance .+, cluster mode\. Ready/);
    await page.register();
    await page.field('Transport').selectOption({ label: 'WebSocket only' });
    await page.connect();
    await page.send();
    await page.verdict('3 of 3 received');
    await page.sees(/on 2 instances/);
    assert.deepEqual(page.complaints, []);
  });

  test('stopping a hub is clean and in time; its clients go on at the other', async (t) => {
    const sockets = await arriveAll(t, entrance, token, 4);
    const began = performance.now();
    await compose('stop', 'hub-2');
    const took = performance.now() - began;
    t.diagnostic(`stop of a hub: ${(took / 1000).toFixed(1)} s`);
    const { State: state } = await container('hub-2');
    assert.equal(state.ExitCode, 0, 'it ended by itself');
    assert.ok(took < GRACE, `stopped after ${took} ms`);
    await eventually(
      () => sockets.every(({ connected, instance }) => connected && instance && instance === sockets[0].instance),
      () => `all at one: ${sockets.map(({ instance, disconnects, errors }) => `${instance} ${disconnects} ${errors}`).join('; ')}`,
    );
    t.diagnostic(`moved after ${((performance.now() - began) / 1000).toFixed(1)} s; attempts that failed: ${
      sockets.flatMap(({ errors }) => errors).length}`);
    assert.equal(sockets.filter(({ disconnects }) => disconnects.length).length, 2, 'only half of them had to move');
    for (const socket of sockets) await ask(socket, 'test-event', 'moved');
    for (const socket of sockets) assert.deepEqual(await receivesProper(socket, 4), Array(4).fill('moved'));
  });

  test('a hub that is started again takes its share', async (t) => {
    await compose('start', 'hub-2');
    await healthy('hub-2');
    await bothServe();
    await proof(t, token);
  });

  test('a hub that is killed is started again by itself', async (t) => {
    const { State: { Pid: pid } } = await container('hub-1');
    try {
      // From outside, as the kernel would: `docker kill` counts as a person’s wish, after which nothing is restarted.
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      t.skip(`the container’s process is out of reach (${error.code}); root on the machine of the containers can kill it`);
      return;
    }
    await eventually(async () => {
      const { State: state, RestartCount: restarts } = await container('hub-1');
      return restarts === 1 && state.Health.Status === 'healthy';
    }, 'the restart', STARTS_WITHIN);
    await bothServe();
    await proof(t, token);
  });

  test('Redis restarted: accounts and the token key are still there, and events cross again', async (t) => {
    const socket = await arrive(t, entrance, token);
    await timed(t, 'restart of Redis', () => compose('restart', 'redis'));
    await healthy('redis');
    await eventually(() => account(entrance, 'login', username), 'the account is still there', STARTS_WITHIN);
    await proof(t, token);
    assert.deepEqual(socket.disconnects, [], 'a client of the hub has not noticed');
  });

  test('the hubs keep to what they say: neither has logged an error', async () => {
    for (const service of ['hub-1', 'hub-2']) {
      const log = await compose('logs', '--no-color', service);
      assert.match(log, /Redis adapter configured for WebSocket scalability/);
      assert.doesNotMatch(log, /\bERROR\b|panicked/);
    }
  });

  test('down -v leaves nothing behind', async (t) => {
    await timed(t, 'down', () => compose('down', '-v'));
    const label = `label=com.docker.compose.project=${PROJECT}`;
    assert.deepEqual(lines(await run('docker', 'ps', '-aq', '-f', label)), []);
    assert.deepEqual(lines(await run('docker', 'network', 'ls', '-q', '-f', label)), []);
    assert.deepEqual(lines(await run('docker', 'volume', 'ls', '-q', '-f', label)), []);
  });
});
