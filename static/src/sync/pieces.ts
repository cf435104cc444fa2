/** Cuts a change into ops that each fit into a message: an op that does not would be sent again and again, in vain. */

import Delta, { Op } from "quill-delta";

/** In UTF-16 units of text. A unit takes at most 6 bytes in a message, and the server takes messages of 2 MiB. */
export const PIECE_SIZE_MAX = 256 * 1024;

/** Each piece stands on the ones before it. Composed they are the change. */
export function piecesOf(change: Delta): Delta[] {
  if (sizeOf(change) <= PIECE_SIZE_MAX) return [change];
  const pieces: Delta[] = [];
  let piece = new Delta();
  let size = 0;
  /** How far into the text the pieces before this one have come. */
  let done = 0;
  for (const op of change.ops.flatMap(cut)) {
    const more = sizeOfOp(op);
    if (size > 0 && size + more > PIECE_SIZE_MAX) {
      pieces.push(piece);
      piece = new Delta().retain(done);
      size = 0;
    }
    piece.push(op);
    size += more;
    if (op.delete === undefined) done += Op.length(op);
  }
  return [...pieces, piece];
}

export function sizeOf(change: Delta): number {
  return change.ops.reduce((size, op) => size + sizeOfOp(op), 0);
}

const OP_FRAME_SIZE = 24;

function sizeOfOp({ insert, attributes }: Op): number {
  const content = typeof insert === "string" ? insert.length : insert === undefined ? 0 : JSON.stringify(insert).length;
  return OP_FRAME_SIZE + content + (attributes ? JSON.stringify(attributes).length : 0);
}

/** Only text can be cut. An embed has come in one message, so it fits into one. */
function cut(op: Op): Op[] {
  const { insert, ...rest } = op;
  if (typeof insert !== "string" || insert.length <= PIECE_SIZE_MAX) return [op];
  const parts: Op[] = [];
  for (let at = 0; at < insert.length; ) {
    let end = Math.min(insert.length, at + PIECE_SIZE_MAX / 2);
    // Not between the two halves of a character.
    if (/[\uD800-\uDBFF]/.test(insert[end - 1]!) && end < insert.length) end -= 1;
    parts.push({ insert: insert.slice(at, end), ...rest });
    at = end;
  }
  return parts;
}
