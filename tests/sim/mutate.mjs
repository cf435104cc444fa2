// Breaks the rules one by one, as `mutants.mjs` says. Rules of the pure modules are broken in a throw-away copy of these
// modules; the unit tests beside them and the simulation run against it. Rules of the other modules (the part `shell`) are
// broken in a copy of the whole crate, whose unit tests run. Writes MUTATIONS.md.
//
// Fails if a mutant cannot be made, if the unit test that is named for a rule passes without it, if the simulation misses a
// rule that it should find, or if nothing finds a rule.
//
//   SEEDS=1000   how many stories each shape may take        ONLY=text   only the rules that have this text in them
//   JOBS=2       how many are looked for at once             PART=shell  only the rules of this part
//   CHECK=1      only checks that each row's text occurs once in its file, and builds nothing
import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve as resolvePath } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MUTANTS } from './mutants.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');
const copy = resolvePath(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'mutants');
const seeds = process.env.SEEDS ?? '1000';
const jobs = Number(process.env.JOBS ?? 2);
const only = process.env.ONLY ?? '';
const part = process.env.PART;
/** One run takes no longer, in ms: a build with its tests, and unit tests that are built. A mutant that takes longer is found. */
const PATIENCE_MS = 900_000;
const UNITS_PATIENCE_MS = 60_000;
/** The part whose rules are not in the pure modules, and the folder of its copy. */
const SHELL = 'shell';
const read = (path) => readFileSync(join(root, path), 'utf8');
const put = (path, text) => {
  if (existsSync(join(copy, path)) && readFileSync(join(copy, path), 'utf8') === text) return;
  mkdirSync(dirname(join(copy, path)), { recursive: true });
  writeFileSync(join(copy, path), text);
};

/// What the pure modules stand on: the rest of the house takes minutes to build.
const DEPENDENCIES = [
  'bytes',
  'futures-util',
  'getrandom',
  'operational-transform',
  'ropey',
  'ryu-js',
  'serde',
  'serde_json',
  'smallvec',
  'thiserror',
  'xxhash-rust',
];
const MODULES = [
  'client.rs',
  'id.rs',
  'log.rs',
  'ot',
  'protocol',
  'setting.rs',
  'sync.rs',
  'cluster/membership.rs',
  'cluster/ring.rs',
  'store/memory.rs',
  'store/store.rs',
];
const ROOMS = ['client', 'cluster', 'id', 'log', 'ot', 'protocol', 'setting', 'store', 'sync'];

const manifest = read('Cargo.toml').split('\n');
const edition = manifest.find((line) => line.startsWith('edition = '));
const dependencies = DEPENDENCIES.map((name) => manifest.find((line) => line.startsWith(`${name} = `))).join('\n');
const head = (name) => `[package]\nname = "${name}"\nversion = "0.0.0"\n${edition}\n\n`;

/// The crate `ground`, on which each job's crate stands: it keeps its times, so that it is built once.
function makeGround() {
  for (const module of MODULES)
    cpSync(join(root, 'src', module), join(copy, 'ground/src', module), { recursive: true, preserveTimestamps: true });
  put('ground/src/lib.rs', ROOMS.map((room) => `pub mod ${room};\n`).join(''));
  put('ground/src/cluster/mod.rs', 'mod membership;\nmod ring;\npub use membership::*;\npub use ring::*;\n');
  put('ground/src/store/mod.rs', 'mod memory;\nmod store;\npub use memory::*;\npub use store::*;\n');
  put('ground/Cargo.toml', `${head('ground')}[dependencies]\n${dependencies}\n`);
}

function makeJob(job) {
  rmSync(join(copy, job, 'src'), { recursive: true, force: true });
  cpSync(join(root, 'src/doc'), join(copy, job, 'src/doc'), { recursive: true });
  put(`${job}/src/lib.rs`, `pub mod doc;\npub use ground::{${ROOMS.join(', ')}};\n`);
  // Most stories that are told end soon: what counts is how long a mutant takes to build.
  put(
    `${job}/Cargo.toml`,
    `${head('copydesk')}[workspace]

[dependencies]
ground = { path = "../ground" }
${dependencies}

[[test]]
name = "sim"
path = ${JSON.stringify(join(here, 'main.rs'))}

[profile.dev]
debug = false

[profile.dev.package."*"]
opt-level = 1
`,
  );
  put(`${job}/Cargo.lock`, read('Cargo.lock'));
}

