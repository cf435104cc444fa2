/**
 * The connection to the server: a ShareDB connection over a socket that reconnects by itself.
 *
 * The client keeps one connection object for the page's life, so ops that were cut off are sent again under the same
 * (src, seq) and the server commits them once. Ops that the server refuses for the moment are sent again as well:
 * the ShareDB client would treat such an answer like any refusal and undo the user's edit.
 */

import ReconnectingWebSocket from 'partysocket/ws';
import richText from 'rich-text';
import ShareDB, { type Connection } from 'sharedb/lib/client/index.js';
import { socketAddress } from '../lib/address';
import type { Role } from '../lib/api';
import { textTypeWithPresence } from './plain-type';

ShareDB.types.register(richText.type);
ShareDB.types.register(textTypeWithPresence);

export type Link = 'connecting' | 'online' | 'offline';

/** What a document's user may do with it, from now on. */
export interface Rights {
  c: string;
  d: string;
  role: Role | null;
}

/** The server cannot show or change a document as it should: it is damaged, or shown as it was some time ago. */
export interface Limited {
  c: string;
  d: string;
  code: string;
  message: string;
}

export interface ConnectionHooks {
  limited(limited: Limited): void;
  rights(rights: Rights): void;
  /** Resolves when a socket may be opened: a signed-in user needs a session that is not about to end. */
  fresh(isDoubtful: boolean): Promise<void>;
  /** The server reads this page's messages more slowly until then, because there are too many. */
  slowed(untilMs: number): void;
  /**
   * The server was restored to an earlier state: the connection is closed for good, because what this page holds may not
   * be what the server has. The document must be loaded anew.
   */
  outdated(): void;
}

/** Close codes after which the session may be over. A refused handshake closes with 1006: a browser does not say why. */
const SIGNED_OUT = 4401;
const REFUSED = 1006;
/** Close code for a client with documents of another history of the log. */
const HISTORY_CHANGED = 4409;

const HEARTBEAT_MS = 10_000;
const UNANSWERED_MAX = 2;
const NOT_NOW = ['ERR_BUSY', 'ERR_STORE_UNAVAILABLE'];
const NOT_NOW_PAUSE_MS = 1_000;
/** The longest pause that a server can ask for. */
const RETRY_AFTER_MS_MAX = 60_000;

export class ReconnectingConnection {
  readonly connection: Connection;
  #socket: ReconnectingWebSocket;
  /** Heartbeats that the server has not answered with anything at all. */
  #unanswered = 0;
  /** Until when the server has said that it does not answer. */
  #quietUntilMs = 0;
  #wasOnline = false;
  #pause = 0;
  /** Whether the last socket ended in a way that leaves it open whether we are still signed in. */
  #isDoubtful = false;
  #closed = new AbortController();

