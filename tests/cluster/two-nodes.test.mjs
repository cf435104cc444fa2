// Two nodes, one document: edits and cursors on one node are delivered to the other within a limit.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Delta, RICH, TEXT } from '../js/client.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { Link } from './links.mjs';
import { Stage } from './stage.mjs';
import { Stopwatch, span } from './stopwatch.mjs';

/** The longest delivery of an edit from one node's client to the other's. A longer time fails the test. */
const SEEN_WITHIN_MS = 1_000;

/** The longest time that a cursor remains after its client is gone. */
const GONE_WITHIN_MS = 10_000;

const LIMIT = { timeout: 60_000 };

const skip = missing();
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 2 }))));
after(() => skip || cluster.stop());

const submit = (doc, op) => called((done) => doc.submitOp(op, done), 'an edit');
const insert = (doc, text) => submit(doc, doc.type.uri === TEXT.uri ? [text] : new Delta().insert(text));

/** The time from `act` until `sees`. */
async function delay(act, sees, what) {
  let acted;
  const seen = await span(() => {
    acted = act();
    return until(sees, what, SEEN_WITHIN_MS * 10);
  });
  await acted;
  return seen;
}

describe('two nodes, one document', { skip }, () => {
  for (const type of [TEXT, RICH]) {
    test(
      `${type.name}: an edit on one node is received on the other within ${SEEN_WITHIN_MS} ms, both ways`,
      LIMIT,
      async (t) => {
        const stage = Stage.on(cluster, t);
        const [ann, bob] = [await stage.person(cluster.nodes[0]), await stage.person(cluster.nodes[1])];
        const [id] = await stage.documentsOf(ann, 1, type);
        const [mine, theirs] = [ann.doc(id), await bob.subscribed(id)];
        const edit = (from, to) => {
          const version = from.version + 1;
          return delay(
            () => insert(from, 'x'),
            () => to.version === version,
            'the edit is seen',
          );
        };
        // The first edits open the links.
        await edit(mine, theirs);
        await edit(theirs, mine);
        const watch = await Stopwatch.begin(t);
        const delays = [];
        for (let round = 0; round < 50; round++) {
          const [from, to] = round % 2 ? [mine, theirs] : [theirs, mine];
          delays.push(await edit(from, to));
        }
        await watch.assertWithin(t, delays, SEEN_WITHIN_MS, 'an edit is seen on the other node');
        await stage.assertSound({ mayRefetch: false });
      },
    );
  }

  test('concurrent edits of all clients converge', LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const people = await Promise.all([0, 1, 0, 1].map((n) => stage.person(cluster.nodes[n])));
    const ids = await stage.documentsOf(people[0], 4);
    await stage.write(people, ids);
    await stage.progress(1_500);
    t.diagnostic(`${await stage.assertSound({ mayRefetch: false })} edits`);
  });

  test('a document is deleted and created again on either node', LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const [ann, bob] = [await stage.person(cluster.nodes[0]), await stage.person(cluster.nodes[1])];
    const [id] = await stage.documentsOf(ann, 1, TEXT);
    const [mine, theirs] = [ann.doc(id), await bob.subscribed(id)];
    const watch = await Stopwatch.begin(t);
    const delays = [];
    for (let round = 0; round < 6; round++) {
      const [from, to] = round % 2 ? [mine, theirs] : [theirs, mine];
      const type = round % 2 ? TEXT : RICH;
      const end = () => called((done) => from.del(done), 'delete');
      const begin = () =>
        called((done) => to.create(type === TEXT ? 'new' : [{ insert: 'new\n' }], type.uri, done), 'create');
      await insert(from, 'old');
      delays.push(await delay(end, () => to.type === null, 'the delete is seen'));
      delays.push(await delay(begin, () => from.type?.uri === type.uri, 'the create is seen'));
    }
    await watch.assertWithin(t, delays, SEEN_WITHIN_MS, 'a delete or a create is seen on the other node');
    await stage.assertSound({ mayRefetch: false });
  });

  test('`copydesk where` names the owner', LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const ann = await stage.person(cluster.nodes[0]);
    const ids = await stage.documentsOf(ann, 10, TEXT);
    const heads = await cluster.heads();
    for (const id of ids) {
      const { owner, ...where } = await cluster.where(id);
      assert.deepEqual({ owner: owner.name, ...where }, heads.get(id));
    }
  });
});

