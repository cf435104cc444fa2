/**
 * Deletion of words and lines through Quill instead of by the browser. Chromium keeps the style of what it deletes itself
 * and wraps the next typed letter in elements that Quill takes apart wrongly: the line would vanish from the page.
 */

import type Quill from 'quill/core';

const DELETIONS = /^delete(Word|SoftLine|EntireSoftLine|HardLine)/;

/** Has Quill delete what the browser is about to delete, where the browser says what that is. */
export function deleteThroughQuill(quill: Quill): void {
  quill.root.addEventListener('beforeinput', (event) => {
    if (!DELETIONS.test(event.inputType) || event.defaultPrevented || event.isComposing) return;
    const target = event.getTargetRanges()[0];
    const native = target ? quill.selection.normalizeNative(target as never) : null;
    const range = native ? quill.selection.normalizedToRange(native) : null;
    if (!range || range.length === 0) return;
    event.preventDefault();
    quill.deleteText(range.index, range.length, 'user');
    quill.setSelection(range.index, 0, 'silent');
    quill.scrollSelectionIntoView();
  });
}
