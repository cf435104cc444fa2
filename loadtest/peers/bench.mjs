// Measures Copydesk and its peers side by side: the same machine, the same load, one server after the other.
//
//   node bench.mjs                     everything: about a quarter of an hour
//   node bench.mjs --runs 1 --seconds 2 --only hot --servers copydesk,sharedb
//   node bench.mjs --cluster           several nodes instead, on one Postgres and one Redis
//
// Each figure is the median of --runs runs, each on a server that was started for it with nothing in its store. All stores
// are in one folder (--data, by default the system's temporary one): it should be on a disk, not in memory, because
// Copydesk and Postgres both wait for it. The load comes from copydesk-loadtest, which shares the processors with the
// server: where it is the slower of the two, Copydesk's figure is a lower bound.
//
// Hocuspocus is driven by real Yjs clients (yjs-load.mjs), with the same scenarios. What is not the same: its acks are of memory and
// Copydesk's of the disk; its clients all run in one process of Node, which may be the limit before the server is
// (`client_cpu` near 1). Processor time of the server per delivery is comparable, since clients do not count in it.
//
// Exits with 1 when a run failed, and with --strict also when a target was missed.

import { execFileSync, spawn } from 'node:child_process';
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { cpus, loadavg, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { hop } from './hop.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, '../..');

const { values: options } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '6' },
    only: { type: 'string', default: '' },
    servers: { type: 'string' },
    cluster: { type: 'boolean', default: false },
    data: { type: 'string', default: tmpdir() },
    json: { type: 'string' },
    build: { type: 'boolean', default: true },
    strict: { type: 'boolean', default: false },
  },
  allowNegative: true,
});

const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');
const binary = (name) => join(target, 'release', name);
const chosen = (
  options.servers ?? (options.cluster ? 'nodes,peers' : 'copydesk,sharedb,postgres,hocuspocus,bare')
).split(',');
const work = mkdtempSync(join(options.data, 'copydesk-bench-'));
/** What has to be stopped, newest last. */
const running = [];

// ---- the servers ----

/** How each server is started: `start` gets a free port, an empty folder, and how many nodes of it are wanted. */
const servers = {
  copydesk: {
    name: 'Copydesk',
    async start(port, folder) {
      const child = run(binary('copydesk'), ['serve', '--open', '--listen', `127.0.0.1:${port}`, '--data', folder], {
        cwd: folder,
      });
      await answers(port, child);
      return { child, url: `ws://127.0.0.1:${port}/ws` };
    },
  },
  sharedb: {
    name: 'ShareDB, memory',
    async start(port) {
      const child = run('node', [join(here, 'sharedb.mjs'), '--port', `${port}`]);
      await answers(port, child);
      return { child, url: `ws://127.0.0.1:${port}/` };
    },
  },
  postgres: {
    name: 'ShareDB, Postgres',
    async start(port) {
      const url = await freshDatabase();
      const child = run('node', [join(here, 'sharedb.mjs'), '--port', `${port}`, '--postgres', url]);
      await answers(port, child);
      return { child, url: `ws://127.0.0.1:${port}/` };
    },
  },
  hocuspocus: {
    name: 'Hocuspocus, memory',
    // It speaks Yjs' protocol: its clients are Yjs', in one process of Node.
    loader: ['node', join(here, 'yjs-load.mjs')],
    async start(port) {
      const child = run('node', [join(here, 'hocuspocus.mjs'), '--port', `${port}`]);
      await answers(port, child);
      return { child, url: `ws://127.0.0.1:${port}/` };
    },
  },
  bare: {
    name: 'bare actix-ws loop',
    unchecked: true,
    async start(port) {
      const child = run(binary('examples/bare'), [`127.0.0.1:${port}`]);
      await answers(port, child);
      return { child, url: `ws://127.0.0.1:${port}/ws` };
    },
  },
  nodes: {
    name: 'Copydesk',
    async start(port, folder, count) {
      const [store, redis] = [await freshDatabase(), await freshRedis(folder)];
      const parameters = ['serve', '--open', '--store', store, '--redis', redis];
      const nodes = await several(count, port, (at, name) =>
        run(binary('copydesk'), [...parameters, '--node', name, '--listen', `127.0.0.1:${at}`], { cwd: folder }),
      );
      const ownerOf = (id) => {
        const said = execFileSync(binary('copydesk'), ['where', `loadtest/${id}`, '--store', store], {
          encoding: 'utf8',
        });
        return Number(/^owner +node-(\d+)/m.exec(said)[1]) - 1;
      };
      return { ...nodes, url: nodes.ports.map((at) => `ws://127.0.0.1:${at}/ws`).join(), redis, ownerOf };
    },
  },
  peers: {
    name: 'ShareDB, Postgres and Redis',
    async start(port, folder, count) {
      const parameters = ['--postgres', await freshDatabase(), '--redis', await freshRedis(folder)];
      const nodes = await several(count, port, (at) =>
        run('node', [join(here, 'sharedb.mjs'), '--port', `${at}`, ...parameters]),
      );
      return { ...nodes, url: nodes.ports.map((at) => `ws://127.0.0.1:${at}/`).join() };
    },
  },
};

