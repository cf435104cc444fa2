/**
 * What of a document may become live on this page.
 *
 * A document is written by everybody who has its address, with any client. `veil` turns a Delta from outside into one
 * that Quill may draw: known attributes with checked values, images with checked addresses, and an inert placeholder for
 * every other embed. It keeps all lengths, so positions mean the same on both sides. `unveil` is the way back: what the
 * user undoes around a placeholder goes out as the embed it stood for.
 */

import Delta, { type AttributeMap, type Op } from "quill-delta";

/** The kind of the placeholder blot; its value is the embed that it hides. */
export const OPAQUE = "opaque";

type Check = (value: unknown) => boolean;

const flag: Check = (value) => value === true;
const oneOf = (...allowed: unknown[]): Check => (value) => allowed.includes(value);
const color: Check = (value) =>
  typeof value === "string" && /^(#[0-9a-f]{3,8}|[a-z]{3,24}|(rgb|hsl)a?\([0-9.,%\s/]{1,40}\))$/i.test(value);
const shortText: Check = (value) => typeof value === "string" && value.length <= 1000;
const pixels: Check = (value) => /^\d{1,4}(px)?$/.test(String(value));

const ATTRIBUTES = new Map<string, Check>([
  ["bold", flag],
  ["italic", flag],
  ["underline", flag],
  ["strike", flag],
  ["code", flag],
  ["blockquote", flag],
  ["script", oneOf("sub", "super")],
  ["size", oneOf("small", "large", "huge")],
  ["font", oneOf("serif", "monospace")],
  ["color", color],
  ["background", color],
  ["link", (value) => safeLink(value) !== null],
  ["header", oneOf(1, 2, 3, 4, 5, 6)],
  ["list", oneOf("ordered", "bullet", "checked", "unchecked")],
  ["indent", oneOf(1, 2, 3, 4, 5, 6, 7, 8)],
  ["align", oneOf("center", "right", "justify")],
  ["direction", oneOf("rtl")],
  ["code-block", (value) => value === true || (typeof value === "string" && value.length <= 40)],
  ["alt", shortText],
  ["width", pixels],
  ["height", pixels],
]);

/** Every format and embed that Quill is given here. Formulas and videos are left out on purpose. */
export const FORMATS = [...ATTRIBUTES.keys()].filter((name) => !["alt", "width", "height"].includes(name)).concat("image", OPAQUE);

export function veil(delta: Delta): Delta {
  return new Delta(delta.ops.map(veilOp).filter((op) => op !== null));
}

export function unveil(delta: Delta): Delta {
  return new Delta(
    delta.ops.map((op) =>
      typeof op.insert === "object" && OPAQUE in op.insert ? { ...op, insert: hidden(op.insert[OPAQUE]) } : op,
    ),
  );
}

/** Pasted content keeps its text and loses every embed that is not an image we show. */
export function cleanPaste(delta: Delta): Delta {
  return veil(delta)
    .filter((op) => !(typeof op.insert === "object" && OPAQUE in op.insert) && !isTooLarge(op))
    .reduce((clean, op) => clean.push(op), new Delta());
}

/** Pictures that are pasted or dropped become part of the text, so they have to be small. */
export const IMAGE_BYTES_MAX = 256 * 1024;

/** Whether an op inserts a picture that is too large to be a part of the text. */
export function isTooLarge({ insert }: Op): boolean {
  const image = typeof insert === "object" ? insert.image : undefined;
  // Four characters of base64 hold three bytes.
  return typeof image === "string" && image.startsWith("data:") && image.length > (IMAGE_BYTES_MAX * 4) / 3 + 100;
}

/** The address if it may be a link here, completed by `https://` if the user left that out, else null. */
export function safeLink(value: unknown): string | null {
  return checkedUrl(value, ["http:", "https:", "mailto:"]);
}

export function safeImage(value: unknown): string | null {
  if (typeof value !== "string") return null;
  if (/^data:image\/(png|jpeg|gif|webp);base64,[a-z0-9+/=\s]+$/i.test(value)) return value;
  return checkedUrl(value, ["https:"]);
}

function checkedUrl(value: unknown, protocols: string[]): string | null {
  if (typeof value !== "string" || value.length > 4000) return null;
  try {
    return protocols.includes(new URL(value).protocol) ? value : null;
  } catch {
    return null;
  }
}

function veilOp(op: Op): Op | null {
  const attributes = veilAttributes(op.attributes, op.insert !== undefined);
  if (typeof op.insert === "string") {
    if (op.insert === "") return null;
    // Quill makes one character of CR LF; a space in place of the CR keeps the length.
    return { insert: op.insert.replaceAll("\r\n", " \n"), ...attributes };
  }
  if (op.insert !== undefined) return { insert: veilEmbed(op.insert), ...attributes };
  if (typeof op.retain === "number") return { retain: op.retain, ...attributes };
  // An embed edit: nothing here can be edited inside, but it still spans one character.
  if (op.retain !== undefined) return { retain: 1 };
  return typeof op.delete === "number" ? { delete: op.delete } : null;
}

function veilEmbed(embed: unknown): Record<string, unknown> {
  if (typeof embed === "object" && embed !== null) {
    const keys = Object.keys(embed);
    const image = keys.length === 1 && keys[0] === "image" ? safeImage((embed as { image: unknown }).image) : null;
    if (image !== null) return { image };
  }
  return { [OPAQUE]: JSON.stringify(embed) };
}

function hidden(value: unknown): Record<string, unknown> {
  return JSON.parse(String(value)) as Record<string, unknown>;
}

/** On text an attribute that is not allowed is left out; on a retain it takes away what was there. */
function veilAttributes(attributes: unknown, isInsert: boolean): { attributes?: AttributeMap } {
  if (typeof attributes !== "object" || attributes === null) return {};
  const checked: AttributeMap = {};
  for (const [name, value] of Object.entries(attributes)) {
    const check = ATTRIBUTES.get(name);
    if (!check) continue;
    if (value !== null && check(value)) checked[name] = value;
    else if (!isInsert) checked[name] = null;
  }
  return Object.keys(checked).length > 0 ? { attributes: checked } : {};
}
