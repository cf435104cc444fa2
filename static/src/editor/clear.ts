/** Takes formats from a selection and leaves all else: pictures, placeholders, and attributes that are not drawn. */

import type Quill from 'quill/core';
import type { Range } from 'quill/core';
import Delta, { Op } from 'quill-delta';
import { documentName, foreignName, formatsAt, type Place } from './attributes';

const LINE = formatsAt('line');
const TEXT = formatsAt('text');

/** Clears the text in `range` and the lines that it touches; without a selection what is typed next, and the line. */
export function clearFormats(quill: Quill, range: Range): void {
  if (range.length === 0) {
    for (const name of Object.keys(quill.getFormat(range)))
      if (documentName(name) === null) quill.format(name, false, 'user');
    return;
  }
  quill.updateContents(clearing(quill, range), 'user');
}

function clearing(quill: Quill, { index, length }: Range): Delta {
  const [last, offset] = quill.getLine(index + length);
  const lineEnd = index + length + (last ? last.length() - offset : 0);
  const change = new Delta().retain(index);
  let at = index;
  for (const op of quill.getContents(index, lineEnd - index).ops) {
    for (const part of typeof op.insert === 'string' ? (op.insert.match(/\n+|[^\n]+/g) ?? []) : [null]) {
      const place: Place = part?.startsWith('\n') ? 'line' : 'text';
      const size = part?.length ?? Op.length(op);
      // Of the last line only its end is beyond the selection, and only its end is cleared.
      const inside = place === 'line' ? size : Math.max(0, Math.min(size, index + length - at));
      change.retain(inside, cleared(op, place)).retain(size - inside);
      at += size;
    }
  }
  return change.chop();
}

function cleared({ attributes = {} }: Op, place: Place): Record<string, null> | undefined {
  const names = (place === 'line' ? LINE : TEXT).filter((name) => name in attributes);
  const twins = names.map((name) => foreignName(name, place)).filter((name) => name in attributes);
  return names.length > 0 ? Object.fromEntries([...names, ...twins].map((name) => [name, null])) : undefined;
}
