// A client moves between servers with an op in flight, with the real ShareDB client. Each server accepts only client ids
// that it issued, so the op has an id that is foreign to every other server. Its ack is lost at each of them.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { Client, TEXT, takeWarnings } from './client.mjs';
import { Server } from './server.mjs';
import { called, until } from './wait.mjs';
import { logOf } from './wire.mjs';

const SECRET_BYTES = 32;
const MOVES_MAX = 3;
const isOp = ({ a }) => a === 'op';
const create = (doc, text) => called((done) => doc.create(text, TEXT.uri, done), 'create');

/** Stops the server, gives its store another key for client ids, and starts it again. Returns the previous key. */
async function changeKey(server, key = randomBytes(SECRET_BYTES)) {
  await server.kill('SIGTERM');
  const file = path.join(server.data, 'copydesk.db');
  const bytes = readFileSync(file);
  // The row has the name of the key followed by the key.
  const name = bytes.indexOf('shared');
  assert.ok(name > 0 && name === bytes.lastIndexOf('shared'), 'the row of the key is found');
  const start = name + 'shared'.length;
  const previous = Buffer.from(bytes.subarray(start, start + SECRET_BYTES));
  key.copy(bytes, start);
  writeFileSync(file, bytes);
  await server.boot();
  return previous;
}

/** Inserts `text` at the start of the document. The ack is lost; resolves when it was sent. */
async function insertUnacked(client, doc, text) {
  const { length } = client.lost;
  client.losesReceived = isOp;
  doc.submitOp([text]);
  await until(() => client.lost.length > length, 'the server has acked the op');
}

/** Reconnects. The answer to the op that is sent again is lost too, and is an ack. */
async function moveUnacked(client, url, inFlight = 1) {
  const { length } = client.lost;
  await client.reconnect(url);
  await until(() => client.lost.length >= length + inFlight, 'the server has acked the op again');
  for (const { error } of client.lost.slice(length)) assert.equal(error, undefined);
}

/** Reconnects without losing answers: everything is acked. */
async function arrive(client, url) {
  client.losesReceived = () => false;
  await client.reconnect(url);
  await client.settled();
}

/** A client of this server at version 1 of the document, and the errors of its documents. */
async function openClient(server, id) {
  const client = await Client.connect(server.ws);
  const doc = await client.subscribed(id);
  await create(doc, 'text');
  const errors = [];
  doc.on('error', (error) => errors.push(error.code));
  return { client, doc, errors };
}

async function textAt(server, id) {
  const reader = await Client.connect(server.ws);
  const doc = await reader.fetched(id);
  reader.close();
  return doc.data;
}

beforeEach(() => takeWarnings());

describe('one store whose key for client ids changes', () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.stop());

  for (let moves = 1; moves <= MOVES_MAX; moves++) {
    test(`an op is committed once after ${moves} changes`, async () => {
      const id = `changed ${moves}`;
      const { client, doc, errors } = await openClient(server, id);
      await insertUnacked(client, doc, 'new ');
      const ids = new Set([client.connection.id]);
      for (let move = 1; move <= moves; move++) {
        client.cut();
        await changeKey(server);
        await moveUnacked(client, server.ws);
        ids.add(client.connection.id);
      }
      client.cut();
      await arrive(client, server.ws);
      assert.equal(ids.size, moves + 1, 'each server has given it an id');
      assert.deepEqual([doc.data, errors], ['new text', []]);
      await called((done) => doc.submitOp(['more '], done), 'the next op');
      assert.equal(await textAt(server, id), 'more new text');
      assert.equal((await logOf(server, id)).length, 3);
      client.close();
    });
  }

  test('an op that was committed under another key is acked when the first key is back', async () => {
    const id = 'there and back';
    const { client, doc, errors } = await openClient(server, id);
    client.losesSent = isOp;
    doc.submitOp(['new ']);
    // The library gives the op its client id when it sends it.
    await until(() => doc.inflightOp?.src === client.connection.id, 'the op is sent');
    client.cut();
    const first = await changeKey(server);
    client.losesSent = () => false;
    client.losesReceived = isOp;
    await moveUnacked(client, server.ws);
    client.cut();
    await changeKey(server, first);
    await arrive(client, server.ws);
    assert.deepEqual([doc.data, doc.version, errors], ['new text', 2, []]);
    assert.equal(await textAt(server, id), 'new text');
    assert.equal((await logOf(server, id)).length, 2);
    client.close();
  });

  test('ops that were made between the moves are committed as well', async () => {
    const opened = await openClient(server, 'left first');
    const { client, doc, errors } = opened;
    const other = await client.subscribed('left second');
    await create(other, 'text');
    await insertUnacked(client, doc, 'new ');
    client.cut();
    await changeKey(server);
    await moveUnacked(client, server.ws);
    await insertUnacked(client, other, 'newer ');
    client.cut();
    await changeKey(server);
    await moveUnacked(client, server.ws, 2);
    client.cut();
    await arrive(client, server.ws);
    assert.deepEqual([doc.data, other.data, errors], ['new text', 'newer text', []]);
    for (const id of ['left first', 'left second']) assert.equal((await logOf(server, id)).length, 2);
    client.close();
  });
});

describe('servers with stores of their own', () => {
  let servers;
  before(async () => (servers = await Promise.all([1, 2, 3].map(() => Server.start()))));
  after(() => Promise.all(servers.map((server) => server.stop())));

  for (const route of [
    [0, 1, 2],
    [0, 1, 0],
    [0, 1, 2, 1, 0, 2],
  ]) {
    test(`an op moves along ${route.join(', ')}`, async () => {
      const id = `moved ${route.join(' ')}`;
      const { client, doc, errors } = await openClient(servers[0], id);
      for (const server of servers.slice(1)) (await openClient(server, id)).client.close();
      await insertUnacked(client, doc, 'new ');
      for (const at of route.slice(1)) {
        client.cut();
        await moveUnacked(client, servers[at].ws);
      }
      const last = servers[route.at(-1)];
      client.cut();
      await arrive(client, last.ws);
      assert.deepEqual([doc.data, errors], ['new text', []]);
      for (const at of new Set(route)) {
        assert.equal(await textAt(servers[at], id), 'new text');
        assert.equal((await logOf(servers[at], id)).length, 2);
      }
      client.close();
    });
  }
});
