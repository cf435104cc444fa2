/** What the user can do to the text: one list for the toolbar, its tooltips and the keyboard. */

import type Quill from 'quill/core';
import type { IconName } from '../components/icons';
import { clearFormats } from './clear';

export interface Command {
  name: string;
  label: string;
  icon: IconName;
  /** As `event.code` with its modifiers, see `keysOf`. */
  keys?: string;
  /** Whether the text at the cursor has it; undefined for commands that have no state. */
  isOn?(formats: Formats): boolean;
  run(quill: Quill, formats: Formats): void;
}

export type Formats = Readonly<Record<string, unknown>>;

function toggle(
  name: string,
  label: string,
  icon: IconName,
  keys: string,
  format = name,
  value: unknown = true,
): Command {
  const isOn = (formats: Formats): boolean => {
    const current = formats[format];
    // A task that is done is still a task.
    return value === 'unchecked' ? current === 'checked' || current === 'unchecked' : current === value;
  };
  return {
    name,
    label,
    icon,
    keys,
    isOn,
    run: (quill, formats) => quill.format(format, isOn(formats) ? false : value, 'user'),
  };
}

function alignment(name: string, label: string, icon: IconName, keys: string, value: string | false): Command {
  return {
    name,
    label,
    icon,
    keys,
    isOn: (formats) => (formats.align ?? false) === value,
    run: (quill) => quill.format('align', value, 'user'),
  };
}

export const UNDO: Command = {
  name: 'undo',
  label: 'Undo',
  icon: 'undo',
  keys: 'Mod+KeyZ',
  run: (quill) => quill.history.undo(),
};
export const REDO: Command = {
  name: 'redo',
  label: 'Redo',
  icon: 'redo',
  keys: 'Mod+Shift+KeyZ',
  run: (quill) => quill.history.redo(),
};

export const INLINE: Command[] = [
  toggle('bold', 'Bold', 'bold', 'Mod+KeyB'),
  toggle('italic', 'Italic', 'italic', 'Mod+KeyI'),
  toggle('underline', 'Underline', 'underline', 'Mod+KeyU'),
  toggle('strike', 'Strikethrough', 'strike', 'Alt+Shift+Digit5'),
  toggle('code', 'Inline code', 'code', 'Mod+KeyE'),
];

export const LISTS: Command[] = [
  toggle('bullet', 'Bulleted list', 'bullets', 'Mod+Shift+Digit8', 'list', 'bullet'),
  toggle('ordered', 'Numbered list', 'numbers', 'Mod+Shift+Digit7', 'list', 'ordered'),
  toggle('check', 'Checklist', 'checklist', 'Mod+Shift+Digit9', 'list', 'unchecked'),
];

export const BLOCKS: Command[] = [
  toggle('blockquote', 'Quote', 'quote', 'Mod+Alt+KeyQ'),
  toggle('code-block', 'Code block', 'codeblock', 'Mod+Alt+KeyC'),
];

export const ALIGNMENTS: Command[] = [
  alignment('align-left', 'Align left', 'alignLeft', 'Mod+Shift+KeyL', false),
  alignment('align-center', 'Align centre', 'alignCenter', 'Mod+Shift+KeyE', 'center'),
  alignment('align-right', 'Align right', 'alignRight', 'Mod+Shift+KeyR', 'right'),
  alignment('align-justify', 'Justify', 'alignJustify', 'Mod+Shift+KeyJ', 'justify'),
];

export const CLEAR: Command = {
  name: 'clear',
  label: 'Clear formatting',
  icon: 'clear',
  keys: 'Mod+Backslash',
  run: (quill) => clearFormats(quill, quill.getSelection(true)),
};

export const HEADINGS = [
  { level: 0, label: 'Normal text', keys: 'Mod+Alt+Digit0' },
  { level: 1, label: 'Heading 1', keys: 'Mod+Alt+Digit1' },
  { level: 2, label: 'Heading 2', keys: 'Mod+Alt+Digit2' },
  { level: 3, label: 'Heading 3', keys: 'Mod+Alt+Digit3' },
] as const;

export function setHeading(quill: Quill, level: number): void {
  quill.format('header', level === 0 ? false : level, 'user');
}

/** The pressed keys in the form that `keys` is written in. By place on the keyboard, so Shift+8 is no riddle. */
export function keysOf(event: KeyboardEvent): string {
  const parts = [];
  if (isMac ? event.metaKey : event.ctrlKey) parts.push('Mod');
  if (event.altKey) parts.push('Alt');
  if (event.shiftKey) parts.push('Shift');
  // Letters by what they say, so that shortcuts follow the user's layout.
  const isLetter = /^[a-z]$/i.test(event.key);
  parts.push(isLetter ? `Key${event.key.toUpperCase()}` : event.code);
  return parts.join('+');
}

/** "Ctrl+Shift+8", or "⌘⇧8" on a Mac. */
export function shown(keys: string): string {
  const parts = keys
    .replace(/Key|Digit/g, '')
    .replace('Backslash', '\\')
    .replace('Slash', '/')
    .split('+');
  if (!isMac) return parts.map((part) => (part === 'Mod' ? 'Ctrl' : part)).join('+');
  return parts.map((part) => ({ Mod: '⌘', Alt: '⌥', Shift: '⇧' })[part] ?? part).join('');
}

const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