describe('cursors', { skip }, () => {
  /** A user on the node `door`, by default the first, and one on the second node, in one document. */
  async function cursors(stage, door = cluster.nodes[0]) {
    const people = [await stage.person(door), await stage.person(cluster.nodes[1])];
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

  /** Waits for the end of the cursor `ghost`. */
  const isGone = async (t, watch, presence) => {
    const gone = await span(() => shows(presence, 'ghost', undefined, GONE_WITHIN_MS * 3));
    await watch.assertWithin(t, [gone], GONE_WITHIN_MS, 'the cursor is gone');
  };

  test('reach the other node and are transformed by the ops of other clients', LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const { docs, presences } = await cursors(stage);
    const watch = await Stopwatch.begin(t);
    const delays = [];
    for (const [from, to] of [
      [0, 1],
      [1, 0],
    ]) {
      const local = presences[from].create(`from ${from}`);
      const shown = () => presences[to].remotePresences[`from ${from}`]?.index;
      let index = 3;
      const move = () => {
        index = 7 - index;
        return delay(
          () => publish(local, { index, length: 2 }),
          () => shown() === index,
          'the cursor is seen',
        );
      };
      await move();
      delays.push(await move());
      await submit(docs[to], new Delta().insert('XY'));
      await shows(presences[to], `from ${from}`, { index: index + 2, length: 2 });
    }
    await watch.assertWithin(t, delays, SEEN_WITHIN_MS, 'a cursor is seen on the other node');
    await stage.assertSound();
  });

  test('a later subscriber receives the cursors of the others', LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const { docs, presences } = await cursors(stage);
    await publish(presences[0].create('early'), { index: 1, length: 0 });
    const late = await stage.person(cluster.nodes[1]);
    await late.subscribed(docs[0].id);
    const presence = late.connection.getDocPresence('docs', docs[0].id);
    await called((done) => presence.subscribe(done), 'presence');
    await shows(presence, 'early', { index: 1, length: 0 });
  });

  test(`of a closed socket end on the other node within ${GONE_WITHIN_MS} ms`, LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const { people, presences } = await cursors(stage);
    await publish(presences[0].create('ghost'), { index: 1, length: 0 });
    await shows(presences[1], 'ghost', { index: 1, length: 0 });
    const watch = await Stopwatch.begin(t);
    people[0].leave();
    people[0].cut();
    await isGone(t, watch, presences[1]);
  });

  test(`of a half-open socket end on the other node within ${GONE_WITHIN_MS} ms`, LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const way = await Link.to(cluster.nodes[0].port);
    t.after(() => way.close());
    const { presences } = await cursors(stage, { ws: `ws://127.0.0.1:${way.port}/ws` });
    await publish(presences[0].create('ghost'), { index: 1, length: 0 });
    await shows(presences[1], 'ghost', { index: 1, length: 0 });
    // A failed network: no end of the connection reaches the node.
    const watch = await Stopwatch.begin(t);
    await way.swallow();
    await isGone(t, watch, presences[1]);
  });

  for (const [how, end] of [
    ['killed', (node) => node.kill()],
    ['stopped', (node) => node.freeze()],
  ]) {
    test(`of a ${how} node end on the other node within ${GONE_WITHIN_MS} ms`, LIMIT, async (t) => {
      const stage = Stage.on(cluster, t);
      const { people, presences } = await cursors(stage);
      await publish(presences[1].create('ghost'), { index: 1, length: 0 });
      await shows(presences[0], 'ghost', { index: 1, length: 0 });
      // It sends no close frame and does not reconnect.
      people[1].isLeaving = true;
      const watch = await Stopwatch.begin(t);
      await end(cluster.nodes[1]);
      await isGone(t, watch, presences[0]);
      await cluster.calm();
    });
  }
});
