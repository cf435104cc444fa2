// Measurement of times that tests assert. On a shared machine a time describes the servers only after the stalls of the
// machine are subtracted: of its processors, observed in this process, and of its disk, which commits wait for. All samples are
// kept, and both times are printed.
import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { spread } from './crowd.mjs';
import { freshFolder, removeFolder } from './part.mjs';

/** The interval of the probes of this process and the disk. */
const LOOP_EVERY_MS = 10;
const DISK_EVERY_MS = 50;

/** A probe that is later or takes longer than this is a stall. A commit to an idle disk takes less than 10 ms. */
const STALL_MS_MIN = 30;

/** A sample with stalls longer than this, and for more than half of it, is not used by itself. */
const SPOILT_MS = 200;

/** Records the stalls of this process and the disk, from `begin` to `end`, and computes their part in a span of time. */
export class Stopwatch {
  /** Spans of `performance.now()` with a stall: `[from, to]`, in any order. */
  stalls = [];
  isOver = false;

  /** The recording ends with the test `t` at the latest. `commit` is an operation as long as a disk write. */
  static async begin(t, commit) {
    const watch = new Stopwatch();
    if (!commit) {
      const folder = freshFolder();
      const file = await open(path.join(folder, 'probe'), 'w');
      commit = async () => {
        await file.write('x', 0);
        await file.datasync();
      };
      watch.release = async () => {
        await file.close();
        removeFolder(folder);
      };
    }
    watch.probing = Promise.all([watch.probeLoop(), watch.probeDisk(commit)]);
    t?.after(() => watch.end());
    return watch;
  }

  async probeLoop() {
    for (let before = performance.now(); !this.isOver; ) {
      await pause(LOOP_EVERY_MS);
      const now = performance.now();
      this.looked(before + LOOP_EVERY_MS, now);
      before = now;
    }
  }

  async probeDisk(commit) {
    do {
      const before = performance.now();
      await commit();
      this.looked(before, performance.now());
      await pause(DISK_EVERY_MS);
    } while (!this.isOver);
  }

  looked(from, to) {
    if (to - from > STALL_MS_MIN) this.stalls.push([from, to]);
  }

  /** Ends the recording, after a stall in progress, so that it is included. */
  async end() {
    if (this.isOver) return this.probing;
    this.isOver = true;
    await this.probing;
    await this.release?.();
  }

  /** The duration of stalls between two moments, in ms; overlapping stalls count once. */
  stalledMs(from, to) {
    let [sum, end] = [0, from];
    for (const [since, until] of this.stalls.toSorted(([one], [other]) => one - other)) {
      const begun = Math.max(since, end);
      const over = Math.min(until, to);
      if (over > begun) [sum, end] = [sum + over - begun, over];
    }
    return sum;
  }

  /** The durations of spans `[from, to]` without the stalls, in ms. */
  net(spans) {
    return spans.map(([from, to]) => to - from - this.stalledMs(from, to));
  }

  /**
   * Ends the recording, prints the durations of the spans `[from, to]` with and without the stalls, and asserts that none took
   * longer than `limitMs` without them. Fails if there are no spans, or if stalls make all of them unusable.
   */
  async assertWithin(t, spans, limitMs, what) {
    await this.end();
    assert.ok(spans.length, `${what}: nothing was measured`);
    const raw = spans.map(([from, to]) => to - from);
    const net = this.net(spans);
    const stalled = raw.map((ms, n) => ms - net[n]);
    t.diagnostic(`${what}: ${spread(raw)}; without the stalls of this machine: ${spread(net)}`);
    assert.ok(
      stalled.some((ms, n) => ms < Math.max(SPOILT_MS, net[n])),
      `${what}: this machine stalled during every sample, by up to ${Math.max(...stalled)} ms`,
    );
    const most = Math.max(...net);
    assert.ok(
      most <= limitMs,
      `${what}: ${Math.round(most)} ms without stalls, ${Math.round(raw[net.indexOf(most)])} ms with them; at most ${limitMs} ms are allowed`,
    );
  }
}

/** Runs `act`; resolves to the span `[from, to]` that it took. */
export async function span(act) {
  const from = performance.now();
  await act();
  return [from, performance.now()];
}
