// Documents written by programs: with formats that exclude each other, carriage returns, no final newline. An open page
// receives them op by op, a new page at once, and both must show the same. SEED=n and SEEDS=n as in random.mjs.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import richText from 'rich-text';
import { dice } from '../js/dice.mjs';
import { Server } from './server.mjs';
import { shapeOf, shapeShown } from './shape.mjs';
import { contentOf, openBrowser, plainClient, textOf, Writer } from './writers.mjs';

const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);
const SEEDS = Number(process.env.SEEDS ?? 8);
const OPS = 14;
const WAIT_MS = 60_000;

const LINE_VALUES = {
  'code-block': [true, 'plain'],
  list: ['bullet', 'ordered', 'checked', 'unchecked'],
  header: [1, 2, 3],
  blockquote: [true],
  indent: [1, 2],
  align: ['center', 'right'],
};
const TEXT_VALUES = {
  bold: [true],
  italic: [true],
  underline: [true],
  strike: [true],
  code: [true],
  script: ['sub', 'super'],
  link: ['https://example.org/a'],
  color: ['red', '#F00', 'rgb(1,2,3)', 'nonsense'],
  size: ['large'],
  unknown: [1],
  width: ['10'],
};
const TEXTS = ['one', 'two three ', '😀', '😁😀', '\r', '\n', '\r\n', 'a\rb', 'c\r\nd\ne', '\n\n', 'x\n'];
const PICTURE = { image: 'https://example.org/a.png' };

let server;
let browser;

before(async () => {
  [server, browser] = await Promise.all([Server.start(), openBrowser()]);
});

after(async () => {
  await browser?.close();
  await server?.end();
});

/** Two users, one with an open page and one who opens it later, and a program. */
async function withPages(work) {
  const [open, late] = [
    await Writer.arrive(browser, server.url, 'Open'),
    await Writer.arrive(browser, server.url, 'Late'),
  ];
  try {
    await work(open, late);
  } finally {
    await open.context.close();
    await late.context.close();
  }
  for (const { faults } of [open, late]) assert.deepEqual(faults, [], 'the pages have no faults');
}

/** A document with this content, opened by a program. */
async function created(id, ops) {
  const program = await plainClient(server.url, id);
  await new Promise((resolve, reject) =>
    program.doc.create(ops, richText.type.uri, (error) => (error ? reject(error) : resolve())),
  );
  return program;
}

