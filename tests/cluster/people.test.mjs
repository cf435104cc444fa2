// Rights in a cluster: what is taken away by one node holds on the open sockets of all.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser } from '../js/browser.mjs';
import { TEXT } from '../js/client.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { span, Stopwatch } from './stopwatch.mjs';

const ROUNDS = 50;

/** How long it may take on any node, from the request that takes the right away. Beyond it, the build fails. */
const WITHIN_MS = { downgrade: 1_000, revocation: 5_000 };

const skip = missing();
const env = { COPYDESK__AUTH__MODE: 'accounts', COPYDESK__AUTH__REGISTRATION: 'open' };
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 3, env }))));
after(() => skip || cluster.stop());

/** The same browser, by way of a node. */
function at(browser, node) {
  const there = browser.copy();
  there.server = node;
  return there;
}

/** A socket of somebody's on each node. */
const everywhere = (browser) => Promise.all(cluster.nodes.map((node) => at(browser, node).wire({ path: '/ws?rights' })));

/** The spans of time from `act` on until each node's socket `sees`. */
async function delays(wires, act, sees, what) {
  const seen = wires.map((wire) => span(() => until(() => sees(wire), what)));
  await act();
  return Promise.all(seen);
}

describe('three nodes, one right', { skip, timeout: 180_000 }, () => {
  let ann;
  before(async () => {
    if (!skip) ann = await Browser.registered(cluster.nodes[0], 'ann');
  });

  test(`a downgrade holds on every node's open sockets within ${WITHIN_MS.downgrade} ms`, async (t) => {
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
    const hears = (role, start) => (wire) => wire.messages.slice(start.get(wire)).some((message) => message.a === 'rights' && message.role === role);
    const from = () => new Map(wires.map((wire) => [wire, wire.messages.length]));
    const watch = await Stopwatch.begin(t);
    const found = [];
    let seq = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const owner = at(ann, cluster.nodes[round % 3]);
      await delays(wires, () => owner.gives('bob', 'editor', 'plan'), hears('editor', from()), 'bob may write');
      found.push(...(await delays(wires, () => owner.gives('bob', 'viewer', 'plan'), hears('viewer', from()), 'bob may not write')));
      const wire = wires[round % 3];
      seq += 1;
      wire.say({ a: 'op', c: 'docs', d: 'plan', v: null, seq, x: {}, op: ['x'] });
      const answer = await wire.heard((message) => message.a === 'op' && message.seq === seq && (message.error || message.src), 'the answer');
      assert.equal(answer.error?.code, 'ERR_FORBIDDEN');
    }
    await watch.assertWithin(t, found, WITHIN_MS.downgrade, 'a downgrade holds on a node');
    for (const wire of wires) wire.end();
    client.close();
  });

  test(`signing out everywhere closes every node's sockets within ${WITHIN_MS.revocation} ms`, async (t) => {
    const eve = await Browser.registered(cluster.nodes[2], 'eve');
    const watch = await Stopwatch.begin(t);
    const found = [];
    for (let round = 0; round < ROUNDS; round++) {
      const wires = await everywhere(eve);
      const leaver = at(eve, cluster.nodes[round % 3]);
      const leave = async () => assert.equal((await leaver.post('/api/sign-out-everywhere')).status, 200);
      found.push(...(await delays(wires, leave, (wire) => wire.isOver, 'the sockets are closed')));
      assert.deepEqual(wires.map(({ closeCode }) => closeCode), [4401, 4401, 4401]);
      for (const node of cluster.nodes) assert.equal((await at(eve, node).wire()).status, 401);
      const back = await eve.post('/api/sign-in', { login: 'eve', password: 'password of eve' });
      assert.equal(back.status, 200);
    }
    await watch.assertWithin(t, found, WITHIN_MS.revocation, 'the sockets are closed on a node');
  });
});
