// Redis carries traffic and nothing else: without it all is slower, or waits, and nothing is lost.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { TEXT } from '../js/client.mjs';
import { SEED } from '../js/random.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { Stage } from './stage.mjs';

/** How stale a quiet reader may be when everything is slow. The aim is 2 s. */
const STALE_MS_MAX = 10_000;

const skip = missing();
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 3 }))));
after(() => skip || cluster.stop());

const submit = (doc, op) => called((done) => doc.submitOp(op, done), 'an edit');

/** Two people on each node, writing into documents that have been owned where they are for a while. */
async function underWay(stage) {
  const people = await Promise.all([0, 1, 2, 0, 1, 2].map((n) => stage.person(cluster.nodes[n])));
  const ids = await stage.documentsOf(people[0], 9);
  const writers = await stage.write(people, ids, { docsEach: 4, paceMs: 20 });
  await stage.progress(300);
  const owners = await stage.settledOwners();
  const atHome = writers.filter(({ person, doc }) => cluster.node(owners.get(doc.id)).ws === person.url);
  return { people, ids, writers, atHome };
}

describe('Redis', { skip, timeout: 90_000 }, () => {
  test(`forgets everything, again and again (SEED=${SEED})`, async (t) => {
    const stage = Stage.on(cluster, t);
    const { writers } = await underWay(stage);
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
  ];
  for (const [how, away, back] of AWAY) {
    test(`${how}: the owner's own people go on, the others wait and catch up (SEED=${SEED})`, async (t) => {
      const stage = Stage.on(cluster, t);
      const { atHome } = await underWay(stage);
      assert.ok(atHome.length, 'somebody writes where the document is owned');
      await away();
      // A node hears itself through Redis: its silence is noticed, and told.
      const isTold = async (node) => (await node.readiness()).status === 503;
      await until(async () => (await Promise.all(cluster.nodes.map(isTold))).every(Boolean), 'all nodes say so', 20_000);
      const took = await stage.allResume(atHome, "the owner's own people go on");
      t.diagnostic(`two edits of each of the owner's own people took ${Math.round(took)} ms; ${(await cluster.nodes[0].readiness()).reason.trim()}`);
      await back();
      const resumed = await stage.allResume();
      t.diagnostic(`all went on ${Math.round(resumed)} ms after its return`);
      await until(async () => (await Promise.all(cluster.nodes.map((node) => node.isReady()))).every(Boolean), 'all nodes are ready');
      t.diagnostic(`${await stage.assertSound()} edits`);
    });

    test(`${how}: a quiet reader elsewhere is not left behind`, async (t) => {
      // Rings that still move would make another the owner than the one that claimed.
      await cluster.calm();
      const stage = Stage.on(cluster, t);
      const ann = await stage.person(cluster.nodes[0]);
      const ids = await stage.documentsOf(ann, 6, TEXT);
      const owners = await cluster.owners();
      const id = ids.find((id) => owners.get(id) === cluster.nodes[0].name) ?? ids[0];
      const owner = cluster.node(owners.get(id));
      const writer = await (await stage.person(owner)).subscribed(id);
      const readers = [];
      for (const node of cluster.nodes) {
        if (node !== owner) readers.push(await (await stage.person(node)).subscribed(id));
      }
      await submit(writer, ['before ']);
      await until(() => readers.every(({ version }) => version === 2), 'the edit is seen');
      await away();
      await submit(writer, ['meanwhile ']);
      const start = performance.now();
      await until(() => readers.every(({ version }) => version === 3), 'the edit is seen all the same', STALE_MS_MAX);
      t.diagnostic(`seen ${Math.round(performance.now() - start)} ms after it was acknowledged`);
      await back();
      await cluster.calm();
      await stage.assertSound();
    });
  }
});
