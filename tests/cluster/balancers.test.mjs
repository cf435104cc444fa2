// Two balancers share one address by keepalived, each on its own machine (a network namespace): when the one that holds the
// address fails, its clients reconnect over the other, and no edit is lost.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { TEXT } from '../js/client.mjs';
import { dice, SEED } from '../js/random.mjs';
import { binary, freePort } from '../js/server.mjs';
import { called, until } from '../js/wait.mjs';
import { missing, which } from './cluster.mjs';
import { Hearsay, Person } from './crowd.mjs';
import { freshFolder, Part } from './part.mjs';

const root = new URL('../../', import.meta.url).pathname;
const shipped = (file) => readFileSync(path.join(root, 'deploy', file), 'utf8');
const run = (command, ...args) => execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

/** The reason why the test cannot run here, or `false`. Network namespaces need rights that no package provides. */
function whyNot() {
  const reason = missing('haproxy', 'keepalived', 'ip', 'curl');
  if (reason) return reason;
  try {
    run('unshare', '--net', 'true');
    return false;
  } catch {
    return 'this user may make no network namespaces: run it as root';
  }
}

/** A private network: this machine is .1, the balancers' machines .11 and .12, the shared address .10. */
class Network {
  constructor() {
    this.id = process.pid.toString(36);
    this.prefix = `10.213.${process.pid % 250}`;
    this.bridge = `cd${this.id}`;
    this.machines = [];
    run('ip', 'link', 'add', this.bridge, 'type', 'bridge');
    run('ip', 'addr', 'add', `${this.prefix}.1/24`, 'dev', this.bridge);
    run('ip', 'link', 'set', this.bridge, 'up');
  }

  get shared() {
    return `${this.prefix}.10`;
  }

