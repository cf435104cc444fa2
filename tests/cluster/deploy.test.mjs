// What is in deploy/ works: a cluster on this machine starts, serves its page, and leaves nothing behind.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { freePort } from '../js/server.mjs';
import { until } from '../js/wait.mjs';
import { missing } from './cluster.mjs';
import { freshFolder, Part } from './part.mjs';

const skip = missing();
const root = new URL('../..', import.meta.url).pathname;

/** The first of two free ports, one after the other. */
async function freePair() {
  for (;;) {
    const port = await freePort();
    const next = net.createServer().listen(port + 1, '127.0.0.1');
    const isFree = await new Promise((resolve) => next.on('listening', () => resolve(true)).on('error', () => resolve(false)));
    next.close();
    if (isFree) return port;
  }
}

/** `deploy/cluster.sh` with ports and a folder of its own. */
class Script extends Part {
  static async make() {
    const folder = path.join(freshFolder(), 'cluster');
    // Postgres looks into it, and is not root.
    chmodSync(path.dirname(folder), 0o755);
    const [port, nodePort] = [await freePort(), await freePair()];
    const env = {
      CLUSTER: folder,
      NODES: '2',
      PORT: port,
      NODE_PORT: nodePort,
      POSTGRES_PORT: await freePort(),
      REDIS_PORT: await freePort(),
    };
    return Object.assign(new Script('cluster.sh', path.join(root, 'deploy/cluster.sh'), [], { env, cwd: root }), { folder, port, nodePort });
  }

  async isReady() {
    return this.log.includes(`ready: http://127.0.0.1:${this.port}/`);
  }

  /** All that it started. */
  get services() {
    const folder = path.join(this.folder, 'pids');
    return readdirSync(folder).map((name) => Number(readFileSync(path.join(folder, name), 'utf8')));
  }
}

test('`make cluster` knows what to do', { skip }, () => {
  assert.match(execFileSync('make', ['-n', 'cluster'], { cwd: root, encoding: 'utf8' }), /deploy\/cluster\.sh/);
});

test('cluster.sh serves the page through nginx, and Ctrl-C ends all of it', { skip, timeout: 180_000 }, async (t) => {
  const script = await Script.make();
  // Its services end with it, however it ends.
  t.after(() => script.kill());
  await script.start(120_000);
  const page = await fetch(`http://127.0.0.1:${script.port}/`);
  assert.equal(page.status, 200, script.log);
  assert.match(await page.text(), /<html/i);
  // Nodes behind a balancer believe it about the client's end; else all clients would be one.
  const byTls = await fetch(`http://127.0.0.1:${script.nodePort}/`, { headers: { 'x-forwarded-proto': 'https' } });
  assert.match(byTls.headers.get('set-cookie'), /^__Host-.*; Secure/);
  const { services } = script;
  assert.equal(services.length, 5, 'Postgres, Redis, two nodes and nginx');
  assert.equal(await script.end('SIGINT'), 0, script.log);
  assert.match(script.log, /^stopped; what was written is kept/m);
  assert.deepEqual(services.filter((pid) => existsSync(`/proc/${pid}`)), [], 'nothing is left running');
  await until(() => fetch(`http://127.0.0.1:${script.port}/`).then(() => false, () => true), 'nobody listens');
});
