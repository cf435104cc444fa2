// A private cluster: Postgres, Redis, nodes and optionally a balancer, on loopback ports, with its data in one folder.
import { execFile, execFileSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { binary, freePort } from '../js/server.mjs';
import { until } from '../js/wait.mjs';
import { Link } from './links.mjs';
import { freshFolder, Part, removeFolder } from './part.mjs';

/** The nodes' `node_dead_after_ms`: a node without a heartbeat for this long is in no ring. */
const NODE_DEAD_AFTER_MS = 3_000;

/** Heartbeats after which a ring has certainly been read: one may have begun before, the next reads, the third confirms it. */
const BEATS_TO_AGREE = 3;

/** The interval at which the store is queried for heartbeats, each time on a new connection. */
const LOOK_EVERY_MS = 100;

const isRoot = process.getuid() === 0;

/** Postgres and nginx's workers do not run as root. */
const AS_POSTGRES = isRoot ? ['setpriv', '--reuid', 'postgres', '--regid', 'postgres', '--init-groups'] : [];

/**
 * Returns `false` if the programs that a cluster needs are installed. Otherwise it throws, or with COPYDESK_MAY_SKIP=1
 * returns the reason why the tests are skipped. `more` names further programs, each in a Debian package of its name.
 */
export function missing(...more) {
  const programs = ['redis-server', 'nginx', ...more].filter((name) => !which(name));
  if (!postgresFolder()) programs.unshift('postgresql');
  if (!programs.length) return false;
  const reason = `${programs.join(', ')} missing; install Debian's packages ${['postgresql', 'redis-server', 'nginx', ...more].join(', ')}`;
  if (process.env.COPYDESK_MAY_SKIP !== '1')
    throw new Error(`${reason}, or set COPYDESK_MAY_SKIP=1 to skip these tests`);
  return reason;
}

export function which(name) {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/local/sbin'];
  return folders.map((folder) => path.join(folder, name)).find((file) => existsSync(file));
}

/** The folder with the programs of the newest Postgres of this machine: Debian keeps them off the PATH. */
function postgresFolder() {
  const debian = '/usr/lib/postgresql';
  const versions = existsSync(debian) ? readdirSync(debian) : [];
  const newest = versions.sort((a, b) => b - a).map((version) => path.join(debian, version, 'bin'));
  return [...newest, path.dirname(which('initdb') ?? '')].find((folder) => existsSync(path.join(folder, 'initdb')));
}

class Postgres extends Part {
  static async start(folder) {
    const [data, port] = [path.join(folder, 'postgres'), await freePort()];
    makeDatabase(data);
    return Postgres.startIn(data, port);
  }

  /** Starts a server on the data in a folder. */
  static async startIn(data, port) {
    const settings = {
      port,
      listen_addresses: '127.0.0.1',
      unix_socket_directories: data,
      fsync: 'on',
      synchronous_commit: 'on',
      max_connections: 100,
      log_line_prefix: '%m [%a] ',
      log_parameter_max_length: 0,
    };
    const args = ['-D', data, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
    const [command, ...rest] = [...AS_POSTGRES, path.join(postgresFolder(), 'postgres'), ...args];
    const postgres = new Postgres('postgres', command, rest);
    postgres.port = port;
    await postgres.start();
    return postgres;
  }

  /** Starts a standby of this server, with all data of the server. */
  async newStandby(folder, port) {
    const data = path.join(folder, `standby-${port}`);
    removeFolder(data);
    mkdirSync(data, { mode: 0o700 });
    own(data);
    const copy = [
      '-D',
      data,
      '-h',
      '127.0.0.1',
      '-p',
      String(this.port),
      '-U',
      'copydesk',
      '-R',
      '-X',
      'stream',
      '-c',
      'fast',
      '--no-sync',
    ];
    const [command, ...args] = [...AS_POSTGRES, path.join(postgresFolder(), 'pg_basebackup'), ...copy];
    await promisify(execFile)(command, args);
    const standby = await Postgres.startIn(data, port);
    await this.isFollowedBy(standby);
    return standby;
  }

  /** Waits until a standby has all that this server has committed. */
  async isFollowedBy(standby) {
    const [{ at }] = await this.query('SELECT pg_current_wal_lsn() AS at');
    const isLevel = async () => (await standby.query('SELECT pg_last_wal_replay_lsn() >= $1 AS level', [at]))[0].level;
    await until(isLevel, 'the standby has all');
  }

  /** Makes a standby the primary. */
  async promote() {
    await this.query('SELECT pg_promote()');
  }

  /** `more` are the ports of other servers that may be the primary. */
  url(port = this.port, more = []) {
    const hosts = [port, ...more].map((each) => `127.0.0.1:${each}`);
    return `postgres://copydesk@${hosts.join()}/postgres`;
  }

  async isReady() {
    return this.query('SELECT 1').then(
      () => true,
      () => false,
    );
  }

  /** Queries on a new connection, which no restart has broken. */
  async query(text, values) {
    const client = new pg.Client({ connectionString: this.url(), connectionTimeoutMillis: 5_000 });
    client.on('error', () => {});
    try {
      await client.connect();
      return (await client.query(text, values)).rows;
    } finally {
      // A frozen server does not answer the disconnect.
      client.end().catch(() => {});
    }
  }

  /** Stops at once, with every connection, as an operator would. */
  stop() {
    return this.end('SIGINT');
  }
}

/** An empty database of the superuser `copydesk`. Creating it takes seconds, so it is created once and copied. */
function makeDatabase(data) {
  const cache = new URL('.cache/', import.meta.url).pathname;
  const folder = postgresFolder();
  const template = path.join(cache, `initdb${folder.replaceAll('/', '-')}`);
  if (!existsSync(template)) {
    const fresh = freshFolder();
    const made = path.join(fresh, 'postgres');
    mkdirSync(made);
    own(made);
    const args = [
      '-D',
      made,
      '-U',
      'copydesk',
      '-A',
      'trust',
      '-E',
      'UTF8',
      '--no-locale',
      '--no-sync',
      '--wal-segsize=4',
    ];
    const [command, ...rest] = [...AS_POSTGRES, path.join(folder, 'initdb'), ...args];
    execFileSync(command, rest, { stdio: ['ignore', 'ignore', 'inherit'] });
    mkdirSync(cache, { recursive: true });
    const half = `${template}.${process.pid}`;
    cpSync(made, half, { recursive: true });
    // Another process created the same folder first.
    if (existsSync(template)) rmSync(half, { recursive: true });
    else renameSync(half, template);
    removeFolder(fresh);
  }
  cpSync(template, data, { recursive: true });
  chmodSync(data, 0o700);
  own(data);
}

function own(folder) {
  // Other users must be able to reach it through the folder above.
  chmodSync(path.dirname(folder), 0o755);
  if (isRoot) execFileSync('chown', ['-R', 'postgres:postgres', folder]);
}

class Redis extends Part {
  static async start(folder) {
    const [data, port] = [path.join(folder, 'redis'), await freePort()];
    mkdirSync(data);
    const args = ['--port', port, '--bind', '127.0.0.1', '--dir', data, '--save', '', '--appendonly', 'no'];
    const redis = new Redis('redis', which('redis-server'), args.map(String));
    redis.port = port;
    await redis.start();
    return redis;
  }

  url(port = this.port) {
    return `redis://127.0.0.1:${port}`;
  }

  async isReady() {
    return (await this.say('PING').catch(() => '')) === '+PONG';
  }

  /** Deletes all its data. */
  flush() {
    return this.say('FLUSHALL');
  }

  /** Makes it reject every command that needs memory, as if it were out of memory. */
  fill() {
    return this.say('CONFIG SET maxmemory 1');
  }

  makeRoom() {
    return this.say('CONFIG SET maxmemory 0');
  }

  /** Sends one command, returns one line of the answer. */
  say(command, patienceMs = 2_000) {
    return new Promise((resolve, reject) => {
      const socket = net.connect(this.port, '127.0.0.1', () => socket.write(`${command}\r\n`));
      socket.setTimeout(patienceMs, () => socket.destroy(new Error('Redis is silent')));
      socket.once('data', (bytes) => {
        resolve(String(bytes).trim());
        socket.destroy();
      });
      socket.on('error', reject);
      socket.on('close', () => reject(new Error('Redis hung up')));
    });
  }
}

export class Node extends Part {
  constructor(name, port, { store, redis }, env) {
    const open = knowsOpen() && !env.COPYDESK__AUTH__MODE ? ['--open'] : [];
    const serve = [
      'serve',
      ...open,
      '--node',
      name,
      '--listen',
      `127.0.0.1:${port}`,
      '--store',
      store,
      '--redis',
      redis,
    ];
    super(name, binary(), serve, { env });
    this.port = port;
  }

  get http() {
    return `http://127.0.0.1:${this.port}`;
  }

  get ws() {
    return `ws://127.0.0.1:${this.port}/ws`;
  }

  /** Returns true if `/readyz` reports that the node serves everything. */
  async isReady() {
    const { status, reason } = await this.readiness();
    return status === 200 && !/^degraded/.test(reason);
  }

  async readiness() {
    const signal = AbortSignal.timeout(2_000);
    const answer = await fetch(`${this.http}/readyz`, { signal }).catch(() => undefined);
    const reason = await answer?.text().catch(() => '');
    return { status: answer?.status, reason };
  }

  /** The number of log lines that match. */
  countLogged(pattern) {
    return [...this.log.matchAll(pattern)].length;
  }

  /** The lines of the log that report a panic. */
  get panics() {
    return this.log.split('\n').filter((line) => /panicked at/.test(line));
  }
}

/** Returns true if the program has the option `--open`: older releases serve without sign-in by default. */
function knowsOpen() {
  help ??= execFileSync(binary(), ['serve', '--help'], { encoding: 'utf8' });
  return help.includes('--open');
}

let help;

class Balancer extends Part {
  static async start(folder, nodes) {
    const [data, port] = [path.join(folder, 'nginx'), await freePort()];
    mkdirSync(data);
    const config = path.join(data, 'nginx.conf');
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
      (kind) => `${kind}_temp_path ${data}/${kind};`,
    );
    writeFileSync(
      config,
      `daemon off;
      ${isRoot ? 'user root;' : ''}
      worker_processes 1;
      pid ${data}/nginx.pid;
      error_log stderr;
      events { worker_connections 8192; }
      http {
        access_log off;
        ${temporary.join(' ')}
        # No memory of failures: nginx takes one back when a connection ended well, and a WebSocket hardly ends, so a node
        # that came back would be given one socket a second. A door that is closed says so at once, and the next is tried.
        upstream nodes {
          ${nodes.map((node) => `server 127.0.0.1:${node.port} max_fails=0;`).join('\n')}
        }
        server {
          listen 127.0.0.1:${port} backlog=4096;
          location / {
            proxy_pass http://nodes;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_connect_timeout 1s;
            proxy_read_timeout 60s;
            proxy_next_upstream error timeout http_502 http_503;
          }
        }
      }`,
    );
    const balancer = new Balancer('nginx', which('nginx'), ['-c', config, '-e', 'stderr']);
    balancer.port = port;
    await balancer.start();
    return balancer;
  }

  get ws() {
    return `ws://127.0.0.1:${this.port}/ws`;
  }

  async isReady() {
    const answer = await fetch(`http://127.0.0.1:${this.port}/healthz`).catch(() => undefined);
    await answer?.arrayBuffer();
    return answer?.status === 200;
  }
}

export class Cluster {
  /**
   * Starts Postgres, Redis and `nodes` nodes. With `balancer`, nginx is started before them; with `links`, each node reaches
   * Postgres and Redis over its own links, which can be broken. With `standby`, Postgres has one, and the nodes know both
   * servers. `env` adds to the nodes' environment.
   */
  static async start({ nodes = 3, balancer = false, links = false, standby = false, env = {} } = {}) {
    const cluster = new Cluster();
    try {
      const { folder } = cluster;
      [cluster.postgres, cluster.redis] = await Promise.all([Postgres.start(folder), Redis.start(folder)]);
      if (standby) cluster.standby = await cluster.postgres.newStandby(folder, await freePort());
      const names = Array.from({ length: nodes }, (_, n) => `node-${n + 1}`);
      cluster.nodes = await Promise.all(names.map((name) => cluster.newNode(name, links, env)));
      await Promise.all(cluster.nodes.map((node) => node.start()));
      if (balancer) cluster.balancer = await Balancer.start(folder, cluster.nodes);
      await cluster.settled();
    } catch (error) {
      await cluster.discard();
      throw error;
    }
    return cluster;
  }

  constructor() {
    this.folder = freshFolder();
    this.nodes = [];
  }

  async newNode(name, links, env) {
    const { postgres, redis } = this;
    const ways = links ? [await Link.to(postgres.port), await Link.to(redis.port)] : [postgres, redis];
    const more = this.standby ? [this.standby.port] : [];
    const urls = { store: postgres.url(ways[0].port, more), redis: redis.url(ways[1].port) };
    const node = new Node(name, await freePort(), urls, env);
    if (links) node.links = { postgres: ways[0], redis: ways[1] };
    return node;
  }

  get parts() {
    return [this.balancer, ...this.nodes, this.redis, this.standby, this.postgres].filter(Boolean);
  }

  /** Kills the primary and promotes the standby. */
  async failOver() {
    await this.postgres.kill();
    await this.standby.promote();
    [this.lost, this.postgres, this.standby] = [this.postgres, this.standby, undefined];
  }

  /** Starts a new standby of the primary in the place of the lost server. */
  async addStandby() {
    this.standby = await this.postgres.newStandby(this.folder, this.lost.port);
  }

  node(name) {
    return this.nodes.find((node) => node.name === name);
  }

  /** The nodes that are running and not frozen. */
  get living() {
    return this.nodes.filter((node) => node.isAlive && !node.isFrozen);
  }

  /** The result of `copydesk where` for a document: the name of its owner, the epoch and the revision. */
  async where(id, collection = 'docs') {
    const args = ['where', `${collection}/${id}`, '--store', this.postgres.url()];
    const { stdout } = await promisify(execFile)(binary(), args, { timeout: 10_000 });
    const said = (what) => new RegExp(`^${what} +(\\S+)`, 'm').exec(stdout)?.[1];
    return { owner: this.node(said('owner')), epoch: Number(said('epoch')), revision: Number(said('revision')) };
  }

  /** The owner's name, the epoch and the revision of each document in Postgres, by document id. */
  async heads() {
    const rows = await this.postgres.query(
      `SELECT id, convert_from(owner_name, 'UTF8') AS owner, epoch,
         (SELECT coalesce(max(revision), 0) FROM entries WHERE entries.doc = heads.doc) AS revision
       FROM documents JOIN heads ON doc = number`,
    );
    return new Map(
      rows.map(({ id, owner, epoch, revision }) => [id, { owner, epoch: Number(epoch), revision: Number(revision) }]),
    );
  }

  /** The names of the owners of all documents, by document id. */
  async owners() {
    return new Map([...(await this.heads())].map(([id, { owner }]) => [id, owner]));
  }

  /**
   * Waits until all rings are equal: the store lists exactly the running nodes, and each has read the list. `/readyz` does not
   * report rings, and after a failure they may differ for seconds; until then documents may have a wrong owner.
   */
  async settled(patienceMs = 30_000) {
    const names = this.living
      .map(({ name }) => name)
      .sort()
      .join();
    let [known, beats] = ['', new Map()];
    const isSettled = async () => {
      const rows = await this.postgres.query(
        `SELECT id, convert_from(name, 'UTF8') AS name, beat_at::text AS at FROM nodes
         WHERE takes_part AND beat_at > clock_timestamp() - $1 * interval '1 millisecond'`,
        [NODE_DEAD_AFTER_MS],
      );
      const ids = rows
        .map(({ id }) => id)
        .sort()
        .join();
      if (ids !== known) [known, beats] = [ids, new Map(rows.map(({ id }) => [id, new Set()]))];
      for (const { id, at } of rows) beats.get(id).add(at);
      const areTheLiving =
        rows
          .map(({ name }) => name)
          .sort()
          .join() === names;
      return areTheLiving && [...beats.values()].every(({ size }) => size > BEATS_TO_AGREE);
    };
    await until(isSettled, `the rings of ${names} are the same`, patienceMs, LOOK_EVERY_MS);
  }

  /** Restores everything: all processes run, all links are open, all nodes are ready and have the same ring. */
  async calm(patienceMs = 60_000) {
    for (const part of this.parts) {
      if (part.isFrozen) part.thaw();
      await part.links?.postgres.heal();
      await part.links?.redis.heal();
    }
    // The store first: nodes become ready when it answers.
    for (const part of this.parts.reverse()) if (!part.isAlive) await part.start(patienceMs);
    await this.redis.makeRoom();
    for (const node of this.nodes) await until(() => node.isReady(), `${node.name} is ready`, patienceMs);
    await this.settled(patienceMs);
  }

  /** Stops everything; fails if a node crashed or panicked. */
  async stop() {
    const crashed = this.nodes
      .filter((node) => !node.isAlive)
      .map((node) => `${node.name}:\n${node.log.slice(-4_000)}`);
    const panics = this.nodes.flatMap((node) => node.panics);
    await this.discard();
    if (crashed.length) throw new Error(`ended by themselves: ${crashed.join('\n')}`);
    if (panics.length) throw new Error(`panicked: ${panics.join('\n')}`);
  }

  async discard() {
    const { LOGS } = process.env;
    if (LOGS) {
      mkdirSync(LOGS, { recursive: true });
      for (const part of this.parts) writeFileSync(path.join(LOGS, `${part.name}.log`), part.log);
    }
    await Promise.all(this.parts.map((part) => part.kill()));
    for (const { links } of this.nodes) {
      await links?.postgres.close();
      await links?.redis.close();
    }
    removeFolder(this.folder);
  }
}
