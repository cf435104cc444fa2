import type Quill from 'quill/core';
import type { Range } from 'quill/core';

/** The stretch around `index` that carries one value of `format`; empty if it carries none. */
export function stretchAt(quill: Quill, index: number, format: string): Range {
  const value = quill.getFormat(index)[format];
  const none = { index, length: 0 } as Range;
  if (value === undefined) return none;
  let stretch = none;
  let at = 0;
  for (const op of quill.getContents().ops) {
    const length = typeof op.insert === 'string' ? op.insert.length : 1;
    if (op.attributes?.[format] === value) {
      const goesOn = stretch.length > 0 && stretch.index + stretch.length === at;
      stretch = (goesOn ? { ...stretch, length: stretch.length + length } : { index: at, length }) as Range;
    } else if (stretch.length > 0 && stretch.index + stretch.length >= index) {
      break;
    }
    at += length;
    if (at > index && stretch.length === 0) break;
  }
  return stretch.index <= index && index <= stretch.index + stretch.length ? stretch : none;
}
