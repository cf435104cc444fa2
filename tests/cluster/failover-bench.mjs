// Measures how long edits wait when a node dies, over enough failures for percentiles, and with many documents.
// KILLS, DOCS and SEED set the size; the exit code is 1 if a limit was exceeded or an edit lost. `make cluster-bench` runs it.
import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { TEXT } from '../js/client.mjs';
import { SEED } from '../js/random.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { quantile, spread } from './crowd.mjs';
import { Stage } from './stage.mjs';
import { Stopwatch } from './stopwatch.mjs';

const KILLS = Number(process.env.KILLS ?? 30);
const DOCS = Number(process.env.DOCS ?? 10_000);

/** The longest wait of an edit to a document with a killed owner: median and 99th percentile. */
const WAIT_MS_MAX = { p50: 600, p99: 2_000 };

/** The rate of acknowledged edits when the owner of all documents is killed, and the time limit for all clients to converge. */
const OPS_A_SECOND = 2_000;
const CONVERGED_WITHIN_MS = 5_000;

/** The time within which nearly all of the `DOCS` documents of a killed node accept edits. */
const ALL_WRITABLE_MS_MAX = 3_000;

/** The number of documents per socket, and how many are requested before other sockets have their turn. */
const DOCS_A_SOCKET = 1_000;
const DOCS_AT_ONCE = 100;

const tell = (what) => console.log(what);

/** Nodes are killed one after the other while clients of all nodes write. */
async function kills(cluster) {
  const stage = new Stage(cluster, `${SEED}/kills`);
  const { nodes } = cluster;
  const doors = nodes.flatMap((_, n) => [0, 0].map(() => [...nodes.slice(n), ...nodes.slice(0, n)]));
  const people = await Promise.all(doors.map((list) => stage.person(...list)));
  const ids = await stage.documentsOf(people[0], 12);
  const writers = await stage.write(people, ids, { docsEach: 6, paceMs: 50 });
  const watch = await Stopwatch.begin();
  const spans = [];
  for (let kill = 0; kill < KILLS; kill++) spans.push(...(await waitsOfOne(stage, writers)));
  await watch.end();
  assert.ok(spans.length >= KILLS, `only ${spans.length} waits were measured`);
  const waits = watch.net(spans);
  const acks = await stage.assertSound();
  stage.strike();
  const raw = spans.map(([from, to]) => to - from);
  tell(
    `${KILLS} owners killed, ${acks} edits, none lost; an edit into an orphaned document waited: ${spread(raw)}; without the stalls of this machine: ${spread(waits)}`,
  );
  for (const [share, limit] of [
    [0.5, WAIT_MS_MAX.p50],
    [0.99, WAIT_MS_MAX.p99],
  ]) {
    assert.ok(
      quantile(waits, share) <= limit,
      `${share} of the waits are within ${quantile(waits, share)} ms, not ${limit}`,
    );
  }
}

async function waitsOfOne(stage, writers) {
  const { cluster } = stage;
  await stage.progress(200);
  const owners = await cluster.owners();
  const owner = stage.r.pick(cluster.nodes);
  const orphaned = writers.filter(({ person, doc }) => owners.get(doc.id) === owner.name && person.url !== owner.ws);
  for (const writer of writers) writer.forgetWaits();
  await owner.kill();
  await stage.allResume();
  const waits = orphaned.map(({ longest }) => longest);
  await cluster.calm();
  return waits;
}

