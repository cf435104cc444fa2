// Connections break after a random number of bytes, in the middle of messages, in both directions: every edit is
// committed once. CUTS sets how many breaks there are (`make cuts` makes 10,000), SEED repeats a run's choices.
import assert from 'node:assert/strict';
import net from 'node:net';
import { test } from 'node:test';
import { Delta, RICH, TEXT } from './client.mjs';
import { dice, SEED } from './random.mjs';
import { setStage } from './stage.mjs';
import { until } from './wait.mjs';

const CUTS = Number(process.env.CUTS ?? 500);
const CLIENTS = 6;

/**
 * A connection passes at least one byte before it breaks, and at most 2 ** BYTES_BITS in one direction. All orders of magnitude
 * are equally likely, so that most connections get as far as an open socket.
 */
const BYTES_BITS = 13;
const HANDSHAKE_BYTES = 400;

/** The average time per cut after which the test fails, with reserve for a busy machine. */
const PATIENCE_MS_A_CUT = 400;

const stage = setStage();
const r = dice(`${SEED}/cuts`);

/** A proxy that breaks each connection after a random number of bytes. */
class Cutter {
  isCutting = true;
  cuts = 0;
  /** The number of broken connections in each direction, and of those before the WebSocket was open. */
  places = { server: 0, client: 0, handshake: 0 };

  static async to(server) {
    const cutter = new Cutter();
    cutter.listener = net.createServer((client) => cutter.link(client, net.connect(server.port, '127.0.0.1')));
    await new Promise((resolve) => cutter.listener.listen(0, '127.0.0.1', resolve));
    return cutter;
  }

  get ws() {
    return `ws://127.0.0.1:${this.listener.address().port}/ws`;
  }

  link(client, server) {
    const side = r.pick(['server', 'client']);
    const bytes = Math.floor(2 ** (r.below(BYTES_BITS * 1_000) / 1_000)) + (r.chance(0.8) ? HANDSHAKE_BYTES : 0);
    const link = { left: this.isCutting ? bytes : Infinity, isCut: false, passed: 0 };
    this.carry(link, client, server, side === 'server', side);
    this.carry(link, server, client, side === 'client', side);
  }

  /** Passes data on; if it is `limited`, up to the byte at which the connection breaks. */
  carry(link, from, to, limited, side) {
    from.on('data', (chunk) => {
      if (link.isCut) return;
      const part = limited ? chunk.subarray(0, link.left) : chunk;
      to.write(part);
      link.passed += part.length;
      if (!limited) return;
      link.left -= part.length;
      if (link.left > 0) return;
      link.isCut = true;
      this.cuts += 1;
      this.places[side] += 1;
      if (link.passed < HANDSHAKE_BYTES) this.places.handshake += 1;
      // What was passed before arrives. One end sees an orderly close, the other possibly a reset.
      to.end();
      if (r.chance(0.5)) from.destroy();
      else from.end();
    });
    from.on('error', () => {});
    from.on('close', () => to.end());
  }

  close() {
    this.listener.close();
  }
}

/** A client that types unique words into one document after the other, and reconnects whenever its connection breaks. */
class Typist {
  typed = [];

  constructor(client, docs, name) {
    Object.assign(this, { client, docs, name, isTyping: true });
    client.connection.on('disconnected', () => setImmediate(() => client.rebind()));
    this.type();
  }

  type() {
    if (!this.isTyping) return;
    const doc = r.pick(this.docs);
    const word = `[${this.name}.${this.typed.length}]`;
    this.typed.push({ word, id: doc.id });
    const op = doc.type.uri === TEXT.uri ? [word] : new Delta().insert(word);
    doc.submitOp(op, (error) => {
      assert.ifError(error);
      this.type();
    });
  }
}

const textOf = ({ data }) => (typeof data === 'string' ? data : data.ops.map(({ insert }) => insert).join(''));

test(`${CUTS} breaks at random bytes: every edit is committed once (SEED=${SEED})`, {
  timeout: 60_000 + CUTS * PATIENCE_MS_A_CUT,
}, async (t) => {
  const cutter = await Cutter.to(stage.server);
  t.after(() => cutter.close());
  cutter.isCutting = false;
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => stage.client({ url: cutter.ws })));
  const groups = [];
  for (const [type, data] of [
    [TEXT, ''],
    [RICH, [{ insert: '\n' }]],
    [TEXT, ''],
    [RICH, [{ insert: '\n' }]],
  ]) {
    groups.push(await stage.shared(type, data, clients));
  }
  cutter.isCutting = true;
  const typists = clients.map(
    (client, n) =>
      new Typist(
        client,
        groups.map((docs) => docs[n]),
        n,
      ),
  );
  // The open connections were made before, and break no more.
  for (const client of clients) client.cut();
  await until(() => cutter.cuts >= CUTS, `${CUTS} connections have broken`, 30_000 + CUTS * PATIENCE_MS_A_CUT, 10);
  cutter.isCutting = false;
  for (const typist of typists) typist.isTyping = false;
  // Connections that are still open may break.
  await until(
    () => clients.every(({ connection }) => connection.state === 'connected' && !connection.hasPending()),
    'all is acknowledged',
    60_000,
  );
  for (const docs of groups) {
    await stage.converged(docs);
    const words = typists.flatMap(({ typed }) => typed.filter(({ id }) => id === docs[0].id).map(({ word }) => word));
    assert.deepEqual((textOf(docs[0]).match(/\[[^\]]*\]/g) ?? []).length, words.length, 'as many words as were typed');
    for (const word of words) assert.equal(textOf(docs[0]).split(word).length, 2, `${word} is there once`);
  }
  const { server, client, handshake } = cutter.places;
  t.diagnostic(
    `${cutter.cuts} breaks: ${server} on the way to the server, ${client} on the way back, ${handshake} before the socket was open`,
  );
  t.diagnostic(`${typists.reduce((sum, { typed }) => sum + typed.length, 0)} edits`);
  assert.ok(server > CUTS / 10 && client > CUTS / 10, 'breaks in both directions');
});
