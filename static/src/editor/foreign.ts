/** Lets Quill carry attributes that it does not draw, see `attributes.ts`. */

import Inline from 'quill/blots/inline';
import type Quill from 'quill/core';
import { Parchment } from 'quill/core';
import { documentName, isLineName, LINE_KINDS } from './attributes';

const { Scope } = Parchment;

/** Makes a format of each foreign attribute when Quill first meets its name. Must run before the editor gets content. */
export function acceptForeign(quill: Quill): void {
  const { registry } = quill.scroll as unknown as { registry: Parchment.Registry };
  const query = registry.query.bind(registry);
  registry.query = (what, scope) => {
    const found = query(what, scope);
    if (found !== null || typeof what !== 'string' || documentName(what) === null || query(what) !== null) return found;
    const level = isLineName(what) ? Scope.BLOCK_ATTRIBUTE : Scope.INLINE_ATTRIBUTE;
    registry.register(new Parchment.Attributor(what, `data-foreign-${hex(what)}`, { scope: level }));
    return query(what, scope);
  };
  replaceTwins(quill);
}

/** A format that the user sets replaces the foreign value of the same name, in the same change. */
function replaceTwins({ editor }: Quill): void {
  const formatText = editor.formatText.bind(editor);
  editor.formatText = (index, length, formats = {}) => {
    const present = editor.delta.slice(index, index + length).ops.map((op) => op.attributes ?? {});
    return formatText(index, length, { ...twinsOf(formats, present), ...formats });
  };
  const formatLine = editor.formatLine.bind(editor);
  editor.formatLine = (index, length, formats = {}) => {
    const present = editor.scroll.lines(index, length).map((line) => line.formats() as Record<string, unknown>);
    return formatLine(index, length, { ...twinsOf(formats, present), ...formats });
  };
}

function twinsOf(formats: Record<string, unknown>, present: Record<string, unknown>[]): Record<string, null> {
  const twins: Record<string, null> = {};
  const names = Object.keys(formats);
  // A line becomes of one kind: what it was besides goes.
  if (LINE_KINDS.some((kind) => formats[kind])) names.push(...LINE_KINDS);
  for (const attributes of present) {
    for (const name of Object.keys(attributes)) {
      const known = documentName(name);
      if (known !== null && names.includes(known)) twins[name] = null;
    }
  }
  return twins;
}

/** The only elements that code may have around its text: those that carry foreign attributes and nothing else. */
export class ForeignInCode {
  static [Symbol.hasInstance](blot: unknown): boolean {
    return (
      blot instanceof Inline &&
      blot.statics.blotName === Inline.blotName &&
      Object.keys(blot.formats() ?? {}).every((name) => documentName(name) !== null)
    );
  }
}

/** Attribute names of the DOM have no case and few letters. */
function hex(name: string): string {
  return [...name].map((char) => char.codePointAt(0)!.toString(16)).join('-');
}
