// What a cluster costs its store: a fixed number of connections, and nothing for what is merely open.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { TEXT } from '../js/client.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { Stage } from './stage.mjs';

/** The most connections that one node may hold: as many as config.toml says append, claim and read. */
const CONNECTIONS_MAX = 1 + 4 + 8;

/** The statements of one heartbeat: who lives, what was lost, what is newer. */
const OF_A_BEAT = /INSERT INTO nodes|SELECT asked\.place/;
const STATEMENTS_A_BEAT = 3;

const IDLE = 1_000;

/** How many heartbeats of each node are looked at, and how often, until nothing of what was done before comes between. */
const BEATS = 5;
const WINDOWS = 12;

const LIMIT = { timeout: 180_000 };

const skip = missing();
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 2 }))));
after(() => skip || cluster.stop());

/** How many connections each node holds, by its name. */
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

/** The statements of the nodes, of some heartbeats. */
async function watched() {
  cluster.postgres.log = '';
  const beats = () => cluster.postgres.log.match(/INSERT INTO nodes/g)?.length ?? 0;
  await until(() => beats() >= BEATS * cluster.nodes.length, 'some heartbeats', 20_000);
  const lines = cluster.postgres.log.split(/^(?=\d{4}-\d\d-\d\d )/m).filter((line) => line.includes('[copydesk'));
  const said = lines.map((line) => /LOG: +(?:statement|execute [^:]*): ([^]*)/.exec(line)?.[1]);
  return said.filter(Boolean).map((text) => text.replace(/\s+/g, ' ').trim());
}

/** The statements of heartbeats among which there is nothing else: what was done before may still be written down. */
async function quiet() {
  await logStatements('all');
  let others;
  for (let window = 0; window < WINDOWS; window++) {
    const statements = await watched();
    others = statements.filter((text) => !OF_A_BEAT.test(text));
    if (others.length) continue;
    await logStatements('none');
    return statements;
  }
  await logStatements('none');
  throw new Error(`idle documents are asked about again and again: ${[...new Set(others)].join('; ')}`);
}

describe('the store', { skip }, () => {
  test(`${IDLE} open documents that nobody edits cost ${STATEMENTS_A_BEAT} statements a heartbeat, as ten do`, LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const people = [await stage.person(cluster.nodes[0]), await stage.person(cluster.nodes[1])];
    const open = async (count) => {
      const ids = await stage.documentsOf(people[0], count, TEXT);
      people[1].connection.startBulk();
      const subscribed = ids.map((id) => called((done) => people[1].doc(id).subscribe(done), 'subscribe', 30_000));
      people[1].connection.endBulk();
      await Promise.all(subscribed);
    };
    for (const [more, count] of [[10, 10], [IDLE - 10, IDLE]]) {
      await open(more);
      const statements = await quiet();
      const beats = statements.filter((text) => text.includes('INSERT INTO nodes')).length;
      t.diagnostic(`${statements.length} statements of ${beats} heartbeats with ${count} documents`);
      // The first and the last beat of each node are seen in part.
      assert.ok(statements.length <= (beats + cluster.nodes.length) * STATEMENTS_A_BEAT);
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
