/** The text area that shows a plain-text document. */

import type { Doc } from 'sharedb/lib/client/index.js';
import { h } from '../lib/dom';
import { PlainBinding, type PlainBindingEvents } from '../sync/plain';
import type { Peer } from '../sync/presence';

export interface PlainText {
  element: HTMLTextAreaElement;
  enable(isAllowed: boolean): void;
  focus(): void;
  /** Scrolls to about where a peer is. */
  visit(peer: Peer): void;
}

/** `onSelect` is called with the selection, in code points, whenever it has moved. */
export function plainText(
  doc: Doc,
  events: PlainBindingEvents,
  onSelect: (range: { index: number; length: number }) => void,
): PlainText {
  const element = h('textarea', {
    class: 'plain-text',
    'aria-label': 'Document text',
    placeholder: 'Start writing…',
    autocomplete: 'off',
    autocapitalize: 'sentences',
    dir: 'auto',
    readonly: true,
  });
  const binding = new PlainBinding(doc, element, events);
  let frame = 0;
  document.addEventListener('selectionchange', () => {
    if (document.activeElement !== element) return;
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      onSelect(binding.range);
    });
  });
  return {
    element,
    enable: (isAllowed) => (element.readOnly = !isAllowed),
    focus: () => element.focus(),
    visit({ range }) {
      if (range) element.scrollTop = element.scrollHeight * binding.depthOf(range.index) - element.clientHeight / 3;
    },
  };
}
