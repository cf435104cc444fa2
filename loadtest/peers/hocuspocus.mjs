// A stock Hocuspocus 3 server with its documents in memory: what one gets by following its README.
//
//   node hocuspocus.mjs --port 8090
//
// It prints "listening" when it does.

import { parseArgs } from 'node:util';
import { Server } from '@hocuspocus/server';

const { values } = parseArgs({ options: { port: { type: 'string', default: '8090' } } });

const server = new Server({ address: '127.0.0.1', port: Number(values.port), quiet: true, stopOnSignals: true });
await server.listen();
console.log('listening');
