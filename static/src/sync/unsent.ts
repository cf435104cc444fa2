/**
 * The edits of this browser that the server has not acknowledged, in IndexedDB. What a page writes while it is being
 * closed goes by way of localStorage.
 *
 * Each open page has at most one record: its connection's id, and the edits with the `seq` of the first one. This is what
 * the server recognises an op by, so a record can be sent again at any time, by any page, and is committed once. A record
 * may be older than what its page has sent since: the ops are the same under the same numbers.
 */

import { type DBSchema, type IDBPDatabase, openDB } from 'idb';

/** An edit as the ShareDB client keeps it. */
export interface UnsentEdit {
  op?: unknown;
  create?: { type: string; data: unknown };
}

/** The document that edits belong to, and the user that made them: no other user may send them. */
export interface UnsentTarget {
  user: string;
  collection: string;
  document: string;
}

export interface UnsentRecord extends UnsentTarget {
  /** Names the page, and its lock. */
  key: string;
  savedAtMs: number;
  /** The id of the page's connection; null if it never had one. */
  client: string | null;
  /** The `seq` of the first edit. The others have the numbers that follow. */
  firstSeq: number;
  /** The version that the edits are based on; null if the page never learned it. */
  version: number | null;
  edits: UnsentEdit[];
  /** A title that the server has not accepted. */
  title: string | null;
  /** The title that it replaces; null if the page did not know it. Absent in records of older versions. */
  replacedTitle?: string | null;
}

interface Schema extends DBSchema {
  unsent: { key: string; value: UnsentRecord; indexes: { target: [string, string, string] } };
}

/** A page without Web Locks counts as closed when its record is this old. */
export const LEASE_MS = 30_000;

export class UnsentStore {
  private constructor(private readonly db: IDBPDatabase<Schema>) {}

  /** Null if the browser has no IndexedDB, or does not permit its use: then edits are kept in the page alone. */
  static async open(): Promise<UnsentStore | null> {
    try {
      const db = await openDB<Schema>('copydesk', 1, {
        upgrade(created) {
          created
            .createObjectStore('unsent', { keyPath: 'key' })
            .createIndex('target', ['user', 'collection', 'document']);
        },
      });
      return new UnsentStore(db);
    } catch (error) {
      console.warn('unsent edits are not kept:', error);
      return null;
    }
  }

  /** Oldest first. */
  async of({ user, collection, document }: UnsentTarget): Promise<UnsentRecord[]> {
    await this.#takeParked();
    const records = await this.db.getAllFromIndex('unsent', 'target', [user, collection, document]);
    return records.sort((a, b) => a.savedAtMs - b.savedAtMs);
  }

  read(key: string): Promise<UnsentRecord | undefined> {
    return this.db.get('unsent', key);
  }

  async write(record: UnsentRecord): Promise<void> {
    await this.db.put('unsent', record);
  }

  /** Writes at once, for a page that is being closed: the browser may abort what it has begun in IndexedDB. */
  park(record: UnsentRecord): void {
    try {
      localStorage.setItem(PARKED + record.key, JSON.stringify(record));
    } catch (error) {
      // Over the browser's quota of some 5 MB: the last write to IndexedDB remains.
      console.warn('the last unsent edits may not be kept:', error);
    }
  }

  async delete(key: string): Promise<void> {
    localStorage.removeItem(PARKED + key);
    await this.db.delete('unsent', key);
  }

  /** Moves to IndexedDB what closed pages have written in their last moment. */
  async #takeParked(): Promise<void> {
    for (const name of Object.keys(localStorage).filter((each) => each.startsWith(PARKED))) {
      const record = parsed(localStorage.getItem(name));
      const known = record && (await this.read(record.key));
      if (record && (!known || known.savedAtMs < record.savedAtMs)) await this.write(record);
      localStorage.removeItem(name);
    }
  }
}

const PARKED = 'copydesk.unsent.';

function parsed(json: string | null): UnsentRecord | null {
  try {
    return JSON.parse(json ?? 'null') as UnsentRecord | null;
  } catch {
    return null;
  }
}

/** Holds a page's lock until the page is closed. */
export function holdLock(key: string): void {
  void navigator.locks?.request(lockOf(key), () => new Promise(() => {}));
}

/** Runs `work` if the page of the record is closed and no other page works on it. */
export async function ifClosed(record: UnsentRecord, work: () => Promise<void>): Promise<void> {
  // Web Locks exist on https and on localhost only.
  if (navigator.locks) {
    await navigator.locks.request(lockOf(record.key), { ifAvailable: true }, (lock) => (lock ? work() : undefined));
  } else if (Date.now() - record.savedAtMs > LEASE_MS) {
    await work();
  }
}

function lockOf(key: string): string {
  return `copydesk.unsent.${key}`;
}
