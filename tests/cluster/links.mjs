// Links between two processes that can be cut, turned into a black hole, or delayed.
import { Worker } from 'node:worker_threads';

let worker;
let asked = 0;
const waiting = new Map();

function ask(verb, question) {
  if (!worker) {
    worker = new Worker(new URL('links-worker.mjs', import.meta.url));
    worker.unref();
    worker.on('message', ({ ask, answer }) => {
      waiting.get(ask)(answer);
      waiting.delete(ask);
    });
  }
  asked += 1;
  const number = asked;
  worker.postMessage({ ask: number, verb, ...question });
  return new Promise((resolve) => waiting.set(number, resolve));
}

export class Link {
  /** A link to a port of this machine. */
  static async to(port) {
    return new Link(await ask('open', { port }));
  }

  constructor({ id, port }) {
    this.id = id;
    /** Sets another port to connect to. */
    this.port = port;
  }

  /** Breaks every connection and accepts none. */
  cut = () => ask('cut', { id: this.id });

  /** Drops all packets: neither end is informed. */
  swallow = () => ask('swallow', { id: this.id });

  /** Delays every packet by this much, in both directions. */
  slow = (delayMs) => ask('slow', { id: this.id, delayMs });

  heal = () => ask('heal', { id: this.id });

  close = () => ask('close', { id: this.id });
}
