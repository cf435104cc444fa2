/**
 * Insertion of many lines at once in linear time. For each inserted line Quill searches its position from the top, and
 * for each line that it adds to a list it searches that list for the line first: 10,000 lines take minutes.
 */

import type Quill from 'quill/core';
import { Parchment } from 'quill/core';
import Delta from 'quill-delta';

const LINES_MIN = 100;

/** Applies a long insertion in one pass, as Quill does for a whole document. */
export function hastenBulk({ editor }: Quill): void {
  editor.getDelta = () => contentsOf(editor.scroll);
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

/** All lines as one Delta. Quill copies what it has so far for each line, which is quadratic. */
function contentsOf(scroll: Quill['scroll']): Delta {
  const contents = new Delta();
  for (const line of scroll.lines()) {
    const [first, ...rest] = line.delta().ops;
    if (first) contents.push(first);
    contents.ops.push(...rest);
  }
  return contents;
}

interface List {
  contains(node: object): boolean;
  insertBefore(node: object | null, next: object | null): void;
  remove(node: object): void;
}

/**
 * Makes `LinkedList.contains` of Parchment constant-time: each node has a record of the list that holds it, which the only
 * two methods that add and remove nodes keep. Links alone cannot tell: a node in another list has neighbours, too.
 * Must run before the first editor is made, so that no node is without a record.
 */
export function hastenLists(): void {
  const empty = new Parchment.ParentBlot(null as never, document.createElement('div'));
  const lists = Object.getPrototypeOf(empty.children) as List;
  const { insertBefore, remove } = lists;
  const holders = new WeakMap<object, List>();
  lists.contains = function (node) {
    return holders.get(node) === this;
  };
  lists.insertBefore = function (node, next) {
    insertBefore.call(this, node, next);
    if (node !== null) holders.set(node, this);
  };
  lists.remove = function (node) {
    remove.call(this, node);
    if (holders.get(node) === this) holders.delete(node);
  };
}

/** The change as one replacement by many lines, if it is one. */
function bulkOf(delta: Delta): { index: number; deleted: number; inserted: Delta } | null {
  let index = 0;
  let deleted = 0;
  const inserted = new Delta();
  for (const op of delta.ops) {
    if (op.insert !== undefined) inserted.push(op);
    else if (typeof op.delete === 'number') deleted += op.delete;
    else if (typeof op.retain === 'number' && !op.attributes && deleted === 0 && inserted.ops.length === 0)
      index += op.retain;
    else return null;
  }
  return linesOf(inserted) >= LINES_MIN ? { index, deleted, inserted } : null;
}

function linesOf(inserted: Delta): number {
  return inserted.ops.reduce(
    (lines, { insert }) => lines + (typeof insert === 'string' ? insert.split('\n').length - 1 : 0),
    0,
  );
}
