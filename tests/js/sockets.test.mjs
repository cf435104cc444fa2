// The cost of one socket: large answers, long catch-ups, floods of small messages. A limit slows the socket that exceeds it;
// its client loses nothing, and other clients are not affected.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Bystander } from './bystander.mjs';
import { Client, TEXT } from './client.mjs';
import { Server } from './server.mjs';
import { called, refused, until } from './wait.mjs';
import { frame, logOf, OPCODE, Wire } from './wire.mjs';

const MB = 1 << 20;

async function shaken(server) {
  const wire = await Wire.open(server);
  await wire.handshake();
  return wire;
}

const create = (doc, text) => called((done) => doc.create(text, TEXT.uri, done), 'create');

describe('large answers', () => {
  const DOCS = 12;
  const BYTES = 1_900_000;
  const names = Array.from({ length: DOCS }, (_, n) => `large ${n}`);
  let server;
  let author;
  before(async () => {
    server = await Server.start({ env: { COPYDESK__NODE__SNAPSHOTS_BYTES_MAX: String(64 * MB) } });
    author = await Client.connect(server.ws);
    for (const name of names) await create(author.doc(name), 'x'.repeat(BYTES));
  });
  after(() => {
    author?.close();
    return server?.stop();
  });

  test('unread snapshots for many sockets are held in memory once', async () => {
    const bulk = { a: 'bf', c: 'docs', b: names };
    const greedy = await Promise.all(Array.from({ length: 40 }, () => shaken(server)));
    for (const wire of greedy) {
      wire.socket.pause();
      for (let n = 0; n < 5; n++) wire.say(bulk);
      for (const d of names) wire.say({ a: 'f', c: 'docs', d, v: null });
      for (const d of names) wire.say({ a: 'nf', id: 1, c: 'docs', d, v: 1 });
    }
    // A client that reads is answered meanwhile, repeatedly.
    const reader = await shaken(server);
    for (let n = 0; n < 5; n++) {
      const start = reader.messages.length;
      reader.say(bulk);
      const answer = await reader.heard(({ a }) => a === 'bf', 'the documents', start);
      assert.equal(Object.values(answer.data).filter(({ data }) => data?.length === BYTES).length, DOCS);
    }
    const rss = server.rssBytes();
    assert.ok(rss < 400 * MB, `the server holds ${Math.round(rss / MB)} MB`);
    for (const wire of [...greedy, reader]) wire.end();
  });

  test('requests for more than an outbox holds are answered one after the other', async () => {
    const reader = await shaken(server);
    for (const d of names) reader.say({ a: 's', c: 'docs', d, v: null });
    const answers = () => reader.messages.filter(({ a }) => a === 's');
    await until(() => answers().length === DOCS || reader.isOver, 'all are shown', 60_000);
    assert.deepEqual(
      [reader.isOver, answers().filter(({ data }) => data?.data.length === BYTES).length],
      [false, DOCS],
    );
    reader.end();
  });
});

