/**
 * Sanitises document content for the editor.
 *
 * Any client may have written a document. `sanitise` turns a Delta from outside into one that
 * Quill may draw: known attributes with checked values, images with checked addresses, and an inert placeholder for every
 * other embed. What is not drawn is carried along (see `attributes.ts`). All lengths stay, so positions mean the same on
 * both sides. `restoreHidden` is the way back, for the user's own changes.
 */

import Delta, { type Op } from 'quill-delta';
import {
  checkedUrl,
  documentName,
  FORMAT_NAMES,
  type Place,
  restoreAttributes,
  sanitiseAttributes,
} from './attributes';

export { safeLink } from './attributes';

/** The kind of the placeholder blot; its value is the embed that it hides, as JSON. */
export const OPAQUE = 'opaque';

/** A carriage return. Quill has no such character, so it is a placeholder of its own that takes no space. */
export const CARRIAGE_RETURN = JSON.stringify('\r');

/** Every format and embed that Quill is given here. Formulas and videos are left out on purpose. */
export const FORMATS = [...FORMAT_NAMES, 'image', OPAQUE];

/** A document, or another Delta of inserts. */
export function sanitise(delta: Delta): Delta {
  const sanitised = new Delta();
  for (const op of delta.ops) if (op.insert !== undefined) for (const part of sanitiseInsert(op)) sanitised.push(part);
  return sanitised;
}

export function restoreHidden(delta: Delta): Delta {
  const document = new Delta();
  for (const op of delta.ops) {
    const insert = typeof op.insert === 'object' && OPAQUE in op.insert ? hidden(op.insert[OPAQUE]) : op.insert;
    const attributes = op.attributes && restoreAttributes(op.attributes);
    document.push({ ...op, ...(insert !== undefined && { insert }), ...(attributes && { attributes }) } as Op);
  }
  return document;
}

/** Content from elsewhere keeps its text, the formats that are drawn, and the images that are. */
export function cleanPaste(delta: Delta): Delta {
  const clean = new Delta();
  for (const op of sanitise(delta).ops) {
    if ((typeof op.insert === 'object' && OPAQUE in op.insert) || isTooLarge(op)) continue;
    const drawn = Object.entries(op.attributes ?? {}).filter(([name]) => documentName(name) === null);
    clean.push(
      drawn.length > 0 ? { insert: op.insert!, attributes: Object.fromEntries(drawn) } : { insert: op.insert! },
    );
  }
  return clean;
}

/** Pictures that are pasted or dropped become part of the text, so they have to be small. */
export const IMAGE_BYTES_MAX = 256 * 1024;

/** Whether an op inserts a picture that is too large to be a part of the text. */
export function isTooLarge({ insert }: Op): boolean {
  const image = typeof insert === 'object' ? insert.image : undefined;
  // Four characters of base64 hold three bytes.
  return typeof image === 'string' && image.startsWith('data:') && image.length > (IMAGE_BYTES_MAX * 4) / 3 + 100;
}

export function safeImage(value: unknown): string | null {
  if (typeof value !== 'string') return null;
  if (/^data:image\/(png|jpeg|gif|webp);base64,[a-z0-9+/=\s]+$/i.test(value)) return value;
  return checkedUrl(value, ['https:']);
}

/** An insert as Quill may draw it, in parts that are each in one place. */
export function sanitiseInsert(op: Op): Op[] {
  if (typeof op.insert === 'string' && !op.attributes && !op.insert.includes('\r')) return [{ insert: op.insert }];
  return partsOf(op).map((part) => {
    const attributes = sanitiseAttributes(part.attributes, placeOf(part));
    const insert = typeof part.insert === 'string' && part.insert !== '\r' ? part.insert : sanitiseEmbed(part.insert);
    return Object.keys(attributes).length > 0 ? { insert, attributes } : { insert };
  });
}

/** Content cut so that each part is in one place: line ends, text, one carriage return, one embed. */
function partsOf(op: Op): Op[] {
  if (typeof op.insert !== 'string') return [op];
  return (op.insert.match(/\r|\n+|[^\r\n]+/g) ?? []).map((insert) => ({ ...op, insert }));
}

function placeOf({ insert }: Op): Place {
  if (typeof insert === 'string') return insert.startsWith('\n') ? 'line' : 'text';
  return 'image' in sanitiseEmbed(insert) ? 'image' : 'embed';
}

function sanitiseEmbed(embed: unknown): Record<string, unknown> {
  if (typeof embed === 'object' && embed !== null) {
    const keys = Object.keys(embed);
    const image = keys.length === 1 && keys[0] === 'image' ? safeImage((embed as { image: unknown }).image) : null;
    if (image !== null) return { image };
  }
  return { [OPAQUE]: JSON.stringify(embed) };
}

function hidden(value: unknown): string | Record<string, unknown> {
  return JSON.parse(String(value)) as string | Record<string, unknown>;
}
