// Permissions in a cluster: what is revoked at one node applies to the open sockets of all nodes.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser } from '../js/browser.mjs';
import { TEXT } from '../js/client.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { Stopwatch, span } from './stopwatch.mjs';

const ROUNDS = 50;

/** The time limit on every node, from the request that revokes. A longer time fails the test. */
const WITHIN_MS = { downgrade: 1_000, revocation: 5_000 };

const skip = missing();
const env = {
  COPYDESK__AUTH__MODE: 'accounts',
  COPYDESK__AUTH__REGISTRATION: 'open',
  // All users of these tests have one address.
  COPYDESK__GATEWAY__ADDRESS_HANDSHAKES_PER_SECOND: '100000',
};

/** The number of sockets that reconnect at once, the rounds, and the most connections to Postgres of one node meanwhile. */
const STORM_SOCKETS = 400;
const STORMS = 10;
const STORM_USERS = 4;
const STORM_CONNECTIONS_MAX = 18;
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 3, env }))));
after(() => skip || cluster.stop());

/** The same browser, over a given node. */
function at(browser, node) {
  const there = browser.copy();
  there.server = node;
  return there;
}

/** A socket of one user on each node. */
const everywhere = (browser) =>
  Promise.all(cluster.nodes.map((node) => at(browser, node).wire({ path: '/ws?rights' })));

/** The times from `act` until each node's socket `sees`. */
async function delays(wires, act, sees, what) {
  const seen = wires.map((wire) => span(() => until(() => sees(wire), what)));
  await act();
  return Promise.all(seen);
}

/** The number of connections to Postgres of each node, by its application name. */
async function connections() {
  const rows = await cluster.postgres.query(
    `SELECT application_name AS name, count(*)::int AS held FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND application_name LIKE 'copydesk%' GROUP BY 1`,
  );
  const held = new Map(cluster.nodes.map(({ name }) => [name, 0]));
  for (const row of rows) {
    const node = cluster.nodes.find(({ name }) => row.name.includes(name));
    if (node) held.set(node.name, held.get(node.name) + row.held);
  }
  return held;
}

