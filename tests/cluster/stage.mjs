// The base of the cluster tests: users on its nodes, documents they write into, and the checks at the end.
import assert from 'node:assert/strict';
import { RICH, TEXT, takeWarnings } from '../js/client.mjs';
import { dice, SEED } from '../js/random.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster } from './cluster.mjs';
import { Hearsay, Person, tokensOf, Writer } from './crowd.mjs';
import { audit, compare, Findings, logIn } from './ledger.mjs';

/** The time limit for all clients to converge when nothing disturbs them any more. */
const CONVERGED_WITHIN_MS = 30_000;

/** A few heartbeats. */
const SETTLED_AFTER_MS = 2_500;

let stages = 0;

export class Stage {
  /** Starts a cluster for one test, which stops with it. */
  static async set(t, options) {
    const cluster = await Cluster.start(options);
    const stage = Stage.on(cluster, t);
    t.after(() => cluster.stop());
    return stage;
  }

  /** Uses a cluster that other tests use as well. */
  static on(cluster, t) {
    const stage = new Stage(cluster, `${SEED}/${t.name}`);
    t.after(() => {
      stage.strike();
      // Findings of this test must not fail the next one.
      return cluster.calm();
    });
    return stage;
  }

  constructor(cluster, seed) {
    this.cluster = cluster;
    this.r = dice(seed);
    this.hearsay = new Hearsay();
    this.people = [];
    this.writers = [];
    /** The documents by id, with the types they were created with. */
    this.documents = new Map();
    this.number = stages++;
    takeWarnings();
  }

  /** A user who connects to `nodes` in turn, beginning with the first; to all of them or the balancer if none are named. */
  async person(...nodes) {
    const { cluster, hearsay } = this;
    const doors = nodes.length ? nodes : cluster.balancer ? [cluster.balancer] : this.r.shuffled(cluster.nodes);
    let visits = 0;
    const route = () => doors[visits++ % doors.length].ws;
    const person = await Person.arrive(route, { hearsay, r: this.r });
    this.people.push(person);
    return person;
  }

  /** Creates documents, half plain and half rich unless a type is named. */
  async documentsOf(person, count, type) {
    const ids = Array.from({ length: count }, (_, n) => `doc-${this.number}-${this.documents.size + n + 1}`);
    await Promise.all(
      ids.map(async (id, n) => {
        const { uri } = type ?? [TEXT, RICH][n % 2];
        const doc = await person.subscribed(id);
        await called((done) => doc.create(uri === TEXT.uri ? '' : [{ insert: '\n' }], uri, done), 'create', 30_000);
        this.documents.set(id, uri);
      }),
    );
    return ids;
  }

  /** All users read all of these documents, and each writes into `docsEach` of them. */
  async write(people, ids, { docsEach = ids.length, ...how } = {}) {
    const begun = [];
    for (const person of people) {
      const docs = await Promise.all(ids.map((id) => person.subscribed(id)));
      for (const doc of this.r.shuffled(docs).slice(0, docsEach)) {
        begun.push(new Writer(person, doc, { name: String(this.writers.length + begun.length), ...how }));
      }
    }
    this.writers.push(...begun);
    begun.forEach((writer) => writer.start());
    return begun;
  }

  /** Starts a writer on a document that is subscribed. */
  writing(person, id, how) {
    this.writers.push(new Writer(person, person.doc(id), how).start());
  }

  /** The sum of the epochs of all documents: the number of claims. */
  async claims() {
    return [...(await this.cluster.heads()).values()].reduce((sum, { epoch }) => sum + epoch, 0);
  }

  get acks() {
    return this.writers.reduce((sum, { acked }) => sum + acked, 0);
  }

  /** Waits until this many more edits are acknowledged. */
  async progress(count, what = 'writing goes on', patienceMs = 30_000) {
    const enough = this.acks + count;
    await until(() => this.acks >= enough, `${what}: ${enough - this.acks} more acks`, patienceMs);
  }

  /** Waits until every writer is acknowledged an edit that it begins from now on. Returns how long that took. */
  async allResume(writers = this.writers, what = 'every writer goes on', patienceMs = 30_000) {
    const start = performance.now();
    // One ack may have been in flight.
    const enough = writers.map(({ acked }) => acked + 2);
    const resumed = () => writers.every(({ acked }, n) => acked >= enough[n]);
    await until(resumed, what, patienceMs).catch((error) => {
      const stuck = writers.filter(({ acked }, n) => acked < enough[n]);
      throw new Error(`${error.message}; ${stuck.length} are stuck: ${stuck.slice(0, 5).map(describe).join('; ')}`);
    });
    return performance.now() - start;
  }

