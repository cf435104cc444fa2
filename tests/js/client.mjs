// The real ShareDB client over a real socket. Records its warnings, the fetches with which it fills gaps, and its acks.

import textUnicode from 'ot-text-unicode';
import richText from 'rich-text';
import sharedb from 'sharedb/lib/client/index.js';
import WebSocket from 'ws';
import { called, until } from './wait.mjs';

export const RICH = richText.type;
export const TEXT = textUnicode.type;
export const Delta = richText.Delta;
sharedb.types.register(RICH);
sharedb.types.register(TEXT);

/** Warnings of the client library since the last call. A correct server causes none. */
let warnings = [];
const warn = (...parts) => warnings.push(parts.map(String).join(' '));
sharedb.logger.setMethods({ info() {}, warn, error: warn });

/** Returns and clears the warnings. */
export function takeWarnings() {
  const taken = warnings;
  warnings = [];
  return taken;
}

/** One open editor: a ShareDB connection that can be cut and reconnected. */
export class Client {
  constructor(url, { headers = {} } = {}) {
    this.url = url;
    this.headers = headers;
    /** Fetches with a version that only the library itself made, to fill a gap. */
    this.refetches = 0;
    /** Those of them that were caused by a commit after a gap, not by a cursor ahead of its document. */
    this.gapFetches = 0;
    this.fetchesAsked = 0;
    /** Errors that the library reported on the connection. */
    this.errors = [];
    /** Every op that was sent, as `src/seq`, and each acked one with its version. */
    this.sent = new Set();
    this.acks = [];
    /** Everything received, if a test records it. */
    this.received = [];
    this.keepsReceived = false;
    /** Predicates for messages that are lost on the way to the server and from it; lost messages from it are kept here. */
    this.losesSent = () => false;
    this.losesReceived = () => false;
    this.lost = [];
    this.connection = new sharedb.Connection(new Socket(this));
    this.connection.on('error', (error) => this.errors.push(error));
  }

  static async connect(url, options) {
    const client = new Client(url, options);
    await client.connected();
    return client;
  }

  connected() {
    return until(() => this.connection.state === 'connected', 'the client is connected');
  }

  doc(id, collection = 'docs') {
    return this.connection.get(collection, id);
  }

  async subscribed(id, collection) {
    const doc = this.doc(id, collection);
    await called((done) => doc.subscribe(done), 'subscribe');
    return doc;
  }

  async fetched(id, collection) {
    const doc = this.doc(id, collection);
    this.fetchesAsked += 1;
    await called((done) => doc.fetch(done), 'fetch');
    this.fetchesAsked -= 1;
    return doc;
  }

  /** Destroys the socket without a close frame. */
  cut() {
    this.connection.socket.die();
  }

  /** Opens a new socket for the same editor, possibly over another URL. */
  async reconnect(url = this.url) {
    this.url = url;
    this.connection.bindToSocket(new Socket(this));
    await this.connected();
  }

  /** As `reconnect`, without waiting. */
  rebind() {
    this.connection.bindToSocket(new Socket(this));
  }

  settled() {
    return until(() => !this.connection.hasPending(), 'everything is acknowledged');
  }

  close() {
    this.connection.close();
  }

  /** Sends a message that the library would not send. */
  say(message) {
    this.connection.socket.ws.send(JSON.stringify(message));
  }

  sending(message) {
    if (message.a === 'f' && message.v != null && !this.fetchesAsked) {
      this.refetches += 1;
      // The library fetches synchronously in the call that detected the gap, so that the stack names the cause.
      if (!/remote-doc-presence/.test(new Error().stack)) this.gapFetches += 1;
    }
    if (message.a === 'op') this.sent.add(`${message.src ?? this.connection.id}/${message.seq}`);
  }

  receiving(message) {
    if (this.keepsReceived) this.received.push(message);
    if (message.a === 'op' && !message.error && message.src === this.connection.id) {
      const { c, d, src, seq, v } = message;
      this.acks.push({ c, d, src, seq, v });
    }
  }
}

/** The part of a browser's WebSocket that the library uses. */
class Socket {
  constructor(client) {
    this.readyState = 0;
    this.client = client;
    // One message per turn of the event loop, as in a browser.
    this.ws = new WebSocket(client.url, { headers: client.headers, allowSynchronousEvents: false });
    this.ws.on('open', () => {
      if (this.readyState !== 0) return;
      this.readyState = 1;
      this.onopen?.();
    });
    this.ws.on('message', (data) => {
      if (this.readyState !== 1) return;
      const text = String(data);
      const message = JSON.parse(text);
      if (client.losesReceived(message)) {
        client.lost.push(message);
        return;
      }
      client.receiving(message);
      this.onmessage?.({ data: text });
    });
    this.ws.on('error', () => {});
    this.ws.on('close', (code) => this.gone(code));
  }

  send(text) {
    if (this.ws.readyState !== 1) return;
    const message = JSON.parse(text);
    this.client.sending(message);
    if (!this.client.losesSent(message)) this.ws.send(text);
  }

  close() {
    this.ws.close();
    this.gone(1000);
  }

  die() {
    this.ws.terminate();
    this.gone(1006);
  }

  gone(code) {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose?.({ code });
  }
}
