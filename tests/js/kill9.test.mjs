// Acknowledged edits survive a crash: the server is killed under load, repeatedly, with one data folder.
// KILLS sets how often; SEED repeats the choices of a run.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client, Delta, RICH, TEXT, takeWarnings } from './client.mjs';
import { assertLog, plain, replay } from './journal.mjs';
import { dice, SEED } from './random.mjs';
import { Server, snapshotsIn } from './server.mjs';
import { called, turns, until } from './wait.mjs';
import { logOf } from './wire.mjs';

const KILLS = Number(process.env.KILLS ?? 20);
const CLIENTS = 4;
const IDS = ['text-1', 'rich-1', 'text-2', 'rich-2'];
const typeOf = (id) => (id.startsWith('text') ? TEXT : RICH);
const textOf = (doc) => (doc.type === TEXT ? doc.data : doc.data.ops.map((part) => part.insert).join(''));

/** Types one token after the other into each of its documents, each when the previous one is acknowledged. */
class Typist {
  constructor(client, number, r) {
    this.client = client;
    this.number = number;
    this.r = r;
    this.tokens = new Map(IDS.map((id) => [id, 0]));
    this.errors = [];
    this.isTyping = true;
  }

  start() {
    IDS.forEach((id) => this.type(id));
  }

  /** Between two tokens, so that no token is split and the tokens of the final text can be counted. */
  type(id) {
    if (!this.isTyping) return;
    const doc = this.client.doc(id);
    const text = textOf(doc);
    const places = [0, ...[...text].flatMap((char, at) => (char === ']' ? [at + 1] : []))];
    const at = this.r.pick(places);
    const token = `[${this.number}.${this.tokens.get(id)}]`;
    this.tokens.set(id, this.tokens.get(id) + 1);
    const op = doc.type === TEXT ? [...(at ? [at] : []), token] : new Delta().retain(at).insert(token);
    doc.submitOp(op, (error) => {
      if (error) this.errors.push(error);
      else this.type(id);
    });
  }
}

/** Loads a server with typists while `disturb` stops and restarts it, then checks that every acknowledged edit is in the log. */
async function underLoad(t, name, disturb) {
  const r = dice(`${SEED}/${name}`);
  // Snapshots are written often, so that some kills happen while one is written.
  const server = await Server.start({ env: { COPYDESK__DOCUMENT__SNAPSHOT_ENTRIES: '20' } });
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => Client.connect(server.ws)));
  t.after(() => {
    for (const client of clients) client.close();
    server.discard();
  });
  for (const id of IDS) {
    const type = typeOf(id);
    const data = type === TEXT ? '' : [{ insert: '\n' }];
    await called((done) => clients[0].doc(id).create(data, type.uri, done), 'create');
  }
  await Promise.all(clients.flatMap((client) => IDS.map((id) => client.subscribed(id))));
  takeWarnings();
  const typists = clients.map((client, number) => new Typist(client, number, r));
  typists.forEach((typist) => typist.start());
  const acks = () => clients.reduce((sum, client) => sum + client.acks.length, 0);

  await disturb({
    r,
    server,
    moment: async () => {
      const enough = acks() + r.from(1, 200);
      await until(() => acks() >= enough, 'the load goes on');
      await turns(r.below(400));
    },
    /** After a restart: every acknowledged edit is there before any client reconnects. */
    recovered: async () => {
      await until(() => clients.every((client) => client.connection.state === 'disconnected'), 'all sockets are gone');
      for (const id of IDS) assertLog(await logOf(server, id), clients, id);
      for (const client of clients) client.rebind();
      await Promise.all(clients.map((client) => client.connected()));
    },
  });

  for (const typist of typists) typist.isTyping = false;
  for (const client of clients) await client.settled();
  const reader = await Client.connect(server.ws);
  for (const id of IDS) {
    const truth = await reader.fetched(id);
    for (const client of clients) {
      const doc = client.doc(id);
      await until(() => doc.version === truth.version, `version ${truth.version} arrives; it is at ${doc.version}`);
      assert.deepEqual(plain(doc.data), plain(truth.data));
    }
    const log = await logOf(server, id);
    assertLog(log, clients, id);
    assert.deepEqual(replay(log), plain(truth.data), 'the log rebuilds the document');
    const typed = typists.flatMap(({ number, tokens }) =>
      Array.from({ length: tokens.get(id) }, (_, n) => `[${number}.${n}]`),
    );
    const found = textOf(truth).match(/\[[^\]]*\]/g) ?? [];
    assert.deepEqual(found.sort(), typed.sort(), 'what was typed is there once, and nothing else');
  }
  const noise = {
    warnings: takeWarnings(),
    refetches: clients.reduce((sum, client) => sum + client.refetches, 0),
    errors: [...typists.flatMap((typist) => typist.errors), ...clients.flatMap((client) => client.errors)].map(String),
  };
  reader.close();
  const verified = await server.verify();
  assert.match(verified, /: 0 faults/);
  assert.ok(snapshotsIn(verified) >= IDS.length, verified);
  await server.stop();
  assert.deepEqual(noise, { warnings: [], refetches: 0, errors: [] });
  return acks();
}

test(`acknowledged edits survive ${KILLS} kills under load (SEED=${SEED})`, async (t) => {
  const acks = await underLoad(t, 'kill', async ({ server, moment, recovered }) => {
    for (let kill = 0; kill < KILLS; kill++) {
      await moment();
      await server.restart();
      await recovered();
    }
    await moment();
  });
  t.diagnostic(`${acks} acknowledged ops, all in the log at their versions`);
});

test(`acknowledged edits survive a stop by SIGTERM under load (SEED=${SEED})`, async (t) => {
  await underLoad(t, 'term', async ({ server, moment, recovered }) => {
    for (let round = 0; round < 2; round++) {
      await moment();
      const end = await server.kill('SIGTERM');
      assert.equal(end, 0, 'the exit code');
      await server.boot();
      await recovered();
    }
    await moment();
  });
});