/// Runs `cargo test` in the folder of a job: what it printed, whether it failed, whether it was ended for taking too long.
async function test(job, target, args) {
  const env = {
    ...process.env,
    CARGO_TARGET_DIR: target,
    SIM_SEEDS: seeds,
    RUSTFLAGS: '-Awarnings',
    RUST_BACKTRACE: '0',
  };
  // The whole crate is built with the flags of the builds around it, so that what it depends on is not built anew.
  if (job === SHELL) delete env.RUSTFLAGS;
  const options = { cwd: join(copy, job), env, encoding: 'utf8', timeout: PATIENCE_MS, maxBuffer: 1 << 28 };
  return new Promise((resolve) => {
    execFile('cargo', ['test', '--workspace', '--no-fail-fast', ...args], options, (error, stdout, stderr) => {
      resolve({ isFailed: Boolean(error), isEndless: Boolean(error?.killed), output: stdout + stderr });
    });
  });
}

/// The names of the unit tests that failed, without their modules.
const failedIn = (output) =>
  new Set([...output.matchAll(/^test (?:\w+::)*(\w+) ... FAILED$/gm)].map(([, name]) => name));

/// Builds a job's crate, broken or whole, and runs the unit tests and the simulation: what cannot be built, or which unit
/// tests failed and the first seed of each shape that ended badly.
async function look(job) {
  const target = join(copy, job, 'target');
  const units = await test(job, target, ['--lib']);
  if (units.output.includes('could not compile')) return { broken: units.output };
  if (units.isFailed && !units.isEndless && !failedIn(units.output).size) return { broken: units.output };
  const sim = await test(job, target, ['--test', 'sim']);
  if (sim.output.includes('could not compile')) return { broken: sim.output };
  const failed = failedIn(units.output);
  if (sim.isEndless) return { failed, found: 'it does not end' };
  const seen = [...sim.output.matchAll(/SIM_SEED=(\d+) cargo test --test sim (\w+)/g)].map(
    ([, seed, shape]) => `${shape} ${seed}`,
  );
  return { failed, found: sim.isFailed ? [...new Set(seen)].sort().join(', ') || sim.output : '' };
}

/// Builds the whole crate, broken or whole, and runs the unit tests whose names begin with `name`.
async function lookShell(name) {
  const built = await test(SHELL, dirname(copy), ['--lib', '--no-run']);
  const [, program] = /Executable unittests src\/lib\.rs \((.*\/copydesk-\w+)\)/.exec(built.output) ?? [];
  if (built.isFailed || !program) return { broken: built.output };
  // By itself: cargo might wait for another build in the same folder.
  const options = { cwd: join(copy, SHELL), encoding: 'utf8', timeout: UNITS_PATIENCE_MS, maxBuffer: 1 << 28 };
  const { error, output } = await new Promise((resolve) => {
    execFile(resolvePath(join(copy, SHELL), program), [name], options, (error, stdout, stderr) =>
      resolve({ error, output: stdout + stderr }),
    );
  });
  if (error?.killed) return { failed: new Set([name]), found: 'it does not end' };
  const failed = failedIn(output);
  if (error && !failed.size) return { broken: output };
  const ran = /^test .*\.\.\. (?:ok|FAILED)$/m.test(output);
  return ran ? { failed, found: '' } : { broken: `no unit test is named ${name}` };
}

async function mutate(job, { file, from, to, table }) {
  const whole = sources.get(file);
  if (whole.split(from).length !== 2) return { broken: `${JSON.stringify(from)} is not there once` };
  put(
    `${job}/${file}`,
    whole.replace(from, () => to),
  );
  const result = await (job === SHELL ? lookShell(table) : look(job));
  put(`${job}/${file}`, whole);
  return result;
}

/// Why a mutant counts as missed; undefined if it does not.
function missing({ broken, table, found, unseen, failed, part }) {
  if (broken) return 'NOT MADE';
  if (table && !failed.has(table)) return `the unit test ${table} passes without it`;
  if (!found && !unseen && part !== SHELL) return 'the simulation does not find it';
  if (!found && !failed.size) return 'nothing finds it';
  return undefined;
}