/** Starts so many nodes one after the other, the first on `port`, and waits until all listen. */
async function several(count, port, start) {
  const ports = [port];
  while (ports.length < count) ports.push(await freePort());
  let child;
  for (const [n, at] of ports.entries()) {
    child = start(at, `node-${n + 1}`);
    await answers(at, child);
  }
  // Rings agree within two heartbeats.
  await sleep(1500);
  return { child, ports };
}

async function freshRedis(folder) {
  const port = await freePort();
  const child = run('redis-server', [
    '--port',
    `${port}`,
    '--bind',
    '127.0.0.1',
    '--dir',
    folder,
    '--save',
    '',
    '--appendonly',
    'no',
  ]);
  await answers(port, child);
  return `redis://127.0.0.1:${port}`;
}

// ---- what is measured ----

const opsPerSecond = { key: 'ops_per_second', show: (value) => `${Math.round(value).toLocaleString('en')} ops/s` };
const perDelivery = { key: 'server_cpu_us_per_delivery', lower: true, show: (value) => `${value.toFixed(2)} µs` };
const millis = (key) => ({ key, lower: true, show: (value) => `${(value / 1000).toFixed(1)} ms` });
const stores = ['copydesk', 'sharedb', 'postgres'];

const alone = [
  ...[1, 10, 50, 200].map((writers) => ({
    id: `hot-${writers}`,
    name: `${writers} writer${writers > 1 ? 's' : ''}, one document of 2,000 letters`,
    arguments: ['hot', '--writers', `${writers}`],
    servers: [...stores, 'hocuspocus'],
    figures: [opsPerSecond, millis('ack_p99_us')],
  })),
  {
    id: 'hot-1mb',
    name: '10 writers, one document of 1 MB',
    arguments: ['hot', '--writers', '10', '--chars', '1000000'],
    servers: stores,
    figures: [opsPerSecond, millis('ack_p99_us')],
  },
  {
    id: 'open',
    name: 'open 1 MB that was just edited, p50',
    arguments: ['open', '--chars', '1000000'],
    servers: stores,
    figures: [millis('open_p50_us')],
  },
  {
    id: 'fanout',
    name: '3,000 readers, 10 ops/s',
    arguments: ['fanout', '--readers', '3000', '--rate', '10'],
    servers: ['copydesk', 'sharedb', 'hocuspocus', 'bare'],
    figures: [perDelivery, millis('delivery_p99_us')],
  },
  {
    id: 'gathered',
    name: '20 writers without pause, 500 readers',
    arguments: ['fanout', '--readers', '500', '--writers', '20', '--rate', '0'],
    servers: ['copydesk', 'sharedb', 'bare'],
    figures: [
      perDelivery,
      { key: 'deliveries_per_second', show: (value) => `${Math.round(value).toLocaleString('en')}/s` },
    ],
  },
  {
    id: 'idle',
    name: 'memory of an idle connection, of 5,000',
    arguments: ['idle', '--connections', '5000'],
    servers: ['copydesk', 'sharedb'],
    figures: [{ key: 'server_bytes_per_connection', lower: true, show: (value) => `${(value / 1024).toFixed(1)} KiB` }],
  },
  {
    id: 'many',
    name: '1,000 documents, 2 typists each, without pause',
    arguments: ['many', '--docs', '1000', '--clients', '2', '--rate', '0'],
    servers: stores,
    figures: [opsPerSecond, millis('ack_p99_us')],
  },
];

