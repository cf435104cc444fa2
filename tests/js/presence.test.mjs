// Presence: cursors and other values that end with their connection.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Delta, RICH, TEXT } from './client.mjs';
import { setStage } from './stage.mjs';
import { called, until } from './wait.mjs';
import { Wire } from './wire.mjs';

const stage = setStage();
const submit = (doc, op) => called((done) => doc.submitOp(op, done), 'an edit');
const subscribe = (presence) => called((done) => presence.subscribe(done), 'presence');
const publish = (local, value) => called((done) => local.submit(value, done), 'a presence');

/** Waits until `presence` shows `value` under `id`. */
const shows = (presence, id, value) =>
  until(
    () => {
      const seen = presence.remotePresences[id];
      return JSON.stringify(seen) === JSON.stringify(value);
    },
    `${id} is ${JSON.stringify(value)}; it is ${JSON.stringify(presence.remotePresences[id])}`,
  );

const pinged = (client) =>
  called((done) => client.connection.ping() ?? client.connection.once('pong', () => done()), 'ping');

async function onChannel(channel, options) {
  const client = await stage.client(options);
  const presence = client.connection.getPresence(channel);
  await subscribe(presence);
  return { client, presence };
}

describe('a channel', () => {
  test('a published value reaches the other subscribers, later ones included', async () => {
    const [ann, bob] = [await onChannel('room 1'), await onChannel('room 1')];
    const value = { name: 'Änn 😀', deep: [1, { two: null }] };
    await publish(ann.presence.create('a'), value);
    await shows(bob.presence, 'a', value);
    assert.equal(ann.presence.remotePresences.a, undefined, 'a publisher does not receive its own value');
    const late = await onChannel('room 1');
    await shows(late.presence, 'a', value);
  });

  test('a value is not sent to subscribers of other channels', async () => {
    const [ann, bob] = [await onChannel('room 2'), await onChannel('room 3')];
    bob.client.keepsReceived = true;
    await publish(ann.presence.create('a'), 1);
    await pinged(bob.client);
    assert.deepEqual(
      bob.client.received.filter((message) => message.a === 'p'),
      [],
    );
  });

  test('publishing null ends a presence', async () => {
    const [ann, bob] = [await onChannel('room 4'), await onChannel('room 4')];
    const local = ann.presence.create('a');
    await publish(local, 1);
    await shows(bob.presence, 'a', 1);
    await publish(local, null);
    await shows(bob.presence, 'a', undefined);
  });

  test('an unsubscribed client receives nothing more', async () => {
    const [ann, bob] = [await onChannel('room 5'), await onChannel('room 5')];
    await called((done) => bob.presence.unsubscribe(done), 'unsubscribe');
    bob.client.keepsReceived = true;
    await publish(ann.presence.create('a'), 1);
    await pinged(bob.client);
    assert.deepEqual(
      bob.client.received.filter((message) => message.a === 'p'),
      [],
    );
  });

  test('a subscription withdrawn before its acknowledgement has no effect', async () => {
    const [ann, bob] = [await onChannel('room 6'), await stage.client()];
    const presence = bob.connection.getPresence('room 6');
    presence.subscribe();
    await called((done) => presence.unsubscribe(done), 'unsubscribe');
    bob.keepsReceived = true;
    await publish(ann.presence.create('a'), 1);
    await pinged(bob);
    assert.deepEqual(
      bob.received.filter((message) => message.a === 'p'),
      [],
    );
  });

  for (const [how, end] of [
    ['is cut', (client) => client.cut()],
    ['closes', (client) => client.close()],
  ]) {
    for (const subscribed of [true, false]) {
      test(`a publisher, ${subscribed ? '' : 'not '}subscribed, ${how}: all its presences end, each with its next version`, async () => {
        const channel = `${how} ${subscribed}`;
        const ann = await stage.client();
        const mine = ann.connection.getPresence(channel);
        if (subscribed) await subscribe(mine);
        const bob = await onChannel(channel);
        // Bob's subscription makes ann publish all her values: none yet.
        await pinged(ann);
        bob.client.keepsReceived = true;
        const [one, two, gone] = ['one', 'two', 'gone'].map((id) => mine.create(id));
        await publish(one, 1);
        await publish(one, 11);
        await publish(two, 2);
        await publish(gone, 3);
        await publish(gone, null);
        await shows(bob.presence, 'two', 2);
        end(ann);
        await shows(bob.presence, 'one', undefined);
        await shows(bob.presence, 'two', undefined);
        const ends = bob.client.received.filter(({ a, p, id }) => a === 'p' && p === null && id !== 'gone');
        assert.deepEqual(ends.map(({ id, pv }) => [id, pv]).sort(), [
          ['one', 2],
          ['two', 1],
        ]);
      });
    }
  }

  test('a publisher that reconnects is visible again', async () => {
    const [ann, bob] = [await onChannel('room 7'), await onChannel('room 7')];
    const local = ann.presence.create('a');
    await publish(local, 1);
    await shows(bob.presence, 'a', 1);
    ann.client.cut();
    await shows(bob.presence, 'a', undefined);
    await ann.client.reconnect();
    await publish(local, 2);
    await shows(bob.presence, 'a', 2);
  });

  test('clients that reconnect one after the other all see each other', async () => {
    const MEMBERS = 5;
    const members = [];
    for (let n = 0; n < MEMBERS; n++) members.push(await onChannel('room of five'));
    for (const [n, { presence }] of members.entries()) await publish(presence.create(`m${n}`), n);
    const others = () => members.map(({ presence }) => Object.keys(presence.remotePresences).length);
    const all = () => others().every((count) => count === MEMBERS - 1);
    await until(all, 'each sees the others');
    for (const [n, { client }] of members.entries()) {
      client.cut();
      const without = members.filter((_, other) => other !== n);
      await until(() => without.every(({ presence }) => !(`m${n}` in presence.remotePresences)), `m${n} is gone`);
      await client.reconnect();
      await until(all, `each sees the others again: ${others()}`);
    }
  });

  test('a subscriber that reconnects receives the values that it missed', async () => {
    const [ann, bob] = [await onChannel('room 8'), await onChannel('room 8')];
    const local = ann.presence.create('a');
    await publish(local, 1);
    await shows(bob.presence, 'a', 1);
    bob.client.cut();
    await publish(local, 2);
    await bob.client.reconnect();
    await shows(bob.presence, 'a', 2);
  });
});

