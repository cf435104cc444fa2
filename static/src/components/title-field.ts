/** The document's name, to be changed in place: Enter or leaving the field keeps it, Escape does not. */

import { cleanTitle, TITLE_LENGTH_MAX, UNTITLED } from '../lib/api';
import { h } from '../lib/dom';
import type { Store } from '../lib/store';
import { type EditorState, mayWrite } from '../pages/state';

export function titleField(
  store: Store<EditorState>,
  rename: (title: string, shown: string) => void,
  leave: () => void,
): HTMLElement {
  const input = h('input', {
    class: 'title-field',
    type: 'text',
    'aria-label': 'Document title',
    title: 'Rename',
    placeholder: UNTITLED,
    maxlength: TITLE_LENGTH_MAX,
    autocomplete: 'off',
    spellcheck: 'false',
  });
  const mirror = h('span', { class: 'title-mirror', 'aria-hidden': 'true' });
  const current = (): string => store.state.wantedTitle ?? store.state.title;
  const measure = (): void => {
    mirror.textContent = input.value || UNTITLED;
  };

  input.addEventListener('input', measure);
  /** What the field showed when the user began to change it. */
  let shown = '';
  input.addEventListener('focus', () => {
    shown = current();
    input.select();
  });
  input.addEventListener('blur', () => {
    const title = cleanTitle(input.value);
    if (title !== '' && title !== current()) rename(title, shown);
    input.value = current();
    measure();
  });
  input.addEventListener('keydown', (event) => {
    if (event.isComposing || (event.key !== 'Enter' && event.key !== 'Escape')) return;
    if (event.key === 'Escape') input.value = current();
    // The focus moves before the key has done its work: unprevented, Enter would break a line in the text.
    event.preventDefault();
    leave();
  });
  store.watch(['title', 'wantedTitle', 'document', 'role'], (state) => {
    input.disabled = state.document !== 'ready' || !mayWrite(state);
    if (document.activeElement !== input) input.value = current();
    measure();
    document.title = `${current() || UNTITLED} · Copydesk`;
  });
  return h('div', { class: 'title' }, mirror, input);
}
