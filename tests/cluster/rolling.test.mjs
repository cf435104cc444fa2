// All nodes are replaced one after the other while people type, behind a balancer: nobody loses anything, and hardly
// anybody notices.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SEED } from '../js/random.mjs';
import { until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { spread } from './crowd.mjs';
import { Stage } from './stage.mjs';

const skip = missing();
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 3, balancer: true }))));
after(() => skip || cluster.stop());

describe('a rolling restart', { skip, timeout: 120_000 }, () => {
  test(`of all nodes under load (SEED=${SEED})`, async (t) => {
    const stage = Stage.on(cluster, t);
    const people = await Promise.all(Array.from({ length: 30 }, () => stage.person()));
    const ids = await stage.documentsOf(people[0], 12);
    const writers = await stage.write(people, ids, { docsEach: 2, paceMs: 50 });
    await stage.progress(500);
    for (const writer of writers) writer.longestMs = 0;
    for (const node of cluster.nodes) {
      const begun = performance.now();
      assert.equal(await node.end('SIGTERM'), 0, `${node.name} ends well:\n${node.log.slice(-2_000)}`);
      t.diagnostic(`${node.name} left within ${Math.round(performance.now() - begun)} ms`);
      await stage.allResume();
      await node.start();
      await until(() => node.isReady(), 'it takes part again');
      await stage.allResume();
    }
    const acks = await stage.assertSound();
    const codes = people.flatMap((person) => person.codes);
    const pauses = people.map((person) => Math.max(...writers.filter((it) => it.person === person).map(({ longestMs }) => longestMs)));
    const turnedAway = people.reduce((sum, person) => sum + person.turnedAway, 0);
    t.diagnostic(`${acks} edits, ${codes.length} sockets sent on, ${turnedAway} came to a closed door; the longest that an edit of each waited: ${spread(pauses)}`);
    assert.deepEqual(codes.filter((code) => code !== 1012), [], 'every socket was sent away with 1012');
    assert.ok(codes.length >= people.length, 'everybody was sent on');
  });

  test(`says so before it goes, and takes nobody in any more (SEED=${SEED})`, async (t) => {
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
    assert.deepEqual(ann.codes, [1012]);
  });
});
