// What a cluster costs its store: a fixed number of connections, and nothing for what is merely open.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { TEXT } from '../js/client.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { Stage } from './stage.mjs';

/** The most connections that one node may hold: two lanes, and its pools for claims and reads. */
const CONNECTIONS_MAX = Number(process.env.CONNECTIONS_MAX ?? 14);

/** The most statements of one heartbeat: who lives, what was lost, what is newer. */
const STATEMENTS_A_BEAT_MAX = 3;

const IDLE = 1_000;
const BEATS = 5;

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

describe('the store', { skip, timeout: 120_000 }, () => {
  test(`1,000 open documents that nobody edits cost ${STATEMENTS_A_BEAT_MAX} statements a heartbeat, as ten do`, async (t) => {
    const stage = Stage.on(cluster, t);
    const people = [await stage.person(cluster.nodes[0]), await stage.person(cluster.nodes[1])];
    /** How many statements the nodes say for each heartbeat, all in all. */
    const cost = async () => {
      await logStatements('all');
      cluster.postgres.log = '';
      const count = (what) => cluster.postgres.log.match(what)?.length ?? 0;
      await until(() => count(/INSERT INTO nodes/g) >= BEATS * cluster.nodes.length, 'five heartbeats', 20_000);
      const each = count(/\[copydesk.*LOG: +(statement|execute)/g) / count(/INSERT INTO nodes/g);
      await logStatements('none');
      return each;
    };
    const open = async (count) => {
      const ids = await stage.documentsOf(people[0], count, TEXT);
      people[1].connection.startBulk();
      const subscribed = ids.map((id) => called((done) => people[1].doc(id).subscribe(done), 'subscribe', 30_000));
      people[1].connection.endBulk();
      await Promise.all(subscribed);
    };
    await open(10);
    const few = await cost();
    await open(IDLE - 10);
    const many = await cost();
    t.diagnostic(`${few.toFixed(2)} statements a heartbeat with 10 documents, ${many.toFixed(2)} with ${IDLE}`);
    // Beats at the edges of the watch are counted by half.
    assert.ok(many < STATEMENTS_A_BEAT_MAX + 0.5, `${many} statements a heartbeat`);
  });

  test('the connections of a node do not grow with the load', async (t) => {
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
