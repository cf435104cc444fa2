/** Keeps the unacknowledged edits of this page's document in IndexedDB, for as long as there are any. */

import type { Doc, PendingOp } from 'sharedb/lib/client/index.js';
import { randomId } from '../lib/ids';
import { holdLock, LEASE_MS, type UnsentEdit, type UnsentRecord, type UnsentStore, type UnsentTarget } from './unsent';

/** Edits that are acknowledged within this time are never written. */
const WRITE_DELAY_MS = 300;

export class UnsentKeeper {
  readonly #key = randomId();
  #timer = 0;
  #isWritten = false;

  constructor(
    private readonly store: UnsentStore,
    private readonly target: UnsentTarget,
    private readonly doc: Doc,
    private readonly title: () => Pick<UnsentRecord, 'title' | 'replacedTitle'>,
  ) {
    holdLock(this.#key);
    addEventListener('pagehide', () => {
      if (this.#isEmpty) return;
      this.#isWritten = true;
      this.store.park(this.#record());
    });
    document.addEventListener('visibilitychange', () => {
      if (document.hidden) this.#write();
    });
    if (!navigator.locks) setInterval(() => this.#write(), LEASE_MS / 3);
  }

  /** To be called when an edit is made or acknowledged, or the title changes. */
  changed(): void {
    if (this.#isEmpty && !this.#isWritten) {
      clearTimeout(this.#timer);
      this.#timer = 0;
    } else {
      this.#timer ||= window.setTimeout(() => this.#write(), WRITE_DELAY_MS);
    }
  }

  get #isEmpty(): boolean {
    return !this.doc.hasWritePending() && this.title().title === null;
  }

  #write(): void {
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (this.#isEmpty && !this.#isWritten) return;
    this.#isWritten = !this.#isEmpty;
    const done = this.#isWritten ? this.store.write(this.#record()) : this.store.delete(this.#key);
    done.catch((error: unknown) => console.warn('unsent edits are not kept:', error));
  }

  #record(): UnsentRecord {
    const { connection, inflightOp, pendingOps, version } = this.doc;
    const ops = inflightOp ? [inflightOp, ...pendingOps] : pendingOps;
    return {
      ...this.target,
      key: this.#key,
      savedAtMs: Date.now(),
      client: ops[0]?.src ?? connection.id,
      firstSeq: ops[0]?.seq ?? connection.seq,
      version,
      edits: ops.map(editOf),
      ...this.title(),
    };
  }
}

/** Plain JSON: what a Delta is beyond that, IndexedDB cannot store. */
function editOf({ op, create }: PendingOp): UnsentEdit {
  return JSON.parse(JSON.stringify(create ? { create } : { op })) as UnsentEdit;
}
