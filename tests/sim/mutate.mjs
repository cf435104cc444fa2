// Applies the mutations of `mutants.mjs` one by one. Those of the pure modules are applied to a temporary copy of these modules,
// and the unit tests and the simulation run against it. Those of other modules (the part `shell`) are applied to a copy of the
// whole crate, and its unit tests run. Writes MUTATIONS.md.
//
// Fails if a mutation cannot be applied, if the unit test that is named for it passes, if the simulation misses a mutation that it
// should find, or if no test finds a mutation.
//
//   SEEDS=1000   scenarios of each shape                     ONLY=text   only the rules that contain this text
//   JOBS=2       mutations tested at once                    PART=shell  only the rules of this part
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
/** The time limits of a run in ms: a build with its tests, and built unit tests. A mutation that exceeds them counts as found. */
const PATIENCE_MS = 900_000;
const UNITS_PATIENCE_MS = 60_000;
/** The part with the rules outside the pure modules, and the folder of its copy. */
const SHELL = 'shell';
const read = (path) => readFileSync(join(root, path), 'utf8');
const put = (path, text) => {
  if (existsSync(join(copy, path)) && readFileSync(join(copy, path), 'utf8') === text) return;
  mkdirSync(dirname(join(copy, path)), { recursive: true });
  writeFileSync(join(copy, path), text);
};

/// The modules and crates that the pure modules need. The rest of the crate takes minutes to build.
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
const ROOMS = ['access', 'client', 'cluster', 'id', 'log', 'ot', 'setting', 'store', 'sync', 'version'];
/// The parts of two modules that are needed. The other parts have the dependencies that take long to build.
const PARTS = {
  cluster: ['membership', 'ring'],
  store: ['access', 'change_feed', 'error', 'faults', 'history', 'list', 'memory', 'revision_search', 'store'],
};

const manifest = read('Cargo.toml').split('\n');
const edition = manifest.find((line) => line.startsWith('edition = '));
const dependencies = DEPENDENCIES.map((name) => manifest.find((line) => line.startsWith(`${name} = `))).join('\n');
const head = (name) => `[package]\nname = "${name}"\nversion = "0.0.0"\n${edition}\n\n`;

/// Makes the crate `ground`, which each job's crate uses. Its files keep their times, so that it is built once.
function makeGround() {
  for (const room of ROOMS) {
    for (const path of [`src/${room}.rs`, `src/${room}`]) {
      if (!existsSync(join(root, path))) continue;
      cpSync(join(root, path), join(copy, 'ground', path), { recursive: true, preserveTimestamps: true });
    }
  }
  put('ground/src/lib.rs', ROOMS.map((room) => `pub mod ${room};\n`).join(''));
  for (const [room, parts] of Object.entries(PARTS)) put(`ground/src/${room}/mod.rs`, partsOf(room, parts));
  put('ground/Cargo.toml', `${head('ground')}[dependencies]\n${dependencies}\n`);
}

/// The `mod.rs` of a module with the declarations and re-exports of some of its parts only.
function partsOf(room, parts) {
  const statements = read(`src/${room}/mod.rs`)
    .split('\n')
    .filter((line) => !/^(\/\/|#|\)\]|\s+(clippy|reason))/.test(line))
    .join('\n')
    .split(/(?<=;)\s*/);
  const isKept = (statement) =>
    parts.includes(/^(?:pub(?:\([^)]*\))? )?(?:mod|use) (?:self::)?(\w+)/.exec(statement.trim())?.[1]);
  return `${statements.filter(isKept).join('\n')}\n`;
}

function makeJob(job) {
  rmSync(join(copy, job, 'src'), { recursive: true, force: true });
  cpSync(join(root, 'src/doc'), join(copy, job, 'src/doc'), { recursive: true });
  put(`${job}/src/lib.rs`, `pub mod doc;\npub use ground::{${ROOMS.join(', ')}};\n`);
  // Most runs end early, so the time to build a mutation matters more than its speed.
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

/// Runs `cargo test` in the folder of a job: its output, whether it failed, and whether it exceeded the time limit.
async function test(job, target, args) {
  const env = {
    ...process.env,
    CARGO_TARGET_DIR: target,
    SIM_SEEDS: seeds,
    RUSTFLAGS: '-Awarnings',
    RUST_BACKTRACE: '0',
  };
  // The whole crate is built with the flags of the builds around it, so that its dependencies are not built again.
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
  if (sim.isEndless) return { failed, found: 'time limit exceeded' };
  const seen = [...sim.output.matchAll(/SIM_SEED=(\d+) cargo test --test sim (\w+)/g)].map(
    ([, seed, shape]) => `${shape} ${seed}`,
  );
  return { failed, found: sim.isFailed ? [...new Set(seen)].sort().join(', ') || sim.output : '' };
}

/// Builds the whole crate, mutated or not, and runs the unit tests with names that begin with `name`.
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
  if (error?.killed) return { failed: new Set([name]), found: 'time limit exceeded' };
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
      'The simulation does not run the shell.',
      '',
      '| rule taken away | unit test |',
      '|---|---|',
      ...lines,
      '',
    ];
  }
  const lines = rows.map(({ rule, table, failed, found, unseen }) => {
    const unit = table ?? [...failed].sort()[0];
    return `| ${rule} | ${unit ? `\`${unit}\`` : '-'} | ${found || `- (${unseen})`} |`;
  });
  return [`## The ${part}`, '', '| rule taken away | unit test | simulation |', '|---|---|---|', ...lines, ''];
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
  const sum = `The unit tests find ${byUnit} of ${rows.length} mutations; the simulation, with ${seeds} scenarios of each shape, finds ${bySim}.\n`;
  writeFileSync(
    join(here, 'MUTATIONS.md'),
    `${before}${begin}\n${sum}\n${lines.join('\n')}\n${end}${rest.split(end)[1]}`,
  );
}

/// Makes the copy of the whole crate, which is independent of the copies of the pure modules.
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

/** The mutated files, unchanged. */
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

/// Tests the mutations at these places one after the other.
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
if (!rows.length) {
  console.error('no rule contains this text');
  process.exitCode = 1;
}
const missed = rows.filter(missing);
const found = rows.filter((row) => !missing(row)).length;
console.log(
  `${found} of ${rows.length} found; ${rows.filter((row) => row.found).length} by the simulation; ${missed.length} missed`,
);
for (const row of missed) console.log(`MISSED: ${row.part}: ${row.rule}: ${missing(row)}`);
if (!only && !part && missed.length === 0) report(rows);
process.exit(missed.length === 0 ? 0 : 1);
