// The server under test as a separate process, so that it can be killed.
//
// COPYDESK_BIN names the program. It has to support `serve --open --listen HOST:PORT --data DIR`, answer /readyz and serve the
// page.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const READY_MS = 30_000;

export class Server {
  #process = null;
  #log = [];

  /** Unless `open`, users must sign in. `env` adds to the environment. */
  static async start(options = {}) {
    const server = await Server.prepare(options);
    await server.up();
    return server;
  }

  /** A server that has an address, and is not running. */
  static async prepare({ open = true, env = {} } = {}) {
    if (!process.env.COPYDESK_BIN) throw new Error("COPYDESK_BIN must name the server's binary");
    return new Server(await freePort(), await mkdtemp(join(tmpdir(), 'copydesk-browser-')), open, env);
  }

  constructor(port, folder, open = true, env = {}) {
    this.open = open;
    this.env = env;
    this.port = port;
    this.folder = folder;
    this.url = `http://127.0.0.1:${port}`;
  }

  async up() {
    const args = [
      'serve',
      ...(this.open ? ['--open'] : []),
      '--listen',
      `127.0.0.1:${this.port}`,
      '--data',
      this.folder,
    ];
    this.#process = spawn(process.env.COPYDESK_BIN, args, {
      env: { ...process.env, ...this.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream.on('data', (data) => this.#log.push(String(data)));
    }
    const deadline = Date.now() + READY_MS;
    while (!(await this.#isReady())) {
      if (this.#process.exitCode !== null || Date.now() > deadline) {
        throw new Error(`the server does not come up:\n${this.#log.join('')}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async down(signal = 'SIGTERM') {
    const gone = once(this.#process, 'exit');
    this.#process.kill(signal);
    await gone;
  }

  async end() {
    if (this.#process.exitCode === null && this.#process.signalCode === null) await this.down('SIGKILL');
    await rm(this.folder, { recursive: true, force: true });
  }

  async #isReady() {
    try {
      return (await fetch(`${this.url}/readyz`)).ok;
    } catch {
      return false;
    }
  }
}

export async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}
