// A Copydesk server for one test: a free port, a folder, and functions to stop it in each way.
import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { until } from './wait.mjs';

const running = new Set();
process.on('exit', () => running.forEach((server) => server.discard()));

export class Server {
  /** Starts a server on an empty folder, and resolves when it is ready. `env` adds to the environment; unless `open`, users must sign in. */
  static async start({ env = {}, open = true } = {}) {
    const server = new this(await freePort(), mkdtempSync(path.join(tmpdir(), 'copydesk-')), env, open);
    await server.boot();
    return server;
  }

  constructor(port, data, env, open = true) {
    this.port = port;
    this.data = data;
    this.env = env;
    this.open = open;
    this.log = '';
  }

  get http() {
    return `http://127.0.0.1:${this.port}`;
  }

  get ws() {
    return `ws://127.0.0.1:${this.port}/ws`;
  }

  /** Starts the process with the same port and folder. */
  async boot() {
    const args = ['serve', ...(this.open ? ['--open'] : []), '--listen', `127.0.0.1:${this.port}`, '--data', this.data];
    this.child = spawn(binary(), args, {
      env: { ...process.env, ...this.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(this);
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => this.heard(text));
    }
    this.ended = new Promise((resolve) => {
      this.child.on('error', (error) => resolve(String(error)));
      this.child.on('exit', (code, signal) => resolve(signal ?? code));
    });
    const how = this.ended.then((end) => {
      throw new Error(`the server ended (${end}) before it was ready:\n${this.log}`);
    });
    await Promise.race([how, until(() => this.isReady(), 'the server is ready', 30_000)]);
    how.catch(() => {});
  }

  /** Returns true if `/readyz` reports it ready. */
  async isReady() {
    const answer = await fetch(`${this.http}/readyz`).catch(() => undefined);
    await answer?.arrayBuffer();
    return answer?.status === 200;
  }

  /** Returns true if the process has not ended. */
  get isAlive() {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Ends the process as a power cut would: no handler runs, nothing is flushed. */
  async kill(signal = 'SIGKILL') {
    this.child.kill(signal);
    return this.ended;
  }

  /** Kills the process and starts it again with the same folder and port. */
  async restart() {
    await this.kill();
    await this.boot();
  }

  /** Stops the server and removes its folder; fails if it had crashed or panicked. */
  async stop() {
    const crashed = !this.isAlive;
    await this.kill();
    this.discard();
    if (crashed) throw new Error(`the server had crashed:\n${this.log}`);
    if (this.panics.length) throw new Error(`the server panicked:\n${this.panics.join('\n')}`);
  }

  /** The report of `copydesk verify` on the folder; the server may be running. */
  async verify() {
    return new Promise((resolve) => {
      execFile(binary(), ['verify', '--data', this.data], (_error, stdout, stderr) => resolve(stdout + stderr));
    });
  }

  discard() {
    running.delete(this);
    this.child.kill('SIGKILL');
    rmSync(this.data, { recursive: true, force: true });
  }

  /** The lines of the log that report a panic. */
  get panics() {
    return this.log.split('\n').filter((line) => /panicked at/.test(line));
  }

  /** The resident memory of the process. */
  rssBytes() {
    const status = readFileSync(`/proc/${this.child.pid}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)[1]) * 1024;
  }

  heard(text) {
    const LOG_CHARS_MAX = 200_000;
    this.log = (this.log + text).slice(-LOG_CHARS_MAX);
  }
}

/** The number of snapshots that a verification has read. */
export function snapshotsIn(verified) {
  return Number(/(\d+) snapshots/.exec(verified)?.[1]);
}

/** The server under test. */
export function binary() {
  const file = process.env.COPYDESK_BIN;
  if (!file) throw new Error('Set COPYDESK_BIN to the path of the copydesk binary.');
  return file;
}

/** A port that was free a moment ago. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.on('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}
