// One process of a cluster, and functions to disturb it.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { until } from '../js/wait.mjs';

/**
 * Stops the remaining processes of a run and removes its folders when this process has ended in any way: it reads their names
 * from its standard input, which ends with this process.
 */
const WARDEN = `
trap '' INT TERM HUP
declare -A pids folders
while read -r verb what; do
  case $verb in
    begun) pids[$what]=1 ;;
    ended) unset "pids[$what]" ;;
    folder) folders[$what]=1 ;;
  esac
done
for pid in "\${!pids[@]}"; do
  kill -KILL $pid $(cat /proc/$pid/task/$pid/children 2>/dev/null) 2>/dev/null
done
rm -rf -- "\${!folders[@]}"`;

let warden;

function tell(verb, what) {
  if (!warden) {
    warden = spawn('bash', ['-c', WARDEN], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
    warden.unref();
    warden.stdin.unref();
  }
  warden.stdin.write(`${verb} ${what}\n`);
}

/** A folder that is removed with this process. Other users can read it. */
export function freshFolder() {
  const folder = mkdtempSync(path.join(tmpdir(), 'copydesk-cluster-'));
  tell('folder', folder);
  return folder;
}

export function removeFolder(folder) {
  rmSync(folder, { recursive: true, force: true });
}

/** A process that can be started again: a program, its arguments, and the user to run it as. */
export class Part {
  constructor(name, command, args, { env = {}, cwd } = {}) {
    this.name = name;
    this.command = command;
    this.args = args;
    this.options = { env: { ...process.env, ...env }, cwd, stdio: ['ignore', 'pipe', 'pipe'] };
    /** The newest part of its output. */
    this.log = '';
    this.isFrozen = false;
  }

  /** Starts the process, and resolves when it is ready. */
  async start(patienceMs = 30_000) {
    this.child = spawn(this.command, this.args, this.options);
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => this.heard(text));
    }
    const { child } = this;
    if (child.pid) tell('begun', child.pid);
    /** Resolves to the exit code or the signal. */
    this.ended = new Promise((resolve) => {
      child.on('error', (error) => resolve(String(error)));
      child.on('exit', (code, signal) => {
        tell('ended', child.pid);
        resolve(signal ?? code);
      });
    });
    const early = this.ended.then((end) => {
      throw new Error(`${this.name} ended (${end}) before it was ready:\n${this.log}`);
    });
    await Promise.race([early, until(() => this.isReady(), `${this.name} is ready`, patienceMs)]);
    early.catch(() => {});
  }

  async isReady() {
    return true;
  }

  get isAlive() {
    return Boolean(this.child) && this.child.exitCode === null && this.child.signalCode === null;
  }

  /** The process and its children. */
  get pids() {
    const { pid } = this.child;
    try {
      const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
      return [pid, ...children.split(' ').filter(Boolean).map(Number)];
    } catch {
      return [pid];
    }
  }

  /** Kills the process and its children, as a power cut would. */
  async kill() {
    if (!this.isAlive) return this.ended;
    // Stopped first, so that it starts no further children while they are counted.
    signal(this.child.pid, 'SIGSTOP');
    const { pids } = this;
    pids.forEach((pid) => signal(pid, 'SIGKILL'));
    this.isFrozen = false;
    const end = await this.ended;
    await until(() => !pids.some(isThere), `${this.name} and its children are gone`);
    return end;
  }

  /** Stops it with SIGTERM; resolves to the exit code. */
  async end(how = 'SIGTERM') {
    signal(this.child.pid, how);
    return this.ended;
  }

  /** Suspends it until `thaw`; it keeps its connections and locks. */
  freeze() {
    this.isFrozen = true;
    signal(this.child.pid, 'SIGSTOP');
    this.pids.forEach((pid) => signal(pid, 'SIGSTOP'));
  }

  thaw() {
    this.isFrozen = false;
    this.pids.forEach((pid) => signal(pid, 'SIGCONT'));
  }

  /** The resident memory of the process. */
  rssBytes() {
    const status = readFileSync(`/proc/${this.child.pid}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)[1]) * 1024;
  }

  heard(text) {
    const LOG_CHARS_MAX = 400_000;
    this.log = (this.log + text).slice(-LOG_CHARS_MAX);
  }
}

function signal(pid, name) {
  try {
    process.kill(pid, name);
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

function isThere(pid) {
  try {
    // A zombie has ended: it only waits for its parent.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
