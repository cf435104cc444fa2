// The unmodified ShareDB client against the server: documents, edits, history, rejections.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Client, Delta, RICH, TEXT } from './client.mjs';
import { plain } from './journal.mjs';
import { Server, snapshotsIn } from './server.mjs';
import { setStage } from './stage.mjs';
import { called, refused, until } from './wait.mjs';
import { logOf } from './wire.mjs';

const stage = setStage();
const submit = (doc, op) => called((done) => doc.submitOp(op, done), 'an edit');

describe('documents', () => {
  test('a document that was never created has version 0 and no type', async () => {
    const doc = await (await stage.client()).fetched(stage.freshId());
    assert.deepEqual([doc.version, doc.type, doc.data], [0, null, undefined]);
  });

  for (const [type, data, seen] of [
    [TEXT, 'héllo 😀', 'héllo 😀'],
    [TEXT, '', ''],
    [TEXT, undefined, ''],
    [
      RICH,
      [{ insert: 'Hi 😀', attributes: { bold: true } }, { insert: { image: 'a.png' } }, { insert: '\n' }],
      undefined,
    ],
    [RICH, { ops: [{ insert: 'as an object\n' }] }, undefined],
    [RICH, [], undefined],
  ]) {
    test(`create and fetch ${type.name} ${JSON.stringify(data)}`, async () => {
      const [ann, bob] = [await stage.client(), await stage.client()];
      const id = stage.freshId();
      await called((done) => ann.doc(id).create(data, type.uri, done), 'create');
      const doc = await bob.fetched(id);
      assert.deepEqual([doc.version, doc.type.uri], [1, type.uri]);
      assert.deepEqual(plain(doc.data), plain(seen ?? data));
      assert.equal((await logOf(stage.server, id)).length, 1);
    });
  }

  test('a type is accepted by its short name and returned by its URI', async () => {
    const ann = await stage.client();
    const id = stage.freshId();
    await called((done) => ann.doc(id).create('x', 'text-unicode', done), 'create');
    assert.equal((await logOf(stage.server, id))[0].create.type, TEXT.uri);
  });

  test('only a subscribed document receives later commits, until it is unsubscribed', async () => {
    const [ann, bob, cid] = [await stage.client(), await stage.client(), await stage.client()];
    const [mine, theirs] = await stage.shared(TEXT, 'a', [ann, bob]);
    const still = await cid.fetched(mine.id);
    await submit(mine, [1, 'b']);
    await until(() => theirs.data === 'ab', 'the subscriber sees the edit');
    assert.equal(still.data, 'a');
    await cid.fetched(mine.id);
    assert.deepEqual([still.data, still.version], ['ab', 2]);

    await called((done) => theirs.unsubscribe(done), 'unsubscribe');
    bob.keepsReceived = true;
    await submit(mine, [2, 'c']);
    await called((done) => bob.connection.ping() ?? bob.connection.once('pong', () => done()), 'ping');
    assert.deepEqual(
      bob.received.filter((message) => message.a === 'op'),
      [],
    );
    await called((done) => theirs.subscribe(done), 'subscribe again');
    assert.equal(theirs.data, 'abc');
  });

  test('an author who is subscribed receives its own op once, in the frame of all subscribers', async () => {
    const [ann, bob] = [await stage.client(), await stage.client()];
    const [mine, theirs] = await stage.shared(TEXT, 'a', [ann, bob]);
    ann.keepsReceived = bob.keepsReceived = true;
    await submit(mine, [1, 'b']);
    await until(() => theirs.version === 2, 'the edit arrives');
    const told = (client) => client.received.filter((message) => message.a === 'op');
    assert.equal(told(ann).length, 1);
    assert.deepEqual(told(ann), told(bob));
    assert.deepEqual(told(bob)[0].op, [1, 'b']);
  });

  test('an author who is not subscribed receives the missed commits, then its ack', async () => {
    const [ann, bob] = [await stage.client(), await stage.client()];
    const [mine] = await stage.shared(TEXT, 'ab', [ann]);
    const theirs = await bob.fetched(mine.id);
    await submit(mine, [2, 'c']);
    await submit(mine, [3, 'd']);
    await submit(theirs, ['X']);
    assert.deepEqual([theirs.data, theirs.version], ['Xabcd', 4]);
    await stage.converged([mine]);
  });

  test('many documents in one request are subscribed, resumed and unsubscribed', async () => {
    const [ann, bob] = [await stage.client(), await stage.client()];
    const ids = Array.from({ length: 120 }, () => stage.freshId());
    const mine = ids.map((id) => ann.doc(id));
    await Promise.all(mine.slice(0, 100).map((doc, n) => called((done) => doc.create(`text ${n}`, TEXT.uri, done))));
    const theirs = ids.map((id) => bob.doc(id));
    bob.connection.startBulk();
    const subscribed = theirs.map((doc) => called((done) => doc.subscribe(done), 'bulk subscribe'));
    bob.connection.endBulk();
    await Promise.all(subscribed);
    assert.deepEqual(
      theirs.slice(0, 100).map((doc) => doc.data),
      mine.slice(0, 100).map((doc) => doc.data),
    );
    assert.ok(theirs.slice(100).every((doc) => doc.type === null && doc.version === 0));

    bob.cut();
    await Promise.all(mine.slice(0, 100).map((doc) => submit(doc, ['>'])));
    await called((done) => mine[100].create('late', TEXT.uri, done), 'create');
    await bob.reconnect();
    await until(() => theirs.slice(0, 100).every((doc) => doc.version === 2), 'all have caught up');
    await until(() => theirs[100].data === 'late', 'the document made meanwhile is there');
    assert.deepEqual(
      theirs.slice(0, 100).map((doc) => doc.data),
      mine.slice(0, 100).map((doc) => doc.data),
    );

    bob.connection.startBulk();
    const unsubscribed = theirs.map((doc) => called((done) => doc.unsubscribe(done), 'bulk unsubscribe'));
    bob.connection.endBulk();
    await Promise.all(unsubscribed);
  });

  test('a delete and a new create of a document reach all clients', async () => {
    const [ann, bob] = [await stage.client(), await stage.client()];
    const [mine, theirs] = await stage.shared(TEXT, 'first', [ann, bob]);
    await called((done) => mine.del(done), 'delete');
    await until(() => theirs.type === null, 'the delete arrives');
    await called((done) => theirs.create([{ insert: 'second\n' }], RICH.uri, done), 'create again');
    await until(() => mine.type?.uri === RICH.uri, 'the new document arrives');
    assert.deepEqual([mine.version, theirs.version], [3, 3]);
    const log = await stage.converged([mine, theirs]);
    assert.equal(log[1].del, true);
  });
});

