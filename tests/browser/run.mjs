// Tests of the web editor: `COPYDESK_BIN=.. node --test run.mjs`. Screenshots go to `shots/`.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { after, afterEach, before, test } from 'node:test';
import { until } from '../js/wait.mjs';
import { Server } from './server.mjs';
import { contentOf, countOf, openBrowser, plainClient, settled, stored, textOf, Writer } from './writers.mjs';

let server;
let browser;
let writers = [];

before(async () => {
  await mkdir(new URL('shots/', import.meta.url), { recursive: true });
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

/** A document that Ann has created and Ben has opened. */
async function annAndBen(text = '') {
  const ann = await arrive('Ann Lee');
  const ben = await arrive('Quiet Otter');
  const id = await ann.begin();
  if (text) await ann.type(text);
  await ann.saved();
  await ben.open(id);
  if (text) await ben.sees(text.split('\n').at(-1));
  return { ann, ben, id };
}

test('an empty list offers to create a document', async () => {
  const ann = await arrive('Ann Lee');
  await ann.list();
  await ann.page.getByRole('heading', { name: 'A clean desk' }).waitFor();
  await ann.isAccessible();
  await ann.shot('list-empty');
  await ann.page.getByRole('button', { name: 'Start your first document' }).click();
  await ann.saved();
});

test('concurrent edits of two users at different places and at one place converge', async () => {
  const { ann, ben } = await annAndBen('first\nlast');
  await ann.goTo('beginning');
  await ben.goTo('end');
  await Promise.all([ann.type('Ann here. '.repeat(8), 4), ben.type(' Ben there.'.repeat(8), 6)]);
  const apart = await settled(server.url, ann, ben);
  assert.equal(countOf(apart, 'Ann here. '), 8);
  assert.equal(countOf(apart, ' Ben there.'), 8);

  await Promise.all([ann.goTo('end'), ben.goTo('end')]);
  await ann.press('Enter');
  await ben.sees('first');
  await settled(server.url, ann, ben);
  await ben.goTo('end');
  await Promise.all([ann.type('a'.repeat(60), 3), ben.type('b'.repeat(60), 3)]);
  const together = (await settled(server.url, ann, ben)).split('\n').at(-2);
  assert.equal(countOf(together, 'a'), 60);
  assert.equal(countOf(together, 'b'), 60);
});

test('no edit is lost or duplicated when the server is restarted during typing', async () => {
  const { ann, ben } = await annAndBen('Start.');
  for (const signal of ['SIGTERM', 'SIGKILL']) {
    await ann.goTo('end');
    const words = Array.from({ length: 30 }, (_, index) => ` ${signal}-${index};`);
    const typing = ann.type(words.join(''), 8);
    await ben.sees(words[3]);
    await server.down(signal);
    await ann.status('offline');
    await server.up();
    await typing;
    const text = await settled(server.url, ann, ben);
    for (const word of words) assert.equal(countOf(text, word), 1, `${word} is there once`);
  }
});

test('edits made without a connection are delivered exactly once', async () => {
  const { ann, ben } = await annAndBen('Together. ');
  await ann.context.setOffline(true);
  await ann.status('offline');
  await ann.goTo('end');
  await ann.type('Ann alone');
  await ann.page.locator('.status-shown', { hasText: 'Offline: 9 changes waiting' }).waitFor();
  await ben.goTo('beginning');
  await ben.type('Ben meanwhile. ');
  await ben.saved();
  await ann.shot('editor-offline');
  const asked = ann.page.waitForEvent('dialog');
  await ann.page.evaluate(() => void setTimeout(() => location.reload()));
  await (await asked).dismiss();
  await ann.context.setOffline(false);
  assert.equal(await settled(server.url, ann, ben), 'Ben meanwhile. Together. Ann alone\n');
});

test('edits made while the server is down are delivered exactly once', async () => {
  const { ann, ben } = await annAndBen('Base.');
  await server.down();
  await Promise.all([ann.status('offline'), ben.status('offline')]);
  await ann.goTo('end');
  await ann.type(' Ann.');
  await ben.goTo('beginning');
  await ben.type('Ben. ');
  await server.up();
  assert.equal(await settled(server.url, ann, ben), 'Ben. Base. Ann.\n');
});

test('an op whose answer was lost is committed once', async () => {
  const ann = await arrive('Ann Lee');
  let swallow = false;
  let swallowed = 0;
  await ann.page.routeWebSocket(/\/ws(\?|$)/, (socket) => {
    const upstream = socket.connectToServer();
    upstream.onMessage((message) => {
      const isOp = JSON.parse(String(message)).a === 'op';
      if (!swallow || !isOp) return socket.send(message);
      swallow = false;
      swallowed += 1;
      void upstream.close();
      void socket.close({ code: 1012 });
    });
  });
  await ann.begin();
  for (const word of ['one ', 'two ', 'three ']) {
    swallow = true;
    await ann.type(word);
    await ann.page.waitForFunction(() => document.querySelector('.status').dataset.status !== 'saved');
    await ann.saved();
  }
  assert.equal(swallowed, 3);
  assert.equal(await settled(server.url, ann), 'one two three \n');
});

test('a request that fails with a temporary error is repeated', async () => {
  const ann = await arrive('Ann Lee');
  let refusals = 0;
  await ann.page.routeWebSocket(/\/ws(\?|$)/, (socket) => {
    const upstream = socket.connectToServer();
    socket.onMessage((message) => {
      const parsed = JSON.parse(String(message));
      if (refusals >= 2 || parsed.a !== 'op' || parsed.create) return upstream.send(message);
      refusals += 1;
      socket.send(
        JSON.stringify({ ...parsed, error: { code: 'ERR_BUSY', message: 'The server restarts: come back' } }),
      );
    });
  });
  await ann.begin();
  await ann.type('still here');
  assert.equal(await settled(server.url, ann), 'still here\n');
  assert.equal(refusals, 2);
  assert.equal(await ann.page.getByRole('alert').count(), 0);
});

test('a pause that the server requests is kept, on the same socket', async () => {
  const ann = await arrive('Ann Lee');
  let sockets = 0;
  let refusals = 0;
  await ann.page.routeWebSocket(/\/ws(\?|$)/, (socket) => {
    sockets += 1;
    const upstream = socket.connectToServer();
    socket.onMessage((message) => {
      const parsed = JSON.parse(String(message));
      if (refusals >= 3 || parsed.a !== 'op' || parsed.create) return upstream.send(message);
      refusals += 1;
      socket.send(JSON.stringify({ a: 'slowed', code: 'ERR_BUSY', retryAfterMs: 2_000 }));
      socket.send(JSON.stringify({ ...parsed, error: { code: 'ERR_BUSY', message: 'Slow down', retryAfterMs: 100 } }));
    });
  });
  await ann.begin();
  const said = ann.page.locator('.status-shown', { hasText: 'Saving slowly' }).waitFor();
  await ann.type('not lost');
  await said;
  assert.equal(await settled(server.url, ann), 'not lost\n');
  assert.equal(refusals, 3);
  assert.equal(sockets, 1);
  assert.equal(await ann.page.getByRole('alert').count(), 0);
});

test('while the server cannot save edits, the page says so', async () => {
  const ann = await arrive('Ann Lee');
  const held = [];
  let isAway = false;
  await ann.page.routeWebSocket(/\/ws(\?|$)/, (socket) => {
    const upstream = socket.connectToServer();
    socket.onMessage((message) => {
      if (isAway && JSON.parse(String(message)).a === 'op') held.push(() => upstream.send(message));
      else upstream.send(message);
    });
  });
  const id = await ann.begin();
  isAway = true;
  await ann.text.focus();
  await ann.type('still');
  await ann.page.locator('.status-shown', { hasText: 'Not saving: 5 changes waiting' }).waitFor();
  isAway = false;
  for (const send of held) send();
  await ann.saved();
  assert.equal(textOf(await contentOf(server.url, id)), 'still\n');
});

test('a paste larger than a message is delivered, and so is its undo', async () => {
  const ann = await arrive('Ann Lee');
  const id = await ann.begin();
  const line = `${'A long line with some ünïcödé in it. '.repeat(160)}\n`;
  const text = line.repeat(400);
  assert.ok(Buffer.byteLength(text) > 2 << 20);
  await ann.text.focus();
  await ann.paste({ 'text/plain': text });
  await stored(server.url, id, `${text}\n`);
  await ann.press('Control+a');
  await ann.press('Delete');
  await stored(server.url, id, '\n');
  await ann.press('Control+z');
  await stored(server.url, id, `${text}\n`);
  await settled(server.url, ann);
});

test('a connection that does not answer is detected and replaced', async () => {
  const ann = await arrive('Ann Lee');
  let isDeaf = false;
  let lines = 0;
  await ann.page.clock.install();
  await ann.page.routeWebSocket(/\/ws(\?|$)/, (socket) => {
    lines += 1;
    const isThisDeaf = () => isDeaf && lines === 1;
    const upstream = socket.connectToServer();
    upstream.onMessage((message) => void (isThisDeaf() || socket.send(message)));
    socket.onMessage((message) => void (isThisDeaf() || upstream.send(message)));
  });
  const id = await ann.begin().catch((error) => assert.fail(error));
  lines = 1;
  isDeaf = true;
  await ann.text.focus();
  await ann.type('Is anybody there?');
  await ann.status('saving');
  await ann.page.clock.fastForward(11_000);
  await ann.page.clock.fastForward(11_000);
  await ann.page.clock.fastForward(11_000);
  await ann.saved();
  assert.equal(textOf(await contentOf(server.url, id)), 'Is anybody there?\n');
});

test('undo restores text that was deleted right after it was typed', async () => {
  const ann = await arrive('Ann Lee');
  const id = await ann.begin();
  await ann.text.focus();
  await ann.type('Kept by undo.');
  await ann.press('Control+a');
  await ann.press('Delete');
  await ann.press('Control+z');
  await stored(server.url, id, 'Kept by undo.\n');
  await ann.press('Control+z');
  await stored(server.url, id, '\n');
});

test('undo reverts only the edits of its own user', async () => {
  const { ann, ben } = await annAndBen();
  await ann.type('Ann wrote this. ');
  await ann.saved();
  await ben.sees('Ann wrote this.');
  await ben.goTo('end');
  await ben.type('Ben wrote that.');
  await ann.sees('Ben wrote that.');
  await ann.tool('Undo').click();
  assert.equal(await settled(server.url, ann, ben), 'Ben wrote that.\n');
  await ann.press('Control+Shift+Z');
  assert.equal(await settled(server.url, ann, ben), 'Ann wrote this. Ben wrote that.\n');
  await ben.press('Control+z');
  assert.equal(await settled(server.url, ann, ben), 'Ann wrote this. \n');
});

test('a title whose answer was lost does not replace a later one', async () => {
  const { ann, ben } = await annAndBen('Text');
  const id = new URL(ann.page.url()).pathname.split('/').pop();
  const titleOf = async () => (await (await fetch(`${server.url}/api/documents/documents/${id}`)).json()).title;
  // The first request is carried out and its answer is lost; the next waits until Ben has renamed the document.
  let renamed;
  const isRenamed = new Promise((resolve) => (renamed = resolve));
  let requests = 0;
  await ann.page.route('**/api/documents/**', async (route) => {
    if (route.request().method() !== 'PATCH') return route.continue();
    requests += 1;
    if (requests > 1) {
      await isRenamed;
      return route.continue();
    }
    await route.fetch();
    await route.abort();
  });
  await ann.title.fill('Plan of Ann');
  await ann.press('Enter');
  await ben.page.reload();
  await ben.page.waitForFunction(() => document.querySelector('.title-field').value === 'Plan of Ann');
  await ben.title.fill('Plan of Ben');
  await ben.press('Enter');
  await until(async () => (await titleOf()) === 'Plan of Ben', 'Ben has renamed the document');
  // Ann is at another title meanwhile: it stays in the field, and replaces Ben's, of which she has read.
  await ann.title.fill('Plan of both');
  renamed();
  const notice = ann.page.getByRole('alert').filter({ hasText: 'Plan of Ann' });
  await notice.waitFor();
  assert.match(await notice.innerText(), /renamed to “Plan of Ben”/);
  assert.equal(await titleOf(), 'Plan of Ben');
  assert.equal(await ann.title.inputValue(), 'Plan of both');
  await ann.press('Enter');
  await until(async () => (await titleOf()) === 'Plan of both', 'Ann has renamed the document');
  assert.ok(requests >= 3);
});

test('a rename is shown on every page', async () => {
  const { ann, ben } = await annAndBen('Text');
  await ann.title.fill('Plan for the harbour');
  await ann.press('Enter');
  await ben.page.waitForFunction(() => document.querySelector('.title-field').value === 'Plan for the harbour');
  assert.equal(await ben.page.title(), 'Plan for the harbour · Copydesk');
  await ben.title.fill('Something else');
  await ben.press('Escape');
  assert.equal(await ben.title.inputValue(), 'Plan for the harbour');
  await ben.title.fill('Harbour plan');
  await ben.title.blur();
  await ann.page.waitForFunction(() => document.querySelector('.title-field').value === 'Harbour plan');
  assert.equal(await settled(server.url, ann, ben), 'Text\n');
});

test('cursors of other users are shown with their names until they leave', async () => {
  const { ann, ben } = await annAndBen('Some words to stand between.');
  await ben.goTo('end');
  const flag = ann.page.locator('.ql-cursor-flag');
  // The name is shown for a short time only.
  const shown = flag.filter({ hasText: 'Quiet Otter' }).waitFor({ state: 'visible' });
  await ben.type(' More.');
  await shown;
  const portrait = ann.page.getByRole('button', { name: /^Quiet Otter/ });
  await portrait.waitFor();

  await ben.page.getByRole('button', { name: /^You are Quiet Otter/ }).click();
  await ben.page.getByLabel('Your name, as others see it').fill('Ben Okri');
  await ben.press('Enter');
  await ann.page.getByRole('button', { name: /^Ben Okri/ }).waitFor();
  await flag.filter({ hasText: 'Ben Okri' }).waitFor({ state: 'attached' });
  await ben.page.close();
  await ann.page.getByRole('button', { name: /^Ben Okri/ }).waitFor({ state: 'detached' });
  await ann.page.locator('.ql-cursor').waitFor({ state: 'detached' });
});

test('two hundred cursors need no layout each, and those out of view are not drawn', async () => {
  const ann = await arrive('Ann Lee');
  const id = await ann.begin();
  const lines = Array.from({ length: 400 }, (_, n) => `Line ${n} of a document that many people read.\n`);
  await ann.paste({ 'text/plain': lines.join('') });
  await ann.saved();
  const others = await plainClient(server.url, id);
  const presence = others.doc.connection.getDocPresence('documents', id);
  const length = lines[0].length;
  const put = (n, index) =>
    new Promise((resolve) =>
      presence.create(`peer-${n}`).submit({ index, length: n % 3, active: true, name: `Peer ${n}` }, resolve),
    );
  await Promise.all(Array.from({ length: 200 }, (_, n) => put(n, 2 * n * length)));
  await ann.page.locator('.avatar.rest', { hasText: '+195' }).waitFor();
  await ann.goTo('beginning');
  await ann.type('warm ');
  await ann.saved();
  const drawn = await ann.page.locator('.ql-cursor').count();
  assert.ok(drawn > 3 && drawn < 60, `${drawn} cursors are drawn`);

  const session = await ann.context.newCDPSession(ann.page);
  await session.send('Performance.enable');
  const metrics = async () => {
    const { metrics: all } = await session.send('Performance.getMetrics');
    return Object.fromEntries(all.map(({ name, value }) => [name, value]));
  };
  const before = await metrics();
  const letters = 20;
  for (let n = 0; n < letters; n += 1) {
    await ann.type('x');
    await ann.page.evaluate(
      () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))),
    );
  }
  const after = await metrics();
  const per = (name) => (after[name] - before[name]) / letters;
  if (process.env.MEASURE)
    console.log(
      `a letter: ${per('TaskDuration') * 1000} ms, ${per('ScriptDuration') * 1000} ms of script, ${per('LayoutCount')} layouts`,
    );
  assert.ok(per('LayoutCount') < 20, `${per('LayoutCount')} layouts a letter`);

  // Another part of the text has other cursors.
  await ann.goTo('end');
  await ann.page
    .locator('.ql-cursor', { hasText: /^Peer 19\d$/ })
    .first()
    .waitFor({ state: 'attached' });
  assert.equal(await ann.page.locator('.ql-cursor', { hasText: /^Peer 0$/ }).count(), 0);
  others.close();
  await ann.page.locator('.ql-cursor').first().waitFor({ state: 'detached' });
});

