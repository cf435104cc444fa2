// Random keys of one user, and of two at a time. The page, the stored document and a new page must be equal.
//
// SEED=n is the first seed, SEEDS=n their number with one user and twice the number with two: SEED=n SEEDS=1 repeats one.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { dice } from '../js/dice.mjs';
import { Server } from './server.mjs';
import { shapeOf, shapeShown } from './shape.mjs';
import { contentOf, openBrowser, Writer } from './writers.mjs';

const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);
const SEEDS = Number(process.env.SEEDS ?? 16);
/** Seeds that run at the same time: most of their time is spent on waiting. */
const LANES = 3;
const STEPS = 36;
const SETTLED_MS = 60_000;

const WORDS = ['one', 'two three', 'x', ' ', 'Word. ', 'a b', 'tab\tbed', 'é', '😀', '😀😁', '👩‍👩‍👧', '中文'];
const PASTES = [
  { 'text/plain': 'plain words' },
  { 'text/plain': 'first\nsecond\n\nfourth' },
  { 'text/plain': 'windows\r\nlines\r\n' },
  { 'text/plain': '😁😀' },
  { 'text/html': '<b>bold</b> and <i>italic</i>' },
  { 'text/html': '<h2>Heading</h2><p>Text <code>code</code></p>' },
  { 'text/html': '<ul><li>one</li><li>two</li></ul><p>after</p>' },
  { 'text/html': '<blockquote>quoted</blockquote><pre>code\nmore</pre>' },
];
const MOVES = [
  'ArrowLeft',
  'ArrowRight',
  'ArrowUp',
  'ArrowDown',
  'Home',
  'End',
  'Control+Home',
  'Control+End',
  'Control+ArrowLeft',
];
const INLINE = ['Control+b', 'Control+i', 'Control+u', 'Alt+Shift+Digit5', 'Control+e'];
const LINES = [
  'Control+Shift+Digit7',
  'Control+Shift+Digit8',
  'Control+Shift+Digit9',
  'Control+Alt+q',
  'Control+Alt+c',
];
const HEADINGS = ['Control+Alt+Digit0', 'Control+Alt+Digit1', 'Control+Alt+Digit2'];

/** Each step: its weight, and the keys that it presses. */
const STEP_KINDS = [
  [26, (r) => ({ type: r.pick(WORDS) })],
  [14, (r) => ({ press: r.pick(MOVES) })],
  [8, (r) => ({ press: `Shift+${r.pick(MOVES)}` })],
  [8, () => ({ press: 'Enter' })],
  [8, (r) => ({ press: r.pick(['Backspace', 'Backspace', 'Delete', 'Control+Backspace']) })],
  [14, (r) => ({ press: r.pick(INLINE) })],
  [9, (r) => ({ press: r.pick(LINES) })],
  [3, (r) => ({ press: r.pick(HEADINGS) })],
  [4, (r) => ({ press: r.pick(['Tab', 'Shift+Tab']) })],
  [5, (r) => ({ press: r.pick(['Control+z', 'Control+z', 'Control+Shift+z']) })],
  [4, (r) => ({ paste: r.pick(PASTES) })],
  [1, () => ({ press: 'Control+a' })],
  [6, (r) => ({ wait: r.pick(['frame', 'frame', 'saved']) })],
];
const TURNS = STEP_KINDS.flatMap(([often, step]) => Array(often).fill(step));

let server;
let browser;

before(async () => {
  [server, browser] = await Promise.all([Server.start(), openBrowser()]);
});

after(async () => {
  await browser?.close();
  await server?.end();
});

test(`random keys of one user are shown, stored and shown by a new page alike: SEED=${SEED} SEEDS=${SEEDS}`, () =>
  playAll(SEEDS, 1));

test(`random keys of two users are shown, stored and shown by a new page alike: SEED=${SEED} SEEDS=${SEEDS}`, () =>
  playAll(Math.ceil(SEEDS / 2), 2));

