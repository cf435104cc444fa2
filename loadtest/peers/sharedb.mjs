// A stock ShareDB 7 server, in memory or on Postgres: what one gets by following its README.
//
//   node sharedb.mjs --port 8090                                    in memory
//   node sharedb.mjs --port 8090 --postgres URL                     on Postgres; the tables are made if they are missing
//   node sharedb.mjs --port 8090 --postgres URL --redis URL         one of several on the same Postgres
//
// It prints "listening" when it does.

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { Duplex } from 'node:stream';
import { parseArgs } from 'node:util';
import { type as textUnicode } from 'ot-text-unicode';
import richText from 'rich-text';
import ShareDB from 'sharedb';
import { WebSocketServer } from 'ws';

const { values } = parseArgs({
  options: { port: { type: 'string', default: '8090' }, postgres: { type: 'string' }, redis: { type: 'string' } },
});

ShareDB.types.register(textUnicode);
ShareDB.types.register(richText.type);

const share = new ShareDB({
  ...(values.postgres && { db: await postgres(values.postgres) }),
  ...(values.redis && { pubsub: await redis(values.redis) }),
});
const server = createServer((_, response) => response.writeHead(426).end());
const sockets = new WebSocketServer({ server, perMessageDeflate: false });
sockets.on('connection', (socket) => share.listen(streamOf(socket)));
server.listen(Number(values.port), '127.0.0.1', () => console.log('listening'));

async function postgres(url) {
  const require = createRequire(import.meta.url);
  const { default: PostgresDB } = await import('sharedb-postgres');
  const { default: pg } = await import('pg');
  const schema = await readFile(require.resolve('sharedb-postgres/structure.sql'), 'utf8');
  const client = new pg.Client(url);
  await client.connect();
  const { rows } = await client.query("SELECT to_regclass('snapshots') AS there");
  if (!rows[0].there) await client.query(schema);
  await client.end();
  return new PostgresDB({ connectionString: url });
}

async function redis(url) {
  const { default: RedisPubSub } = await import('sharedb-redis-pubsub');
  return new RedisPubSub({ url });
}

// What the package websocket-json-stream does: one JSON value a frame.
function streamOf(socket) {
  const stream = new Duplex({
    objectMode: true,
    read() {},
    write(message, _, done) {
      if (socket.readyState === socket.OPEN) socket.send(JSON.stringify(message));
      done();
    },
    destroy(error, done) {
      socket.close();
      done(error);
    },
  });
  socket.on('message', (data) => stream.push(JSON.parse(data)));
  socket.on('close', () => {
    stream.push(null);
    stream.end();
    stream.destroy();
  });
  socket.on('error', () => stream.destroy());
  return stream;
}
