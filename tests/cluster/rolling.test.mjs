// Rolling replacement of all nodes while clients write, behind a balancer: nothing is lost, and edits are delayed within a
// limit.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SEED } from '../js/random.mjs';
import { until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { Stage } from './stage.mjs';
import { Stopwatch } from './stopwatch.mjs';

/** The longest wait of an edit while its client moves to another node and its document is handed over. */
const PAUSE_MS_MAX = 1_000;

const LIMIT = { timeout: 300_000 };

const skip = missing();
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 3, balancer: true }))));
after(() => skip || cluster.stop());

/** Read by debug builds of the server: the wire versions that a node understands. */
const wire = (versions) => ({ COPYDESK_TEST_WIRE: versions });

/** Restarts a node as a release with these wire versions, possibly with a wrong clock. */
async function replace(node, env) {
  assert.equal(await node.end('SIGTERM'), 0, `${node.name} ends well:\n${node.log.slice(-2_000)}`);
  node.options.env = { ...node.options.env, ...env };
  await node.start();
  await cluster.settled();
}

describe('two releases side by side', { skip }, () => {
  after(async () => {
    if (skip) return;
    for (const node of cluster.nodes) await replace(node, { ...wire(''), COPYDESK_TEST_CLOCK_OFFSET_MS: '' });
  });

  test(`upgrade, rollback and a node with a wrong clock under load lose nothing (SEED=${SEED})`, LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const people = await Promise.all(Array.from({ length: 12 }, (_, n) => stage.person(cluster.nodes[n % 3])));
    const ids = await stage.documentsOf(people[0], 9);
    await stage.write(people, ids, { docsEach: 3, paceMs: 50 });
    await stage.progress(100);
    const begunMs = Date.now();
    const [first, second, third] = cluster.nodes;
    const dayAhead = { COPYDESK_TEST_CLOCK_OFFSET_MS: String(24 * 3_600_000) };
    // Upgraded by one release, node after node; then one node goes back and forth.
    for (const [node, env] of [
      [first, { ...wire('1-2'), ...dayAhead }],
      [second, wire('1-2')],
      [second, wire('1-1')],
      [third, wire('1-2')],
    ]) {
      await replace(node, env);
      await stage.allResume();
      await stage.progress(100);
      const stated = await cluster.postgres.query(
        `SELECT wire_newest FROM nodes WHERE takes_part AND convert_from(name, 'UTF8') = $1 ORDER BY beat_at DESC LIMIT 1`,
        [node.name],
      );
      assert.equal(stated[0].wire_newest, Number(env.COPYDESK_TEST_WIRE.at(-1)), `${node.name} states its version`);
    }
    const acks = await stage.assertSound();
    const lines = cluster.nodes
      .flatMap(({ log }) => log.split('\n'))
      .filter((line) => line.includes('cannot be decoded'));
    assert.deepEqual(lines, [], 'all messages were decoded');
    assert.match(first.log, /clock of this machine differs/);
    await assertTimes(ids, begunMs, t);
    t.diagnostic(`${acks} edits through four replacements`);
  });

  test(`a node that is two releases newer does not join (SEED=${SEED})`, LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const [node, other] = cluster.nodes;
    await replace(other, wire('1-1'));
    const ann = await stage.person(other);
    const ids = await stage.documentsOf(ann, 6);
    await stage.write([ann], ids, { paceMs: 20 });
    assert.equal(await node.end('SIGTERM'), 0);
    node.options.env = { ...node.options.env, ...wire('2-2') };
    await assert.rejects(node.start(), /ended \(3\) before it was ready/);
    assert.match(node.log, /no common wire version with the live nodes .*node-2 \(wire 1-1\)/);
    await stage.allResume();
    node.options.env = { ...node.options.env, ...wire('') };
    await node.start();
    await cluster.settled();
    await stage.assertSound();
  });
});

/** Checks that no entry is later than the store's clock, and that times do not fall within a document. */
async function assertTimes(ids, begunMs, t) {
  const [{ falls, late, early }] = await cluster.postgres.query(
    `SELECT count(*) FILTER (WHERE at_ms < before) AS falls,
       count(*) FILTER (WHERE at_ms > extract(epoch FROM clock_timestamp()) * 1000) AS late,
       count(*) FILTER (WHERE revision > 1 AND at_ms < $2::bigint - 3600000) AS early
     FROM (
       SELECT revision, at_ms, lag(at_ms) OVER (PARTITION BY doc ORDER BY revision) AS before
       FROM entries JOIN documents ON number = doc
       WHERE id = ANY($1)) AS entry`,
    [ids, begunMs],
  );
  assert.deepEqual([falls, late, early], ['0', '0', '0']);
  t.diagnostic('no time lies in the future, and none falls');
  const { documents } = await (await fetch(`${cluster.nodes[0].http}/api/documents?limit=50&collection=docs`)).json();
  assert.ok(documents.length > 0);
  for (const { id, updated_at } of documents) assert.ok(updated_at <= Date.now() + 1_000, `${id}: ${updated_at}`);
}

