// Tests of the pages around the text: `COPYDESK_BIN=.. node --test pages.mjs`.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { type as textUnicode } from 'ot-text-unicode';
import ShareDB from 'sharedb/lib/client/index.js';
import { Server } from './server.mjs';
import { openBrowser, plainClient, Writer } from './writers.mjs';

ShareDB.types.register(textUnicode);

let server;
let browser;
let ann;
let area;

before(async () => {
  await mkdir(new URL('shots/', import.meta.url), { recursive: true });
  [server, browser] = await Promise.all([Server.start(), openBrowser()]);
  ann = await Writer.arrive(browser, server.url, 'Ann Lee');
  area = ann.page.getByRole('textbox', { name: 'Document text' });
});

after(async () => {
  await ann?.leave();
  await browser?.close();
  await server?.end();
});

/** A plain-text document that a program created. */
async function program(id, content) {
  const client = await plainClient(server.url, id);
  await new Promise((resolve, reject) =>
    client.doc.create(content, textUnicode.uri, (error) => (error ? reject(error) : resolve())),
  );
  return client;
}

/** Waits until the page shows an editable text. The text area is there before its document is loaded. */
const shows = (text) =>
  ann.page.waitForFunction((wanted) => {
    const area = document.querySelector('textarea.plain-text');
    return area?.value === wanted && !area.readOnly;
  }, text);

/** Waits until the client's document holds a text. */
async function holds({ doc }, text) {
  while (doc.data !== text) {
    await new Promise((resolve, reject) => {
      const late = setTimeout(
        () => reject(new Error(`the document holds ${JSON.stringify(doc.data)}, not ${JSON.stringify(text)}`)),
        30_000,
      );
      doc.once('op', () => resolve(clearTimeout(late)));
    });
  }
}

test('an address keeps its collection', async () => {
  await ann.page.goto(`${server.url}/d/plan?new&in=notes%3A1`);
  await ann.typing('In another collection');
  await ann.saved();
  assert.equal(new URL(ann.page.url()).search, '?in=notes%3A1');
  await ann.page.reload();
  await ann.sees('In another collection');
  assert.equal(new URL(ann.page.url()).search, '?in=notes%3A1');
});

test('opening a document puts the cursor into the text, unless another element has the focus', async () => {
  const id = await ann.begin((writer) => writer.typing('Typed '));
  await ann.page.reload();
  await ann.typing('Again, ');
  await ann.saved();
  assert.deepEqual(await ann.lines(), ['Again, Typed ']);
  await ann.page.goto(`${server.url}/d/${id}x`);
  await ann.page.getByRole('button', { name: 'Start writing here' }).click();
  await ann.typing('Begun');
  await ann.saved();
  assert.deepEqual(await ann.lines(), ['Begun']);
});

test('a plain-text document is read and written as plain text', async () => {
  const client = await program('plain', 'one\ntwo 😀\n');
  await ann.list();
  await ann.page.locator('.row[data-id="plain"] a').click();
  await shows('one\ntwo 😀\n');
  await ann.page.waitForSelector('textarea.plain-text:focus');
  await ann.type('Zero ');
  await holds(client, 'Zero one\ntwo 😀\n');
  assert.equal(await ann.page.getByRole('toolbar').isVisible(), false);
  // Concurrent edits move the cursor and are not undone.
  await ann.press('Control+End');
  await client.submit(['Before. ']);
  await shows('Before. Zero one\ntwo 😀\n');
  await ann.type('three 😁');
  await holds(client, 'Before. Zero one\ntwo 😀\nthree 😁');
  await ann.press('Control+z');
  await holds(client, 'Before. Zero one\ntwo 😀\n');
  await ann.press('Control+Shift+z');
  await holds(client, 'Before. Zero one\ntwo 😀\nthree 😁');
  await ann.press('Backspace');
  await holds(client, 'Before. Zero one\ntwo 😀\nthree ');
  await ann.saved();
  await ann.isAccessible();
  await ann.shot('plain');
  client.close();
});

test('line ends of a program are kept in a plain text', async () => {
  const client = await program('windows', 'a\r\nb\rc\r\n');
  await ann.page.goto(`${server.url}/d/windows`);
  await shows('a\nb\nc\n');
  await ann.press('Control+End');
  await ann.type('d');
  await holds(client, 'a\r\nb\rc\r\nd');
  await client.submit([1, '!']);
  await shows('a!\nb\nc\nd');
  // A line end is deleted as a whole.
  await ann.press('Control+Home');
  await ann.press('End');
  await ann.press('Delete');
  await holds(client, 'a!b\rc\r\nd');
  client.close();
});

