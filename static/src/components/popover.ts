/**
 * A small dialog that hangs below the button it belongs to. Escape or a click elsewhere closes it. It is never larger than the
 * window: what does not fit is scrolled to.
 */

import { h } from '../lib/dom';

export interface Popover {
  element: HTMLElement;
  open(anchor: DOMRect): void;
  close(): void;
  readonly isOpen: boolean;
}

/** `onClose` is called after the dialog has closed, with whether the focus was in it or nowhere: then it needs a new place. */
export function popover(label: string, content: Node[], onClose: (hadFocus: boolean) => void = () => {}): Popover {
  const element = h('div', { class: 'popover', role: 'dialog', 'aria-label': label, popover: 'auto' }, ...content);
  let isOpen = false;
  let hadFocus = false;
  element.addEventListener('beforetoggle', () => {
    const focused = document.activeElement;
    hadFocus = focused === null || focused === document.body || element.contains(focused);
  });
  element.addEventListener('toggle', (event) => {
    isOpen = (event as ToggleEvent).newState === 'open';
    if (!isOpen) onClose(hadFocus);
  });
  document.body.append(element);
  // What it holds may grow while it is open, and the window may change.
  let place = (): void => {};
  new ResizeObserver(() => isOpen && place()).observe(element);
  addEventListener('resize', () => isOpen && place());
  return {
    element,
    get isOpen() {
      return isOpen;
    },
    open(anchor) {
      element.showPopover();
      place = () => placeBelow(element, anchor);
      place();
    },
    close() {
      if (element.matches(':popover-open')) element.hidePopover();
    },
  };
}

const MARGIN_PX = 8;

function placeBelow(element: HTMLElement, anchor: DOMRect): void {
  const { offsetWidth: width, offsetHeight: height } = element;
  const { clientWidth, clientHeight } = document.documentElement;
  const left = Math.max(MARGIN_PX, Math.min(anchor.left, clientWidth - width - MARGIN_PX));
  const below = anchor.bottom + 6;
  const fits = below + height + MARGIN_PX <= clientHeight;
  element.style.left = `${left}px`;
  element.style.top = `${fits ? below : Math.max(MARGIN_PX, anchor.top - height - 6)}px`;
}
