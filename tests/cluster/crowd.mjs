// Simulated users who keep typing during failures: they detect dead connections, reconnect over another route, and record
// what they sent and what was acknowledged.
import { Client, Delta, TEXT } from '../js/client.mjs';
import { richEdit, textEdit } from '../js/random.mjs';
import { until } from '../js/wait.mjs';

/** The time limit for a connection to open or to answer a ping. */
const PATIENCE_MS = 3_000;
const PING_EVERY_MS = 1_000;

/** The store did not answer. */
const TRY_AGAIN = 'ERR_STORE_UNAVAILABLE';

/** The shortest and the longest pause before a reconnect. */
const BACK_AFTER_MS = [20, 250];

/** Waits longer than this are recorded one by one. */
const LONG_MS = 100;

/** What all clients of a run received: for one version of one log, all must receive the same op. */
export class Hearsay {
  /** The author of the op at `collection/id/version`, as it was received first. */
  told = new Map();
  contradictions = [];

  hear({ c, d, v, src, seq }) {
    const place = `${c}/${d}/${v}`;
    const name = `${src}/${seq}`;
    const before = this.told.get(place);
    if (before === undefined) this.told.set(place, name);
    else if (before !== name) this.contradictions.push(`${place} is ${before} and ${name}`);
  }
}

/** An open editor that reconnects by itself. `route` returns the URL for each attempt. */
export class Person extends Client {
  /** The close codes of sockets that the other end closed. */
  codes = [];
  /** The number of sockets that it gave up because no ping was answered. */
  gaveUp = 0;
  /** The number of failed connection attempts. */
  turnedAway = 0;
  /** The number of subscriptions that failed because the store did not answer for long. */
  triedAgain = 0;
  wasConnected = true;
  /** Errors in answer to edits. A cluster with failing parts has no reason to reject one. */
  refusals = [];
  /** The rejected edits, as `src/seq`. */
  refused = new Set();
  isLeaving = false;
  /** Set while it closes a socket that it gave up. */
  givesUp = false;

  static async arrive(route, options) {
    const person = new Person(route, options);
    await until(() => person.connection.state === 'connected', 'the client is connected', 30_000);
    return person;
  }

  constructor(route, { hearsay, r }) {
    super(route());
    Object.assign(this, { route, hearsay, r });
    this.since = performance.now();
    this.ping = { sent: this.since, isOpen: false };
    const { connection } = this;
    connection.on('state', () => this.changed());
    connection.on('connected', () => (this.wasConnected = true));
    connection.on('error', (error) => error.code === TRY_AGAIN && this.tryAgain(error));
    connection.on('pong', () => (this.ping.isOpen = false));
    connection.on('disconnected', (reason) => {
      if (!this.wasConnected) this.turnedAway += 1;
      else if (!this.givesUp) this.codes.push(reason?.code);
      this.wasConnected = this.givesUp = false;
      if (this.isLeaving) return;
      setTimeout(() => this.isLeaving || this.comeBack(), r.from(...BACK_AFTER_MS));
    });
    this.tending = setInterval(() => this.tend(), 250);
  }

  /** The library does not repeat a rejected subscription; a reconnect does. */
  tryAgain(error) {
    this.errors.splice(this.errors.indexOf(error), 1);
    this.triedAgain += 1;
    this.giveUp();
  }

  changed() {
    this.since = performance.now();
    this.ping = { sent: this.since, isOpen: false };
  }

  comeBack() {
    this.url = this.route();
    this.rebind();
  }

  /** Gives up a connection that does not answer. */
  tend() {
    const now = performance.now();
    const { connection, ping } = this;
    if (connection.state === 'connecting') {
      if (now - this.since > PATIENCE_MS) this.cut();
    } else if (connection.canSend) {
      if (ping.isOpen && now - ping.sent > PATIENCE_MS) this.giveUp();
      else if (!ping.isOpen && now - ping.sent > PING_EVERY_MS) {
        this.ping = { sent: now, isOpen: true };
        connection.ping();
      }
    }
  }

  giveUp() {
    this.gaveUp += 1;
    this.givesUp = true;
    this.cut();
  }

