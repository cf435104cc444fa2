// Redis carries traffic and nothing else: without it all is slower, or waits, and nothing is lost.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { TEXT } from '../js/client.mjs';
import { SEED } from '../js/random.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { Stage } from './stage.mjs';
import { Stopwatch, span } from './stopwatch.mjs';

/** How stale a reader may be, whatever was lost: its node asks the store with every heartbeat, twice a second. */
const STALE_MS_MAX = 2_000;

const LIMIT = { timeout: 90_000 };

const skip = missing();
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 3 }))));
after(() => skip || cluster.stop());

const submit = (doc, op) => called((done) => doc.submitOp(op, done), 'an edit');

/** Two people on each node, writing into documents of all of them. */
async function underWay(stage) {
  const people = await Promise.all([0, 1, 2, 0, 1, 2].map((n) => stage.person(cluster.nodes[n])));
  const ids = await stage.documentsOf(people[0], 9);
  const writers = await stage.write(people, ids, { docsEach: 4, paceMs: 20 });
  await stage.progress(300);
  await cluster.settled();
  return writers;
}

/** Those of `writers` who write where their document is owned, when no document moves any more. */
async function atHome(stage, writers) {
  const owners = await stage.settledOwners();
  return writers.filter(({ person, doc }) => cluster.node(owners.get(doc.id)).ws === person.url);
}

const areAll = async (holds) => (await Promise.all(cluster.nodes.map(holds))).every(Boolean);

describe('Redis', { skip }, () => {
  test(`forgets everything, again and again (SEED=${SEED})`, LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const writers = await underWay(stage);
    for (let flushes = 0; flushes < 30; flushes++) {
      await cluster.redis.flush();
      const next = performance.now() + 100;
      await until(() => performance.now() > next, 'a tenth of a second later');
    }
    await stage.allResume();
    const longest = Math.max(...writers.map(({ longestMs }) => longestMs));
    t.diagnostic(`${await stage.assertSound()} edits, the longest waited ${Math.round(longest)} ms`);
  });

  const AWAY = [
    ['is killed and comes back', () => cluster.redis.kill(), () => cluster.redis.start()],
    ['is stopped and goes on', () => cluster.redis.freeze(), () => cluster.redis.thaw()],
    ['is full and is given room', () => cluster.redis.fill(), () => cluster.redis.makeRoom()],
  ];
  for (const [how, away, back] of AWAY) {
    test(`${how}: the owner's own people go on, the others wait and catch up (SEED=${SEED})`, LIMIT, async (t) => {
      const stage = Stage.on(cluster, t);
      const writers = await underWay(stage);
      await away();
      // A node hears itself through Redis: its silence is noticed, and told.
      await until(() => areAll(async (node) => (await node.readiness()).status === 503), 'all nodes say so', 20_000);
      const own = await atHome(stage, writers);
      assert.ok(own.length, 'somebody writes where the document is owned');
      const took = await stage.allResume(own, "the owner's own people go on");
      t.diagnostic(`two edits of each of the owner's own people took ${Math.round(took)} ms; ${(await cluster.nodes[0].readiness()).reason.trim()}`);
      await back();
      const resumed = await stage.allResume();
      t.diagnostic(`all went on ${Math.round(resumed)} ms after its return`);
      await until(() => areAll((node) => node.isReady()), 'all nodes are ready');
      t.diagnostic(`${await stage.assertSound()} edits`);
    });

    test(`${how}: a quiet reader elsewhere is at most ${STALE_MS_MAX} ms behind`, LIMIT, async (t) => {
      const stage = Stage.on(cluster, t);
      const ann = await stage.person(cluster.nodes[0]);
      const [id] = await stage.documentsOf(ann, 1, TEXT);
      const owner = cluster.node((await cluster.owners()).get(id));
      const writer = await (await stage.person(owner)).subscribed(id);
      const elsewhere = await Promise.all(cluster.nodes.filter((node) => node !== owner).map((node) => stage.person(node)));
      const readers = await Promise.all(elsewhere.map((person) => person.subscribed(id)));
      /** One edit; the span from its ack until the last reader sees it. */
      const staleness = async () => {
        await submit(writer, ['meanwhile ']);
        const { version } = writer;
        return span(() => until(() => readers.every((reader) => reader.version >= version), 'the edit is seen all the same'));
      };
      await staleness();
      await away();
      const watch = await Stopwatch.begin(t);
      const stale = [];
      for (let edits = 0; edits < 5; edits++) stale.push(await staleness());
      await watch.assertWithin(t, stale, STALE_MS_MAX, 'an edit is seen after its ack');
      await back();
      await cluster.calm();
      await stage.assertSound();
    });
  }
});
