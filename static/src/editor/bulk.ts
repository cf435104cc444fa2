/**
 * Long documents. For each line that a change inserts Quill looks for its place from the top, and for each line that it
 * draws at all it looks whether the line is among the others already: ten thousand lines take it minutes.
 */

import Delta from "quill-delta";
import type Quill from "quill/core";

const LINES_MIN = 100;

/** Quill sets a whole document in one go; this has it take long insertions the same way. */
export function hastenBulk({ editor }: Quill): void {
  hastenLists(editor.scroll.children);
  const applyDelta = editor.applyDelta.bind(editor);
  editor.applyDelta = (delta) => {
    const bulk = bulkOf(delta);
    editor.scroll.update();
    // Behind the last newline Quill has rules of its own.
    if (bulk === null || bulk.index + bulk.deleted >= editor.scroll.length()) return applyDelta(delta);
    const gone = bulk.deleted > 0 ? editor.deleteText(bulk.index, bulk.deleted) : new Delta();
    return gone.compose(editor.insertContents(bulk.index, bulk.inserted));
  };
}

interface Linked {
  prev: Linked | null;
  next: Linked | null;
}

interface List {
  head: Linked | null;
  contains(node: Linked): boolean;
}

/** A line is in no list but its parent's, and whoever leaves one is linked to by nobody: there is no need to search. */
function hastenLists(list: object): void {
  const lists = Object.getPrototypeOf(list) as List;
  lists.contains = function (node) {
    return node === this.head || node.prev?.next === node;
  };
}

/** The change as one replacement by many lines, if it is one. */
function bulkOf(delta: Delta): { index: number; deleted: number; inserted: Delta } | null {
  let index = 0;
  let deleted = 0;
  const inserted = new Delta();
  for (const op of delta.ops) {
    if (op.insert !== undefined) inserted.push(op);
    else if (typeof op.delete === "number") deleted += op.delete;
    else if (typeof op.retain === "number" && !op.attributes && deleted === 0 && inserted.ops.length === 0) index += op.retain;
    else return null;
  }
  return linesOf(inserted) >= LINES_MIN ? { index, deleted, inserted } : null;
}

function linesOf(inserted: Delta): number {
  return inserted.ops.reduce((lines, { insert }) => lines + (typeof insert === "string" ? insert.split("\n").length - 1 : 0), 0);
}
