// Outages of Postgres: while it is away no edit is acknowledged, and when it is back the nodes continue by themselves.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { TEXT } from '../js/client.mjs';
import { SEED } from '../js/random.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { LogLines } from './log-lines.mjs';
import { Stage } from './stage.mjs';
import { Stopwatch, span } from './stopwatch.mjs';

/** The time limit for all writers to continue when Postgres is back: nodes retry at least every 2 s. */
const BACK_WITHIN_MS = 5_000;

/** The time limit for rejecting a list request while the store is known to be away; pools and statements wait for 11 s. */
const LIST_WITHIN_MS = 4_000;

/** The time for which the test checks that nothing is acknowledged. */
const WATCHED_MS = 1_000;

/** The time limit for rejecting a reader of a document that is not in memory. */
const REFUSED_WITHIN_MS = 3_000;

/** The most memory that a node may hold during the outage. */
const RSS_BYTES_MAX = 400 * 2 ** 20;

const LIMIT = { timeout: 120_000 };

const skip = missing();
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 3 }))));
after(() => skip || cluster.stop());

/** All nodes report that they save nothing. They stay in the balancer, because no other node is better. */
const areDegraded = async () => {
  const told = await Promise.all(cluster.nodes.map((node) => node.readiness()));
  assert.ok(!told.every(({ status }) => status === 503), 'no balancer loses all nodes at once');
  return told.every(({ status, reason }) => status === 200 && reason === 'degraded: edits cannot be saved\n');
};

const areReady = async () => (await Promise.all(cluster.nodes.map((node) => node.isReady()))).every(Boolean);

describe('Postgres', { skip }, () => {
  const AWAY = [
    ['is stopped by its operator', () => cluster.postgres.stop(), () => cluster.postgres.start()],
    ['loses its power', () => cluster.postgres.kill(), () => cluster.postgres.start()],
    ['hangs', () => cluster.postgres.freeze(), () => cluster.postgres.thaw()],
  ];
  for (const [how, away, back] of AWAY) {
    test(`${how} under load: nothing is lost, and edits continue when it is back (SEED=${SEED})`, LIMIT, async (t) => {
      const stage = Stage.on(cluster, t);
      const people = await Promise.all([0, 1, 2, 0, 1, 2].map((n) => stage.person(cluster.nodes[n])));
      const ids = await stage.documentsOf(people[0], 9);
      const writers = await stage.write(people, ids, { docsEach: 4, paceMs: 10 });
      await stage.progress(400);
      const processes = cluster.nodes.map(({ child }) => child.pid);
      const lines = new LogLines(cluster.nodes);
      await away();
      await until(areDegraded, 'all nodes say that they save nothing', 20_000);
      // Acks that were in flight have arrived: every writer waits.
      await until(() => writers.every(({ isWaiting }) => isWaiting), 'every writer waits');
      const before = stage.acks;
      await pause(WATCHED_MS);
      assert.equal(stage.acks, before, 'nothing is acknowledged that is not durable');
      await stage.person(cluster.nodes[0]);
      // Rejected as soon as the outage is known, not after the time limits of pools and statements.
      const signal = AbortSignal.timeout(LIST_WITHIN_MS);
      const lists = await Promise.all(cluster.nodes.map((node) => fetch(`${node.http}/api/documents`, { signal })));
      assert.deepEqual(
        lists.map(({ status }) => status),
        [503, 503, 503],
        'lists are refused at once',
      );
      const rss = Math.max(...cluster.nodes.map((node) => node.rssBytes()));
      assert.ok(rss < RSS_BYTES_MAX, `a node holds ${Math.round(rss / 2 ** 20)} MB`);
      await back();
      const watch = await Stopwatch.begin(t);
      const resumed = await span(() => stage.allResume(writers, 'all go on'));
      await until(areReady, 'all nodes are ready');
      await watch.assertWithin(t, [resumed], BACK_WITHIN_MS, 'all go on after its return');
      t.diagnostic(`a node held ${Math.round(rss / 2 ** 20)} MB`);
      assert.deepEqual(
        cluster.nodes.map(({ child }) => child.pid),
        processes,
        'no node was restarted',
      );
      t.diagnostic(`${await stage.assertSound()} edits`);
      await lines.assertOneOutage({ isShort: how === 'hangs' });
    });
  }

  test(`restarts again and again: nothing is lost (SEED=${SEED})`, LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const people = await Promise.all([0, 1, 2].map((n) => stage.person(cluster.nodes[n])));
    const ids = await stage.documentsOf(people[0], 6);
    await stage.write(people, ids, { paceMs: 10 });
    for (let round = 0; round < 4; round++) {
      await stage.progress(100);
      if (round % 2) await cluster.postgres.stop();
      else await cluster.postgres.kill();
      await cluster.postgres.start();
      await stage.allResume();
    }
    await stage.assertSound();
  });

  test(
    'is away: open documents with edits are sent to new readers, requests for others are rejected at once',
    LIMIT,
    async (t) => {
      const stage = Stage.on(cluster, t);
      const ann = await stage.person(cluster.nodes[0]);
      const ids = await stage.documentsOf(ann, 6);
      const readers = await Promise.all(cluster.nodes.map((node) => stage.person(node)));
      for (const reader of readers) await Promise.all(ids.map((id) => reader.subscribed(id)));
      const edit = (id, done) =>
        ann.doc(id).submitOp(ann.doc(id).type === TEXT ? ['edit '] : [{ insert: 'edit ' }], done);
      // Edited since the nodes loaded them.
      for (const id of ids) for (let n = 0; n < 3; n++) await called((done) => edit(id, done), 'edit');
      const isUp = (reader, id) => reader.doc(id).version === ann.doc(id).version;
      await until(() => readers.every((reader) => ids.every((id) => isUp(reader, id))), 'all readers are up to date');
      const stateOf = ({ version, data }) => JSON.stringify({ version, data });
      const known = new Map(ids.map((id) => [id, stateOf(ann.doc(id))]));
      await cluster.postgres.kill();
      await until(areDegraded, 'all nodes say that they save nothing', 20_000);
      // Acks are pending meanwhile.
      const acked = ids.map((id) => called((done) => edit(id, done), 'edit', 60_000));
      for (const [n, node] of cluster.nodes.entries()) {
        const [subscriber, fetcher] = [await stage.person(node), await stage.person(node)];
        // Sooner than the limit for a store that is not known to be away.
        const fetched = called((done) => fetcher.doc('not-in-memory').fetch(done), 'fetch', REFUSED_WITHIN_MS);
        assert.equal(
          await fetched.then(
            () => 'shown',
            (error) => error.code,
          ),
          'ERR_STORE_UNAVAILABLE',
        );
        for (const id of ids) {
          const shown = [await readers[n].fetched(id), await subscriber.subscribed(id), await fetcher.fetched(id)];
          for (const doc of shown) assert.equal(stateOf(doc), known.get(id), `${id} on ${node.name}`);
        }
      }
      await cluster.calm();
      await Promise.all(acked);
      await stage.assertSound();
    },
  );
});
