/** The type of plain-text documents, `text-unicode`. Its positions are code points. */

import { type TextOp, type TextType, type as textUnicode } from 'ot-text-unicode';

export type { TextOp };

/** The type as the npm package has it; its own declaration leaves out what only some types of text can do. */
export const textType = textUnicode as unknown as TextType<string> & { uri: string };

interface Cursor {
  index: number;
  length: number;
}

/** The type as the ShareDB client registers it: with cursors that move along with the text. */
export const textTypeWithPresence = {
  ...textType,
  transformPresence(value: unknown, op: TextOp): unknown {
    if (!isCursor(value)) return value;
    const index = textType.transformPosition(value.index, op);
    return { ...value, index, length: textType.transformPosition(value.index + value.length, op) - index };
  },
};

/** What others publish may be anything. */
function isCursor(value: unknown): value is Cursor {
  const { index, length } = (value ?? {}) as Partial<Cursor>;
  return [index, length].every((each) => Number.isSafeInteger(each) && each! >= 0);
}
