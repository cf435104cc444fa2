// A fault of the program, provoked in a debug build: the edit is rejected and kept as a dead letter, the document stays
// editable, and after two panics within a minute it is read-only until an operator releases it. The commands run beside the
// server.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { Client, TEXT, takeWarnings } from './client.mjs';
import { binary, Server } from './server.mjs';
import { called, until } from './wait.mjs';

const MARK = 'the poison mark';
const NOT_APPLIED = 'ERR_OT_OP_NOT_APPLIED';
const QUARANTINED = 'ERR_DOC_QUARANTINED';

let server;
before(async () => (server = await Server.start({ env: { COPYDESK_TEST_PANIC_MARK: MARK } })));
after(() => server.discard());

const submitted = (doc, op) => called((done) => doc.submitOp(op, done), 'submit');
const refused = (ask) => called((done) => ask((error) => done(null, error)), 'an answer');

/** Runs a command on the server's folder. */
function copydesk(...args) {
  return new Promise((resolve) => {
    execFile(binary(), [...args, '--data', server.data], (error, stdout, stderr) => {
      resolve({ status: error?.code ?? 0, stdout, stderr });
    });
  });
}

async function letters(...args) {
  const { status, stdout, stderr } = await copydesk('dead-letters', 'export', ...args);
  assert.equal(status, 0, stderr);
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
}

/** Dead letters are written after the answer. */
async function untilLetters(count) {
  let found = [];
  await until(async () => (found = await letters()).length >= count, `${count} dead letters`);
  assert.equal(found.length, count);
  return found;
}

async function connected(t) {
  const client = await Client.connect(server.ws);
  t.after(() => client.close());
  return client;
}

/** The code with which an edit of a new client is refused; undefined if it is committed. */
async function attempt(id, op) {
  const client = await Client.connect(server.ws);
  try {
    const doc = await client.subscribed(id);
    doc.on('error', () => {});
    return (await refused((done) => doc.submitOp(op, done)))?.code;
  } finally {
    client.close();
    takeWarnings();
  }
}

describe('an edit that makes its document panic', () => {
  test('is rejected and kept, and the document stays editable', async (t) => {
    const ann = await connected(t);
    for (const id of ['faulty', 'sound']) {
      await called((done) => ann.doc(id).create('first', TEXT.uri, done), 'create');
    }
    assert.equal(await attempt('faulty', [`${MARK} é`]), NOT_APPLIED);
    assert.equal(await attempt('faulty', ['then ']), undefined);
    const [letter] = await untilLetters(1);
    const { reason, collection, doc, base, head, payload, is_payload_cut: isCut } = letter;
    assert.deepEqual(
      { reason, collection, doc, base, head, payload, isCut },
      {
        reason: 'panic',
        collection: 'docs',
        doc: 'faulty',
        base: 1,
        head: 1,
        payload: JSON.stringify({ op: [`${MARK} é`] }),
        isCut: false,
      },
    );
    assert.match(letter.detail, /a test provokes a panic/);
    assert.equal(server.panics.length, 1);
    assert.ok(await server.isReady());
  });

  test('can be listed, shown and purged while the server runs', async () => {
    const { stdout: table } = await copydesk('dead-letters', 'list');
    assert.match(table, /^ID +AGE +REASON +BYTES +DOCUMENT/);
    assert.match(table, /panic .* docs\/faulty /);
    assert.doesNotMatch(table, new RegExp(MARK), 'the list has no payloads');
    const [{ id }] = await letters();
    const shown = await copydesk('dead-letters', 'show', String(id));
    assert.equal(JSON.parse(shown.stdout).id, id);
    assert.deepEqual(await letters('--doc', 'docs/sound'), []);
    assert.deepEqual(await letters('--older-than', '1h'), []);
    assert.equal((await letters('--newer-than', '1h', '--doc', 'docs/faulty')).length, 1);
    for (const [args, error] of [
      [['dead-letters', 'show', '999'], /there is no dead letter 999/],
      [['dead-letters', 'purge'], /use --all to delete all/],
      [['dead-letters', 'list', '--doc', 'nothing'], /COLLECTION\/ID/],
      [['dead-letters', 'list', '--newer-than', 'now'], /write 90s, 15m, 12h or 7d/],
      [['quarantine', 'release', 'docs/faulty'], /docs\/faulty is not in quarantine/],
    ]) {
      const { status, stderr } = await copydesk(...args);
      assert.notEqual(status, 0);
      assert.match(stderr, error);
    }
    assert.match((await copydesk('quarantine', 'list')).stdout, /no document is in quarantine/);
    assert.match((await copydesk('dead-letters', 'purge', '--older-than', '1h')).stdout, /^0 dead letters/);
    assert.match((await copydesk('dead-letters', 'purge', '--all')).stdout, /^1 dead letters/);
    assert.match((await copydesk('dead-letters', 'list')).stdout, /no dead letters/);
  });
});

describe('a document that panics twice within a minute', () => {
  test('is read-only until it is released, also after a restart', async (t) => {
    const ann = await connected(t);
    await called((done) => ann.doc('quarantined').create('kept', TEXT.uri, done), 'create');
    for (const text of ['a', 'b']) assert.equal(await attempt('quarantined', [MARK + text]), NOT_APPLIED);
    assert.equal(await attempt('quarantined', ['x']), QUARANTINED);
    await untilLetters(2);
    assert.match((await copydesk('quarantine', 'list')).stdout, /^docs\/quarantined /);
    await server.kill('SIGTERM');
    await server.boot();
    const bob = await connected(t);
    bob.keepsReceived = true;
    const doc = await bob.subscribed('quarantined');
    assert.equal(doc.data, 'kept');
    const { data } = bob.received.find((message) => message.a === 's');
    assert.equal(data.notice.code, QUARANTINED);
    assert.match(data.notice.message, /until an operator releases it/);
    doc.on('error', () => {});
    assert.equal((await refused((done) => doc.submitOp(['x'], done))).code, QUARANTINED);
    assert.equal(await attempt('sound', ['still ']), undefined, 'another document is not affected');

    assert.equal((await copydesk('quarantine', 'release', 'docs/quarantined')).status, 0);
    await until(async () => (await attempt('quarantined', ['more '])) === undefined, 'it can be edited');
    const carl = await connected(t);
    const released = await carl.subscribed('quarantined');
    assert.match(released.data, /^(more )+kept$/);
    await submitted(released, ['and ']);
    const line = server.log.split('\n').find((it) => it.includes('panicked twice within a minute'));
    assert.match(line, /ERROR/);
    assert.match(line, /docs\/quarantined/);
    takeWarnings();
  });
});
