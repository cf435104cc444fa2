/** Content of a document on the clipboard, in a format of this editor. Any page may have written what is read here. */

import Delta, { type AttributeMap, type Op } from 'quill-delta';

export const DELTA_TYPE = 'application/vnd.copydesk.delta+json';

/** Longer content is pasted as html: in UTF-16 units of JSON. */
const JSON_LENGTH_MAX = 32 * 1024 * 1024;

export interface Copied {
  /** As the document has it, not as the editor draws it. */
  content: Delta;
  /** The attributes of the line that the content ends in, if the content is made of lines. */
  line: AttributeMap | null;
}

export function writeDelta({ content, line }: Copied): string {
  return JSON.stringify({ version: 1, ops: content.ops, line });
}

/** Null if there is none, or none that can be read. */
export function readDelta(json: string | undefined): Copied | null {
  if (!json || json.length > JSON_LENGTH_MAX) return null;
  try {
    const { version, ops, line } = JSON.parse(json) as { version?: unknown; ops?: unknown; line?: unknown };
    if (version !== 1 || !Array.isArray(ops) || !ops.every(isInsert)) return null;
    return { content: new Delta(ops), line: isObject(line) ? line : null };
  } catch {
    return null;
  }
}

function isInsert(op: unknown): op is Op {
  if (!isObject(op) || op.retain !== undefined || op.delete !== undefined) return false;
  const isContent =
    (typeof op.insert === 'string' && op.insert !== '') || isObject(op.insert) || typeof op.insert === 'number';
  return isContent && (op.attributes === undefined || isObject(op.attributes));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
