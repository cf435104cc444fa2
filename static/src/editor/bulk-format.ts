/**
 * Formats of many lines at once. Quill replaces one line after the other and merges and parts the lists around it each
 * time: to make a list of 5,000 lines and to undo it took it more than a minute. Here the lines are drawn anew instead.
 */

import type Quill from 'quill/core';
import Delta, { Op } from 'quill-delta';
import { LINE_KINDS } from './attributes';

/** Changes of fewer lines are left to Quill, which keeps their elements. */
const LINES_MIN = 100;

export function hastenFormats({ editor }: Quill): void {
  const applyDelta = editor.applyDelta.bind(editor);
  const formatLine = editor.formatLine.bind(editor);
  const formatText = editor.formatText.bind(editor);

  /** Applies a change that is made of retains only. */
  const redraw = (change: Delta): Delta => {
    const before = editor.delta;
    const after = before.compose(change);
    const [start, end] = wholeLinesOf(change, before);
    // The last line of the document cannot be deleted; it is formatted where it is.
    editor.deleteText(start, end - start);
    editor.insertContents(start, after.slice(start, end));
    applyDelta(new Delta().retain(end).concat(change.slice(end)).chop());
    return before.diff(editor.delta);
  };

  editor.applyDelta = (change) => (isBulkFormat(change, editor.delta) ? redraw(change) : applyDelta(change));
  editor.formatText = (index, length, formats = {}) => {
    const change = new Delta().retain(index).retain(length, nullsOf(formats));
    if (linesIn(editor.delta, index, index + length) < LINES_MIN) return formatText(index, length, formats);
    return redraw(placed(change, editor.delta, 'text'));
  };
  editor.formatLine = (index, length, formats = {}) => {
    // A step of indentation is relative to each line, and cheap.
    if ('indent' in formats || linesIn(editor.delta, index, index + length) < LINES_MIN)
      return formatLine(index, length, formats);
    const last = editor.scroll.line(index + length);
    const lineEnd = last[0] ? index + length - last[1] + last[0].length() : index + length;
    const kind = LINE_KINDS.find((each) => formats[each]);
    const others = kind
      ? Object.fromEntries(LINE_KINDS.filter((each) => each !== kind).map((each) => [each, null]))
      : {};
    const change = new Delta().retain(index).retain(lineEnd - index, { ...others, ...nullsOf(formats) });
    return redraw(placed(change, editor.delta, 'line'));
  };
}

/** Quill takes a format away by `false` as well as by null. */
function nullsOf(formats: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(formats).map(([name, value]) => [name, value === false || value === '' ? null : value]),
  );
}

/** The change on what its formats belong to: on the ends of lines, or on all else. */
function placed(change: Delta, base: Delta, place: 'text' | 'line'): Delta {
  const [lead, format] = change.ops.length > 1 ? [change.ops[0]!, change.ops[1]!] : [{ retain: 0 }, change.ops[0]!];
  const index = Op.length(lead);
  const exact = new Delta().retain(index);
  for (const op of base.slice(index, index + Op.length(format)).ops) {
    for (const part of typeof op.insert === 'string' ? (op.insert.match(/\n+|[^\n]+/g) ?? []) : [null]) {
      const isLine = part?.startsWith('\n') ?? false;
      exact.retain(part?.length ?? 1, isLine === (place === 'line') ? format.attributes : undefined);
    }
  }
  return exact.chop();
}

function isBulkFormat(change: Delta, base: Delta): boolean {
  if (change.ops.some((op) => typeof op.retain !== 'number')) return false;
  const first = change.ops.findIndex(({ attributes }) => attributes);
  if (first < 0) return false;
  const start = change.ops.slice(0, first).reduce((sum, op) => sum + Op.length(op), 0);
  return linesIn(base, start, change.length()) >= LINES_MIN;
}

/** From the beginning of the first changed line to the end of the last one, without the last line of the document. */
function wholeLinesOf(change: Delta, base: Delta): [start: number, end: number] {
  const first = change.ops[0]!;
  const from = first.attributes ? 0 : Op.length(first);
  const to = change.length();
  let start = 0;
  let end = 0;
  eachNewline(base, (index, isLast) => {
    if (index < from) start = index + 1;
    if (!isLast && (index < to || end < to)) end = index + 1;
  });
  return [start, Math.max(start, end)];
}

function linesIn(base: Delta, from: number, to: number): number {
  let lines = 0;
  eachNewline(base, (index) => {
    if (index >= from && index < to) lines += 1;
  });
  return lines;
}

function eachNewline(base: Delta, tell: (index: number, isLast: boolean) => void): void {
  const length = base.length();
  let at = 0;
  for (const op of base.ops) {
    if (typeof op.insert === 'string') {
      for (let newline = op.insert.indexOf('\n'); newline >= 0; newline = op.insert.indexOf('\n', newline + 1)) {
        tell(at + newline, at + newline === length - 1);
      }
    }
    at += Op.length(op);
  }
}
