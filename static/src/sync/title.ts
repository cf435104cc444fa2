/**
 * Keeps the shown title level with the server's.
 *
 * Titles are changed by REST, not by ops. A page that renames the document announces it in its presence, and the other
 * pages read the title again. A title that cannot be sent yet (offline, or the document is not created yet) is sent later.
 */

import { ApiError, type DocumentSummary, presentTitle, renamedMeanwhile } from '../lib/api';
import type { Store } from '../lib/store';
import type { EditorState } from '../pages/state';

export interface TitleApi {
  read(id: string): Promise<DocumentSummary>;
  rename(id: string, title: string, was: string | null): Promise<DocumentSummary>;
}

/** A title, and the one that it replaces; null if that is not known. */
interface Rename {
  title: string;
  was: string | null;
}

const RETRY_MS = 3_000;

/**
 * How long after others have announced a rename the next announcement is followed. The pause doubles with each one that
 * turns out to be none, up to the second figure, because every reader of a document can announce renames at any rate.
 */
const ANNOUNCED_PAUSE_MS = [1_000, 60_000] as const;

export class TitleKeeper {
  /** Grows with each rename made here. */
  revision = 0;
  /** The server has told the title once; from then on only renames and reconnections ask again. */
  #isKnown = false;
  #busy = false;
  /**
   * The rename that was sent and is not answered. Its answer may be lost, so it is sent again before a later one: the title
   * that a later one replaces is known only when this one is answered.
   */
  #sent: Rename | null = null;
  /** The title that was refused last, because others had renamed the document. */
  #refused: string | null = null;
  #again = false;
  #announcedAt = -Infinity;
  #pauseMs: number = ANNOUNCED_PAUSE_MS[0];
  #announced = 0;

  constructor(
    private readonly id: string,
    private readonly store: Store<EditorState>,
    private readonly onRenamed: () => void,
    private readonly api: TitleApi,
  ) {}

  /** The user wants this title instead of `shown`, the title that the page showed. */
  rename(title: string, shown: string): void {
    const { wantedTitle, replacedTitle, title: known } = this.store.state;
    // The shown title may be one that the server has not taken yet, or has refused.
    if (wantedTitle !== null && wantedTitle === shown) this.resume(title, replacedTitle);
    else if (shown === this.#refused) this.resume(title, known);
    else this.resume(title, this.#isKnown ? shown : null);
  }

  /** As `rename`, with the server's title that the wanted one replaces; null if it is not known. */
  resume(title: string, replaced: string | null): void {
    this.store.set({ wantedTitle: title, replacedTitle: replaced });
    this.refresh();
  }

  /** To be called when the document's ops are all acknowledged: what had to wait for that can go now. */
  settled(): void {
    if (!this.#isKnown || this.store.state.wantedTitle !== null) this.refresh();
  }

  /** Others say that they have renamed the document. Any number of announcements within a pause asks the server once. */
  announced(): void {
    if (this.#announced) return;
    const quietMs = performance.now() - this.#announcedAt;
    if (quietMs > ANNOUNCED_PAUSE_MS[1]) this.#pauseMs = ANNOUNCED_PAUSE_MS[0];
    this.#announced = window.setTimeout(
      () => {
        this.#announced = 0;
        this.#announcedAt = performance.now();
        // Until the answer shows another title, this announcement was none.
        this.#pauseMs = Math.min(2 * this.#pauseMs, ANNOUNCED_PAUSE_MS[1]);
        this.refresh();
      },
      Math.max(0, this.#pauseMs - quietMs),
    );
  }

  /** Sends what is wanted, or reads what there is. */
  refresh(): void {
    const { document, link, waiting } = this.store.state;
    if (document !== 'ready' || link !== 'online') return;
    // A document that is not created yet has no title to read or to change.
    if (waiting > 0 && !this.#isKnown) return;
    if (this.#busy) {
      this.#again = true;
      return;
    }
    this.#busy = true;
    void this.#exchange().finally(() => {
      this.#busy = false;
      if (!this.#again) return;
      this.#again = false;
      this.refresh();
    });
  }

  async #exchange(): Promise<void> {
    this.#sent ??= this.#wanted();
    const rename = this.#sent;
    try {
      const answer = rename === null ? this.api.read(this.id) : this.api.rename(this.id, rename.title, rename.was);
      const { title } = await answer;
      this.#sent = null;
      this.#isKnown = true;
      if (title !== this.store.state.title) this.#pauseMs = ANNOUNCED_PAUSE_MS[0];
      this.store.set({ title });
      if (rename !== null) this.#renamed(rename, title);
    } catch (error) {
      const isRefusal = error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429;
      if (!isRefusal) return void setTimeout(() => this.refresh(), RETRY_MS);
      this.#sent = null;
      if (rename !== null) this.#refusedBy(error, rename);
    }
  }

  #wanted(): Rename | null {
    const { wantedTitle: title, replacedTitle: was } = this.store.state;
    return title === null ? null : { title, was };
  }

  #renamed(rename: Rename, title: string): void {
    this.#refused = null;
    if (this.store.state.wantedTitle === rename.title) this.store.set({ wantedTitle: null, replacedTitle: null });
    else {
      this.store.set({ replacedTitle: title });
      this.#again = true;
    }
    this.revision = Math.max(this.revision + 1, Date.now());
    this.onRenamed();
  }

  #refusedBy(error: ApiError, rename: Rename): void {
    const present = presentTitle(error);
    const lost = this.store.state.wantedTitle ?? rename.title;
    const nothing = { wantedTitle: null, replacedTitle: null };
    if (present === null) this.store.set({ ...nothing, notice: `The title was not changed. ${error.message}` });
    else {
      this.#refused = lost;
      this.store.set({ ...nothing, title: present, notice: renamedMeanwhile(present, lost) });
    }
  }
}
