// Edits that have not reached the server when their page is closed or reloaded: `COPYDESK_BIN=.. node --test unsent.mjs`.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { type as textUnicode } from 'ot-text-unicode';
import ShareDB from 'sharedb/lib/client/index.js';
import { Server } from './server.mjs';
import { contentOf, countOf, openBrowser, plainClient, settled, stored, textOf, Writer } from './writers.mjs';

ShareDB.types.register(textUnicode);

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

/** A writer whose connection the test can cut: `rule` decides about each message by its content and direction. */
async function arrive(name) {
  const writer = await Writer.arrive(browser, server.url, name);
  writers.push(writer);
  writer.rule = () => true;
  await writer.context.routeWebSocket(/\/ws(\?|$)/, (socket) => {
    const upstream = socket.connectToServer();
    const passes = (message, towards) => writer.rule(JSON.parse(String(message)), towards);
    socket.onMessage((message) => void (passes(message, 'server') && upstream.send(message)));
    upstream.onMessage((message) => void (passes(message, 'client') && socket.send(message)));
  });
  await writer.context.route('**/api/documents/**', (route) =>
    writer.isCut && route.request().method() === 'PATCH' ? route.abort() : route.continue(),
  );
  writer.page.on('dialog', (dialog) => dialog.accept());
  return writer;
}

/** No message of the writer reaches the server. */
const cutOff = (message, towards) => !(towards === 'server' && message.a === 'op');
/** All messages reach the server, and no answer reaches the writer. */
const ackLost = (message, towards) => !(towards === 'client' && message.a === 'op');

async function closeAndOpen(writer, id, query = '') {
  await writer.page.goto(`${server.url}/healthz`);
  writer.rule = () => true;
  writer.isCut = false;
  await writer.page.goto(`${server.url}/d/${id}${query}`);
  await writer.saved();
}

