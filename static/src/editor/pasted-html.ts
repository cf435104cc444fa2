/** What Quill's reader of pasted html loses: checklists, spaces that the source keeps, tables. */

import Delta from 'quill-delta';

type Matcher = (node: Node, delta: Delta) => Delta;

export const LIST_MATCHERS: [selector: string | 3, matcher: Matcher][] = [
  [Node.TEXT_NODE as 3, keepSpaces],
  ['li', matchTask],
];

/** Office programs keep runs of spaces and tabs by the style of an element around them; Quill knows `pre` only. */
function keepSpaces(node: Node, delta: Delta): Delta {
  const text = (node as Text).data;
  if (delta.length() === 0 || !/[ \u00a0]{2}|[\t\n]|^ | $/.test(text) || !isPreformatted(node.parentElement))
    return delta;
  const kept = new Delta().insert(text.replaceAll('\u00a0', ' ').replace(/\r\n?/g, '\n'));
  const last = delta.ops.at(-1)?.insert;
  const isLineEnd = typeof last === 'string' && last.endsWith('\n') && !/\n$/.test(text);
  return isLineEnd ? kept.insert('\n') : kept;
}

function isPreformatted(element: HTMLElement | null): boolean {
  for (let at = element; at !== null; at = at.parentElement) {
    const { whiteSpace } = at.style;
    if (whiteSpace !== '') return /^(pre|break-spaces)/.test(whiteSpace) && whiteSpace !== 'pre-line';
  }
  return false;
}

/** An item with a box: as editors mark it up, or as text has it. */
function matchTask(node: Node, delta: Delta): Delta {
  const item = node as HTMLElement;
  const state = taskStateOf(item);
  if (state === null) return delta;
  const content = new Delta();
  for (const op of delta.ops) {
    const isFirst = content.ops.length === 0;
    const insert =
      isFirst && typeof op.insert === 'string' ? op.insert.replace(/^\s*(?:[☐☑☒✅✓✔]\s*)?/u, '') : op.insert!;
    if (insert === '') continue;
    content.push(op.attributes?.list ? { ...op, insert } : { insert, attributes: { ...op.attributes, list: state } });
  }
  return content;
}

function taskStateOf(item: HTMLElement): 'checked' | 'unchecked' | null {
  const box = item.querySelector<HTMLInputElement>(
    ':scope > input[type=checkbox], :scope > :is(p, label, div, span) > input[type=checkbox]',
  );
  if (box) return box.checked ? 'checked' : 'unchecked';
  const marked =
    item.getAttribute('role') === 'checkbox' ? item.getAttribute('aria-checked') : item.getAttribute('data-checked');
  if (marked !== null) return marked === 'true' ? 'checked' : 'unchecked';
  const sign = /^\s*([☐☑☒✅✓✔])/u.exec(item.textContent)?.[1];
  return sign === undefined ? null : sign === '☐' ? 'unchecked' : 'checked';
}

/** Empty cells that stand for spans of cells, at most: a span may claim any number. */
const PADDING_MAX = 10_000;

/** Makes a line of each row, with tabs between its cells. Returns whether there was a table. */
export function flattenTables(body: HTMLElement): boolean {
  let found = false;
  // The inner tables first: they become lines of their cell.
  for (const table of [...body.querySelectorAll('table')].reverse()) {
    const rows = [...table.rows];
    // One column is a layout, as letters have it, and stays what is in it.
    if (rows.every(({ cells }) => cells.length < 2)) continue;
    found = true;
    const lines = gridOf(rows).map((cells) => {
      const line = body.ownerDocument.createElement('p');
      for (const [index, cell] of cells.entries()) {
        if (index > 0) line.append(tabOf(body.ownerDocument));
        if (cell) line.append(...inlineOf(cell));
      }
      return line;
    });
    table.replaceWith(...lines);
  }
  return found;
}

/** The cells of each row by column, with null where a cell of this or of an earlier row spans. */
function gridOf(rows: HTMLTableRowElement[]): (HTMLElement | null)[][] {
  let padding = 0;
  /** For each column, how many more rows the cell above takes. */
  const taken: number[] = [];
  return rows.map((row) => {
    const cells: (HTMLElement | null)[] = [];
    const skip = (): void => {
      for (; (taken[cells.length] ?? 0) > 0 && padding < PADDING_MAX; padding += 1) {
        taken[cells.length]! -= 1;
        cells.push(null);
      }
    };
    for (const cell of row.cells) {
      skip();
      for (let column = 0; column < cell.colSpan && (column === 0 || padding < PADDING_MAX); column += 1) {
        taken[cells.length] = cell.rowSpan - 1;
        cells.push(column === 0 ? cell : null);
        if (column > 0) padding += 1;
      }
    }
    skip();
    return cells;
  });
}

function tabOf(page: Document): HTMLElement {
  const tab = page.createElement('span');
  tab.style.whiteSpace = 'pre';
  tab.textContent = '\t';
  return tab;
}

const BLOCKS =
  'p, div, h1, h2, h3, h4, h5, h6, ul, ol, li, blockquote, pre, section, article, header, footer, dl, dt, dd';

/** The content of a cell on one line: its paragraphs and breaks are parted by spaces. */
function inlineOf(cell: HTMLElement): Node[] {
  for (const br of cell.querySelectorAll('br')) br.replaceWith(' ');
  for (const block of [...cell.querySelectorAll<HTMLElement>(BLOCKS)].reverse()) {
    const inline = cell.ownerDocument.createElement('span');
    inline.append(...block.childNodes);
    if (block.nextElementSibling) inline.append(' ');
    block.replaceWith(inline);
  }
  cell.normalize();
  const texts = cell.ownerDocument.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  const first = texts.nextNode() as Text | null;
  if (first) first.data = first.data.trimStart();
  let last = first;
  while (texts.nextNode()) last = texts.currentNode as Text;
  if (last) last.data = last.data.trimEnd();
  return [...cell.childNodes];
}