/** The owner of all documents is killed under load. */
async function underLoad(cluster) {
  const stage = new Stage(cluster, `${SEED}/load`);
  const { nodes } = cluster;
  const maker = await stage.person(nodes[0]);
  const made = await stage.documentsOf(maker, 90, TEXT);
  const owners = await cluster.owners();
  const [victim, ...others] = stage.r.shuffled(nodes);
  const ids = made.filter((id) => owners.get(id) === victim.name);
  // The clients of the killed node have a second socket elsewhere already: none of them waits for a connection.
  for (const id of ids) {
    for (const node of others) {
      const person = await stage.person(node);
      await person.subscribed(id);
      stage.writing(person, id, { paceMs: 5, name: String(stage.writers.length) });
    }
  }
  await stage.progress(OPS_A_SECOND);
  const [begun, since] = [stage.acks, performance.now()];
  await stage.progress(2 * OPS_A_SECOND);
  const rate = ((stage.acks - begun) / (performance.now() - since)) * 1_000;
  const killedAt = performance.now();
  await victim.kill();
  for (const writer of stage.writers) writer.stop();
  await until(() => stage.people.every(({ connection }) => !connection.hasPending()), 'all is acknowledged', 30_000);
  const lengths = await cluster.heads();
  for (const { person, doc } of stage.writers) {
    await until(() => doc.version >= lengths.get(doc.id).revision, `${person.url} shows all of ${doc.id}`, 30_000);
  }
  const took = performance.now() - killedAt;
  await cluster.calm();
  const acks = await stage.assertSound();
  stage.strike();
  tell(
    `${Math.round(rate)} edits a second of ${ids.length} documents, ${acks} in all, none lost; all the same ${Math.round(took)} ms after their owner's death`,
  );
  assert.ok(rate >= OPS_A_SECOND * 0.9, 'this machine does not bear the load');
  assert.ok(took <= CONVERGED_WITHIN_MS, `it took ${took} ms`);
}

/** A node that owns `DOCS` documents is killed, and all of them are edited at once. */
async function atSize(cluster) {
  const stage = new Stage(cluster, `${SEED}/size`);
  const victim = stage.r.pick(cluster.nodes);
  const survivors = cluster.nodes.filter((node) => node !== victim);
  await make(stage, DOCS * cluster.nodes.length);
  const owners = await cluster.owners();
  const ids = [...owners.keys()]
    .filter((id) => id.startsWith('size-') && owners.get(id) === victim.name)
    .slice(0, DOCS);
  const docs = [];
  for (let from = 0; from < ids.length; from += DOCS_A_SOCKET) {
    const person = await stage.person(survivors[(from / DOCS_A_SOCKET) % survivors.length]);
    docs.push(...ids.slice(from, from + DOCS_A_SOCKET).map((id) => person.doc(id)));
    for (const some of chunks(docs.slice(from), DOCS_AT_ONCE)) {
      await Promise.all(some.map((doc) => called((done) => doc.subscribe(done), 'subscribe', 60_000)));
    }
  }
  const killedAt = performance.now();
  await victim.kill();
  const acks = [];
  for (const some of chunks(docs, DOCS_AT_ONCE)) {
    for (const doc of some) {
      acks.push(called((done) => doc.submitOp(['!'], done), doc.id, 60_000).then(() => performance.now() - killedAt));
    }
    await turn();
  }
  const waits = await Promise.all(acks);
  stage.strike();
  tell(`all of ${ids.length} documents of a dead node are written into: ${spread(waits)} after its death`);
  assert.ok(quantile(waits, 0.99) <= ALL_WRITABLE_MS_MAX, `99 of 100 take ${quantile(waits, 0.99)} ms`);
}

/** Creates documents with one letter each. */
async function make(stage, count) {
  const person = await stage.person(stage.cluster.nodes[0]);
  const ids = Array.from({ length: count }, (_, n) => `size-${n}`);
  for (const some of chunks(ids, DOCS_AT_ONCE)) {
    await Promise.all(some.map((id) => called((done) => person.doc(id).create('x', TEXT.uri, done), 'create', 60_000)));
  }
  person.leave();
}

function* chunks(list, length) {
  for (let from = 0; from < list.length; from += length) yield list.slice(from, from + length);
}

if (missing()) process.exit(1);
tell(`the seed is ${SEED}`);
for (const part of [kills, underLoad, atSize]) {
  const cluster = await Cluster.start({ nodes: 3 });
  try {
    await part(cluster);
  } catch (error) {
    tell(`MISSED: ${error.message}`);
    process.exitCode = 1;
  } finally {
    await cluster.discard();
  }
}
process.exit();
