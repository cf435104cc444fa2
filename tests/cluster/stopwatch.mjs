// Times that tests assert. They say something of the servers only while the machine is awake: its processors, of which this
// process has its share, and its disk, which a commit waits for.
import { open } from 'node:fs/promises';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { freshFolder } from './part.mjs';

/** A stall by which a sample is spoilt, be it of this process or of the disk, and how often each is looked at. */
const STALL_MS_MAX = 200;
const LOOP_EVERY_MS = 10;
const DISK_EVERY_MS = 50;

const SAMPLES_MAX = 8;

/** Takes a sample, again while the machine stalled meanwhile. Resolves to what `sample` does. */
export async function awake(sample, tell = () => {}) {
  for (let samples = 1; ; samples++) {
    const watch = await Watch.begin();
    const result = await sample().finally(() => watch.end());
    const stall = watch.longest;
    if (!stall) return result;
    if (samples === SAMPLES_MAX) throw new Error(`nothing can be measured here: ${stall}`);
    tell(`measured again: ${stall}`);
  }
}

/** Sees this process and the disk stall. */
class Watch {
  static async begin() {
    file ??= await open(path.join(freshFolder(), 'probe'), 'w');
    return new Watch();
  }

  constructor() {
    this.loop = monitorEventLoopDelay({ resolution: LOOP_EVERY_MS });
    this.loop.enable();
    this.diskMs = 0;
    this.isOver = false;
    this.probing = this.probe();
  }

  /** Writes to the disk what must be there before one goes on, as a commit does. */
  async probe() {
    do {
      const start = performance.now();
      await file.write('x', 0);
      await file.datasync();
      this.diskMs = Math.max(this.diskMs, performance.now() - start);
      await pause(DISK_EVERY_MS);
    } while (!this.isOver);
  }

  /** A stall at the end is known at the next look. */
  async end() {
    this.isOver = true;
    await Promise.all([this.probing, pause(2 * LOOP_EVERY_MS)]);
    this.loop.disable();
  }

  /** What stalled for too long, in words. */
  get longest() {
    const stalls = { 'this process': this.loop.max / 1e6, 'the disk': this.diskMs };
    const [who, ms] = Object.entries(stalls).sort(([, one], [, other]) => other - one)[0];
    return ms > STALL_MS_MAX && `${who} stalled for ${Math.round(ms)} ms`;
  }
}

/** What the disk is probed with. */
let file;