test('every button of the toolbar applies its format', async () => {
  const { ann, ben, id } = await annAndBen('words');
  const inline = [
    ['Bold', 'bold', true],
    ['Italic', 'italic', true],
    ['Underline', 'underline', true],
    ['Strikethrough', 'strike', true],
    ['Inline code', 'code', true],
  ];
  const block = [
    ['Bulleted list', 'list', 'bullet'],
    ['Numbered list', 'list', 'ordered'],
    ['Checklist', 'list', 'unchecked'],
    ['Quote', 'blockquote', true],
    ['Code block', 'code-block', true],
    ['Align centre', 'align', 'center'],
    ['Align right', 'align', 'right'],
    ['Justify', 'align', 'justify'],
  ];
  const attributes = async () => {
    await settled(server.url, ann, ben);
    const [text, newline] = await contentOf(server.url, id);
    return { ...text.attributes, ...newline?.attributes };
  };
  await ann.text.focus();
  await ann.press('Control+a');
  for (const [label, name, value] of [...inline, ...block]) {
    await ann.tool(label).click();
    await ann.page.waitForSelector(`.tool[aria-label="${label}"][aria-pressed="true"]`);
    assert.deepEqual(await attributes(), { [name]: value }, label);
    await (name === 'align' ? ann.tool('Align left') : ann.tool(label)).click();
    await ann.page.waitForSelector(`.tool[aria-label="${label}"][aria-pressed="false"]`);
    assert.deepEqual(await attributes(), {}, `${label} again`);
  }
  await ann.tool('Text colour').click();
  await ann.page.getByRole('button', { name: 'Red', exact: true }).click();
  await ann.tool('Highlight').click();
  await ann.page.getByRole('button', { name: 'Yellow', exact: true }).click();
  assert.deepEqual(await attributes(), { color: '#c5221f', background: '#fff2a8' });
  await ann.page.getByLabel('Paragraph style').selectOption('Heading 2');
  assert.deepEqual(await attributes(), { color: '#c5221f', background: '#fff2a8', header: 2 });
  await ann.tool('Clear formatting').click();
  assert.deepEqual(await attributes(), {});

  for (const level of [1, 2, 3]) {
    await ann.press(`Control+Alt+${level}`);
    assert.deepEqual(await attributes(), { header: level });
  }
  await ann.press('Control+Alt+0');
  assert.deepEqual(await attributes(), {});
  await ann.press('Control+b');
  assert.deepEqual(await attributes(), { bold: true });
});

