// Times that tests assert. Who measures must be awake: what a process sees late because it slept itself says nothing.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';

/** A stall of our own by which a sample is spoilt, and how often it is looked for. */
const STALL_MS_MAX = 200;
const LOOK_EVERY_MS = 10;

const SAMPLES_MAX = 8;

/** Takes a sample, again while this process stalled meanwhile. Resolves to what `sample` does. */
export async function awake(sample, tell = () => {}) {
  const stalls = monitorEventLoopDelay({ resolution: LOOK_EVERY_MS });
  for (let samples = 1; ; samples++) {
    stalls.reset();
    stalls.enable();
    const result = await sample();
    // A stall at the end of the sample is known at the next look.
    await pause(2 * LOOK_EVERY_MS);
    stalls.disable();
    const stallMs = Math.round(stalls.max / 1e6);
    if (stallMs <= STALL_MS_MAX) return result;
    if (samples === SAMPLES_MAX) throw new Error(`nothing can be measured here: this process stalls for ${stallMs} ms`);
    tell(`measured again: this process stalled for ${stallMs} ms`);
  }
}
