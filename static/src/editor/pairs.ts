/**
 * Differences that do not cut characters. Emoji take two UTF-16 units, and many share the first or the second one. A diff
 * that keeps the shared unit and replaces the other cuts the character, and the server refuses such an op.
 */

import Delta, { AttributeMap, OpIterator } from 'quill-delta';

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
    try {
      return wholeCharacters(this, other, diff.call(this, other, cursor));
    } catch (error) {
      // On some texts with emoji the library divides the same two texts for ever.
      if (error instanceof RangeError) return spliceBetween(this, other);
      throw error;
    }
  };
}

/** One replacement of all that is between the first and the last difference. */
function spliceBetween(before: Delta, after: Delta): Delta {
  const [from, to] = [textOf(before), textOf(after)];
  const shorter = Math.min(from.length, to.length);
  let start = 0;
  while (start < shorter && from[start] === to[start]) start += 1;
  let same = 0;
  while (same < shorter - start && from[from.length - 1 - same] === to[to.length - 1 - same]) same += 1;
  const edit = { start, end: from.length - same, newStart: start, newEnd: to.length - same };
  return changeOf(
    before,
    after,
    [edit].map((each) => widened(each, from)),
  );
}

/** The change itself, or one that replaces each character as a whole that the change would cut. */
function wholeCharacters(before: Delta, after: Delta, change: Delta): Delta {
  const edits = editsOf(change);
  const text = textOf(before);
  if (!edits.some(({ start, end }) => isCut(text, start) || isCut(text, end))) return change;
  const whole: Edit[] = [];
  for (const edit of edits) {
    const { start, end, newStart, newEnd } = widened(edit, text);
    const last = whole.at(-1);
    if (last && last.end >= start) Object.assign(last, { end, newEnd });
    else whole.push({ start, end, newStart, newEnd });
  }
  return changeOf(before, after, whole);
}

/** The edit, and the characters as wholes that it begins or ends in. */
function widened({ start, end, newStart, newEnd }: Edit, text: string): Edit {
  const left = isCut(text, start) ? 1 : 0;
  const right = isCut(text, end) ? 1 : 0;
  return { start: start - left, end: end + right, newStart: newStart - left, newEnd: newEnd + right };
}

/** Whether a position is between the two units of a character. */
function isCut(text: string, at: number): boolean {
  return at > 0 && /^[\uD800-\uDBFF][\uDC00-\uDFFF]$/.test(text.slice(at - 1, at + 1));
}

function editsOf(change: Delta): Edit[] {
  const edits: Edit[] = [];
  let [at, newAt] = [0, 0];
  for (const op of change.ops) {
    if (typeof op.retain === 'number') {
      at += op.retain;
      newAt += op.retain;
      continue;
    }
    const last = edits.at(-1);
    const edit =
      last && last.end === at && last.newEnd === newAt ? last : { start: at, end: at, newStart: newAt, newEnd: newAt };
    if (edit !== last) edits.push(edit);
    if (op.delete !== undefined) edit.end = at += op.delete;
    else edit.newEnd = newAt += typeof op.insert === 'string' ? op.insert.length : 1;
  }
  return edits;
}

function changeOf(before: Delta, after: Delta, edits: Edit[]): Delta {
  const change = new Delta();
  const [from, to] = [new OpIterator(before.ops), new OpIterator(after.ops)];
  const keep = (length: number): void => {
    for (let left = length; left > 0 && from.hasNext(); ) {
      const size = Math.min(left, from.peekLength(), to.peekLength());
      const [kept, wanted] = [from.next(size), to.next(size)];
      const isSame = typeof kept.insert === 'string' || JSON.stringify(kept.insert) === JSON.stringify(wanted.insert);
      if (isSame) change.retain(size, AttributeMap.diff(kept.attributes, wanted.attributes));
      else change.push(wanted).delete(size);
      left -= size;
    }
  };
  const skip = (iterator: OpIterator, length: number, each: (op: ReturnType<OpIterator['next']>) => void): void => {
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
  return document.ops.map(({ insert }) => (typeof insert === 'string' ? insert : '\ufffc')).join('');
}
