// Two nodes, one document: what is said on one is seen on the other, at once, whatever it is.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Delta, RICH, TEXT } from '../js/client.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { spread } from './crowd.mjs';
import { Stage } from './stage.mjs';

/** How long an edit may take from one node's client to the other's. Beyond it, the build fails. */
const SEEN_WITHIN_MS = 1_000;

/** How long a cursor may stay behind its dead owner. */
const GONE_WITHIN_MS = 10_000;

const skip = missing();
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 2 }))));
after(() => skip || cluster.stop());

const submit = (doc, op) => called((done) => doc.submitOp(op, done), 'an edit');
const insert = (doc, text) => submit(doc, doc.type.uri === TEXT.uri ? [text] : new Delta().insert(text));

/** How long it takes from `act` until `sees`. */
async function delay(act, sees, what) {
  const start = performance.now();
  let seenAt;
  const watching = until(() => sees() && (seenAt = performance.now()), what, SEEN_WITHIN_MS * 10);
  await Promise.all([act(), watching]);
  return seenAt - start;
}

describe('two nodes, one document', { skip, timeout: 60_000 }, () => {
  for (const type of [TEXT, RICH]) {
    test(`${type.name}: an edit on one node is seen on the other within ${SEEN_WITHIN_MS} ms, both ways`, async (t) => {
      const stage = Stage.on(cluster, t);
      const [ann, bob] = [await stage.person(cluster.nodes[0]), await stage.person(cluster.nodes[1])];
      const [id] = await stage.documentsOf(ann, 1, type);
      const [mine, theirs] = [ann.doc(id), await bob.subscribed(id)];
      const delays = [];
      for (let round = 0; round < 50; round++) {
        const [from, to] = round % 2 ? [mine, theirs] : [theirs, mine];
        const version = from.version + 1;
        delays.push(await delay(() => insert(from, 'x'), () => to.version === version, 'the edit is seen'));
      }
      await stage.assertSound({ mayRefetch: false });
      t.diagnostic(spread(delays));
      assert.ok(Math.max(...delays) < SEEN_WITHIN_MS, `an edit was seen after ${Math.max(...delays)} ms`);
    });
  }

  test('all type at once, for a while', async (t) => {
    const stage = Stage.on(cluster, t);
    const people = await Promise.all([0, 1, 0, 1].map((n) => stage.person(cluster.nodes[n])));
    const ids = await stage.documentsOf(people[0], 4);
    await stage.write(people, ids);
    await stage.progress(1_500);
    t.diagnostic(`${await stage.assertSound({ mayRefetch: false })} edits`);
  });

  test('a document ends and begins again, on either node', async (t) => {
    const stage = Stage.on(cluster, t);
    const [ann, bob] = [await stage.person(cluster.nodes[0]), await stage.person(cluster.nodes[1])];
    const [id] = await stage.documentsOf(ann, 1, TEXT);
    const [mine, theirs] = [ann.doc(id), await bob.subscribed(id)];
    const delays = [];
    for (let round = 0; round < 6; round++) {
      const [from, to] = round % 2 ? [mine, theirs] : [theirs, mine];
      const type = round % 2 ? TEXT : RICH;
      await insert(from, 'old');
      const del = () => called((done) => from.del(done), 'delete');
      delays.push(await delay(del, () => to.type === null, 'the delete is seen'));
      const create = () => called((done) => to.create(type === TEXT ? 'new' : [{ insert: 'new\n' }], type.uri, done), 'create');
      delays.push(await delay(create, () => from.type?.uri === type.uri, 'the create is seen'));
    }
    await stage.assertSound({ mayRefetch: false });
    t.diagnostic(spread(delays));
    assert.ok(Math.max(...delays) < SEEN_WITHIN_MS, `it took ${Math.max(...delays)} ms`);
  });

  test('`copydesk where` names the owner', async (t) => {
    const stage = Stage.on(cluster, t);
    const ann = await stage.person(cluster.nodes[0]);
    const ids = await stage.documentsOf(ann, 10, TEXT);
    for (const id of ids) {
      const { owner, epoch, revision } = await cluster.where(id);
      assert.equal(owner.name, (await cluster.owners()).get(id));
      assert.deepEqual([epoch, revision], [1, 1]);
    }
  });
});

