// Each combination of create, edit and delete with the changes committed since its base, sent without the client library so
// that the order is exact.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TEXT } from './client.mjs';
import { setStage } from './stage.mjs';
import { Wire } from './wire.mjs';

const stage = setStage();
const EDIT = { op: ['x'] };
const CREATE = { create: { type: TEXT.uri, data: 'text' } };
const DELETE = { del: true };

// The changes before the base, those committed between base and head, the submit, and its result: the version at which
// it is committed, or the code of its rejection.
for (const [before, between, submit, fate] of [
  [[CREATE], [EDIT], EDIT, 2],
  [[CREATE], [EDIT], CREATE, 'ERR_DOC_ALREADY_CREATED'],
  [[CREATE], [EDIT], DELETE, 2],
  [[], [CREATE], EDIT, 'ERR_DOC_ALREADY_CREATED'],
  [[], [CREATE], CREATE, 'ERR_DOC_ALREADY_CREATED'],
  [[], [CREATE], DELETE, 'ERR_DOC_ALREADY_CREATED'],
  [[CREATE], [DELETE], EDIT, 'ERR_DOC_WAS_DELETED'],
  [[CREATE], [DELETE], CREATE, 'ERR_DOC_WAS_DELETED'],
  [[CREATE], [DELETE], DELETE, 2],
  [[CREATE], [DELETE, CREATE], EDIT, 'ERR_DOC_WAS_DELETED'],
  [[CREATE, DELETE], [CREATE], EDIT, 'ERR_DOC_ALREADY_CREATED'],
  // Submits at the head.
  [[CREATE], [], EDIT, 1],
  [[CREATE], [], CREATE, 'ERR_DOC_ALREADY_CREATED'],
  [[CREATE], [], DELETE, 1],
  [[], [], EDIT, 'ERR_DOC_DOES_NOT_EXIST'],
  [[], [], CREATE, 0],
  [[CREATE, DELETE], [], EDIT, 'ERR_DOC_DOES_NOT_EXIST'],
  [[CREATE, DELETE], [], CREATE, 2],
]) {
  const names = (changes) => changes.map((change) => Object.keys(change)[0]).join(' ') || 'nothing';
  test(`after ${names(before)}; ${names(between)} came first; ${names([submit])}: ${fate}`, async () => {
    const id = stage.freshId();
    const author = await Wire.open(stage.server);
    await author.handshake();
    let seq = 0;
    const say = async (wire, v, change) => {
      seq += 1;
      const [mine, start] = [seq, wire.messages.length];
      wire.say({ a: 'op', c: 'docs', d: id, v, seq: mine, x: {}, ...change });
      return wire.heard((message) => message.a === 'op' && message.seq === mine && message.c, 'the ack', start);
    };
    for (const [v, change] of [...before, ...between].entries()) {
      assert.equal((await say(author, v, change)).v, v, 'the stage is set');
    }
    const other = await Wire.open(stage.server);
    await other.handshake();
    const start = other.messages.length;
    const answer = await say(other, before.length, submit);
    assert.equal(answer.error?.code ?? answer.v, fate);
    // The missed commits are sent before the ack.
    if (!answer.error) {
      const told = other.messages
        .slice(start)
        .filter((message) => message.a === 'op')
        .map((message) => message.v);
      assert.deepEqual(told, [...between.keys()].map((n) => before.length + n).concat(fate));
    }
    author.end();
    other.end();
  });
}

test('a submit at a future version is rejected, and the document stays editable', async () => {
  const id = stage.freshId();
  const wire = await Wire.open(stage.server);
  await wire.handshake();
  const say = async (seq, v, change) => {
    const start = wire.messages.length;
    wire.say({ a: 'op', c: 'docs', d: id, v, seq, x: {}, ...change });
    return wire.heard((message) => message.a === 'op' && message.seq === seq, 'the ack', start);
  };
  assert.equal((await say(1, null, CREATE)).v, 0);
  assert.equal((await say(2, 7, EDIT)).error.code, 'ERR_OP_VERSION_NEWER_THAN_CURRENT_SNAPSHOT');
  assert.equal((await say(3, 1, EDIT)).v, 1);
  wire.end();
});

test('a resent submit is acked at its version, even if its content differs', async () => {
  const id = stage.freshId();
  const wire = await Wire.open(stage.server);
  await wire.handshake();
  const { id: src } = wire.messages.find((message) => message.a === 'hs');
  const say = async (seq, v, change) => {
    const start = wire.messages.length;
    wire.say({ a: 'op', c: 'docs', d: id, v, src, seq, x: {}, ...change });
    const ack = await wire.heard((message) => message.seq === seq && message.src === src, 'the ack', start);
    return [ack.error?.code ?? ack.v, wire.messages.slice(start).map((message) => message.v)];
  };
  assert.deepEqual(await say(1, null, CREATE), [0, [0]]);
  assert.deepEqual(await say(2, 1, EDIT), [1, [1]]);
  assert.deepEqual(await say(3, 2, EDIT), [2, [2]]);
  // From its base, from the current version, and without a version.
  assert.deepEqual(await say(2, 1, EDIT), [1, [1]]);
  assert.equal((await say(3, 3, EDIT))[0], 2);
  assert.equal((await say(3, null, EDIT))[0], 2);
  assert.equal((await say(1, null, CREATE))[0], 0);
  wire.say({ a: 'f', c: 'docs', d: id });
  const { data } = await wire.heard((message) => message.a === 'f', 'the document');
  assert.deepEqual([data.v, data.data], [3, 'xxtext']);
  wire.end();
});
