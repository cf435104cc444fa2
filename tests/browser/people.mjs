// Tests of pages with accounts: `COPYDESK_BIN=.. node --test people.mjs`. They depend on each other, in order.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { Server } from './server.mjs';
import { openBrowser, Writer } from './writers.mjs';

const PASSWORD = 'a password of some length';

let server;
let browser;
let ann;
let ben;
/** Ann's document, and its address with the invitation. */
let id;
let sharedAddress;

before(async () => {
  await mkdir(new URL('shots/', import.meta.url), { recursive: true });
  [server, browser] = await Promise.all([Server.start({ open: false }), openBrowser()]);
});

after(async () => {
  for (const writer of [ann, ben]) await writer?.leave();
  await browser?.close();
  await server?.end();
});

const arrive = (name, options) => Writer.arrive(browser, server.url, name, options);
const heading = (writer, name) => writer.page.getByRole('heading', { name }).waitFor();

async function makeAccount(writer, login) {
  await writer.page.getByLabel('Your name').fill(writer.name);
  await writer.page.getByLabel('Name to sign in by').fill(login);
  await writer.page.getByLabel('Password').fill(PASSWORD);
  await writer.page.getByRole('button', { name: 'Make the account' }).click();
  await writer.page.waitForSelector('#app[data-list="ready"]');
}

async function account(writer) {
  await writer.page.getByRole('button', { name: `You are ${writer.name}` }).click();
  return writer.page.getByRole('dialog', { name: 'Your account' });
}

async function share(writer) {
  await writer.page.getByRole('button', { name: 'Share' }).click();
  const dialog = writer.page.getByRole('dialog', { name: 'Share this document' });
  await dialog.getByRole('list', { name: 'People' }).getByText('owner', { exact: true }).waitFor();
  return dialog;
}

test('the first visitor creates the first account', async () => {
  ann = await arrive('Ann Lee');
  await ann.page.goto(server.url);
  await heading(ann, 'Welcome: make the first account');
  await ann.isAccessible();
  await ann.shot('setup');
  await ann.page.getByLabel('Your name').fill('Ann Lee');
  await ann.page.getByLabel('Name to sign in by').fill('ann@example.org');
  await ann.page.getByLabel('Password').fill(PASSWORD);
  // With the keyboard only.
  await ann.press('Enter');
  await ann.page.waitForSelector('#app[data-list="ready"]');
  assert.equal(await ann.page.getByText('Open mode').count(), 0);
  id = await ann.begin();
  await ann.text.focus();
  await ann.type("Ann's secret plan");
  await ann.saved();
});

test('scripts of the page cannot read cookies or tokens', async () => {
  const seen = await ann.page.evaluate(
    () => document.cookie + JSON.stringify({ ...localStorage, ...sessionStorage }) + location.href,
  );
  assert.doesNotMatch(seen, /access|refresh|session|token/i);
});

test('others must sign in, and a failed sign-in does not reveal whether the account exists', async () => {
  const eve = await arrive('Eve');
  await eve.page.goto(`${server.url}/d/${id}`);
  await heading(eve, 'Sign in');
  await eve.isAccessible();
  await eve.page.getByLabel('Name to sign in by').fill('ann@example.org');
  await eve.page.getByLabel('Password').fill('a guess at it');
  await eve.page.getByRole('button', { name: 'Sign in' }).click();
  await eve.page.getByRole('alert').filter({ hasText: 'The name or the password is not right.' }).waitFor();
  assert.ok(!(await eve.page.content()).includes('secret plan'));
  await eve.leave();
});

test('an invited user creates an account', async () => {
  const panel = await account(ann);
  await panel.getByRole('button', { name: 'Invite somebody' }).click();
  const field = panel.getByLabel('Send this address');
  await field.waitFor();
  await ann.isAccessible();
  await ann.shot('account');
  ben = await arrive('Ben Ray', { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true });
  await ben.page.goto(await field.inputValue());
  await makeAccount(ben, 'ben@example.org');
  await ann.press('Escape');
  // Ann's documents are not listed for Ben.
  await heading(ben, 'A clean desk');
  // The address of a document alone gives no access.
  await ben.page.getByText('press “Share” in it').waitFor();
  assert.equal(await ben.page.getByText('send its address').count(), 0);
  await ben.page.goto(`${server.url}/d/${id}`);
  await heading(ben, 'There is no document here for you');
});

