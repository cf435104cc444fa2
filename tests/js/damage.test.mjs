// A damaged log entry is logged once, rejected with its own code and makes its document read-only; the document is served
// again when the row is restored. The text of the second edit is changed in the database file, so its checksum does not match.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Client, TEXT, takeWarnings } from './client.mjs';
import { Server } from './server.mjs';
import { called, until } from './wait.mjs';

const CODE = 'ERR_DOC_DAMAGED';
const MARK = 'the second edit';

let server;
before(async () => (server = await Server.start()));
after(() => server.discard());

const submitted = (doc, op) => called((done) => doc.submitOp(op, done), 'submit');
const refused = (ask) => called((done) => ask((error) => done(null, error)), 'an answer');

/** Stops the server, replaces a text in the database file by one of the same length, and starts it again. */
async function replaceInFile(from, to) {
  await server.kill('SIGTERM');
  const file = path.join(server.data, 'copydesk.db');
  const bytes = readFileSync(file);
  let count = 0;
  for (let at = bytes.indexOf(from); at >= 0; at = bytes.indexOf(from, at + 1)) {
    bytes.write(to, at);
    count += 1;
  }
  assert.ok(count > 0, `${from} is in the file`);
  writeFileSync(file, bytes);
  await server.boot();
}

describe('a damaged entry', () => {
  test('makes its document read-only and does not affect other documents', async (t) => {
    const ann = await Client.connect(server.ws);
    t.after(() => ann.close());
    for (const id of ['damaged', 'sound']) {
      const doc = ann.doc(id);
      await called((done) => doc.create('first', TEXT.uri, done), 'create');
      await submitted(doc, [5, id === 'damaged' ? MARK : ', then']);
      await submitted(doc, ['last ']);
    }
    ann.cut();
    await replaceInFile(MARK, MARK.toUpperCase());
    const bob = await Client.connect(server.ws);
    t.after(() => bob.close());
    bob.keepsReceived = true;

    const doc = await bob.subscribed('damaged');
    assert.deepEqual([doc.version, doc.data], [1, 'first']);
    const { data } = bob.received.find((message) => message.a === 's');
    assert.equal(data.notice.code, CODE);
    assert.match(data.notice.message, /damaged at version 2.*as it was at version 1/);
    assert.equal((await refused((done) => doc.submitOp(['x'], done))).code, CODE);
    // Revisions before the damage can be read, and requests that need the entry are rejected.
    const at = (v) => refused((done) => bob.connection.fetchSnapshot('docs', 'damaged', v, done));
    assert.equal((await at(2)).code, CODE);
    assert.equal(await at(1), null);

    // Ann's client holds entries that the log cannot return any more.
    const errors = [];
    ann.doc('damaged').on('error', (error) => errors.push(error.code));
    await ann.reconnect();
    assert.equal((await refused((done) => ann.doc('damaged').subscribe(done))).code, CODE);
    assert.equal(ann.doc('damaged').data, `last first${MARK}`, 'the page keeps what it shows');

    const sound = await bob.subscribed('sound');
    await submitted(sound, [sound.data.length, '!']);
    assert.equal(sound.data, 'last first, then!');
    const lines = server.log.split('\n').filter((line) => line.includes('the stored log of a document is damaged'));
    assert.equal(lines.length, 1, lines.join('\n'));
    assert.match(lines[0], /ERROR/);
    assert.match(lines[0], /docs\/damaged/);
    assert.ok(await server.isReady());
    takeWarnings();
  });

  test('the document is editable again once the row is restored', async (t) => {
    await replaceInFile(MARK.toUpperCase(), MARK);
    const ann = await Client.connect(server.ws);
    t.after(() => ann.close());
    const doc = await ann.subscribed('damaged');
    assert.equal(doc.data, `last first${MARK}`);
    await submitted(doc, ['more ']);
    await until(() => doc.version === 4, 'the edit is acknowledged');
  });
});
