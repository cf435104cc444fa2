/**
 * Keeps the shown title level with the server's.
 *
 * Titles are changed by REST, not by ops. A page that renames the document announces it in its presence, and the other
 * pages read the title again. A title that cannot be sent yet (offline, or the document is not created yet) is sent later.
 */

import { ApiError, type DocumentSummary } from '../lib/api';
import type { Store } from '../lib/store';
import type { EditorState } from '../pages/state';

export interface TitleApi {
  read(id: string): Promise<DocumentSummary>;
  rename(id: string, title: string): Promise<DocumentSummary>;
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

  rename(title: string): void {
    this.store.set({ wantedTitle: title });
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
    const wanted = this.store.state.wantedTitle;
    try {
      const { title } = wanted === null ? await this.api.read(this.id) : await this.api.rename(this.id, wanted);
      this.#isKnown = true;
      if (title !== this.store.state.title) this.#pauseMs = ANNOUNCED_PAUSE_MS[0];
      this.store.set({ title });
      if (wanted === null) return;
      if (this.store.state.wantedTitle === wanted) this.store.set({ wantedTitle: null });
      else this.#again = true;
      this.revision = Math.max(this.revision + 1, Date.now());
      this.onRenamed();
    } catch (error) {
      const isRefusal = error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429;
      if (!isRefusal) return void setTimeout(() => this.refresh(), RETRY_MS);
      if (wanted === null) return;
      this.store.set({ wantedTitle: null, notice: `The title was not changed. ${error.message}` });
    }
  }
}
