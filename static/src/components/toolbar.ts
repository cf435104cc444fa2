/**
 * The toolbar. One tab stop; arrow keys move within it (Alt+F10 comes here from the text, Escape goes back).
 */

import type Quill from 'quill/core';
import {
  ALIGNMENTS,
  BLOCKS,
  CLEAR,
  type Command,
  HEADINGS,
  INLINE,
  keysOf,
  LISTS,
  REDO,
  setHeading,
  shown,
  UNDO,
} from '../editor/commands';
import { h } from '../lib/dom';
import type { Store } from '../lib/store';
import { type EditorState, statusOf } from '../pages/state';
import { type IconName, icon } from './icons';
import { imageForm } from './image-form';
import { linkBubble } from './link-bubble';
import { linkForm } from './link-form';
import { palette } from './palette';
import { SAVE_KEYS, SHORTCUTS_KEYS, shortcuts } from './shortcuts';
import type { TextPopover } from './text-popover';
import { toast } from './toast';

export function toolbar(quill: Quill, store: Store<EditorState>): { element: HTMLElement; bubble: HTMLElement } {
  const link = linkForm(quill);
  const image = imageForm(quill);
  const linkCommand: Command = {
    name: 'link',
    label: 'Link',
    icon: 'link',
    keys: 'Mod+KeyK',
    isOn: (formats) => typeof formats.link === 'string',
    run: () => link.open(),
  };
  const imageCommand: Command = { name: 'image', label: 'Picture', icon: 'image', run: () => image.open() };
  const commands = [UNDO, REDO, ...INLINE, linkCommand, imageCommand, ...LISTS, ...BLOCKS, ...ALIGNMENTS, CLEAR];
  const help = shortcuts(quill, commands);
  const helpCommand: Command = {
    name: 'shortcuts',
    label: 'Keyboard shortcuts',
    icon: 'keyboard',
    keys: SHORTCUTS_KEYS,
    run: () => help.open(),
  };

  const run = (command: Command): void => {
    quill.focus({ preventScroll: true });
    // The browser may have the focus in the text and no selection there, as after it removed what was selected.
    if (quill.getSelection() === null) quill.setSelection(quill.selection.savedRange, 'silent');
    command.run(quill, quill.getFormat());
  };
  const button = (command: Command): HTMLElement => {
    const title = command.keys ? `${command.label} (${shown(command.keys)})` : command.label;
    const element = toolButton(command.label, title, command.icon, () => run(command));
    element.dataset.command = command.name;
    if (command.isOn) {
      store.watch(['formats'], ({ formats }) => element.setAttribute('aria-pressed', String(command.isOn!(formats))));
    }
    return element;
  };
  const undo = button(UNDO);
  const redo = button(REDO);
  store.watch(['canUndo', 'canRedo'], ({ canUndo, canRedo }) => {
    undo.setAttribute('aria-disabled', String(!canUndo));
    redo.setAttribute('aria-disabled', String(!canRedo));
  });

  const element = h(
    'div',
    { class: 'toolbar', role: 'toolbar', 'aria-label': 'Formatting', 'aria-controls': 'editor' },
    group('History', undo, redo),
    group('Style', headingSelect(quill, store)),
    group('Text', ...INLINE.map(button), colorButton(quill, store, 'color'), colorButton(quill, store, 'background')),
    group('Insert', button(linkCommand), button(imageCommand)),
    group('Lists', ...LISTS.map(button)),
    group('Blocks', ...BLOCKS.map(button)),
    group('Alignment', ...ALIGNMENTS.map(button)),
    group('Clear', button(CLEAR)),
    group('Help', button(helpCommand)),
  );
  rove(element, () => quill.focus());
  listenToKeys(quill, element, commands, run);
  listenEverywhere(store, () => help.open());
  return { element, bubble: linkBubble(quill, () => link.open()) };
}

function group(label: string, ...children: HTMLElement[]): HTMLElement {
  return h('div', { class: 'tool-group', role: 'group', 'aria-label': label }, ...children);
}

function toolButton(
  label: string,
  title: string,
  name: IconName,
  onclick: (event: MouseEvent) => void,
): HTMLButtonElement {
  const button = h('button', { type: 'button', class: 'tool', 'aria-label': label, title, onclick }, icon(name));
  // A click must not take the focus out of the text: on a phone the keyboard would vanish.
  button.addEventListener('mousedown', (event) => event.preventDefault());
  return button;
}

