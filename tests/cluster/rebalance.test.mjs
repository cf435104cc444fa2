// A node that is added gets its share of the open sockets, after which no socket moves; a client that writes keeps its
// socket.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { until } from '../js/wait.mjs';
import { Wire } from '../js/wire.mjs';
import { missing } from './cluster.mjs';
import { Stage } from './stage.mjs';

const SOCKETS = 120;

/** The time for which no socket may move after the rebalancing: several rounds of 2 s. */
const WATCHED_MS = 6_000;

/** Idle sockets. One that is closed reconnects to the next node in turn, as over a balancer. */
class Crowd {
  constructor(nodes) {
    this.nodes = [...nodes];
    this.turn = 0;
    this.codes = [];
    this.sitting = new Map();
    this.isOver = false;
  }

  /** Opens `count` sockets, and keeps each open. */
  async gather(count) {
    const sitters = Array.from({ length: count }, (_, n) => n);
    this.kept = Promise.all(sitters.map((sitter) => this.keep(sitter)));
    await until(() => this.sitting.size === count, 'all are open');
  }

  async keep(sitter) {
    while (!this.isOver) {
      const node = this.nodes[this.turn++ % this.nodes.length];
      const wire = await Wire.open(node);
      if (this.isOver) return wire.end();
      assert.equal(wire.status, 101);
      this.sitting.set(sitter, node);
      await until(() => wire.isOver || this.isOver, 'the socket ends', 300_000, 25);
      if (!this.isOver) this.codes.push(wire.closeCode);
      wire.end();
    }
  }

  on(node) {
    return [...this.sitting.values()].filter((it) => it === node).length;
  }

  leave() {
    this.isOver = true;
    return this.kept;
  }
}

const skip = missing();

test('open sockets move to an added node until each node has its share', { skip, timeout: 120_000 }, async (t) => {
  const env = { COPYDESK__GATEWAY__REBALANCE_PER_SECOND: '20' };
  const stage = await Stage.set(t, { nodes: 2, env });
  const { cluster } = stage;
  const crowd = new Crowd(cluster.nodes);
  await crowd.gather(SOCKETS);
  const ann = await stage.person(cluster.nodes[0]);
  const ids = await stage.documentsOf(ann, 1);
  await stage.write([ann], ids, { paceMs: 100 });
  await stage.progress(20);
  assert.deepEqual(crowd.codes, [], 'nodes that have as many as each other send none away');
  const added = await cluster.newNode('node-3', false, env);
  await added.start();
  cluster.nodes.push(added);
  crowd.nodes.push(added);
  const share = SOCKETS / cluster.nodes.length;
  // The excess over the average above which a node closes sockets.
  const isShared = () => cluster.nodes.every((node) => crowd.on(node) <= 1.2 * share + 1);
  await until(isShared, 'each has its share', 60_000).catch((error) => {
    throw new Error(`${error.message}: ${cluster.nodes.map((node) => crowd.on(node))}`);
  });
  t.diagnostic(`${crowd.codes.length} moves: ${cluster.nodes.map((node) => crowd.on(node))}`);
  // Moves to 1.05 times the average are completed.
  let moves;
  await until(
    async () => {
      moves = crowd.codes.length;
      await pause(WATCHED_MS);
      return crowd.codes.length === moves;
    },
    'no socket moves any more',
    60_000,
  );
  assert.deepEqual([...new Set(crowd.codes)], [1012]);
  assert.ok(crowd.codes.length < 3 * SOCKETS, `${crowd.codes.length} moves`);
  assert.deepEqual(ann.codes, [], 'a client that writes is not sent away');
  await crowd.leave();
  await stage.assertSound();
});
