/** Web addresses in text. */

import Delta from 'quill-delta';
import { safeLink } from './attributes';

/** An address as it stands in text. What ends a sentence or closes a bracket is cut off by `trimmed`. */
const ADDRESS = /(?<![\p{L}\p{N}_@/.-])(?:https?:\/\/|www\.)[^\s<>"`{}|\\^\u00a0]{2,2000}/giu;

export interface FoundAddress {
  index: number;
  length: number;
  link: string;
}

/** The addresses in a text, in their order. */
export function addressesIn(text: string): FoundAddress[] {
  const found: FoundAddress[] = [];
  for (const { 0: match, index } of text.matchAll(ADDRESS)) {
    const words = trimmed(match);
    const link = linkOf(words);
    if (link !== null) found.push({ index, length: words.length, link });
  }
  return found;
}

/** The address if the clipboard holds one address and nothing else. */
export function soleAddress({ text = '', html }: { text?: string; html?: string }): string | null {
  const address = text.trim();
  if (address === '' || /\s/.test(address)) return null;
  const [found] = addressesIn(address);
  const link =
    found?.length === address.length ? found.link : /^mailto:\S+@\S+$/i.test(address) ? safeLink(address) : null;
  if (link === null || !html) return link;
  const { body } = new DOMParser().parseFromString(html, 'text/html');
  const shown = body.textContent.trim();
  const anchor = body.querySelectorAll('a').length === 1 ? body.querySelector('a')!.textContent.trim() : null;
  return shown === address || shown === anchor ? link : null;
}

/** The content with links where it has addresses that are none yet, outside of code. */
export function linkAddresses(content: Delta): Delta {
  const linked = new Delta();
  const code = codeLinesOf(content);
  let line = 0;
  for (const op of content.ops) {
    if (typeof op.insert !== 'string' || ['link', 'code', 'code-block'].some((name) => op.attributes?.[name])) {
      linked.push(op);
      continue;
    }
    for (const [index, part] of op.insert.split(/(?<=\n)/).entries()) {
      if (index > 0) line += 1;
      let done = 0;
      for (const { index: at, length, link } of code.has(line) ? [] : addressesIn(part)) {
        linked
          .insert(part.slice(done, at), op.attributes)
          .insert(part.slice(at, at + length), { ...op.attributes, link });
        done = at + length;
      }
      linked.insert(part.slice(done), op.attributes);
    }
    if (op.insert.endsWith('\n')) line += 1;
  }
  return linked;
}

/** The numbers of the lines that are code. */
function codeLinesOf(content: Delta): Set<number> {
  const code = new Set<number>();
  let line = 0;
  for (const { insert, attributes } of content.ops) {
    if (typeof insert !== 'string') continue;
    for (let newline = insert.indexOf('\n'); newline >= 0; newline = insert.indexOf('\n', newline + 1)) {
      if (attributes?.['code-block']) code.add(line);
      line += 1;
    }
  }
  return code;
}

function linkOf(words: string): string | null {
  const isBare = /^www\./i.test(words);
  if (isBare && !/^www\.[^./]+\.[^.]/i.test(words)) return null;
  return safeLink(isBare ? `https://${words}` : words);
}

/** Without the punctuation behind it, and without a closing bracket that has no opening one in it. */
function trimmed(address: string): string {
  for (;;) {
    const last = address.at(-1) ?? '';
    const opening = { ')': '(', ']': '[' }[last];
    const isUnopened = opening !== undefined && address.split(opening).length < address.split(last).length;
    if (!isUnopened && !/[.,;:!?'"*_~»”’…]/.test(last)) return address;
    address = address.slice(0, -1);
  }
}