describe('concurrent edits', () => {
  // Both edits are made on the same version, and ann's is committed first. The order of a tie is a rule of the type.
  for (const { type, data, ann, bob, then } of [
    { type: TEXT, data: 'abc', ann: [1, 'X'], bob: [1, 'Y'], then: 'aYXbc' },
    { type: TEXT, data: 'abcd', ann: [1, { d: 2 }], bob: [2, 'Y'], then: 'aYd' },
    { type: TEXT, data: 'abcd', ann: [1, { d: 2 }], bob: [2, { d: 2 }], then: 'a' },
    { type: TEXT, data: 'a😀b', ann: [2, 'X'], bob: [1, { d: 1 }], then: 'aXb' },
    { type: TEXT, data: '😀😁', ann: [1, 'X'], bob: [1, 'Y'], then: '😀YX😁' },
    {
      type: RICH,
      data: 'abc\n',
      then: [{ insert: 'aXYbc\n' }],
      ann: new Delta().retain(1).insert('X'),
      bob: new Delta().retain(1).insert('Y'),
    },
    {
      type: RICH,
      data: 'abc\n',
      then: [{ insert: 'abc', attributes: { color: 'red', bold: true } }, { insert: '\n' }],
      ann: new Delta().retain(3, { color: 'red', bold: true }),
      bob: new Delta().retain(3, { color: 'blue' }),
    },
    {
      type: RICH,
      data: 'abc\n',
      then: [{ insert: 'abc\n' }],
      ann: new Delta().retain(3, { bold: null }),
      bob: new Delta().retain(3, { bold: null }),
    },
    {
      type: RICH,
      data: 'a😀b\n',
      then: [{ insert: 'aXb\n' }],
      ann: new Delta().retain(3).insert('X'),
      bob: new Delta().retain(1).delete(2),
    },
    {
      type: RICH,
      data: 'abcd\n',
      then: [{ insert: 'aYd\n' }],
      ann: new Delta().retain(1).delete(2),
      bob: new Delta().retain(2).insert('Y'),
    },
  ]) {
    test(`${type.name} ${data.trim()}: ${JSON.stringify(ann)} and ${JSON.stringify(bob)}`, async () => {
      const [first, second] = [await stage.client(), await stage.client()];
      const start = type === TEXT ? data : [{ insert: data }];
      const [mine, theirs] = await stage.shared(type, start, [first, second]);
      // Bob is offline while ann commits, so that the order is known.
      second.cut();
      theirs.submitOp(bob);
      await submit(mine, ann);
      await second.reconnect();
      await stage.converged([mine, theirs]);
      assert.deepEqual(plain(mine.data), plain(then));
    });
  }

  for (const type of [TEXT, RICH]) {
    test(`${type.name}: texts of twenty clients who type at one position converge`, async () => {
      const clients = await Promise.all(Array.from({ length: 20 }, () => stage.client()));
      const docs = await stage.shared(type, type === TEXT ? 'ab' : [{ insert: 'ab\n' }], clients);
      for (let round = 0; round < 10; round++) {
        docs.forEach((doc, n) => {
          const text = String.fromCharCode(65 + n);
          doc.submitOp(type === TEXT ? [1, text] : new Delta().retain(1).insert(text));
        });
      }
      const log = await stage.converged(docs);
      const text = type === TEXT ? docs[0].data : docs[0].data.ops.map((part) => part.insert).join('');
      assert.equal(text.length, 202 + (type === RICH));
      assert.ok(log.length > 20);
    });
  }

  for (const [what, op] of [
    ['null attributes', [{ insert: 'x', attributes: { bold: null, italic: true } }]],
    ['nothing but null attributes', [{ insert: 'x', attributes: { bold: null } }]],
    ['an embed with null attributes', [{ insert: { image: 'a.png' }, attributes: { link: null } }]],
    ['null within an attribute', [{ insert: 'x', attributes: { font: { name: null } } }]],
  ]) {
    test(`an insert with ${what} has the same result for its author and for others`, async () => {
      const [ann, bob] = [await stage.client(), await stage.client()];
      const [mine, theirs] = await stage.shared(RICH, [{ insert: 'ab\n' }], [ann, bob]);
      await submit(mine, op);
      await stage.converged([mine, theirs]);
    });
  }

  test('a format of the last line of a document without a final newline adds one', async () => {
    const [ann, bob] = [await stage.client(), await stage.client()];
    const [mine] = await stage.shared(RICH, [{ insert: 'Hi!' }], [ann]);
    await submit(mine, [{ retain: 3 }, { retain: 1, attributes: { header: 1 } }]);
    const seen = await bob.fetched(mine.id);
    assert.deepEqual(plain(seen.data), [{ insert: 'Hi!' }, { insert: '\n', attributes: { header: 1 } }]);
  });
});

