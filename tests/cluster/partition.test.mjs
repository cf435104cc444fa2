// One node is cut off from Redis or from Postgres, or its messages are delayed: the others continue, and it recovers by itself.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SEED } from '../js/random.mjs';
import { until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { Stage } from './stage.mjs';

const skip = missing();
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 3, links: true }))));
after(() => skip || cluster.stop());

/** The time limit for a node to detect the loss. */
const NOTICED_WITHIN_MS = 30_000;

/**
 * The delay of a slow connection. Over Redis a request and its answer take three delays (the read in progress, the message,
 * the answer), and a node without an answer for 400 ms is suspected, which other tests cover.
 */
const LATE_MS = { redis: 50, postgres: 100 };

const LIMIT = { timeout: 120_000 };

/** What a node logs when it takes the direct links. */
const BY_LINKS = /Redis is not prompt: messages take direct links/g;

describe('one node', { skip }, () => {
  for (const to of ['redis', 'postgres']) {
    for (const [how, part] of [
      ['is cut off from', (link) => link.cut()],
      ['gets no packets from', (link) => link.swallow()],
    ]) {
      test(`${how} ${to} (SEED=${SEED})`, LIMIT, async (t) => {
        const stage = Stage.on(cluster, t);
        const [lost, ...others] = stage.r.shuffled(cluster.nodes);
        const there = await Promise.all([stage.person(lost), stage.person(lost)]);
        const elsewhere = await Promise.all([0, 1, 0, 1].map((n) => stage.person(others[n])));
        const ids = await stage.documentsOf(elsewhere[0], 9);
        await stage.write(there, ids, { docsEach: 4, paceMs: 20 });
        const theirs = await stage.write(elsewhere, ids, { docsEach: 4, paceMs: 20 });
        await stage.progress(300);
        await stage.settledOwners();
        const claimed = await stage.claims();
        const linked = lost.countLogged(BY_LINKS);
        await part(lost.links[to]);
        const isNoticed = {
          // It continues over the direct links, and so do the nodes that it exchanges messages with.
          redis: () => lost.countLogged(BY_LINKS) > linked,
          postgres: async () => (await lost.readiness()).status === 503,
        };
        await until(isNoticed[to], `${lost.name} notices`, NOTICED_WITHIN_MS);
        const took = await stage.allResume(theirs, 'the clients of the other nodes continue');
        for (const node of others) await until(() => node.isReady(), `${node.name} stays ready`);
        if (to === 'redis') {
          await stage.allResume(undefined, 'the clients of the node itself continue');
          assert.ok(await lost.isReady(), `${lost.name} stays ready`);
          assert.equal(await stage.claims(), claimed, 'no document was claimed');
        }
        await lost.links[to].heal();
        const resumed = await stage.allResume();
        await until(() => lost.isReady(), `${lost.name} is ready again`);
        const acks = await stage.assertSound();
        t.diagnostic(
          `${acks} edits; the others' went on within ${Math.round(took)} ms, its own ${Math.round(resumed)} ms after it was healed`,
        );
      });
    }

    test(`is ${LATE_MS[to]} ms away from ${to}: edits continue on all nodes (SEED=${SEED})`, LIMIT, async (t) => {
      const stage = Stage.on(cluster, t);
      const slow = stage.r.pick(cluster.nodes);
      const people = await Promise.all([0, 1, 2, 0, 1, 2].map((n) => stage.person(cluster.nodes[n])));
      const ids = await stage.documentsOf(people[0], 9);
      const writers = await stage.write(people, ids, { docsEach: 4, paceMs: 20 });
      await stage.progress(300);
      await slow.links[to].slow(LATE_MS[to]);
      for (let round = 0; round < 3; round++) await stage.allResume();
      await slow.links[to].heal();
      await stage.allResume();
      const longest = Math.max(...writers.map(({ longestMs }) => longestMs));
      t.diagnostic(`${await stage.assertSound()} edits, the longest waited ${Math.round(longest)} ms`);
    });
  }

  test(
    `is cut off from both while another is killed: the third serves all clients (SEED=${SEED})`,
    LIMIT,
    async (t) => {
      const stage = Stage.on(cluster, t);
      const [lost, dead, third] = stage.r.shuffled(cluster.nodes);
      const people = await Promise.all([lost, dead, third].map((node) => stage.person(node, third)));
      const ids = await stage.documentsOf(people[0], 6);
      const writers = await stage.write(people, ids, { paceMs: 20 });
      await stage.progress(200);
      await Promise.all([lost.links.redis.swallow(), lost.links.postgres.swallow(), dead.kill()]);
      await stage.allResume(
        writers.filter(({ person }) => person !== people[0]),
        'the clients of the third node continue',
      );
      // Over the direct link the third node states that it has the store: the isolated one closes its sockets.
      await until(async () => (await lost.readiness()).status === 503, `${lost.name} is not ready`, NOTICED_WITHIN_MS);
      await until(() => people[0].url === third.ws, 'its client reconnects to the third node', NOTICED_WITHIN_MS);
      await stage.allResume();
      await cluster.calm();
      await stage.allResume();
      assert.ok((await stage.assertSound()) > 0);
    },
  );
});
