/**
 * Differences that do not cut characters. Emoji take two UTF-16 units, and many share the first or the second one. A diff
 * that keeps the shared unit and replaces the other cuts the character, and the server refuses such an op.
 */

import Delta, { AttributeMap, OpIterator } from "quill-delta";

/** A stretch that a diff replaces: positions before and after. */
interface Edit {
  start: number;
  end: number;
  newStart: number;
  newEnd: number;
}

/** Lets every `Delta.diff` of this page, Quill's own included, end at characters. */
export function diffWholeCharacters(): void {
  const diff = Delta.prototype.diff;
  Delta.prototype.diff = function (other, cursor) {
    const change = diff.call(this, other, cursor);
    return wholeCharacters(this, other, change);
  };
}

/** The change itself, or one that replaces each character as a whole that the change would cut. */
function wholeCharacters(before: Delta, after: Delta, change: Delta): Delta {
  const edits = editsOf(change);
  const text = textOf(before);
  const isCut = (at: number): boolean => /^[\uD800-\uDBFF][\uDC00-\uDFFF]$/.test(text.slice(at - 1, at + 1)) && at > 0;
  if (!edits.some(({ start, end }) => isCut(start) || isCut(end))) return change;
  const whole: Edit[] = [];
  for (const edit of edits) {
    const left = isCut(edit.start) ? 1 : 0;
    const right = isCut(edit.end) ? 1 : 0;
    const { start, newStart } = { start: edit.start - left, newStart: edit.newStart - left };
    const { end, newEnd } = { end: edit.end + right, newEnd: edit.newEnd + right };
    const last = whole.at(-1);
    if (last && last.end >= start) Object.assign(last, { end, newEnd });
    else whole.push({ start, end, newStart, newEnd });
  }
  return changeOf(before, after, whole);
}

function editsOf(change: Delta): Edit[] {
  const edits: Edit[] = [];
  let [at, newAt] = [0, 0];
  for (const op of change.ops) {
    if (typeof op.retain === "number") {
      at += op.retain;
      newAt += op.retain;
      continue;
    }
    const last = edits.at(-1);
    const edit = last && last.end === at && last.newEnd === newAt ? last : { start: at, end: at, newStart: newAt, newEnd: newAt };
    if (edit !== last) edits.push(edit);
    if (op.delete !== undefined) edit.end = at += op.delete;
    else edit.newEnd = newAt += typeof op.insert === "string" ? op.insert.length : 1;
  }
  return edits;
}

function changeOf(before: Delta, after: Delta, edits: Edit[]): Delta {
  const change = new Delta();
  const [from, to] = [new OpIterator(before.ops), new OpIterator(after.ops)];
  const keep = (length: number): void => {
    for (let left = length; left > 0 && from.hasNext(); ) {
      const size = Math.min(left, from.peekLength(), to.peekLength());
      change.retain(size, AttributeMap.diff(from.next(size).attributes, to.next(size).attributes));
      left -= size;
    }
  };
  const skip = (iterator: OpIterator, length: number, each: (op: ReturnType<OpIterator["next"]>) => void): void => {
    for (let left = length; left > 0; ) {
      const size = Math.min(left, iterator.peekLength());
      each(iterator.next(size));
      left -= size;
    }
  };
  let at = 0;
  for (const { start, end, newStart, newEnd } of edits) {
    keep(start - at);
    skip(to, newEnd - newStart, (op) => change.push(op));
    skip(from, end - start, () => {});
    change.delete(end - start);
    at = end;
  }
  keep(Infinity);
  return change.chop();
}

/** One UTF-16 unit for each position. */
function textOf(document: Delta): string {
  return document.ops.map(({ insert }) => (typeof insert === "string" ? insert : "\ufffc")).join("");
}