const together = [
  {
    id: 'two-hot',
    name: '50 writers on one document, half on each of two nodes',
    nodes: 2,
    arguments: ['hot', '--writers', '50'],
    servers: ['nodes', 'peers'],
    figures: [opsPerSecond, millis('ack_p99_us'), millis('delivery_p99_us')],
  },
  {
    id: 'three-many',
    name: '1,000 documents, 2 typists each, spread over three nodes, without pause',
    nodes: 3,
    arguments: ['many', '--docs', '1000', '--clients', '2', '--rate', '0'],
    servers: ['nodes', 'peers'],
    figures: [opsPerSecond, millis('ack_p99_us')],
  },
  {
    id: 'three-paced',
    name: 'the same at 5.1 letters a second each',
    nodes: 3,
    arguments: ['many', '--docs', '1000', '--clients', '2', '--rate', '5.1', '--warmup', '3'],
    servers: ['nodes'],
    figures: [opsPerSecond, millis('ack_p99_us')],
  },
  {
    id: 'two-hop',
    name: 'a lone ack at the median: at the owner, by another node; a hop over Redis (XADD to XREAD)',
    nodes: 2,
    probe: hop,
    servers: ['nodes'],
    figures: ['owner_ack_p50_us', 'forwarder_ack_p50_us', 'redis_hop_p50_us'].map(millis),
  },
];

const scenarios = options.cluster ? together : alone;
const ours = options.cluster ? 'nodes' : 'copydesk';

// A target compares one figure with another, or with a fixed value.
const targets = [
  { text: '50 writers ≥ 200 × ShareDB, Postgres', value: ratio('hot-50', 'postgres'), least: 200 },
  { text: '50 writers ≥ 20 × ShareDB, memory', value: ratio('hot-50', 'sharedb'), least: 20 },
  { text: '200 writers ≥ 50 × ShareDB, memory', value: ratio('hot-200', 'sharedb'), least: 50 },
  { text: '1 writer ≥ 3 × ShareDB, Postgres', value: ratio('hot-1', 'postgres'), least: 3 },
  {
    text: '1 MB ≥ 0.9 × 2,000 letters, 10 writers',
    value: () => of('hot-1mb', 'copydesk') / of('hot-10', 'copydesk'),
    least: 0.9,
  },
  { text: 'open 1 MB ≤ 10 ms', value: () => of('open', 'copydesk') / 1000, most: 10, unit: ' ms' },
  {
    text: 'a lone delivery ≤ 1.15 × the bare loop',
    value: () => of('fanout', 'copydesk') / of('fanout', 'bare'),
    most: 1.15,
  },
  { text: 'a gathered delivery ≤ 1 µs', value: () => of('gathered', 'copydesk'), most: 1, unit: ' µs' },
  { text: 'an idle connection ≤ 13 KiB', value: () => of('idle', 'copydesk') / 1024, most: 13, unit: ' KiB' },
  { text: '1,000 documents ≥ 10 × ShareDB, Postgres', value: ratio('many', 'postgres'), least: 10 },
  { text: 'two nodes, 50 writers ≥ 100 × ShareDB', value: ratio('two-hot', 'peers'), least: 100 },
  { text: 'two nodes, 50 writers ≥ 5,000 ops/s', value: () => of('two-hot', 'nodes'), least: 5_000, unit: ' ops/s' },
  {
    text: 'two nodes, p99 of a delivery ≤ 60 ms',
    value: () => of('two-hot', 'nodes', 'delivery_p99_us') / 1000,
    most: 60,
    unit: ' ms',
  },
  {
    text: 'three nodes, 1,000 documents, paced ≥ 10,000 ops/s',
    value: () => of('three-paced', 'nodes'),
    least: 10_000,
    unit: ' ops/s',
  },
  {
    text: 'the same, p99 of an ack ≤ 100 ms',
    value: () => of('three-paced', 'nodes', 'ack_p99_us') / 1000,
    most: 100,
    unit: ' ms',
  },
  {
    text: 'what another node adds to an ack ≤ 3 hops over Redis',
    value: () => (hops('forwarder_ack_p50_us') - hops('owner_ack_p50_us')) / hops('redis_hop_p50_us'),
    most: 3,
    unit: ' hops',
  },
];