test('unsafe addresses of links and pictures are rejected', async () => {
  const { ann, ben, id } = await annAndBen('look here');
  await ann.text.focus();
  await ann.press('Control+a');
  await ann.press('Control+k');
  const address = ann.page.getByLabel('Address', { exact: true });
  await address.fill('javascript:alert(1)');
  await ann.press('Enter');
  await ann.page.getByText('Only http, https and mailto addresses can be links.').waitFor();
  await address.fill('example.org/page');
  await ann.press('Enter');
  await ben.page.waitForSelector('.ql-editor a[href="https://example.org/page"][rel="noopener noreferrer"]');

  await ann.goTo('end');
  await ann.tool('Picture').click();
  await ann.page.getByLabel('Address of the picture').fill('http://example.org/a.png');
  await ann.press('Enter');
  await ann.page.getByText('The address must start with https://.').waitFor();
  await ann.page
    .getByLabel('Address of the picture')
    .fill(
      'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==',
    );
  await ann.page.getByLabel('What it shows').fill('A dot');
  await ann.press('Enter');
  await ben.page.waitForSelector('.ql-editor img[alt="A dot"]');
  const ops = await contentOf(server.url, id);
  assert.ok(ops.some(({ insert, attributes }) => insert.image && attributes.alt === 'A dot'));
});

