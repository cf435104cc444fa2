// Compares our lock files with a committed copy of the advisories about the packages in them (advisories.json).
//
//   node tests/advisories/check.mjs [LOCK…]          fails where a locked version is affected and not accepted with a reason
//   node tests/advisories/check.mjs --refresh FOLDER  renews what is said of crates from a clone of RustSec's advisory-db
//
// The live databases are better, and tests/dependencies.sh asks them first. This copy holds where they cannot be had.

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const HERE = import.meta.dirname;
const ROOT = path.resolve(HERE, '../..');
const COPY = path.join(HERE, 'advisories.json');
const LOCKS = [
  'Cargo.lock',
  'static/package-lock.json',
  'loadtest/peers/package-lock.json',
  'tests/browser/package-lock.json',
  'tests/cluster/package-lock.json',
  'tests/js/package-lock.json',
  'tests/js/oracle/package-lock.json',
];
/** After so long the copy should be renewed. */
const OLD_DAYS = 90;

const [first, second] = process.argv.slice(2);
if (first === '--refresh') refresh(second);
else
  process.exitCode = check(
    process.argv.length > 2 ? process.argv.slice(2) : LOCKS.map((lock) => path.join(ROOT, lock)),
  );

/** Prints what is found; 1: a locked version is affected. */
function check(locks) {
  const copy = JSON.parse(readFileSync(COPY, 'utf8'));
  const days = Math.floor((Date.now() - Date.parse(copy.date)) / 86_400_000);
  console.log(
    `advisories: the committed copy of ${copy.date} (${days} days old${days > OLD_DAYS ? ': renew it' : ''}), ${copy.advisories.length} advisories`,
  );
  const locked = locks.flatMap(read);
  const accepted = new Map(copy.accepted.map((it) => [`${it.id} ${it.package}`, it]));
  const used = new Set();
  let failed = 0;
  for (const { ecosystem, name, version, lock } of locked) {
    for (const advisory of copy.advisories) {
      if (advisory.ecosystem !== ecosystem || advisory.package !== name || !isAffected(advisory, version)) continue;
      const key = `${advisory.id} ${name}`;
      const reason = accepted.get(key)?.reason;
      used.add(key);
      if (!reason) failed += 1;
      console.log(
        `${reason ? 'accepted' : 'AFFECTED'}: ${lock}: ${name} ${version}: ${advisory.id} ${advisory.title}${reason ? `: ${reason}` : ''}`,
      );
    }
  }
  const covered = new Set(copy.covered);
  const missing = [...new Set(locked.map(({ ecosystem, name }) => `${ecosystem}:${name}`))].filter(
    (it) => !covered.has(it),
  );
  if (missing.length)
    console.log(
      `WARNING: ${missing.length} packages are newer than the copy, which says nothing of them: ${missing.join(' ')}`,
    );
  for (const key of accepted.keys())
    if (locks.length === LOCKS.length && !used.has(key)) console.log(`no longer needed: the exception for ${key}`);
  return failed ? 1 : 0;
}

/** The packages that a lock file names. */
function read(lock) {
  const text = readFileSync(lock, 'utf8');
  const named = (ecosystem, name, version) => ({ ecosystem, name, version, lock: path.relative(ROOT, lock) });
  if (lock.endsWith('.lock')) {
    const crates = text.matchAll(/\[\[package\]\]\nname = "([^"]+)"\nversion = "([^"]+)"/g);
    return [...crates].map(([, name, version]) => named('crates.io', name, version));
  }
  const packages = Object.entries(JSON.parse(text).packages ?? {}).filter(([place, { version }]) => place && version);
  return packages.map(([place, { name, version }]) =>
    named('npm', name ?? place.split('node_modules/').pop(), version),
  );
}

/** RustSec says which versions are not affected, npm's database which are. */
function isAffected(advisory, version) {
  if (advisory.affected) return advisory.affected.some((range) => fits(range, version));
  return ![...advisory.patched, ...advisory.unaffected].some((range) => fits(range, version));
}

