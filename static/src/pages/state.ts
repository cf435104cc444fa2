/** Everything the editor's page shows, in one place. */

import type { Formats } from '../editor/commands';
import type { Role } from '../lib/api';
import type { Person } from '../lib/person';
import type { Refusal } from '../sync/binding';
import type { Link } from '../sync/connection';
import type { Peer } from '../sync/presence';

export interface EditorState {
  /** Which editor the document is shown in. */
  kind: 'rich' | 'plain';
  document: 'loading' | 'ready' | 'missing' | 'deleted' | 'failed';
  link: Link;
  wasOnline: boolean;
  /** Changes of this user that the server has not acknowledged. */
  waiting: number;
  /** They have been waiting for so long that the server cannot be saving them now. */
  isStuck: boolean;
  /** The server takes this page's changes more slowly for now. */
  isSlowed: boolean;
  /** The user's role on the document: undefined until the server has sent one. */
  role: Role | null | undefined;
  /**
   * This page has sent the creation of the document, and the server has not sent the creator's role yet. Until then the
   * server reports `null`, because the document did not exist when it looked.
   */
  isCreating: boolean;
  /** We had a document and have lost it; or could write to it and no longer may. */
  lostAccess: 'document' | 'write' | null;
  /** Why the document is read-only for all: its stored history is damaged. Null if it is intact. */
  damage: string | null;
  /** The session is over, and cannot be renewed. */
  isSignedOut: boolean;
  title: string;
  /** A title that the server has not taken yet. */
  wantedTitle: string | null;
  /** The server's title that the wanted one replaces; null if it is not known. */
  replacedTitle: string | null;
  me: Person;
  peers: Peer[];
  formats: Formats;
  canUndo: boolean;
  canRedo: boolean;
  refusal: Refusal | null;
  /** Text that the page showed and the document does not hold, found by the page's check of itself. */
  unstored: string | null;
  notice: string | null;
}

export type Status = 'connecting' | 'loading' | 'saved' | 'saving' | 'stuck' | 'offline' | 'failed';

/** Null where there is nothing to be saved: no document, or none that the user may open any more. */
export function statusOf(state: Readonly<EditorState>): { status: Status; text: string } | null {
  const { document, link, wasOnline, waiting, isStuck, isSlowed, lostAccess, wantedTitle } = state;
  if (lostAccess === 'document' || document === 'missing' || document === 'deleted') return null;
  const changes = waiting === 1 ? '1 change waiting' : `${waiting} changes waiting`;
  if (document === 'failed') return { status: 'failed', text: 'Not loaded' };
  if (link !== 'online') {
    if (link === 'connecting' && !wasOnline) return { status: 'connecting', text: 'Connecting…' };
    return { status: 'offline', text: waiting > 0 ? `Offline: ${changes}` : 'Offline' };
  }
  if (document === 'loading') return { status: 'loading', text: 'Loading…' };
  if (waiting > 0 && isSlowed) return { status: 'saving', text: 'Saving slowly: the server is busy' };
  if (waiting > 0 && isStuck) return { status: 'stuck', text: `Not saving: ${changes}` };
  return waiting > 0 || wantedTitle !== null
    ? { status: 'saving', text: 'Saving…' }
    : { status: 'saved', text: 'Saved' };
}

/**
 * Whether the user may change the document. An unknown role counts as one that may: otherwise what is typed between the
 * first drawing and the server's answer would be lost. An op that is not permitted is refused by the server.
 */
export function mayWrite({ role, isCreating, damage }: Readonly<EditorState>): boolean {
  if (damage !== null) return false;
  return role === undefined || role === 'editor' || role === 'owner' || (role === null && isCreating);
}

/** Refusals that the user has not dismissed are shown as one. */
export function mergedRefusal(before: Refusal | null, next: Refusal): Refusal {
  if (before === null) return next;
  return {
    reason: next.reason || before.reason,
    lost: before.lost + next.lost,
    isAlone: before.isAlone && next.isAlone,
  };
}