  /** A machine with an interface `eth0`. */
  add(number) {
    const machine = { space: `cd-${this.id}-${number}`, address: `${this.prefix}.${10 + number}` };
    const cable = `cd${this.id}v${number}`;
    run('ip', 'netns', 'add', machine.space);
    this.machines.push(machine);
    run('ip', 'link', 'add', cable, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', machine.space);
    run('ip', 'link', 'set', cable, 'master', this.bridge, 'up');
    const inside = (...args) => run('ip', '-n', machine.space, ...args);
    inside('link', 'set', 'lo', 'up');
    inside('addr', 'add', `${machine.address}/24`, 'dev', 'eth0');
    inside('link', 'set', 'eth0', 'up');
    return machine;
  }

  /** The machine that holds the shared address; none if no machine or more than one does. A disconnected machine keeps it. */
  holder() {
    const has = ({ space }) =>
      run('ip', '-n', space, '-o', 'link', 'show', 'dev', 'eth0', 'up') &&
      run('ip', '-n', space, '-o', 'addr', 'show', 'dev', 'eth0').includes(` ${this.shared}/`);
    const holders = this.machines.filter(has);
    return holders.length === 1 ? holders[0] : undefined;
  }

  remove() {
    for (const { space } of this.machines) run('ip', 'netns', 'del', space);
    run('ip', 'link', 'del', this.bridge);
  }
}

/** A server that listens on the address of the network. */
class Desk extends Part {
  async isReady() {
    const answer = await fetch(`http://${this.address}/readyz`).catch(() => undefined);
    return answer?.status === 200;
  }
}

async function startDesk(network) {
  const address = `${network.prefix}.1:${await freePort()}`;
  const args = ['serve', '--open', '--listen', address, '--data', freshFolder()];
  const desk = Object.assign(new Desk('desk', binary(), args, { env: { COPYDESK__AUTH__BEHIND_PROXY: 'true' } }), {
    address,
  });
  await desk.start();
  return desk;
}

/** The two programs of a balancer's machine, with the files that are shipped. */
function equip(machine, { network, desk, priority, peer }) {
  const folder = freshFolder();
  const write = (name, text) => {
    writeFileSync(path.join(folder, name), text);
    return path.join(folder, name);
  };
  const haproxy = write(
    'haproxy.cfg',
    shipped('haproxy.cfg')
      .replace(/maxconn \d+/, 'maxconn 1000')
      .replace(/node-\d:8080/g, desk.address),
  );
  const addresses = { '192.0.2.11': machine.address, '192.0.2.12': peer, '192.0.2.10': network.shared };
  const keepalived = write(
    'keepalived.conf',
    shipped('keepalived.conf')
      .replace(/192\.0\.2\.\d+/g, (address) => addresses[address])
      .replace(/priority \d+/, `priority ${priority}`),
  );
  const inside = (name, ...command) =>
    new Part(`${name} of ${machine.address}`, which('ip'), ['netns', 'exec', machine.space, ...command]);
  machine.haproxy = inside('haproxy', which('haproxy'), '-db', '-f', haproxy);
  const pids = ['--pid', '--vrrp_pid', '--checkers_pid'].flatMap((option) => [
    option,
    path.join(folder, `${option.slice(2)}.pid`),
  ]);
  machine.keepalived = inside(
    'keepalived',
    which('keepalived'),
    '--dont-fork',
    '--log-console',
    '--vrrp',
    '-f',
    keepalived,
    ...pids,
  );
}

const skip = whyNot();
let network, desk;
before(async () => {
  if (skip) return;
  network = new Network();
  desk = await startDesk(network);
  const machines = [network.add(1), network.add(2)];
  for (const [n, machine] of machines.entries()) {
    equip(machine, { network, desk, priority: [100, 90][n], peer: machines[1 - n].address });
    await machine.haproxy.start();
    await machine.keepalived.start();
  }
});
after(async () => {
  for (const { haproxy, keepalived } of network?.machines ?? []) {
    await keepalived?.kill();
    await haproxy?.kill();
  }
  await desk?.kill();
  network?.remove();
});

describe('two balancers with one address', { skip }, () => {
  test('clients of the balancer that fails reconnect over the other', { timeout: 120_000 }, async (t) => {
    const logs = () => network.machines.map(({ keepalived }) => keepalived.log).join('\n');
    const isWith = (machine) =>
      until(() => network.holder() === machine, `the address is with ${machine.address}`, 30_000).catch((error) => {
        throw new Error(`${error.message}\n${logs()}`);
      });
    // Either of them may be ready first.
    const first = await until(() => network.holder(), 'one of them has the address', 30_000).catch((error) => {
      throw new Error(`${error.message}\n${logs()}`);
    });
    const second = network.machines.find((machine) => machine !== first);
    const url = `ws://${network.shared}:8080/ws`;
    const person = await Person.arrive(() => url, { hearsay: new Hearsay(), r: dice(SEED) });
    t.after(() => person.leave());
    const doc = await person.subscribed('shared');
    await called((done) => doc.create('', TEXT.uri, done), 'create');
    const type = (text) => called((done) => doc.submitOp([text], done), `"${text}" is acknowledged`, 60_000);
    await type('by the first');
    const moved = async (how, from, to, text) => {
      const begun = performance.now();
      await how(from);
      const typed = type(text);
      await isWith(to);
      await typed;
      t.diagnostic(`${text}: acknowledged ${Math.round(performance.now() - begun)} ms after the failure`);
    };
    // The balancer fails, its machine keeps running.
    await moved(({ haproxy }) => haproxy.kill(), first, second, 'the balancer failed, ');
    // When it recovers it does not take the address back, so that clients are not disconnected again.
    await first.haproxy.start();
    await until(
      () => /Script `balancer` now returning 0|VRRP_Script\(balancer\) succeeded/.test(first.keepalived.log),
      'its check is good again',
      30_000,
    );
    await type('still here, ');
    assert.equal(network.holder(), second, 'the address stays where it is');
    // The whole machine fails.
    const powerCut = ({ space, keepalived, haproxy }) => {
      run('ip', '-n', space, 'link', 'set', 'eth0', 'down');
      return Promise.all([keepalived.kill(), haproxy.kill()]);
    };
    await moved(powerCut, second, first, 'the machine failed, ');
    assert.equal(doc.data, 'the machine failed, still here, the balancer failed, by the first');
    const page = await fetch(`http://${network.shared}:8080/`);
    assert.equal(page.status, 200);
    await page.arrayBuffer();
  });
});
