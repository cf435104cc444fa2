/** Keeps the user signed in while a page is open. What it takes for that is in cookies, out of our reach. */

import { ApiError, type Me, openCollection, ourCollection, readMe, renewSession } from './api';

/** Pages of one browser take turns: each renewal is good once. */
const LOCK = 'copydesk.session';
const RETRY_MS = 15_000;
/** Interval at which a signed-out page checks for a new session, made in another tab for example. */
const OVER_PAUSE_MS = 5_000;

export class Session {
  #renewedAt = Date.now();
  #timer = 0;
  #over = false;

  constructor(
    private readonly renew: () => Promise<void>,
    private readonly renewAfterMs: number,
    private readonly onOver: () => void,
  ) {
    this.#wait(renewAfterMs);
    // Timers rest in hidden pages and in sleeping machines.
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) void this.fresh();
    });
  }

  /** None where there is nothing that could end. What another application has signed ends, and only that can renew it. */
  static of(me: Me, onOver: () => void): Session | null {
    if (me.user?.may_sign_out) return new Session(renewSession, me.renew_after_ms, onOver);
    return me.mode === 'tokens' && me.user ? new Session(stillKnown, Infinity, onOver) : null;
  }

  /** Resolves when the session is good for a while, or cannot be made so just now. */
  async fresh(isDoubtful = false): Promise<void> {
    if (this.#over) await new Promise((resolve) => setTimeout(resolve, OVER_PAUSE_MS));
    else if (!isDoubtful && Date.now() - this.#renewedAt < this.renewAfterMs) return;
    await this.#renew();
  }

  async #renew(): Promise<void> {
    try {
      await (navigator.locks ? navigator.locks.request(LOCK, this.renew) : this.renew());
      this.#renewedAt = Date.now();
      this.#over = false;
      this.#wait(this.renewAfterMs);
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        this.#over = true;
        clearTimeout(this.#timer);
        this.onOver();
      } else {
        this.#wait(RETRY_MS);
      }
    }
  }

  #wait(ms: number): void {
    clearTimeout(this.#timer);
    if (Number.isFinite(ms)) this.#timer = window.setTimeout(() => void this.#renew(), ms);
  }
}

async function stillKnown(): Promise<void> {
  const collection = ourCollection();
  const me = await readMe();
  openCollection(collection);
  if (!me.user) throw new ApiError(401, 'unauthorized', 'Come in again.');
}