/** Waits until the browser has stored edits with this text. */
function isKept(writer, text) {
  return writer.page.waitForFunction(async (wanted) => {
    const db = await new Promise((resolve, reject) => {
      const request = indexedDB.open('copydesk');
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
    const records = await new Promise((resolve) => {
      const request = db.transaction('unsent').objectStore('unsent').getAll();
      request.onsuccess = () => resolve(request.result);
    });
    db.close();
    return wanted === null ? records.length === 0 : JSON.stringify(records).includes(wanted);
  }, text);
}

for (const [what, rule] of [
  ['were never sent', cutOff],
  ['were committed, and the ack was lost', ackLost],
]) {
  test(`edits that ${what} before a reload are delivered exactly once`, async () => {
    const ann = await arrive('Ann Lee');
    const ben = await arrive('Quiet Otter');
    const id = await ann.begin();
    await ann.type('Start. ');
    await ann.saved();
    ann.rule = rule;
    // The first letter is in flight, the others are pending.
    await ann.type('Ann alone. ');
    await ben.open(id);
    await ben.goTo('beginning');
    await ben.type('Ben meanwhile. ');
    await ben.saved();
    await closeAndOpen(ann, id);
    const text = await settled(server.url, ann, ben);
    assert.equal(text, 'Ben meanwhile. Start. Ann alone. \n');
    await isKept(ann, null);
    await closeAndOpen(ann, id);
    assert.equal(await settled(server.url, ann, ben), text, 'another reload adds nothing');
  });
}

test('unsent edits of a plain text are delivered exactly once', async () => {
  const ann = await arrive('Ann Lee');
  const id = 'plainUnsent0000000000000';
  const client = await plainClient(server.url, id);
  await new Promise((resolve, reject) =>
    client.doc.create('Start. ', textUnicode.uri, (error) => (error ? reject(error) : resolve())),
  );
  await ann.open(id);
  await ann.page.waitForSelector('textarea.plain-text:focus');
  await ann.press('Control+End');
  ann.rule = ackLost;
  await ann.type('Ann alone.');
  await client.submit(['Before. ']);
  await closeAndOpen(ann, id);
  await ann.page.waitForFunction(
    () => document.querySelector('textarea.plain-text').value === 'Before. Start. Ann alone.',
  );
  await closeAndOpen(ann, id);
  await ann.page.waitForFunction(
    () => document.querySelector('textarea.plain-text').value === 'Before. Start. Ann alone.',
  );
  client.close();
});

test('unsent edits and a title survive a page that is killed, and are sent by one of two tabs', async () => {
  const ann = await arrive('Ann Lee');
  const id = await ann.begin();
  await ann.type('Start. ');
  await ann.saved();
  ann.rule = cutOff;
  ann.isCut = true;
  await ann.type('Kept.');
  await ann.title.fill('Kept title');
  await ann.press('Enter');
  await isKept(ann, 'Kept title');
  await ann.page.close();
  ann.rule = () => true;
  ann.isCut = false;
  const pages = await Promise.all([ann.context.newPage(), ann.context.newPage()]);
  await Promise.all(pages.map((page) => page.goto(`${server.url}/d/${id}`)));
  const tabs = pages.map((page) => new Writer(server.url, 'Ann Lee', ann.context, page));
  assert.equal(await settled(server.url, ...tabs), 'Start. Kept.\n');
  for (const { page } of tabs)
    await page.waitForFunction(() => document.querySelector('.title-field').value === 'Kept title');
});

test('unsent edits of an open page are not sent by another page', async () => {
  const ann = await arrive('Ann Lee');
  const id = await ann.begin();
  ann.rule = cutOff;
  await ann.type('Mine');
  await isKept(ann, 'M');
  const second = new Writer(server.url, 'Ann Lee', ann.context, await ann.context.newPage());
  await second.page.goto(`${server.url}/d/${id}`);
  await second.saved();
  assert.equal(textOf(await contentOf(server.url, id)), '\n');
  ann.rule = () => true;
  await ann.context.setOffline(true);
  await ann.status('offline');
  await ann.context.setOffline(false);
  assert.equal(await settled(server.url, ann, second), 'Mine\n');
});

for (const [what, rule] of [
  ['was never created', cutOff],
  ['was created, and the ack was lost', ackLost],
]) {
  test(`a new document that ${what} before a reload exists with its text`, async () => {
    const ann = await arrive('Ann Lee');
    const id = what === 'was never created' ? 'neverCreated0000000000000' : 'createdUnheard00000000000';
    ann.rule = rule;
    await ann.page.goto(`${server.url}/d/${id}?new`);
    await ann.page.waitForSelector('#app[data-document="ready"]');
    await ann.text.focus();
    await ann.type('First words');
    await closeAndOpen(ann, id, '?new');
    assert.equal(await settled(server.url, ann), 'First words\n');
  });
}

test('unsent edits of a deleted document are reported with their text', async () => {
  const ann = await arrive('Ann Lee');
  const id = await ann.begin();
  ann.rule = cutOff;
  await ann.type('Words for nothing');
  await isKept(ann, 'W');
  ann.rule = () => false;
  const client = await plainClient(server.url, id);
  await new Promise((resolve) => client.doc.del(resolve));
  client.close();
  await ann.page.goto(`${server.url}/healthz`);
  ann.rule = () => true;
  // They are reported at each visit until the report is dismissed.
  for (let visit = 0; visit < 2; visit += 1) {
    await ann.page.goto(`${server.url}/d/${id}`);
    await ann.page.getByRole('alert').getByRole('button', { name: 'Copy lost text' }).waitFor();
  }
  await ann.page.getByRole('button', { name: 'Dismiss' }).click();
  await isKept(ann, null);
});

test('pending edits are reported with their text when the document is deleted', async () => {
  const ann = await arrive('Ann Lee');
  const id = await ann.begin();
  ann.rule = cutOff;
  await ann.type('Words for nothing');
  const client = await plainClient(server.url, id);
  await new Promise((resolve) => client.doc.del(resolve));
  client.close();
  await ann.page.getByRole('heading', { name: 'This document was deleted' }).waitFor();
  await ann.page.getByRole('alert').getByRole('button', { name: 'Copy lost text' }).waitFor();
});

test('pending edits are sent in ops of bounded size', async () => {
  const ann = await arrive('Ann Lee');
  const id = await ann.begin();
  await ann.type('a'.repeat(900));
  await ann.saved();
  const sent = [];
  ann.rule = (message, towards) => {
    if (towards === 'server' && message.a === 'op') sent.push((message.op.ops ?? message.op).length);
    return true;
  };
  await ann.context.setOffline(true);
  await ann.status('offline');
  // Replaces every other letter: three components each.
  await ann.page.evaluate(async () => {
    const text = document.querySelector('.ql-editor p').firstChild;
    for (let at = 0; at < 800; at += 2) {
      text.replaceData(at, 1, 'b');
      await new Promise((resolve) => queueMicrotask(resolve));
    }
  });
  await ann.context.setOffline(false);
  const text = await settled(server.url, ann);
  assert.equal(text, `${'ba'.repeat(400)}${'a'.repeat(100)}\n`);
  assert.ok(sent.length >= 2 && Math.max(...sent) <= 1_000, `ops of ${sent} components`);
  assert.equal(countOf(text, 'b'), 400);

  // One edit of many components is split as well.
  await ann.press('Control+a');
  await ann.press('Delete');
  const words = Array.from({ length: 2_000 }, (_, n) => (n % 2 ? `<b>${n} </b>` : `<i>${n} </i>`));
  await ann.paste({ 'text/html': `<p>${words.join('')}</p>` });
  await stored(server.url, id, `${Array.from({ length: 2_000 }, (_, n) => `${n} `).join('')}\n`);
  assert.ok(Math.max(...sent) <= 1_000, `ops of ${sent} components`);
});
