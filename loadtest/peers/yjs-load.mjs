// Loads a Hocuspocus server with real Yjs clients, as copydesk-loadtest loads the others: the same scenarios, options and names in
// the report, as far as they apply.
//
//   node yjs-load.mjs --url ws://127.0.0.1:8090 --server-pid PID --json FILE hot --writers 10
//   node yjs-load.mjs --url ws://127.0.0.1:8090 --server-pid PID --json FILE fanout --readers 100 --rate 10
//
// Each client has a connection, a Y.Doc and a provider of its own, without awareness, since the other servers are not sent presence
// either. An edit is one letter more or less at a random place. An ack is Hocuspocus' sync status: the update is in the server's
// memory. Latencies count from when an edit was due. Deliveries are timed at the first few readers, and counted at all of them.
// `client_cpu` says how much of one processor this program used: near 1 it was the limit, not the server.

import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { HocuspocusProvider, HocuspocusProviderWebsocket } from '@hocuspocus/provider';
import WebSocket from 'ws';
import * as Y from 'yjs';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    url: { type: 'string', default: 'ws://127.0.0.1:8090' },
    seconds: { type: 'string', default: '10' },
    warmup: { type: 'string', default: '1' },
    json: { type: 'string' },
    'server-pid': { type: 'string' },
    writers: { type: 'string' },
    readers: { type: 'string' },
    rate: { type: 'string' },
    chars: { type: 'string', default: '2000' },
  },
});

const [scenario, ...others] = positionals;
if (!['hot', 'fanout'].includes(scenario) || others.length) throw new Error('the scenario must be hot or fanout');
const isHot = scenario === 'hot';
const writers = number('writers', isHot ? 50 : 1);
const readers = isHot ? 0 : number('readers', 1000);
const chars = number('chars');
const seconds = number('seconds');
/** Edits a second of each writer; 0: as fast as they are acknowledged. */
const rate = isHot ? 0 : number('rate', 10);

const CONNECTING_MAX = 64;
const PATIENCE_MS = 60_000;
const TIMED_READERS = 10;
const name = `load-${Date.now()}-${process.pid}`;
const counts = { acks: [], deliveries: [], submits: 0, delivered: 0 };
/** When the newest edit of a client was due, by the client and its clock. */
const dues = new Map();
let measuring = false;

function number(option, otherwise) {
  const value = options[option] === undefined && otherwise !== undefined ? otherwise : Number(options[option]);
  if (!Number.isFinite(value) || value < 0) throw new Error(`--${option} must be a number from 0 on`);
  return value;
}

// ---- clients ----

async function connect(index) {
  const document = new Y.Doc();
  const socket = new HocuspocusProviderWebsocket({ url: options.url, WebSocketPolyfill: WebSocket });
  const client = { document, socket, text: document.getText('text'), sent: [] };
  await new Promise((done, fail) => {
    const timer = setTimeout(() => fail(new Error(`client ${index} was not synchronised in time`)), PATIENCE_MS);
    client.provider = new HocuspocusProvider({
      websocketProvider: socket,
      name,
      document,
      awareness: null,
      token: '',
      onSynced: () => {
        clearTimeout(timer);
        done();
      },
    });
    client.provider.attach();
  });
  client.provider.on('unsyncedChanges', ({ number }) => number === 0 && acknowledged(client));
  document.on('update', (update, origin) => {
    if (origin === client.provider) delivered(update, index);
  });
  return client;
}

async function connectAll(count) {
  const clients = [];
  for (let first = 0; first < count; first += CONNECTING_MAX) {
    const some = Array.from({ length: Math.min(CONNECTING_MAX, count - first) }, (_, at) => connect(first + at));
    clients.push(...(await Promise.all(some)));
  }
  return clients;
}

/** The server has all edits of a client. */
function acknowledged(client) {
  const now = performance.now();
  const sent = client.sent.splice(0);
  if (measuring) {
    counts.submits += sent.length;
    counts.acks.push(...sent.map((due) => now - due));
  }
  client.wake?.();
}

function delivered(update, index) {
  if (!measuring) return;
  counts.delivered += 1;
  if (index >= writers + TIMED_READERS) return;
  const [first] = Y.decodeUpdate(update).structs;
  const due = first && dues.get(`${first.id.client}/${first.id.clock}`);
  if (due !== undefined) counts.deliveries.push(performance.now() - due);
}

