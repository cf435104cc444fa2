/**
 * Ties a ShareDB document to a Quill editor.
 *
 * The document is always ahead of the editor or level with it. Ops from others go into the document one by one as they
 * come, and into the editor composed, once per frame. What the user does in between was made without those ops, so it is
 * moved past them on its way into the document, and they are moved past it on their way into the editor.
 */

import type Quill from 'quill/core';
import Delta, { type Op } from 'quill-delta';
import type { Doc, ShareDBError } from 'sharedb/lib/client/index.js';
import { Auditor, redraw, textShown } from '../editor/audit';
import { canonicalChange, canonicalDocument, exclusiveChange, mayReveal, storableOp } from '../editor/canonical';
import { restoreHidden } from '../editor/sanitise';
import { MergeLimit, piecesOf } from './pieces';
import { isPlainText } from './plain';
import { RefusedOps } from './refused-ops';

/** Edits that the server did not accept. */
export interface Refusal {
  reason: string;
  /** Text that the user wrote and that is not in the server's document. */
  lost: string;
  /** True if only the refused op was undone; false if the edits behind it were lost with it. */
  isAlone: boolean;
}

export interface BindingEvents {
  /** How many changes of this user the server has not acknowledged. */
  waiting(changes: number): void;
  /** The editor shows what the document holds. */
  drawn(): void;
  refused(refusal: Refusal): void;
  /** The page showed another text than the document holds and was drawn anew. `lost` is what only the page had. */
  repaired(lost: string): void;
  deleted(): void;
}

export class Binding {
  /** Ops of others that are in the document but not in the editor. */
  #undrawn = new Delta();
  /** What must be derived from the document anew: ops of others, and those of this user that may reveal hidden formats. */
  #touched = new Delta();
  #frame = 0;
  #waiting = 0;
  #mergeLimit = new MergeLimit();
  #refusedOps: RefusedOps;
  #bound = false;
  readonly #auditor: Auditor;

  constructor(
    private readonly doc: Doc,
    private readonly quill: Quill,
    private readonly events: BindingEvents,
  ) {
    this.#auditor = new Auditor(
      quill,
      () => (this.#isLevel() ? doc.data : null),
      (fault) => this.#repair(fault),
    );
    quill.on('text-change', (delta, before, source) => {
      this.#auditor.restart();
      if (source === 'api') return;
      this.#edited(delta, before);
      this.#auditor.glance(typeof delta.ops[0]?.retain === 'number' ? delta.ops[0].retain : 0);
    });
    quill.root.addEventListener('compositionend', () => this.#schedule());
    doc.on('op', (op, source) => {
      if (source === this || isPlainText(doc)) return;
      this.#undrawn = this.#undrawn.compose(new Delta(op as Op[]));
      this.#touched = this.#touched.compose(new Delta(op as Op[]));
      this.#schedule();
    });
    doc.on('load', () => this.#loaded());
    doc.on('create', () => this.#loaded());
    doc.on('del', () => events.deleted());
    doc.on('error', (error) => this.#refused(error));
    this.#refusedOps = new RefusedOps(doc, (refusal) => events.refused(refusal));
    if (doc.type) this.#loaded();
  }

  /** Counts a change that was handed to the document outside the editor, until its callback is called. */
  pending(): (error?: ShareDBError) => void {
    this.events.waiting((this.#waiting += 1));
    return (error) => {
      this.#waiting -= 1;
      if (this.#waiting === 0) this.#mergeLimit.reset();
      this.events.waiting(this.#waiting);
      if (error) this.#refused(error);
    };
  }

  /** Brings the editor level with the document. Does nothing while an input method is composing a word. */
  draw(): void {
    this.#frame = 0;
    if (!this.#bound || this.quill.composition.isComposing) return;
    // Typing that Quill has not read from the DOM yet must come first: it moves what is undrawn.
    this.quill.update();
    const [undrawn, touched] = [this.#undrawn, this.#touched];
    this.#undrawn = new Delta();
    this.#touched = new Delta();
    if (undrawn.ops.length + touched.ops.length > 0) {
      const change = canonicalChange(this.quill.getContents(), undrawn, touched, this.doc.data);
      if (change.ops.length > 0) this.quill.updateContents(change, 'api');
    }
    this.#auditor.restart();
    this.events.drawn();
  }

  /** Whether the editor must show exactly what the document holds. */
  #isLevel(): boolean {
    return (
      this.#bound &&
      Boolean(this.doc.type) &&
      this.#undrawn.ops.length + this.#touched.ops.length === 0 &&
      !this.quill.composition.isComposing
    );
  }

  /** Draws the document anew: it is what others have. Text that only this page showed is handed back to the user. */
  #repair(fault: string): void {
    const next = canonicalDocument(this.doc.data);
    console.error(`the page differs from the document (${fault}): it is drawn anew`);
    const lost = onlyIn(textShown(this.quill), next);
    redraw(this.quill, next);
    if (lost.trim() !== '') this.events.repaired(lost);
    this.events.drawn();
  }

  #edited(delta: Delta, before: Delta): void {
    const own = exclusiveChange(restoreHidden(delta));
    const moved = storableOp(this.#undrawn.transform(own, true), this.doc.data);
    this.#undrawn = own.transform(this.#undrawn, false);
    if (moved.ops.length === 0) return;
    if (this.#touched.ops.length > 0 || mayReveal(own, before)) {
      this.#touched = this.#touched.compose(moved);
      this.#schedule();
    }
    for (const piece of piecesOf(moved)) this.#submit(piece);
  }

  #submit(op: Delta): void {
    this.doc.preventCompose = !this.#mergeLimit.admits(op);
    this.doc.submitOp(op.ops, { source: this }, this.pending());
  }

  /** A snapshot instead of an op: the first one, or the one after a refusal, when the client starts over. */
  #loaded(): void {
    if (isPlainText(this.doc)) return;
    this.#undrawn = new Delta();
    this.#touched = new Delta();
    if (!this.doc.type) {
      if (this.#bound) this.events.deleted();
      return;
    }
    const next = canonicalDocument(this.doc.data);
    if (this.#bound) {
      this.quill.update();
      const before = this.quill.getContents();
      const lost = onlyIn(before, next);
      this.quill.updateContents(before.diff(next), 'api');
      if (lost.trim() !== '') this.events.refused({ reason: '', lost, isAlone: false });
    } else {
      this.#bound = true;
      this.quill.setContents(next, 'api');
    }
    this.quill.history.clear();
    this.#auditor.restart();
    this.events.drawn();
  }

  #refused(error: ShareDBError): void {
    // Two have begun the document at the same time: now it is there, and that was all they wanted.
    if (error.code === 'ERR_DOC_ALREADY_CREATED') return;
    console.error('refused:', error.code ?? '', error.message);
    this.events.refused({ reason: error.message, lost: '', isAlone: this.#refusedOps.isUndoing });
  }

  #schedule(): void {
    if (this.#frame) return;
    // A hidden page gets no frames, but its reader will come back to it.
    this.#frame = document.hidden
      ? window.setTimeout(() => this.draw(), 200)
      : requestAnimationFrame(() => this.draw());
  }
}

/** The text that the first document has and the second one has not. */
function onlyIn(first: Delta, second: Delta): string {
  return second
    .diff(first)
    .ops.map(({ insert }) => (typeof insert === 'string' ? insert : ''))
    .join('');
}
