/** The one place where a page keeps what it shows. Components read it, watch it and draw from it. */
export class Store<S extends object> {
  #state: S;
  #watchers = new Set<(state: S, before: S) => void>();

  constructor(initial: S) {
    this.#state = initial;
  }

  get state(): Readonly<S> {
    return this.#state;
  }

  set(patch: Partial<S>): void {
    const before = this.#state;
    const changed = (Object.keys(patch) as (keyof S)[]).some((key) => patch[key] !== before[key]);
    if (!changed) return;
    this.#state = { ...before, ...patch };
    for (const watcher of this.#watchers) watcher(this.#state, before);
  }

  /** Draws at once, and again whenever one of `keys` has changed. */
  watch<K extends keyof S>(keys: readonly K[], draw: (state: S) => void): void {
    this.#watchers.add((state, before) => {
      if (keys.some((key) => state[key] !== before[key])) draw(state);
    });
    draw(this.#state);
  }
}
