// Properties with many documents and sockets, and over times longer than every timeout. The tests run at the
// same time, each with its own servers: most of their time is spent on waiting.
import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { describe, test } from 'node:test';
import { Client, TEXT } from '../js/client.mjs';
import { SEED } from '../js/random.mjs';
import { Server } from '../js/server.mjs';
import { called, until } from '../js/wait.mjs';
import { Wire } from '../js/wire.mjs';
import { Cluster, missing } from './cluster.mjs';
import { Link } from './links.mjs';
import { Stage } from './stage.mjs';
import { Stopwatch, span } from './stopwatch.mjs';

const skip = missing();
const LIMIT = { timeout: 240_000, skip };

/** The number of documents that users on all nodes have open, and the time limit for all to be equal after the last ack. */
const DOCS = 1_000;
const EQUAL_WITHIN_MS = 1_000;

/** The time for which an owner is suspended: longer than every timeout of nodes, stores and clients. */
const SLEEP_MS = 63_000;

/** The number of sockets that become black holes at once, and the time limit for the server to free them. */
const SOCKETS = 1_000;
const FREED_WITHIN_MS = 45_000;

describe('at size', { concurrency: true }, () => {
  test(
    `${DOCS} documents on three nodes are equal ${EQUAL_WITHIN_MS} ms after the last ack, also after their owner was suspended for ${SLEEP_MS} ms (SEED=${SEED})`,
    LIMIT,
    async (t) => {
      const cluster = await Cluster.start({ nodes: 3 });
      t.after(() => cluster.stop());
      await t.test('equal after the last ack', (t) => areEqual(cluster, t));
      await t.test('owner suspended', (t) => sleeps(cluster, t));
    },
  );

  test(`${SOCKETS} sockets that become black holes are freed within ${FREED_WITHIN_MS} ms`, LIMIT, async (t) => {
    const server = await Server.start();
    t.after(() => server.stop());
    const idle = socketsOf(server);
    const hole = await Link.to(server.port);
    t.after(() => hole.close());
    const near = await Client.connect(server.ws);
    const doc = await near.subscribed('near');
    await called((done) => doc.create('', TEXT.uri, done), 'create');
    const wires = [];
    t.after(() => wires.forEach((wire) => wire.end()));
    // In groups: the server limits the connections of one address without a request.
    while (wires.length < SOCKETS)
      wires.push(...(await Promise.all(Array.from({ length: 100 }, () => Wire.open(hole)))));
    assert.deepEqual(
      wires.filter(({ status }) => status !== 101),
      [],
      'all are open',
    );
    await Promise.all(
      wires.map(async (wire) => {
        await wire.handshake();
        wire.say({ a: 's', c: 'docs', d: 'near', v: 1 });
        await wire.heard(({ a }) => a === 's', 'the subscription');
      }),
    );
    assert.ok(socketsOf(server) >= SOCKETS, 'the server holds them all');
    const watch = await Stopwatch.begin(t);
    await hole.swallow();
    // They are sent the edits made meanwhile, as far as a connection takes them.
    await called((done) => doc.submitOp(['x'], done), 'an edit');
    const freed = await span(() =>
      until(() => socketsOf(server) < idle + 10, 'the sockets are freed', 3 * FREED_WITHIN_MS, 100),
    );
    await watch.assertWithin(t, [freed], FREED_WITHIN_MS, `${SOCKETS} sockets are freed`);
    await called((done) => doc.submitOp(['y'], done), 'an edit');
    assert.equal(doc.data, 'yx', 'clients outside the black hole continue');
    near.close();
  });
});

/** The number of open sockets of a server's process. */
function socketsOf({ child }) {
  const folder = `/proc/${child.pid}/fd`;
  const targets = readdirSync(folder).map((name) => {
    try {
      return readlinkSync(`${folder}/${name}`);
    } catch {
      return '';
    }
  });
  return targets.filter((target) => target.startsWith('socket:')).length;
}

/** Users on each node have all documents open; some write, and within the limit after the last ack all have the same text. */
async function areEqual(cluster, t) {
  const stage = Stage.on(cluster, t);
  const people = await Promise.all(cluster.nodes.map((node) => stage.person(node)));
  const ids = [];
  // In groups: a session has a limit of concurrent requests.
  for (let group = 0; group < DOCS; group += 100) ids.push(...(await stage.documentsOf(people[0], 100, TEXT)));
  const docs = [];
  for (const person of people) {
    person.connection.startBulk();
    const subscribed = ids.map((id) => called((done) => person.doc(id).subscribe(done), 'subscribe', 30_000));
    person.connection.endBulk();
    await Promise.all(subscribed);
    docs.push(ids.map((id) => person.doc(id)));
  }
  const watch = await Stopwatch.begin(t);
  const edits = ids.flatMap((_, at) =>
    docs.map((own, n) => called((done) => own[at].submitOp([`[${n}.${at}]`], done), 'an edit', 60_000)),
  );
  await Promise.all(edits);
  const isEqual = () =>
    ids.every((_, at) => docs.every((own) => own[at].version === docs.length + 1 && !own[at].hasPending()));
  const equal = await span(() => until(isEqual, 'all show the same', 30_000));
  await watch.assertWithin(
    t,
    [equal],
    EQUAL_WITHIN_MS,
    `${DOCS} documents are equal on three nodes after the last ack`,
  );
  for (const [at, id] of ids.entries()) {
    const [text, ...others] = docs.map((own) => own[at].data);
    assert.deepEqual(others, [text, text], id);
    for (const n of docs.keys())
      assert.equal(text.split(`[${n}.${at}]`).length, 2, `the word of person ${n} is in ${id} once`);
  }
}

/** An owner is suspended for longer than every timeout: the others continue, and its messages after waking have no effect. */
async function sleeps(cluster, t) {
  const stage = Stage.on(cluster, t);
  const { nodes } = cluster;
  const doors = nodes.map((_, n) => [...nodes.slice(n), ...nodes.slice(0, n)]);
  const people = await Promise.all(doors.map((list) => stage.person(...list)));
  const ids = await stage.documentsOf(people[0], 6);
  const writers = await stage.write(people, ids, { docsEach: 6, paceMs: 200 });
  await stage.progress(100);
  const owners = await cluster.owners();
  const owner = cluster.node(owners.get(stage.r.pick(ids)));
  const owned = ids.filter((id) => owners.get(id) === owner.name);
  const staying = writers.filter(({ person }) => person.url !== owner.ws);
  const since = performance.now();
  owner.freeze();
  await stage.allResume(staying, 'those on the other nodes go on');
  await until(() => performance.now() - since >= SLEEP_MS, 'it has slept long enough', 2 * SLEEP_MS, 200);
  await stage.allResume();
  const meanwhile = await cluster.heads();
  for (const id of owned) assert.notEqual(meanwhile.get(id).owner, owner.name, `${id} has another owner`);
  owner.thaw();
  await until(() => owner.isReady(), 'it is ready again', 30_000);
  await cluster.settled();
  await stage.allResume();
  const now = await cluster.heads();
  for (const id of ids)
    assert.ok(
      now.get(id).epoch >= meanwhile.get(id).epoch && now.get(id).revision > meanwhile.get(id).revision,
      `${id} goes on`,
    );
  const reader = await stage.person(owner);
  await Promise.all(ids.map((id) => reader.subscribed(id)));
  t.diagnostic(`${await stage.assertSound()} edits, ${owned.length} documents were taken over`);
}
