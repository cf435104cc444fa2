/**
 * Sends the edits that closed pages of a document have left in IndexedDB.
 *
 * Each record is sent over a connection of its own that resumes the id of the closed page, with the numbers that the
 * edits had there: an edit that the server has committed already is acknowledged again and not committed twice.
 */

import type { Callback, Connection, Doc, PendingOp, ShareDBError, Snapshot } from 'sharedb/lib/client/index.js';
import type { Refusal } from './binding';
import { type ConnectionHooks, ReconnectingConnection } from './connection';
import { RefusedOps, textOf } from './refused-ops';
import { ifClosed, type UnsentRecord, type UnsentStore, type UnsentTarget } from './unsent';

export interface DeliveryHooks {
  fresh: ConnectionHooks['fresh'];
  /** An edit was refused. Its record is deleted when `forget` is called: until then the text is told at each opening. */
  refused(refusal: Refusal, forget: () => void): void;
  /** A closed page wanted this title instead of another one; null if it did not know which. */
  titled(title: string, replaced: string | null): void;
}

/** Resolves when all records of closed pages have been sent or refused, which may be when the server is back. */
export async function deliverUnsent(store: UnsentStore, target: UnsentTarget, hooks: DeliveryHooks): Promise<void> {
  for (const record of await store.of(target)) {
    await ifClosed(record, async () => {
      // Another page may have sent it meanwhile.
      const current = await store.read(record.key);
      if (current) await deliver(store, current, hooks);
    });
  }
}

async function deliver(store: UnsentStore, record: UnsentRecord, hooks: DeliveryHooks): Promise<void> {
  const refusal = record.edits.length > 0 ? await send(record, hooks) : null;
  if (record.title !== null) hooks.titled(record.title, record.replacedTitle ?? null);
  if (refusal === null) return store.delete(record.key);
  hooks.refused(refusal, () => void store.delete(record.key));
}

async function send(record: UnsentRecord, hooks: DeliveryHooks): Promise<Refusal | null> {
  const { promise: outdated, resolve: outdate } = withResolvers<Refusal>();
  const server = new ReconnectingConnection(
    () => {},
    // The edits belong to a document that the server no longer has in that form: they are handed back as text.
    { fresh: hooks.fresh, limited() {}, rights() {}, slowed() {}, outdated: () => outdate(lossOf(record, RESTORED)) },
    record.client,
  );
  try {
    return await Promise.race([sendOver(server.connection, record), outdated]);
  } finally {
    server.close();
  }
}

const RESTORED = 'The server was restored to an earlier state.';

function withResolvers<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((done) => (resolve = done));
  return { promise, resolve };
}

async function sendOver(connection: Connection, record: UnsentRecord): Promise<Refusal | null> {
  const doc = connection.get(record.collection, record.document);
  if (record.version !== null) {
    const base = await snapshotAt(connection, record).catch((error: Error) => error);
    if (base instanceof Error) return lossOf(record, base.message);
    if (base.type === null && !record.edits[0]?.create) return lossOf(record, 'The document does not exist any more.');
    doc.ingestSnapshot(base, () => {});
  }
  const refusals: Refusal[] = [];
  const refusedOps = new RefusedOps(doc, (refusal) => refusals.push(refusal));
  const errors = await submitAll(doc, record, () => refusedOps.isUndoing);
  const [error] = errors;
  if (error) {
    const loss = lossOf(record, error.message);
    // An empty document that another page has created meanwhile is what was wanted.
    return error.code === 'ERR_DOC_ALREADY_CREATED' && loss.lost.trim() === '' ? null : loss;
  }
  return refusals.reduce<Refusal | null>((all, next) => ({ ...next, lost: (all?.lost ?? '') + next.lost }), null);
}

/** Resolves to the errors of the edits that were not undone alone. */
async function submitAll(doc: Doc, record: UnsentRecord, isUndoing: () => boolean): Promise<ShareDBError[]> {
  const errors: ShareDBError[] = [];
  const answers = record.edits.map(
    (edit) =>
      new Promise<void>((resolve) => {
        const answered: Callback = (error) => {
          if (error && !isUndoing()) errors.push(error);
          resolve();
        };
        // Merged ops would have other numbers than those that may have been sent.
        doc.preventCompose = true;
        if (edit.create) doc.create(edit.create.data, edit.create.type, answered);
        else doc.submitOp(edit.op, { source: true }, answered);
      }),
  );
  doc.pendingOps.forEach((op: PendingOp, index) => {
    op.seq = record.firstSeq + index;
    if (record.client !== null) op.src = record.client;
  });
  await Promise.all(answers);
  return errors;
}

function snapshotAt(connection: Connection, { collection, document, version }: UnsentRecord): Promise<Snapshot> {
  return new Promise((resolve, reject) => {
    connection.fetchSnapshot(collection, document, version, (error, snapshot) => {
      if (snapshot) resolve(snapshot);
      else reject(error ?? new Error('The version is not known.'));
    });
  });
}

/** All text of the record, where nothing is known of what the server has of it. */
function lossOf({ edits }: UnsentRecord, reason: string): Refusal {
  return { reason, lost: edits.map(({ op, create }) => textOf(op ?? create?.data)).join(''), isAlone: false };
}
