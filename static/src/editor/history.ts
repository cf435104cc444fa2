/**
 * Undo steps. A step is what a person would take back at once: one gesture (a paste, a deleted selection, a format), or a
 * run of typing, which ends at the beginning of a word: after a sentence, after a pause, or when the run has become long.
 * Quill ends a step after a fixed time, which cuts words, and counts one gesture that makes two changes as two.
 */

import { Range } from 'quill/core';
import History, { type StackItem } from 'quill/modules/history';
import Delta, { AttributeMap, Op, OpIterator } from 'quill-delta';

/** Steps that are kept if the options do not say. */
const STEPS_MAX = 500;
/** A pause of this length before a word ends the step. */
const PAUSE_MS = 2_000;
/** A run of this length ends before the next word. */
const RUN_LENGTH_MAX = 120;
/** Longer insertions come from the clipboard or from dictation, and are steps of their own. */
const TYPED_LENGTH_MAX = 60;

/** A change that replaces text at one place, as typing and deleting do. */
interface Splice {
  at: number;
  deleted: number;
  inserted: string;
}

/** The typing or deleting that the newest step consists of. */
interface Run {
  kind: 'typing' | 'deleting';
  /** Where the next splice has to be to continue the run. */
  end: number;
  text: string;
  lastAt: number;
}

export class StepHistory extends History {
  #run: Run | null = null;
  /** Whether the gesture of the newest step is still being handled: all that it changes belongs to the step. */
  #isSameGesture = false;

  override record(change: Delta, before: Delta): void {
    if (change.ops.length === 0) return;
    const splice = spliceOf(change);
    const continues = this.#isSameGesture || (splice !== null && this.#continues(splice));
    this.stack.redo = [];
    let item: StackItem = { delta: inverted(change, before), range: this.currentRange };
    const newest = continues ? this.stack.undo.pop() : undefined;
    if (newest) item = { delta: item.delta.compose(newest.delta), range: newest.range };
    if (item.delta.length() > 0) this.stack.undo.push(item);
    if (this.stack.undo.length > (this.options.maxStack ?? STEPS_MAX)) this.stack.undo.shift();
    this.#run = splice === null || (this.#isSameGesture && splice.deleted > 0) ? null : this.#runOf(splice, continues);
    this.#beginGesture();
  }

  override transform(change: Delta): void {
    super.transform(change);
    if (this.#run) this.#run.end = change.transformPosition(this.#run.end, true);
  }

  override change(source: 'undo' | 'redo', dest: 'redo' | 'undo'): void {
    const item = this.stack[source].pop();
    if (!item) return;
    this.cutoff();
    const inverse = inverted(item.delta, this.quill.getContents());
    this.stack[dest].push({ delta: inverse, range: item.range && movedBy(item.range, inverse) });
    this.ignoreChange = true;
    this.quill.updateContents(item.delta, 'user');
    this.ignoreChange = false;
    this.restoreSelection(item);
  }

  /** Ends the step: the next change begins another one. */
  override cutoff(): void {
    super.cutoff();
    this.#run = null;
    this.#isSameGesture = false;
  }

  override clear(): void {
    super.clear();
    this.cutoff();
  }

  #continues({ at, deleted, inserted }: Splice): boolean {
    const run = this.#run;
    if (run === null) return false;
    if (inserted === '') return run.kind === 'deleting' && deleted <= 2 && (at === run.end || at + deleted === run.end);
    if (run.kind !== 'typing' || deleted > 0 || at !== run.end || inserted.length > TYPED_LENGTH_MAX) return false;
    const beginsWord = /\s$/u.test(run.text) && !/^\s/u.test(inserted);
    // Languages without spaces: a sentence ends with its mark.
    const beginsSentence = (beginsWord && /[.!?…:]["'”’»)]*\s+$/u.test(run.text)) || /[\n。！？]$/u.test(run.text);
    if (beginsSentence) return false;
    return !beginsWord || (run.text.length < RUN_LENGTH_MAX && Date.now() - run.lastAt < PAUSE_MS);
  }

  #runOf({ at, deleted, inserted }: Splice, continues: boolean): Run | null {
    // Of what was pasted, or of a deleted selection, nothing continues.
    if (inserted.length > TYPED_LENGTH_MAX || (inserted === '' && deleted > 2)) return null;
    const before = continues && this.#run ? this.#run.text : '';
    const kind = inserted === '' ? 'deleting' : 'typing';
    return {
      kind,
      end: at + inserted.length,
      text: (before + inserted).slice(-2 * RUN_LENGTH_MAX),
      lastAt: Date.now(),
    };
  }

  /** The changes of one gesture come without a pause; promises of the same gesture are run after them. */
  #beginGesture(): void {
    this.#isSameGesture = true;
    queueMicrotask(() => (this.#isSameGesture = false));
  }
}

function spliceOf(change: Delta): Splice | null {
  const splice: Splice = { at: 0, deleted: 0, inserted: '' };
  let isAtPlace = false;
  for (const op of change.ops) {
    if (typeof op.insert === 'string') splice.inserted += op.insert;
    else if (typeof op.delete === 'number') splice.deleted += op.delete;
    else if (op.insert !== undefined || op.attributes || isAtPlace) return null;
    else splice.at += Op.length(op);
    isAtPlace = op.retain === undefined;
  }
  return splice;
}

function movedBy({ index, length }: Range, change: Delta): Range {
  const start = change.transformPosition(index);
  return new Range(start, change.transformPosition(index + length) - start);
}

/** As `change.invert(base)`, in one pass: that one looks for the place of each op from the beginning of the text. */
function inverted(change: Delta, base: Delta): Delta {
  const content = new OpIterator(base.ops);
  const inverse = new Delta();
  for (const op of change.ops) {
    if (op.insert !== undefined) {
      inverse.delete(Op.length(op));
      continue;
    }
    for (let rest = Op.length(op); rest > 0; ) {
      const piece = content.next(rest);
      const length = piece.insert === undefined ? rest : Op.length(piece);
      rest -= length;
      if (op.delete === undefined)
        inverse.retain(length, op.attributes && AttributeMap.invert(op.attributes, piece.attributes));
      else if (piece.insert !== undefined) inverse.push(piece);
    }
  }
  return inverse.chop();
}
