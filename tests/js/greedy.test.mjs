// Clients that want too much: more than they may, faster than they may, or without ever reading the answers. Each gets
// its limit; the others get their answers in time, and the server's memory stays what it was.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Bystander } from './bystander.mjs';
import { Client, TEXT } from './client.mjs';
import { Server } from './server.mjs';
import { called, until } from './wait.mjs';
import { frame, logOf, OPCODE, Wire } from './wire.mjs';

const MB = 1 << 20;

describe('greedy clients', () => {
  let server;
  let bystander;
  before(async () => {
    // A peer that falls silent is noticed within this test's patience.
    const env = { COPYDESK__GATEWAY__PING_INTERVAL_MS: '300', COPYDESK__GATEWAY__IDLE_TIMEOUT_MS: '1500' };
    server = await Server.start({ env });
    bystander = await Bystander.join(server);
  });
  after(() => {
    bystander?.leave();
    return server?.stop();
  });

  const shaken = async () => {
    const wire = await Wire.open(server);
    await wire.handshake();
    // The library under this socket would answer pings; here it is done by hand, so that only the silent are dropped.
    wire.socket.on('data', () => wire.write(frame('', { opcode: OPCODE.pong })));
    return wire;
  };

  test('subscribe to 3,000 documents, one by one: refused beyond the limit', async () => {
    const wire = await shaken();
    await bystander.whileTyping(async () => {
      for (let n = 0; n < 3_000; n++) wire.say({ a: 's', c: 'storm', d: `d${n}` });
      await until(() => wire.messages.filter(({ a }) => a === 's').length === 3_000, 'all are answered', 60_000);
    });
    const answers = wire.messages.filter(({ a }) => a === 's');
    const refused = answers.filter(({ error }) => error);
    assert.ok(answers.length > refused.length && refused.length >= 1_000, `${refused.length} were refused`);
    assert.deepEqual([...new Set(refused.map(({ error }) => error.code))], ['ERR_TOO_MANY']);
    wire.end();
    await bystander.assertWell();
  });

  test('subscribe to 1,000 documents at once, again and again', async () => {
    const wire = await shaken();
    await bystander.whileTyping(async () => {
      for (let n = 0; n < 30; n++) wire.say({ a: 'bs', c: 'storm', b: Array.from({ length: 500 }, (_, i) => `b${n}-${i}`) });
      await until(() => wire.isGone || wire.messages.filter(({ a }) => a === 'bs').length === 30, 'all are answered', 60_000);
    });
    assert.ok(wire.isGone || wire.messages.some(({ error }) => error?.code === 'ERR_TOO_MANY'));
    wire.end();
    await bystander.assertWell();
  });

  test('2,000 presence channels: refused beyond the limit', async () => {
    const wire = await shaken();
    for (let n = 0; n < 2_000; n++) wire.say({ a: 'ps', ch: `channel ${n}`, seq: n + 1 });
    await until(() => wire.isGone || wire.messages.filter(({ a }) => a === 'ps').length === 2_000, 'all are answered');
    assert.ok(wire.isGone || wire.messages.some(({ error }) => error?.code === 'ERR_TOO_MANY'));
    wire.end();
    await bystander.assertWell();
  });

  test('30,000 requests at once: all answered in their time, or the socket is closed', async () => {
    const wire = await shaken();
    const flood = Buffer.concat(Array.from({ length: 30_000 }, () => frame('{"a":"pp"}')));
    await bystander.whileTyping(async () => {
      wire.write(flood);
      const count = () => wire.messages.filter(({ a }) => a === 'pp').length;
      await until(() => wire.isGone || count() === 30_000, 'the flood has passed', 60_000);
    });
    wire.end();
    await bystander.assertWell();
  });

  test('200,000 pings, the pongs unread', async () => {
    const wire = await shaken();
    wire.socket.pause();
    const pings = Buffer.concat(Array.from({ length: 1_000 }, () => frame('x'.repeat(100), { opcode: OPCODE.ping })));
    for (let n = 0; n < 200 && !wire.socket.destroyed; n++) wire.write(pings);
    for (let n = 0; n < 50; n++) await bystander.types();
    wire.end();
    await bystander.assertWell();
  });

  test('who never reads is dropped, and those it would have read from go on', async () => {
    const author = await Client.connect(server.ws);
    const doc = author.doc('firehose');
    await called((done) => doc.create('', TEXT.uri, done), 'create');
    const readers = await Promise.all(Array.from({ length: 5 }, shaken));
    for (const reader of readers) {
      reader.say({ a: 's', c: 'docs', d: 'firehose', v: 1 });
      await reader.heard(({ a }) => a === 's', 'the subscription');
      reader.socket.pause();
    }
    const PIECE = 'x'.repeat(200_000);
    const total = 40 * MB;
    await bystander.whileTyping(async () => {
      for (let written = 0; written < total; written += PIECE.length) {
        // The document stays small; what it was stays in the stream.
        await called((done) => doc.submitOp([PIECE], done), 'a large edit');
        await called((done) => doc.submitOp([{ d: PIECE.length }], done), 'its end');
      }
    });
    const rss = server.rssBytes();
    for (const reader of readers) {
      reader.socket.resume();
      await until(() => reader.isGone, 'the connection ends');
      assert.ok(reader.bytesRead < total, `${Math.round(reader.bytesRead / MB)} MB were kept for it`);
    }
    assert.equal(doc.data, '');
    assert.ok(rss < 400 * MB, `the server held ${Math.round(rss / MB)} MB`);
    author.close();
    await bystander.assertWell();
  });

  test('who falls silent is dropped, and its presence ends', async () => {
    const listener = await Client.connect(server.ws);
    const room = listener.connection.getPresence('silence');
    await called((done) => room.subscribe(done), 'presence');
    const silent = await Wire.open(server);
    await silent.handshake();
    silent.say({ a: 'p', ch: 'silence', id: 'mute', p: 1, pv: 0 });
    await until(() => room.remotePresences.mute === 1, 'it is there');
    const start = performance.now();
    await until(() => silent.isGone && !('mute' in room.remotePresences), 'it is gone');
    assert.ok(silent.pings > 0, 'it was asked whether it lives');
    assert.ok(performance.now() - start > 300, 'it was given time to answer');
    // Who only listens, and answers pings, stays.
    assert.equal(listener.connection.state, 'connected');
    listener.close();
    silent.end();
    await bystander.assertWell();
  });

  test('an edit at every turn, 2,000 times, without waiting for acks: each once, in order, or refused', async () => {
    const wire = await shaken();
    wire.say({ a: 'op', c: 'docs', d: 'rush', v: null, seq: 1, x: {}, create: { type: TEXT.uri, data: '' } });
    await wire.heard(({ a }) => a === 'op', 'the create');
    await bystander.whileTyping(async () => {
      for (let n = 0; n < 2_000; n++) wire.say({ a: 'op', c: 'docs', d: 'rush', v: 1, seq: n + 2, x: {}, op: ['x'] });
      const answered = () => new Set(wire.messages.filter(({ a, seq }) => a === 'op' && seq > 1).map(({ seq }) => seq)).size;
      await until(() => wire.isGone || answered() === 2_000, 'all are answered', 60_000);
    });
    const refused = wire.messages.filter(({ error }) => error);
    assert.deepEqual([...new Set(refused.map(({ error }) => error.code))].filter((code) => code !== 'ERR_BUSY'), []);
    const log = await logOf(server, 'rush');
    if (!wire.isGone) assert.equal(log.length + refused.length, 2_001);
    assert.equal(new Set(log.map(({ seq }) => seq)).size, log.length);
    wire.end();
    await bystander.assertWell();
  });
});

test('more bytes of edits than may be without an answer: the rest is read when there is room', async () => {
  const env = { COPYDESK__GATEWAY__SUBMITS_BYTES_MAX: '20000', COPYDESK__NODE__SUBMITS_BYTES_MAX: '30000' };
  const server = await Server.start({ env });
  const wires = [await Wire.open(server), await Wire.open(server)];
  for (const [side, wire] of wires.entries()) {
    await wire.handshake();
    const name = (n) => `room ${side} ${n % 10}`;
    for (let n = 0; n < 10; n++) wire.say({ a: 'op', c: 'docs', d: name(n), v: null, seq: n + 1, x: {}, create: { type: TEXT.uri, data: '' } });
    for (let n = 0; n < 200; n++) wire.say({ a: 'op', c: 'docs', d: name(n), v: 1, seq: n + 11, x: {}, op: ['x'.repeat(5_000)] });
  }
  for (const wire of wires) {
    const answered = () => new Set(wire.messages.filter(({ a }) => a === 'op').map(({ seq }) => seq)).size;
    await until(() => wire.isGone || answered() === 210, 'all are answered');
    assert.deepEqual([wire.isGone, wire.messages.filter(({ error }) => error)], [false, []]);
    wire.end();
  }
  await server.stop();
});
