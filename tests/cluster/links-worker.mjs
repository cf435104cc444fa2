// The links of `links.mjs`, in a thread of their own, so that busy clients do not delay packets.
import net from 'node:net';
import { parentPort } from 'node:worker_threads';

/** The most bytes that wait in one direction before the sender is paused. */
const WAITING_BYTES_MAX = 4 * 2 ** 20;

const ways = new Map();

parentPort.on('message', ({ ask, verb, id, ...rest }) => {
  if (verb === 'open') {
    const way = new Way(rest.port);
    ways.set(ask, way);
    way.listener.listen(0, '127.0.0.1', () => {
      parentPort.postMessage({ ask, answer: { id: ask, port: way.listener.address().port } });
    });
    return;
  }
  ways.get(id)[verb](rest);
  parentPort.postMessage({ ask });
});

class Way {
  constructor(port) {
    this.isCut = false;
    this.isHole = false;
    this.delayMs = 0;
    this.pipes = new Set();
    this.sockets = new Set();
    this.listener = net.createServer({ allowHalfOpen: true }, (client) => {
      if (this.isCut) return client.destroy();
      const server = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
      for (const socket of [client, server]) {
        socket.setNoDelay(true);
        this.sockets.add(socket);
        socket.on('close', () => this.sockets.delete(socket));
      }
      this.pipes.add(new Pipe(this, client, server)).add(new Pipe(this, server, client));
    });
  }

  /** Breaks every connection and accepts none. */
  cut() {
    this.isCut = true;
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  /** Drops all packets. Those of existing connections are delivered after healing, as TCP retransmits. */
  swallow() {
    this.isHole = true;
  }

  slow({ delayMs }) {
    this.delayMs = delayMs;
  }

  heal() {
    this.isCut = this.isHole = false;
    this.delayMs = 0;
    for (const pipe of this.pipes) pipe.pump();
  }

  close() {
    this.cut();
    this.listener.close();
  }
}

/** One direction of one connection. */
class Pipe {
  constructor(way, from, to) {
    Object.assign(this, { way, from, to, waiting: [], bytes: 0, timer: null, hasEnded: false, hasFailed: false });
    from.on('data', (chunk) => this.push(chunk));
    from.on('end', () => this.push(null));
    from.on('error', () => {});
    to.on('drain', () => this.pump());
    from.on('close', (failed) => {
      this.hasEnded = true;
      this.hasFailed = failed;
      this.pump();
    });
  }

  push(chunk) {
    this.waiting.push({ chunk, due: performance.now() + this.way.delayMs });
    this.bytes += chunk?.length ?? 0;
    if (this.bytes > WAITING_BYTES_MAX) this.from.pause();
    this.pump();
  }

  pump() {
    clearTimeout(this.timer);
    while (this.waiting.length && !this.way.isHole && !this.to.writableNeedDrain) {
      const [{ chunk, due }] = this.waiting;
      const leftMs = due - performance.now();
      if (leftMs > 0) {
        this.timer = setTimeout(() => this.pump(), leftMs);
        return;
      }
      this.waiting.shift();
      this.bytes -= chunk?.length ?? 0;
      if (chunk === null) this.to.end();
      else if (!this.to.destroyed) this.to.write(chunk);
    }
    if (this.bytes <= WAITING_BYTES_MAX && this.from.isPaused()) this.from.resume();
    // In a black hole the other end is not informed of a broken connection either.
    if (!this.hasEnded || this.waiting.length || this.way.isHole) return;
    this.way.pipes.delete(this);
    if (this.hasFailed) this.to.destroy();
  }
}