/** Whether a version fits a range: comparators that all hold, with commas or spaces between. */
function fits(range, version) {
  const comparators = [...range.matchAll(/(>=|<=|>|<|=|\^|~)?\s*(\d+(?:\.\d+)*(?:-[\w.-]+)?)/g)];
  if (!comparators.length) throw new Error(`no range: ${range}`);
  return comparators.every(([, operator = '^', bound]) => {
    const order = compare(version, bound);
    switch (operator) {
      case '>=':
        return order >= 0;
      case '<=':
        return order <= 0;
      case '>':
        return order > 0;
      case '<':
        return order < 0;
      case '=':
        return order === 0;
      default:
        return order >= 0 && compare(version, next(bound, operator)) < 0;
    }
  });
}

/** The first version that no longer counts as compatible. */
function next(bound, operator) {
  const parts = bound.split('-')[0].split('.').map(Number);
  const at =
    operator === '~'
      ? Math.min(1, parts.length - 1)
      : Math.max(
          0,
          parts.findIndex((part) => part > 0),
        );
  return [...parts.slice(0, at), parts[at] + 1].join('.');
}

/** By the rules of semver, build numbers aside. */
function compare(one, two) {
  const split = (version) => {
    const [core, ...rest] = version.split('+')[0].split('-');
    const [major = 0, minor = 0, patch = 0] = core.split('.').map(Number);
    return { core: [major, minor, patch], pre: rest.join('-') };
  };
  const [a, b] = [split(one), split(two)];
  for (let n = 0; n < 3; n++) if (a.core[n] !== b.core[n]) return a.core[n] - b.core[n];
  if (a.pre === b.pre) return 0;
  if (!a.pre || !b.pre) return a.pre ? -1 : 1;
  return a.pre.localeCompare(b.pre, 'en', { numeric: true });
}

/** Reads RustSec's database anew, for the crates of Cargo.lock. What is said of npm packages is kept by hand. */
function refresh(folder) {
  const copy = JSON.parse(readFileSync(COPY, 'utf8'));
  const crates = [...new Set(read(path.join(ROOT, 'Cargo.lock')).map(({ name }) => name))];
  const advisories = crates.flatMap((name) => {
    let files = [];
    try {
      files = readdirSync(path.join(folder, 'crates', name));
    } catch {
      return [];
    }
    return files
      .filter((file) => file.endsWith('.md'))
      .sort()
      .flatMap((file) => advisory(readFileSync(path.join(folder, 'crates', name, file), 'utf8')));
  });
  copy.advisories = [...advisories, ...copy.advisories.filter(({ ecosystem }) => ecosystem !== 'crates.io')];
  copy.covered = [
    ...crates.map((name) => `crates.io:${name}`),
    ...copy.covered.filter((it) => !it.startsWith('crates.io:')),
  ].sort();
  copy.date = execFileSync('git', ['-C', folder, 'log', '-1', '--format=%cs'], { encoding: 'utf8' }).trim();
  const lines = (list) => list.map((it) => `    ${JSON.stringify(it)}`).join(',\n');
  writeFileSync(
    COPY,
    `{
  "date": ${JSON.stringify(copy.date)},
  "sources": ${JSON.stringify(copy.sources)},
  "accepted": [\n${lines(copy.accepted)}\n  ],
  "advisories": [\n${lines(copy.advisories)}\n  ],
  "covered": [\n${lines(copy.covered)}\n  ]\n}\n`,
  );
}

/** What a file of RustSec's database says; nothing of one that was withdrawn or is only about maintenance. */
function advisory(text) {
  const value = (name) => new RegExp(`^${name} = "([^"]*)"`, 'm').exec(text)?.[1];
  const list = (name) =>
    [...(new RegExp(`^${name} = \\[([^\\]]*)\\]`, 'm').exec(text)?.[1] ?? '').matchAll(/"([^"]*)"/g)].map(
      ([, it]) => it,
    );
  const kind = value('informational') ?? 'vulnerability';
  if (value('withdrawn') || !['vulnerability', 'unsound'].includes(kind)) return [];
  const title = /^# (.*)$/m.exec(text.slice(text.indexOf('```', 3)))?.[1] ?? '';
  return [
    {
      ecosystem: 'crates.io',
      id: value('id'),
      package: value('package'),
      title,
      patched: list('patched'),
      unaffected: list('unaffected'),
    },
  ];
}
