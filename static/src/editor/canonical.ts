/**
 * The canonical form of a document: what Quill shows of it, and the only thing that any page shows of it.
 *
 * Programs and pages that edit at the same time store what Quill cannot hold: a line that is a heading and a list item,
 * bold text in a code block, a format of lines on text, a carriage return. Quill would show the format that came last,
 * so that an open page and a new one would differ. Here each stored state has one meaning, whatever the order in which
 * it came about. Lengths stay the same, so positions mean the same on both sides.
 */

import Delta, { AttributeMap, type Op, OpIterator } from 'quill-delta';
import { documentName, foreignName, isImageFormat, LINE_KINDS, type Place, sanitiseAttributes } from './attributes';
import { sanitiseInsert } from './sanitise';

/** A stored document as Quill shows it, with the final newline that Quill always has. */
export function canonicalDocument(data: unknown): Delta {
  const document = new Delta();
  for (const line of canonicalLines(insertsOf(data))) for (const op of line.ops) document.push(op);
  return document;
}

/** A part of a stored document as Quill shows it: its last line may be without its newline. */
export function canonicalContent(part: Delta): Delta {
  const content = canonicalDocument(part);
  return endsWithNewline(part.ops) ? content : content.slice(0, content.length() - 1);
}

/** The lines of a stored document in canonical form, each with its newline. There is at least one. */
export function* canonicalLines(inserts: readonly Op[]): Generator<Delta> {
  let line: Op[] = [];
  let isOpen = true;
  for (const op of inserts) {
    const parts = typeof op.insert === 'string' ? op.insert.split('\n') : [null];
    for (const [index, part] of parts.entries()) {
      if (index > 0) {
        yield lineOf(line, op.attributes);
        line = [];
        isOpen = false;
      }
      if (part === '') continue;
      line.push(part === null ? op : { ...op, insert: part });
      isOpen = true;
    }
  }
  if (isOpen) yield lineOf(line, undefined);
}

/**
 * The change that makes `shown` the canonical form of the document `data`. `undrawn` is what the document has and `shown`
 * has not. Each line that `touched` touches, a change that ends in `data`, is derived from the document anew.
 */
export function canonicalChange(shown: Delta, undrawn: Delta, touched: Delta, data: unknown): Delta {
  const inserts = insertsOf(data);
  const structure = structureOf(undrawn);
  const after = new OpIterator(shown.compose(structure).ops);
  const stored = new OpIterator(inserts);
  const length = lengthOf(inserts);
  const repair = new Delta();
  let at = 0;
  for (const [start, end] of touchedLines(inserts, length, touched)) {
    take(after, start - at);
    take(stored, start - at);
    repair.retain(start - at);
    const target = canonicalDocument(take(stored, end - start));
    // The final newline that the document does not have comes and goes with its last line.
    const current = take(after, end === length ? Infinity : end - start);
    repair.ops.push(...attributesBetween(current, target.ops).ops);
    at = end;
  }
  return structure.compose(new Delta(repair.ops).chop());
}

/**
 * Whether a change of this page's user may bring to light formats that the canonical form has hidden: one that takes a
 * line's format away, or joins lines. `before` is what the change was made on.
 */
export function mayReveal(change: Delta, before: Delta): boolean {
  let at = 0;
  for (const { delete: deleted, insert, retain, attributes } of change.ops) {
    if (retain !== undefined && attributes && LINE_KINDS.some((name) => name in attributes)) return true;
    if (deleted !== undefined && before.slice(at, at + deleted).ops.some((op) => String(op.insert).includes('\n')))
      return true;
    if (insert === undefined) at += deleted ?? (typeof retain === 'number' ? retain : 1);
  }
  return false;
}

/** A change of this page's user, in which a format of lines takes away those that it excludes, shown or not. */
export function exclusiveChange(change: Delta): Delta {
  return new Delta(change.ops.map(excludingOthers));
}

/** The op as one on `data`: if only Quill has the final newline, what happens to that becomes an insert of it, or nothing. */
export function storableOp(op: Delta, data: unknown): Delta {
  const inserts = insertsOf(data);
  const length = lengthOf(inserts);
  return consumedBy(op) <= length ? op : withinDocument(op, length, endsWithNewline(inserts));
}

/** Whether two lists of ops are the same document. */
export function isSame(left: readonly Op[], right: readonly Op[]): boolean {
  return left.length === right.length && left.every((op, index) => isSameOp(op, right[index]!));
}

/** What a stored document consists of. A stray retain, which old clients could leave behind its end, is no content. */
export function insertsOf(data: unknown): Op[] {
  return new Delta(data as Op[]).ops.filter(({ insert }) => insert !== undefined && insert !== '');
}

function lineOf(parts: Op[], newline: AttributeMap | undefined): Delta {
  const formats = sanitiseAttributes(newline, 'line');
  const kind = LINE_KINDS.find((name) => formats[name] !== undefined);
  const isShown = (name: string): boolean => name === kind || !LINE_KINDS.includes(name);
  const line = new Delta();
  for (const part of parts.flatMap(sanitiseInsert))
    line.insert(part.insert!, kind === 'code-block' ? partInCode(part) : part.attributes);
  return line.insert('\n', carried(formats, 'line', isShown));
}

/** Code shows no formats of text. */
function partInCode({ insert, attributes = {} }: Op): AttributeMap {
  const isImage = typeof insert === 'object' && 'image' in insert;
  return carried(attributes, 'text', (name) => isImage && isImageFormat(name));
}

/** Formats of the editor, of which those that are not shown are made foreign attributes. */
function carried(formats: AttributeMap, place: Place, isShown: (name: string) => boolean): AttributeMap {
  const carriedFormats = { ...formats };
  for (const [name, value] of Object.entries(formats)) {
    if (documentName(name) !== null || isShown(name)) continue;
    delete carriedFormats[name];
    carriedFormats[foreignName(name, place)] ??= JSON.stringify(value);
  }
  return carriedFormats;
}

