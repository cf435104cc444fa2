// A short run of `chaos.mjs`. SEED repeats it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SEED } from '../js/random.mjs';
import { chaos, summary } from './chaos.mjs';
import { missing } from './cluster.mjs';

test(`faults of all kinds lose and duplicate nothing (SEED=${SEED})`, {
  skip: missing(),
  timeout: 180_000,
}, async (t) => {
  const story = [];
  const run = { seconds: 25, seed: SEED, clients: 100, documents: 12 };
  const result = await chaos({ ...run, tell: (what) => story.push(what) });
  for (const line of summary(result, run).split('\n')) t.diagnostic(line);
  assert.deepEqual(result.amiss, [], story.join('\n'));
});