test('access is granted and revoked only after a confirmation, and the account dialog fits the window', async () => {
  const dialog = await share(ann);
  await dialog.getByLabel('Name they sign in by').fill('ben@example.org');
  await dialog.getByRole('button', { name: 'Add', exact: true }).click();
  const role = dialog.getByLabel('Role of Ben Ray');
  await role.waitFor();
  // Comments do not exist yet; keys and the wheel change only these two roles.
  assert.deepEqual(await role.locator('option').allTextContents(), ['may read', 'may edit']);
  assert.deepEqual(await dialog.getByLabel('Who has the link').locator('option').allTextContents(), [
    'may read',
    'may edit',
  ]);
  for (const [button, title] of [
    ['Make owner: Ben Ray', 'Give this document to Ben Ray?'],
    ['Remove Ben Ray', 'Remove Ben Ray?'],
  ]) {
    await dialog.getByRole('button', { name: button }).focus();
    await ann.press('Enter');
    const question = ann.page.getByRole('alertdialog', { name: title });
    await question.waitFor();
    await ann.isAccessible();
    await ann.shot(`question-${title.split(' ')[0].toLowerCase()}`);
    // The first button cancels, as Escape does.
    await ann.press(title.startsWith('Give') ? 'Enter' : 'Escape');
    await question.waitFor({ state: 'detached' });
    assert.ok(await dialog.isVisible(), 'the question goes and the dialog stays');
  }
  await dialog.getByRole('button', { name: 'Remove Ben Ray' }).click();
  await ann.page.getByRole('alertdialog').getByRole('button', { name: 'Remove' }).click();
  await role.waitFor({ state: 'detached' });
  await dialog.getByRole('list', { name: 'People' }).getByText('owner', { exact: true }).waitFor();
  await ann.press('Escape');
  assert.equal(await ann.page.getByRole('button', { name: 'Share' }).isVisible(), true, "the document is still Ann's");

  const panel = await account(ann);
  await panel.getByText('Accounts and invitations').click();
  const close = panel.getByRole('button', { name: 'Close the account of Ben Ray' });
  for (const [button, title] of [
    [close, 'Close the account of Ben Ray?'],
    [panel.getByRole('button', { name: 'Sign out everywhere' }), 'Sign out everywhere?'],
  ]) {
    await button.click();
    const question = ann.page.getByRole('alertdialog', { name: title });
    await question.getByRole('button', { name: 'Cancel' }).click();
    await question.waitFor({ state: 'detached' });
  }
  assert.equal(await close.textContent(), 'Close', "Ben's account is open");
  // As at 200 % zoom.
  await ann.page.setViewportSize({ width: 640, height: 400 });
  await ann.page.waitForFunction(() => {
    const { top, right, bottom, left } = document.querySelector('.popover:popover-open').getBoundingClientRect();
    return top >= 0 && left >= 0 && right <= innerWidth && bottom <= innerHeight;
  });
  await ann.shot('account-zoomed');
  await panel.getByRole('button', { name: 'Sign out everywhere' }).scrollIntoViewIfNeeded();
  await ann.page.setViewportSize({ width: 1280, height: 800 });
  await ann.press('Escape');
});

test('an invited user can type into a new document at once', async () => {
  const cat = await arrive('Cat Orr');
  const panel = await account(ann);
  await panel.getByRole('button', { name: 'Invite somebody' }).click();
  const field = panel.getByLabel('Send this address');
  await field.waitFor();
  await cat.page.goto(await field.inputValue());
  await makeAccount(cat, 'cat@example.org');
  await ann.press('Escape');
  // The first keys must not be lost while the document is created.
  for (const words of ['first', 'second']) {
    const own = await cat.begin((writer) => writer.typing(words));
    await cat.saved();
    assert.deepEqual(await cat.lines(), [words]);
    await cat.page.reload();
    await cat.typing('again, ');
    await cat.saved();
    assert.deepEqual(await cat.lines(), [`again, ${words}`], own);
  }
  await cat.leave();
});

test('changes of a role between viewer and editor apply at once on both pages', async () => {
  const dialog = await share(ann);
  await dialog.getByLabel('Name they sign in by').fill('ben@example.org');
  await dialog.getByLabel('Role of the new person').selectOption('viewer');
  await dialog.getByRole('button', { name: 'Add' }).click();
  await dialog.getByText('Ben Ray').waitFor();
  await ann.isAccessible();
  await ann.shot('share');
  // The page keeps its scroll position.
  await ben.sees("Ann's secret plan");
  await ben.page.getByText('You may read this document, and not change it.').waitFor();
  assert.equal(await ben.text.getAttribute('contenteditable'), 'false');
  assert.equal(await ben.page.getByRole('toolbar').isVisible(), false);
  assert.equal(await ben.page.getByRole('button', { name: 'Share' }).isVisible(), false);
  await ben.isAccessible();
  await ben.shot('read-only-phone');

  const role = dialog.getByLabel('Role of Ben Ray');
  await role.selectOption('editor');
  // The cursor appears with the permission to write.
  await ben.page.waitForSelector('.ql-editor[contenteditable="true"]:focus');
  await ben.goTo('end');
  await ben.type(", and Ben's");
  await ben.saved();
  await ann.sees(", and Ben's");

  // With the cursor in a link the page offers to edit it; to a reader it offers nothing.
  const pencil = ben.page.getByRole('button', { name: 'Edit link' });
  await ben.type(' https://example.org ');
  await ben.press('ArrowLeft');
  await ben.press('ArrowLeft');
  await pencil.waitFor();
  await ben.saved();

  await role.selectOption('viewer');
  await ben.page.getByText('You may no longer change this document, only read it.').waitFor();
  await pencil.waitFor({ state: 'hidden', timeout: 10_000 });
  assert.equal(await ben.text.getAttribute('contenteditable'), 'false');

  await dialog.getByRole('button', { name: 'Remove Ben Ray' }).click();
  await ann.page.getByRole('alertdialog').getByRole('button', { name: 'Remove' }).click();
  await heading(ben, 'You no longer have access to this document');
  // The socket is closed as well, which is not reported as a network error.
  await ben.page.waitForFunction(() => document.querySelector('.status').hidden);
  assert.equal(await ben.text.isVisible(), false);
  await ben.isAccessible();
  await ben.shot('lost-phone');
  await ann.press('Escape');
});

