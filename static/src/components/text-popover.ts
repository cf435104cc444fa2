/** A popover about a place in the text, which gives the selection back when it closes. */

import type Quill from 'quill/core';
import type { Range } from 'quill/core';
import { TrackedRange } from '../editor/tracked-range';
import { popover } from './popover';

export interface TextPopover {
  element: HTMLElement;
  /** Opens the dialog. `target` is the part of the text that it is about. */
  open(target: Range, anchor: DOMRect): void;
  /** Closes the dialog, puts the selection back, and returns the target, moved past all edits since the opening. */
  close(): Range;
}

/**
 * The browser moves the selection into a focused field and, when the dialog closes, puts it at the beginning of the text.
 * So the selection is kept here, moved past the edits of others, and set before the next key can arrive.
 */
export function textPopover(quill: Quill, label: string, content: Node[]): TextPopover {
  let target: TrackedRange | null = null;
  let selection: TrackedRange | null = null;

  const release = (): Range | undefined => {
    target?.release();
    const range = selection?.release();
    selection = null;
    return range;
  };
  const restore = (): void => {
    const range = release();
    if (range) quill.setSelection(range.index, range.length, 'user');
  };
  const panel = popover(label, content, (hadFocus) => (hadFocus ? restore() : void release()));
  const close = (): Range => {
    panel.close();
    restore();
    return target!.current;
  };
  panel.element.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    // The browser's own Escape tells of it too late: the next key would arrive before the selection is back.
    event.preventDefault();
    close();
  });
  return {
    element: panel.element,
    open(range, anchor) {
      release();
      target = new TrackedRange(quill, range);
      selection = new TrackedRange(quill, quill.getSelection(true));
      panel.open(anchor);
    },
    close,
  };
}
