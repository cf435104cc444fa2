/** Edits that outlive their page: keeps those of the document that is shown, and sends those of its earlier pages. */

import type { Doc } from 'sharedb/lib/client/index.js';
import type { Me } from '../lib/api';
import type { Store } from '../lib/store';
import type { ConnectionHooks } from '../sync/connection';
import { UnsentStore, type UnsentTarget } from '../sync/unsent';
import { deliverUnsent } from '../sync/unsent-delivery';
import { UnsentKeeper } from '../sync/unsent-keeper';
import { type EditorState, mergedRefusal } from './state';

/** A document is not shown before its unsent edits are sent; but it does not wait longer than this. */
const WAIT_MS = 5_000;

export interface UnsentHooks {
  fresh: ConnectionHooks['fresh'];
  /** Counts an edit that waits for the server, until the returned function is called. */
  pending(): () => void;
  titled(title: string, replaced: string | null): void;
  /** From now on unacknowledged edits outlive this page. */
  kept(): void;
}

/** Resolves when the document may be subscribed to. */
export async function resumeUnsent(
  account: Me,
  doc: Doc,
  store: Store<EditorState>,
  hooks: UnsentHooks,
): Promise<void> {
  // A browser that does not answer must not keep the document from being shown.
  const unsent = await Promise.race([UnsentStore.open(), pause()]);
  if (!unsent) return;
  const target: UnsentTarget = { user: account.user?.id ?? account.mode, collection: doc.collection, document: doc.id };
  const keeper = new UnsentKeeper(unsent, target, doc, () => ({
    title: store.state.wantedTitle,
    replacedTitle: store.state.replacedTitle,
  }));
  store.watch(['waiting', 'wantedTitle', 'replacedTitle'], () => keeper.changed());
  hooks.kept();

  const forgetters: (() => void)[] = [];
  store.watch(['refusal'], ({ refusal }) => {
    if (refusal === null) for (const forget of forgetters.splice(0)) forget();
  });
  const isDelivered = hooks.pending();
  const delivery = deliverUnsent(unsent, target, {
    fresh: hooks.fresh,
    titled: hooks.titled,
    refused(refusal, forget) {
      forgetters.push(forget);
      store.set({ refusal: mergedRefusal(store.state.refusal, refusal) });
    },
  })
    .catch((error: unknown) => console.error('unsent edits were not sent:', error))
    .finally(isDelivered);
  await Promise.race([delivery, pause()]);
}

function pause(): Promise<null> {
  return new Promise((resolve) => setTimeout(() => resolve(null), WAIT_MS));
}