function headingSelect(quill: Quill, store: Store<EditorState>): HTMLElement {
  const options = HEADINGS.map(({ level, label }) => h('option', { value: level }, label));
  const keys = `${shown(HEADINGS[0].keys)} to ${HEADINGS.length - 1}`;
  const select = h(
    'select',
    { class: 'tool-select', 'aria-label': 'Paragraph style', title: `Paragraph style (${keys})` },
    ...options,
  );
  select.addEventListener('change', () => {
    const level = Number(select.value);
    quill.focus({ preventScroll: true });
    setHeading(quill, level);
  });
  store.watch(['formats'], ({ formats }) => {
    const level = String(formats.header ?? 0);
    select.value = options.some((option) => option.value === level) ? level : '0';
  });
  return select;
}

function colorButton(quill: Quill, store: Store<EditorState>, format: 'color' | 'background'): HTMLElement {
  const isText = format === 'color';
  const label = isText ? 'Text colour' : 'Highlight';
  let panel: TextPopover | undefined;
  const button = toolButton(label, label, isText ? 'textColor' : 'highlight', () => {
    panel ??= palette(quill, format);
    panel.open(quill.getSelection(true), button.getBoundingClientRect());
  });
  button.classList.add('tool-color');
  button.setAttribute('aria-haspopup', 'dialog');
  store.watch(['formats'], ({ formats }) => {
    const value = formats[format];
    button.style.setProperty('--current', typeof value === 'string' ? value : '');
  });
  return button;
}

/** Roving tabindex, as the ARIA pattern of a toolbar has it. */
function rove(element: HTMLElement, leave: () => void): void {
  const items = [...element.querySelectorAll<HTMLElement>('button, select')];
  items.forEach((item, index) => (item.tabIndex = index === 0 ? 0 : -1));
  element.addEventListener('focusin', (event) => {
    for (const item of items) item.tabIndex = item === event.target ? 0 : -1;
  });
  element.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') return leave();
    const at = items.indexOf(event.target as HTMLElement);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    items[(next + items.length) % items.length]?.focus();
  });
}

/** Keys that hold wherever the focus is. The browser's own "save" would keep a file that is not the document. */
function listenEverywhere(store: Store<EditorState>, openHelp: () => void): void {
  const message = toast();
  document.body.append(message.element);
  let isAsked = false;
  /** Says how it is, and says it again when it is saved: a change takes a moment. */
  const tell = (state: Readonly<EditorState>): void => {
    const saving = statusOf(state);
    if (saving === null) return;
    message.show(saving.status === 'saved' ? 'All changes are saved. The document is saved as you type.' : saving.text);
    isAsked = saving.status === 'saving';
  };
  store.watch(['waiting', 'wantedTitle', 'link', 'document'], (state) => {
    if (isAsked && statusOf(state)?.status !== 'saving') tell(state);
  });
  document.addEventListener('keydown', (event) => {
    if (event.isComposing) return;
    const keys = keysOf(event);
    if (keys === SAVE_KEYS) {
      tell(store.state);
    } else if (keys === SHORTCUTS_KEYS) {
      openHelp();
    } else {
      return;
    }
    event.preventDefault();
  });
}

function listenToKeys(quill: Quill, element: HTMLElement, commands: Command[], run: (command: Command) => void): void {
  const byKeys = new Map(commands.map((command) => [command.keys, command]));
  byKeys.set('Mod+KeyY', REDO);
  quill.root.addEventListener(
    'keydown',
    (event) => {
      if (event.isComposing) return;
      const keys = keysOf(event);
      const heading = HEADINGS.find((each) => each.keys === keys);
      const command = byKeys.get(keys);
      if (keys === 'Alt+F10') element.querySelector<HTMLElement>('[tabindex="0"]')?.focus();
      else if (heading) setHeading(quill, heading.level);
      else if (command) run(command);
      else return;
      // Before Quill's own bindings, which know fewer keys and other ones.
      event.preventDefault();
      event.stopImmediatePropagation();
    },
    { capture: true },
  );
}
