// Adds up what the suites of `make test` reported: node tests/sum.mjs FOLDER. Ends with 1 unless every suite passed.
//
// Of each suite the folder holds NAME.log, its output; NAME.status, 0 if it passed; and perhaps NAME.skips, one line for
// each Rust test that returned early (see tests/servers/skip.rs): the harness counts these as passed.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { stripVTControlCharacters } from 'node:util';

const NOTHING = { passed: 0, failed: 0, skipped: 0, ignored: 0 };

/** The lines with which the test runners in use report counts: node's, cargo's and cargo-nextest's. */
const COUNTS = [
  [/^(?:#|ℹ) pass (\d+)$/, (count, passed) => (count.passed += +passed)],
  [/^(?:#|ℹ) (?:fail|cancelled) (\d+)$/, (count, failed) => (count.failed += +failed)],
  [/^(?:#|ℹ) (?:skipped|todo) (\d+)$/, (count, skipped) => (count.skipped += +skipped)],
  [
    /^test result: .*?(\d+) passed; (\d+) failed(?:; (\d+) ignored)?/,
    (count, passed, failed, ignored) => {
      count.passed += +passed;
      count.failed += +failed;
      count.ignored += +(ignored ?? 0);
    },
  ],
  [
    /^ *Summary \[.*tests? run: (.*)$/,
    (count, rest) => {
      for (const [, number, what] of rest.matchAll(/(\d+) (passed|failed|timed out|skipped)/g)) {
        // What nextest calls skipped is marked #[ignore]: measurements, and the child processes of other tests.
        count[{ passed: 'passed', skipped: 'ignored' }[what] ?? 'failed'] += +number;
      }
    },
  ],
];

/** How node's reporters mark a test that was skipped. */
const NODE_SKIP = /# SKIP/;

function read(file) {
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}

/** What one suite reported. A suite that reports no counts (a linter, a build) is one check. */
function suite(folder, name) {
  const log = stripVTControlCharacters(read(path.join(folder, `${name}.log`)));
  const count = { ...NOTHING };
  let hasCounts = false;
  const reasons = new Set();
  for (const line of log.split('\n')) {
    if (NODE_SKIP.test(line)) reasons.add(line.trim());
    for (const [pattern, add] of COUNTS) {
      const found = pattern.exec(line);
      if (!found) continue;
      hasCounts = true;
      add(count, ...found.slice(1));
    }
  }
  const early = read(path.join(folder, `${name}.skips`))
    .split('\n')
    .filter(Boolean);
  const skips = new Map(early.map((line) => [line.split(': ')[1], line]));
  count.skipped += skips.size;
  count.passed -= skips.size;
  for (const line of skips.values()) reasons.add(line);
  const isWell = read(path.join(folder, `${name}.status`)).trim() === '0';
  if (isWell && !hasCounts) count.passed += 1;
  if (!isWell) count.failed ||= 1;
  return { count, isWell, reasons };
}

/** Returns true if every test of a suite was skipped, so that it checked nothing. */
const ranNothing = ({ passed, failed, skipped }) => passed + failed === 0 && skipped > 0;

const [folder] = process.argv.slice(2);
const names = readdirSync(folder)
  .filter((name) => name.endsWith('.status'))
  .map((name) => name.slice(0, -'.status'.length));
const total = { ...NOTHING };
console.log();
for (const name of names.sort()) {
  const { count, isWell, reasons } = suite(folder, name);
  for (const kind of Object.keys(total)) total[kind] += count[kind];
  for (const reason of reasons) console.log(`skipped in ${name}: ${reason}`);
  if (ranNothing(count)) console.log(`NOTHING RAN in ${name}: all ${count.skipped} tests were skipped`);
  if (!isWell) console.log(`FAILED: ${name}, see ${path.join(folder, `${name}.log`)}`);
}
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped, ${total.ignored} ignored`);
process.exit(names.length && total.failed === 0 ? 0 : 1);
