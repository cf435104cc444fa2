/** Keeps the user signed in while a page is open. What it takes for that is in cookies, out of our reach. */

import { ApiError, renewSession, type Me } from "./api";

/** Pages of one browser take turns: each renewal is good once. */
const LOCK = "copydesk.session";
const RETRY_MS = 15_000;

export class Session {
  #renewedAt = Date.now();
  #timer = 0;
  #over = false;

  constructor(
    private readonly renewAfterMs: number,
    private readonly onOver: () => void,
  ) {
    this.#wait(renewAfterMs);
    // Timers rest in hidden pages and in sleeping machines.
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) void this.fresh();
    });
  }

  /** None where there is nothing to renew. */
  static of(me: Me, onOver: () => void): Session | null {
    return me.user?.may_sign_out ? new Session(me.renew_after_ms, onOver) : null;
  }

  /** Resolves when the session is good for a while, or cannot be made so just now. */
  async fresh(isDoubtful = false): Promise<void> {
    if (this.#over || (!isDoubtful && Date.now() - this.#renewedAt < this.renewAfterMs)) return;
    await this.#renew();
  }

  async #renew(): Promise<void> {
    try {
      await (navigator.locks ? navigator.locks.request(LOCK, () => renewSession()) : renewSession());
      this.#renewedAt = Date.now();
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
    this.#timer = window.setTimeout(() => void this.#renew(), ms);
  }
}
