// Failover of Postgres to a standby: with all commits, nothing is lost and no client is disturbed; without the last commits
// the loss is counted and every client is notified.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { Client, RICH, takeWarnings } from '../js/client.mjs';
import { SEED } from '../js/random.mjs';
import { binary } from '../js/server.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { Stage } from './stage.mjs';

const LIMIT = { timeout: 120_000 };
const CODE = 'ERR_HISTORY_CHANGED';
const CLOSED = 4409;

/** Log lines of a node that detects a loss or is informed of one. */
const LOSS = /the store went back in time|the history of the store was renewed/;

const skip = missing();
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 3, standby: true }))));
after(() => skip || cluster.stop());

const generation = async () => Number((await cluster.postgres.query('SELECT generation FROM history'))[0].generation);
const textOf = (doc) => doc.data.ops.map((part) => part.insert).join('');
const type = (doc, text) => called((done) => doc.submitOp([{ insert: text }], done), `typing ${text}`, 30_000);
const outcomeOf = (doc, text) =>
  new Promise((done) => doc.submitOp([{ insert: text }], (error) => done(error ?? null)));

/** The log lines of the nodes. */
const linesOf = (nodes) =>
  nodes.flatMap(({ log }) =>
    log
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line)),
  );

/** A client on each node that has the document open, and the errors that its document reports. */
async function readers(id) {
  const clients = await Promise.all(cluster.nodes.map(({ ws }) => Client.connect(ws)));
  return Promise.all(
    clients.map(async (client) => {
      const doc = await client.subscribed(id);
      const errors = [];
      doc.on('error', (error) => errors.push(error));
      const { ws } = client.connection.socket;
      const closed = new Promise((done) => ws.on('close', done));
      return { client, doc, errors, closed };
    }),
  );
}

describe('a failover of Postgres', { skip }, () => {
  test(`to a synchronous standby, under load, loses nothing (SEED=${SEED})`, LIMIT, async (t) => {
    await cluster.postgres.query("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'");
    await cluster.postgres.query('SELECT pg_reload_conf()');
    await until(
      async () => (await cluster.postgres.query('SHOW synchronous_standby_names'))[0].synchronous_standby_names !== '',
      'commits wait for the standby',
    );
    const stage = Stage.on(cluster, t);
    const people = await Promise.all([0, 1, 2].map((n) => stage.person(cluster.nodes[n])));
    const ids = await stage.documentsOf(people[0], 6);
    await stage.write(people, ids, { docsEach: 4, paceMs: 10 });
    await stage.progress(100, 'writing goes on', 60_000);
    await cluster.failOver();
    await stage.allResume();
    await until(
      () => cluster.nodes.every(({ log }) => /it holds all that this node knows/.test(log)),
      'all nodes have compared the log',
    );
    t.diagnostic(`${await stage.assertSound()} edits, none lost`);
    assert.equal(await generation(), 0);
    for (const { log } of cluster.nodes) assert.doesNotMatch(log, LOSS);
  });

  test('to a standby that was away loses edits, and every client is notified', LIMIT, async (t) => {
    await cluster.addStandby();
    const people = await readers('plan');
    t.after(() => people.forEach(({ client }) => client.close()));
    const docs = people.map(({ doc }) => doc);
    const areAt = (version) => until(() => docs.every((doc) => doc.version === version), `all see version ${version}`);
    await called((done) => docs[0].create([{ insert: '\n' }], RICH.uri, done), 'create');
    for (const letter of 'abcd') await type(docs[0], letter);
    await areAt(5);
    await cluster.postgres.isFollowedBy(cluster.standby);
    await cluster.standby.stop();
    for (const letter of 'efgh') await type(docs[1], letter);
    await areAt(9);
    await cluster.postgres.kill();
    await cluster.standby.start();
    await cluster.failOver();

    const codes = await Promise.all(people.map(({ closed }) => closed));
    assert.deepEqual(codes, [CLOSED, CLOSED, CLOSED], 'every socket is closed, and says why');
    await until(() => cluster.nodes.every(({ log }) => LOSS.test(log)), 'every node has noticed');
    assert.equal(await generation(), 1, 'of those that noticed, one renewed the history');
    const errors = linesOf(cluster.nodes).filter(({ level }) => level === 'ERROR');
    const counted = errors.filter(({ fields }) => /went back in time/.test(fields.message));
    assert.ok(
      counted.some(({ fields }) => fields.documents === 1),
      'the loss is counted',
    );
    const named = errors.filter(({ fields }) => /has lost a commit/.test(fields.message));
    assert.deepEqual([...new Set(named.map(({ fields: { doc, revision } }) => `${doc} ${revision}`))], ['docs/plan 9']);

    // New clients continue with the restored state, at every node.
    const fresh = await readers('plan');
    t.after(() => fresh.forEach(({ client }) => client.close()));
    for (const { doc } of fresh) assert.deepEqual([doc.version, textOf(doc)], [5, 'dcba\n']);
    for (const { doc } of fresh) await type(doc, 'x');
    await until(() => fresh.every(({ doc }) => textOf(doc) === 'xxxdcba\n'), 'all nodes show the same');

    // Earlier clients are rejected or reload.
    for (const { client, doc } of people) {
      await client.reconnect();
      const first = await outcomeOf(doc, '!');
      assert.equal(first?.code, CODE);
      const second = await outcomeOf(doc, '?');
      if (second === null)
        await until(() => textOf(doc) === textOf(fresh[0].doc), 'what is acknowledged is in the log');
      else assert.equal(second.code, CODE);
    }
    assert.doesNotMatch(textOf(fresh[0].doc), /[e-h!]/);
    assert.deepEqual(
      cluster.nodes.flatMap(({ panics }) => panics),
      [],
    );
    takeWarnings();
  });

  test('while no node runs, and `copydesk restored`, begin a new history', LIMIT, async (t) => {
    const before = await generation();
    const [{ client }] = await readers('plan');
    t.after(() => client.close());
    const { id } = client.connection;
    for (const node of cluster.nodes) await node.end();
    await cluster.addStandby();
    // The rows of the stopped nodes count as alive for this long.
    await until(
      async () =>
        (await cluster.postgres.query("SELECT 1 FROM nodes WHERE beat_at > clock_timestamp() - interval '3 s'"))
          .length === 0,
      'no node lives',
    );
    await cluster.failOver();
    await Promise.all(cluster.nodes.map((node) => node.start()));
    await cluster.settled();
    assert.equal(await generation(), before + 1, 'of the nodes that start, one renews the history');
    assert.equal(await closeOf(cluster.nodes[1].ws, id), CLOSED);

    const people = await readers('plan');
    t.after(() => people.forEach((person) => person.client.close()));
    const ours = people[0].client.connection.id;
    const args = ['restored', '--store', cluster.postgres.url()];
    assert.match(execFileSync(binary(), args, { encoding: 'utf8' }), new RegExp(`history +${before + 2}: renewed`));
    assert.deepEqual(await Promise.all(people.map(({ closed }) => closed)), [CLOSED, CLOSED, CLOSED]);
    assert.equal(await closeOf(cluster.nodes[2].ws, ours), CLOSED);
    // A restart of all nodes does not count as a restore.
    for (const node of cluster.nodes) await node.end();
    await Promise.all(cluster.nodes.map((node) => node.start()));
    assert.equal(await generation(), before + 2);
    takeWarnings();
  });
});

/** The close code of a socket that reconnects with this client id. */
async function closeOf(ws, id) {
  const { connection } = new Client(`${ws}?rights`);
  connection.id = id;
  return new Promise((done) => connection.socket.ws.on('close', done));
}
