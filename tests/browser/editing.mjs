// Behaviour of the editor: selection, clipboard, undo, foreign content, shortcuts, pictures.
// `COPYDESK_BIN=.. node --test editing.mjs`; all tests share one server and one browser.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { Server } from './server.mjs';
import { contentOf, openBrowser, plainClient, stored, Writer } from './writers.mjs';

const RICH_TEXT = 'http://sharejs.org/types/rich-text/v1';

let server;
let browser;
let writers = [];

before(async () => {
  [server, browser] = await Promise.all([Server.start(), openBrowser()]);
});

after(async () => {
  await browser?.close();
  await server?.end();
});

afterEach(async () => {
  const here = writers;
  writers = [];
  for (const writer of here) await writer.leave();
});

async function arrive(name, options) {
  const writer = await Writer.arrive(browser, server.url, name, options);
  writers.push(writer);
  return writer;
}

let documents = 0;

/** A document with this content, created by a program, and Ann who has opened it. */
async function annIn(ops, options) {
  const id = `editing${String((documents += 1)).padStart(16, '0')}`;
  const program = await plainClient(server.url, id);
  await new Promise((resolve, reject) =>
    program.doc.create(ops, RICH_TEXT, (error) => (error ? reject(error) : resolve())),
  );
  const ann = await arrive('Ann Lee', options);
  await ann.open(id);
  await ann.page.waitForSelector('#app[data-document="ready"]');
  return { ann, id, program };
}

/** Puts the cursor behind the first place of `words`, or selects the words. */
async function cursorAt(writer, words, { select = false } = {}) {
  await writer.text.evaluate(
    (text, [wanted, isSelection]) => {
      const walker = document.createTreeWalker(text, NodeFilter.SHOW_TEXT);
      for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const at = node.data.indexOf(wanted);
        if (at < 0) continue;
        text.focus({ preventScroll: true });
        getSelection().setBaseAndExtent(node, isSelection ? at : at + wanted.length, node, at + wanted.length);
        node.parentElement.scrollIntoView({ block: 'center' });
        return;
      }
      throw new Error(`no ${wanted} in the text`);
    },
    [words, select],
  );
  // Quill reads the selection a moment later.
  await writer.page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 20)));
}

/** The selection as it is copied to the clipboard: its content by type. */
function copied(writer, kind) {
  return writer.text.evaluate((text, type) => {
    const clipboardData = new DataTransfer();
    text.dispatchEvent(new ClipboardEvent(type, { clipboardData, bubbles: true, cancelable: true }));
    return Object.fromEntries([...clipboardData.types].map((each) => [each, clipboardData.getData(each)]));
  }, kind);
}

