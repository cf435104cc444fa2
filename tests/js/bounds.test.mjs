// Bounds of the cost of ops, and large inputs that are accepted within them, with the unmodified ShareDB client.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { RICH, TEXT } from './client.mjs';
import { plain } from './journal.mjs';
import { setStage } from './stage.mjs';
import { called, refused, until } from './wait.mjs';

const stage = setStage();
const submit = (doc, op) => called((done) => doc.submitOp(op, done), 'an edit', 60_000);
const times = (count, make) => Array.from({ length: count }, (_, at) => make(at));

describe('an op that multiplies attributes', () => {
  const text = 'x'.repeat(60_000);
  const runs = times(9_999, (at) => ({ insert: 'a', ...(at % 2 ? {} : { attributes: { bold: true } }) }));
  for (const [what, data, op] of [
    ['over many runs', runs, [{ retain: 9_999, attributes: { a: text } }]],
    [
      'by cutting one run',
      [{ insert: 'a'.repeat(2_000), attributes: { a: text } }],
      times(1_900, () => [{ insert: 'y' }, { retain: 1 }]).flat(),
    ],
  ]) {
    test(`${what} is rejected, and the document stays editable`, async () => {
      const [ann, bob] = [await stage.client(), await stage.client()];
      const [mine, theirs] = await stage.shared(RICH, data, [ann, bob]);
      const error = await refused((done) => mine.submitOp(op, done));
      assert.equal(error.code, 'ERR_TOO_LARGE');
      await submit(theirs, [{ insert: 'still here ' }]);
      await until(() => mine.version === 2 && !mine.hasPending(), 'the refused client goes on');
      await stage.converged([mine, theirs]);
    });
  }
});

describe('an op that a client composed while it was offline', () => {
  for (const [type, data, letter] of [
    [RICH, [{ insert: 'a'.repeat(8_000) }], [{ retain: 1 }, { insert: 'x' }]],
    [TEXT, 'a'.repeat(8_000), [1, 'x']],
  ]) {
    test(`${type.name}: 14,000 components are accepted and transformed against concurrent ops`, async () => {
      const [ann, bob] = [await stage.client(), await stage.client()];
      const [mine, theirs] = await stage.shared(type, data, [ann, bob]);
      for (let at = 0; at < 5; at++) theirs.submitOp(type === TEXT ? ['b'] : [{ insert: 'b' }]);
      // The client merges both into one op, since neither has been sent.
      mine.submitOp(times(4_000, () => letter).flat());
      mine.submitOp(
        type === TEXT
          ? times(3_000, () => [2, 'y']).flat()
          : times(3_000, () => [{ retain: 2 }, { insert: 'y' }]).flat(),
      );
      await stage.converged([mine, theirs]);
      const text = type === TEXT ? mine.data : mine.data.ops.map((op) => op.insert).join('');
      assert.equal(text.length, 8_000 + 5 + 4_000 + 3_000);
    });
  }
});

describe('unusual inputs of other implementations', () => {
  test('an empty insert makes an empty document, and its author can edit on', async () => {
    const [ann, bob] = [await stage.client(), await stage.client()];
    const [mine, theirs] = await stage.shared(RICH, [{ insert: '' }], [ann, bob]);
    await submit(mine, [{ insert: 'Hi' }, { insert: '', attributes: { bold: true } }]);
    await until(() => theirs.version === 2, 'the other client has the edit');
    await submit(theirs, [{ retain: 2 }, { insert: '!\n' }]);
    await stage.converged([theirs]);
    await until(() => mine.version === 3, 'the author sees the edit');
    assert.equal(mine.data.ops.map((op) => op.insert).join(''), 'Hi!\n');
  });

  test('numbers and objects of two keys are accepted as embeds', async () => {
    const [ann, bob] = [await stage.client(), await stage.client()];
    const [mine, theirs] = await stage.shared(RICH, [{ insert: 1 }, { insert: '\n' }], [ann, bob]);
    await submit(mine, [
      { retain: 1 },
      { insert: { video: 'v', image: 'i' } },
      { insert: 7, attributes: { image: 'x' } },
    ]);
    await stage.converged([mine, theirs]);
    assert.deepEqual(Object.keys(theirs.data.ops[1].insert), ['video', 'image']);
  });

  test('names of up to 512 bytes are accepted', async () => {
    const [ann, bob] = [await stage.client(), await stage.client()];
    const id = 'n'.repeat(512);
    const mine = await ann.subscribed(id);
    await called((done) => mine.create('text', TEXT.uri, done), 'create');
    assert.equal((await bob.fetched(id)).data, 'text');
  });

  test('of 1,200 documents in one bulk request 1,000 are returned and each other one gets an error', async () => {
    const ann = await stage.client();
    ann.connection.startBulk();
    const codes = times(
      1_200,
      (at) =>
        new Promise((resolve) => {
          ann.doc(`bulk-${at}`).subscribe((error) => resolve(error?.code ?? 'fine'));
        }),
    );
    ann.connection.endBulk();
    const said = await Promise.all(codes);
    const count = (code) => said.filter((it) => it === code).length;
    assert.deepEqual([count('fine'), count('ERR_TOO_MANY')], [1_000, 200]);
  });

  test('a format of a missing final newline is sent to other clients as an insert of it', async () => {
    const [ann, bob, cat] = [await stage.client(), await stage.client(), await stage.client()];
    const [mine, theirs] = await stage.shared(RICH, [{ insert: 'Hi' }], [ann, bob]);
    await submit(mine, [{ retain: 2 }, { retain: 1, attributes: { header: 1 } }]);
    await until(() => theirs.version === 2, 'the edit arrives');
    const expected = [{ insert: 'Hi' }, { insert: '\n', attributes: { header: 1 } }];
    assert.deepEqual(plain(theirs.data), plain(expected));
    assert.deepEqual(plain((await cat.fetched(mine.id)).data), plain(expected));
  });
});
