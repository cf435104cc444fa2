/**
 * Limits the size of ops. The client merges edits that wait into one op without a bound, and a paste is one edit: an op
 * that the server refuses for its size would be lost.
 */

import Delta, { Op } from 'quill-delta';

/** In UTF-16 units of text. A unit takes at most 6 bytes in a message, and the server takes messages of 2 MiB. */
export const PIECE_SIZE_MAX = 256 * 1024;

/** The server's bound is at least 10,000. The distance is for what other people's edits add while the op waits. */
export const PIECE_COMPONENTS_MAX = 1_000;

/** An upper bound of what an op takes in a message. */
export interface Extent {
  size: number;
  components: number;
}

const NOTHING: Extent = { size: 0, components: 0 };

/** Decides which edits the client may merge. */
export class MergeLimit {
  #merged = NOTHING;

  /** Counts an edit. Returns true if it may be merged with the edits before it; otherwise it begins an op of its own. */
  admits(edit: Delta): boolean {
    const extent = extentOf(edit);
    // Composing and transforming produce at most as many components as went in.
    const merged = sumOf(this.#merged, extent);
    const isAdmitted = fits(merged);
    this.#merged = isAdmitted ? merged : extent;
    return isAdmitted;
  }

  /** To be called when no edit waits. */
  reset(): void {
    this.#merged = NOTHING;
  }
}

/** Each piece is based on the ones before it. Composed they are the change. */
export function piecesOf(change: Delta): Delta[] {
  if (fits(extentOf(change))) return [change];
  const pieces: Delta[] = [];
  let piece = new Delta();
  let extent = NOTHING;
  /** The position in the text that the pieces before this one have reached. */
  let done = 0;
  for (const op of change.ops.flatMap(cut)) {
    const next = sumOf(extent, extentOfOp(op));
    if (extent.components > 0 && !fits(next)) {
      pieces.push(piece);
      piece = new Delta().retain(done);
      extent = sumOf({ size: OP_FRAME_SIZE, components: 1 }, extentOfOp(op));
    } else {
      extent = next;
    }
    piece.push(op);
    if (op.delete === undefined) done += Op.length(op);
  }
  return [...pieces, piece];
}

function fits({ size, components }: Extent): boolean {
  return size <= PIECE_SIZE_MAX && components <= PIECE_COMPONENTS_MAX;
}

function sumOf(a: Extent, b: Extent): Extent {
  return { size: a.size + b.size, components: a.components + b.components };
}

function extentOf(change: Delta): Extent {
  return change.ops.map(extentOfOp).reduce(sumOf, NOTHING);
}

const OP_FRAME_SIZE = 24;

function extentOfOp({ insert, attributes }: Op): Extent {
  const content = typeof insert === 'string' ? insert.length : insert === undefined ? 0 : JSON.stringify(insert).length;
  const size = OP_FRAME_SIZE + content + (attributes ? JSON.stringify(attributes).length : 0);
  return { size, components: 1 };
}

/** Only text can be cut. An embed has come in one message, so it fits into one. */
function cut(op: Op): Op[] {
  const { insert, ...rest } = op;
  if (typeof insert !== 'string' || insert.length <= PIECE_SIZE_MAX) return [op];
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
