/**
 * Attributes of the document and of the editor.
 *
 * The editor draws the attributes of a fixed list, with checked values. All others are foreign: comment marks, cells of
 * tables, links of other schemes, line formats on text. The editor carries them without drawing them, under a name with a
 * prefix and as JSON, so that typing, cutting, undo and copying keep them. `sanitiseAttributes` and `restoreAttributes`
 * translate in the two directions.
 */

import type { AttributeMap } from 'quill-delta';

/** What carries the attributes: Quill draws an attribute either on text and embeds, or on the newline that ends a line. */
export type Place = 'text' | 'line' | 'image' | 'embed';

interface Known {
  places: readonly Place[];
  /** The value as Quill reports it after it has drawn it; undefined if the value must not be drawn. */
  draw(value: unknown): unknown;
}

const INLINE: Place[] = ['text', 'image', 'embed'];
const LINE: Place[] = ['line'];
const IMAGE: Place[] = ['image'];

const oneOf =
  (...allowed: unknown[]) =>
  (value: unknown) =>
    allowed.includes(value) ? value : undefined;

const KNOWN = new Map<string, Known>([
  ['bold', { places: INLINE, draw: oneOf(true) }],
  ['italic', { places: INLINE, draw: oneOf(true) }],
  ['underline', { places: INLINE, draw: oneOf(true) }],
  ['strike', { places: INLINE, draw: oneOf(true) }],
  ['code', { places: INLINE, draw: oneOf(true) }],
  ['script', { places: INLINE, draw: oneOf('sub', 'super') }],
  ['size', { places: INLINE, draw: oneOf('small', 'large', 'huge') }],
  ['font', { places: INLINE, draw: oneOf('serif', 'monospace') }],
  ['color', { places: INLINE, draw: drawColor }],
  ['background', { places: INLINE, draw: drawColor }],
  ['link', { places: INLINE, draw: (value) => safeLink(value) ?? undefined }],
  ['blockquote', { places: LINE, draw: oneOf(true) }],
  ['header', { places: LINE, draw: oneOf(1, 2, 3, 4, 5, 6) }],
  ['list', { places: LINE, draw: oneOf('ordered', 'bullet', 'checked', 'unchecked') }],
  ['indent', { places: LINE, draw: oneOf(1, 2, 3, 4, 5, 6, 7, 8) }],
  ['align', { places: LINE, draw: oneOf('center', 'right', 'justify') }],
  ['direction', { places: LINE, draw: oneOf('rtl') }],
  // The language of a code block is kept and not drawn.
  ['code-block', { places: LINE, draw: (value) => (value === true || isShort(value, 40) ? true : undefined) }],
  ['alt', { places: IMAGE, draw: (value) => (isShort(value, 1000) ? value : undefined) }],
  ['width', { places: IMAGE, draw: drawPixels }],
  ['height', { places: IMAGE, draw: drawPixels }],
]);

/** The names that Quill has a format for. */
export const FORMAT_NAMES = [...KNOWN].filter(([, { places }]) => places !== IMAGE).map(([name]) => name);

/** The formats that a command may take from text or from a line; what describes a picture is not among them. */
export function formatsAt(place: Place): string[] {
  return [...KNOWN].filter(([, { places }]) => places !== IMAGE && places.includes(place)).map(([name]) => name);
}

/** Line formats that exclude each other. Of several, a line has the first in this list. */
export const LINE_KINDS = ['code-block', 'list', 'header', 'blockquote'];

export function isImageFormat(name: string): boolean {
  return KNOWN.get(name)?.places === IMAGE;
}

const FOREIGN_TEXT = 'foreign:';
const FOREIGN_LINE = 'foreign-line:';

export function foreignName(name: string, place: Place): string {
  return (place === 'line' ? FOREIGN_LINE : FOREIGN_TEXT) + name;
}

/** The document's name of a foreign attribute of the editor; null if the name is no foreign one. */
export function documentName(name: string): string | null {
  const prefix = [FOREIGN_TEXT, FOREIGN_LINE].find((each) => name.startsWith(each));
  return prefix === undefined ? null : name.slice(prefix.length);
}

export function isLineName(name: string): boolean {
  return name.startsWith(FOREIGN_LINE);
}

/** Attributes of the document at one place as the editor carries them. */
export function sanitiseAttributes(attributes: unknown, place: Place): AttributeMap {
  const sanitised: AttributeMap = {};
  if (typeof attributes !== 'object' || attributes === null) return sanitised;
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    const known = KNOWN.get(name);
    const drawn = known?.places.includes(place) ? known.draw(value) : undefined;
    if (drawn !== undefined) sanitised[name] = drawn;
    // What is drawn in another form than it is written in is kept beside it.
    if (drawn !== value) sanitised[foreignName(name, place)] = JSON.stringify(value);
  }
  return sanitised;
}

/** Attributes of the editor, of text or of a change, as the document has them. */
export function restoreAttributes(attributes: AttributeMap): AttributeMap {
  const document: AttributeMap = {};
  for (const [name, value] of Object.entries(attributes)) if (documentName(name) === null) document[name] = value;
  for (const [foreign, json] of Object.entries(attributes)) {
    const name = documentName(foreign);
    if (name === null) continue;
    const value = typeof json === 'string' ? (JSON.parse(json) as unknown) : null;
    const drawn = document[name];
    // A drawn value that is not the form of the kept one was set after it.
    const isSetAnew =
      drawn !== undefined && drawn !== null && (value === null || KNOWN.get(name)?.draw(value) !== drawn);
    if (!isSetAnew) document[name] = value;
  }
  return document;
}

/** The address if it may be a link here, else null. */
export function safeLink(value: unknown): string | null {
  return checkedUrl(value, ['http:', 'https:', 'mailto:']);
}

export function checkedUrl(value: unknown, protocols: string[]): string | null {
  if (typeof value !== 'string' || value.length > 4000) return null;
  try {
    return protocols.includes(new URL(value).protocol) ? value : null;
  } catch {
    return null;
  }
}

function isShort(value: unknown, lengthMax: number): boolean {
  return typeof value === 'string' && value !== '' && value.length <= lengthMax;
}

function drawPixels(value: unknown): string | undefined {
  return /^\d{1,4}(px)?$/.test(String(value)) ? String(value) : undefined;
}

const COLOR = /^(#[0-9a-f]{3,8}|[a-z]{3,24}|(rgb|hsl)a?\([0-9.,%\s/]{1,40}\))$/i;
const COLORS_MAX = 1000;
const drawnColors = new Map<string, string>();
const probe = document.createElement('span');

/** The browser writes colours in a form of its own, and Quill turns its rgb into hex. */
function drawColor(value: unknown): string | undefined {
  if (typeof value !== 'string' || !COLOR.test(value)) return undefined;
  let drawn = drawnColors.get(value);
  if (drawn === undefined) {
    probe.style.color = '';
    probe.style.color = value;
    drawn = hexOf(probe.style.color);
    if (drawnColors.size >= COLORS_MAX) drawnColors.clear();
    drawnColors.set(value, drawn);
  }
  return drawn === '' ? undefined : drawn;
}

function hexOf(color: string): string {
  const parts = /^rgb\((\d+), (\d+), (\d+)\)$/.exec(color);
  return parts === null
    ? color
    : `#${parts
        .slice(1)
        .map((part) => Number(part).toString(16).padStart(2, '0'))
        .join('')}`;
}
