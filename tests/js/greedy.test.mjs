// Clients that exceed limits of number or rate, or that do not read their answers. Each is limited; other clients are
// answered in time, and the server's memory stays bounded.
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
    // A silent client is detected within the time limit of this test.
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
    // The library under this socket would answer pings automatically; here it is done by hand, so that a client can be silent.
    wire.socket.on('data', () => wire.write(frame('', { opcode: OPCODE.pong })));
    return wire;
  };

  test('3,000 subscriptions, one by one, are rejected beyond the limit', async () => {
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

  test('30 subscriptions to 500 documents each are rejected beyond the limit', async () => {
    const wire = await shaken();
    const answers = () => wire.messages.filter(({ a }) => a === 'bs');
    await bystander.whileTyping(async () => {
      for (let n = 0; n < 30; n++)
        wire.say({ a: 'bs', c: 'storm', b: Array.from({ length: 500 }, (_, i) => `b${n}-${i}`) });
      await until(() => wire.isGone || answers().length === 30, 'all are answered', 60_000);
    });
    assert.ok(!wire.isGone, 'the socket stays open');
    const taken = answers().filter(({ error }) => !error);
    assert.ok(
      [1, 2].includes(taken.length),
      `${taken.length} requests for 500 documents were served, with 1,000 allowed`,
    );
    for (const { data } of taken) assert.equal(Object.keys(data).length, 500);
    const codes = answers()
      .map(({ error }) => error?.code)
      .filter(Boolean);
    assert.deepEqual(codes, Array(30 - taken.length).fill('ERR_TOO_MANY'));
    wire.end();
    await bystander.assertWell();
  });

  test('2,000 presence channels are rejected beyond the limit', async () => {
    const wire = await shaken();
    for (let n = 0; n < 2_000; n++) wire.say({ a: 'ps', ch: `channel ${n}`, seq: n + 1 });
    const answers = () => wire.messages.filter(({ a }) => a === 'ps');
    await until(() => wire.isGone || answers().length === 2_000, 'all are answered');
    assert.ok(!wire.isGone, 'the socket stays open');
    const codes = answers().map(({ error }) => error?.code);
    assert.deepEqual(codes, [...Array(1_000), ...Array(1_000).fill('ERR_TOO_MANY')]);
    wire.end();
    await bystander.assertWell();
  });

  test('30,000 requests at once are all answered and do not delay other clients', async () => {
    const wire = await shaken();
    const flood = Buffer.concat(Array.from({ length: 30_000 }, () => frame('{"a":"pp"}')));
    const count = () => wire.messages.filter(({ a }) => a === 'pp').length;
    await bystander.whileTyping(async () => {
      wire.write(flood);
      await until(() => wire.isGone || count() === 30_000, 'the flood has passed', 60_000);
    });
    assert.deepEqual([wire.isGone, count()], [false, 30_000]);
    wire.end();
    await bystander.assertWell();
  });

  test('200,000 pings whose pongs are not read do not exhaust the server', async () => {
    const wire = await shaken();
    wire.socket.pause();
    const pings = Buffer.concat(Array.from({ length: 1_000 }, () => frame('x'.repeat(100), { opcode: OPCODE.ping })));
    for (let n = 0; n < 200 && !wire.socket.destroyed; n++) wire.write(pings);
    for (let n = 0; n < 50; n++) await bystander.types();
    wire.end();
    await bystander.assertWell();
  });

  test('a client that never reads is disconnected, and the writers continue', async () => {
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
        // Each edit replaces the text, so that the document stays small and the stream grows.
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

  test('a silent client is disconnected, and its presence ends', async () => {
    const listener = await Client.connect(server.ws);
    const room = listener.connection.getPresence('silence');
    await called((done) => room.subscribe(done), 'presence');
    const silent = await Wire.open(server);
    await silent.handshake();
    silent.say({ a: 'p', ch: 'silence', id: 'mute', p: 1, pv: 0 });
    await until(() => room.remotePresences.mute === 1, 'it is there');
    const start = performance.now();
    await until(() => silent.isGone && !('mute' in room.remotePresences), 'it is gone');
    assert.ok(silent.pings > 0, 'it was pinged');
    assert.ok(performance.now() - start > 300, 'it was given time to answer');
    // A client that only receives, and answers pings, stays connected.
    assert.equal(listener.connection.state, 'connected');
    listener.close();
    silent.end();
    await bystander.assertWell();
  });

  test('1,000 edits without waiting for acks: each is committed once, in order', async () => {
    const wire = await shaken();
    wire.say({ a: 'op', c: 'docs', d: 'rush', v: null, seq: 1, x: {}, create: { type: TEXT.uri, data: '' } });
    await wire.heard(({ a }) => a === 'op', 'the create');
    // Without a subscription each ack comes with all commits since version 1, and the socket soon has too many to read.
    wire.say({ a: 's', c: 'docs', d: 'rush', v: 1 });
    await wire.heard(({ a }) => a === 's', 'the subscription');
    const acks = () => wire.messages.filter(({ a, seq }) => a === 'op' && seq > 1);
    await bystander.whileTyping(async () => {
      for (let n = 0; n < 1_000; n++) wire.say({ a: 'op', c: 'docs', d: 'rush', v: 1, seq: n + 2, x: {}, op: ['x'] });
      await until(() => wire.isGone || acks().length >= 1_000, 'all are answered', 60_000);
    });
    assert.ok(!wire.isGone, 'the socket stays open');
    const expected = Array.from({ length: 1_000 }, (_, n) => n + 2);
    assert.deepEqual(
      acks().map(({ seq, error }) => error ?? seq),
      expected,
    );
    assert.deepEqual(
      (await logOf(server, 'rush')).map(({ seq }) => seq),
      [1, ...expected],
    );
    wire.end();
    await bystander.assertWell();
  });

  test('a socket that sends 1,000 edits on one version is sent each commit once, and each edit is committed once', async () => {
    const wire = await shaken();
    wire.say({ a: 'op', c: 'docs', d: 'crawl', v: null, seq: 1, x: {}, create: { type: TEXT.uri, data: '' } });
    await wire.heard(({ a }) => a === 'op', 'the create');
    const answered = () => wire.messages.filter(({ a, error }) => a === 'op' && !error).map(({ seq }) => seq);
    const before = answered().length;
    // Without a subscription, each ack comes with the commits since version 1 that the socket has not been sent.
    await bystander.whileTyping(async () => {
      for (let n = 0; n < 1_000; n++) wire.say({ a: 'op', c: 'docs', d: 'crawl', v: 1, seq: n + 2, x: {}, op: ['x'] });
      await until(() => wire.isGone || answered().includes(1_001), 'the last is acknowledged', 60_000);
    });
    assert.ok(!wire.isGone, 'the socket stays open');
    const expected = Array.from({ length: 1_000 }, (_, n) => n + 2);
    assert.deepEqual(answered().slice(before), expected, 'each is sent once, in order');
    assert.deepEqual(
      (await logOf(server, 'crawl')).map(({ seq }) => seq),
      [1, ...expected],
    );
    wire.end();
    await bystander.assertWell();
  });
});

test('edits beyond the byte limit of unanswered edits are read when earlier ones are answered', async () => {
  const env = { COPYDESK__GATEWAY__SUBMITS_BYTES_MAX: '20000', COPYDESK__NODE__SUBMITS_BYTES_MAX: '30000' };
  const server = await Server.start({ env });
  const wires = [await Wire.open(server), await Wire.open(server)];
  for (const [side, wire] of wires.entries()) {
    await wire.handshake();
    const name = (n) => `room ${side} ${n % 10}`;
    for (let n = 0; n < 10; n++)
      wire.say({ a: 'op', c: 'docs', d: name(n), v: null, seq: n + 1, x: {}, create: { type: TEXT.uri, data: '' } });
    await until(() => wire.messages.filter(({ a }) => a === 'op').length === 10, 'all documents are there');
    // Without a subscription each ack comes with all commits since version 1, which may be more than may wait to be written.
    for (let n = 0; n < 10; n++) wire.say({ a: 's', c: 'docs', d: name(n), v: 1 });
    await until(() => wire.messages.filter(({ a }) => a === 's').length === 10, 'all are subscribed to');
    for (let n = 0; n < 200; n++)
      wire.say({ a: 'op', c: 'docs', d: name(n), v: 1, seq: n + 11, x: {}, op: ['x'.repeat(5_000)] });
  }
  for (const wire of wires) {
    const answered = () => new Set(wire.messages.filter(({ a }) => a === 'op').map(({ seq }) => seq)).size;
    await until(() => wire.isGone || answered() === 210, 'all are answered');
    assert.deepEqual([wire.isGone, wire.messages.filter(({ error }) => error)], [false, []]);
    wire.end();
  }
  await server.stop();
});