function hops(figure) {
  return of('two-hop', 'nodes', figure);
}

function ratio(scenario, peer) {
  return () => of(scenario, ours) / of(scenario, peer);
}

// ---- a bench ----

/** scenario → server → figure → the runs' values. */
const results = {};
const troubles = [];

/** The median of a scenario's first figure, or of the one that is named. */
function of(scenario, server, figure) {
  const key = figure ?? scenarios.find(({ id }) => id === scenario)?.figures[0].key;
  const values = [...(results[scenario]?.[server]?.[key] ?? [])].sort((one, other) => one - other);
  const middle = values.length >> 1;
  return values.length % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

async function bench() {
  prepare();
  const wanted = scenarios.filter(({ id }) => options.only.split(',').some((part) => id.startsWith(part)));
  for (let turn = 1; turn <= Number(options.runs); turn += 1) {
    for (const scenario of wanted) {
      for (const server of scenario.servers.filter((name) => chosen.includes(name))) {
        await measure(scenario, server, turn);
      }
    }
  }
  report(wanted);
}

function prepare() {
  if (options.build) {
    const packages = ['-p', 'copydesk', '-p', 'copydesk-loadtest', '--bins', '--examples'];
    execFileSync('cargo', ['build', '--release', ...packages], { cwd: root, stdio: 'inherit' });
  }
  if (!existsSync(join(here, 'node_modules'))) {
    execFileSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd: here, stdio: 'inherit' });
  }
  if (loadavg()[0] > 0.5)
    console.error(`the machine is busy (load ${loadavg()[0].toFixed(1)}): the figures will suffer`);
}

