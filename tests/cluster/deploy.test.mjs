// The scripts and configurations in deploy/ work: a cluster on this machine starts, serves its page, and leaves nothing behind.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { freePort } from '../js/server.mjs';
import { until } from '../js/wait.mjs';
import { Wire } from '../js/wire.mjs';
import { missing, which } from './cluster.mjs';
import { freshFolder, Part } from './part.mjs';

const skip = missing('haproxy');
const root = new URL('../..', import.meta.url).pathname;

const NODES = 3;

/** The number of pages, requests and sockets while a node is frozen: without health checks some would reach that node. */
const ROUNDS = 12;

/** The time limit of each. A balancer that waits for a frozen node takes longer or fails. */
const PATIENCE_MS = 10_000;

/** The first of as many consecutive free ports as there are nodes. */
async function freePorts() {
  const isFree = async (port) => {
    const listener = net.createServer().listen(port, '127.0.0.1');
    const free = await new Promise((resolve) =>
      listener.on('listening', () => resolve(true)).on('error', () => resolve(false)),
    );
    listener.close();
    return free;
  };
  for (;;) {
    const port = await freePort();
    const others = Array.from({ length: NODES - 1 }, (_, n) => isFree(port + 1 + n));
    if ((await Promise.all(others)).every(Boolean)) return port;
  }
}

/** The HAProxy configuration that is shipped, in front of nodes on loopback ports. */
class Haproxy extends Part {
  static async start(nodePorts) {
    const [folder, port] = [freshFolder(), await freePort()];
    const config = path.join(folder, 'haproxy.cfg');
    const shipped = readFileSync(path.join(root, 'deploy/haproxy.cfg'), 'utf8');
    const ours = shipped
      .replace('bind :8080', `bind 127.0.0.1:${port}`)
      .replace(/maxconn \d+/, 'maxconn 2000')
      .replace(/node-(\d):8080/g, (_, number) => `127.0.0.1:${nodePorts[number - 1]}`);
    writeFileSync(config, ours);
    const haproxy = Object.assign(new Haproxy('haproxy', which('haproxy'), ['-db', '-f', config]), { port });
    await haproxy.start();
    return haproxy;
  }

  async isReady() {
    const answer = await fetch(`http://127.0.0.1:${this.port}/`).catch(() => undefined);
    await answer?.arrayBuffer();
    return answer?.status === 200;
  }
}

/** Requests pages, the API and sockets, round after round; returns every result other than success. */
async function unserved(port, t) {
  const statuses = { page: [], api: [], socket: [] };
  let longestMs = 0;
  const ask = async (what, answer) => {
    const begun = performance.now();
    statuses[what].push(await answer.catch((error) => error.message));
    longestMs = Math.max(longestMs, performance.now() - begun);
  };
  const get = async (where) => {
    const answer = await fetch(`http://127.0.0.1:${port}${where}`, { signal: AbortSignal.timeout(PATIENCE_MS) });
    await answer.arrayBuffer();
    return answer.status;
  };
  const open = async () => {
    const wire = await Wire.open({ port });
    wire.end();
    return wire.status;
  };
  for (let round = 0; round < ROUNDS; round++) {
    // One after the other. Four in each round: with three nodes, each kind reaches the frozen one.
    await ask('socket', open());
    await ask('page', get('/'));
    await ask('api', get('/api/documents'));
    await ask('page', get('/'));
  }
  t.diagnostic(`the longest took ${Math.round(longestMs)} ms`);
  const good = { page: 200, api: 200, socket: 101 };
  return Object.entries(statuses).flatMap(([what, found]) =>
    found.filter((status) => status !== good[what]).map((status) => `${what}: ${status}`),
  );
}

/** Runs `deploy/cluster.sh` with its own ports and folder. */
class Script extends Part {
  static async make() {
    const folder = path.join(freshFolder(), 'cluster');
    // Postgres reads the folder and does not run as root.
    chmodSync(path.dirname(folder), 0o755);
    const [port, nodePort] = [await freePort(), await freePorts()];
    const env = {
      CLUSTER: folder,
      NODES: String(NODES),
      PORT: port,
      NODE_PORT: nodePort,
      POSTGRES_PORT: await freePort(),
      REDIS_PORT: await freePort(),
    };
    return Object.assign(new Script('cluster.sh', path.join(root, 'deploy/cluster.sh'), [], { env, cwd: root }), {
      folder,
      port,
      nodePort,
    });
  }

  async isReady() {
    return this.log.includes(`ready: http://127.0.0.1:${this.port}/`);
  }

  /** All processes that it started. */
  get services() {
    const folder = path.join(this.folder, 'pids');
    return readdirSync(folder).map((name) => Number(readFileSync(path.join(folder, name), 'utf8')));
  }

  pidOf(name) {
    return Number(readFileSync(path.join(this.folder, 'pids', name), 'utf8'));
  }

  get nodePorts() {
    return Array.from({ length: NODES }, (_, n) => this.nodePort + n);
  }
}

test('the arguments of `make cluster` are valid', { skip }, () => {
  assert.match(execFileSync('make', ['-n', 'cluster'], { cwd: root, encoding: 'utf8' }), /deploy\/cluster\.sh/);
});

test('cluster.sh and HAProxy serve the page, also while a node is frozen, and Ctrl-C stops all processes', {
  skip,
  timeout: 180_000,
}, async (t) => {
  const script = await Script.make();
  // Its services end with it in every case.
  t.after(() => script.kill());
  await script.start(120_000);
  const page = await fetch(`http://127.0.0.1:${script.port}/`);
  assert.equal(page.status, 200, script.log);
  assert.match(await page.text(), /<html/i);
  // Nodes behind a balancer trust it for the client's address; otherwise all clients would be one.
  const byTls = await fetch(`http://127.0.0.1:${script.nodePort}/`, { headers: { 'x-forwarded-proto': 'https' } });
  assert.match(byTls.headers.get('set-cookie'), /^__Host-.*; Secure/);
  const { services } = script;
  assert.equal(services.length, 3 + NODES, 'Postgres, Redis, nginx and the nodes');
  const haproxy = await Haproxy.start(script.nodePorts);
  t.after(() => haproxy.kill());
  for (const { name, port } of [{ name: 'nginx', port: script.port }, haproxy]) {
    assert.deepEqual(await unserved(port, t), [], `${name} serves`);
    const frozen = script.pidOf('node-2');
    process.kill(frozen, 'SIGSTOP');
    const found = await unserved(port, t);
    process.kill(frozen, 'SIGCONT');
    assert.deepEqual(found, [], `${name} serves while a node is frozen`);
    await until(
      () => fetch(`http://127.0.0.1:${script.nodePorts[1]}/readyz`).then(({ status }) => status === 200),
      'the node is ready again',
    );
  }
  assert.equal(await script.end('SIGINT'), 0, script.log);
  assert.match(script.log, /^stopped; what was written is kept/m);
  assert.deepEqual(
    services.filter((pid) => existsSync(`/proc/${pid}`)),
    [],
    'nothing is left running',
  );
  await until(
    () =>
      fetch(`http://127.0.0.1:${script.port}/`).then(
        () => false,
        () => true,
      ),
    'no process listens',
  );
});
