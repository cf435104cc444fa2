// Seeded random numbers, and edits of either type that are valid for a given document.
import { Delta } from './client.mjs';

export { dice } from './dice.mjs';

/** The seed of this run: from the environment, or new. A failing test prints it. */
export const SEED = process.env.SEED ?? String(Date.now() % 1_000_000);

const CHARS = [
  ...'abcdefgh XYZ012.\n"\\\t',
  'é',
  'ß',
  '中',
  '\u0301',
  '\u200d',
  '\u2028',
  '\ufeff',
  '😀',
  '👩',
  '𝒳',
  '\u{10ffff}',
];

/** One to `max` characters, some of them beyond the first plane, some that combine. */
export function someText(r, max = 4) {
  return Array.from({ length: r.from(1, max) }, () => r.pick(CHARS)).join('');
}

/** An edit of a text-unicode document, not empty. */
export function textEdit(r, text) {
  const length = [...text].length;
  const at = r.from(0, length);
  const start = at ? [at] : [];
  const left = length - at;
  if (left && r.chance(0.35)) return [...start, { d: r.from(1, Math.min(left, 5)) }];
  if (left && r.chance(0.2)) return [...start, someText(r), { d: r.from(1, Math.min(left, 3)) }];
  return [...start, someText(r)];
}

/** An edit of a rich-text document, not empty, that cuts no surrogate pair. */
export function richEdit(r, data) {
  const cuts = cutsOf(data.ops);
  const from = r.below(cuts.length);
  const edit = new Delta().retain(cuts[from]);
  const to = Math.min(from + r.from(1, 5), cuts.length - 1);
  const span = cuts[to] - cuts[from];
  if (span && r.chance(0.3)) return edit.delete(span);
  if (span && r.chance(0.4)) return edit.retain(span, r.pick(FORMATS));
  const what = r.chance(0.15) ? r.pick(EMBEDS) : someText(r);
  return edit.insert(what, r.chance(0.3) ? r.pick(FORMATS.slice(0, 3)) : undefined);
}

const FORMATS = [{ bold: true }, { color: '#f00', italic: true }, { header: 2 }, { bold: null }, { color: null }];
const EMBEDS = [{ image: 'a.png' }, { formula: 'e=mc^2' }];

/** The positions in UTF-16 units at which a document may be cut. */
function cutsOf(components) {
  const cuts = [0];
  let at = 0;
  for (const { insert } of components) {
    for (const part of typeof insert === 'string' ? insert : [' ']) cuts.push((at += part.length));
  }
  return cuts;
}