describe('a rolling restart', { skip }, () => {
  test(`of all nodes under load loses nothing and delays edits within the limit (SEED=${SEED})`, LIMIT, async (t) => {
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
    const [turnedAway, gaveUp] = ['turnedAway', 'gaveUp'].map((what) =>
      people.reduce((sum, person) => sum + person[what], 0),
    );
    t.diagnostic(
      `${acks} edits, ${codes.length} sockets sent on, ${turnedAway} came to a closed door, ${gaveUp} gave up`,
    );
    assert.deepEqual(
      codes.filter((code) => code !== 1012),
      [],
      'every socket was sent away with 1012',
    );
    assert.ok(codes.length + gaveUp >= people.length, 'every client was told to reconnect');
    await watch.assertWithin(
      t,
      waits,
      PAUSE_MS_MAX,
      'the long waits of edits, or the longest of each writer and restart',
    );
  });

  test(`of one node is announced first, and the node accepts no new sockets (SEED=${SEED})`, LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const [node, other] = cluster.nodes;
    const ann = await stage.person(node, other);
    const ids = await stage.documentsOf(ann, 6);
    await stage.write([ann], ids, { paceMs: 20 });
    await stage.progress(100);
    const ended = node.end('SIGTERM');
    await until(async () => [503, undefined].includes((await node.readiness()).status), 'it is not ready any more');
    assert.equal(await ended, 0);
    await until(() => ann.url === other.ws && ann.isConnected, 'the client is on the other node');
    await stage.allResume();
    for (const owner of (await cluster.owners()).values()) assert.ok(owner, 'every document has had an owner');
    await cluster.calm();
    await stage.assertSound();
    assert.deepEqual(
      ann.codes.filter((code) => code !== 1012),
      [],
    );
    assert.equal(ann.codes.length + ann.gaveUp, 1);
  });
});

test(`growing from 3 nodes to 6 and shrinking to 3 under load loses nothing (SEED=${SEED})`, {
  ...LIMIT,
  skip,
}, async (t) => {
  const stage = Stage.on(cluster, t);
  const [old, ids] = [[...cluster.nodes], []];
  const people = await Promise.all(Array.from({ length: 12 }, (_, n) => stage.person(old[n % 3])));
  ids.push(...(await stage.documentsOf(people[0], 24)));
  const writers = await stage.write(people, ids, { docsEach: 4, paceMs: 50 });
  await stage.progress(300);
  const before = await cluster.owners();
  const watch = await Stopwatch.begin(t);
  for (const writer of writers) writer.forgetWaits();
  const added = await Promise.all([4, 5, 6].map((n) => cluster.newNode(`node-${n}`, false, {})));
  cluster.nodes.push(...added);
  try {
    await Promise.all(added.map((node) => node.start()));
    await cluster.settled();
    // Clients also use the new nodes, and return to the old ones when these leave.
    const guests = await Promise.all(added.map((node) => stage.person(node, ...old)));
    writers.push(...(await stage.write(guests, ids, { docsEach: 4, paceMs: 50 })));
    await stage.allResume();
    const [names, grown] = [added.map(({ name }) => name), await stage.settledOwners()];
    const moved = ids.filter((id) => names.includes(grown.get(id)));
    assert.ok(moved.length, 'some documents have moved to the new nodes');
    for (const node of added) {
      assert.equal(await node.end('SIGTERM'), 0, `${node.name} ends well:\n${node.log.slice(-2_000)}`);
      await stage.allResume();
    }
    cluster.nodes = old;
    await cluster.settled();
    await stage.allResume();
    const shrunk = await stage.settledOwners();
    assert.deepEqual(
      ids.filter((id) => names.includes(shrunk.get(id))),
      [],
      'the nodes that left own nothing',
    );
    t.diagnostic(`${moved.length} of ${before.size} documents went to the new nodes and came back`);
    const acks = await stage.assertSound();
    t.diagnostic(`${acks} edits`);
    await watch.assertWithin(
      t,
      writers.flatMap(({ waits }) => waits),
      PAUSE_MS_MAX,
      'the long waits of edits, or the longest of each writer',
    );
  } finally {
    cluster.nodes = old;
    await Promise.all(added.map((node) => node.kill()));
  }
});
