// ioredis and node-redis against a ring: one connection and the cluster client of each,
// while the ring changes and nodes die.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { setTimeout as pause } from 'node:timers/promises';

const require = createRequire(process.env.ANNULUS_MODULES + '/');
const Redis = require('ioredis');
const { createClient, createCluster } = require('redis');
const port = Number(process.env.ANNULUS_PORT);
const host = process.env.ANNULUS_HOST;

// What both libraries are asked, by their own names for it.
async function check(name, ask, pipeline) {
  await ask('DEL', `${name}:n`); await ask('DEL', `${name}:s`); await ask('DEL', `${name}:h`); await ask('DEL', `${name}:l`);
  assert.equal(await ask('SET', `${name}:a`, 'x', 'EX', '100'), 'OK');
  assert.equal(await ask('GET', `${name}:a`), 'x');
  assert.equal(await ask('SET', `${name}:l`, '1', 'NX'), 'OK');
  assert.equal(await ask('SET', `${name}:l`, '2', 'NX'), null);
  assert.equal(await ask('INCR', `${name}:n`), 1);
  assert.equal(await ask('INCRBY', `${name}:n`, '4'), 5);
  assert.equal(await ask('SADD', `${name}:s`, 'a', 'b'), 2);
  assert.deepEqual([...(await ask('SMEMBERS', `${name}:s`))].sort(), ['a', 'b']);
  assert.equal(await ask('HSET', `${name}:h`, 'f', '1'), 1);
  assert.equal(await ask('HINCRBY', `${name}:h`, 'f', '2'), 3);
  await assert.rejects(ask('INCR', `${name}:s`), /WRONGTYPE/);
  const replies = await pipeline(200, (at) => `${name}:p${at}`);
  assert.deepEqual(replies, Array.from({ length: 200 }, (_, at) => String(at)));
}

// Writes number after number while the script ANNULUS_<what> runs. What was acknowledged has to be there after.
async function through(name, what, set, get) {
  const written = [];
  let [failed, pauseMax, last, code] = [0, 0, Date.now(), undefined];
  const script = spawn('sh', ['-c', process.env[`ANNULUS_${what}`]], { stdio: 'inherit' });
  script.on('exit', (exit) => { code = exit ?? -1; });
  const end = Date.now() + 6000;
  for (let number = 1; code === undefined || Date.now() < end; number++) {
    try {
      await set(`${name}:${what}:${number}`, String(number));
      written.push(number);
      pauseMax = Math.max(pauseMax, Date.now() - last);
      last = Date.now();
    } catch (error) {
      failed++;
      console.log(`${name}: ${error}`);
      await pause(50);
    }
  }
  assert.equal(code, 0, `the script ${what} failed`);
  for (const number of written) {
    for (let attempt = 0; ; attempt++) {
      try { assert.equal(await get(`${name}:${what}:${number}`), String(number)); break; } catch (error) {
        if (error instanceof assert.AssertionError || attempt > 100) throw error;
        await pause(100);
      }
    }
  }
  console.log(`${name}, ${what}: ${written.length} written, ${failed} failed, longest pause ${pauseMax / 1000} s`);
  assert.ok(written.length >= 60, 'too few');
  assert.ok(what !== 'RESIZE' || failed === 0, 'failures while nobody died');
}

const io = new Redis(port, host);
await check('ioredis', (...words) => io.call(...words), async (count, key) => {
  const pipeline = io.pipeline();
  for (let at = 0; at < count; at++) pipeline.set(key(at), at).get(key(at));
  return (await pipeline.exec()).filter((_, at) => at % 2).map(([error, value]) => { assert.ifError(error); return value; });
});
assert.deepEqual(await io.hgetall('ioredis:h'), { f: '3' });
assert.ok((await io.info()).includes('annulus_version'));
console.log('ioredis: plain');

const ioCluster = new Redis.Cluster([{ host, port }], { scaleReads: 'all' });
await check('ioredis-cluster', (name, ...words) => ioCluster[name.toLowerCase()](...words), async (count, key) =>
  Promise.all(Array.from({ length: count }, async (_, at) => { await ioCluster.set(key(at), at); return ioCluster.get(key(at)); })));
console.log('ioredis: cluster, reads from all nodes');
for (const what of ['RESIZE', 'TROUBLE']) {
  await through('ioredis-cluster', what, (key, value) => ioCluster.set(key, value), (key) => ioCluster.get(key));
}
ioCluster.disconnect();
io.disconnect();

for (const RESP of [2, 3]) {
  const client = createClient({ url: `redis://${host}:${port}`, RESP });
  client.on('error', () => {});
  await client.connect();
  await check(`node-redis-${RESP}`, (...words) => client.sendCommand(words), async (count, key) => {
    const multi = Array.from({ length: count }, (_, at) => client.set(key(at), String(at)).then(() => client.get(key(at))));
    return Promise.all(multi);
  });
  assert.deepEqual({ ...(await client.hGetAll(`node-redis-${RESP}:h`)) }, { f: '3' });
  const seen = [];
  for await (const keys of client.scanIterator({ MATCH: `node-redis-${RESP}:p*`, COUNT: 100 })) seen.push(...[keys].flat());
  assert.equal(new Set(seen).size, 200);
  console.log(`node-redis: plain, RESP${RESP}`);
  client.destroy();
}
const cluster = createCluster({ rootNodes: [{ url: `redis://${host}:${port}` }], useReplicas: true });
cluster.on('error', () => {});
await cluster.connect();
await cluster.del('node-cluster:n');
assert.equal(await cluster.incr('node-cluster:n'), 1);
assert.equal(await cluster.sAdd('node-cluster:s', ['a']), await cluster.sRem('node-cluster:s', 'a'));
for (let at = 0; at < 200; at++) await cluster.set(`node-cluster:${at}`, String(at));
for (let at = 0; at < 200; at++) assert.equal(await cluster.get(`node-cluster:${at}`), String(at));
console.log('node-redis: cluster');
for (const what of ['RESIZE', 'TROUBLE']) {
  await through('node-cluster', what, (key, value) => cluster.set(key, value), (key) => cluster.get(key));
}
process.exit(0);