/** One letter more or less. The length stays about the same. */
function edit(client, due) {
  const { text, document } = client;
  const { clientID } = document;
  client.sent.push(due);
  const isCrowded = text.length > chars * 1.125 + 16;
  if (text.length > 0 && Math.random() < (isCrowded ? 7 / 8 : 2 / 8)) {
    text.delete(Math.floor(Math.random() * text.length), 1);
    return;
  }
  dues.set(`${clientID}/${Y.getState(document.store, clientID)}`, due);
  text.insert(Math.floor(Math.random() * (text.length + 1)), 'e');
}

/** Writes as fast as edits are acknowledged, or at the rate. */
async function write(client, until) {
  let due = performance.now() + (rate ? (Math.random() * 1000) / rate : 0);
  while (performance.now() < until) {
    if (rate) {
      await new Promise((done) => setTimeout(done, Math.max(0, due - performance.now())));
      edit(client, due);
      due += 1000 / rate;
    } else {
      const acked = new Promise((done) => {
        client.wake = done;
      });
      edit(client, performance.now());
      await acked;
    }
  }
}

// ---- a run ----

function serverCost() {
  const pid = options['server-pid'];
  if (!pid) return undefined;
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1).split(' ');
  return { cpu: (Number(stat[11]) + Number(stat[12])) / 100 };
}

async function run() {
  const [maker] = await connectAll(1);
  maker.text.insert(0, 'abcdefg '.repeat(Math.ceil(chars / 8)).slice(0, chars));
  await until(() => !maker.provider.hasUnsyncedChanges, 'the first text was not acknowledged');
  const clients = await connectAll(writers + readers);
  await until(() => clients.every(({ text }) => text.length === chars), 'not all clients have the document');
  const warm = performance.now() + number('warmup') * 1000;
  const writing = clients.slice(0, writers).map((client) => write(client, warm + seconds * 1000));
  await new Promise((done) => setTimeout(done, warm - performance.now()));
  const [before, own, began] = [serverCost(), process.cpuUsage(), performance.now()];
  measuring = true;
  await new Promise((done) => setTimeout(done, seconds * 1000));
  measuring = false;
  const took = (performance.now() - began) / 1000;
  const used = process.cpuUsage(own);
  const cost = before && { cpu: serverCost().cpu - before.cpu };
  await Promise.all(writing);
  const faults = await settle([maker, ...clients]);
  const report = summary(took, cost, (used.user + used.system) / 1e6 / took, faults);
  [maker, ...clients].forEach(({ provider, socket }) => {
    provider.destroy();
    socket.destroy();
  });
  return report;
}

/** Waits until all clients have the same text. */
async function settle(clients) {
  const differ = () => clients.filter(({ text }) => text.toString() !== clients[0].text.toString()).length;
  const isSettled = () => clients.every(({ provider }) => !provider.hasUnsyncedChanges) && differ() === 0;
  await until(isSettled, '').catch(() => {});
  return isSettled() ? [] : [`${differ()} clients have another text than the first`];
}

async function until(condition, message) {
  const deadline = performance.now() + PATIENCE_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(message);
    await new Promise((done) => setTimeout(done, 20));
  }
}

function summary(took, cost, clientCpu, faults) {
  const figures = { ops_per_second: counts.submits / took, client_cpu: clientCpu };
  for (const [key, times] of [
    ['ack', counts.acks],
    ['delivery', counts.deliveries],
  ]) {
    const sorted = Float64Array.from(times).sort();
    for (const [end, share] of [
      ['p50', 0.5],
      ['p99', 0.99],
    ]) {
      const at = Math.min(sorted.length - 1, Math.floor(sorted.length * share));
      if (sorted.length) figures[`${key}_${end}_us`] = sorted[at] * 1000;
    }
  }
  if (counts.delivered) figures.deliveries_per_second = counts.delivered / took;
  if (cost) {
    figures.server_cpu_seconds = cost.cpu;
    if (counts.submits) figures.server_cpu_us_per_op = (cost.cpu * 1e6) / counts.submits;
    if (counts.delivered) figures.server_cpu_us_per_delivery = (cost.cpu * 1e6) / counts.delivered;
  }
  const parameters = { writers, readers, chars, rate };
  return { scenario, parameters, seconds: took, figures, faults, fault_count: faults.length };
}

const report = await run();
if (options.json) writeFileSync(options.json, JSON.stringify(report, null, 2));
else console.log(JSON.stringify(report, null, 2));
process.exit(report.fault_count ? 1 : 0);
