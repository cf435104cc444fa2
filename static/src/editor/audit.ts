/**
 * The page's check of itself. In a quiet moment it compares, line by line, what the elements on the page say, what Quill
 * believes that they say, and what the document holds. A difference means that text is shown that is not stored, or the
 * other way round: a fault of this page, of Quill or of a browser extension.
 */

import { blockDelta } from 'quill/blots/block';
import type Quill from 'quill/core';
import { Parchment } from 'quill/core';
import Delta, { type Op } from 'quill-delta';
import { canonicalLines, insertsOf, isSame } from './canonical';

/** How long nothing must change before the page compares itself, and how long a slice of work may take. */
const QUIET_MS = 1_000;
const SLICE_MS = 8;

export class Auditor {
  #timer = 0;
  #work: Generator<void, string | null> | null = null;

  /** `stored` returns the document's content, or null while the page is on its way to it. `onFault` is given a reason. */
  constructor(
    private readonly quill: Quill,
    private readonly stored: () => unknown,
    private readonly onFault: (fault: string) => void,
  ) {}

  /** Something changed: the comparison starts over after a quiet moment. */
  restart(): void {
    this.#work = null;
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.#begin(), QUIET_MS);
  }

  /**
   * Looks at the elements of the line at `index`, which just changed: a line that came apart is drawn anew at once, before
   * more is typed into the wrong place.
   */
  glance(index: number): void {
    const [line] = this.quill.getLine(Math.min(index, this.quill.getLength() - 1));
    if (line === null || isWhole(line, true)) return;
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.#begin());
  }

  #begin(): void {
    // What the browser changed and Quill has not read yet belongs to the user: it restarts the wait.
    this.quill.update();
    const stored = this.stored();
    if (stored === null) return this.restart();
    this.#work = comparison(this.quill, stored);
    this.#go(this.#work);
  }

  #go(work: Generator<void, string | null>): void {
    if (work !== this.#work) return;
    const until = performance.now() + SLICE_MS;
    for (let step = work.next(); ; step = work.next()) {
      if (step.done) {
        this.#work = null;
        if (step.value !== null) this.onFault(step.value);
        return;
      }
      if (performance.now() >= until) break;
    }
    this.#timer = window.setTimeout(() => this.#go(work));
  }
}

/** Compares a line in each step; returns what differs, or null. */
function* comparison(quill: Quill, stored: unknown): Generator<void, string | null> {
  const { scroll, editor } = quill;
  if (!isWhole(scroll, false)) return 'elements without a part of the text';
  const shown = scroll.lines() as unknown as Line[];
  const believed = new LineReader(editor.delta.ops);
  let count = 0;
  for (const line of canonicalLines(insertsOf(stored))) {
    const block = shown[count++];
    if (!block) return 'lines are missing';
    if (!isWhole(block, true)) return 'elements that are not part of the text';
    if (!isSame(blockDelta(block as never).ops, line.ops)) return 'a line shows something else';
    if (!isSame(believed.next(), line.ops)) return 'a line is believed to be something else';
    yield;
  }
  return count === shown.length ? null : 'lines that are not in the document';
}

interface Line {
  domNode: Node;
}

/** Whether blots and elements are the same tree: each child in its place, and no element without a blot. */
function isWhole(blot: object, isDeep: boolean): boolean {
  if (blot instanceof Parchment.TextBlot) return (blot.domNode as Text).data === blot.value();
  if (!(blot instanceof Parchment.ParentBlot)) return true;
  const children: object[] = [];
  let node = blot.domNode.firstChild;
  for (let child = blot.children.head; child; child = child.next) {
    if (node !== null && node === blot.uiNode) node = node.nextSibling;
    if (child.domNode !== node || child.parent !== blot || (child.next !== null && child.next.prev !== child))
      return false;
    if (isDeep || !isBlock(child)) children.push(child);
    node = node.nextSibling;
  }
  if (node !== null && node === blot.uiNode) node = node.nextSibling;
  return node === null && children.every((child) => isWhole(child, isDeep));
}

function isBlock(blot: object): boolean {
  return blot instanceof Parchment.BlockBlot;
}

/** Reads ops line by line. */
class LineReader {
  #op = 0;
  /** How much of the op's text was read. */
  #at = 0;

  constructor(private readonly ops: readonly Op[]) {}

  next(): Op[] {
    const line = new Delta();
    for (; this.#op < this.ops.length; this.#op += 1, this.#at = 0) {
      const { insert, attributes } = this.ops[this.#op]!;
      if (typeof insert !== 'string') {
        line.insert(insert!, attributes);
        continue;
      }
      const newline = insert.indexOf('\n', this.#at);
      if (newline < 0) {
        line.insert(insert.slice(this.#at), attributes);
        continue;
      }
      line.insert(insert.slice(this.#at, newline + 1), attributes);
      this.#at = newline + 1;
      return line.ops;
    }
    return line.ops;
  }
}

/** The text as its elements show it, one line each. Quill's model may be what is wrong, so it is not asked. */
export function textShown(quill: Quill): Delta {
  const shown = new Delta();
  for (const block of quill.root.querySelectorAll('p, h1, h2, h3, h4, h5, h6, blockquote, li, .ql-code-block')) {
    const walker = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const text = walker.currentNode as Text;
      if (!text.parentElement?.closest('.ql-ui, .ql-cursor, .opaque')) shown.insert(text.data);
    }
    shown.insert('\n');
  }
  return shown;
}

/** Throws away all elements and blots, and draws `contents`. The selection stays where it was, as far as there is text. */
export function redraw(quill: Quill, contents: Delta): void {
  const selection = quill.hasFocus() ? selectionOf(quill) : null;
  quill.root.replaceChildren();
  quill.scroll.observer.takeRecords();
  quill.scroll.build();
  quill.scroll.optimize();
  quill.editor.delta = quill.editor.getDelta();
  quill.setContents(contents, 'api');
  quill.history.clear();
  if (selection) quill.setSelection(Math.min(selection.index, quill.getLength() - 1), 0, 'api');
}

/** Quill finds positions through its model, which may be what is wrong. */
function selectionOf(quill: Quill): { index: number } | null {
  try {
    return quill.getSelection();
  } catch {
    return null;
  }
}
