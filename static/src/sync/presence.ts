/**
 * The other people in the document and their cursors, by ShareDB document presence.
 *
 * The ShareDB client moves a presence along with the text. It does not report a peer that disconnected while this page
 * was offline, so after a reconnection only peers that announce themselves again are shown.
 */

import type { Connection, Doc, DocPresence, LocalPresence } from 'sharedb/lib/client/index.js';
import { randomId } from '../lib/ids';
import { cleanColor, cleanName, GUEST, type Person } from '../lib/person';
import { isPlainText } from './plain';

export interface Peer extends Person {
  id: string;
  /** Null while the peer has not put a cursor into the text. */
  range: { index: number; length: number } | null;
  /** When the peer last moved or wrote. Text that moves the cursor along does not count. */
  movedAt: number;
}

export interface Own {
  person: Person;
  range: { index: number; length: number } | null;
  /** Grows with each rename: it tells the others to ask for the title again. */
  titleRevision: number;
}

/** A peer's last message and when it came. */
interface Heard {
  text: string;
  at: number;
  /** What was made of `source`, which is the peer's name and colour as they came. */
  person?: Person;
  source?: unknown[];
}

const HIDDEN_FRAME_MS = 200;

export class Presence {
  #presence: DocPresence;
  #local: LocalPresence;
  /** Of every peer heard of on this socket: the last message and when it came. */
  #heard = new Map<string, Heard>();
  #titleRevisions = new Map<string, number>();
  /** A value that the server has not acknowledged: the next one waits, so a slow connection sends fewer values, not later ones. */
  #underway = false;
  #stale = false;
  #isScheduled = false;

  constructor(
    private readonly connection: Connection,
    private readonly doc: Doc,
    private readonly own: () => Own,
    private readonly onPeers: (peers: Peer[]) => void,
    onRenamed: () => void,
  ) {
    this.#presence = connection.getDocPresence(doc.collection, doc.id);
    this.#local = this.#presence.create(randomId());
    this.#local.on('error', (error) => console.warn('presence:', error.message));
    this.#presence.on('error', (error) => console.warn('presence:', error.message));

    connection.on('receive', ({ data }) => this.#received(data));
    connection.on('state', (state) => {
      if (state === 'disconnected') {
        this.#heard.clear();
        onPeers([]);
      }
      if (state === 'connected') {
        this.#underway = false;
        this.publish();
      }
    });
    this.#presence.on('receive', (id, value) => {
      if (value === null) {
        this.#heard.delete(id);
        this.#titleRevisions.delete(id);
      } else if (this.#isRenamed(id, value)) onRenamed();
      this.#changed();
    });
    // A snapshot wipes every presence the client knows, in its own listeners to these events: go after them.
    doc.on('load', () => queueMicrotask(() => this.#join()));
    doc.on('create', () => queueMicrotask(() => this.#join()));
  }

  /** Enters the document's channel anew, so that all peers announce their cursors again. */
  #join(): void {
    const report = (error?: Error): void => {
      if (error) console.warn('presence:', error.message);
    };
    this.#presence.unsubscribe(report);
    this.#presence.subscribe(report);
    this.#underway = false;
    this.publish();
  }

  /** Publishes this user's cursor. Calls may be frequent: sending is throttled. */
  publish(): void {
    if (this.#underway) {
      this.#stale = true;
      return;
    }
    // The type of a plain text moves no cursors: the server refuses presences in it.
    if (!this.connection.canSend || isPlainText(this.doc)) return;
    this.#underway = true;
    this.#stale = false;
    const { person, range, titleRevision } = this.own();
    const value = {
      index: range?.index ?? 0,
      length: range?.length ?? 0,
      active: range !== null,
      titleRevision,
      ...person,
    };
    this.#local.submit(value, () => {
      this.#underway = false;
      if (this.#stale) this.publish();
    });
  }

  #received(message: unknown): void {
    const { a, ch, id, p } = (message ?? {}) as { a?: unknown; ch?: unknown; id?: unknown; p?: unknown };
    if (a === 'p' && ch === this.#presence.channel && typeof id === 'string' && p) {
      const text = JSON.stringify(p);
      if (this.#heard.get(id)?.text !== text) this.#heard.set(id, { text, at: Date.now() });
    }
  }

  /** Each edit moves each peer: what follows from that is done once a frame. A hidden page has no frames. */
  #changed(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    const report = (): void => {
      this.#isScheduled = false;
      this.onPeers(this.#peers());
    };
    if (document.hidden) setTimeout(report, HIDDEN_FRAME_MS);
    else requestAnimationFrame(report);
  }

  #isRenamed(id: string, value: unknown): boolean {
    const revision = (value as { titleRevision?: number } | null)?.titleRevision ?? NaN;
    if (!Number.isSafeInteger(revision)) return false;
    const before = this.#titleRevisions.get(id) ?? 0;
    this.#titleRevisions.set(id, revision);
    return revision > before;
  }

  #peers(): Peer[] {
    return Object.entries(this.#presence.remotePresences)
      .filter(([id, value]) => this.#heard.has(id) && typeof value === 'object' && value !== null)
      .map(([id, value]) => peerFrom(id, value as Record<string, unknown>, this.#heard.get(id)!))
      .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.id < b.id ? -1 : 1));
  }
}

function peerFrom(id: string, value: Record<string, unknown>, heard: Heard): Peer {
  const source = [value.name, value.color, value.guest];
  // Edits move a peer and leave its name as it is.
  if (!heard.person || !source.every((part, at) => part === heard.source?.[at])) {
    heard.person = personFrom(value);
    heard.source = source;
  }
  const { index, length, active } = value;
  const isRange = Number.isInteger(index) && Number.isInteger(length) && active !== false;
  return {
    id,
    ...heard.person,
    range: isRange ? { index: Math.max(0, index as number), length: Math.max(0, length as number) } : null,
    movedAt: heard.at,
  };
}

function personFrom(value: Record<string, unknown>): Person {
  // The server sets the name of a signed-in user, and marks guests, since a guest chooses the name.
  const name = `${cleanName(value.name) || 'Somebody'}${value.guest === true ? GUEST : ''}`;
  return { name, color: cleanColor(value.color, name) };
}
