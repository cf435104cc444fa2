// Two clients that edit while other clients misbehave, and measure whether they are affected.
import assert from 'node:assert/strict';
import { Client, TEXT, takeWarnings } from './client.mjs';
import { called, until } from './wait.mjs';

/** The longest delivery of an edit from one client to the other while others misbehave, on a busy machine. */
const LATENCY_MS_MAX = 3_000;

/** The most memory that the server may hold, for any input. */
const RSS_BYTES_MAX = 400 * 2 ** 20;

export class Bystander {
  /** `options` are those of both of its clients. */
  static async join(server, options = {}) {
    const clients = [await Client.connect(server.ws, options), await Client.connect(server.ws, options)];
    const mine = await clients[0].subscribed('bystander');
    await called((done) => mine.create('', TEXT.uri, done), 'create');
    const theirs = await clients[1].subscribed('bystander');
    takeWarnings();
    return new Bystander(server, clients, mine, theirs);
  }

  constructor(server, clients, mine, theirs) {
    Object.assign(this, { server, clients, mine, theirs });
    this.worstMs = 0;
    this.isTyping = false;
  }

  /** One edit, from one client's submit to its arrival at the other. */
  async types() {
    const start = performance.now();
    const version = this.theirs.version + 1;
    this.mine.submitOp(this.mine.data.length > 20 ? [{ d: 10 }] : ['x']);
    await until(() => this.theirs.version >= version && !this.mine.hasPending(), 'the bystander sees the edit');
    this.worstMs = Math.max(this.worstMs, performance.now() - start);
  }

  /** Types until `act` has ended. */
  async whileTyping(act) {
    let isDone = false;
    const acted = act().finally(() => (isDone = true));
    while (!isDone) await this.types();
    return acted;
  }

  /** The server process is the same, holds little memory, and delivers edits. */
  async assertWell() {
    assert.ok(this.server.isAlive, `the server ended:\n${this.server.log}`);
    await this.types();
    assert.deepEqual(this.server.panics, []);
    assert.ok(this.worstMs < LATENCY_MS_MAX, `the bystander waited ${Math.round(this.worstMs)} ms`);
    this.worstMs = 0;
    const rss = this.server.rssBytes();
    assert.ok(rss < RSS_BYTES_MAX, `the server holds ${Math.round(rss / 2 ** 20)} MB`);
    const { clients, mine, theirs } = this;
    assert.deepEqual(
      {
        states: clients.map((client) => client.connection.state),
        refetches: clients.map((client) => client.refetches),
        errors: clients.flatMap((client) => client.errors.map(String)),
        warnings: takeWarnings(),
      },
      { states: ['connected', 'connected'], refetches: [0, 0], errors: [], warnings: [] },
    );
    assert.equal(theirs.data, mine.data);
  }

  leave() {
    for (const client of this.clients) client.close();
  }
}
