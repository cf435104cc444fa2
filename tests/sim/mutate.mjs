// Breaks the rules one by one, as `mutants.mjs` says, in a throw-away copy of the pure modules, and lets the simulation
// look for it. Writes MUTATIONS.md. Fails if the simulation misses one that it should find, or if one cannot be made.
//
//   SEEDS=1000   how many stories each shape may take        ONLY=text   only the rules that have this text in them
//   JOBS=2       how many are looked for at once
import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MUTANTS } from './mutants.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');
const copy = resolve(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'mutants');
const seeds = process.env.SEEDS ?? '1000';
const jobs = Number(process.env.JOBS ?? 2);
const only = process.env.ONLY ?? '';
const read = (path) => readFileSync(join(root, path), 'utf8');
const put = (path, text) => {
  if (existsSync(join(copy, path)) && readFileSync(join(copy, path), 'utf8') === text) return;
  mkdirSync(dirname(join(copy, path)), { recursive: true });
  writeFileSync(join(copy, path), text);
};

/// What the pure modules stand on: the rest of the house takes minutes to build.
const DEPENDENCIES = ['bytes', 'futures-util', 'getrandom', 'operational-transform', 'ropey', 'serde', 'serde_json', 'smallvec', 'thiserror', 'xxhash-rust'];
const MODULES = ['client.rs', 'id.rs', 'log.rs', 'ot', 'protocol', 'cluster/membership.rs', 'cluster/ring.rs', 'store/memory.rs', 'store/store.rs'];
const ROOMS = ['client', 'cluster', 'id', 'log', 'ot', 'protocol', 'store'];

const manifest = read('Cargo.toml').split('\n');
const edition = manifest.find((line) => line.startsWith('edition = '));
const dependencies = DEPENDENCIES.map((name) => manifest.find((line) => line.startsWith(`${name} = `))).join('\n');
const head = (name) => `[package]\nname = "${name}"\nversion = "0.0.0"\n${edition}\n\n`;

/// The crate `ground`, on which each job's crate stands: it keeps its times, so that it is built once.
function makeGround() {
  for (const module of MODULES) cpSync(join(root, 'src', module), join(copy, 'ground/src', module), { recursive: true, preserveTimestamps: true });
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
  put(`${job}/Cargo.toml`, `${head('copydesk')}[workspace]

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
`);
  put(`${job}/Cargo.lock`, read('Cargo.lock'));
}

/// Builds a job's crate, broken or whole, and lets it tell its stories: what cannot be built, or the first seed of each
/// shape that ended badly.
async function look(job) {
  const env = { ...process.env, CARGO_TARGET_DIR: join(copy, job, 'target'), SIM_SEEDS: seeds, RUSTFLAGS: '-Awarnings', RUST_BACKTRACE: '0' };
  const options = { cwd: join(copy, job), env, encoding: 'utf8', timeout: 900_000, maxBuffer: 1 << 28 };
  const { error, output } = await new Promise((resolve) => {
    execFile('cargo', ['test', '--test', 'sim'], options, (error, stdout, stderr) => resolve({ error, output: stdout + stderr }));
  });
  if (output.includes('could not compile')) return { broken: output };
  if (error?.killed) return { found: 'it does not end' };
  const seen = [...output.matchAll(/SIM_SEED=(\d+) cargo test --test sim (\w+)/g)].map(([, seed, shape]) => `${shape} ${seed}`);
  return error ? { found: [...new Set(seen)].sort().join(', ') || output } : { found: '' };
}

async function mutate(job, { file, from, to }) {
  const whole = read(file);
  if (whole.split(from).length !== 2) return { broken: `${JSON.stringify(from)} is not there once` };
  put(`${job}/${file}`, whole.replace(from, () => to));
  const result = await look(job);
  put(`${job}/${file}`, whole);
  return result;
}

function report(rows) {
  const lines = [];
  for (const part of new Set(rows.map((row) => row.part))) {
    lines.push(`## The ${part}`, '', '| taken away | table | simulation |', '|---|---|---|');
    for (const { rule, table, found, unseen } of rows.filter((row) => row.part === part)) {
      lines.push(`| ${rule} | ${table ? `\`${table}\`` : '-'} | ${found || `- (${unseen})`} |`);
    }
    lines.push('');
  }
  const page = read('tests/sim/MUTATIONS.md');
  const [begin, end] = ['<!-- make mutants: from here -->\n', '<!-- make mutants: to here -->'];
  const [before, rest] = page.split(begin);
  const count = rows.filter((row) => row.found).length;
  const sum = `Of ${rows.length} rules the simulation finds ${count} missing, in ${seeds} stories of each shape.\n`;
  writeFileSync(join(here, 'MUTATIONS.md'), `${before}${begin}\n${sum}\n${lines.join('\n')}\n${end}${rest.split(end)[1]}`);
}

makeGround();
const mutants = MUTANTS.filter(({ rule }) => rule.includes(only));
const rows = [];
let next = 0;

async function work(job) {
  while (next < mutants.length) {
    const place = next++;
    const mutant = mutants[place];
    const result = await mutate(job, mutant);
    rows[place] = { ...mutant, ...result };
    console.log(`${mutant.part}: ${mutant.rule}: ${result.broken ? 'NOT MADE' : result.found || 'not found'}`);
    if (result.broken) console.error(result.broken);
  }
}

const names = Array.from({ length: jobs }, (_, job) => `job-${job}`);
names.forEach(makeJob);
const whole = await look(names[0]);
if (whole.broken || whole.found) {
  console.error(`the whole code fails: ${whole.broken ?? whole.found}`);
  process.exit(1);
}
await Promise.all(names.map(work));
const missed = rows.filter(({ found, unseen, broken }) => broken || (!found && !unseen));
console.log(`${rows.filter(({ found }) => found).length} of ${rows.length} found by the simulation; ${missed.length} missed`);
if (!only && missed.length === 0) report(rows);
process.exit(missed.length === 0 ? 0 : 1);
