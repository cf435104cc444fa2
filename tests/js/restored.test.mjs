// A backup is restored while clients are away. They are told to reload, and none of them writes at wrong places into the
// restored log.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import WebSocket from 'ws';
import { Client, Delta, RICH, TEXT, takeWarnings } from './client.mjs';
import { binary, Server } from './server.mjs';
import { called, until } from './wait.mjs';

const CODE = 'ERR_HISTORY_CHANGED';
const CLOSED = 4409;

const begin = (type) => (type === TEXT ? 'start' : [{ insert: 'start\n' }]);
const insert = (type, text) => (type === TEXT ? [text] : new Delta().insert(text));
const textOf = (doc) => (doc.type === TEXT ? doc.data : doc.data.ops.map((part) => part.insert).join(''));
const submit = (doc, op) => called((done) => doc.submitOp(op, done), 'an edit');

/** The files that remain if only the database is restored from a backup. */
const WAYS = {
  'the whole folder is replaced'(data, backup) {
    for (const file of readdirSync(data)) rmSync(path.join(data, file));
    cpSync(backup, data, { recursive: true });
  },
  'the backup is written over the database'(data, backup) {
    copyFileSync(path.join(backup, 'copydesk.db'), path.join(data, 'copydesk.db'));
  },
};

/** Runs `story` with a server, a client that wrote five revisions, a backup of these, and four more revisions. */
async function withLostRevisions(type, restore, story) {
  const server = await Server.start();
  const backup = `${server.data}-backup`;
  const clients = [];
  const join = async () => {
    const client = await Client.connect(server.ws);
    clients.push(client);
    return client;
  };
  try {
    const ann = await join();
    const doc = await ann.subscribed('plan');
    const errors = [];
    doc.on('error', (error) => errors.push(error));
    await called((done) => doc.create(begin(type), type.uri, done), 'create');
    for (const letter of 'abcd') await submit(doc, insert(type, letter));
    await server.kill('SIGTERM');
    cpSync(server.data, backup, { recursive: true });
    await server.boot();
    await ann.reconnect();
    for (const letter of 'efgh') await submit(doc, insert(type, letter));
    assert.equal(doc.version, 9);
    await server.kill('SIGTERM');
    await until(() => ann.connection.state === 'disconnected', 'ann is away');
    restore(server.data, backup);
    await server.boot();
    await story({ server, ann, doc, errors, join });
  } finally {
    for (const client of clients) client.connection.close();
    server.discard();
    rmSync(backup, { recursive: true, force: true });
    takeWarnings();
  }
}

for (const type of [TEXT, RICH]) {
  for (const [way, restore] of Object.entries(WAYS)) {
    describe(`${type.name}: ${way}`, () => {
      test('a client that was away is told to reload and writes nothing at a wrong place', () =>
        withLostRevisions(type, restore, async ({ server, ann, doc, errors, join }) => {
          assert.match(server.log, /went back in time/);
          const bob = await join();
          const theirs = await bob.subscribed('plan');
          assert.equal(theirs.version, 5, 'the log ends where the backup does');
          for (const letter of '123456') await submit(theirs, insert(type, letter));
          let refused;
          doc.submitOp(insert(type, '<ann>'), (error) => (refused = error));
          await ann.reconnect();
          await until(() => refused, 'the op that waited is refused');
          assert.equal(refused.code, CODE);
          await until(
            () => errors.some(({ code }) => code === CODE) || doc.version === theirs.version,
            'the subscription is refused, or begins anew',
          );
          // Every later request of the client, on this socket or the next, is rejected or made on what the log holds.
          for (const again of [false, true]) {
            if (again) {
              ann.cut();
              await until(() => ann.connection.state === 'disconnected', 'the socket is cut');
              await ann.reconnect();
            }
            const outcome = await new Promise((done) =>
              doc.submitOp(insert(type, '!'), (error) => done(error ?? null)),
            );
            if (outcome === null) {
              await called((done) => theirs.fetch(done), 'fetch');
              assert.equal(textOf(doc), textOf(theirs), 'an op that is acknowledged was made on the log');
            } else {
              assert.equal(outcome.code, CODE);
            }
          }
          const carol = await join();
          const fresh = await carol.subscribed('plan');
          assert.ok(!textOf(fresh).includes('<ann>'));
          assert.equal(textOf(fresh).replaceAll('!', ''), textOf(theirs).replaceAll('!', ''));
        }));
    });
  }
}

test('a client that reloads its document continues; new documents are not affected', () =>
  withLostRevisions(RICH, WAYS['the whole folder is replaced'], async ({ ann, doc, join }) => {
    await ann.reconnect();
    const other = await ann.subscribed('other');
    await called((done) => other.create(begin(RICH), RICH.uri, done), 'create');
    await submit(other, insert(RICH, 'x'));
    await called((done) => doc.destroy(done), 'destroy');
    const anew = await ann.subscribed('plan');
    assert.equal(anew.version, 5);
    await submit(anew, insert(RICH, 'y'));
    const bob = await join();
    assert.equal(textOf(await bob.subscribed('plan')), textOf(anew));
  }));

test('`copydesk restored` invalidates the clients of before, a restart does not', () =>
  withLostRevisions(
    RICH,
    () => {},
    async ({ server, ann, doc, errors }) => {
      await ann.reconnect();
      await submit(doc, insert(RICH, 'z'));
      assert.deepEqual([doc.version, errors.length, /went back/.test(server.log)], [10, 0, false]);
      const { id } = ann.connection;
      const command = () => spawnSync(binary(), ['restored', '--data', server.data], { encoding: 'utf8' });
      assert.match(command().stderr, /another process uses the data folder/, 'not while a server has the folder');
      await server.kill('SIGTERM');
      const { status, stdout } = command();
      assert.equal(status, 0);
      assert.match(stdout, /history {2}1: renewed/);
      await server.boot();
      await ann.reconnect();
      const refused = await new Promise((done) => doc.submitOp(insert(RICH, '!'), done));
      assert.equal(refused?.code, CODE);
      // The socket of the editor's page is closed before the page can send anything.
      const page = new WebSocket(`${server.ws}?rights`);
      page.on('open', () => page.send(JSON.stringify({ a: 'hs', id, protocol: 1, protocolMinor: 2 })));
      const [code, reason] = await new Promise((done) => page.on('close', (...ended) => done(ended)));
      assert.equal(code, CLOSED);
      assert.match(String(reason), /load the document again/);
    },
  ));

test('a command for operators does not create a missing database', () => {
  const empty = mkdtempSync(path.join(tmpdir(), 'copydesk-empty-'));
  try {
    for (const args of [['restored'], ['migrate'], ['migrate', '--status'], ['repair', 'docs/a'], ['verify']]) {
      const { status, stderr } = spawnSync(binary(), [...args, '--data', empty], { encoding: 'utf8' });
      assert.notEqual(status, 0, args.join(' '));
      assert.match(stderr, /there is no database in the data folder/, args.join(' '));
    }
    assert.deepEqual(readdirSync(empty), []);
  } finally {
    rmSync(empty, { recursive: true });
  }
});