test('a link with a password admits a guest without an account, until it ends', async () => {
  const dialog = await share(ann);
  await dialog.getByLabel('Who has the link').selectOption('editor');
  await dialog.getByLabel('Password (if you want one)').fill('open sesame');
  await dialog.getByRole('button', { name: 'Make a link' }).click();
  const made = dialog.getByLabel('Send this address');
  await made.waitFor();
  sharedAddress = await made.inputValue();
  const guest = await arrive('Quiet Otter');
  await guest.page.goto(sharedAddress);
  await heading(guest, 'This link wants a password');
  await guest.isAccessible();
  await guest.page.getByLabel('Password of the link').fill('open sesame');
  await guest.press('Enter');
  await guest.sees("Ann's secret plan");
  assert.doesNotMatch(guest.page.url(), /share/);
  // For a signed-in user the list has the document from then on, as long as the link is valid.
  await ben.page.goto(sharedAddress);
  await ben.page.getByLabel('Password of the link').fill('open sesame');
  await ben.press('Enter');
  await ben.sees("Ann's secret plan");
  await ben.list();
  await ben.page.locator(`.row[data-id="${id}"]`).waitFor();
  await guest.goTo('end');
  await guest.type(' Guest here.');
  await guest.saved();
  await ann.sees('Guest here.');
  await dialog.getByRole('button', { name: /^End the link/ }).click();
  await ann.page.getByRole('alertdialog').getByRole('button', { name: 'End the link' }).click();
  await heading(guest, 'You no longer have access to this document');
  await ben.list();
  assert.equal(await ben.page.locator(`.row[data-id="${id}"]`).count(), 0);
  await guest.leave();
  await ann.press('Escape');
});

test('an ended link opens nothing', async () => {
  const late = await arrive('Late');
  await late.page.goto(sharedAddress);
  await heading(late, 'This link does not work');
  await late.isAccessible();
  await late.leave();
});

test('signing out everywhere ends every page, and unsaved work stays on it', async () => {
  const other = await arrive('Ann Lee');
  await other.page.goto(server.url);
  await other.page.getByLabel('Name to sign in by').fill('ann@example.org');
  await other.page.getByLabel('Password').fill(PASSWORD);
  await other.page.getByRole('button', { name: 'Sign in' }).click();
  await other.page.waitForSelector('#app[data-list="ready"]');
  await (await account(other)).getByRole('button', { name: 'Sign out everywhere' }).click();
  await other.page.getByRole('alertdialog').getByRole('button', { name: 'Sign out everywhere' }).click();
  await heading(other, 'Sign in');
  await ann.page.getByText('You are signed out.').waitFor();
  await ann.goTo('end');
  await ann.type(' Kept.');
  await ann.page.locator('.status-shown', { hasText: 'waiting' }).waitFor();
  // After signing in on another page of the same browser, the work is saved.
  const page = await ann.context.newPage();
  await page.goto(server.url);
  await page.getByLabel('Name to sign in by').fill('ann@example.org');
  await page.getByLabel('Password').fill(PASSWORD);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.waitForSelector('#app[data-list="ready"]');
  await ann.saved();
  await page.goto(`${server.url}/d/${id}`);
  await page.getByText('Kept.').waitFor();
  await page.close();
  await other.leave();
});

test('a session is renewed while its page is open', async () => {
  const page = await ann.context.newPage();
  await page.clock.install();
  let renewals = 0;
  page.on('response', (response) => {
    if (response.url().endsWith('/api/refresh') && response.status() === 200) renewals += 1;
  });
  await page.goto(`${server.url}/d/${id}`);
  await page.getByText('Kept.').waitFor();
  const renewed = page.waitForResponse(/\/api\/refresh$/);
  await page.clock.fastForward('08:01');
  assert.equal((await renewed).status(), 200);
  assert.ok(renewals >= 1);
  await page.close();
});