  /** `id` is that of an earlier connection of the same user, to be resumed. */
  constructor(
    onChange: (link: Link) => void,
    private readonly hooks: ConnectionHooks,
    id: string | null = null,
  ) {
    this.#socket = this.#open();
    this.connection = new ShareDB.Connection(this.#socket);
    this.connection.id = id;
    this.connection.on('state', () => {
      this.#unanswered = 0;
      clearTimeout(this.#pause);
      if (this.connection.state === 'connected') this.#wasOnline = true;
      onChange(this.link);
    });
    this.connection.on('receive', (request) => {
      this.#unanswered = 0;
      const rights = rightsIn(request.data);
      if (rights) {
        // Not a ShareDB message.
        request.data = null;
        return hooks.rights(rights);
      }
      const slowedMs = slowedMsIn(request.data);
      if (slowedMs !== null) {
        request.data = null;
        return this.#slowed(slowedMs);
      }
      const limited = limitedIn(request.data);
      if (limited) hooks.limited(limited);
      const busy = busyIn(request.data);
      if (!busy) return;
      request.data = null;
      clearTimeout(this.#pause);
      this.#pause = window.setTimeout(() => this.#again(busy), pauseMsOf(busy) * (1 + Math.random()));
    });
    this.connection.on('error', (error) => console.error('connection:', error.message));

    const { signal } = this.#closed;
    const beats = setInterval(() => this.#beat(), HEARTBEAT_MS);
    signal.addEventListener('abort', () => clearInterval(beats));
    addEventListener('online', () => this.#wake(), { signal });
    addEventListener('offline', () => this.#restart(), { signal });
    document.addEventListener('visibilitychange', () => document.hidden || this.#wake(), { signal });
  }

  /** Closes the connection for good. */
  close(): void {
    this.#closed.abort();
    clearTimeout(this.#pause);
    this.connection.close();
  }

  get link(): Link {
    switch (this.connection.state) {
      case 'connected':
        return 'online';
      case 'connecting':
        return 'connecting';
      default:
        // Before the first handshake there was no connection to lose.
        return this.#wasOnline || !navigator.onLine ? 'offline' : 'connecting';
    }
  }

  /** Closes a half-open socket, and one with a handshake that hangs. */
  #beat(): void {
    if (this.connection.state !== 'connected' && this.connection.state !== 'connecting') return;
    if (Date.now() < this.#quietUntilMs) return;
    if (this.#unanswered >= UNANSWERED_MAX) return this.#restart();
    this.#unanswered += 1;
    if (this.connection.canSend) this.connection.ping();
  }

  /** An op goes again over this socket after the pause that the server asked for. Anything else needs a new one. */
  #again({ c, d, a, error }: Busy): void {
    const doc = a === 'op' && error.retryAfterMs !== undefined ? this.connection.getExisting(c, d) : undefined;
    if (doc?.inflightOp && this.connection.canSend) this.connection.sendOp(doc, doc.inflightOp);
    else this.#restart();
  }

  #slowed(forMs: number): void {
    // Pings are not read either.
    this.#quietUntilMs = Date.now() + forMs;
    this.hooks.slowed(this.#quietUntilMs);
  }

  #restart(): void {
    this.#unanswered = 0;
    this.#socket.reconnect();
  }

  #open(): ReconnectingWebSocket {
    const socket = openSocket(() => this.hooks.fresh(this.#isDoubtful));
    socket.addEventListener('close', ({ code }) => {
      this.#isDoubtful = code === SIGNED_OUT || code === REFUSED;
      if (code !== HISTORY_CHANGED || this.#closed.signal.aborted) return;
      this.close();
      this.hooks.outdated();
    });
    return socket;
  }

  /** The library cannot shorten a pause that has begun, so a new socket object takes its place. */
  #wake(): void {
    if (this.connection.state !== 'disconnected') return;
    this.#socket = this.#open();
    this.connection.bindToSocket(this.#socket);
  }
}

function rightsIn(message: unknown): Rights | null {
  const rights = (message ?? {}) as Rights & { a?: unknown };
  return rights.a === 'rights' ? rights : null;
}

/** Codes of documents that can be read in part, and not changed. */
const UNWRITABLE = ['ERR_DOC_DAMAGED', 'ERR_DOC_OVERSIZED', 'ERR_DOC_QUARANTINED'];

export function isUnwritable(code: string): boolean {
  return UNWRITABLE.includes(code);
}

/** Stated in `notice` of a snapshot, in `error` of a refusal. */
function limitedIn(message: unknown): Limited | null {
  const { c, d, data, error } = (message ?? {}) as { c?: unknown; d?: unknown; data?: unknown; error?: unknown };
  const notice = (data as { notice?: unknown } | null | undefined)?.notice;
  const { code, message: text } = (notice ?? error ?? {}) as { code?: unknown; message?: unknown };
  if (typeof c !== 'string' || typeof d !== 'string' || typeof code !== 'string' || typeof text !== 'string')
    return null;
  return notice || isUnwritable(code) ? { c, d, code, message: text } : null;
}

/** The answer to a request about a document that the server cannot serve now. */
interface Busy {
  a: string;
  c: string;
  d: string;
  error: { code: string; retryAfterMs?: number };
}

function busyIn(message: unknown): Busy | null {
  const busy = (message ?? {}) as Partial<Busy>;
  const isBusy = ['op', 's', 'f'].includes(String(busy.a)) && NOT_NOW.includes(String(busy.error?.code));
  return isBusy ? (busy as Busy) : null;
}

function pauseMsOf({ error }: Busy): number {
  return boundedMs(error.retryAfterMs) ?? NOT_NOW_PAUSE_MS;
}

/** For how long the server reads no more, where the message says that. */
function slowedMsIn(message: unknown): number | null {
  const { a, retryAfterMs } = (message ?? {}) as { a?: unknown; retryAfterMs?: unknown };
  return a === 'slowed' ? (boundedMs(retryAfterMs) ?? NOT_NOW_PAUSE_MS) : null;
}

function boundedMs(ms: unknown): number | null {
  return typeof ms === 'number' && ms >= 0 ? Math.min(ms, RETRY_AFTER_MS_MAX) : null;
}

/** Pauses grow from under a second to about ten, each browser's by its own measure, so that a restart is no stampede. */
function openSocket(fresh: () => Promise<void>): ReconnectingWebSocket {
  const address = async (): Promise<string> => {
    await fresh();
    return socketAddress();
  };
  return new ReconnectingWebSocket(address, [], {
    minReconnectionDelay: 250 + Math.random() * 500,
    maxReconnectionDelay: 8_000 + Math.random() * 4_000,
    reconnectionDelayGrowFactor: 1.6,
    connectionTimeout: 8_000,
    minUptime: 5_000,
    // ShareDB sends again what was not acknowledged; a second queue below it would send it twice.
    maxEnqueuedMessages: 0,
  });
}