describe('a position in a document', () => {
  async function cursors(data, count = 2) {
    const clients = await Promise.all(Array.from({ length: count }, () => stage.client()));
    const docs = await stage.shared(RICH, data, clients);
    const presences = clients.map((client) => client.connection.getDocPresence('docs', docs[0].id));
    await Promise.all(presences.map(subscribe));
    // Each subscription makes the other clients publish their positions: none yet.
    await Promise.all(clients.map(pinged));
    return { clients, docs, presences };
  }

  test('is transformed by the ops of other clients', async () => {
    const { docs, presences } = await cursors([{ insert: 'abcdef\n' }]);
    await publish(presences[0].create('a'), { index: 3, length: 2 });
    await shows(presences[1], 'a', { index: 3, length: 2 });
    await submit(docs[1], new Delta().insert('XY'));
    await shows(presences[1], 'a', { index: 5, length: 2 });
    await submit(docs[0], new Delta().delete(1));
    await shows(presences[1], 'a', { index: 4, length: 2 });
  });

  test('is received for any valid document id', async () => {
    const [collection, id] = ['c'.repeat(255), 'd'.repeat(255)];
    const sides = [];
    for (const client of [await stage.client(), await stage.client()]) {
      const doc = client.connection.get(collection, id);
      await called((done) => doc.subscribe(done), 'subscribe');
      if (!doc.type) await called((done) => doc.create([{ insert: 'abc' }], RICH.uri, done), 'create');
      const presence = client.connection.getDocPresence(collection, id);
      await subscribe(presence);
      sides.push(presence);
    }
    await publish(sides[0].create('a'), { index: 2, length: 0 });
    await shows(sides[1], 'a', { index: 2, length: 0 });
  });

  test('ends with its connection', async () => {
    const { clients, presences } = await cursors([{ insert: 'abc\n' }]);
    await publish(presences[0].create('a'), { index: 1, length: 0 });
    await shows(presences[1], 'a', { index: 1, length: 0 });
    clients[0].cut();
    await shows(presences[1], 'a', undefined);
  });

  for (const [how, end] of [
    ['is cut', (client) => client.cut()],
    ['closes', (client) => client.close()],
  ]) {
    test(`ends when its client ${how}, also after later ops`, async () => {
      const { clients, docs, presences } = await cursors([{ insert: 'abc\n' }]);
      await publish(presences[0].create('a'), { index: 1, length: 0 });
      await shows(presences[1], 'a', { index: 1, length: 0 });
      for (let n = 0; n < 3; n++) await submit(docs[1], new Delta().insert('x'));
      await shows(presences[1], 'a', { index: 4, length: 0 });
      end(clients[0]);
      await shows(presences[1], 'a', undefined);
    });
  }

  test('a silent client is disconnected and its position ends', async () => {
    const { docs, presences } = await cursors([{ insert: 'abc\n' }]);
    const wire = await Wire.open(stage.server);
    await wire.handshake();
    wire.say({
      a: 'p',
      ch: `docs.${docs[0].id}`,
      id: 'w',
      p: { index: 1, length: 0 },
      pv: 0,
      c: 'docs',
      d: docs[0].id,
      v: 1,
      t: RICH.uri,
    });
    await shows(presences[0], 'w', { index: 1, length: 0 });
    await submit(docs[1], new Delta().insert('x'));
    await shows(presences[0], 'w', { index: 2, length: 0 });
    await until(() => presences[0].remotePresences.w === undefined, 'its position ends', 10_000);
    assert.ok(wire.pings > 0, 'it was asked whether it is there');
    wire.end();
  });

  test('a rejected position is reported to its callback', async () => {
    const { clients, docs } = await cursors([{ insert: 'abc\n' }]);
    const local = clients[0].connection.getDocPresence('docs', docs[0].id).create('a');
    const refused = publish(local, { index: 1, length: 0, name: 'x'.repeat(10_000) });
    await assert.rejects(refused, { code: 'ERR_TOO_LARGE' });
    await publish(local, { index: 1, length: 0 });
  });

  // The position was published at version 1; the edit, by another client or by the publisher, became version 2.
  for (const [position, edit, by, moved] of [
    [{ index: 2, length: 3 }, [{ retain: 2 }, { insert: 'XY' }], 'another', { index: 2, length: 5 }],
    [{ index: 2, length: 3 }, [{ retain: 2 }, { insert: 'XY' }], 'oneself', { index: 4, length: 3 }],
    [{ index: 2, length: 3 }, [{ retain: 1 }, { delete: 3 }], 'another', { index: 1, length: 1 }],
    [{ index: 2, length: 3, name: 'kept' }, [{ insert: 'X' }], 'another', { index: 3, length: 3, name: 'kept' }],
    [{ index: 2, length: 3 }, [{ retain: 6 }, { insert: 'X' }], 'another', { index: 2, length: 3 }],
    [{ index: 2, length: 3 }, null, 'another', null],
  ]) {
    test(`${JSON.stringify(position)} before ${edit ? JSON.stringify(edit) : 'a delete'} by ${by} is ${JSON.stringify(moved)}`, async () => {
      const [bob, cid] = [await stage.client(), await stage.client()];
      const [theirs] = await stage.shared(RICH, [{ insert: 'abcdef\n' }], [bob, cid]);
      const seen = bob.connection.getDocPresence('docs', theirs.id);
      await subscribe(seen);
      const wire = await Wire.open(stage.server);
      await wire.handshake();
      if (by === 'oneself') {
        wire.say({ a: 'op', c: 'docs', d: theirs.id, v: 1, seq: 1, x: {}, op: edit });
        await wire.heard((message) => message.a === 'op' && message.seq === 1, 'the ack');
        bob.sent.add(`${wire.messages.find((message) => message.a === 'op').src}/1`);
      } else if (edit) {
        await submit(cid.doc(theirs.id), edit);
      } else {
        await called((done) => cid.doc(theirs.id).del(done), 'delete');
      }
      await until(() => theirs.version === 2, 'the edit arrives');
      bob.keepsReceived = true;
      wire.say({
        a: 'p',
        ch: `docs.${theirs.id}`,
        id: 'w',
        p: position,
        pv: 0,
        c: 'docs',
        d: theirs.id,
        v: 1,
        t: RICH.uri,
      });
      await shows(seen, 'w', moved ?? undefined);
      await until(() => bob.received.some((message) => message.a === 'p'), 'the position comes');
      const { v, p } = bob.received.find((message) => message.a === 'p');
      assert.deepEqual([v, p], [2, moved]);
      const ack = await wire.heard((message) => message.a === 'p', 'its own position');
      assert.deepEqual([ack.error, ack.p, ack.v], [undefined, moved, 2]);
      wire.end();
    });
  }

  test('a position in a document of a type without positions is rejected', async () => {
    const ann = await stage.client();
    const [doc] = await stage.shared(TEXT, 'abc', [ann]);
    const wire = await Wire.open(stage.server);
    await wire.handshake();
    wire.say({ a: 'p', ch: `docs.${doc.id}`, id: 'w', p: 1, pv: 0, c: 'docs', d: doc.id, v: 0, t: TEXT.uri });
    const answer = await wire.heard((message) => message.a === 'p', 'the refusal');
    assert.equal(answer.error.code, 'ERR_TYPE_DOES_NOT_SUPPORT_PRESENCE');
    wire.end();
  });

  test('many cursors that move during concurrent edits converge', async () => {
    const { clients, docs, presences } = await cursors([{ insert: 'abcdef\n' }], 5);
    // A cursor that arrives while the reader's own edits are in flight makes the library fetch, for any server.
    for (const client of clients) client.fetchesAsked = 1;
    const locals = presences.map((presence, n) => presence.create(`cursor ${n}`));
    for (let round = 0; round < 10; round++) {
      docs.forEach((doc) => doc.submitOp(new Delta().insert('x')));
      locals.forEach((local, n) => local.submit({ index: n, length: 0 }));
    }
    await stage.converged(docs);
    // After all edits, every client publishes its position once more, and all clients have the same positions.
    await Promise.all(locals.map((local, n) => publish(local, { index: n + 1, length: 1 })));
    for (const [n, presence] of presences.entries()) {
      for (const other of locals.keys()) {
        if (other !== n) await shows(presence, `cursor ${other}`, { index: other + 1, length: 1 });
      }
    }
  });
});