/** Waits until the server has exactly this content. */
async function storedOps(id, ops) {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const found = await contentOf(server.url, id);
    if (isDeepStrictEqual(found, ops)) return;
    if (Date.now() > deadline) assert.deepEqual(found, ops);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test('Escape out of a form restores the cursor, moved by concurrent edits', async () => {
  const line = 'A line of a long document, with some words in it.\n';
  const { ann, id, program } = await annIn([{ insert: `${line.repeat(1000)}middle\n${line.repeat(1000)}` }]);
  const forms = [
    ['Control+k', (page) => page.getByLabel('Address', { exact: true })],
    ['Picture', (page) => page.getByLabel('Address of the picture')],
    ['Text colour', (page) => page.getByRole('button', { name: 'Red', exact: true })],
  ];
  let expected = 'middle';
  for (const [index, [form, field]] of forms.entries()) {
    await cursorAt(ann, expected);
    if (form.includes('+')) await ann.press(form);
    else await ann.tool(form).click();
    await field(ann.page).waitFor();
    await program.submit([{ insert: `${index} from others ` }]);
    await ann.sees(`${index} from others`);
    await ann.press('Escape');
    await ann.type(`-${index}`);
    expected += `-${index}`;
  }
  const others = '2 from others 1 from others 0 from others ';
  await stored(server.url, id, `${others}${line.repeat(1000)}${expected}\n${line.repeat(1000)}`);

  // A selection is restored as well, and a form that is used writes at the previous cursor.
  await cursorAt(ann, 'middle', { select: true });
  await ann.press('Control+k');
  await ann.page.getByLabel('Address', { exact: true }).waitFor();
  await program.submit([{ insert: '3 ' }]);
  await ann.sees('3 2 from others');
  await ann.press('Escape');
  await ann.type('centre');
  expected = expected.replace('middle', 'centre');
  await cursorAt(ann, 'centre');
  await ann.press('Control+k');
  await program.submit([{ insert: '4 ' }]);
  await ann.sees('4 3 2 from others');
  await ann.page.getByRole('textbox', { name: 'Text', exact: true }).fill('link');
  await ann.page.getByLabel('Address', { exact: true }).fill('example.org');
  await ann.press('Enter');
  await ann.type('!');
  await stored(
    server.url,
    id,
    `4 3 ${others}${line.repeat(1000)}${expected.replace('centre', 'centrelink!')}\n${line.repeat(1000)}`,
  );

  // The toolbar and the title restore the cursor as well.
  await cursorAt(ann, '!');
  await ann.press('Alt+F10');
  await program.submit([{ insert: '5 ' }]);
  await ann.sees('5 4 3 2 from others');
  await ann.press('Escape');
  await ann.type('?');
  await stored(
    server.url,
    id,
    `5 4 3 ${others}${line.repeat(1000)}${expected.replace('centre', 'centrelink!?')}\n${line.repeat(1000)}`,
  );
  program.close();
});

const CHECKLIST = [
  { insert: 'done\u0020\u0020twice\tspaced' },
  { insert: '\n', attributes: { list: 'checked' } },
  { insert: 'nested' },
  { insert: '\n', attributes: { list: 'unchecked', indent: 1 } },
  { insert: 'deeper' },
  { insert: '\n', attributes: { list: 'checked', indent: 2 } },
  { insert: 'last' },
  { insert: '\n', attributes: { list: 'unchecked' } },
];

test('cut and paste keep checklists, their nesting, spaces and tabs', async () => {
  const { ann, id, program } = await annIn(CHECKLIST);
  const left = await ann.text
    .locator('li')
    .evaluateAll((items) => items.map((item) => Number.parseFloat(getComputedStyle(item).paddingLeft)));
  assert.ok(left[0] < left[1] && left[1] < left[2] && left[3] === left[0], `nested items are drawn nested: ${left}`);
  await ann.text.focus();
  await ann.press('Control+a');
  const content = await copied(ann, 'cut');
  await storedOps(id, [{ insert: '\n', attributes: { list: 'checked' } }]);
  await ann.paste(content);
  await storedOps(id, CHECKLIST);

  // Into a paragraph as well; and with HTML only, as another program provides it.
  for (const type of [null, 'text/html']) {
    await ann.press('Control+a');
    await ann.press('Delete');
    await ann.press('Control+Shift+9');
    await storedOps(id, [{ insert: '\n' }]);
    await ann.paste(type ? { [type]: content[type] } : content);
    await storedOps(
      id,
      type
        ? [...CHECKLIST.slice(0, -1), { insert: '\n', attributes: { list: 'unchecked' } }, { insert: '\n' }]
        : CHECKLIST,
    );
  }

  // As Google Docs and GitHub write it. Without a cursor the clipboard is unchanged.
  await ann.press('Control+a');
  await ann.press('Delete');
  await ann.press('Control+Shift+9');
  await ann.paste({
    'text/html':
      '<ul><li role="checkbox" aria-checked="true"><span style="white-space:pre-wrap">from  Docs</span></li></ul>' +
      '<ul><li><input type="checkbox"> from GitHub<ul><li><input type="checkbox" checked> below</li></ul></li></ul>',
  });
  await storedOps(id, [
    { insert: 'from  Docs' },
    { insert: '\n', attributes: { list: 'checked' } },
    { insert: 'from GitHub' },
    { insert: '\n', attributes: { list: 'unchecked' } },
    { insert: 'below' },
    { insert: '\n', attributes: { list: 'checked', indent: 1 } },
    { insert: '\n' },
  ]);
  assert.deepEqual(await copied(ann, 'copy'), {});
  program.close();
});

test('an undo step is one command or some words, and begins between words', async () => {
  const { ann, id, program } = await annIn([{ insert: '\n' }]);
  await ann.page.clock.install();
  await ann.text.focus();
  for (const key of 'The first sentence is here. And a second one') {
    await ann.type(key);
    await ann.page.clock.fastForward(900);
  }
  const steps = [];
  for (let undos = 0; undos < 20; undos += 1) {
    steps.push((await ann.lines()).join('\n'));
    if (steps.at(-1) === '') break;
    await ann.press('Control+z');
  }
  assert.deepEqual(steps, ['The first sentence is here. And a second one', 'The first sentence is here. ', '']);
  // A pause within a word does not end a step, a pause before a word does.
  for (const part of ['one tw', 'o ', 'three']) {
    await ann.type(part);
    await ann.page.clock.fastForward(60_000);
  }
  await ann.press('Control+z');
  await stored(server.url, id, 'one two \n');
  await ann.press('Control+z');
  await stored(server.url, id, '\n');

  // Deleting or replacing a selection over lines of different kinds is one step.
  await ann.type('a heading');
  await ann.press('Control+Alt+1');
  await ann.press('Enter');
  await ann.type('- item');
  const before = await contentOf(server.url, id);
  await ann.saved();
  const whole = await contentOf(server.url, id);
  assert.notDeepEqual(before, [{ insert: '\n' }]);
  for (const gesture of [
    () => ann.press('Delete'),
    () => ann.press('Backspace'),
    () => ann.type('over'),
    () => ann.paste({ 'text/plain': 'pasted' }),
    () => copied(ann, 'cut'),
  ]) {
    await ann.press('Control+a');
    await gesture();
    await ann.saved();
    assert.notDeepEqual(await contentOf(server.url, id), whole);
    await ann.press('Control+z');
    await storedOps(id, whole);
  }
  await ann.press('Control+Shift+z');
  await storedOps(id, [{ insert: '\n', attributes: { header: 1 } }]);
  program.close();
});

test('formats of hundreds of lines, and their undo and redo, are drawn as they are stored', async () => {
  const items = Array.from({ length: 400 }, (_, index) => [
    { insert: `item ${index}` },
    { insert: '\n', attributes: { list: 'bullet', mark: index % 7 } },
  ]).flat();
  const { ann, id, program } = await annIn([
    ...items,
    { insert: 'last' },
    { insert: '\n', attributes: { list: 'checked' } },
  ]);
  const states = [await contentOf(server.url, id)];
  await ann.text.focus();
  for (const keys of [
    'Control+Alt+2',
    'Control+Shift+7',
    'Control+b',
    'Control+Alt+c',
    'Control+Alt+q',
    'Control+Backslash',
  ]) {
    await ann.press('Control+a');
    await ann.press(keys);
    await ann.saved();
    states.push(await contentOf(server.url, id));
    assert.notDeepEqual(states.at(-1), states.at(-2), keys);
    assert.equal(
      states.at(-1).filter(({ attributes }) => attributes?.mark !== undefined).length,
      400,
      `${keys} keeps what is not drawn`,
    );
  }
  for (const state of states.slice(0, -1).reverse()) {
    await ann.press('Control+z');
    await storedOps(id, state);
  }
  for (const state of states.slice(1)) {
    await ann.press('Control+Shift+z');
    await storedOps(id, state);
  }
  const ben = await arrive('Ben Okri');
  await ben.open(id);
  assert.equal(await ben.html(), await ann.html());
  program.close();
});

const FOREIGN = [
  { insert: 'Windows\r\n' },
  { insert: 'a comment', attributes: { comment: { id: 'c1', by: ['x'] } } },
  { insert: ' and ' },
  { insert: 'a call', attributes: { link: 'tel:+4912', bold: true } },
  { insert: ' in ' },
  { insert: 'odd', attributes: { color: '#F00', zero: 0, empty: '', no: false } },
  { insert: { mention: { id: 7 } }, attributes: { comment: 'c2', italic: true } },
  {
    insert: { image: 'data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==' },
    attributes: { width: 20, alt: '', caption: 'x' },
  },
  { insert: '\n', attributes: { table: 'row-1', header: 2 } },
  { insert: 'cell', attributes: { header: 3 } },
  { insert: '\n', attributes: { table: 'row-2', bold: true, 'foreign:x': 1 } },
  { insert: 'let x' },
  { insert: '\n', attributes: { 'code-block': 'javascript' } },
  { insert: 'end\n' },
];

test('formats that the page does not draw survive deleting and undo, cut and paste, and clearing of formats', async () => {
  const { ann, id, program } = await annIn(FOREIGN);
  await ann.sees('end');
  const all = await contentOf(server.url, id);
  await ann.text.focus();
  await ann.press('Control+a');
  await ann.press('Delete');
  await ann.saved();
  await ann.press('Control+z');
  await storedOps(id, all);
  await ann.press('Control+a');
  const content = await copied(ann, 'cut');
  await ann.saved();
  await ann.paste(content);
  await storedOps(id, all);
  // A page that opens the document shows the same.
  const ben = await arrive('Ben Okri');
  await ben.open(id);
  assert.equal(await ben.html(), await ann.html());

  // Both pages receive later changes of it, and a new format of the same name replaces it.
  await program.submit([{ retain: 9 }, { retain: 4, attributes: { comment: null, status: 'done' } }]);
  await program.submit([{ retain: 9 }, { retain: 2, attributes: { link: 'slack:x' } }]);
  await ann.page.waitForSelector('[data-foreign-66-6f-72-65-69-67-6e-3a-6c-69-6e-6b*=slack]');
  const changed = await contentOf(server.url, id);
  await ann.press('Control+a');
  await ann.press('Delete');
  await ann.saved();
  await ann.press('Control+z');
  await storedOps(id, changed);
  await cursorAt(ann, 'a call', { select: true });
  await ann.press('Control+k');
  await ann.page.getByLabel('Address', { exact: true }).fill('example.org');
  await ann.press('Enter');
  await storedOps(
    id,
    changed.map((op) =>
      op.attributes?.link === 'tel:+4912'
        ? { ...op, attributes: { ...op.attributes, link: 'https://example.org' } }
        : op,
    ),
  );
  await ann.press('Control+z');
  await storedOps(id, changed);

  // Clearing removes drawn formats, and keeps pictures, objects and all formats that are not drawn.
  await ann.press('Control+a');
  await ann.tool('Clear formatting').click();
  await ann.page.waitForFunction(() => !document.querySelector('.ql-editor :is(h2, strong, em, .ql-code-block)'));
  const plain = changed.map(({ insert, attributes = {} }) => {
    const { bold, italic, color, header, 'code-block': code, ...rest } = attributes;
    if (insert === 'odd' || insert?.image) assert.ok(color ?? attributes.width);
    const kept = { ...rest, ...(insert === 'cell' && { header }), ...(attributes['foreign:x'] && { bold }) };
    return Object.keys(kept).length > 0 ? { insert, attributes: kept } : { insert };
  });
  await ann.saved();
  const merged = await contentOf(server.url, id);
  assert.deepEqual(
    merged.map((op) => op.insert).filter((insert) => typeof insert !== 'string'),
    plain.map((op) => op.insert).filter((insert) => typeof insert !== 'string'),
  );
  for (const { insert, attributes } of plain) {
    if (attributes)
      assert.ok(
        merged.some((op) => isDeepStrictEqual(op, { insert, attributes })),
        JSON.stringify({ insert, attributes, merged }),
      );
  }
  await ann.press('Control+z');
  await storedOps(id, changed);
  // Text typed within a mark belongs to it; text typed at the end of a line with a carriage return is plain.
  await cursorAt(ann, 'co');
  await ann.type('!');
  await cursorAt(ann, 'Windows');
  await ann.press('End');
  await ann.type('?');
  await ann.saved();
  const typed = await contentOf(server.url, id);
  assert.match(typed[0].insert, /^Windows(\?\r|\r\?)\n$/);
  assert.ok(
    typed.some((op) => op.insert.includes?.('!') && op.attributes?.status === 'done'),
    JSON.stringify(typed),
  );
  program.close();
});

test('web addresses become links, and markdown signs at the beginning of a line format it', async () => {
  const { ann, id, program } = await annIn([{ insert: '\n' }]);
  await ann.text.focus();
  await ann.type('See (https://example.org/a_(b)?c=d). And www.example.net\nno: http:// www.x a@www.example.org\n');
  await ann.paste({ 'text/plain': 'https://pasted.example/x, and ftp://no.example' });
  await storedOps(id, [
    { insert: 'See (' },
    { insert: 'https://example.org/a_(b)?c=d', attributes: { link: 'https://example.org/a_(b)?c=d' } },
    { insert: '). And ' },
    { insert: 'www.example.net', attributes: { link: 'https://www.example.net' } },
    { insert: '\nno: http:// www.x a@www.example.org\n' },
    { insert: 'https://pasted.example/x', attributes: { link: 'https://pasted.example/x' } },
    { insert: ', and ftp://no.example\n' },
  ]);
  await ann.press('Control+a');
  await ann.type('words here');
  await cursorAt(ann, 'words', { select: true });
  await ann.paste({
    'text/plain': 'https://example.org/p',
    'text/html': '<a href="https://example.org/p">https://example.org/p</a>',
  });
  await storedOps(id, [{ insert: 'words', attributes: { link: 'https://example.org/p' } }, { insert: ' here\n' }]);
  await ann.press('Control+z');
  await storedOps(id, [{ insert: 'words here\n' }]);

  await ann.press('Control+a');
  await ann.type('# one\n## two\n> three');
  await ann.press('Enter');
  await ann.press('Enter');
  await ann.type('```\n# code https://example.org ');
  await storedOps(id, [
    { insert: 'one' },
    { insert: '\n', attributes: { header: 1 } },
    { insert: 'two' },
    { insert: '\n', attributes: { header: 2 } },
    { insert: 'three' },
    { insert: '\n', attributes: { blockquote: true } },
    { insert: '# code https://example.org ' },
    { insert: '\n', attributes: { 'code-block': true } },
  ]);
  // One undo restores what was typed.
  await ann.press('Control+a');
  await ann.press('Delete');
  await ann.press('Control+\\');
  await ann.type('> ');
  await ann.page.waitForSelector('.ql-editor blockquote');
  await ann.press('Control+z');
  await storedOps(id, [{ insert: '> \n' }]);
  await ann.press('Backspace');
  await storedOps(id, [{ insert: '>\n' }]);
  await ann.press('Control+z');
  await storedOps(id, [{ insert: '> \n' }]);
  await ann.type('not a quote, www.example.org ');
  await ann.page.waitForSelector('.ql-editor a');
  await ann.press('Control+z');
  await storedOps(id, [{ insert: '> not a quote, www.example.org \n' }]);
  program.close();
});

test('pasted tables become lines with tabs, right-to-left lines are aligned, shortcuts are described', async () => {
  const { ann, id, program } = await annIn([{ insert: '\n' }], { permissions: [] });
  await ann.text.focus();
  await ann.paste({
    'text/html': `<p>Before</p><table><tbody><tr><td colspan="2"><p><b>Head</b></p></td><td>
      C </td></tr><tr><td rowspan="2">1<br>a</td><td><ul><li>x</li><li>y</li></ul></td><td></td></tr><tr><td>4</td><td>5</td></tr></tbody></table>
      <table><tr><td><p>A layout</p><p>stays</p></td></tr></table>`,
  });
  await ann.page.getByText('Tables are not part of documents yet.').waitFor();
  await stored(server.url, id, 'Before\nHead\t\tC\n1 a\tx y\t\n\t4\t5\nA layout\nstays\n');

  await ann.press('Control+a');
  await ann.type('\u05e9\u05dc\u05d5\u05dd 1\nlatin');
  const sides = await ann.text
    .locator('p')
    .evaluateAll((lines) => lines.map((line) => getComputedStyle(line).direction));
  assert.deepEqual(sides, ['rtl', 'ltr']);

  await ann.press('Control+s');
  await ann.page.getByText('All changes are saved.').waitFor();
  await ann.press('Control+/');
  await ann.page.getByRole('dialog', { name: 'Keyboard shortcuts' }).getByText('Ctrl+Shift+9').waitFor();
  await ann.isAccessible();
  await ann.press('Escape');
  await ann.type('!');
  await stored(server.url, id, '\u05e9\u05dc\u05d5\u05dd 1\nlatin!\n');
  program.close();
});

test('Enter in a long list computes the style of a few elements', async () => {
  const ITEMS = 1_000;
  const items = Array.from({ length: ITEMS }, (_, at) => [
    { insert: `item ${at}` },
    { insert: '\n', attributes: { list: at % 3 ? 'bullet' : 'ordered' } },
  ]);
  const { ann, program } = await annIn([{ insert: 'Before\n' }, ...items.flat(), { insert: 'Behind\n' }]);
  await cursorAt(ann, `item ${ITEMS / 2}`);
  const session = await ann.page.context().newCDPSession(ann.page);
  const events = [];
  session.on('Tracing.dataCollected', ({ value }) => events.push(...value));
  const isComplete = new Promise((resolve) => session.once('Tracing.tracingComplete', resolve));
  await session.send('Tracing.start', {
    transferMode: 'ReportEvents',
    traceConfig: { includedCategories: ['devtools.timeline'] },
  });
  await ann.press('Enter');
  await ann.type('new');
  await ann.saved();
  await session.send('Tracing.end');
  await isComplete;
  const counts = events.map(({ args }) => args?.elementCount).filter((count) => count !== undefined);
  assert.ok(counts.length > 0, 'the trace has the computations of styles');
  assert.ok(Math.max(...counts) < ITEMS / 4, `styles of ${Math.max(...counts)} elements at once`);
  // Numbers still begin again behind a paragraph, in view or not.
  const numbered = await ann.page.evaluate(
    () => getComputedStyle(document.querySelector('.ql-editor > p + ol')).counterSet,
  );
  assert.match(numbered, /^list-0 0 list-1 0/);
  program.close();
});

test('a picture on another server is loaded after the reader agreed, for this document and this server', async () => {
  const image = (host) => ({ insert: { image: `https://${host}/a.png` } });
  const { ann, id, program } = await annIn([
    image('one.example'),
    { insert: 'words' },
    image('two.example'),
    { insert: '\n', attributes: { header: 1 } },
  ]);
  const asked = [];
  await ann.page.context().route(/\.example\//, (route) => {
    asked.push(new URL(route.request().url()).host);
    return route.fulfill({
      contentType: 'image/gif',
      body: Buffer.from('R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==', 'base64'),
    });
  });
  await ann.page.reload();
  const bar = ann.page.getByRole('region', { name: 'Pictures on other servers' });
  await bar.getByRole('button', { name: 'Show pictures from all 2 servers' }).waitFor();
  await ann.isAccessible();
  // A pasted picture needs consent as well; cut, paste and undo keep pictures that are not shown.
  await ann.goTo('end');
  await ann.paste({
    'text/html':
      '<p>x<img src="https://three.example/a.png" data-address="https://one.example/b.png" class="withheld"></p>',
  });
  await bar.getByRole('button', { name: 'Show pictures from all' }).waitFor();
  await ann.press('Control+a');
  const content = await copied(ann, 'cut');
  await bar.waitFor({ state: 'hidden' });
  await ann.press('Control+z');
  await bar.getByRole('button', { name: 'Show pictures from one.example' }).waitFor();
  assert.match(content['text/html'], /<img src="https:\/\/one\.example\/a\.png"/);
  assert.deepEqual(asked, []);

  await bar.getByRole('button', { name: 'Show pictures from one.example' }).click();
  await ann.page.waitForSelector('.ql-editor img[src="https://one.example/a.png"]');
  await bar.getByRole('button', { name: 'Show pictures from one.example' }).waitFor({ state: 'detached' });
  await ann.page.waitForFunction(() => document.querySelector('img[src*="one.example/a"]').complete);
  assert.deepEqual([...new Set(asked)], ['one.example']);
  const before = await contentOf(server.url, id);
  await ann.page.reload();
  await ann.page.waitForSelector('.ql-editor img[src="https://one.example/a.png"]');
  assert.equal(await ann.page.locator('.ql-editor img[src*="two.example"]').count(), 0);
  assert.deepEqual(await contentOf(server.url, id), before);
  // Inserting a picture by its address counts as consent.
  await ann.goTo('end');
  await ann.tool('Picture').click();
  await ann.page.getByLabel('Address of the picture').fill('https://own.example/b.png');
  await ann.press('Enter');
  await ann.page.waitForSelector('.ql-editor img[src="https://own.example/b.png"]');
  // Another document needs its own consent.
  const other = await annIn([image('one.example'), { insert: '\n' }]);
  await other.ann.page.getByRole('button', { name: 'Show pictures from one.example' }).waitFor();
  assert.deepEqual([...new Set(asked)].sort(), ['one.example', 'own.example']);
  program.close();
  other.program.close();
});
