/** Ranges of the text that stay at their content while the text changes. */

import type Quill from 'quill/core';
import { Range } from 'quill/core';
import type Delta from 'quill-delta';

/** A range that moves with each edit made after it was taken, until it is released. */
export class TrackedRange {
  #range: Range;

  constructor(
    private readonly quill: Quill,
    { index, length }: Range,
  ) {
    this.#range = new Range(index, length);
    quill.on('text-change', this.#follow);
  }

  get current(): Range {
    return this.#range;
  }

  /** Stops to follow edits and returns the range as it is now. */
  release(): Range {
    this.quill.off('text-change', this.#follow);
    return this.#range;
  }

  #follow = (change: Delta, _before: Delta, source: string): void => {
    this.#range = moved(this.#range, change, source);
  };
}

/**
 * Moves the selection that Quill restores on focus past the edits that arrive while the focus is outside of the text.
 * Quill itself moves only a selection that has the focus.
 */
export function trackSavedSelection(quill: Quill): void {
  quill.on('text-change', (change, _before, source) => {
    if (quill.hasFocus()) return;
    quill.selection.savedRange = moved(quill.selection.savedRange, change, source);
  });
}

/** As Quill moves its own selection: text that another user inserts at the cursor is placed after the cursor. */
function moved({ index, length }: Range, change: Delta, source: string): Range {
  const isOthers = source !== 'user';
  const start = change.transformPosition(index, isOthers);
  return new Range(start, change.transformPosition(index + length, isOthers) - start);
}
