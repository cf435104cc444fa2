/**
 * What typing formats by itself: `# ` to `### ` make headings, `> ` a quote, three backticks a code block, and an address
 * becomes a link when the word ends. Each is an undo step of its own, so that one undo brings back what was typed.
 * Lists (`- `, `1. `, `[ ] `) are Quill's.
 */

import type Quill from 'quill/core';
import Delta from 'quill-delta';
import { addressesIn } from './links';

export function formatAsTyped(quill: Quill): void {
  quill.on('text-change', (change, _before, source) => {
    // Undo and redo bring back what there was, and nothing else.
    const isTyped = source === 'user' && !quill.composition.isComposing && !quill.history.ignoreChange;
    const end = isTyped ? wordEndOf(change) : null;
    // Formats must not be set while others are still told of the change.
    if (end !== null) queueMicrotask(() => formatBefore(quill, end));
  });
}

/** The position behind the space or newline that the change types; null if it does something else. */
function wordEndOf({ ops }: Delta): number | null {
  const [first, second] = ops;
  const inserted = first?.insert ?? second?.insert;
  const isLead = first?.insert !== undefined || (typeof first?.retain === 'number' && !first.attributes);
  if (!isLead || (inserted !== ' ' && inserted !== '\n')) return null;
  return (typeof first?.retain === 'number' ? first.retain : 0) + 1;
}

function formatBefore(quill: Quill, end: number): void {
  const typed = quill.getText(end - 1, 1);
  const [line, offset] = quill.getLine(end - 1);
  if (!line || (typed !== ' ' && typed !== '\n')) return;
  const start = end - 1 - offset;
  const formats = line.formats() as Record<string, unknown>;
  if (formats['code-block']) return;
  const isPlain = !['header', 'list', 'blockquote'].some((name) => formats[name]);
  const before = quill.getText(start, offset);
  // An embed has no text: then lengths differ, and positions would as well.
  if (before.length !== offset) return linkBefore(quill, end);
  if (isPlain && formatLine(quill, start, before, typed)) return;
  linkBefore(quill, end);
}

const LINE_SIGNS: Record<string, Record<string, unknown>> = {
  '#': { header: 1 },
  '##': { header: 2 },
  '###': { header: 3 },
  '>': { blockquote: true },
  '```': { 'code-block': true },
};

/** Formats the line if it begins with a sign; the sign goes. Behind backticks a newline does as well as a space. */
function formatLine(quill: Quill, start: number, sign: string, typed: string): boolean {
  const format = Object.hasOwn(LINE_SIGNS, sign) ? LINE_SIGNS[sign] : undefined;
  if (!format || (typed === '\n' && sign !== '```')) return false;
  const [line] = quill.getLine(start + sign.length + 1);
  const [, offset] = quill.getLine(start + sign.length + 1);
  const rest = line!.length() - 1 - offset;
  step(quill, () => {
    quill.updateContents(
      new Delta()
        .retain(start)
        .delete(sign.length + 1)
        .retain(rest)
        .retain(1, format),
      'user',
    );
    quill.setSelection(start, 0, 'silent');
  });
  return true;
}

/** An address is no longer than this and what parts it from the word before. */
const LOOK_BACK = 2_100;

function linkBefore(quill: Quill, end: number): void {
  const from = Math.max(0, end - 1 - LOOK_BACK);
  // One character for each embed, so that positions in the text are positions in the document.
  const text = quill
    .getContents(from, end - 1 - from)
    .reduce((all, { insert }) => all + (typeof insert === 'string' ? insert : '\n'), '');
  const word = /\S*$/.exec(text)![0];
  const [found] = word.includes('.') || word.includes(':') ? addressesIn(word).slice(-1) : [];
  if (!found) return;
  const index = end - 1 - word.length + found.index;
  const { link, code } = quill.getFormat(index, found.length);
  if (link || code) return;
  step(quill, () => quill.formatText(index, found.length, 'link', found.link, 'user'));
}

function step(quill: Quill, change: () => void): void {
  quill.history.cutoff();
  change();
  quill.history.cutoff();
}