describe('cursors', { skip, timeout: 60_000 }, () => {
  async function cursors(stage) {
    const people = [await stage.person(cluster.nodes[0]), await stage.person(cluster.nodes[1], cluster.nodes[1])];
    const [id] = await stage.documentsOf(people[0], 1, RICH);
    await submit(people[0].doc(id), [{ insert: 'abcdef' }]);
    const docs = await Promise.all(people.map((person) => person.subscribed(id)));
    const presences = people.map((person) => person.connection.getDocPresence('docs', id));
    await Promise.all(presences.map((presence) => called((done) => presence.subscribe(done), 'presence')));
    return { people, docs, presences };
  }
  const publish = (local, value) => called((done) => local.submit(value, done), 'a presence');
  const shows = (presence, id, value, limitMs = SEEN_WITHIN_MS * 10) => {
    const seen = () => JSON.stringify(presence.remotePresences[id]);
    return until(() => seen() === JSON.stringify(value), `${id} is ${JSON.stringify(value)}`, limitMs);
  };

  test('cross nodes, and move with the text that others type', async (t) => {
    const stage = Stage.on(cluster, t);
    const { docs, presences } = await cursors(stage);
    for (const [from, to] of [[0, 1], [1, 0]]) {
      const local = presences[from].create(`from ${from}`);
      const said = () => publish(local, { index: 3, length: 2 });
      const heard = () => presences[to].remotePresences[`from ${from}`];
      const took = await delay(said, heard, 'the cursor is seen');
      assert.ok(took < SEEN_WITHIN_MS, `the cursor was seen after ${took} ms`);
      const position = presences[to].remotePresences[`from ${from}`].index;
      await submit(docs[to], new Delta().insert('XY'));
      await shows(presences[to], `from ${from}`, { index: position + 2, length: 2 });
    }
    await stage.assertSound();
  });

  test('who comes later is told where the others are', async (t) => {
    const stage = Stage.on(cluster, t);
    const { docs, presences } = await cursors(stage);
    await publish(presences[0].create('early'), { index: 1, length: 0 });
    const late = await stage.person(cluster.nodes[1]);
    await late.subscribed(docs[0].id);
    const presence = late.connection.getDocPresence('docs', docs[0].id);
    await called((done) => presence.subscribe(done), 'presence');
    await shows(presence, 'early', { index: 1, length: 0 });
  });

  test(`a dead socket's are gone on the other node within ${GONE_WITHIN_MS} ms`, async (t) => {
    const stage = Stage.on(cluster, t);
    const { people, presences } = await cursors(stage);
    await publish(presences[0].create('ghost'), { index: 1, length: 0 });
    await shows(presences[1], 'ghost', { index: 1, length: 0 });
    people[0].leave();
    people[0].cut();
    await shows(presences[1], 'ghost', undefined, GONE_WITHIN_MS);
  });

  for (const [how, end] of [['killed', (node) => node.kill()], ['stopped', (node) => node.freeze()]]) {
    test(`a ${how} node's are gone on the other node within ${GONE_WITHIN_MS} ms`, async (t) => {
      const stage = Stage.on(cluster, t);
      const { people, presences } = await cursors(stage);
      await publish(presences[1].create('ghost'), { index: 1, length: 0 });
      await shows(presences[0], 'ghost', { index: 1, length: 0 });
      // It says no goodbye, and does not come back.
      people[1].isLeaving = true;
      const start = performance.now();
      await end(cluster.nodes[1]);
      await shows(presences[0], 'ghost', undefined, GONE_WITHIN_MS);
      t.diagnostic(`gone after ${Math.round(performance.now() - start)} ms`);
      await cluster.calm();
    });
  }
});
