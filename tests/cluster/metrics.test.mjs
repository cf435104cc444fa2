// Metrics of two nodes: what a forwarded edit counts, and an outage of the store.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { adminOf, seriesOf } from '../js/metrics.mjs';
import { called, until } from '../js/wait.mjs';
import { Cluster, missing } from './cluster.mjs';
import { Stage } from './stage.mjs';

const LIMIT = { timeout: 60_000 };

const skip = missing();
let cluster;
before(async () => (cluster = skip || (await Cluster.start({ nodes: 2 }))));
after(() => skip || cluster.stop());

const metricsOf = (node) => seriesOf(adminOf(node));

describe('the metrics of two nodes', { skip }, () => {
  test('count a forwarded edit on the node of its client, and its append on the owner', LIMIT, async (t) => {
    const stage = Stage.on(cluster, t);
    const ann = await stage.person(cluster.nodes[0]);
    const [id] = await stage.documentsOf(ann, 1);
    const { owner } = await cluster.where(id);
    const other = cluster.nodes.find((node) => node !== owner);
    const bob = await stage.person(other);
    const doc = await bob.subscribed(id);
    const [ownerBefore, otherBefore] = [await metricsOf(owner), await metricsOf(other)];
    await called((done) => doc.submitOp(['x'], done), 'an edit');
    const [ownerAfter, otherAfter] = [await metricsOf(owner), await metricsOf(other)];
    const grown = (name) => [ownerAfter[name] - ownerBefore[name], otherAfter[name] - otherBefore[name]];
    assert.deepEqual(grown('copydesk_ack_seconds_count{path="forwarded"}'), [0, 1]);
    assert.deepEqual(grown('copydesk_submits_total{result="committed"}'), [0, 1]);
    assert.deepEqual(grown('copydesk_appends_total{result="appended"}'), [1, 0]);
    for (const direction of ['sent', 'received']) {
      for (const count of grown(`copydesk_peer_messages_total{direction="${direction}"}`)) assert.ok(count >= 1);
      for (const bytes of grown(`copydesk_peer_message_bytes_total{direction="${direction}"}`)) assert.ok(bytes > 0);
    }
    assert.equal(ownerAfter.copydesk_peers_alive, 1);
    assert.equal(ownerAfter.copydesk_transport_healthy, 1);
    assert.ok(ownerAfter['copydesk_store_statement_seconds_count{pool="claim"}'] > 0);
    const connections = ['busy', 'idle'].map(
      (state) => ownerAfter[`copydesk_store_connections{pool="claim",state="${state}"}`],
    );
    assert.ok(connections[0] + connections[1] >= 1);
  });

  test('are exported while the store is away, and show it', LIMIT, async () => {
    const [node] = cluster.nodes;
    const before = await metricsOf(node);
    assert.equal(before.copydesk_store_away, 0);
    cluster.postgres.freeze();
    try {
      await until(async () => (await metricsOf(node)).copydesk_store_away === 1, 'the outage is shown', 30_000);
      const failed = 'copydesk_heartbeats_total{result="failed"}';
      await until(async () => (await metricsOf(node))[failed] > before[failed], 'a heartbeat has failed', 30_000);
    } finally {
      cluster.postgres.thaw();
    }
    await until(async () => (await metricsOf(node)).copydesk_store_away === 0, 'its end is shown', 30_000);
    const after = await metricsOf(node);
    const last = 'copydesk_heartbeat_last_success_timestamp_seconds';
    assert.ok(after[last] > before[last]);
  });
});
