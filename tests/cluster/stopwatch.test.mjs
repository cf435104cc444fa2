// Tests of the measurement of times: every sample counts, and only the stalls of the machine are subtracted.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Stopwatch, span } from './stopwatch.mjs';

/** Ends the probes, so that a test can set the stalls. */
async function ended(t, stalls) {
  const watch = await Stopwatch.begin(t, async () => {});
  await watch.end();
  watch.stalls = stalls;
  return watch;
}

test('stalls that overlap count once, and only within the span', async (t) => {
  const watch = await ended(t, [
    [150, 300],
    [100, 200],
    [120, 130],
    [900, 2_000],
    [0, 10],
  ]);
  assert.equal(watch.stalledMs(0, 1_000), 10 + 200 + 100);
  assert.equal(watch.stalledMs(110, 250), 140);
  assert.equal(watch.stalledMs(400, 800), 0);
});

test('a time above the limit without stalls fails, regardless of the other samples', async (t) => {
  const watch = await ended(t, [[0, 5_000]]);
  await watch.assertWithin(
    t,
    [
      [0, 5_000],
      [6_000, 6_400],
    ],
    500,
    'within',
  );
  await assert.rejects(
    watch.assertWithin(
      t,
      [
        [6_000, 6_400],
        [7_000, 7_600],
      ],
      500,
      'beyond',
    ),
    /beyond: 600 ms without stalls/,
  );
  await assert.rejects(
    watch.assertWithin(
      t,
      [
        [4_000, 5_600],
        [8_000, 8_001],
      ],
      500,
      'in part',
    ),
    /600 ms without stalls, 1600 ms with them/,
  );
});

test('no samples fail, and so do samples that are all unusable because of stalls', async (t) => {
  const watch = await ended(t, [[0, 5_000]]);
  await assert.rejects(watch.assertWithin(t, [], 500, 'none'), /nothing was measured/);
  await assert.rejects(
    watch.assertWithin(
      t,
      [
        [0, 1_000],
        [2_000, 3_000],
      ],
      500,
      'all',
    ),
    /stalled during every sample/,
  );
});

test('stalls of this process and of the disk are detected', async (t) => {
  let commits = 0;
  const slowOnce = () => pause(commits++ === 0 ? 120 : 0);
  const watch = await Stopwatch.begin(t, slowOnce);
  const disk = await span(async () => {
    while (commits < 2) await pause(1);
  });
  const busy = await span(async () => {
    await pause(1);
    for (const end = performance.now() + 150; performance.now() < end; );
    await pause(30);
  });
  await watch.end();
  assert.ok(watch.stalledMs(...disk) >= 80, `${watch.stalledMs(...disk)} ms of the disk`);
  assert.ok(watch.stalledMs(...busy) >= 100, `${watch.stalledMs(...busy)} ms of this process`);
});
