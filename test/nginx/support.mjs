/**
 * nginx as it stands in front of two hubs: what `nginx.conf` beside this file says, with free ports, as one process that ends with the
 * test and leaves nothing outside its directory.
 *
 * Environment: `NGINX` (default: where `make test` puts it, else the system's), and that of ../support/hub.mjs.
 */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { ROOT, atEnd, eventually, freePort, startHubs, startProcess, startRedis } from '../client/support.mjs';

const CONFIGURATION = path.join(path.dirname(fileURLToPath(import.meta.url)), 'nginx.conf');
const INSTALLED = path.join(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target'), 'tools/nginx/usr/sbin/nginx');
const NGINX = [process.env.NGINX, INSTALLED, '/usr/sbin/nginx'].find((file) => file && existsSync(file)) ?? 'nginx';

/** Starts nginx in front of these hubs. Returns its `url`. */
export async function startNginx(t, hubs) {
  const directory = await mkdtemp(path.join(tmpdir(), 'sockhop-nginx-'));
  atEnd(t, () => rm(directory, { recursive: true, force: true }));
  await mkdir(path.join(directory, 'logs'));
  const port = await freePort();
  const addresses = hubs.map(({ url }) => `server ${new URL(url).host};`).join(' ');
  // As root it would become a user who may not read the directory.
  const user = process.getuid?.() === 0 ? 'user root;' : '';
  const text = (await readFile(CONFIGURATION, 'utf8'))
    .replace('${USER}', user).replace('${HUBS}', addresses).replace('${PORT}', String(port));
  const file = path.join(directory, 'nginx.conf');
  await writeFile(file, text);

  const nginx = startProcess(NGINX, ['-p', `${directory}/`, '-c', file, '-e', 'stderr'], { cwd: directory });
  let hasEnded = false;
  nginx.ended.then(() => { hasEnded = true; });
  atEnd(t, async () => {
    nginx.child.kill('SIGTERM');
    await nginx.ended;
    if (process.env.SHOW_LOGS) console.error(`--- log of nginx\n${nginx.log}`);
  });
  const url = `http://127.0.0.1:${port}`;
  await eventually(async () => hasEnded || (await fetch(`${url}/healthz`)).ok, 'an answer through nginx');
  if (hasEnded) throw new Error(`nginx ended:\n${nginx.log}`);
  return { url };
}

/** Two hubs on one Redis behind nginx, which reaches each by way of `front(t, hub)`. */
export async function startCluster(t, front = (_, hub) => hub) {
  const redis = await startRedis(t);
  const hubs = await startHubs(t, [{ REDIS_URL: redis.url }, { REDIS_URL: redis.url }]);
  for (const hub of hubs) await eventually(async () => (await hub.readyz()).ready, 'a hub that is ready');
  const fronts = [];
  for (const hub of hubs) fronts.push(await front(t, hub));
  const { url } = await startNginx(t, fronts);
  return { redis, hubs, fronts, url, token: () => hubs[0].token() };
}
