/** Draws the cursors of others into the text, once per frame, and shows a name while its cursor moves. */

import type Quill from "quill/core";
import type QuillCursors from "quill-cursors/core";
import type { Peer } from "./presence";

const NAME_SHOWN_MS = 3_000;

export class Cursors {
  #peers: Peer[] = [];
  #shown = new Map<string, { peer: Peer; timer: number }>();
  #frame = 0;

  constructor(
    private readonly quill: Quill,
    private readonly cursors: QuillCursors | null,
  ) {
    quill.on("text-change", () => this.draw());
  }

  show(peers: Peer[]): void {
    this.#peers = peers;
    this.draw();
  }

  visit(peer: Peer): void {
    if (!peer.range) return;
    const bounds = this.quill.getBounds(peer.range.index, 0);
    if (!bounds) return;
    const top = this.quill.container.getBoundingClientRect().top + bounds.top + scrollY - innerHeight / 3;
    scrollTo({ top, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    this.cursors?.toggleFlag(peer.id, true);
  }

  draw(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #draw(): void {
    if (!this.cursors) return;
    const drawn = this.#peers.filter((peer) => peer.range !== null);
    for (const id of this.#shown.keys()) if (!drawn.some((peer) => peer.id === id)) this.#remove(id);
    for (const peer of drawn) this.#place(this.cursors, peer);
  }

  #place(cursors: QuillCursors, peer: Peer): void {
    const before = this.#shown.get(peer.id);
    if (before && (before.peer.name !== peer.name || before.peer.color !== peer.color)) this.#remove(peer.id);
    cursors.createCursor(peer.id, peer.name, peer.color);
    cursors.moveCursor(peer.id, peer.range!);
    const moved = before?.peer.movedAt !== peer.movedAt;
    let timer = before?.timer ?? 0;
    if (moved) {
      clearTimeout(timer);
      cursors.toggleFlag(peer.id, true);
      timer = window.setTimeout(() => cursors.toggleFlag(peer.id, false), NAME_SHOWN_MS);
    }
    this.#shown.set(peer.id, { peer, timer });
  }

  #remove(id: string): void {
    clearTimeout(this.#shown.get(id)?.timer);
    this.#shown.delete(id);
    this.cursors?.removeCursor(id);
  }
}