async function measure(scenario, server, turn) {
  const label = `${scenario.id} ${server} ${turn}/${options.runs}`;
  const folder = mkdtempSync(join(work, 'run-'));
  const mark = running.length;
  try {
    const started = await servers[server].start(await freePort(), folder, scenario.nodes);
    const report = scenario.probe
      ? { figures: await scenario.probe(started) }
      : await loaded(scenario, server, started, folder);
    for (const { key } of scenario.figures) {
      if (report.figures[key] === undefined) continue;
      (((results[scenario.id] ??= {})[server] ??= {})[key] ??= []).push(report.figures[key]);
    }
    if (report.fault_count > 0) troubles.push(`${label}: ${report.faults[0]}`);
    const shown = scenario.figures.map(({ key, show }) => (key in report.figures ? show(report.figures[key]) : '–'));
    console.error(`${label}: ${shown.join(', ')}${report.fault_count ? `  FAULTY: ${report.faults[0]}` : ''}`);
  } catch (error) {
    troubles.push(`${label}: ${error.message}`);
    console.error(`${label}: ${error.message}`);
  } finally {
    await stop(mark);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Loads a server as the scenario says; returns the report. */
async function loaded(scenario, server, { child, url }, folder) {
  const file = join(folder, 'report.json');
  const common = ['--url', url, '--seconds', options.seconds, '--json', file, '--server-pid', `${child.pid}`];
  const unchecked = servers[server].unchecked ? ['--unchecked'] : [];
  const [program, ...script] = servers[server].loader ?? [binary('copydesk-loadtest')];
  await finished(run(program, [...script, ...scenario.arguments, ...common, ...unchecked]));
  return JSON.parse(readFileSync(file));
}

function report(wanted) {
  const columns = Object.keys(servers).filter((name) => chosen.includes(name));
  const cell = (scenario, server) =>
    scenario.figures
      .map(({ key, show }) => [of(scenario.id, server, key), show])
      .filter(([value]) => Number.isFinite(value))
      .map(([value, show]) => show(value))
      .join(', ');
  const against = (scenario, server) => {
    const [mine, theirs] = [of(scenario.id, ours), of(scenario.id, server)];
    const value = scenario.figures[0].lower ? theirs / mine : mine / theirs;
    return server !== ours && Number.isFinite(value) ? ` (${times(value)})` : '';
  };
  const lines = [
    `| | ${columns.map((name) => servers[name].name).join(' | ')} |`,
    `|---|${'---|'.repeat(columns.length)}`,
  ];
  for (const scenario of wanted) {
    const cells = columns.map((server) => `${cell(scenario, server) || '–'}${against(scenario, server)}`);
    lines.push(`| ${scenario.name} | ${cells.join(' | ')} |`);
  }
  lines.push(
    '',
    `In brackets: how many times better Copydesk's first figure is. Medians of ${options.runs} runs of ${options.seconds} s;`,
  );
  lines.push(
    'after the comma p99 of the ack or the delivery, or deliveries.',
    '',
    '| target | measured | |',
    '|---|---|---|',
  );
  let missed = 0;
  for (const { text, value, least, most, unit } of targets) {
    const measured = value();
    if (!Number.isFinite(measured)) continue;
    const met = least === undefined ? measured <= most : measured >= least;
    missed += met ? 0 : 1;
    lines.push(`| ${text} | ${unit ? `${measured.toFixed(2)}${unit}` : times(measured)} | ${met ? 'met' : 'MISSED'} |`);
  }
  const [processor] = cpus();
  lines.push(
    '',
    `${cpus().length} × ${processor.model.trim()}, node ${process.version}, load before ${loadavg()[2].toFixed(1)}`,
  );
  if (troubles.length) lines.push('', 'Troubles:', ...troubles.map((trouble) => `- ${trouble}`));
  console.log(lines.join('\n'));
  if (options.json) writeFileSync(options.json, JSON.stringify({ results, troubles }, null, 2));
  process.exitCode = troubles.length || (options.strict && missed) ? 1 : 0;
}

function times(value) {
  return `${value < 10 ? value.toFixed(2) : Math.round(value)} ×`;
}

// ---- Postgres: a private cluster, made when it is first needed ----

let cluster;

async function freshDatabase() {
  cluster ??= await startCluster();
  const name = `bench${(cluster.databases += 1)}`;
  // A checkpoint of the run before must not fall into this one.
  cluster.query('CHECKPOINT');
  cluster.query(`CREATE DATABASE ${name}`);
  return `postgres://postgres@127.0.0.1:${cluster.port}/${name}`;
}

async function startCluster() {
  const bin = postgresPrograms();
  const folder = join(work, 'postgres');
  mkdirSync(folder);
  // Postgres refuses to run as root: then it runs as the user that its package has made.
  const user = process.getuid() === 0 ? { uid: idOf('-u'), gid: idOf('-g') } : {};
  if (user.uid !== undefined) {
    chownSync(folder, user.uid, user.gid);
    execFileSync('chmod', ['711', work]);
  }
  const as = { ...user, cwd: folder, stdio: 'pipe' };
  execFileSync(join(bin, 'initdb'), ['-D', join(folder, 'data'), '-U', 'postgres', '-A', 'trust', '-E', 'UTF8'], as);
  const port = await freePort();
  const settings = [
    'fsync=on',
    'synchronous_commit=on',
    'listen_addresses=127.0.0.1',
    'max_wal_size=4GB',
    'min_wal_size=1GB',
    'shared_buffers=512MB',
  ];
  const flags = [...settings.flatMap((setting) => ['-c', setting]), '-p', `${port}`, '-k', folder];
  const child = run(join(bin, 'postgres'), ['-D', join(folder, 'data'), ...flags], { ...user, cwd: folder });
  // It outlives the runs: it is not among what each of them stops.
  running.pop();
  process.on('exit', () => child.kill('SIGINT'));
  await answers(port, child);
  const query = (sql) =>
    execFileSync(join(bin, 'psql'), ['-h', '127.0.0.1', '-p', `${port}`, '-U', 'postgres', '-qc', sql], as);
  for (let patience = 50; ; patience -= 1) {
    try {
      query('SELECT 1');
      break;
    } catch (error) {
      if (patience === 0) throw error;
      await sleep(200);
    }
  }
  fillLog(query);
  return { port, query, child, databases: 0 };
}

/**
 * Lets Postgres make the files of its log beforehand: one that has run for a while uses old ones again, a new one keeps every
 * commit waiting while it writes 16 MiB of zeros, every few seconds.
 */
function fillLog(query) {
  query(
    `DO $$ BEGIN FOR file IN 1..50 LOOP PERFORM pg_logical_emit_message(true, '', ''); PERFORM pg_switch_wal(); END LOOP; END $$`,
  );
  query('CHECKPOINT');
}

function postgresPrograms() {
  const debian = '/usr/lib/postgresql';
  const versions = existsSync(debian) ? readdirSync(debian).sort((one, other) => Number(other) - Number(one)) : [];
  const found = versions.map((version) => join(debian, version, 'bin')).find((bin) => existsSync(join(bin, 'initdb')));
  if (found) return found;
  try {
    return execFileSync('pg_config', ['--bindir'], { encoding: 'utf8' }).trim();
  } catch {
    throw new Error('Postgres is not installed');
  }
}

function idOf(flag) {
  return Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
}

// ---- processes ----

function run(program, parameters, settings = {}) {
  const child = spawn(program, parameters, { stdio: ['ignore', 'ignore', 'pipe'], ...settings });
  child.said = '';
  child.stderr.on('data', (data) => (child.said = (child.said + data).slice(-2000)));
  child.on('error', (error) => (child.said += error.message));
  running.push(child);
  return child;
}

function finished(child) {
  return new Promise((done, fail) => {
    child.on('error', fail);
    // 1 says that the run was faulty: the report tells how.
    child.on('exit', (code) =>
      code === 0 || code === 1 ? done() : fail(new Error(child.said.trim() || `exit ${code}`)),
    );
  });
}

async function stop(mark) {
  while (running.length > mark) {
    const child = running.pop();
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const gone = new Promise((done) => child.on('exit', done));
    child.kill('SIGTERM');
    const killer = setTimeout(() => child.kill('SIGKILL'), 5000);
    await gone;
    clearTimeout(killer);
  }
}

/** Waits until something listens. */
async function answers(port, child) {
  for (let patience = 300; patience > 0; patience -= 1) {
    if (child.exitCode !== null) throw new Error(`the server ended: ${child.said.trim()}`);
    const listens = await new Promise((done) => {
      const socket = connect(port, '127.0.0.1', () => done(true));
      socket.on('connect', () => socket.destroy()).on('error', () => done(false));
    });
    if (listens) return;
    await sleep(100);
  }
  throw new Error(`nothing listens: ${child.said.trim()}`);
}

function freePort() {
  return new Promise((done) => {
    const server = createServer();
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

function sleep(ms) {
  return new Promise((done) => setTimeout(done, ms));
}

process.on('SIGINT', () => process.exit(130));
process.on('exit', () => {
  running.forEach((child) => child.kill('SIGKILL'));
  rmSync(work, { recursive: true, force: true });
});
try {
  await bench();
} finally {
  await stop(0);
  if (cluster) {
    const gone = new Promise((done) => cluster.child.on('exit', done));
    cluster.child.kill('SIGINT');
    await gone;
  }
}
