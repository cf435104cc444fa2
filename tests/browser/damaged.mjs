// A page whose document is damaged in the database: `COPYDESK_BIN=.. node --test damaged.mjs`.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Server } from './server.mjs';
import { openBrowser, Writer } from './writers.mjs';

const MARK = 'the second edit';

let server;
let browser;

before(async () => {
  [server, browser] = await Promise.all([Server.start(), openBrowser()]);
});

after(async () => {
  await browser?.close();
  await server?.end();
});

/** Stops the server, replaces a text in the database by one of the same length, and starts it again. */
async function replaceInDatabase(from, to) {
  await server.down();
  const file = join(server.folder, 'copydesk.db');
  const bytes = await readFile(file);
  let count = 0;
  for (let at = bytes.indexOf(from); at >= 0; at = bytes.indexOf(from, at + 1)) {
    bytes.write(to, at);
    count += 1;
  }
  assert.ok(count > 0, `${from} is in the database`);
  await writeFile(file, bytes);
  await server.up();
}

test('a damaged document is shown as it was before, read-only, with the reason, until it is restored', async (t) => {
  const arrive = async (name) => {
    const writer = await Writer.arrive(browser, server.url, name);
    t.after(() => writer.leave());
    return writer;
  };
  const ann = await arrive('Ann Lee');
  const id = await ann.begin();
  await ann.typing('First. ');
  await ann.saved();
  // One op, so that the text is in one row of the log.
  await ann.paste({ 'text/plain': MARK });
  await ann.saved();
  await ann.page.close();
  await replaceInDatabase(MARK, MARK.toUpperCase());

  const ben = await arrive('Ben Ray');
  await ben.page.goto(`${server.url}/d/${id}`);
  const words = ben.page.locator('.read-only');
  await words.filter({ hasText: /damaged at version/ }).waitFor();
  assert.equal(await ben.text.getAttribute('contenteditable'), 'false');
  assert.equal(await ben.page.getByRole('toolbar').isVisible(), false);
  assert.equal(await ben.title.isDisabled(), true);
  assert.equal((await ben.text.textContent()).trim(), 'First.');
  await ben.isAccessible();
  await ben.page.close();

  await replaceInDatabase(MARK.toUpperCase(), MARK);
  const cem = await arrive('Cem Ak');
  await cem.open(id);
  await cem.page.waitForSelector('.ql-editor[contenteditable="true"]');
  assert.match(await cem.text.textContent(), /the second edit/);
  assert.equal(await cem.page.locator('.read-only').count(), 0);
});
