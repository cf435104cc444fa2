// WebSocket at the level of bytes: for frames that no library sends, and for looking at the frames of a library.
import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { until } from './wait.mjs';

export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

/** One frame, masked unless told otherwise. `length` may differ from the payload's length. */
export function frame(payload, { opcode = OPCODE.text, fin = true, rsv = 0, masked = true, length } = {}) {
  const bytes = Buffer.from(payload);
  const head = [(fin ? 0x80 : 0) | (rsv << 4) | opcode];
  const said = BigInt(length ?? bytes.length);
  const maskBit = masked ? 0x80 : 0;
  let extended = Buffer.alloc(0);
  if (said < 126n) head.push(maskBit | Number(said));
  else if (said < 65_536n) {
    head.push(maskBit | 126);
    extended = Buffer.alloc(2);
    extended.writeUInt16BE(Number(said));
  } else {
    head.push(maskBit | 127);
    extended = Buffer.alloc(8);
    extended.writeBigUInt64BE(said);
  }
  if (!masked) return Buffer.concat([Buffer.from(head), extended, bytes]);
  const mask = randomBytes(4);
  const hidden = Buffer.from(bytes);
  for (let i = 0; i < hidden.length; i++) hidden[i] ^= mask[i & 3];
  return Buffer.concat([Buffer.from(head), extended, mask, hidden]);
}

/** Splits a stream of bytes into the HTTP head and the frames after it. */
export class Splitter {
  buffer = Buffer.alloc(0);
  head = null;

  /** The parts that are complete with these bytes, in order: `{ head }` once, then `{ bytes, opcode, payload }`. */
  *push(chunk) {
    this.buffer = this.buffer.length ? Buffer.concat([this.buffer, chunk]) : chunk;
    if (this.head === null) {
      const end = this.buffer.indexOf('\r\n\r\n');
      if (end < 0) return;
      const bytes = this.take(end + 4);
      this.head = String(bytes);
      yield { head: this.head, bytes };
    }
    for (let whole = this.frame(); whole; whole = this.frame()) yield whole;
  }

  frame() {
    const { buffer } = this;
    if (buffer.length < 2) return undefined;
    const masked = (buffer[1] & 0x80) !== 0;
    let length = buffer[1] & 0x7f;
    let at = 2;
    if (length === 126) {
      if (buffer.length < 4) return undefined;
      length = buffer.readUInt16BE(2);
      at = 4;
    } else if (length === 127) {
      if (buffer.length < 10) return undefined;
      length = Number(buffer.readBigUInt64BE(2));
      at = 10;
    }
    const start = at + (masked ? 4 : 0);
    if (buffer.length < start + length) return undefined;
    const opcode = buffer[0] & 0x0f;
    const mask = buffer.subarray(at, start);
    const bytes = this.take(start + length);
    const payload = Buffer.from(bytes.subarray(start));
    if (masked) for (let i = 0; i < payload.length; i++) payload[i] ^= mask[i & 3];
    return { bytes, opcode, payload };
  }

  take(length) {
    const taken = this.buffer.subarray(0, length);
    this.buffer = this.buffer.subarray(length);
    return taken;
  }
}

/** A WebSocket client without automatic behaviour: it answers no ping and no close. */
export class Wire {
  /** Opens a socket; with `upgrade`, a WebSocket whose handshake is complete. */
  static async open(server, { upgrade = true, headers = {}, path = '/ws' } = {}) {
    const wire = new Wire(server);
    await until(() => wire.isOpen || wire.error, 'the socket is open');
    if (!upgrade) return wire;
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    wire.write(
      `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\n${lines.join('')}\r\n`,
    );
    await until(() => wire.status || wire.isGone, 'the upgrade is answered');
    return wire;
  }

  constructor(server) {
    this.isOpen = false;
    /** The peer ended the connection. */
    this.isGone = false;
    /** The status of the close frame, if there was one. */
    this.closeCode = null;
    this.status = null;
    this.messages = [];
    this.pings = 0;
    this.pongs = [];
    this.bytesRead = 0;
    this.splitter = new Splitter();
    this.socket = net.connect(server.port, '127.0.0.1');
    this.socket.on('connect', () => (this.isOpen = true));
    this.socket.on('data', (chunk) => this.read(chunk));
    this.socket.on('error', (error) => (this.error = error));
    this.socket.on('end', () => (this.isGone = true));
    this.socket.on('close', () => (this.isGone = true));
  }

  /** The peer sent a close frame or ended the connection. */
  get isOver() {
    return this.closeCode !== null || this.isGone;
  }

  read(chunk) {
    this.bytesRead += chunk.length;
    for (const { head, opcode, payload } of this.splitter.push(chunk)) {
      if (head) this.status = Number(head.split(' ')[1]);
      else if (opcode === OPCODE.text) this.messages.push(JSON.parse(String(payload)));
      else if (opcode === OPCODE.close) this.closeCode = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
      else if (opcode === OPCODE.ping) this.pings += 1;
      else if (opcode === OPCODE.pong) this.pongs.push(String(payload));
    }
  }

  /** Sends bytes unchanged. */
  write(bytes) {
    if (!this.isGone && !this.socket.destroyed) this.socket.write(bytes);
  }

  /** Sends a text frame: a string unchanged, anything else as JSON. */
  say(message) {
    this.write(frame(typeof message === 'string' ? message : JSON.stringify(message)));
  }

  handshake(id = null) {
    this.say({ a: 'hs', id, protocol: 1, protocolMinor: 2 });
    return until(() => this.messages.some((message) => message.a === 'hs'), 'the handshake is answered');
  }

  /** The first message from `start` on that `matches`. */
  async heard(matches, what = 'an answer', start = 0) {
    await until(() => this.messages.slice(start).some(matches) || this.isOver, `${what} comes`);
    return this.messages.slice(start).find(matches);
  }

  end() {
    this.socket.destroy();
  }
}

/** The whole log of a document as the server returns it, oldest first. */
export async function logOf(server, id, collection = 'docs') {
  const wire = await Wire.open(server);
  await wire.handshake();
  wire.say({ a: 'f', c: collection, d: id, v: 0 });
  const reply = await wire.heard((message) => message.a === 'f', 'the log', 0);
  wire.end();
  if (!reply || reply.error) throw new Error(`the log of ${id} was not handed out: ${JSON.stringify(reply)}`);
  return wire.messages.filter((message) => message.a === 'op');
}
