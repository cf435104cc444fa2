// Ways between two parts that can be cut, swallow everything, or be slow.
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
  /** A way to a port of this machine. */
  static async to(port) {
    return new Link(await ask('open', { port }));
  }

  constructor({ id, port }) {
    this.id = id;
    /** Where to connect instead. */
    this.port = port;
  }

  /** Every connection breaks, and none is made. */
  cut = () => ask('cut', { id: this.id });

  /** Packets go in and do not come out: the two ends do not know. */
  swallow = () => ask('swallow', { id: this.id });

  /** Every packet takes so much longer, in both directions. */
  slow = (delayMs) => ask('slow', { id: this.id, delayMs });

  heal = () => ask('heal', { id: this.id });

  close = () => ask('close', { id: this.id });
}
