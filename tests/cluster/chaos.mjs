// Three nodes behind nginx and hundreds of users under faults of all kinds: at the end the log in Postgres is compared with what
// each client sent and was acknowledged. SECONDS, SEED, CLIENTS and DOCS set the size; the exit code is 1 on any finding.
import { mkdirSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { SEED } from '../js/random.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { quantile } from './crowd.mjs';
import { Nemesis } from './nemesis.mjs';
import { Stage } from './stage.mjs';
import { Stopwatch } from './stopwatch.mjs';

/** The time limit for all clients to recover after the last fault. */
const RESUMED_WITHIN_MS = 60_000;

/**
 * The longest wait of an edit, without the stalls of this machine: several faults of up to 8 s overlap, and Postgres or
 * every connection to it may be among them. Long runs have faults of up to 50 s as well.
 */
const WAIT_MS_MAX = { usual: 30_000, seldom: 90_000 };

/** The number of users with cursors, and how long a cursor may remain after its owner left. */
const CURSORS = 20;
const GONE_WITHIN_MS = 10_000;

/** One run; resolves to its counts and findings. */
export async function chaos({ seconds, seed, clients = 200, documents = 24, paceMs = 500, tell = () => {} }) {
  const cluster = await Cluster.start({ nodes: 3, balancer: true, links: true });
  const stage = new Stage(cluster, `${seed}/chaos`);
  const { r } = stage;
  try {
    const maker = await stage.person();
    const ids = await stage.documentsOf(maker, documents);
    await gather(stage, { clients, ids, paceMs });
    // The second document is rich text, which has positions.
    const cursors = new Cursors(stage, ids[1]);
    await cursors.show(stage.people.slice(0, CURSORS));
    await stage.progress(clients);
    tell(`${clients} people write into ${documents} documents; the seed is ${seed}`);

    const watch = await Stopwatch.begin();
    const nemesis = new Nemesis({ cluster, people: stage.people, r, seconds, tell });
    const end = performance.now() + seconds * 1_000;
    const amiss = [];
    await nemesis.rage(() => performance.now() > end).catch((error) => amiss.push(error.message));
    await cluster.calm().catch((error) => amiss.push(`no calm: ${error.message}`));
    await stage
      .allResume(stage.writers, 'all go on when all is well', RESUMED_WITHIN_MS)
      .catch((error) => amiss.push(error.message));
    const findings = await stage.examine();
    await cursors.end(cluster).catch((error) => amiss.push(error.message));
    amiss.push(...stage.hearsay.contradictions);
    amiss.push(...stage.people.flatMap(({ refusals, errors }) => [...refusals, ...errors.map(String)]));
    amiss.push(...cluster.nodes.flatMap(({ name, panics }) => panics.map((line) => `${name}: ${line}`)));
    amiss.push(...(findings.count ? [String(findings)] : []));
    await watch.end();
    const waits = watch.net(stage.writers.flatMap(({ waits }) => waits));
    const netMs = Math.max(0, ...waits);
    const limit = WAIT_MS_MAX[nemesis.isLong ? 'seldom' : 'usual'];
    if (netMs > limit)
      amiss.push(`an edit waited ${Math.round(netMs)} ms without stalls; at most ${limit} ms are allowed`);
    const { gapFetches, ...came } = visits(stage);
    if (gapFetches)
      amiss.push(`clients fetched documents anew ${gapFetches} times: they were sent commits with a gap before them`);
    if (amiss.length) keep(stage, seed);
    return {
      acks: stage.acks,
      counts: nemesis.counts,
      findings,
      amiss,
      longestMs: longest(stage),
      netMs,
      gapFetches,
      ...came,
    };
  } finally {
    stage.strike();
    await cluster.discard();
  }
}

/** Connects users. Each reads a few documents and writes into one: words into half of them, random ops into the rest. */
async function gather(stage, { clients, ids, paceMs }) {
  const AT_ONCE = 20;
  for (let arrived = 0; arrived < clients; arrived += AT_ONCE) {
    const group = Math.min(AT_ONCE, clients - arrived);
    await Promise.all(
      Array.from({ length: group }, async (_, n) => {
        const person = await stage.person();
        const mine = stage.r.shuffled(ids).slice(0, 3);
        await Promise.all(mine.map((id) => person.subscribed(id)));
        // The types alternate along `ids`, so the styles alternate by pairs.
        const style = ids.indexOf(mine[0]) % 4 < 2 ? 'tokens' : 'anything';
        stage.writing(person, mine[0], { style, paceMs, name: String(arrived + n) });
      }),
    );
  }
}

/** Cursors in a document: at the end exactly the cursors of the connected clients are visible. */
class Cursors {
  constructor(stage, id) {
    Object.assign(this, { stage, id });
  }

  /** These users show a moving cursor until the end. */
  async show(people) {
    this.people = people;
    this.timers = await Promise.all(
      people.map(async (person, n) => {
        const local = (await this.presence(person)).create(`cursor-${n}`);
        const doc = person.doc(this.id);
        // The library queues each move made while an edit waits for its ack.
        const move = () => doc.hasPending() || local.submit({ index: n % 2, length: 0 }, () => {});
        move();
        return setInterval(move, 1_000);
      }),
    );
  }

  async presence(person) {
    const doc = await person.subscribed(this.id);
    // Every move made while an edit waits for its ack waits as well.
    doc.setMaxListeners(0);
    const presence = person.connection.getDocPresence('docs', this.id);
    await called((done) => presence.subscribe(done), 'presence', 30_000);
    return presence;
  }

  /** On every node a new client sees all cursors; then half of the owners leave with a close frame and half without. */
  async end({ nodes }) {
    const watchers = await Promise.all(nodes.map(async (node) => this.presence(await this.stage.person(node))));
    const seen = () => watchers.map(({ remotePresences }) => Object.keys(remotePresences).length);
    const areSeen = async (count) => {
      const what = `${count} cursors are seen on every node`;
      await until(() => seen().every((those) => those === count), what, GONE_WITHIN_MS).catch((error) => {
        throw new Error(`${error.message}; ${seen()} are`);
      });
    };
    await areSeen(this.people.length);
    this.timers.forEach(clearInterval);
    for (const [n, person] of this.people.entries()) {
      person.isLeaving = true;
      if (n % 2) person.cut();
      else person.leave();
    }
    await areSeen(0);
  }
}

function longest({ people, writers }) {
  const waits = new Map(people.map((person) => [person, 0]));
  for (const { person, longestMs } of writers) waits.set(person, Math.max(waits.get(person), longestMs));
  return writers.map(({ person }) => waits.get(person));
}

function visits({ people }) {
  const sum = (of) => people.reduce((total, person) => total + of(person), 0);
  return {
    sockets: sum(({ codes }) => codes.length),
    triedAgain: sum(({ triedAgain }) => triedAgain),
    refetches: sum(({ refetches }) => refetches),
    gapFetches: sum(({ gapFetches }) => gapFetches),
  };
}

/** Writes the logs and the clients' records to files for analysis. */
function keep({ cluster, people, hearsay }, seed) {
  const folder = process.env.LOGS ?? path.join(os.tmpdir(), `copydesk-chaos-${seed}`);
  mkdirSync(folder, { recursive: true });
  for (const part of cluster.parts) writeFileSync(path.join(folder, `${part.name}.log`), part.log);
  const journal = people.map(({ sent, acks, codes, refusals }) => ({ sent: [...sent], acks, codes, refusals }));
  writeFileSync(path.join(folder, 'journal.json'), JSON.stringify({ journal, told: [...hearsay.told] }));
  console.error(`The logs and the journal are in ${folder}.`);
}

/** The summary of a run. */
export function summary(
  { acks, counts, findings, amiss, longestMs, netMs, refetches, gapFetches, sockets, triedAgain },
  { seconds, seed },
) {
  const faults = Object.entries(counts).map(([kind, count]) => `  ${String(count).padStart(4)} × ${kind}`);
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const [median, most] = [quantile(longestMs, 0.5), Math.max(...longestMs)].map((ms) => (ms / 1000).toFixed(1));
  return [
    `seed ${seed}, ${seconds} s: ${acks} edits acknowledged, ${total} faults`,
    ...faults,
    `${sockets} sockets ended, ${triedAgain} times was somebody told to try again`,
    `the longest that an edit of each waited: median ${median} s, longest ${most} s, ${(netMs / 1000).toFixed(1)} s without stalls`,
    `${refetches} documents fetched anew: ${gapFetches} after a gap, ${refetches - gapFetches} for a cursor ahead of its document`,
    `lost ${findings.lost.length}, doubled ${findings.doubled.length}, told but untrue ${findings.untrue.length}`,
    ...(amiss.length ? ['', 'AMISS:', ...amiss.slice(0, 20)] : ['nothing amiss']),
  ].join('\n');
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const number = (name, usual) => Number(process.env[name] ?? usual);
  const run = {
    seconds: number('SECONDS', 60),
    seed: SEED,
    clients: number('CLIENTS', 200),
    documents: number('DOCS', 24),
  };
  const start = performance.now();
  const tell = (what) => console.log(`${((performance.now() - start) / 1000).toFixed(1).padStart(7)} s  ${what}`);
  if (missing()) process.exit(1);
  const result = await chaos({ ...run, tell });
  console.log(summary(result, run));
  process.exit(result.amiss.length ? 1 : 0);
}
