// The load that a cluster puts on Postgres: a fixed number of connections, and no statements for idle open documents.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { TEXT } from '../js/client.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { Stage } from './stage.mjs';

/** The most connections of one node: the sum of the settings for append, claim and read in config.toml. */
const CONNECTIONS_MAX = 1 + 4 + 8;

/** The statements of one heartbeat: live nodes and changes. */
const OF_A_BEAT = /INSERT INTO nodes|FROM cursor CROSS JOIN change_feed/;
const STATEMENTS_A_BEAT = 2;

/** Deletes old rows of the feed of changes: every 5 s at each node, which is every tenth heartbeat. */
const TRIM = /UPDATE change_feed/;

/** Reads the list of quarantined documents: once a second at each node, which is every other heartbeat. */
const QUARANTINE = /FROM quarantine WHERE/;

const IDLE = 1_000;

/**
 * The number of heartbeats of each node that are examined, and the number before them without other statements: earlier work
 * may still be written for that long.
 */
const BEATS = 10;
const SETTLED_AFTER_BEATS = 5;
const SETTLED_WITHIN_BEATS = 60;

const LIMIT = { timeout: 180_000 };

const skip = missing();
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 2 }))));
after(() => skip || cluster.stop());

/** The number of connections of each node, by name. */
async function connections() {
  const rows = await cluster.postgres.query(
    `SELECT application_name AS name, count(*)::int AS held FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY 1`,
  );
  return new Map(rows.map(({ name, held }) => [name, held]));
}

async function logStatements(which) {
  await cluster.postgres.query(`ALTER SYSTEM SET log_statement = '${which}'`);
  await cluster.postgres.query('SELECT pg_reload_conf()');
}

/** The statements of the nodes during a number of heartbeats of each. */
async function watched(beatsEach) {
  cluster.postgres.log = '';
  const beats = () => cluster.postgres.log.match(/INSERT INTO nodes/g)?.length ?? 0;
  await until(() => beats() >= beatsEach * cluster.nodes.length, 'some heartbeats', 60_000);
  const lines = cluster.postgres.log.split(/^(?=\d{4}-\d\d-\d\d )/m).filter((line) => line.includes('[copydesk'));
  const said = lines.map((line) => /LOG: +(?:statement|execute [^:]*): ([\s\S]*)/.exec(line)?.[1]);
  return said.filter(Boolean).map((text) => text.replace(/\s+/g, ' ').trim());
}

const trims = (statements) => statements.filter((text) => TRIM.test(text));
const quarantines = (statements) => statements.filter((text) => QUARANTINE.test(text));
const besides = (statements) => statements.filter((text) => ![OF_A_BEAT, TRIM, QUARANTINE].some((it) => it.test(text)));

/**
 * The statements of `BEATS` heartbeats of each node, after earlier work is written. None is left out, so that rare
 * statements are found.
 */
async function idle() {
  await logStatements('all');
  try {
    let others;
    for (let beats = 0; beats < SETTLED_WITHIN_BEATS; beats += SETTLED_AFTER_BEATS) {
      others = besides(await watched(SETTLED_AFTER_BEATS));
      if (!others.length) return await watched(BEATS);
    }
    throw new Error(`the nodes do not come to rest: ${[...new Set(others)].join('; ')}`);
  } finally {
    await logStatements('none');
  }
}

describe('the store', { skip }, () => {
  test(`${IDLE} idle open documents cost ${STATEMENTS_A_BEAT} statements a heartbeat, as ten do`, LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const people = [await stage.person(cluster.nodes[0]), await stage.person(cluster.nodes[1])];
    const open = async (count) => {
      const ids = await stage.documentsOf(people[0], count, TEXT);
      people[1].connection.startBulk();
      const subscribed = ids.map((id) => called((done) => people[1].doc(id).subscribe(done), 'subscribe', 30_000));
      people[1].connection.endBulk();
      await Promise.all(subscribed);
    };
    for (const [more, count] of [
      [10, 10],
      [IDLE - 10, IDLE],
    ]) {
      await open(more);
      const statements = await idle();
      assert.deepEqual(besides(statements), [], 'nothing but heartbeats');
      const beats = statements.filter((text) => text.includes('INSERT INTO nodes')).length;
      t.diagnostic(`${statements.length} statements of ${beats} heartbeats with ${count} documents`);
      // The first and the last heartbeat of each node are incomplete.
      const listed = quarantines(statements).length;
      const ofBeats = statements.length - trims(statements).length - listed;
      assert.ok(
        ofBeats <= (beats + cluster.nodes.length) * STATEMENTS_A_BEAT,
        `${ofBeats} statements of ${beats} heartbeats`,
      );
      assert.ok(listed <= beats / 2 + 2 * cluster.nodes.length, `${listed} lists of quarantined documents`);
      assert.ok(trims(statements).length <= 2 * cluster.nodes.length, `${trims(statements).length} trims`);
    }
  });

  test('the connections of a node do not grow with the load', LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const people = await Promise.all(Array.from({ length: 40 }, (_, n) => stage.person(cluster.nodes[n % 2])));
    const ids = await stage.documentsOf(people[0], 40);
    await stage.write(people, ids, { docsEach: 4 });
    let most = 0;
    for (let look = 0; look < 10; look++) {
      await stage.progress(300);
      const held = await connections();
      for (const { name } of cluster.nodes) {
        const count = [...held].reduce((sum, [who, held]) => sum + (who.includes(name) ? held : 0), 0);
        assert.ok(count > 0, `connections of ${name} among ${[...held.keys()]}`);
        most = Math.max(most, count);
      }
    }
    t.diagnostic(`at most ${most} connections of one node`);
    assert.ok(most <= CONNECTIONS_MAX, `${most} connections of one node`);
    await stage.assertSound();
  });
});
