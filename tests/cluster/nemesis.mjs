// Faults of many kinds, one after the other and several at once; a seed determines them.
import { setTimeout as pause } from 'node:timers/promises';

/** The time limit for a started node to become ready while other faults last. */
const START_PATIENCE_MS = 60_000;

/**
 * Each kind of fault: `target` is what it affects, one fault at a time; `begin` starts it and returns what ends it;
 * `lastsMs` is its shortest and longest duration; `isSeldom`: only in long runs, and rarely.
 */
const FAULTS = {
  'kill -9 of a node': {
    target: 'node',
    lastsMs: [100, 2_000],
    async begin({ node }) {
      await node.kill();
      return () => startSurely(node);
    },
  },
  'stop of a node': { target: 'node', lastsMs: [100, 6_000], begin: ({ node }) => stopped(node) },
  // Longer than every timeout.
  'long stop of a node': {
    target: 'node',
    lastsMs: [25_000, 50_000],
    isSeldom: true,
    begin: ({ node }) => stopped(node),
  },
  'restart of a node': {
    target: 'node',
    lastsMs: [0, 500],
    async begin({ node }) {
      await node.end('SIGTERM');
      return () => startSurely(node);
    },
  },
  'rolling restart': {
    target: 'all nodes',
    lastsMs: [0, 0],
    async begin({ cluster }) {
      for (const node of cluster.nodes) {
        await node.end('SIGTERM');
        await startSurely(node);
      }
      return () => {};
    },
  },
  'cut between a node and Redis': parted('redis', (link) => link.cut(), [100, 5_000]),
  'cut between a node and Postgres': parted('postgres', (link) => link.cut(), [100, 5_000]),
  'silence between a node and Redis': parted('redis', (link) => link.swallow(), [100, 8_000]),
  'silence between a node and Postgres': parted('postgres', (link) => link.swallow(), [100, 8_000]),
  'delay between a node and Redis': parted('redis', (link, r) => link.slow(r.from(5, 400)), [500, 5_000]),
  'delay between a node and Postgres': parted('postgres', (link, r) => link.slow(r.from(5, 100)), [500, 5_000]),
  'FLUSHALL of Redis': {
    target: 'redis',
    lastsMs: [0, 3_000],
    async begin({ cluster: { redis } }) {
      let flushes = true;
      const flushing = (async () => {
        while (flushes) {
          await redis.flush().catch(() => {});
          await pause(100);
        }
      })();
      return () => {
        flushes = false;
        return flushing;
      };
    },
  },
  'kill -9 of Redis': { target: 'redis', lastsMs: [0, 3_000], begin: ({ cluster }) => killed(cluster.redis) },
  'a full Redis': {
    target: 'redis',
    lastsMs: [100, 5_000],
    async begin({ cluster: { redis } }) {
      await redis.fill();
      return () => redis.makeRoom();
    },
  },
  'stop of Redis': { target: 'redis', lastsMs: [100, 4_000], begin: ({ cluster }) => stopped(cluster.redis) },
  'restart of Postgres': {
    target: 'postgres',
    lastsMs: [0, 2_000],
    async begin({ cluster: { postgres } }) {
      await postgres.stop();
      return () => postgres.start();
    },
  },
  'kill -9 of Postgres': { target: 'postgres', lastsMs: [0, 2_000], begin: ({ cluster }) => killed(cluster.postgres) },
  'stop of Postgres': { target: 'postgres', lastsMs: [100, 5_000], begin: ({ cluster }) => stopped(cluster.postgres) },
  'cut of many sockets': {
    target: 'sockets',
    lastsMs: [0, 0],
    begin({ people, r }) {
      for (const person of people) if (r.chance(0.3)) person.cut();
      return () => {};
    },
  },
  'kill -9 of the balancer': {
    target: 'balancer',
    lastsMs: [0, 300],
    begin: ({ cluster }) => killed(cluster.balancer),
  },
};

/** The kinds that are twice as frequent as the others. */
const OFTEN = ['kill -9 of a node', 'stop of a node'];

/** In runs of this length, one shuffle in this many includes the long faults. */
const LONG_RUN_S = 120;
const SHUFFLES_TO_SELDOM = 3;

function parted(to, part, lastsMs) {
  return {
    target: 'node',
    lastsMs,
    async begin({ node, r }) {
      await part(node.links[to], r);
      return () => node.links[to].heal();
    },
  };
}

function stopped(part) {
  part.freeze();
  return () => part.thaw();
}

async function killed(part) {
  await part.kill();
  return () => part.start();
}

/** Starts a node repeatedly, as a supervisor would: without its store a node may exit. */
async function startSurely(node) {
  const deadline = performance.now() + START_PATIENCE_MS;
  for (;;) {
    try {
      return await node.start(START_PATIENCE_MS);
    } catch (error) {
      if (node.isAlive || performance.now() > deadline) throw error;
      node.startedAgain = (node.startedAgain ?? 0) + 1;
    }
  }
}

export class Nemesis {
  /** The number of faults of each kind. */
  counts = Object.fromEntries(Object.keys(FAULTS).map((kind) => [kind, 0]));
  /** The targets with a current fault: nodes by their names. */
  busy = new Set();
  /** The next faults. Every kind occurs before any occurs again. */
  deck = [];
  shuffles = 0;
  errors = [];

  constructor({ cluster, people, r, seconds, tell = () => {} }) {
    Object.assign(this, { cluster, people, r, tell, isLong: seconds >= LONG_RUN_S });
  }

  /** Makes faults until `isOver`, at most `lanes` at once. All have ended when it resolves. */
  async rage(isOver, lanes = 3) {
    await Promise.all(Array.from({ length: lanes }, () => this.lane(isOver)));
    if (this.errors.length) throw new AggregateError(this.errors, this.errors.map(String).join('\n'));
  }

  async lane(isOver) {
    while (!isOver() && !this.errors.length) {
      await pause(this.r.from(200, 3_000));
      if (!this.deck.length) this.deck = this.shuffle();
      const at = this.deck.findIndex((kind) => this.targets(FAULTS[kind]));
      if (at < 0) continue;
      const [kind] = this.deck.splice(at, 1);
      await this.make(kind).catch((error) => this.errors.push(new Error(`${kind}: ${error.message}`)));
    }
  }

  shuffle() {
    this.shuffles += 1;
    const hasSeldom = this.isLong && this.shuffles % SHUFFLES_TO_SELDOM === 1;
    const kinds = Object.keys(FAULTS).filter((kind) => hasSeldom || !FAULTS[kind].isSeldom);
    return this.r.shuffled([...kinds, ...OFTEN]);
  }

  /** The names of the targets of a fault; none while one of them has another fault. */
  targets({ target }) {
    const nodes = this.cluster.nodes.map(({ name }) => name);
    const free = nodes.filter((name) => !this.busy.has(name));
    if (target === 'node') return free.length ? [this.r.pick(free)] : undefined;
    const names = target === 'all nodes' ? nodes : [target];
    return names.some((name) => this.busy.has(name)) ? undefined : names;
  }

  async make(kind) {
    const { cluster, people, r } = this;
    const fault = FAULTS[kind];
    const names = this.targets(fault);
    const lastsMs = r.from(...fault.lastsMs);
    names.forEach((name) => this.busy.add(name));
    this.counts[kind] += 1;
    this.tell(`${kind}: ${names.join(', ')} for ${lastsMs} ms`);
    const end = await fault.begin({ cluster, people, r, node: cluster.node(names[0]) });
    await pause(lastsMs);
    await end();
    names.forEach((name) => this.busy.delete(name));
  }
}
