/**
 * A program: three servers of the matrix (test/client/matrix_server.rs) behind the balancer that is against sticky sessions, for tests
 * that are not Node's. Says `listening on http://…`, and ends all of it when its input ends.
 *
 * Environment: that of ./hub.mjs and ./balancer.mjs, and all that begins with `PING_`, which the servers get.
 */
import { Cluster } from './cluster.mjs';
import { exampleBin } from './hub.mjs';

let end;
const program = { after: (cleanUp) => { end = cleanUp; } };
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith('PING_')));
const { url } = await Cluster.start(program, env, { bin: exampleBin('matrix') });
console.log(`listening on ${url}`);
for await (const chunk of process.stdin) void chunk;
await end();
