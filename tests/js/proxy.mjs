// A proxy before the server that cuts a connection at a chosen message.
import net from 'node:net';
import { OPCODE, Splitter } from './wire.mjs';

/**
 * Passes sockets on, frame by frame. `rule(message, towards)` decides about each message, `towards` being
 * 'server' or 'client': 'pass', 'drop' (nothing of it passes, then the connection is cut), 'half' (half of its bytes
 * pass, then the cut) or 'last' (it passes, then the cut).
 */
export class FaultProxy {
  static async to(server) {
    const proxy = new FaultProxy(server);
    await new Promise((resolve) => proxy.listener.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  constructor(server) {
    this.rule = () => 'pass';
    this.cuts = 0;
    this.open = new Set();
    this.listener = net.createServer((client) => this.link(client, net.connect(server.port, '127.0.0.1')));
  }

  get ws() {
    return `ws://127.0.0.1:${this.listener.address().port}/ws`;
  }

  link(client, server) {
    const link = { client, server, isCut: false };
    this.open.add(link);
    this.carry(link, client, server, 'server');
    this.carry(link, server, client, 'client');
  }

  carry(link, from, to, towards) {
    const splitter = new Splitter();
    from.on('data', (chunk) => {
      for (const { bytes, opcode, payload } of splitter.push(chunk)) {
        if (link.isCut) return;
        const verdict = opcode === OPCODE.text ? this.rule(JSON.parse(String(payload)), towards) : 'pass';
        if (verdict === 'pass' || verdict === 'last') to.write(bytes);
        if (verdict === 'half') to.write(bytes.subarray(0, bytes.length >> 1));
        if (verdict !== 'pass') this.cut(link);
      }
    });
    from.on('error', () => {});
    from.on('close', () => to.end());
  }

  /** Both ends see the connection end; data that was written before arrives. */
  cut(link) {
    this.cuts += 1;
    link.isCut = true;
    this.open.delete(link);
    link.client.end();
    link.server.end();
  }

  close() {
    for (const { client, server } of this.open) {
      client.destroy();
      server.destroy();
    }
    this.listener.close();
  }
}