describe('rejections', () => {
  const code = (error) => error.code;

  test('a create of an existing document is rejected, and its client gets the existing one', async () => {
    const [ann, bob] = [await stage.client(), await stage.client()];
    const [mine] = await stage.shared(TEXT, 'ann was here', [ann]);
    const theirs = bob.doc(mine.id);
    const error = await refused((done) => theirs.create('bob too', TEXT.uri, done));
    assert.equal(code(error), 'ERR_DOC_ALREADY_CREATED');
    await until(() => theirs.data === 'ann was here', 'the refused client has the true document');
    await submit(theirs, ['so: ']);
    await stage.converged([mine]);
  });

  test('an edit of a document deleted by another client is rejected and undone', async () => {
    const [ann, bob] = [await stage.client(), await stage.client()];
    const [mine] = await stage.shared(TEXT, 'text', [ann]);
    const theirs = await bob.fetched(mine.id);
    await called((done) => mine.del(done), 'delete');
    const error = await refused((done) => theirs.submitOp(['x'], done));
    assert.equal(code(error), 'ERR_DOC_WAS_DELETED');
    assert.equal(theirs.data, 'text', 'the edit is undone');
    await bob.fetched(mine.id);
    await stage.converged([mine, theirs]);
  });

  test('an edit of a document deleted and created anew by another client is rejected', async () => {
    const [ann, bob] = [await stage.client(), await stage.client()];
    const [mine] = await stage.shared(TEXT, 'old', [ann]);
    const theirs = await bob.fetched(mine.id);
    await called((done) => mine.del(done), 'delete');
    await called((done) => mine.create('new', TEXT.uri, done), 'create');
    const error = await refused((done) => theirs.submitOp(['x'], done));
    assert.equal(code(error), 'ERR_DOC_WAS_DELETED');
    await bob.fetched(mine.id);
    await stage.converged([mine, theirs]);
    assert.equal(theirs.data, 'new');
  });

  for (const [what, type] of [
    ['json0', 'json0'],
    ['its URI', 'http://sharejs.org/types/JSONv0'],
  ]) {
    test(`a create of an unknown type, by ${what}, is rejected and undone`, async () => {
      const ann = await stage.client();
      const id = stage.freshId();
      const doc = ann.doc(id);
      const error = await refused((done) => doc.create({ a: 1 }, type, done));
      assert.equal(code(error), 'ERR_DOC_TYPE_NOT_RECOGNIZED');
      await until(() => doc.type === null && !doc.hasPending(), 'the create is undone');
      await called((done) => doc.create('text', TEXT.uri, done), 'create');
      await submit(doc, [4, '!']);
      await stage.converged([doc]);
    });
  }

  for (const { what, type, data, op } of [
    { what: 'a retain beyond the end', type: RICH, data: [{ insert: 'ab\n' }], op: [{ retain: 9 }, { insert: 'x' }] },
    { what: 'a delete beyond the end', type: RICH, data: [{ insert: 'ab\n' }], op: [{ delete: 9 }] },
    { what: 'half an emoji', type: RICH, data: [{ insert: '😀\n' }], op: [{ retain: 1 }, { delete: 1 }] },
    { what: 'half an emoji typed', type: RICH, data: [{ insert: 'ab\n' }], op: [{ insert: '\ud83d' }] },
    { what: 'half an emoji typed', type: TEXT, data: 'ab', op: ['\ude00'] },
    { what: 'a delete beyond the end', type: TEXT, data: 'ab', op: [{ d: 9 }] },
  ]) {
    test(`${type.name}: ${what} is rejected and rolled back, and the client continues`, async () => {
      const [ann, bob] = [await stage.client(), await stage.client()];
      const [mine, theirs] = await stage.shared(type, data, [ann, bob]);
      const error = await refused((done) => mine.submitOp(op, done));
      assert.match(code(error), /^ERR_OT_OP_(BADLY_FORMED|NOT_APPLIED)$/);
      await until(() => mine.type !== null && !mine.hasPending(), 'the document is back');
      await submit(mine, type === TEXT ? ['ok '] : [{ insert: 'ok ' }]);
      await until(() => theirs.version === 2, 'the next edit arrives');
      await stage.converged([mine, theirs]);
    });
  }

  test('text typed after a rejected edit is rolled back with it, other documents are not', async () => {
    const [ann, bob] = [await stage.client(), await stage.client()];
    const [mine, theirs] = await stage.shared(RICH, [{ insert: 'ab\n' }], [ann, bob]);
    const [other] = await stage.shared(RICH, [{ insert: 'cd\n' }], [ann]);
    const lost = [[{ delete: 9 }], [{ insert: 'lost' }]].map((op) => refused((done) => mine.submitOp(op, done)));
    const kept = submit(other, [{ insert: 'kept ' }]);
    await Promise.all([...lost, kept]);
    await until(() => !mine.hasPending() && mine.type, 'the document is back');
    assert.deepEqual(plain(mine.data), [{ insert: 'ab\n' }]);
    await stage.converged([mine, theirs]);
    await stage.converged([other]);
  });

  test('queries are answered with an error', async () => {
    const ann = await stage.client();
    const fetched = await refused((done) => ann.connection.createFetchQuery('docs', {}, {}, done));
    const followed = await refused((done) => ann.connection.createSubscribeQuery('docs', {}, {}, done));
    assert.ok(code(fetched) && code(followed));
    assert.equal(ann.connection.state, 'connected');
  });
});

