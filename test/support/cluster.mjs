/**
 * Three instances on a Redis of their own behind the balancer that is against sticky sessions: to a client, and to a test that
 * does not look closely, one hub.
 */
import { HUB_BIN, atEnd, eventually, startHub, startRedis } from './hub.mjs';
import { startBalancer } from './balancer.mjs';
import { startProxy } from './proxy.mjs';

const NUM_INSTANCES = 3;

export class Cluster {
  /** Starts it; the instances' environment is `env` besides what makes them a cluster. With `proxied`, each has a proxy to Redis. */
  static async start(t, env = {}, { bin = HUB_BIN, proxied = false, num = NUM_INSTANCES, policy } = {}) {
    const cluster = new Cluster();
    cluster.redis = await startRedis(t);
    cluster.hubs = [];
    cluster.proxies = [];
    for (let n = 0; n < num; n += 1) {
      const proxy = proxied ? await startProxy(t, cluster.redis) : null;
      if (proxy) cluster.proxies.push(proxy);
      const hub = await startHub(t, { REDIS_URL: (proxy ?? cluster.redis).url, ...env }, bin);
      cluster.hubs.push(Object.assign(hub, { proxy }));
    }
    cluster.balancer = await startBalancer(t, cluster.hubs, policy);
    atEnd(t, () => { for (const proxy of cluster.proxies) proxy.gate = null; });
    await cluster.ready();
    return cluster;
  }

  get url() {
    return this.balancer.url;
  }

  get port() {
    return Number(new URL(this.url).port);
  }

  get log() {
    return this.hubs.map((hub) => hub.log).join('\n');
  }

  /** Waits until every instance takes clients, and notes their ids. */
  async ready() {
    for (const hub of this.hubs) {
      await eventually(async () => (await hub.readyz()).ready, () => `an instance that is ready: ${hub.log}`);
      hub.instance = (await hub.readyz()).instance;
    }
  }

  /** The ids of all instances. */
  async instances() {
    return (await Promise.all(this.hubs.map((hub) => hub.readyz()))).map(({ instance }) => instance);
  }

  /** How many sessions there are in all. */
  async numConnections() {
    return (await this.connections()).reduce((sum, num) => sum + num, 0);
  }

  /** How many sessions each instance that runs has. */
  async connections() {
    return Promise.all(this.hubs.filter((hub) => hub.isRunning).map(async (hub) => (await hub.readyz()).connections));
  }

  token() {
    return this.hubs[0].token();
  }

  /** Ends all instances as an operator would. Returns the first end that is not clean, if there is one. */
  async stop() {
    const ends = await Promise.all(this.hubs.map((hub) => hub.stop()));
    return ends.find(({ code }) => code !== 0) ?? ends[0];
  }

  async kill() {
    return (await Promise.all(this.hubs.map((hub) => hub.kill())))[0];
  }

  async start() {
    await Promise.all(this.hubs.map((hub) => hub.start()));
    await this.ready();
    return this;
  }
}