describe('a server with small outboxes', () => {
  let server;
  let author;
  before(async () => {
    server = await Server.start({ env: { COPYDESK__GATEWAY__OUTBOX_BYTES_MAX: '200000' } });
    author = await shaken(server);
  });
  after(() => {
    author?.end();
    return server?.stop();
  });

  test('a client that is far behind catches up at the pace at which it reads', async () => {
    const EDITS = 150;
    const PIECE = 'x'.repeat(150_000);
    author.say({ a: 'op', c: 'docs', d: 'long', v: null, seq: 1, x: {}, create: { type: TEXT.uri, data: '' } });
    for (let n = 0; n < EDITS; n++) {
      author.say({ a: 'op', c: 'docs', d: 'long', v: 2 * n + 1, seq: 2 * n + 2, x: {}, op: [PIECE] });
      author.say({ a: 'op', c: 'docs', d: 'long', v: 2 * n + 2, seq: 2 * n + 3, x: {}, op: [{ d: PIECE.length }] });
      await author.heard(({ a, seq }) => a === 'op' && seq === 2 * n + 3, 'an ack', author.messages.length);
    }
    const slow = await shaken(server);
    const others = [await shaken(server), await shaken(server)];
    slow.socket.pause();
    slow.say({ a: 'f', c: 'docs', d: 'long', v: 0 });
    // A slow reader does not delay other readers of the same document.
    for (const [n, wire] of others.entries()) wire.say({ a: n ? 's' : 'f', c: 'docs', d: 'long', v: 0 });
    const caughtUp = (wire) => wire.messages.some(({ a }) => a === 'f' || a === 's');
    const ops = (wire) => wire.messages.filter(({ a }) => a === 'op').map(({ v }) => v);
    const all = Array.from({ length: 2 * EDITS + 1 }, (_, v) => v);
    for (const wire of others) {
      await until(() => wire.isOver || caughtUp(wire), 'the way is walked', 60_000);
      assert.deepEqual([wire.closeCode, ops(wire)], [null, all]);
    }
    slow.socket.resume();
    await until(() => slow.isOver || caughtUp(slow), 'the slow one is there', 60_000);
    assert.deepEqual([slow.closeCode, ops(slow)], [null, all]);
    for (const wire of [slow, ...others]) wire.end();
  });
});

