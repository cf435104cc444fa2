/** The list of keyboard shortcuts behind Ctrl+/. */

import type Quill from 'quill/core';
import { type Command, HEADINGS, shown } from '../editor/commands';
import { h } from '../lib/dom';
import { textPopover } from './text-popover';

/** Keys that no command of the toolbar has, in the form of `Command.keys`. */
export const SAVE_KEYS = 'Mod+KeyS';
export const SHORTCUTS_KEYS = 'Mod+Slash';

const OTHERS: [label: string, keys: string][] = [
  ['To the toolbar, and back with Escape', 'Alt+F10'],
  ['Indent an item of a list', 'Tab'],
  ['Outdent an item of a list', 'Shift+Tab'],
  ['Paste without formatting', 'Mod+Shift+KeyV'],
  ['Say whether all is saved', SAVE_KEYS],
  ['This list', SHORTCUTS_KEYS],
];

const TYPED: [label: string, typed: string][] = [
  ['Heading 1 to 3', '# to ### and a space'],
  ['Quote', '> and a space'],
  ['Bulleted list', '- and a space'],
  ['Numbered list', '1. and a space'],
  ['Checklist', '[ ] and a space'],
  ['Code block', '``` and Enter'],
];

/** `commands` are those of the toolbar; the ones without keys are left out. */
export function shortcuts(quill: Quill, commands: readonly Command[]): { open(): void } {
  const withKeys = commands
    .filter(({ keys }) => keys !== undefined)
    .map(({ label, keys }) => [label, shown(keys!)] as const);
  const headings = HEADINGS.map(({ label, keys }) => [label, shown(keys)] as const);
  const close = h('button', { type: 'button', class: 'quiet', onclick: () => panel.close() }, 'Close');
  const content = h(
    'div',
    { class: 'shortcuts' },
    h('h2', {}, 'Keyboard shortcuts'),
    rows([...withKeys, ...headings, ...OTHERS.map(([label, keys]) => [label, shown(keys)] as const)]),
    h('h2', {}, 'At the beginning of a line, type'),
    rows(TYPED),
    h('div', { class: 'form-actions' }, close),
  );
  const panel = textPopover(quill, 'Keyboard shortcuts', [content]);
  return {
    open() {
      const { clientWidth, clientHeight } = document.documentElement;
      // Placed as low and as far to the left as it has room: in the middle, whatever its size.
      panel.open(quill.getSelection(true), new DOMRect(clientWidth / 2 - 260, clientHeight, 0, 0));
      close.focus({ preventScroll: true });
    },
  };
}

function rows(entries: readonly (readonly [label: string, keys: string])[]): HTMLElement {
  return h('dl', {}, ...entries.map(([label, keys]) => h('div', {}, h('dt', {}, label), h('dd', {}, keys))));
}
