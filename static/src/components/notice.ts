/** Bad news, and what can still be done about it. */

import { fill, h } from '../lib/dom';
import type { Store } from '../lib/store';
import type { EditorState } from '../pages/state';
import type { Refusal } from '../sync/binding';
import { icon } from './icons';

export function notice(store: Store<EditorState>): HTMLElement {
  const element = h('div', { class: 'notices' });
  store.watch(['refusal', 'unstored', 'notice'], ({ refusal, unstored, notice: text }) => {
    fill(
      element,
      refusal &&
        bar(
          wordsOf(refusal),
          () => store.set({ refusal: null }),
          refusal.lost === '' ? null : copyButton(refusal.lost),
        ),
      unstored !== null &&
        bar(
          'This page showed text that was not in the document. It now shows what is stored. Paste the lost text where it belongs.',
          () => store.set({ unstored: null }),
          copyButton(unstored),
        ),
      text && bar(text, () => store.set({ notice: null }), null),
    );
  });
  return element;
}

function wordsOf({ reason, lost, isAlone }: Refusal): string {
  if (isAlone)
    return `The server refused a change, and only that change was undone. Everything else that you wrote is kept. ${reason}`;
  if (lost === '') return `The server refused a change, and it was undone. ${reason}`;
  return `The server refused a change. The text that it did not accept is no longer in the document. ${reason}`;
}

function bar(text: string, dismiss: () => void, action: HTMLElement | null): HTMLElement {
  const close = h(
    'button',
    { type: 'button', class: 'icon-button', 'aria-label': 'Dismiss', title: 'Dismiss', onclick: dismiss },
    icon('close'),
  );
  return h('div', { class: 'notice', role: 'alert' }, h('p', {}, text), action, close);
}

function copyButton(lost: string): HTMLElement {
  const button = h('button', { type: 'button', class: 'primary' }, 'Copy lost text');
  button.addEventListener('click', () => {
    // Without permission, or without https: show the text, so that it can be taken by hand.
    const show = (): void =>
      button.replaceWith(h('textarea', { class: 'lost', readonly: true, 'aria-label': 'Lost text' }, lost));
    const clipboard = navigator.clipboard as Clipboard | undefined;
    if (clipboard) clipboard.writeText(lost).then(() => (button.textContent = 'Copied'), show);
    else show();
  });
  return button;
}
