// What another node costs: an ack at the document's owner, an ack by way of another node, and one hop over Redis, each
// alone, in turn, in the same minute and with the same clients.
import { type as textUnicode } from 'ot-text-unicode';
import { createClient } from 'redis';
import { Connection, types } from 'sharedb/lib/client/index.js';
import WebSocket from 'ws';

types.register(textUnicode);

const ROUNDS = 500;
const WARMING = 50;

/** Probes two nodes; resolves to the medians, in microseconds. `ownerOf` says which of them owns a document. */
export async function hop({ url, redis, ownerOf }) {
  const id = `hop-${Date.now()}`;
  const docs = await Promise.all(url.split(',').map((door) => open(door, id)));
  const create = (done) => docs[0].create('', textUnicode.uri, done);
  await called(create);
  await Promise.all(docs.map((doc) => called((done) => doc.subscribe(done))));
  const owner = ownerOf(id);
  const way = await streamOver(redis);
  const acts = {
    owner_ack_p50_us: () => called((done) => docs[owner].submitOp(['x'], done)),
    forwarder_ack_p50_us: () => called((done) => docs[1 - owner].submitOp(['x'], done)),
    redis_hop_p50_us: () => way.hop(),
  };
  const times = Object.fromEntries(Object.keys(acts).map((name) => [name, []]));
  for (let round = 0; round < WARMING + ROUNDS; round += 1) {
    for (const [name, act] of Object.entries(acts)) {
      const start = performance.now();
      await act();
      if (round >= WARMING) times[name].push((performance.now() - start) * 1000);
    }
  }
  docs.forEach(({ connection }) => connection.close());
  way.close();
  return Object.fromEntries(Object.entries(times).map(([name, list]) => [name, median(list)]));
}

async function open(url, id) {
  const connection = new Connection(new WebSocket(url));
  await new Promise((done) => connection.once('connected', done));
  return connection.get('loadtest', id);
}

/** A reader that waits for a stream, as a node waits for its inbox, and a writer. */
async function streamOver(url) {
  const [reader, writer] = [createClient({ url }), createClient({ url })];
  await Promise.all([reader.connect(), writer.connect()]);
  let last = '0';
  return {
    async hop() {
      const read = reader.xRead({ key: 'hop', id: last }, { BLOCK: 1000 });
      await writer.xAdd('hop', '*', { message: 'x'.repeat(100) });
      const [{ messages }] = await read;
      last = messages.at(-1).id;
    },
    close() {
      reader.destroy();
      writer.destroy();
    },
  };
}

function called(act) {
  return new Promise((done, fail) => act((error) => (error ? fail(error) : done())));
}

function median(list) {
  return list.sort((one, other) => one - other)[list.length >> 1];
}
