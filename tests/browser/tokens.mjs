// Tests of users who sign in with a token of another application: `COPYDESK_BIN=.. node --test tokens.mjs`.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, test } from 'node:test';
import { Server } from './server.mjs';
import { openBrowser, Writer } from './writers.mjs';

const SECRET = 'a secret that the application shares with us';

let server;
let browser;

before(async () => {
  const env = { COPYDESK__AUTH__MODE: 'tokens', COPYDESK__AUTH__TOKEN_SECRET: SECRET };
  [server, browser] = await Promise.all([Server.start({ open: false, env }), openBrowser()]);
});

after(async () => {
  await browser?.close();
  await server?.end();
});

function sign(claims, seconds = 600) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${part({ alg: 'HS256' })}.${part({ exp: Math.floor(Date.now() / 1000) + seconds, ...claims })}`;
  return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`;
}

/** Opens a document of the collection by a chosen id; creates it if it does not exist. */
async function open(writer, path) {
  await writer.page.goto(server.url + path);
  await writer.page.locator('.ql-editor[contenteditable="true"]').click();
}

const arrive = (name) => Writer.arrive(browser, server.url, name);

test('a token in the address signs in and is removed from the address', async () => {
  const ann = await arrive('Ann Lee');
  await ann.page.goto(`${server.url}/#token=${sign({ sub: '1', name: 'Ann Lee' })}`);
  await ann.page.waitForSelector('#app[data-list="ready"]');
  assert.equal(new URL(ann.page.url()).hash, '');
  assert.doesNotMatch(
    await ann.page.evaluate(() => document.cookie + JSON.stringify({ ...localStorage, ...sessionStorage })),
    /eyJ/,
  );
  await ann.leave();
});

test('an invalid token does not sign in', async () => {
  const eve = await arrive('Eve');
  await eve.page.goto(`${server.url}/#token=${sign({ sub: '1' }, -600)}`);
  await eve.page.getByRole('heading', { name: 'Sign in elsewhere' }).waitFor();
  assert.equal(new URL(eve.page.url()).hash, '');
  await eve.leave();
});

test('a document is shared with a user of the application by the id', async () => {
  const ann = await arrive('Ann Lee');
  await open(ann, `/d/shared?new#token=${sign({ sub: '1', name: 'Ann Lee' })}`);
  await ann.page.getByRole('button', { name: 'Share' }).click();
  const dialog = ann.page.getByRole('dialog', { name: 'Share this document' });
  await dialog.getByLabel('Their id in your application').fill('7');
  await dialog.getByRole('button', { name: 'Add', exact: true }).click();
  await dialog.getByLabel(/^Role of (home:)?7$/).waitFor();
  await ann.page.setViewportSize({ width: 375, height: 720 });
  await ann.shot('share-phone');
  await ann.isAccessible();
  await ann.leave();
  const ben = await arrive('Ben Ray');
  await open(ben, `/d/shared#token=${sign({ sub: '7', name: 'Ben Ray' })}`);
  await ben.leave();
});

test("a link with a token does not replace another user's session without confirmation", async () => {
  const ann = await arrive('Ann Lee');
  const token = (sub, name) => `#token=${sign({ sub, name })}`;
  await open(ann, `/d/mine?new${token('1', 'Ann Lee')}`);
  const names = () =>
    ann.page.evaluate(() =>
      fetch('/api/me')
        .then((answer) => answer.json())
        .then(({ user }) => user.name),
    );
  // Also in the tab of an open document, where only the fragment of the address changes.
  for (const choice of ['Stay signed in as Ann Lee', 'Sign in as Eve']) {
    await ann.page.evaluate((hash) => (location.hash = hash), token('2', 'Eve'));
    await ann.page.getByRole('heading', { name: 'You are signed in as Ann Lee' }).waitFor();
    assert.equal(new URL(ann.page.url()).hash, '');
    assert.equal(await names(), 'Ann Lee');
    await ann.isAccessible();
    await ann.shot('another-session');
    await ann.page.getByRole('button', { name: choice }).click();
    await ann.page.waitForSelector('#app[data-document]');
    assert.equal(await names(), choice.endsWith('Eve') ? 'Eve' : 'Ann Lee');
  }
  // The next token of the same user needs no confirmation.
  await ann.page.goto(`${server.url}/d/mine?again${token('2', 'Eve, renamed')}`);
  await ann.page.waitForSelector('#app[data-document]');
  assert.equal(await names(), 'Eve, renamed');
  await ann.leave();
});

test('a link opens a document of any collection', async () => {
  const ann = await arrive('Ann Lee');
  const headers = { authorization: `Bearer ${sign({ sub: '1', tenant: 'acme' })}`, 'content-type': 'application/json' };
  await open(ann, `/d/plan?in=acme:notes&new#token=${sign({ sub: '1', name: 'Ann', tenant: 'acme' })}`);
  await ann.type('The plan');
  await ann.saved();
  const made = await fetch(`${server.url}/api/documents/acme:notes/plan/links`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ role: 'viewer' }),
  });
  const { secret } = await made.json();
  const guest = await arrive('Guest');
  await guest.page.goto(`${server.url}/d/plan#share=${secret}`);
  await guest.page.getByText('The plan').waitFor();
  await ann.leave();
  await guest.leave();
});

test('when the token expires, the page says so', async () => {
  const ann = await arrive('Ann Lee');
  await open(ann, `/d/last?new#token=${sign({ sub: '1', name: 'Ann Lee' }, 15)}`);
  await ann.type('Kept');
  await ann.saved();
  await ann.page.getByText('You are signed out.').waitFor();
  await ann.leave();
});

test('unsent edits are not sent for another user of the same browser', async () => {
  const ann = await arrive('Ann Lee');
  let isCut = false;
  await ann.context.routeWebSocket(/\/ws(\?|$)/, (socket) => {
    const upstream = socket.connectToServer();
    socket.onMessage((message) => void (isCut && JSON.parse(String(message)).a === 'op' ? 0 : upstream.send(message)));
  });
  ann.page.on('dialog', (dialog) => dialog.accept());
  const open = async (sub) => {
    // From another path, so that the page is loaded again and reads the token.
    await ann.page.goto(`${server.url}/healthz`);
    await ann.context.clearCookies();
    await ann.page.goto(`${server.url}/d/shared?new#token=${sign({ sub, name: `User ${sub}`, role: 'owner' })}`);
    await ann.saved();
  };
  await open('1');
  await ann.page.locator('.ql-editor[contenteditable="true"]').click();
  isCut = true;
  await ann.type("Ann's words");
  await ann.page.waitForFunction(() => document.querySelector('.status').dataset.status !== 'saved');
  await open('2');
  isCut = false;
  await ann.page.reload();
  await ann.saved();
  assert.equal(await ann.text.innerText(), '\n');
  assert.equal(await ann.page.getByRole('alert').count(), 0);
  await open('1');
  await ann.sees("Ann's words");
  await ann.leave();
});
