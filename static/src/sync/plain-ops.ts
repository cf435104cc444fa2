/**
 * Between a text area and ops on a plain-text document.
 *
 * A text area shows every line end (CR, LF, CR LF) as LF, and counts UTF-16 units. The document keeps its line ends, and its
 * ops count code points.
 */

import { strPosToUni, uniToStrPos } from 'unicount';
import { type TextOp, textType } from './plain-type';

/** Text that takes the place of the units from `start` to `end`. */
export interface Replacement {
  start: number;
  end: number;
  text: string;
}

/** A document's text as a text area shows it. */
export function shownOf(text: string): string {
  return text.includes('\r') ? text.replace(/\r\n?/g, '\n') : text;
}

/** Where a place of the shown text is in the document's text. */
export function placeInText(text: string, shownPlace: number): number {
  let place = shownPlace;
  for (let at = text.indexOf('\r\n'); at !== -1 && at < place; at = text.indexOf('\r\n', at + 2)) place += 1;
  return place;
}

/** Where a place of the document's text is in the shown text. */
export function placeInShown(text: string, place: number): number {
  let removed = 0;
  for (let at = text.indexOf('\r\n'); at !== -1 && at + 1 < place; at = text.indexOf('\r\n', at + 2)) removed += 1;
  return place - removed;
}

/**
 * The one replacement that leads from one text to another, null if they are equal. `caret` is where it ends in `after`, which
 * tells apart what the texts alone do not, as which of two equal letters was typed. It never cuts a surrogate pair.
 */
export function replacementBetween(before: string, after: string, caret = after.length): Replacement | null {
  if (before === after) return null;
  const shorter = Math.min(before.length, after.length);
  let tail = 0;
  const tailMax = Math.min(shorter, after.length - Math.min(caret, after.length));
  while (tail < tailMax && before[before.length - 1 - tail] === after[after.length - 1 - tail]) tail += 1;
  let head = 0;
  while (head < shorter - tail && before[head] === after[head]) head += 1;
  // Without the caret's hint the tail may be longer.
  while (tail < shorter - head && before[before.length - 1 - tail] === after[after.length - 1 - tail]) tail += 1;
  if (cutsPair(before, head) || cutsPair(after, head)) head -= 1;
  if (cutsPair(before, before.length - tail) || cutsPair(after, after.length - tail)) tail -= 1;
  return { start: head, end: before.length - tail, text: after.slice(head, after.length - tail) };
}

function cutsPair(text: string, place: number): boolean {
  return /^[\uD800-\uDBFF][\uDC00-\uDFFF]$/.test(text.slice(place - 1, place + 1)) && place > 0;
}

/**
 * The replacement of the document's text for one of the shown text. A LF that comes to stand behind a lone CR would make one line
 * end with it, where the text area shows two: it gets another LF before it.
 */
export function inText(text: string, { start, end, text: inserted }: Replacement): Replacement {
  const [from, to] = [placeInText(text, start), placeInText(text, end)];
  const isJoined = text[from - 1] === '\r' && (inserted[0] ?? text[to]) === '\n';
  return { start: from, end: to, text: isJoined ? `\n${inserted}` : inserted };
}

/** Deletions up to this size carry the deleted text: then the client can undo one refused op by itself. */
const DELETED_TEXT_MAX = 64 * 1024;

/** The op that makes a replacement in `text`. Half a surrogate pair, which no document may hold, becomes U+FFFD. */
export function opOf(text: string, { start, end, text: inserted }: Replacement): TextOp {
  const op: TextOp = [];
  if (start > 0) op.push(strPosToUni(text, start));
  if (inserted !== '') op.push(inserted.replace(LONE_SURROGATES, '\uFFFD'));
  const deleted = text.slice(start, end);
  if (deleted !== '') op.push({ d: deleted.length > DELETED_TEXT_MAX ? strPosToUni(deleted) : deleted });
  return op;
}

const LONE_SURROGATES = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g;

/** The replacements that bring a text area from the shown `before` to the shown `after`, one after the other. */
export function replacementsOf(op: TextOp, before: string, after: string): Replacement[] {
  if (before.includes('\r') || after.includes('\r')) {
    const whole = replacementBetween(shownOf(before), shownOf(after));
    return whole ? [whole] : [];
  }
  const replacements: Replacement[] = [];
  /** Units into `before`, and how far `after` is ahead of it. */
  let at = 0;
  let ahead = 0;
  for (const component of op) {
    if (typeof component === 'number') at += uniToStrPos(before.slice(at), component);
    else if (typeof component === 'string') {
      replacements.push({ start: at + ahead, end: at + ahead, text: component });
      ahead += component.length;
    } else {
      const units = typeof component.d === 'string' ? component.d.length : uniToStrPos(before.slice(at), component.d);
      replacements.push({ start: at + ahead, end: at + ahead + units, text: '' });
      at += units;
      ahead -= units;
    }
  }
  return replacements;
}

/** The place in the new document, in code points, behind the last thing that an op changes. */
export function endOfChange(op: TextOp): number {
  let at = 0;
  let end = 0;
  for (const component of op) {
    if (typeof component === 'number') at += component;
    else end = at += typeof component === 'string' ? strPosToUni(component) : 0;
  }
  return end;
}

/** In UTF-16 units. A unit takes at most 6 bytes in a message, and the server takes messages of 2 MiB. */
export const PIECE_SIZE_MAX = 256 * 1024;

/** So much for each component that a piece has at most some 4,000 of them: the server takes 10,000. */
const COMPONENT_SIZE = 64;

export function sizeOf(op: TextOp): number {
  return op.reduce<number>((size, component) => size + sizeOfComponent(component), 0);
}

function sizeOfComponent(component: TextOp[number]): number {
  const text = typeof component === 'object' ? component.d : component;
  return COMPONENT_SIZE + (typeof text === 'string' ? text.length : 0);
}

/** Cuts an op into ops that each fit into a message. Each stands on those before it; composed they are the op. */
export function piecesOf(op: TextOp): TextOp[] {
  if (sizeOf(op) <= PIECE_SIZE_MAX) return [op];
  const pieces: TextOp[] = [];
  let piece: TextOp = [];
  let size = 0;
  /** Code points of the new document before this place. */
  let done = 0;
  for (const component of op.flatMap(cut)) {
    const more = sizeOfComponent(component);
    if (size > 0 && size + more > PIECE_SIZE_MAX) {
      pieces.push(piece);
      piece = done > 0 ? [done] : [];
      size = 0;
    }
    piece.push(component);
    size += more;
    if (typeof component !== 'object') done += typeof component === 'number' ? component : strPosToUni(component);
  }
  return [...pieces, piece].map((each) => textType.normalize(each)).filter((each) => each.length > 0);
}

/** Only inserted text can be too large for a piece. */
function cut(component: TextOp[number]): TextOp {
  if (typeof component !== 'string' || component.length <= PIECE_SIZE_MAX / 2) return [component];
  const parts: string[] = [];
  for (let at = 0; at < component.length; ) {
    let end = Math.min(component.length, at + PIECE_SIZE_MAX / 2);
    if (cutsPair(component, end)) end -= 1;
    parts.push(component.slice(at, end));
    at = end;
  }
  return parts;
}
