// All clients converge under random edits, forced disconnects and kills of the server.
// SEED=... repeats the choices of a run (not the timing of the network); KILLS, STEPS, CLIENTS and DOCS set its size.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client, RICH, TEXT, takeWarnings } from './client.mjs';
import { assertLog, plain, replay } from './journal.mjs';
import { dice, richEdit, SEED, someText, textEdit } from './random.mjs';
import { Server } from './server.mjs';
import { called, turns, until } from './wait.mjs';
import { logOf } from './wire.mjs';

const size = (name, usual) => Number(process.env[name] ?? usual);
const CLIENTS = size('CLIENTS', 5);
const DOCS = size('DOCS', 3);
const STEPS = size('STEPS', 4_000);
const KILLS = size('KILLS', 6);

const isAtRest = ({ connection }) => connection.state !== 'connected' || !connection.hasPending();

for (const type of [TEXT, RICH]) {
  test(`${type.name}: ${CLIENTS} clients on ${DOCS} documents, ${KILLS} kills (SEED=${SEED})`, async (t) => {
    const r = dice(`${SEED}/${type.name}`);
    const server = await Server.start();
    const clients = await Promise.all(Array.from({ length: CLIENTS }, () => Client.connect(server.ws)));
    t.after(() => {
      for (const client of clients) client.close();
      server.discard();
    });
    const ids = Array.from({ length: DOCS }, (_, n) => `doc-${n}`);
    for (const id of ids) {
      const data = type === TEXT ? someText(r, 30) : [{ insert: someText(r, 30) }, { insert: '\n' }];
      await called((done) => clients[0].doc(id).create(data, type.uri, done), 'create');
    }
    await Promise.all(clients.flatMap((client) => ids.map((id) => client.subscribed(id))));
    takeWarnings();
    const errors = [];
    let edits = 0;
    let cuts = 0;
    let kills = 0;
    /** While the server is down: resolves when it is up again. */
    let restarting = null;

    for (let step = 0; step < STEPS; step++) {
      const doc = r.pick(clients).doc(r.pick(ids));
      edits += 1;
      doc.submitOp(
        type === TEXT ? textEdit(r, doc.data) : richEdit(r, doc.data),
        (error) => error && errors.push(error),
      );
      if (r.chance(0.04)) {
        cuts += 1;
        const client = r.pick(clients);
        if (r.chance(0.5)) client.cut();
        else client.connection.socket.close();
      }
      if (!restarting && kills < Math.floor(((KILLS + 1) * step) / STEPS)) {
        kills += 1;
        restarting = server.restart().then(() => (restarting = null));
      }
      for (const client of clients) {
        if (!restarting && client.connection.state === 'disconnected' && r.chance(0.3)) client.rebind();
      }
      if (r.chance(0.5)) await turns(r.below(60));
      if (restarting && r.chance(0.03)) await restarting;
      // Limits how far a client runs ahead of the server, to a rate that a user could reach.
      if (!restarting && r.chance(0.05)) await until(() => clients.every(isAtRest), 'the acks come');
    }
    await restarting;
    for (const client of clients) {
      if (client.connection.state === 'disconnected') client.rebind();
      await client.connected();
    }
    for (const client of clients) await client.settled();

    const reader = await Client.connect(server.ws);
    for (const id of ids) {
      const truth = await reader.fetched(id);
      for (const client of clients) {
        const doc = client.doc(id);
        await until(() => doc.version === truth.version, `version ${truth.version} arrives; it is at ${doc.version}`);
        assert.deepEqual(plain(doc.data), plain(truth.data));
      }
      const log = await logOf(server, id);
      assertLog(log, clients, id);
      assert.deepEqual(replay(log), plain(truth.data), 'the log rebuilds the document');
    }
    const noise = {
      warnings: takeWarnings(),
      refetches: clients.reduce((sum, client) => sum + client.refetches, 0),
      errors: [...errors, ...clients.flatMap((client) => client.errors)].map(String),
    };
    reader.close();
    await server.stop();
    assert.deepEqual(noise, { warnings: [], refetches: 0, errors: [] });
    assert.ok(kills === KILLS && cuts > 0 && edits === STEPS, 'the storm was one');
  });
}