/** What a change does to the text, without formats: they are derived from the document. */
function structureOf(change: Delta): Delta {
  const structure = new Delta();
  for (const op of change.ops) {
    if (typeof op.delete === 'number') structure.delete(op.delete);
    else if (typeof op.retain === 'number') structure.retain(op.retain);
    // A change inside an embed: one character long.
    else if (op.retain !== undefined) structure.retain(1);
    else for (const { insert } of sanitiseInsert(op)) structure.insert(insert!);
  }
  return structure;
}

/** The stretches of whole lines that a change touches, in the document after it: start and end, in order. */
function touchedLines(inserts: readonly Op[], length: number, change: Delta): [number, number][] {
  const touched = touchesOf(change, length);
  const lines: [number, number][] = [];
  let next = 0;
  let start = 0;
  for (const end of lineEnds(inserts, length)) {
    while (next < touched.length && touched[next]![1] < start) next += 1;
    if (next === touched.length) break;
    // Only a last line without a newline ends where a touch may be.
    if (touched[next]![0] < end || end === length) {
      const last = lines.at(-1);
      if (last && last[1] === start) last[1] = end;
      else lines.push([start, end]);
    }
    start = end;
  }
  return lines;
}

/** Where a change did something, in the document after it: first and last position. */
function touchesOf(change: Delta, length: number): [number, number][] {
  const touches: [number, number][] = [];
  const last = Math.max(0, length - 1);
  let at = 0;
  for (const op of change.ops) {
    const size =
      op.delete !== undefined
        ? 0
        : typeof op.retain === 'number'
          ? op.retain
          : typeof op.insert === 'string'
            ? op.insert.length
            : 1;
    if (typeof op.retain !== 'number' || op.attributes) touches.push([Math.min(at, last), at + size]);
    at += size;
  }
  return touches;
}

function* lineEnds(inserts: readonly Op[], length: number): Generator<number> {
  let at = 0;
  let end = 0;
  for (const { insert } of inserts) {
    const text = typeof insert === 'string' ? insert : '\ufffc';
    for (let newline = text.indexOf('\n'); newline >= 0; newline = text.indexOf('\n', newline + 1))
      yield (end = at + newline + 1);
    at += text.length;
  }
  if (end < length || length === 0) yield length;
}

function lengthOf(inserts: readonly Op[]): number {
  return inserts.reduce((length, { insert }) => length + (typeof insert === 'string' ? insert.length : 1), 0);
}

function endsWithNewline(inserts: readonly Op[]): boolean {
  const last = inserts.at(-1)?.insert;
  return typeof last === 'string' && last.endsWith('\n');
}

function take(from: OpIterator, length: number): Op[] {
  const taken: Op[] = [];
  for (let left = length; left > 0 && from.hasNext(); ) {
    const size = Math.min(left, from.peekLength());
    taken.push(from.next(size));
    left -= size;
  }
  return taken;
}

/** The change of formats, and of objects, between two ranges with the same text up to a final newline. */
function attributesBetween(current: Op[], target: Op[]): Delta {
  const change = new Delta();
  const [from, to] = [new OpIterator(current), new OpIterator(target)];
  while (from.hasNext() && to.hasNext()) {
    const length = Math.min(from.peekLength(), to.peekLength());
    const [before, after] = [from.next(length), to.next(length)];
    if (isSameOp({ insert: before.insert! }, { insert: after.insert! }))
      change.retain(length, AttributeMap.diff(before.attributes, after.attributes));
    else change.push(after).delete(length);
  }
  while (to.hasNext()) change.push(to.next());
  while (from.hasNext()) {
    change.delete(from.peekLength());
    from.next();
  }
  return change;
}

function isSameOp(left: Op, right: Op): boolean {
  const isText = typeof left.insert === 'string';
  const isInsertSame = isText
    ? left.insert === right.insert
    : JSON.stringify(left.insert) === JSON.stringify(right.insert);
  return isInsertSame && AttributeMap.diff(left.attributes, right.attributes) === undefined;
}

function excludingOthers(op: Op): Op {
  const { retain, attributes } = op;
  if (retain === undefined || !attributes || !LINE_KINDS.some((name) => name in attributes)) return op;
  const none = Object.fromEntries(LINE_KINDS.map((name) => [name, null]));
  return { retain, attributes: { ...none, ...attributes } };
}

function consumedBy(op: Delta): number {
  return op.ops.reduce(
    (length, { delete: deleted, retain }) =>
      length + (deleted ?? (typeof retain === 'number' ? retain : retain ? 1 : 0)),
    0,
  );
}

/** The op without what it does behind the end of the document, where Quill has a newline and the document has none. */
function withinDocument(op: Delta, length: number, endsWithNewline: boolean): Delta {
  const within = new Delta();
  const ops = new OpIterator(op.ops);
  let left = length;
  let isNewlineDue = !endsWithNewline;
  while (ops.hasNext()) {
    const isInsert = ops.peekType() === 'insert';
    const size = isInsert || left === 0 ? ops.peekLength() : Math.min(ops.peekLength(), left);
    const part = ops.next(size);
    if (isInsert || left > 0) {
      within.push(part);
      if (!isInsert) left -= size;
    } else if (part.retain !== undefined && isNewlineDue && (part.attributes || ops.hasNext())) {
      const formats = Object.fromEntries(Object.entries(part.attributes ?? {}).filter(([, value]) => value !== null));
      within.insert('\n', formats);
      isNewlineDue = false;
    }
  }
  return within.chop();
}
