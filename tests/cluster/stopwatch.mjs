// Times that tests assert. On a machine that others use too, a time says something of the servers only after the stalls of
// the machine are subtracted: of its processors, of which this process has its share, and of its disk, which a commit waits
// for. Every sample is kept, and both times are printed.
import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { spread } from './crowd.mjs';
import { freshFolder, removeFolder } from './part.mjs';

/** How often this process and the disk are looked at. */
const LOOP_EVERY_MS = 10;
const DISK_EVERY_MS = 50;

/** What is later than this, or takes longer, is a stall. A commit to a disk that is not busy takes less than 10 ms. */
const STALL_MS_MIN = 30;

/** A sample during which the machine stalled for longer than this, and for more than half of it, says nothing by itself. */
const SPOILT_MS = 200;

/** Watches this process and the disk for stalls, from `begin` to `end`, and says how much of a span of time they took. */
export class Stopwatch {
  /** Spans of `performance.now()` during which something stalled: `[from, to]`, in any order. */
  stalls = [];
  isOver = false;

  /** The watch ends with the test `t` at the latest. `commit` is what takes as long as the disk does. */
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

  /** Ends the watch. A stall that is under way is waited for: what is asked afterwards knows of it. */
  async end() {
    if (this.isOver) return this.probing;
    this.isOver = true;
    await this.probing;
    await this.release?.();
  }

  /** For how long something stalled between two moments, in ms; stalls that overlap count once. */
  stalledMs(from, to) {
    let [sum, end] = [0, from];
    for (const [since, until] of this.stalls.toSorted(([one], [other]) => one - other)) {
      const begun = Math.max(since, end);
      const over = Math.min(until, to);
      if (over > begun) [sum, end] = [sum + over - begun, over];
    }
    return sum;
  }

  /** What spans `[from, to]` took without the stalls, in ms. */
  net(spans) {
    return spans.map(([from, to]) => to - from - this.stalledMs(from, to));
  }

  /**
   * Ends the watch, prints what the spans `[from, to]` took with and without the stalls, and asserts that none took longer
   * than `limitMs` without them. Fails if there are no spans, or if all were spoilt by stalls.
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