describe('history', () => {
  test('a document is read at each of its versions', async () => {
    const ann = await stage.client();
    const [doc] = await stage.shared(TEXT, 'one', [ann]);
    await submit(doc, [3, ' two']);
    await called((done) => doc.del(done), 'delete');
    await called((done) => doc.create([{ insert: 'three\n' }], RICH.uri, done), 'create');
    const at = (v) => called((done) => ann.connection.fetchSnapshot('docs', doc.id, v, done), 'a snapshot');
    const seen = [];
    for (const v of [0, 1, 2, 3, 4, null]) {
      const { v: version, type, data } = await at(v);
      seen.push([version, type, plain(data)]);
    }
    assert.deepEqual(seen, [
      [0, null, undefined],
      [1, TEXT.uri, 'one'],
      [2, TEXT.uri, 'one two'],
      [3, null, undefined],
      [4, RICH.uri, [{ insert: 'three\n' }]],
      [4, RICH.uri, [{ insert: 'three\n' }]],
    ]);
    const error = await refused((done) => ann.connection.fetchSnapshot('docs', doc.id, 5, done));
    assert.equal(error.code, 'ERR_OP_VERSION_NEWER_THAN_CURRENT_SNAPSHOT');
  });

  test('a document is read at a point in time', async () => {
    const ann = await stage.client();
    const before = Date.now();
    const [doc] = await stage.shared(TEXT, 'one', [ann]);
    await until(() => Date.now() > before + 20, 'the clock has moved');
    const between = Date.now();
    await until(() => Date.now() > between, 'the clock has moved');
    await submit(doc, [3, ' two']);
    const at = (ts) => called((done) => ann.connection.fetchSnapshotByTimestamp('docs', doc.id, ts, done));
    const versions = await Promise.all([0, before - 1, between, Date.now() + 60_000, null].map(at));
    assert.deepEqual(
      versions.map(({ v, data }) => [v, data]),
      [
        [0, undefined],
        [0, undefined],
        [1, 'one'],
        [2, 'one two'],
        [2, 'one two'],
      ],
    );
  });

  test('old versions between snapshots of a long document are read', async (t) => {
    const server = await Server.start({ env: { COPYDESK__DOCUMENT__SNAPSHOT_ENTRIES: '50' } });
    t.after(() => server.discard());
    const ann = await Client.connect(server.ws);
    const doc = await ann.subscribed('long');
    await called((done) => doc.create('', TEXT.uri, done), 'create');
    // One after the other: commits that are gathered into one append have one snapshot.
    for (let n = 0; n < 300; n++) await submit(doc, [...(n ? [n] : []), String(n % 10)]);
    await until(async () => snapshotsIn(await server.verify()) >= 2, 'snapshots are written');
    ann.close();
    await server.restart();
    const bob = await Client.connect(server.ws);
    t.after(() => bob.close());
    const text = Array.from({ length: 300 }, (_, n) => n % 10).join('');
    for (const at of [1, 49, 50, 151, 301]) {
      const { v, data } = await called((done) => bob.connection.fetchSnapshot('docs', 'long', at, done));
      assert.deepEqual([v, data], [at, text.slice(0, at - 1)]);
    }
    assert.equal((await bob.subscribed('long')).data, text);
    assert.match(await server.verify(), /: 0 faults/);
  });
});

describe('connections', () => {
  test('a ping is answered', async () => {
    const ann = await stage.client();
    await called((done) => ann.connection.ping() ?? ann.connection.once('pong', () => done()), 'ping');
  });

  test('each client gets its own id', async () => {
    const clients = await Promise.all(Array.from({ length: 5 }, () => stage.client()));
    assert.equal(new Set(clients.map((client) => client.connection.id)).size, 5);
  });
});
