/** One sentence at the lower edge of the window that goes by itself, and is read out. */

import { h } from '../lib/dom';

/** Long enough to be read twice. */
const SHOWN_MS = 4_000;

export function toast(): { element: HTMLElement; show(text: string): void } {
  const element = h('div', { class: 'toast', role: 'status', 'aria-live': 'polite' });
  let timer = 0;
  return {
    element,
    show(text) {
      element.textContent = text;
      clearTimeout(timer);
      timer = window.setTimeout(() => (element.textContent = ''), SHOWN_MS);
    },
  };
}