  /** The owners of the documents, once they have been stable: after a change of nodes, documents move. */
  async settledOwners() {
    let [owners, since] = ['', 0];
    const isSettled = async () => {
      const now = JSON.stringify([...(await this.cluster.owners())].sort());
      if (now !== owners) [owners, since] = [now, performance.now()];
      return performance.now() - since > SETTLED_AFTER_MS;
    };
    await until(isSettled, 'no document changes its owner', 30_000);
    return new Map(JSON.parse(owners));
  }

  /** Stops all writers, waits until all is acknowledged, and compares clients, nodes and Postgres. Returns the number of edits. */
  async assertSound({ mayRefetch = true } = {}) {
    const { cluster, people, hearsay } = this;
    const findings = await this.examine();
    assert.equal(findings.count, 0, `found:\n${findings}`);
    assert.deepEqual(
      people.flatMap(({ refusals, errors }) => [...refusals, ...errors.map(String)]),
      [],
      'no edit was rejected',
    );
    assert.deepEqual(hearsay.contradictions, []);
    const noise = { warnings: takeWarnings(), refetches: people.reduce((sum, { refetches }) => sum + refetches, 0) };
    assert.equal(
      people.reduce((sum, { gapFetches }) => sum + gapFetches, 0),
      0,
      'no commit came with a gap before it',
    );
    if (!mayRefetch) assert.deepEqual(noise, { warnings: [], refetches: 0 });
    for (const { panics } of cluster.nodes) assert.deepEqual(panics, []);
    return this.acks;
  }

  /** All findings when no client writes. */
  async examine() {
    const { cluster, people, writers, documents, hearsay } = this;
    const findings = new Findings();
    for (const writer of writers) writer.stop();
    const isAtRest = (person) => person.isConnected && !person.connection.hasPending();
    await until(() => people.every(isAtRest), 'all is acknowledged', CONVERGED_WITHIN_MS).catch((error) => {
      const stuck = writers.filter(({ isWaiting }) => isWaiting);
      findings.unequal.push(`${error.message}: ${stuck.slice(0, 5).map(describe).join('; ')}`);
    });
    const readers = await Promise.all(cluster.nodes.map((node) => this.person(node)));
    for (const id of documents.keys()) {
      const log = await logIn(cluster.postgres, id);
      audit(log, { id, clients: people, hearsay }, findings);
      const docs = people.flatMap((person, n) => {
        const doc = person.connection.getExisting('docs', id);
        return doc?.subscribed ? [{ who: `person ${n} on ${person.url}`, doc }] : [];
      });
      const isUp = () => docs.every(({ doc }) => doc.version >= log.length);
      await until(isUp, 'all are up to date', CONVERGED_WITHIN_MS).catch(() => {});
      await Promise.all(
        readers.map(async (reader, n) => {
          const who = `a reader on ${cluster.nodes[n].name}`;
          const late = (error) => findings.unequal.push(`${id}: ${who}: ${error.message}`);
          const doc = await reader.fetched(id).catch(late);
          if (doc?.id) docs.push({ who, doc });
        }),
      );
      compare(log, docs, findings);
      const tokenists = writers.filter(({ doc, style }) => doc.id === id && style === 'tokens');
      if (tokenists.length) count(tokenists, findings);
    }
    return findings;
  }

  /** Closes all clients. */
  strike() {
    for (const writer of this.writers) writer.stop();
    for (const person of this.people) person.leave();
  }
}

/** Checks that each typed word is in the document once, and nothing else. */
function count(writers, findings) {
  const [{ doc }] = writers;
  const typed = writers.flatMap((writer) => writer.typed).sort();
  const found = doc.type ? tokensOf(doc) : [];
  if (typed.join() !== found.join())
    findings.unequal.push(`${doc.id}: ${typed.length} words were typed, ${found.length} are there`);
}

function describe({ person, doc, startedAt }) {
  const waitedMs = Math.round(performance.now() - startedAt);
  const { connection, url } = person;
  return `${doc.id} at version ${doc.version}, ${connection.state} on ${url}, for ${waitedMs} ms`;
}