test('content of a hostile client is not executed', async () => {
  const hostile = [
    { insert: 'click', attributes: { link: 'javascript:globalThis.owned=1', color: 'red;background:url(//evil)' } },
    { insert: { image: 'javascript:globalThis.owned=1' } },
    { insert: { image: 'http://evil.example/x.png' } },
    { insert: { image: 'data:image/svg+xml;base64,PHN2Zy8+' } },
    { insert: { video: 'javascript:globalThis.owned=1' } },
    { insert: { formula: '<img src=x onerror=globalThis.owned=1>' } },
    { insert: { opaque: '<script>globalThis.owned=1</script>' } },
    { insert: { image: 'https://ok.example/a.png', html: '<b>' } },
    { insert: { __proto__x: 1 } },
    { insert: ' <img src=x onerror=globalThis.owned=1>\r\n' },
    { insert: '\n', attributes: { header: '<x>', list: 'javascript', onclick: 'globalThis.owned=1' } },
  ];
  const { ann, id } = await annAndBen();

  // Sent through the server, which may reject some of it ..
  const client = await plainClient(server.url, id);
  for (const component of hostile) await client.submit([component]);
  client.close();
  // .. and around it, as a snapshot and as an op.
  const eve = await arrive('Eve');
  await eve.page.routeWebSocket(/\/ws(\?|$)/, (socket) => {
    const upstream = socket.connectToServer();
    upstream.onMessage((message) => {
      const parsed = JSON.parse(String(message));
      if (parsed.a === 's' && parsed.data) parsed.data.data = { ops: [...hostile, { insert: 'end\n' }] };
      if (parsed.a === 'op') parsed.op = { ops: hostile };
      socket.send(JSON.stringify(parsed));
    });
  });
  await eve.page.goto(`${server.url}/d/${id}`);
  await eve.sees('end');
  await ann.goTo('beginning');
  await ann.type('x');
  await eve.page.waitForFunction(() => document.querySelectorAll('.opaque').length >= 10);

  for (const { page } of [ann, eve]) {
    const live = await page.evaluate(() => ({
      owned: globalThis.owned,
      links: [...document.querySelectorAll('.ql-editor a')].filter((a) => !/^(https?|mailto):/.test(a.href)).length,
      images: [...document.querySelectorAll('.ql-editor img')].filter(
        (img) => !/^(https|data:image\/(png|jpeg|gif|webp)):?/.test(img.src),
      ).length,
      others: document.querySelectorAll('.ql-editor :is(script, iframe, object, embed, svg, math)').length,
      handlers: document.querySelectorAll('.ql-editor :is([onerror], [onclick])').length,
    }));
    assert.deepEqual(live, { owned: undefined, links: 0, images: 0, others: 0, handlers: 0 });
  }
  const copied = await eve.page.evaluate(() => {
    const clipboardData = new DataTransfer();
    const root = document.querySelector('.ql-editor');
    root.focus();
    getSelection().selectAllChildren(root);
    root.dispatchEvent(new ClipboardEvent('copy', { clipboardData, bubbles: true, cancelable: true }));
    return clipboardData.getData('text/html');
  });
  assert.match(copied, /&lt;img src=x/);
  assert.doesNotMatch(copied, /javascript:|<img src="?x|<script|<iframe/);
});

test('pasted HTML keeps its text and only supported formats', async () => {
  const { ann, ben, id } = await annAndBen();
  await ann.text.focus();
  await ann.paste({
    'text/html': `<p onclick="x()">A <b>bold</b> <a href="javascript:x()">trap</a> <img src="http://evil.example/a.png"><img src="data:image/png;base64,${'A'.repeat(400_000)}"><iframe src="https://evil.example"></iframe><script>x()</script>end</p>`,
  });
  await ann.page.getByText('Pictures over 256 kB are not kept in the text.').waitFor();
  await ben.sees('end');
  await settled(server.url, ann, ben);
  const ops = await contentOf(server.url, id);
  assert.deepEqual(
    ops.filter(({ insert }) => typeof insert !== 'string'),
    [],
  );
  assert.deepEqual(
    ops.filter(({ attributes }) => attributes),
    [{ insert: 'bold', attributes: { bold: true } }],
  );
  // The browser reports the handler in the pasted HTML while parsing it; a handler that ran would have thrown.
  ann.faults = ann.faults.filter((fault) => !fault.startsWith('Executing inline event handler'));
});

test('a rejected change is reported, and its text can be copied', async () => {
  const ann = await arrive('Ann Lee', { permissions: ['clipboard-read', 'clipboard-write'] });
  await ann.page.routeWebSocket(/\/ws(\?|$)/, (socket) => {
    const upstream = socket.connectToServer();
    socket.onMessage((message) => {
      const parsed = JSON.parse(String(message));
      if (parsed.a !== 'op' || !JSON.stringify(parsed).includes('forbidden')) return upstream.send(message);
      socket.send(JSON.stringify({ ...parsed, error: { code: 'ERR_OT_OP_NOT_APPLIED', message: 'Too long.' } }));
    });
  });
  await ann.begin();
  await ann.type('kept ');
  await ann.saved();
  await ann.page.keyboard.insertText('forbidden words');
  await ann.page.getByRole('alert').waitFor();
  await ann.saved();
  assert.equal(await settled(server.url, ann), 'kept \n');
  await ann.page.getByRole('button', { name: 'Copy lost text' }).click();
  await ann.page.getByRole('button', { name: 'Copied' }).waitFor();
  assert.equal(await ann.page.evaluate(() => navigator.clipboard.readText()), 'forbidden words');
  await ann.goTo('end');
  await ann.type('and on');
  assert.equal(await settled(server.url, ann), 'kept and on\n');
});

test('one rejected op is undone alone, and later edits are kept', async () => {
  const ann = await arrive('Ann Lee');
  const ben = await arrive('Quiet Otter');
  let refuse = () => {};
  const isSent = new Promise((sent) => {
    void ann.page.routeWebSocket(/\/ws(\?|$)/, (socket) => {
      const upstream = socket.connectToServer();
      socket.onMessage((message) => {
        const parsed = JSON.parse(String(message));
        if (parsed.a !== 'op' || !/forbidden/.test(JSON.stringify(parsed))) return upstream.send(message);
        refuse = () =>
          socket.send(JSON.stringify({ ...parsed, error: { code: 'ERR_OT_OP_NOT_APPLIED', message: 'Too long.' } }));
        sent();
      });
    });
  });
  const id = await ann.begin();
  await ann.type('kept two');
  await ann.saved();
  await ben.open(id);
  await ann.goTo('beginning');
  // Replaces a word: the rejected op deletes and inserts.
  await ann.press('Control+Shift+ArrowRight');
  await ann.page.keyboard.insertText('forbidden words ');
  await isSent;
  // Later edits: text within the rejected text, formats over it, text before and after it.
  await ann.press('ArrowLeft');
  await ann.type('[inside]');
  await ann.goTo('end');
  await ann.type(' [after]');
  await ann.press('Shift+Home');
  await ann.press('Control+b');
  await ann.goTo('beginning');
  // Quill treats text typed at once as a replacement of the earlier selection.
  await ann.page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  await ann.type('[before] ');
  await ben.goTo('end');
  await ben.type(' [Ben]');
  await ben.saved();
  await ann.sees('[Ben]');
  refuse();
  await ann.page.getByRole('alert').getByText('only that change was undone').waitFor();
  assert.equal(await settled(server.url, ann, ben), 'kept[before] [inside] two [Ben] [after]\n');
  assert.ok((await contentOf(server.url, id)).some(({ insert, attributes }) => /two/.test(insert) && attributes?.bold));
  // Undo still covers the later edits.
  await ann.press('Control+z');
  await ann.page.waitForFunction(() => !document.querySelector('.ql-editor').textContent.includes('[before]'));
  await settled(server.url, ann, ben);
});

test('an address without a document offers to create one', async () => {
  const ann = await arrive('Ann Lee');
  await ann.page.goto(`${server.url}/d/nothingHereYet0123456789`);
  await ann.page.getByRole('heading', { name: 'There is no document here yet' }).waitFor();
  await ann.isAccessible();
  await ann.page.getByRole('button', { name: 'Start writing here' }).click();
  await ann.saved();
  await ann.text.focus();
  await ann.type('Now there is.');
  assert.equal(await settled(server.url, ann), 'Now there is.\n');
});

test('all functions can be used with the keyboard', async () => {
  const ann = await arrive('Ann Lee');
  await ann.list();
  const focusOn = async (name) => {
    for (let presses = 0; presses < 20; presses += 1) {
      const label = await ann.page.evaluate(
        () => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent,
      );
      if (label === name) return;
      await ann.press('Tab');
    }
    assert.fail(`Tab never reaches ${name}`);
  };
  await focusOn('New document');
  await ann.press('Enter');
  await ann.saved();
  await ann.press('Alt+F10');
  await ann.press('Shift+Tab');
  await ann.press('Shift+Tab');
  await ann.type('By keyboard');
  await ann.press('Enter');
  await ann.type('plain ');
  await ann.press('Alt+F10');
  await ann.press('Home');
  for (let presses = 0; presses < 3; presses += 1) await ann.press('ArrowRight');
  assert.equal(await ann.page.evaluate(() => document.activeElement.getAttribute('aria-label')), 'Bold');
  await ann.press('Enter');
  await ann.type('bold');
  assert.equal(await settled(server.url, ann), 'plain bold\n');
  assert.deepEqual((await contentOf(server.url, ann.id))[1], { insert: 'bold', attributes: { bold: true } });
  await ann.press('Alt+F10');
  await ann.press('Shift+Tab');
  await ann.press('Shift+Tab');
  await ann.press('Shift+Tab');
  await ann.press('Enter');
  await ann.page.getByRole('link', { name: /By keyboard/ }).waitFor();
  await focusOn('Rename By keyboard');
  await ann.press('Enter');
  await ann.type('By keys alone');
  await ann.press('Enter');
  await ann.page.getByRole('link', { name: /By keys alone/ }).waitFor();
  await focusOn('Rename By keys alone');
});

test('the list searches, renames and opens documents', async () => {
  const { ann, ben } = await annAndBen('A letter.');
  await ann.title.fill('Letter to the lighthouse');
  await ann.press('Enter');
  await ann.saved();
  await ben.list();
  await ben.page.getByLabel('Search documents').fill('lighthouse');
  await ben.page.waitForFunction(() => document.querySelectorAll('.row').length === 1);
  assert.match(await ben.page.locator('.row').innerText(), /Letter to the lighthouse\s+edited just now/);
  await ben.page.getByRole('button', { name: 'Rename Letter to the lighthouse' }).click();
  await ben.page.getByLabel('New title of').fill('Letter to the keeper');
  await ben.press('Enter');
  await ben.page.getByRole('link', { name: /Letter to the keeper/ }).click();
  await ben.saved();
  await ben.sees('A letter.');
  assert.equal(await ben.title.inputValue(), 'Letter to the keeper');
});

test('a long list is loaded page by page', async () => {
  await keepDocuments(
    Array.from({ length: 51 }, (_, index) => `Page ${index}`),
    'pagedDocument00000',
  );
  const ann = await arrive('Ann Lee');
  await ann.list();
  const rows = ann.page.locator('.row a');
  assert.equal(await rows.count(), 50);
  const more = ann.page.getByRole('button', { name: 'Show more' });
  while (await more.isVisible()) {
    const before = await rows.count();
    await more.click();
    await ann.page.waitForFunction((count) => document.querySelectorAll('.row').length > count, before);
  }
  const addresses = await rows.evaluateAll((links) => links.map(({ href }) => href));
  assert.equal(new Set(addresses).size, addresses.length);
  assert.equal(addresses.filter((address) => address.includes('/pagedDocument')).length, 51);

  await server.down();
  await ann.page.getByLabel('Search documents').fill('page 50');
  await ann.page.getByText('The server cannot be reached.').waitFor();
  await server.up();
  await ann.page.getByRole('button', { name: 'Try again' }).click();
  await ann.page.waitForFunction(() => document.querySelectorAll('.row').length === 1);
  assert.equal(await ann.page.getByRole('alert').count(), 0);
});

const LETTER = [
  ['h1', 'The harbour in winter'],
  ['p', 'Notes for the spring issue. Everybody writes here, at the same time, and nobody waits for anybody.'],
  ['h2', 'What we know'],
  ['ul', 'The ferry stops on the last day of October'],
  ['ul', 'Two of the three cranes are being repaired'],
  ['ul', 'The pilots have moved to the old customs house'],
  ['q', '“The sea does not read our timetable.” – the harbour master'],
  ['h2', 'Before we print'],
  ['done', 'Ask the pilots for the tide tables'],
  ['todo', 'Find a photograph of the ice'],
];

async function writeLetter(writer) {
  const { page } = writer;
  const styles = {
    h1: 'Control+Alt+1',
    h2: 'Control+Alt+2',
    ul: 'Control+Shift+8',
    q: 'Control+Alt+q',
    todo: 'Control+Shift+9',
    done: 'Control+Shift+9',
  };
  let before = 'p';
  for (const [index, [kind, text]] of LETTER.entries()) {
    if (index > 0) await writer.press('Enter');
    const goesOn = kind === before || (before === 'done' && kind === 'todo');
    if (!goesOn && ['ul', 'q'].includes(before)) await writer.press(styles[before]);
    if (!goesOn && styles[kind]) await writer.press(styles[kind]);
    await page.keyboard.insertText(text);
    before = kind;
  }
  await page
    .locator('li[data-list="unchecked"]')
    .first()
    .click({ position: { x: 12, y: 13 } });
  await page.waitForSelector('li[data-list="checked"]');
}

/** Documents with these titles, the last one newest. */
async function keepDocuments(titles, prefix) {
  for (const [index, title] of titles.entries()) {
    const id = `${prefix}${index}`;
    const { doc, close } = await plainClient(server.url, id);
    await new Promise((resolve, reject) => {
      doc.create([{ insert: `${title}\n` }], 'http://sharejs.org/types/rich-text/v1', (error) =>
        error ? reject(error) : resolve(),
      );
    });
    close();
    const answer = await fetch(`${server.url}/api/documents/documents/${id}`, {
      method: 'PATCH',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ title }),
    });
    assert.equal(answer.status, 200);
    assert.equal((await answer.json()).title, title);
  }
}

