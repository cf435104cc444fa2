// The base of most tests: one server per file, clients that are closed at the end, and checks that none had a warning.
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach } from 'node:test';
import { Client, takeWarnings } from './client.mjs';
import { assertLog, plain, replay } from './journal.mjs';
import { Server } from './server.mjs';
import { called, until } from './wait.mjs';
import { logOf } from './wire.mjs';

/** Sets up the tests of one file. */
export function setStage(options) {
  const stage = new Stage();
  before(async () => (stage.server = await Server.start(options)));
  beforeEach(() => stage.clear());
  afterEach(() => stage.assertOrderly());
  after(() => stage.server.stop());
  return stage;
}

class Stage {
  clients = [];
  documents = 0;

  clear() {
    this.clients = [];
    takeWarnings();
  }

  async client(options = {}) {
    const client = await Client.connect(options.url ?? this.server.ws, options);
    this.clients.push(client);
    return client;
  }

  /** A name that no document has. */
  freshId() {
    this.documents += 1;
    return `doc-${this.documents}`;
  }

  /** A new document of a type, as its creator and each of `readers` sees it. */
  async shared(type, data, [creator, ...readers]) {
    const id = this.freshId();
    const first = await creator.subscribed(id);
    await called((done) => first.create(data, type.uri, done), 'create');
    return [first, ...(await Promise.all(readers.map((reader) => reader.subscribed(id))))];
  }

  /** Waits until no op is pending and all clients have the version of the server. */
  async converged(docs) {
    for (const doc of docs) await until(() => !doc.hasPending(), 'every op is acknowledged');
    const reader = await this.client();
    const truth = await reader.fetched(docs[0].id, docs[0].collection);
    for (const doc of docs) {
      await until(() => doc.version >= truth.version, `version ${truth.version} arrives; it is at ${doc.version}`);
      assert.equal(doc.version, truth.version);
      assert.deepEqual(plain(doc.data), plain(truth.data));
    }
    const log = await logOf(this.server, truth.id, truth.collection);
    assertLog(log, this.clients, truth.id, truth.collection);
    assert.deepEqual(replay(log), plain(truth.data), 'the log rebuilds the document');
    return log;
  }

  /** A correct server causes no warnings and no gaps at its clients. */
  assertOrderly() {
    const noise = {
      warnings: takeWarnings(),
      refetches: this.clients.reduce((sum, client) => sum + client.refetches, 0),
      errors: this.clients.flatMap((client) => client.errors.map(String)),
    };
    for (const client of this.clients) client.close();
    this.clients = [];
    assert.deepEqual(noise, { warnings: [], refetches: 0, errors: [] });
  }
}
