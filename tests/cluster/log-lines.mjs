// The JSON lines that a node logs.
import assert from 'node:assert/strict';
import { until } from '../js/wait.mjs';

/** The lines that nodes have logged since this object was created. */
export class LogLines {
  constructor(nodes) {
    this.marks = new Map(nodes.map((node) => [node, node.log.length]));
  }

  of(node) {
    const whole = node.log.slice(this.marks.get(node)).split('\n').slice(0, -1);
    return whole.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
  }

  /** The names of the nodes that others reported as silent. */
  silentNodes() {
    const lines = [...this.marks.keys()].flatMap((node) => this.of(node));
    return lines
      .filter(({ fields }) => fields.message.startsWith('a node does not answer'))
      .map(({ fields }) => fields.peer_name);
  }

  /**
   * Checks the log of a past outage of Postgres: one warning for each pool of each node, the end of each outage that a pool in
   * use noticed, no error line, and no line of a library.
   */
  async assertOneOutage({ isShort }) {
    for (const node of this.marks.keys()) {
      const said = (text) => this.of(node).filter(({ fields }) => fields.message.startsWith(text));
      const pools = (text) => said(text).map(({ fields }) => fields.pool);
      const away = pools('Postgres does not answer');
      // A short silence ends before the time limits of pools and statements.
      const reported = isShort ? said('edits cannot be saved') : away.filter((pool) => pool === 'claim');
      assert.equal(reported.length, 1, `${node.name} reports the outage:\n${node.log.slice(-2_000)}`);
      assert.deepEqual(away.toSorted(), [...new Set(away)].toSorted(), `${node.name}: one line for each pool`);
      const isOver = () =>
        isShort ? said('edits can be saved again').length : pools('Postgres answers again').includes('claim');
      await until(isOver, `${node.name} reports the end`);
      const errors = this.of(node).filter(({ level }) => level === 'ERROR');
      assert.deepEqual(errors, [], `${node.name}: an outage is no fault of the program`);
      assert.ok(said('the store did not answer the heartbeat').length <= 1);
      assert.deepEqual(said('Connection could not be recycled'), []);
      for (const line of this.of(node)) {
        assert.equal(line.node, node.name, JSON.stringify(line));
        assert.match(line.node_id, /^[0-9a-f]{16}$/);
      }
    }
  }
}