describe('a socket that exceeds limits', () => {
  let server;
  let bystander;
  before(async () => {
    server = await Server.start({ env: { COPYDESK__NODE__DOCUMENTS_MAX: '500' } });
    bystander = await Bystander.join(server);
  });
  after(() => {
    bystander?.leave();
    return server?.stop();
  });

  test('a message over the size limit gets the error of its request, and its client continues', async () => {
    const client = await Client.connect(server.ws);
    const doc = await client.subscribed('paste');
    await create(doc, 'a');
    const other = await client.subscribed('other');
    await create(other, '');
    const states = [];
    client.connection.on('state', (state) => states.push(state));
    const edit = called((done) => other.submitOp(['still here'], done), 'an edit beside it');
    const error = await refused((done) => doc.submitOp(['x'.repeat(3 * MB)], done), 'a paste');
    assert.equal(error.code, 'ERR_TOO_LARGE');
    await edit;
    await until(() => doc.data === 'a', 'the paste is rolled back');
    await called((done) => doc.submitOp(['b'], done), 'the next edit');
    const tooLarge = await refused(
      (done) => client.doc('large').create('x'.repeat(3 * MB), TEXT.uri, done),
      'a create',
    );
    assert.equal(tooLarge.code, 'ERR_TOO_LARGE');
    assert.deepEqual([doc.data, other.data, states], ['ba', 'still here', []]);
    client.close();
  });

  test('an oversized message in fragments gets the error of its request', async () => {
    const wire = await shaken(server);
    const op = Buffer.from(JSON.stringify({ op: ['ä'.repeat(2 * MB)], a: 'op', v: 1, seq: 7, d: 'pieces', c: 'docs' }));
    const pieces = 5;
    for (let n = 0; n < pieces; n++) {
      const part = op.subarray((op.length / pieces) * n, (op.length / pieces) * (n + 1));
      wire.write(frame(part, { opcode: n ? OPCODE.continuation : OPCODE.text, fin: n === pieces - 1 }));
      wire.write(frame('between', { opcode: OPCODE.ping }));
    }
    const answer = await wire.heard(({ a }) => a === 'op', 'the refusal');
    assert.deepEqual([answer.error.code, answer.c, answer.d, answer.seq], ['ERR_TOO_LARGE', 'docs', 'pieces', 7]);
    wire.say({ a: 'pp' });
    await wire.heard(({ a }) => a === 'pp', 'the next answer');
    assert.deepEqual([wire.isOver, wire.pongs.length], [false, pieces]);
    wire.end();
  });

  test('a burst of edits of one document is slowed and loses nothing', async () => {
    const wire = await shaken(server);
    wire.say({ a: 'op', c: 'docs', d: 'burst', v: null, seq: 1, x: {}, create: { type: TEXT.uri, data: '' } });
    // Each ack comes with all commits since its version: 2 MB in total, which an outbox takes at once.
    const BURST = 200;
    const edits = Array.from({ length: BURST }, (_, n) => ({
      a: 'op',
      c: 'docs',
      d: 'burst',
      v: 1,
      seq: n + 2,
      x: {},
      op: ['x'],
    }));
    wire.write(Buffer.concat(edits.map((edit) => frame(JSON.stringify(edit)))));
    const acked = () =>
      new Set(wire.messages.filter(({ a, error }) => a === 'op' && !error).map(({ seq }) => seq)).size;
    await until(() => wire.isOver || acked() === BURST + 1, 'all are acknowledged', 60_000);
    assert.deepEqual([wire.closeCode, wire.messages.filter(({ error }) => error)], [null, []]);
    assert.equal((await logOf(server, 'burst')).length, BURST + 1);
    wire.end();
  });

  test('a flood of presence updates closes no reader, and the newest value arrives', async () => {
    const readers = await Promise.all(Array.from({ length: 3 }, () => shaken(server)));
    for (const reader of readers) {
      reader.say({ a: 'ps', ch: 'flood', seq: 1 });
      await reader.heard(({ a }) => a === 'ps', 'the subscription');
      reader.socket.pause();
    }
    const eve = await shaken(server);
    const value = 'x'.repeat(8_000);
    const BATCH = 100;
    await bystander.whileTyping(async () => {
      // Twice what an outbox and the network hold.
      for (let pv = 0; pv < 2_000; pv += BATCH) {
        for (let n = 1; n <= BATCH; n++) eve.say({ a: 'p', ch: 'flood', id: 'eve', p: value, pv: pv + n });
        await eve.heard((message) => message.pv === pv + BATCH, 'the newest is published', pv);
      }
      eve.say({ a: 'p', ch: 'flood', id: 'eve', p: 'last', pv: 3_000 });
      await eve.heard(({ p }) => p === 'last', 'the last is published');
    });
    for (const reader of readers) {
      reader.socket.resume();
      await reader.heard(({ p }) => p === 'last', 'the newest value');
      assert.equal(reader.isOver, false);
      reader.end();
    }
    eve.end();
    await bystander.assertWell();
  });

  test('requests for documents that do not exist leave no document in memory', async () => {
    const wire = await shaken(server);
    const BULKS = 3;
    const PER_BULK = 1_000;
    for (let n = 0; n < BULKS; n++)
      wire.say({ a: 'bf', c: 'docs', b: Array.from({ length: PER_BULK }, (_, d) => `none ${n} ${d}`) });
    const answers = () => wire.messages.filter(({ a }) => a === 'bf');
    await until(() => wire.isOver || answers().length === BULKS, 'all are answered', 60_000);
    const shown = answers().flatMap(({ data }) => Object.values(data));
    assert.deepEqual([shown.length, shown.filter(({ error }) => error)], [BULKS * PER_BULK, []]);
    wire.end();
    await bystander.assertWell();
  });

  test('messages in fragments of one byte are read', async () => {
    const text = JSON.stringify({ a: 'pp', x: 'x'.repeat(900) });
    const last = text.length - 1;
    const pieces = [...text].map((byte, n) =>
      frame(byte, { opcode: n ? OPCODE.continuation : OPCODE.text, fin: n === last }),
    );
    const flood = Buffer.concat(pieces);
    const wires = await Promise.all(Array.from({ length: 4 }, () => shaken(server)));
    const MESSAGES = 15;
    await bystander.whileTyping(async () => {
      for (const wire of wires) for (let n = 0; n < MESSAGES; n++) wire.write(flood);
      const answered = (wire) => wire.messages.filter(({ a }) => a === 'pp').length === MESSAGES;
      await until(() => wires.every((wire) => wire.isOver || answered(wire)), 'all are answered', 60_000);
    });
    for (const wire of wires) {
      assert.equal(wire.isOver, false);
      wire.end();
    }
    await bystander.assertWell();
  });

  test('answers to a client that does not subscribe, and edits one old version, grow with its edits', async () => {
    const author = await Client.connect(server.ws);
    const answered = async (d, count) => {
      await create(author.doc(d), 'text');
      const wire = await shaken(server);
      const before = wire.bytesRead;
      for (let seq = 1; seq <= count; seq++) wire.say({ a: 'op', c: 'docs', d, v: 1, seq, x: {}, op: ['a'] });
      await wire.heard(({ a, seq }) => a === 'op' && seq === count, 'the last answer');
      const versions = wire.messages.filter(({ a }) => a === 'op').map(({ v }) => v);
      assert.deepEqual(
        versions,
        Array.from({ length: count }, (_, n) => n + 1),
        'each commit once',
      );
      wire.end();
      return wire.bytesRead - before;
    };
    const [bytes, twice] = [await answered('old 300', 300), await answered('old 600', 600)];
    assert.ok(twice < 2.2 * bytes, `${bytes} bytes for 300 edits, ${twice} for 600`);
    author.close();
  });

  test('an edit that was in flight when its client moved from another server is committed once', async () => {
    const OLD = 'f00dcafe'.repeat(4);
    const op = { a: 'op', c: 'docs', d: 'moved', v: 1, src: OLD, seq: 3, x: {}, op: ['moved '] };
    const author = await Client.connect(server.ws);
    const doc = await author.subscribed('moved');
    await create(doc, 'text');
    author.keepsReceived = true;
    const stranger = await shaken(server);
    stranger.say({ ...op, seq: 4 });
    const refusal = await stranger.heard(({ a }) => a === 'op', 'an answer');
    assert.equal(refusal.error.code, 'ERR_FORBIDDEN', 'it never said that it was that client');
    const ids = new Set();
    for (let round = 0; round < 3; round++) {
      const wire = await Wire.open(server);
      // Later it reconnects with the id that it was issued here; its edit keeps the earlier id.
      wire.say({ a: 'hs', id: round ? [...ids][0] : OLD, protocol: 1, protocolMinor: 2 });
      ids.add((await wire.heard(({ a }) => a === 'hs', 'the handshake')).id);
      wire.say(op);
      wire.say({ a: 's', c: 'docs', d: 'moved', v: 1 });
      await wire.heard(({ a }) => a === 's', 'the subscription');
      // The first is its ack; a client ignores a second message at the same version.
      const [ack] = wire.messages.filter(({ a }) => a === 'op');
      assert.deepEqual([ack?.v, ack?.src, ack?.seq, ack?.error], [1, OLD, 3, undefined]);
      wire.end();
    }
    assert.equal(ids.size, 1);
    await until(() => doc.data === 'moved text', 'the others have it');
    const [seen] = author.received.filter(({ a, seq }) => a === 'op' && seq === 3);
    assert.notEqual(seen.src, OLD, 'no other client is told of an id that may be its own');
    assert.equal((await logOf(server, 'moved')).length, 2);
    stranger.end();
    author.close();
  });

  test('a client id of another server does not resume a client of this one', async () => {
    const ann = await Client.connect(server.ws, { headers: { Cookie: `copydesk_guest=${'a'.repeat(21)}A` } });
    const src = ann.connection.id;
    const eve = await Wire.open(server, { headers: { Cookie: `copydesk_guest=${'e'.repeat(21)}A` } });
    for (const id of [src, `${src}~`]) {
      eve.say({ a: 'hs', id, protocol: 1, protocolMinor: 2 });
      eve.say({ a: 'op', c: 'docs', d: 'hers', v: null, src, seq: 1, x: {}, create: { type: TEXT.uri, data: '' } });
    }
    const answers = () => eve.messages.filter(({ a }) => a === 'op');
    await until(() => answers().length === 2, 'both are answered');
    assert.deepEqual(
      answers().map(({ error }) => error?.code),
      ['ERR_FORBIDDEN', 'ERR_FORBIDDEN'],
    );
    eve.end();
    ann.close();
  });
});
