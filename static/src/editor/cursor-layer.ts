/**
 * Draws the cursors and selections of other people over the text.
 *
 * A browser computes the layout again for each reading of it behind a change. So only what is in view is drawn, and all
 * readings come before all changes. Selections are painted by the CSS Custom Highlight API, which changes no layout.
 */

import type Quill from 'quill/core';
import { h } from '../lib/dom';

export interface DrawnCursor {
  id: string;
  name: string;
  color: string;
  range: { index: number; length: number };
  /** Whether the name is shown; otherwise it is shown under the pointer only. */
  isNamed: boolean;
}

interface Span {
  from: number;
  to: number;
}

interface Placed {
  cursor: DrawnCursor;
  /** Relative to the editor's container; null if the end of the range is out of view. */
  caret: { left: number; top: number; height: number } | null;
  selection: Range | null;
}

interface Shown {
  element: HTMLElement;
  left: number;
  top: number;
  height: number;
}

/** How far out of the window text still counts as in view, in pixels. */
const MARGIN_PX = 200;
/** How near to a caret the pointer shows its name, in pixels. */
const NEAR_PX = 9;

export class CursorLayer {
  #container: HTMLElement;
  #shown = new Map<string, Shown>();
  #highlights = new Map<string, Highlight>();

  constructor(private readonly quill: Quill) {
    this.#container = quill.addContainer('ql-cursors');
    quill.container.addEventListener('pointermove', (event) => this.#pointed(event), { passive: true });
  }

  draw(cursors: DrawnCursor[]): void {
    const view = cursors.length > 0 ? this.#view() : null;
    const last = view ? this.quill.getLength() - 1 : 0;
    const placed = view ? cursors.map((cursor) => this.#place(cursor, view, last)) : [];
    const width = placed.length > 0 ? this.quill.container.clientWidth : 0;
    // From here on the layout is only written.
    const carets = placed.filter(({ caret }) => caret !== null);
    const present = new Set(carets.map(({ cursor }) => cursor.id));
    for (const id of [...this.#shown.keys()]) if (!present.has(id)) this.#remove(id);
    for (const each of carets) this.#show(each, width);
    this.#highlight(placed);
  }

  /** The part of the document that is in view, by binary search over the lines. */
  #view(): Span | null {
    const { root } = this.quill;
    const first = lineAt(root, (rect) => rect.bottom >= -MARGIN_PX);
    const behind = lineAt(root, (rect) => rect.top > innerHeight + MARGIN_PX);
    if (!first) return null;
    return { from: this.#indexOf(first), to: behind ? this.#indexOf(behind) : this.quill.getLength() };
  }

  #indexOf(line: Element): number {
    const blot = this.quill.scroll.find(line);
    return blot ? blot.offset(this.quill.scroll) : 0;
  }

  /** `last` is the last index of the text. */
  #place(cursor: DrawnCursor, view: Span, last: number): Placed {
    const from = Math.min(cursor.range.index, last);
    const to = Math.min(cursor.range.index + cursor.range.length, last);
    const isInView = to >= view.from && to <= view.to;
    const bounds = isInView ? this.quill.getBounds(to) : null;
    const selected = { from: Math.max(from, view.from), to: Math.min(to, view.to) };
    return {
      cursor,
      caret: bounds && { left: bounds.left, top: bounds.top, height: bounds.height },
      selection: selected.from < selected.to ? this.#rangeOf(selected) : null,
    };
  }

  #rangeOf({ from, to }: Span): Range | null {
    const [start, startOffset] = this.quill.getLeaf(from);
    const [end, endOffset] = this.quill.getLeaf(to);
    if (!start || !end) return null;
    const range = document.createRange();
    if (start.domNode instanceof Text) range.setStart(start.domNode, startOffset);
    else range.setStartBefore(start.domNode);
    if (end.domNode instanceof Text) range.setEnd(end.domNode, endOffset);
    else range.setEndAfter(end.domNode);
    return range.collapsed ? null : range;
  }

  #show({ cursor, caret }: Placed, width: number): void {
    const { left, top, height } = caret!;
    const shown = this.#shown.get(cursor.id) ?? this.#add(cursor);
    const { element } = shown;
    element.classList.toggle('named', cursor.isNamed);
    // A name is on the side that has more room.
    element.classList.toggle('flipped', left > width / 2);
    if (shown.left === left && shown.top === top && shown.height === height) return;
    Object.assign(shown, { left, top, height });
    element.style.transform = `translate(${left}px, ${top}px)`;
    element.style.height = `${height}px`;
  }

  #add({ id, name, color }: DrawnCursor): Shown {
    const flag = h('span', { class: 'ql-cursor-flag' }, h('span', { class: 'ql-cursor-name' }, name));
    const element = h('span', { class: 'ql-cursor' }, h('span', { class: 'ql-cursor-caret' }), flag);
    element.style.setProperty('--color', color);
    this.#container.append(element);
    const shown = { element, left: NaN, top: NaN, height: NaN };
    this.#shown.set(id, shown);
    return shown;
  }

  /** To be called when a cursor's name or colour changes, too: then it is drawn anew. */
  forget(id: string): void {
    this.#remove(id);
  }

  #remove(id: string): void {
    this.#shown.get(id)?.element.remove();
    this.#shown.delete(id);
  }

  #highlight(placed: Placed[]): void {
    if (typeof Highlight !== 'function' || !('highlights' in CSS)) return;
    for (const highlight of this.#highlights.values()) if (highlight.size > 0) highlight.clear();
    for (const { cursor, selection } of placed) if (selection) this.#highlightOf(cursor.color).add(selection);
  }

  /** The style sheet has a rule for each of the colours that people can have. */
  #highlightOf(color: string): Highlight {
    let highlight = this.#highlights.get(color);
    if (!highlight) {
      highlight = new Highlight();
      this.#highlights.set(color, highlight);
      CSS.highlights.set(`cursor-${color.slice(1)}`, highlight);
    }
    return highlight;
  }

  #pointed({ clientX, clientY }: PointerEvent): void {
    if (this.#shown.size === 0) return;
    const origin = this.quill.container.getBoundingClientRect();
    const [x, y] = [clientX - origin.left, clientY - origin.top];
    for (const { element, left, top, height } of this.#shown.values()) {
      element.classList.toggle('pointed', Math.abs(x - left) <= NEAR_PX && y >= top && y <= top + height);
    }
  }
}

/** The first line that `isThere`, of lines that lie below each other. Lists and code blocks have their lines inside. */
function lineAt(parent: Element, isThere: (rect: DOMRect) => boolean): Element | null {
  const { children } = parent;
  let [low, high] = [0, children.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isThere(children[middle]!.getBoundingClientRect())) high = middle;
    else low = middle + 1;
  }
  const found = children[low] ?? null;
  return found?.matches('ol, ul, .ql-code-block-container') ? (lineAt(found, isThere) ?? found) : found;
}
