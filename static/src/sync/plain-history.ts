/**
 * Undo and redo of one's own edits of a plain text. A text area's own history knows nothing of what others write, and would
 * put text back at places that have moved.
 */

import { strPosToUni } from 'unicount';
import { endOfChange } from './plain-ops';
import { type TextOp, textType } from './plain-type';

/** How long a pause in typing ends a step. */
const STEP_PAUSE_MS = 800;
const STEPS_MAX = 200;

export class PlainHistory {
  /** Ops that take a step back; they apply to the present text, the last one first. */
  #undo: TextOp[] = [];
  #redo: TextOp[] = [];
  #recordedAt = 0;
  /** Where the last edit ended, in code points. */
  #edge = 0;

  /** Takes an edit that is about to be made to `text`. Edits that follow each other in time and place are one step. */
  record(edit: TextOp, text: string, now: number): void {
    const back = backOf(edit, text);
    const isNext = now - this.#recordedAt < STEP_PAUSE_MS && touches(edit, this.#edge);
    const before = isNext ? this.#undo.pop() : undefined;
    this.#undo.push(before ? textType.compose(back, before) : back);
    if (this.#undo.length > STEPS_MAX) this.#undo.shift();
    this.#redo = [];
    this.#recordedAt = now;
    this.#edge = endOfChange(edit);
  }

  /** The op that takes back the last step, or that takes back the last undo; null if there is none. */
  step(direction: 'undo' | 'redo', text: string): TextOp | null {
    const [from, to] = direction === 'undo' ? [this.#undo, this.#redo] : [this.#redo, this.#undo];
    const op = from.pop();
    if (!op) return null;
    to.push(backOf(op, text));
    this.#recordedAt = 0;
    return op;
  }

  /** Moves the steps past an op of others on the present text. */
  moveAlong(op: TextOp): void {
    this.#undo = moved(this.#undo, op);
    this.#redo = moved(this.#redo, op);
    this.#edge = textType.transformPosition(this.#edge, op);
  }

  clear(): void {
    this.#undo = [];
    this.#redo = [];
  }
}

/** Whether an edit of one place begins or ends there, as the next letter does, or the next Backspace. */
function touches([first, ...rest]: TextOp, place: number): boolean {
  const start = typeof first === 'number' ? first : 0;
  const deleted = [first, ...rest].find((component) => typeof component === 'object');
  return start === place || (deleted !== undefined && start + lengthOf(deleted.d) === place);
}

function lengthOf(deleted: string | number): number {
  return typeof deleted === 'string' ? strPosToUni(deleted) : deleted;
}

function backOf(op: TextOp, text: string): TextOp {
  return textType.invertWithDoc(op, text) as TextOp;
}

/** The last step applies to the present text, each other one to what the one after it leaves. */
function moved(steps: TextOp[], op: TextOp): TextOp[] {
  const result: TextOp[] = [];
  let other = op;
  for (const step of [...steps].reverse()) {
    const next = textType.transform(step, other, 'left');
    other = textType.transform(other, step, 'right');
    if (next.length > 0) result.push(next);
  }
  return result.reverse();
}