test('the editor is laid out correctly on a desktop, on a phone and in dark mode', async () => {
  await keepDocuments(
    [
      "Recipes from the ferry's galley",
      "Minutes of the pilots' meeting",
      'Letter to the lighthouse keeper',
      "Words for the crane's last day",
      'Spring issue: who writes what',
    ],
    'sampleDocument0000000',
  );
  const { ann, ben, id } = await annAndBen();
  await writeLetter(ann);
  await ann.title.fill('The harbour in winter');
  await ann.press('Enter');
  await ann.saved();
  const cleo = await arrive('Cleo Marsh');
  await cleo.open(id);
  await cleo.page.getByText('Find a photograph of the ice').click();
  await cleo.press('End');
  await ben.page.getByText('Two of the three cranes').click();
  await ben.press('End');
  await ben.press('Shift+Home');
  await ann.page.getByText('Notes for the spring issue').click();
  for (const name of ['Cleo Marsh', 'Quiet Otter']) {
    const flag = ann.page.locator('.ql-cursor', { hasText: name });
    await flag.locator('.ql-cursor-caret').waitFor({ state: 'attached' });
    await ann.page.evaluate((each) => {
      const cursor = [...document.querySelectorAll('.ql-cursor')].find(({ textContent }) => textContent.includes(each));
      cursor.classList.add('pointed');
    }, name);
  }
  await ann.page.evaluate(() => scrollTo(0, 0));
  await ann.shot('editor');
  await ann.isAccessible();
  await ann.page.emulateMedia({ colorScheme: 'dark' });
  await ann.shot('editor-dark');
  await ann.isAccessible();
  await ann.list();
  await ann.shot('list-dark');
  await ann.page.emulateMedia({ colorScheme: 'light' });
  await ann.isAccessible();
  await ann.shot('list');

  const dora = await arrive('Dora Finn', {
    viewport: { width: 390, height: 844 },
    hasTouch: true,
    isMobile: true,
    deviceScaleFactor: 2,
  });
  for (const [name, go] of [
    ['phone-list', () => dora.list()],
    ['phone-editor', () => dora.open(id)],
  ]) {
    await go();
    const { width, small } = await dora.page.evaluate(() => ({
      width: document.scrollingElement.scrollWidth,
      small: [...document.querySelectorAll('button, select, a.row-text, a.brand')]
        .filter((each) => each.checkVisibility())
        .map((each) => ({ name: each.ariaLabel ?? each.textContent, box: each.getBoundingClientRect() }))
        .filter(({ box }) => box.width < 44 || box.height < 44)
        .map(({ name: label }) => label),
    }));
    assert.equal(width, 390, `${name} does not scroll sideways`);
    assert.deepEqual(small, [], `${name} has no small targets`);
    await dora.isAccessible();
    await dora.shot(name);
  }
  await dora.text.tap();
  await dora.goTo('end');
  await dora.type(' Sent from a phone.');
  await settled(server.url, ben, dora);
});
