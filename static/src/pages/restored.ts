/**
 * What the page does when the server was restored to an earlier state: it says so and loads itself anew.
 *
 * The document that it shows may hold changes that the server has lost, so nothing of it can be sent. Edits that were not
 * acknowledged are kept in the browser; the page that is loaded then cannot send them either, and offers their text for
 * copying.
 */

import type { Doc } from 'sharedb/lib/client/index.js';
import type { Store } from '../lib/store';
import { textOf } from '../sync/refused-ops';
import { type EditorState, mergedRefusal } from './state';

/** All pages of a server are told at once: they load anew within this time. */
const SPREAD_MS = 2_000;

const FLAG = 'copydesk.restored';

const RELOADING = 'The server was restored to an earlier state. This page loads again.';
const RELOADED = 'The server was restored to an earlier state: the newest changes may be missing.';
const BY_HAND = 'The server was restored to an earlier state. Copy your text, then load this page again.';

export class RestoredServer {
  /** True while the page may be left without a question. */
  isReloading = false;
  #areEditsKept = false;

  /** Says so in a page that was loaded again for this reason. */
  constructor(private readonly store: Store<EditorState>) {
    if (sessionStorage.getItem(FLAG) === null) return;
    sessionStorage.removeItem(FLAG);
    store.set({ notice: RELOADED });
  }

  /** Unacknowledged edits outlive the page. */
  editsAreKept(): void {
    this.#areEditsKept = true;
  }

  /** Loads the page again. If the browser keeps no edits and some are not acknowledged, the user does that. */
  reload(doc: Doc): void {
    if (doc.hasWritePending() && !this.#areEditsKept) {
      const ops = doc.inflightOp ? [doc.inflightOp, ...doc.pendingOps] : doc.pendingOps;
      const lost = ops.map(({ op, create }) => textOf(op ?? create?.data)).join('');
      this.store.set({ refusal: mergedRefusal(this.store.state.refusal, { reason: BY_HAND, lost, isAlone: false }) });
      return;
    }
    this.store.set({ notice: RELOADING });
    setTimeout(() => {
      this.isReloading = true;
      sessionStorage.setItem(FLAG, '1');
      location.reload();
    }, Math.random() * SPREAD_MS);
  }
}
