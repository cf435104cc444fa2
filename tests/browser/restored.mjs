// A page whose server was restored to an earlier state: `COPYDESK_BIN=.. node --test restored.mjs`.

import assert from 'node:assert/strict';
import { cp, rm } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { Server } from './server.mjs';
import { openBrowser, Writer } from './writers.mjs';

let server;
let browser;

before(async () => {
  [server, browser] = await Promise.all([Server.start(), openBrowser()]);
});

after(async () => {
  await browser?.close();
  await server?.end();
});

test('a page that was offline during a restore says so, reloads, and offers its unsent text for copying', async (t) => {
  const backup = `${server.folder}-backup`;
  t.after(() => rm(backup, { recursive: true, force: true }));
  const ann = await Writer.arrive(browser, server.url, 'Ann Lee');
  t.after(() => ann.leave());
  ann.page.on('dialog', () => assert.fail('a page that loads itself again asks nothing'));
  await ann.begin();
  await ann.type('Kept. ');
  await ann.saved();
  await server.down();
  await cp(server.folder, backup, { recursive: true });
  await server.up();
  await ann.saved();
  await ann.type('Lost. ');
  await ann.saved();
  await server.down();
  await ann.status('offline');
  await ann.type('Unsent. ');
  await rm(server.folder, { recursive: true });
  await cp(backup, server.folder, { recursive: true });
  await server.up();

  await ann.page.getByText('The server was restored to an earlier state: the newest changes may be missing.').waitFor();
  await ann.saved();
  assert.equal((await ann.text.textContent()).trim(), 'Kept.');
  const refusal = ann.page.locator('.notice', { hasText: 'The text that it did not accept' });
  await ann.page.evaluate(() => Object.defineProperty(navigator, 'clipboard', { value: undefined }));
  await refusal.getByRole('button', { name: 'Copy lost text' }).click();
  assert.equal(await refusal.getByLabel('Lost text').inputValue(), 'Unsent. ');
  await refusal.getByRole('button', { name: 'Dismiss' }).click();

  // It continues as a page of the new history, also after a restart.
  await ann.goTo('end');
  await ann.type('On. ');
  await ann.saved();
  await server.down();
  await ann.status('offline');
  await server.up();
  await ann.saved();
  assert.match(await ann.text.textContent(), /Kept\. .*On\. /);
  assert.equal(await ann.page.locator('.notice', { hasText: 'did not accept' }).count(), 0);
});