test('a large paste into a plain text while the connection is down is delivered later', async () => {
  const client = await program('large', '');
  await ann.page.goto(`${server.url}/d/large`);
  await shows('');
  await ann.context.setOffline(true);
  await ann.status('offline');
  const large = 'A line with 😀 in it.\n'.repeat(20_000);
  await area.evaluate((text, pasted) => {
    const clipboardData = new DataTransfer();
    clipboardData.setData('text/plain', pasted);
    text.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
  }, large);
  await ann.type('end');
  await ann.context.setOffline(false);
  await holds(client, `${large}end`);
  await ann.saved();
  client.close();
});

test('documents with dots in their names are opened, named and listed', async () => {
  for (const id of ['.', '..', '~..']) {
    const client = await program(id, `I am ${id}`);
    client.close();
    await ann.list();
    await ann.page.locator(`.row[data-id="${id}"] a`).click();
    await shows(`I am ${id}`);
    await ann.title.fill(`Named ${id}`);
    await ann.press('Enter');
    await ann.page.waitForFunction((title) => document.title === title, `Named ${id} · Copydesk`);
    await ann.saved();
    await ann.list();
    await ann.page.locator(`.row[data-id="${id}"]`).getByText(`Named ${id}`, { exact: true }).waitFor();
  }
});

test('a page of a plain text sends no cursor, because its type has none', async () => {
  const client = await program('no cursors', 'Plain');
  const [sent, warned] = [[], []];
  const log = (message) => warned.push(message.text());
  ann.page.once('websocket', (socket) => socket.on('framesent', ({ payload }) => sent.push(String(payload))));
  ann.page.on('console', log);
  await ann.page.goto(`${server.url}/d/${encodeURIComponent('no cursors')}`);
  await shows('Plain');
  await area.focus();
  await ann.press('Control+End');
  await ann.type(' text');
  await holds(client, 'Plain text');
  await ann.saved();
  ann.page.off('console', log);
  const isOf = (action) => (frame) => frame.includes(`"a":"${action}"`);
  assert.ok(sent.some(isOf('op')), 'the frames are seen');
  assert.deepEqual(sent.filter(isOf('p')), []);
  assert.deepEqual(
    warned.filter((text) => /presence/i.test(text)),
    [],
  );
  client.close();
});

test('announced renames do not cause repeated requests', async () => {
  const id = await ann.begin((writer) => writer.typing('x'));
  let reads = 0;
  ann.page.on('request', (request) => {
    if (request.method() === 'GET' && request.url().endsWith(`/api/documents/documents/${id}`)) reads += 1;
  });
  const eve = await plainClient(server.url, id);
  const presence = eve.doc.connection.getDocPresence('documents', id).create('eve');
  const submit = (value) => new Promise((resolve) => presence.submit(value, resolve));
  for (const titleRevision of [...Array(200).keys(), 1e300, Infinity, -1, '9', null, { valueOf: 1 }]) {
    await submit({ index: 0, length: 0, name: 'Eve', titleRevision });
  }
  // Once the last presence has arrived, all earlier ones have.
  await submit({ index: 0, length: 0, name: 'Done' });
  await ann.page.getByRole('button', { name: /^Done/ }).waitFor();
  assert.ok(reads <= 10, `the page asked ${reads} times`);
  eve.close();
});

test('a plain text is laid out correctly on a phone, in dark mode and enlarged', async () => {
  const looks = {
    phone: { viewport: { width: 375, height: 720 } },
    night: { colorScheme: 'dark' },
    zoomed: { viewport: { width: 640, height: 400 } },
  };
  for (const [name, options] of Object.entries(looks)) {
    const ben = await Writer.arrive(browser, server.url, 'Ben Ray', options);
    await ben.page.goto(`${server.url}/d/plain`);
    await ben.page.waitForSelector('textarea.plain-text:focus');
    await ben.saved();
    const isWithin = await ben.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
    assert.ok(isWithin, `${name}: nothing runs out of the window`);
    await ben.isAccessible();
    await ben.shot(`plain-${name}`);
    await ben.leave();
  }
});
