/** Says why there is nothing to write with, and that the session is over. */

import { homeAddress } from '../lib/address';
import { UNTITLED } from '../lib/api';
import { fill, h } from '../lib/dom';
import type { Store } from '../lib/store';
import { type EditorState, mayWrite } from '../pages/state';

export function readOnly(store: Store<EditorState>): HTMLElement {
  // A reader has no field for the title, and plain text has no headings: both find the text by this one.
  const heading = h('h1', { class: 'sr-only' });
  const words = h('div', { role: 'status' });
  const isReading = (state: Readonly<EditorState>): boolean =>
    state.document === 'ready' && state.lostAccess !== 'document' && !mayWrite(state);
  store.watch(['role', 'lostAccess', 'damage', 'document', 'title', 'kind'], (state) => {
    heading.hidden = !isReading(state) && (state.kind === 'rich' || state.document !== 'ready');
    heading.textContent = state.title || UNTITLED;
  });
  store.watch(['role', 'lostAccess', 'damage', 'document', 'isSignedOut'], (state) => {
    const why =
      state.damage !== null
        ? state.damage
        : state.lostAccess === 'write'
          ? 'You may no longer change this document, only read it.'
          : 'You may read this document, and not change it.';
    const again = h('a', { href: homeAddress(), target: '_blank' }, 'Sign in again');
    fill(
      words,
      isReading(state) && h('p', { class: 'read-only' }, why),
      state.isSignedOut &&
        h(
          'p',
          { class: 'read-only' },
          'You are signed out. What is not saved is kept while this page is open. ',
          again,
        ),
    );
  });
  return h('div', {}, heading, words);
}
