// The sum at the end of `make test`: skipped tests are not counted as passed, and every failure is counted.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';

const program = new URL('../sum.mjs', import.meta.url).pathname;

/** Runs the program on suites given as `{ name: { log, status, skips } }`. */
function sum(t, suites) {
  const folder = mkdtempSync(path.join(tmpdir(), 'copydesk-sum-'));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const [name, { log = '', status = 0, skips }] of Object.entries(suites)) {
    writeFileSync(path.join(folder, `${name}.log`), log);
    writeFileSync(path.join(folder, `${name}.status`), `${status}\n`);
    if (skips) writeFileSync(path.join(folder, `${name}.skips`), skips);
  }
  const { stdout, status } = spawnSync(process.execPath, [program, folder], { encoding: 'utf8' });
  return { lines: stdout.trim().split('\n'), last: stdout.trim().split('\n').at(-1), status };
}

const spec = (pass, fail, skipped) =>
  `ℹ tests ${pass + fail + skipped}\nℹ suites 1\nℹ pass ${pass}\nℹ fail ${fail}\nℹ cancelled 0\nℹ skipped ${skipped}\nℹ todo 0\n`;

test('counts of all runners are added up', (t) => {
  const { last, status } = sum(t, {
    lints: {},
    rust: { log: '     Summary [  66.1s] 1020 tests run: 1020 passed (3 slow), 9 skipped\n' },
    docs: { log: 'test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n' },
    clients: { log: spec(150, 0, 2) },
  });
  assert.deepEqual([last, status], ['1175 passed, 0 failed, 2 skipped, 10 ignored', 0]);
});

test('Rust tests that returned early are skipped and not passed, each once', (t) => {
  const skips =
    'SKIPPED: a::one: Postgres is not installed\nSKIPPED: a::one: Postgres is not installed\nSKIPPED: a::two: no disk\n';
  const { last, lines } = sum(t, { rust: { log: 'Summary [ 1s] 10 tests run: 10 passed, 0 skipped\n', skips } });
  assert.equal(last, '8 passed, 0 failed, 2 skipped, 0 ignored');
  assert.ok(lines.includes('skipped in rust: SKIPPED: a::two: no disk'));
});

test('a suite that skipped all its tests is reported as having run nothing', (t) => {
  const { last, lines } = sum(t, { cluster: { log: `﹣ all of it # SKIP no Postgres\n${spec(0, 0, 12)}` } });
  assert.equal(last, '0 passed, 0 failed, 12 skipped, 0 ignored');
  assert.ok(lines.some((line) => line.startsWith('NOTHING RAN in cluster')));
});

for (const [what, suites, failed] of [
  [
    'a failed test',
    { rust: { status: 1, log: 'Summary [ 1s] 10 tests run: 8 passed, 1 failed, 1 timed out, 0 skipped\n' } },
    2,
  ],
  ['a suite that ended before it counted', { cluster: { status: 1, log: 'out of memory\n' } }, 1],
  ['a runner that failed although no test did', { clients: { status: 1, log: spec(3, 0, 0) } }, 1],
  ['a suite without its status', { clients: { status: '', log: spec(3, 0, 0) } }, 1],
]) {
  test(`${what} fails the sum`, (t) => {
    const { last, lines, status } = sum(t, suites);
    assert.match(last, new RegExp(`, ${failed} failed, `));
    assert.equal(status, 1);
    assert.ok(lines.some((line) => line.startsWith('FAILED: ')));
  });
}