  receiving(message) {
    super.receiving(message);
    if (message.a !== 'op' || !message.c) return;
    if (message.error) this.refused.add(`${message.src ?? this.connection.id}/${message.seq}`);
    else this.hearsay?.hear(message);
  }

  get isConnected() {
    return this.connection.state === 'connected';
  }

  leave() {
    this.isLeaving = true;
    clearInterval(this.tending);
    this.close();
  }
}

/** Types into one document: the next edit is made when the previous one is acknowledged. */
export class Writer {
  /** `paceMs` is the average pause between an ack and the next edit, at random from half to one and a half of it. */
  constructor(person, doc, { name, style = 'tokens', paceMs = 0 }) {
    Object.assign(this, { person, doc, name, style, paceMs });
    this.isTyping = false;
    this.isWaiting = false;
    this.acked = 0;
    this.tokens = 0;
    this.startedAt = 0;
    this.forgetWaits();
  }

  /** Waits from now on are counted, earlier ones are not. */
  forgetWaits() {
    this.longest = [0, 0];
    this.longWaits = [];
  }

  /** An edit waited for its ack from `startedAt` until now. */
  waited() {
    const wait = [this.startedAt, performance.now()];
    const ms = wait[1] - wait[0];
    if (ms > this.longestMs) this.longest = wait;
    if (ms > LONG_MS) this.longWaits.push(wait);
  }

  /** The longest wait of an edit for its ack. */
  get longestMs() {
    return this.longest[1] - this.longest[0];
  }

  /** The spans `[from, to]` in which edits waited for their acks: all long ones, or else the longest. */
  get waits() {
    return this.longWaits.length ? this.longWaits : [this.longest];
  }

  start() {
    this.isTyping = true;
    this.type();
    return this;
  }

  stop() {
    this.isTyping = false;
    clearTimeout(this.timer);
  }

  type() {
    if (!this.isTyping || this.isWaiting) return;
    const { doc, person } = this;
    const edit = doc.type && EDITS[this.style](this);
    // Deleted or not created yet: check again later.
    if (!edit) return this.later(100);
    this.isWaiting = true;
    this.startedAt = performance.now();
    doc.submitOp(edit, (error) => {
      this.isWaiting = false;
      this.waited();
      if (error) person.refusals.push(`${doc.id}: ${error.code} ${error.message}`);
      else this.acked += 1;
      this.later(this.paceMs && this.paceMs * (0.5 + person.r.below(1000) / 1000));
    });
  }

  later(ms) {
    if (this.isTyping) this.timer = setTimeout(() => this.type(), ms);
  }

  /** The typed tokens that must be in the final text, unless documents are deleted. */
  get typed() {
    return Array.from({ length: this.tokens }, (_, n) => `[${this.name}.${n}]`);
  }
}

export const textOf = (doc) =>
  typeof doc.data === 'string' ? doc.data : doc.data.ops.map(({ insert }) => insert).join('');

/** The tokens of a text, sorted. */
export const tokensOf = (doc) => (textOf(doc).match(/\[[^\]]*\]/g) ?? []).sort();

const EDITS = {
  /** Types unique words between existing words, so that no word is split and the words of the final text can be counted. */
  tokens(writer) {
    const { doc, person } = writer;
    const text = textOf(doc);
    const at = text.indexOf(']', person.r.below(text.length + 1)) + 1;
    const token = `[${writer.name}.${writer.tokens}]`;
    writer.tokens += 1;
    return doc.type.uri === TEXT.uri ? [...(at ? [at] : []), token] : new Delta().retain(at).insert(token);
  },
  /** Types random valid ops. */
  anything({ doc, person: { r } }) {
    return doc.type.uri === TEXT.uri ? textEdit(r, doc.data) : richEdit(r, doc.data);
  },
};

/** The quantile `p` of sorted or unsorted numbers: 0.5 is the median. */
export function quantile(figures, p) {
  const sorted = [...figures].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(p * sorted.length))];
}

/** Numbers in one line: count, median, 99th percentile, maximum. */
export function spread(figures) {
  if (!figures.length) return 'none';
  const [p50, p99, max] = [quantile(figures, 0.5), quantile(figures, 0.99), Math.max(...figures)].map(Math.round);
  return `${figures.length} × p50 ${p50} ms, p99 ${p99} ms, max ${max} ms`;
}
