/** A grid of colours to choose from, for text or for its background. */

import type Quill from 'quill/core';
import { h } from '../lib/dom';
import { type TextPopover, textPopover } from './text-popover';

type Swatch = [name: string, color: string];

const TEXT: Swatch[] = [
  ['Grey', '#5f6368'],
  ['Red', '#c5221f'],
  ['Orange', '#b45309'],
  ['Olive', '#6b6b00'],
  ['Green', '#137333'],
  ['Teal', '#00796b'],
  ['Blue', '#1a5fd0'],
  ['Indigo', '#4353d6'],
  ['Purple', '#8430ce'],
  ['Pink', '#b8127a'],
  ['Brown', '#6d4c41'],
];

const MARKER: Swatch[] = [
  ['Yellow', '#fff2a8'],
  ['Amber', '#ffe0b2'],
  ['Coral', '#ffd5cc'],
  ['Pink', '#fbd3e9'],
  ['Lilac', '#e6d9fb'],
  ['Periwinkle', '#d9e0ff'],
  ['Sky', '#cfe8fc'],
  ['Mint', '#cdf2e4'],
  ['Lime', '#e3f4c0'],
  ['Sand', '#efe6d8'],
  ['Silver', '#e6e8ec'],
];

export function palette(quill: Quill, format: 'color' | 'background'): TextPopover {
  const isText = format === 'color';
  const choose = (color: string | false): void => {
    panel.close();
    quill.format(format, color, 'user');
  };
  const swatches = (isText ? TEXT : MARKER).map(([name, color]) => {
    const swatch = h('button', {
      type: 'button',
      class: 'swatch',
      'aria-label': name,
      title: name,
      onclick: () => choose(color),
    });
    swatch.style.setProperty('--swatch', color);
    return swatch;
  });
  const none = h('button', {
    type: 'button',
    class: 'swatch none',
    title: isText ? 'Default colour' : 'No highlight',
    onclick: () => choose(false),
  });
  none.setAttribute('aria-label', none.title);
  const grid = h('div', { class: 'swatches' }, none, ...swatches);
  grid.addEventListener('keydown', (event) => moveInGrid(grid, event));
  const panel = textPopover(quill, isText ? 'Text colour' : 'Highlight', [grid]);
  panel.element.addEventListener('toggle', () => {
    if (panel.element.matches(':popover-open')) none.focus();
  });
  return panel;
}

const COLUMNS = 6;

function moveInGrid(grid: HTMLElement, event: KeyboardEvent): void {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: COLUMNS, ArrowUp: -COLUMNS }[event.key];
  if (!step) return;
  const items = [...grid.children] as HTMLElement[];
  const next = items[items.indexOf(document.activeElement as HTMLElement) + step];
  if (!next) return;
  event.preventDefault();
  next.focus();
}
