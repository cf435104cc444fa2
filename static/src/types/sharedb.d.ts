// The part of the ShareDB client that this page uses. The package ships no types of its own.

declare module 'sharedb/lib/client/index.js' {
  export type Callback = (error?: ShareDBError) => void;

  export interface ShareDBError extends Error {
    code?: string;
  }

  export interface Socket {
    readyState: number;
    close(): void;
    send(data: string): void;
    onmessage: ((event: MessageEvent) => void) | null;
    onopen: ((event: Event) => void) | null;
    onclose: ((event: CloseEvent) => void) | null;
    onerror: ((event: ErrorEvent) => void) | null;
  }

  export type ConnectionState = 'connecting' | 'connected' | 'disconnected' | 'closed' | 'stopped';

  export class Connection {
    constructor(socket: unknown);
    id: string | null;
    /** The `seq` of the next op. */
    seq: number;
    state: ConnectionState;
    canSend: boolean;
    bindToSocket(socket: unknown): void;
    close(): void;
    ping(): void;
    get(collection: string, id: string): Doc;
    getExisting(collection: string, id: string): Doc | undefined;
    /** Processes a message of the server. */
    handleMessage(message: unknown): void;
    /** Sends an op, as the first time or again. */
    sendOp(doc: Doc, op: PendingOp): void;
    fetchSnapshot(
      collection: string,
      id: string,
      version: number | null,
      callback: (error: ShareDBError | null, snapshot?: Snapshot) => void,
    ): void;
    getDocPresence(collection: string, id: string): DocPresence;
    on(event: 'state', listener: (state: ConnectionState) => void): this;
    on(event: 'error', listener: (error: ShareDBError) => void): this;
    on(event: 'pong', listener: () => void): this;
    /** Before a message is written: it may be changed. */
    on(event: 'send', listener: (message: unknown) => void): this;
    on(event: 'receive', listener: (request: { data: unknown }) => void): this;
    on(event: ConnectionState, listener: () => void): this;
    removeAllListeners(event?: string): this;
  }

  /** A document at a version. `type` is null where there is none. */
  export interface Snapshot {
    v: number;
    type: string | null;
    data?: unknown;
  }

  /** An edit that the server has not acknowledged. Not documented by ShareDB; the browser tests show when it changes. */
  export interface PendingOp {
    op?: unknown;
    create?: { type: string; data: unknown };
    del?: true;
    type: OtType;
    /** Absent until it is sent for the first time. */
    seq?: number;
    src?: string;
  }

  export interface OtType {
    name: string;
    uri: string;
    invert?(op: unknown): unknown;
  }

  /** An op's source: false for what came from the server, else what was given to `submitOp`. */
  export type Source = unknown;

  export class Doc {
    readonly connection: Connection;
    readonly collection: string;
    readonly id: string;
    version: number | null;
    type: OtType | null;
    data: unknown;
    /** The op that was sent, and those that wait behind it, all based on `version`. Offline the first one may have been sent. */
    readonly inflightOp: PendingOp | null;
    readonly pendingOps: PendingOp[];
    /** Whether the next op stays an op of its own. */
    preventCompose: boolean;
    subscribe(callback: Callback): void;
    submitOp(op: unknown, options: { source: Source }, callback: Callback): void;
    create(data: unknown, type: string, callback: Callback): void;
    hasWritePending(): boolean;
    ingestSnapshot(snapshot: { v: number; type: string | null; data?: unknown }, callback: Callback): void;
    destroy(callback?: Callback): void;
    setMaxListeners(most: number): this;
    on(event: 'op', listener: (op: unknown, source: Source) => void): this;
    on(event: 'load' | 'create' | 'del' | 'nothing pending', listener: () => void): this;
    on(event: 'error', listener: (error: ShareDBError) => void): this;
    removeAllListeners(event?: string): this;
  }

  export class LocalPresence {
    value: unknown;
    submit(value: unknown, callback?: Callback): void;
    destroy(callback?: Callback): void;
    on(event: 'error', listener: (error: ShareDBError) => void): this;
  }

  export class DocPresence {
    readonly channel: string;
    remotePresences: Record<string, unknown>;
    subscribe(callback?: Callback): void;
    unsubscribe(callback?: Callback): void;
    create(id?: string): LocalPresence;
    destroy(callback?: Callback): void;
    on(event: 'receive', listener: (id: string, value: unknown) => void): this;
    on(event: 'error', listener: (error: ShareDBError) => void): this;
    removeAllListeners(event?: string): this;
  }

  const client: {
    Connection: typeof Connection;
    types: { register(type: OtType): void };
    logger: { setMethods(methods: Record<string, (...args: unknown[]) => void>): void };
  };
  export default client;
}

declare module 'rich-text' {
  const richText: { type: import('sharedb/lib/client/index.js').OtType };
  export default richText;
}