/** Waits until the open page shows the same as a new page, and both what is stored. Returns the lines shown. */
async function agree(id, open, late) {
  const deadline = Date.now() + WAIT_MS;
  await open.saved();
  await late.open(id);
  for (;;) {
    const [shown, fresh] = await Promise.all([open, late].map((writer) => writer.html()));
    const stored = shapeOf(await contentOf(server.url, id));
    const [left, right] = await Promise.all([open, late].map(({ page }) => shapeShown(page)));
    if (shown === fresh && JSON.stringify(left) === JSON.stringify(stored)) return open.lines();
    if (Date.now() > deadline) {
      assert.deepEqual({ open: left, late: right }, { open: stored, late: stored }, 'the pages differ from the server');
      assert.equal(shown, fresh, 'the open page differs from a new page');
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test(`open and new pages show the ops of a program alike: SEED=${SEED} SEEDS=${SEEDS}`, () =>
  withPages(async (open, late) => {
    for (let seed = SEED; seed < SEED + SEEDS; seed += 1) {
      const r = dice(`program-${seed}`);
      const id = `program-${seed}`;
      const start = [{ insert: 'start\nmiddle\nend' }, ...(r.chance(0.5) ? [{ insert: '\n' }] : [])];
      const program = await created(id, start);
      const ops = [start];
      try {
        await open.open(id);
        for (let count = 0; count < OPS; count += 1) {
          const op = randomOp(r, program.doc.data.ops);
          ops.push(op);
          const error = await program.submit(op);
          assert.equal(error, undefined);
        }
        await agree(id, open, late);
      } catch (error) {
        throw new Error(
          `SEED=${seed} SEEDS=1: ${error.message}\n${[...open.faults, ...late.faults].join('\n')}\n${ops.map((op) => JSON.stringify(op)).join('\n')}`,
          { cause: error },
        );
      } finally {
        program.close();
      }
    }
  }));

function randomOp(r, content) {
  const length = textOf(content).length;
  const at = boundary(r.below(length + 1), content);
  const retain = at > 0 ? [{ retain: at }] : [];
  const size = boundary(Math.min(length, at + r.from(1, 8)), content) - at;
  if (size <= 0 || r.chance(0.4)) {
    const insert = r.chance(0.1) ? PICTURE : r.pick(TEXTS);
    return [...retain, { insert, ...(r.chance(0.5) && { attributes: randomFormats(r) }) }];
  }
  if (r.chance(0.3)) return [...retain, { delete: size }];
  const attributes = randomFormats(r);
  for (const name of Object.keys(attributes)) if (r.chance(0.25)) attributes[name] = null;
  return [...retain, { retain: size, attributes }];
}

/** The position, or the one before it if it would split a character. */
function boundary(at, content) {
  return /[\uD800-\uDBFF]/.test(textOf(content)[at - 1] ?? '') ? at - 1 : at;
}

function randomFormats(r) {
  const formats = {};
  for (let count = r.from(1, 3); count > 0; count -= 1) {
    const [name, values] = r.pick(Object.entries(r.chance(0.6) ? LINE_VALUES : TEXT_VALUES));
    formats[name] = r.pick(values);
  }
  return formats;
}

test('a document without a final newline stays without one, and its last line can be formatted', () =>
  withPages(async (open, late) => {
    const program = await created('unterminated', [{ insert: 'first\nlast' }]);
    await open.open('unterminated');
    await open.goTo('end');
    await open.type(' word');
    await agree('unterminated', open, late);
    assert.equal(textOf(program.doc.data.ops), 'first\nlast word', 'typing adds no newline');
    await open.press('Control+Alt+Digit2');
    await agree('unterminated', open, late);
    await open.press('Control+Alt+Digit0');
    await open.press('Control+Shift+Digit8');
    assert.deepEqual(await agree('unterminated', open, late), ['first', 'last word']);
    await open.press('Enter');
    await open.type('more');
    await open.press('Control+z');
    await open.press('Control+a');
    await open.press('Delete');
    await agree('unterminated', open, late);
    assert.ok(
      program.doc.data.ops.every(({ insert }) => insert !== undefined),
      'a plain client has inserts only',
    );
    program.close();
  }));

test('removing a shown line format removes the hidden ones as well', () =>
  withPages(async (open, late) => {
    const program = await created('kinds', [
      { insert: 'line' },
      { insert: '\n', attributes: { header: 1, list: 'bullet', blockquote: true } },
    ]);
    await open.open('kinds');
    await open.goTo('end');
    await open.press('Control+Shift+Digit8');
    await agree('kinds', open, late);
    assert.deepEqual(await contentOf(server.url, 'kinds'), [{ insert: 'line\n' }]);
    program.close();
  }));

test('formats hidden by a code block are shown when a user ends the block', () =>
  withPages(async (open, late) => {
    const code = [
      { insert: 'bold', attributes: { bold: true } },
      { insert: '\n', attributes: { 'code-block': true } },
    ];
    const program = await created('hidden', [...code, { insert: 'plain\n' }, ...code]);
    await open.open('hidden');
    await open.goTo('beginning');
    await open.press('Control+Alt+c');
    await agree('hidden', open, late);
    // The last line is joined with the one before it.
    await open.goTo('end');
    await open.press('Home');
    await open.press('Control+Alt+c');
    await open.press('Backspace');
    await agree('hidden', open, late);
    await open.press('Control+z');
    await open.press('Control+z');
    await agree('hidden', open, late);
    program.close();
  }));

test('carriage returns of a program are kept through edits and undo, and are not shown as lines', () =>
  withPages(async (open, late) => {
    const program = await created('returns', [{ insert: 'one\r\ntwo\r\n' }]);
    await open.open('returns');
    assert.deepEqual(await open.lines(), ['one', 'two']);
    await program.submit([{ retain: 10 }, { insert: 'three\r' }]);
    await program.submit([{ retain: 16 }, { insert: '\n' }]);
    assert.deepEqual(await agree('returns', open, late), ['one', 'two', 'three']);
    await open.goTo('beginning');
    await open.type('zero ');
    await open.press('Control+a');
    await open.press('Delete');
    await open.saved();
    await open.press('Control+z');
    await agree('returns', open, late);
    assert.equal(textOf(await contentOf(server.url, 'returns')), 'zero one\r\ntwo\r\nthree\r\n');
    program.close();
  }));

test('edits that the browser makes to a text node split no emoji', () =>
  withPages(async (open, late) => {
    const cases = [
      ['b🙂', 'b😀🙂'],
      ['x🙂😀', 'x😀'],
      ['a😂😀c', 'a😀c'],
      ['x😀', 'x😂😀'],
      ['😀😁', '😁😀'],
      ['👩‍👩‍👧', '👩‍👧‍👧'],
      ['𝒳𝒴', '𝒴𝒳𝒴'],
    ];
    const program = await created(
      'emoji',
      cases.map(([before]) => ({ insert: `${before}\n` })),
    );
    await open.open('emoji');
    for (const [index, [, after]] of cases.entries()) {
      await open.text.evaluate((text, [line, data]) => (text.children[line].firstChild.data = data), [index, after]);
      await open.saved();
    }
    assert.deepEqual(
      await agree('emoji', open, late),
      cases.map(([, after]) => after),
    );
    await open.goTo('beginning');
    for (const [before, after] of cases) {
      await open.press('Shift+End');
      await open.paste({ 'text/plain': `${after}${before}` });
      await open.press('Shift+Home');
      await open.paste({ 'text/plain': before });
      await open.press('ArrowDown');
      await open.press('Home');
    }
    assert.deepEqual(
      await agree('emoji', open, late),
      cases.map(([before]) => before),
    );
    assert.equal(await open.page.locator('.notice').count(), 0, 'nothing was refused');
    program.close();
  }));

test('keys reach both ends of a long document before all its lines are drawn', () =>
  withPages(async (open, late) => {
    const lines = Array.from({ length: 1500 }, (_, index) => `${index} ${'words '.repeat((index * 7) % 40)}end`);
    const program = await created('long', [{ insert: `${lines.join('\n')}\n` }]);
    await open.open('long');
    await open.text.focus();
    for (const [keys, text] of [
      ['Control+End', 'X'],
      ['Control+Home', 'Y'],
      ['Control+End', 'Z'],
    ]) {
      await open.press(keys);
      await open.type(text);
    }
    lines[0] = `Y${lines[0]}`;
    lines[lines.length - 1] += 'XZ';
    assert.deepEqual(await agree('long', open, late), lines);
    program.close();
  }));

test('a page that differs from its stored document is detected, redrawn, and offers the lost text', async () => {
  const writer = await Writer.arrive(browser, server.url, 'Deaf');
  await writer.page.addInitScript(() => {
    // From here on the editor is not notified of the browser's changes: the fault to be detected.
    const take = MutationObserver.prototype.takeRecords;
    MutationObserver.prototype.takeRecords = function () {
      const records = take.call(this);
      return globalThis.isDeaf ? [] : records;
    };
    globalThis.MutationObserver = class extends MutationObserver {
      constructor(callback) {
        super((...args) => globalThis.isDeaf || callback(...args));
      }
    };
  });
  const id = await writer.begin();
  await writer.type('stored');
  await writer.saved();
  await writer.page.evaluate(() => (globalThis.isDeaf = true));
  await writer.type(' and lost');
  await writer.sees('stored and lost');
  await writer.page.evaluate(() => (globalThis.isDeaf = false));
  await writer.page.locator('.notice', { hasText: 'was not in the document' }).waitFor();
  assert.deepEqual(await writer.lines(), ['stored']);
  await writer.goTo('end');
  await writer.type(', and goes on');
  await writer.saved();
  assert.deepEqual(await writer.lines(), ['stored, and goes on']);
  assert.equal(textOf(await contentOf(server.url, id)), 'stored, and goes on\n');
  assert.deepEqual(
    writer.faults.map((fault) => /the page differs/.test(fault)),
    [true],
    'the fault is reported once',
  );
  await writer.context.close();
});