describe('permissions on three nodes', { skip, timeout: 180_000 }, () => {
  let ann;
  before(async () => {
    if (!skip) ann = await Browser.registered(cluster.nodes[0], 'ann');
  });

  test(`a downgrade applies to the open sockets of every node within ${WITHIN_MS.downgrade} ms`, async (t) => {
    const bob = await Browser.registered(cluster.nodes[1], 'bob');
    const client = await ann.client();
    const doc = client.doc('plan');
    await called((done) => doc.create('', TEXT.uri, done), 'create');
    await ann.gives('bob', 'viewer', 'plan');
    const wires = await everywhere(bob);
    for (const wire of wires) {
      wire.say({ a: 's', c: 'docs', d: 'plan' });
      await wire.heard(({ a }) => a === 's', 'the subscription');
    }
    const hears = (role, start) => (wire) =>
      wire.messages.slice(start.get(wire)).some((message) => message.a === 'rights' && message.role === role);
    const from = () => new Map(wires.map((wire) => [wire, wire.messages.length]));
    const watch = await Stopwatch.begin(t);
    const found = [];
    let seq = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const owner = at(ann, cluster.nodes[round % 3]);
      await delays(wires, () => owner.gives('bob', 'editor', 'plan'), hears('editor', from()), 'bob may write');
      found.push(
        ...(await delays(
          wires,
          () => owner.gives('bob', 'viewer', 'plan'),
          hears('viewer', from()),
          'bob may not write',
        )),
      );
      const wire = wires[round % 3];
      seq += 1;
      wire.say({ a: 'op', c: 'docs', d: 'plan', v: null, seq, x: {}, op: ['x'] });
      const answer = await wire.heard(
        (message) => message.a === 'op' && message.seq === seq && (message.error || message.src),
        'the answer',
      );
      assert.equal(answer.error?.code, 'ERR_FORBIDDEN');
    }
    await watch.assertWithin(t, found, WITHIN_MS.downgrade, 'a downgrade holds on a node');
    for (const wire of wires) wire.end();
    client.close();
  });

  test(`signing out everywhere closes the sockets on every node within ${WITHIN_MS.revocation} ms`, async (t) => {
    const eve = await Browser.registered(cluster.nodes[2], 'eve');
    const watch = await Stopwatch.begin(t);
    const found = [];
    for (let round = 0; round < ROUNDS; round++) {
      const wires = await everywhere(eve);
      const leaver = at(eve, cluster.nodes[round % 3]);
      const leave = async () => assert.equal((await leaver.post('/api/sign-out-everywhere')).status, 200);
      found.push(...(await delays(wires, leave, (wire) => wire.isOver, 'the sockets are closed')));
      assert.deepEqual(
        wires.map(({ closeCode }) => closeCode),
        [4401, 4401, 4401],
      );
      for (const node of cluster.nodes) assert.equal((await at(eve, node).wire()).status, 401);
      const back = await eve.post('/api/sign-in', { login: 'eve', password: 'password of eve' });
      assert.equal(back.status, 200);
    }
    await watch.assertWithin(t, found, WITHIN_MS.revocation, 'the sockets are closed on a node');
  });

  test('FLUSHALL of Redis signs no user out and closes no socket', async () => {
    const wires = await everywhere(ann);
    await cluster.redis.flush();
    for (const node of cluster.nodes) {
      const { status, body } = await at(ann, node).get('/api/me');
      assert.equal(status, 200, `${node.name}: ${JSON.stringify(body)}`);
      const [wire, fresh] = [wires[cluster.nodes.indexOf(node)], await at(ann, node).wire()];
      assert.equal(fresh.status, 101, 'a new socket opens');
      wire.say({ a: 'pp' });
      assert.ok(await wire.heard(({ a }) => a === 'pp', 'an answer on the old socket'));
      fresh.end();
    }
    for (const wire of wires) wire.end();
  });

  test(`signing out everywhere closes the sockets on every node within ${WITHIN_MS.revocation} ms while Redis is dead`, async (t) => {
    const fay = await Browser.registered(cluster.nodes[0], 'fay');
    await cluster.redis.kill();
    try {
      const watch = await Stopwatch.begin(t);
      const found = [];
      for (let round = 0; round < 3; round++) {
        const wires = await everywhere(fay);
        const leave = async () =>
          assert.equal((await at(fay, cluster.nodes[round]).post('/api/sign-out-everywhere')).status, 200);
        found.push(...(await delays(wires, leave, (wire) => wire.isOver, 'the sockets are closed')));
        assert.deepEqual(
          wires.map(({ closeCode }) => closeCode),
          [4401, 4401, 4401],
        );
        for (const node of cluster.nodes)
          assert.equal((await at(fay, node).wire()).status, 401, `${node.name} lets no socket in`);
        assert.equal((await fay.post('/api/sign-in', { login: 'fay', password: 'password of fay' })).status, 200);
      }
      await watch.assertWithin(t, found, WITHIN_MS.revocation, 'the sockets are closed on a node without Redis');
    } finally {
      await cluster.redis.start();
      await cluster.calm();
    }
  });

  test(`${STORMS} reconnects of ${STORM_SOCKETS} sockets take at most ${STORM_CONNECTIONS_MAX} connections to Postgres per node`, async (t) => {
    const users = [];
    for (let n = 0; n < STORM_USERS; n++) users.push(await Browser.registered(cluster.nodes[n % 3], `storm${n}`));
    const come = (n) => at(users[n % STORM_USERS], cluster.nodes[n % 3]).wire();
    let most = 0;
    let isOver = false;
    const looking = (async () => {
      while (!isOver) most = Math.max(most, ...(await connections()).values());
    })();
    let wires = [];
    try {
      for (let storm = 0; storm < STORMS; storm++) {
        for (const wire of wires) wire.end();
        wires = await Promise.all(Array.from({ length: STORM_SOCKETS }, (_, n) => come(n)));
        const statuses = wires.map(({ status }) => status);
        assert.deepEqual(
          statuses.filter((status) => status !== 101),
          [],
          `storm ${storm}: all come in`,
        );
      }
    } finally {
      isOver = true;
      await looking;
      for (const wire of wires) wire.end();
    }
    t.diagnostic(`at most ${most} connections of one node`);
    assert.ok(most > 0 && most <= STORM_CONNECTIONS_MAX, `${most} connections of one node`);
  });
});
