/** Shows where others write: their cursors, and for a moment the name of each cursor that moves. */

import type Quill from 'quill/core';
import { CursorLayer } from '../editor/cursor-layer';
import type { Peer } from './presence';

const NAME_SHOWN_MS = 3_000;

export class Cursors {
  readonly #layer: CursorLayer;
  /** Of each peer that has a cursor: as it was shown last, and until when its name is shown. */
  #shown = new Map<string, { peer: Peer; namedUntilMs: number }>();
  #frame = 0;
  #timer = 0;

  constructor(private readonly quill: Quill) {
    this.#layer = new CursorLayer(quill);
    // Not at each change of the text: every edit moves the peers, and that is reported.
    const draw = (): void => this.draw();
    new ResizeObserver(draw).observe(quill.root);
    // Pictures and the like inside the text change places without a change of its size.
    addEventListener('scroll', draw, { passive: true });
    addEventListener('resize', draw);
  }

  show(peers: Peer[]): void {
    const present = new Set(peers.filter(({ range }) => range !== null).map(({ id }) => id));
    for (const id of this.#shown.keys()) if (!present.has(id)) this.#shown.delete(id);
    for (const peer of peers) if (peer.range !== null) this.#note(peer);
    this.draw();
  }

  visit(peer: Peer): void {
    if (!peer.range) return;
    const bounds = this.quill.getBounds(peer.range.index, 0);
    if (!bounds) return;
    const top = this.quill.container.getBoundingClientRect().top + bounds.top + scrollY - innerHeight / 3;
    scrollTo({ top, behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
    this.#shown.set(peer.id, { peer, namedUntilMs: Date.now() + NAME_SHOWN_MS });
    this.draw();
  }

  draw(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #note(peer: Peer): void {
    const before = this.#shown.get(peer.id);
    if (before && (before.peer.name !== peer.name || before.peer.color !== peer.color)) this.#layer.forget(peer.id);
    const isMoved = before?.peer.movedAt !== peer.movedAt;
    this.#shown.set(peer.id, { peer, namedUntilMs: isMoved ? Date.now() + NAME_SHOWN_MS : before!.namedUntilMs });
  }

  #draw(): void {
    const now = Date.now();
    const cursors = [...this.#shown.values()].map(({ peer, namedUntilMs }) => {
      const { id, name, color, range } = peer;
      return { id, name, color, range: range!, isNamed: namedUntilMs > now };
    });
    this.#layer.draw(cursors);
    if (!this.#timer && cursors.some(({ isNamed }) => isNamed)) {
      this.#timer = window.setTimeout(() => {
        this.#timer = 0;
        this.draw();
      }, NAME_SHOWN_MS);
    }
  }
}