/// The rows of one part, as a table.
function section(part, rows) {
  if (part === SHELL) {
    const lines = rows.map(({ rule, table }) => `| ${rule} | \`${table}\` |`);
    return [
      '## The shell',
      '',
      'The simulation drives the machines, not the shell.',
      '',
      '| taken away | unit test |',
      '|---|---|',
      ...lines,
      '',
    ];
  }
  const lines = rows.map(({ rule, table, failed, found, unseen }) => {
    const unit = table ?? [...failed].sort()[0];
    return `| ${rule} | ${unit ? `\`${unit}\`` : '-'} | ${found || `- (${unseen})`} |`;
  });
  return [`## The ${part}`, '', '| taken away | unit test | simulation |', '|---|---|---|', ...lines, ''];
}

function report(rows) {
  const lines = [];
  for (const part of new Set(rows.map((row) => row.part)))
    lines.push(
      ...section(
        part,
        rows.filter((row) => row.part === part),
      ),
    );
  const page = read('tests/sim/MUTATIONS.md');
  const [begin, end] = ['<!-- make mutants: from here -->\n', '<!-- make mutants: to here -->'];
  const [before, rest] = page.split(begin);
  const bySim = rows.filter((row) => row.found).length;
  const byUnit = rows.filter((row) => row.failed.size).length;
  const sum = `Of ${rows.length} rules the unit tests find ${byUnit} missing; the simulation, in ${seeds} stories of each shape, finds ${bySim}.\n`;
  writeFileSync(
    join(here, 'MUTATIONS.md'),
    `${before}${begin}\n${sum}\n${lines.join('\n')}\n${end}${rest.split(end)[1]}`,
  );
}

/// The copy of the whole crate, with which the copies of the pure modules have nothing to do.
function makeShell() {
  rmSync(join(copy, SHELL), { recursive: true, force: true });
  for (const path of ['src', 'sql', 'static/dist', 'Cargo.lock', 'config.toml', 'README.md']) {
    if (existsSync(join(root, path)))
      cpSync(join(root, path), join(copy, SHELL, path), { recursive: true, preserveTimestamps: true });
  }
  // Real servers that unit tests start.
  cpSync(join(root, 'tests/servers'), join(copy, SHELL, 'tests/servers'), { recursive: true });
  cpSync(join(root, 'loadtest'), join(copy, SHELL, 'loadtest'), {
    recursive: true,
    filter: (path) => !path.includes('node_modules'),
  });
  put(`${SHELL}/Cargo.toml`, read('Cargo.toml').replace(/\[\[example\]\][\s\S]*?\n\n/, ''));
}

/** The files that are broken, as they were when this began. */
const sources = new Map(MUTANTS.map(({ file }) => [file, read(file)]));

const unmatched = MUTANTS.filter(({ file, from }) => sources.get(file).split(from).length !== 2);
for (const { part, rule, file, from } of unmatched)
  console.error(`${part}: ${rule}: ${file} does not hold this once:\n${from}`);
if (unmatched.length) process.exit(1);
if (process.env.CHECK) {
  console.log(`each of the ${MUTANTS.length} rows matches its file once`);
  process.exit(0);
}

const mutants = MUTANTS.filter((mutant) => mutant.rule.includes(only) && (!part || mutant.part === part));
const rows = [];
const pure = mutants.flatMap((mutant, place) => (mutant.part === SHELL ? [] : [place]));
const shell = mutants.flatMap((mutant, place) => (mutant.part === SHELL ? [place] : []));

/// Makes the mutants at these places one after the other, until none is left.
async function work(job, places) {
  while (places.length) {
    const place = places.shift();
    const mutant = mutants[place];
    const row = { ...mutant, ...(await mutate(job, mutant)) };
    rows[place] = row;
    const units = [...(row.failed ?? [])].sort().join(', ') || 'no unit test';
    console.log(
      `${mutant.part}: ${mutant.rule}: ${missing(row) ?? 'found'} (unit tests: ${units}; simulation: ${row.found || 'not found'})`,
    );
    if (row.broken) console.error(row.broken);
  }
}

function demandWhole({ broken, failed, found }) {
  if (!broken && !found && !failed.size) return;
  console.error(`the whole code fails: ${broken ?? [...failed, found].join(', ')}`);
  process.exit(1);
}

if (pure.length) {
  makeGround();
  const names = Array.from({ length: jobs }, (_, job) => `job-${job}`);
  names.forEach(makeJob);
  demandWhole(await look(names[0]));
  await Promise.all(names.map((name) => work(name, pure)));
}
if (shell.length) {
  makeShell();
  demandWhole(await lookShell(mutants[shell[0]].table));
  await work(SHELL, shell);
  rmSync(join(copy, SHELL), { recursive: true });
}
const missed = rows.filter(missing);
const found = rows.filter((row) => !missing(row)).length;
console.log(
  `${found} of ${rows.length} found; ${rows.filter((row) => row.found).length} by the simulation; ${missed.length} missed`,
);
for (const row of missed) console.log(`MISSED: ${row.part}: ${row.rule}: ${missing(row)}`);
if (!only && !part && missed.length === 0) report(rows);
process.exit(missed.length === 0 ? 0 : 1);
