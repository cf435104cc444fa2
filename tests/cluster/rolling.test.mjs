// All nodes are replaced one after the other while people type, behind a balancer: nobody loses anything, and hardly
// anybody notices.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SEED } from '../js/random.mjs';
import { until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { Stage } from './stage.mjs';
import { Stopwatch } from './stopwatch.mjs';

/** The longest that an edit may wait while its person is sent to another node and its document is handed over. */
const PAUSE_MS_MAX = 1_000;

const LIMIT = { timeout: 300_000 };

const skip = missing();
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 3, balancer: true }))));
after(() => skip || cluster.stop());

describe('a rolling restart', { skip }, () => {
  test(`of all nodes under load (SEED=${SEED})`, LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const people = await Promise.all(Array.from({ length: 30 }, () => stage.person()));
    const ids = await stage.documentsOf(people[0], 12);
    const writers = await stage.write(people, ids, { docsEach: 2, paceMs: 50 });
    await stage.progress(500);
    const restart = async (node) => {
      for (const writer of writers) writer.forgetWaits();
      const begun = performance.now();
      assert.equal(await node.end('SIGTERM'), 0, `${node.name} ends well:\n${node.log.slice(-2_000)}`);
      t.diagnostic(`${node.name} left within ${Math.round(performance.now() - begun)} ms`);
      await stage.allResume();
      await node.start();
      await stage.allResume();
      const waits = writers.flatMap(({ waits }) => waits);
      await cluster.settled();
      return waits;
    };
    const watch = await Stopwatch.begin(t);
    const waits = [];
    for (const node of cluster.nodes) waits.push(...(await restart(node)));
    const acks = await stage.assertSound();
    const codes = people.flatMap((person) => person.codes);
    const [turnedAway, gaveUp] = ['turnedAway', 'gaveUp'].map((what) => people.reduce((sum, person) => sum + person[what], 0));
    t.diagnostic(`${acks} edits, ${codes.length} sockets sent on, ${turnedAway} came to a closed door, ${gaveUp} gave up`);
    assert.deepEqual(codes.filter((code) => code !== 1012), [], 'every socket was sent away with 1012');
    assert.ok(codes.length + gaveUp >= people.length, 'everybody was sent on');
    await watch.assertWithin(t, waits, PAUSE_MS_MAX, 'the long waits of edits, or the longest of each writer and restart');
  });

  test(`says so before it goes, and takes nobody in any more (SEED=${SEED})`, LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const [node, other] = cluster.nodes;
    const ann = await stage.person(node, other);
    const ids = await stage.documentsOf(ann, 6);
    await stage.write([ann], ids, { paceMs: 20 });
    await stage.progress(100);
    const ended = node.end('SIGTERM');
    await until(async () => [503, undefined].includes((await node.readiness()).status), 'it is not ready any more');
    assert.equal(await ended, 0);
    await until(() => ann.url === other.ws && ann.isConnected, 'she is elsewhere');
    await stage.allResume();
    for (const owner of (await cluster.owners()).values()) assert.ok(owner, 'every document has had an owner');
    await cluster.calm();
    await stage.assertSound();
    assert.deepEqual(ann.codes.filter((code) => code !== 1012), []);
    assert.equal(ann.codes.length + ann.gaveUp, 1);
  });
});
