/** Writes a Delta as html for the clipboard. Built as elements in a document of its own, never as strings. */

import type Delta from 'quill-delta';
import type { AttributeMap, Op } from 'quill-delta';
import { safeImage, safeLink, sanitise } from './sanitise';

export function toHtml(delta: Delta): string {
  const page = document.implementation.createHTMLDocument('');
  const body = page.body;
  sanitise(delta).eachLine((line, attributes) => {
    const block = blockFor(page, body, attributes);
    for (const op of line.ops) {
      const node = leafFor(page, op);
      if (node) block.append(node);
    }
    // A reader of html makes one space of several, and of a tab.
    if (line.ops.some(({ insert }) => typeof insert === 'string' && /\t| {2}|^ | $/.test(insert)))
      block.style.whiteSpace = 'pre-wrap';
    if (!block.hasChildNodes()) block.append(page.createElement('br'));
  });
  return body.innerHTML;
}

function blockFor(page: Document, body: HTMLElement, attributes: AttributeMap): HTMLElement {
  const block = page.createElement(tagFor(attributes));
  if (attributes.align) block.style.textAlign = String(attributes.align);
  if (attributes.direction) block.dir = 'rtl';
  if (attributes.indent && !attributes.list) block.style.paddingLeft = `${Number(attributes.indent) * 3}em`;
  if (attributes['code-block']) {
    const open = body.lastElementChild;
    if (open?.tagName === 'PRE') {
      open.append('\n');
      return open as HTMLElement;
    }
  }
  if (attributes.list) {
    listFor(page, body, attributes).append(block);
    const isDone = attributes.list === 'checked';
    if (isDone || attributes.list === 'unchecked') {
      block.setAttribute('role', 'checkbox');
      block.setAttribute('aria-checked', String(isDone));
      block.append(isDone ? '\u2611 ' : '\u2610 ');
    }
    return block;
  }
  body.append(block);
  return block;
}

/** The list that the line goes on with, nested as deep as its indent. */
function listFor(page: Document, body: HTMLElement, attributes: AttributeMap): HTMLElement {
  const tag = attributes.list === 'ordered' ? 'OL' : 'UL';
  let parent: Element = body;
  for (let depth = Number(attributes.indent ?? 0); ; depth -= 1) {
    let list = parent.lastElementChild;
    if (list?.tagName !== tag && !(depth > 0 && list?.matches('ol, ul'))) {
      list = page.createElement(tag);
      parent.append(list);
    }
    if (depth === 0) return list as HTMLElement;
    if (!list!.lastElementChild) list!.append(page.createElement('li'));
    parent = list!.lastElementChild!;
  }
}

function tagFor(attributes: AttributeMap): string {
  if (attributes.header) return `h${Number(attributes.header)}`;
  if (attributes.list) return 'li';
  if (attributes.blockquote) return 'blockquote';
  if (attributes['code-block']) return 'pre';
  return 'p';
}

const INLINE: [attribute: string, tag: string][] = [
  ['bold', 'strong'],
  ['italic', 'em'],
  ['underline', 'u'],
  ['strike', 's'],
  ['code', 'code'],
];

function leafFor(page: Document, op: Op): Node | null {
  const attributes = op.attributes ?? {};
  let node: Node;
  if (typeof op.insert === 'string') {
    node = page.createTextNode(op.insert);
  } else {
    const address = safeImage(op.insert?.image);
    if (address === null) return null;
    const image = page.createElement('img');
    image.setAttribute('src', address);
    image.alt = String(attributes.alt ?? '');
    node = image;
  }
  const wrap = (element: HTMLElement): void => {
    element.append(node);
    node = element;
  };
  for (const [attribute, tag] of INLINE) if (attributes[attribute]) wrap(page.createElement(tag));
  if (attributes.script) wrap(page.createElement(attributes.script === 'sub' ? 'sub' : 'sup'));
  if (attributes.color || attributes.background) {
    const span = page.createElement('span');
    span.style.color = String(attributes.color ?? '');
    span.style.backgroundColor = String(attributes.background ?? '');
    wrap(span);
  }
  const link = safeLink(attributes.link);
  if (link !== null) {
    const anchor = page.createElement('a');
    anchor.setAttribute('href', link);
    wrap(anchor);
  }
  return node;
}
