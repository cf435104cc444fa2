/**
 * Ties a ShareDB document of the type text-unicode to a text area.
 *
 * As with rich text, the document is ahead of the text area or level with it: ops of others go into the document as they come,
 * and into the text area composed, once per frame. An edit of the user was made without those ops, so it is moved past them
 * on its way into the document, and they are moved past it.
 */

import type { Callback, Doc } from 'sharedb/lib/client/index.js';
import { strPosToUni, uniToStrPos } from 'unicount';
import { PlainHistory } from './plain-history';
import {
  endOfChange,
  inText,
  opOf,
  PIECE_SIZE_MAX,
  piecesOf,
  placeInShown,
  placeInText,
  replacementBetween,
  replacementsOf,
  shownOf,
  sizeOf,
} from './plain-ops';
import { type TextOp, textType } from './plain-type';

export interface PlainBindingEvents {
  /** Counts a change until the returned function is called with its outcome. */
  pending(): Callback;
  /** The text area shows what the document holds. */
  drawn(): void;
  /** The text area had this text, and the server's document has not. */
  lost(text: string): void;
}

const LONG_PASTE = 4_096;

/** Whether a document is of the type text-unicode. */
export function isPlainText(doc: Doc): boolean {
  return doc.type?.uri === textType.uri;
}

export class PlainBinding {
  /** The document's text without `#undrawn`: what the text area shows. */
  #text = '';
  /** Ops of others that are in the document but not in the text area. */
  #undrawn: TextOp = [];
  #history = new PlainHistory();
  #isComposing = false;
  #frame = 0;
  #isBound = false;
  /** How large the changes are that the client may still merge into one message. */
  #unsent = 0;

  constructor(
    private readonly doc: Doc,
    private readonly area: HTMLTextAreaElement,
    private readonly events: PlainBindingEvents,
  ) {
    area.addEventListener('input', () => this.#read());
    area.addEventListener('compositionstart', () => (this.#isComposing = true));
    area.addEventListener('compositionend', () => {
      this.#isComposing = false;
      this.#read();
      this.#schedule();
    });
    area.addEventListener('beforeinput', (event) => this.#intercept(event));
    area.addEventListener('keydown', (event) => this.#key(event));
    area.addEventListener('paste', (event) => this.#paste(event));
    doc.on('op', (op, source) => {
      if (source === this || !this.#isBound || !isPlainText(doc)) return;
      this.#undrawn = textType.compose(this.#undrawn, op as TextOp);
      this.#schedule();
    });
    doc.on('load', () => this.#loaded());
    doc.on('create', () => this.#loaded());
    doc.on('nothing pending', () => (this.#unsent = 0));
  }

  /** The selection in code points of the document. */
  get range(): { index: number; length: number } {
    const [start, end] = [this.area.selectionStart, this.area.selectionEnd].map((place) => this.#codePoints(place));
    return { index: start!, length: end! - start! };
  }

  #codePoints(shownPlace: number): number {
    const place = placeInText(this.#text, shownPlace);
    return strPosToUni(this.#text.slice(0, place).replace(/[\uD800-\uDBFF]$/, ''));
  }

  /** How far into the text a position of the document is, from 0 to 1. */
  depthOf(index: number): number {
    return this.#text === ''
      ? 0
      : Math.min(1, uniToStrPos(this.#text, Math.min(index, this.#text.length)) / this.#text.length);
  }

  /** A snapshot: the first one, or the one after a refusal, when the client starts over. */
  #loaded(): void {
    if (!isPlainText(this.doc)) return;
    const next = this.doc.data as string;
    const lost = this.#isBound ? replacementBetween(shownOf(next), this.area.value) : null;
    this.#isBound = true;
    this.#text = next;
    this.#undrawn = [];
    this.#history.clear();
    this.#show([]);
    if (lost && lost.text.trim() !== '') this.events.lost(lost.text);
    this.events.drawn();
  }

  /** Takes what the user has changed in the text area. What an input method composes is taken when it is done. */
  #read(): void {
    if (this.#isComposing || !this.#isBound) return;
    const edit = replacementBetween(shownOf(this.#text), this.area.value, this.area.selectionStart);
    if (!edit) return;
    const op = opOf(this.#text, inText(this.#text, edit));
    this.#history.record(op, this.#text, Date.now());
    this.#submit(op);
  }

  #submit(op: TextOp): void {
    this.#text = textType.apply(this.#text, op);
    const moved = textType.transform(op, this.#undrawn, 'right');
    this.#undrawn = textType.transform(this.#undrawn, op, 'left');
    for (const piece of piecesOf(moved)) {
      const size = sizeOf(piece);
      // The client merges what waits into one op, which would grow past any message on a line that is long down.
      this.doc.preventCompose = this.#unsent + size > PIECE_SIZE_MAX;
      this.#unsent = this.doc.preventCompose ? size : this.#unsent + size;
      this.doc.submitOp(piece, { source: this }, this.events.pending());
    }
  }

  #schedule(): void {
    if (this.#frame) return;
    const draw = (): void => {
      this.#frame = 0;
      this.#draw();
    };
    // A hidden page gets no frames, but its reader will come back to it.
    this.#frame = document.hidden ? window.setTimeout(draw, 200) : requestAnimationFrame(draw);
  }

  #draw(): void {
    if (this.#isComposing || !isPlainText(this.doc)) return;
    const [op, before] = [this.#undrawn, this.#text];
    this.#undrawn = [];
    this.#text = this.doc.data as string;
    this.#history.moveAlong(op);
    this.#show(replacementsOf(op, before, this.#text));
    this.events.drawn();
  }

  /** Brings the text area to the text. The replacements keep the selection at its place. */
  #show(replacements: ReturnType<typeof replacementsOf>): void {
    for (const { start, end, text } of replacements) this.area.setRangeText(text, start, end, 'preserve');
    const shown = shownOf(this.#text);
    if (this.area.value === shown) return;
    const rest = replacementBetween(this.area.value, shown);
    if (rest) this.area.setRangeText(rest.text, rest.start, rest.end, 'preserve');
  }

  #intercept(event: InputEvent): void {
    const direction = { historyUndo: 'undo', historyRedo: 'redo' }[event.inputType] as 'undo' | 'redo' | undefined;
    if (!direction) return;
    event.preventDefault();
    this.#step(direction);
  }

  #key(event: KeyboardEvent): void {
    if (event.isComposing || event.altKey || !(event.ctrlKey || event.metaKey)) return;
    const key = event.key.toLowerCase();
    if (key !== 'z' && (key !== 'y' || event.metaKey)) return;
    event.preventDefault();
    this.#step(key === 'y' || event.shiftKey ? 'redo' : 'undo');
  }

  /** A browser inserts many lines one by one, which takes it seconds for some thousands: here they go in as one. */
  #paste(event: ClipboardEvent): void {
    const text = event.clipboardData?.getData('text/plain') ?? '';
    if (text.length < LONG_PASTE || this.area.readOnly || this.#isComposing) return;
    event.preventDefault();
    this.area.setRangeText(text, this.area.selectionStart, this.area.selectionEnd, 'end');
    this.#read();
  }

  #step(direction: 'undo' | 'redo'): void {
    if (this.area.readOnly || this.#isComposing) return;
    const before = this.#text;
    const op = this.#history.step(direction, before);
    if (!op) return;
    this.#submit(op);
    this.#show(replacementsOf(op, before, this.#text));
    const place = placeInShown(this.#text, uniToStrPos(this.#text, endOfChange(op)));
    this.area.setSelectionRange(place, place);
  }
}