test('formats, an arrow key and a letter in quick succession are stored', async () => {
  const writer = await Writer.arrive(browser, server.url, 'Person 1');
  const id = await writer.begin();
  await writer.type('one\ntwo three');
  for (const key of ['Control+b', 'ArrowLeft', 'Control+u', 'x', 'End']) await writer.press(key);
  await writer.type('more');
  await agree(id, [writer]);
  assert.deepEqual(await writer.lines(), ['one', 'two threxemore']);
  await writer.leave();
});

test('a letter typed where the browser deletes code elements is shown', async () => {
  const writer = await Writer.arrive(browser, server.url, 'Person 1');
  const id = await writer.begin();
  await writer.type('one word. \nnext');
  await writer.press('ArrowUp');
  for (const key of ['End', 'Control+e']) await writer.press(key);
  await writer.paste({ 'text/plain': '😁😀' });
  for (const key of [
    'Home',
    'Control+b',
    'Control+z',
    'Shift+ArrowRight',
    'Home',
    'Control+Shift+z',
    'Control+Backspace',
  ]) {
    await take(writer, { wait: 'frame' });
    await writer.press(key);
  }
  await writer.type('and on');
  await agree(id, [writer]);
  assert.deepEqual(await writer.lines(), ['one word. and on', 'next']);
  await writer.leave();
});

async function playAll(seeds, people) {
  let next = SEED;
  const lane = async () => {
    const writers = [];
    for (let index = 0; index < people; index += 1)
      writers.push(await Writer.arrive(browser, server.url, `Person ${index + 1}`));
    while (next < SEED + seeds) await play(next++, writers);
    for (const writer of writers) await writer.leave();
  };
  await Promise.all(Array.from({ length: Math.min(LANES, seeds) }, lane));
}

async function play(seed, writers) {
  const [first, ...others] = writers;
  const id = `random-${writers.length}-${seed}`;
  await first.page.goto(`${server.url}/d/${id}?new`);
  await first.saved();
  for (const other of others) await other.open(id);
  const played = await Promise.all(writers.map((writer, index) => pressAll(writer, dice(`${seed}-${index}`))));
  try {
    await agree(id, writers);
    await first.open(id);
    await agree(id, [first]);
    for (const writer of writers) assert.deepEqual(writer.faults, [], 'the pages have no faults');
  } catch (error) {
    const keys = played.map((steps) => JSON.stringify(steps)).join('\n');
    throw new Error(`SEED=${seed} SEEDS=1, ${writers.length} people: ${error.message}\n${keys}`, { cause: error });
  }
}

async function pressAll(writer, r) {
  const steps = [];
  await writer.text.focus();
  for (let count = 0; count < STEPS; count += 1) {
    const step = r.pick(TURNS)(r);
    steps.push(Object.values(step)[0]);
    await take(writer, step);
  }
  return steps;
}

async function take(writer, step) {
  if (step.type !== undefined) await writer.type(step.type);
  else if (step.paste !== undefined) await writer.paste(step.paste);
  else if (step.wait === 'saved') await writer.saved();
  else if (step.wait === 'frame')
    await writer.page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  else await writer.press(step.press);
  // Outside of lists Shift+Tab moves the focus out of the text.
  if (step.press === 'Shift+Tab') await writer.text.focus();
}

/** Waits until all pages have saved everything and show the document of the server. */
async function agree(id, writers) {
  const deadline = Date.now() + SETTLED_MS;
  for (;;) {
    for (const writer of writers) await writer.saved();
    const stored = shapeOf(await contentOf(server.url, id));
    const shown = await Promise.all(writers.map(({ page }) => shapeShown(page)));
    if (shown.every((each) => JSON.stringify(each) === JSON.stringify(stored))) return;
    if (Date.now() > deadline)
      assert.deepEqual(
        shown,
        writers.map(() => stored),
        'the pages differ from the server',
      );
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
