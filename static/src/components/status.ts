/** Says whether the user's work is safe: what the server has acknowledged, and nothing rosier. */

import { fill, h } from '../lib/dom';
import type { Store } from '../lib/store';
import { type EditorState, type Status, statusOf } from '../pages/state';
import { type IconName, icon } from './icons';

const ICONS: Record<Status, IconName> = {
  connecting: 'sync',
  loading: 'sync',
  saving: 'sync',
  saved: 'cloud',
  stuck: 'offline',
  offline: 'offline',
  failed: 'offline',
};

/** A screen reader announces lasting states only, not every keystroke. */
const SETTLED_MS = 1_200;

export function statusLine(store: Store<EditorState>): HTMLElement {
  const shown = h('span', { class: 'status-shown' });
  const spoken = h('span', { class: 'sr-only', role: 'status', 'aria-live': 'polite' });
  const element = h('div', { class: 'status' }, shown, spoken);
  let timer = 0;
  store.watch(
    ['document', 'link', 'wasOnline', 'waiting', 'isStuck', 'isSlowed', 'lostAccess', 'wantedTitle'],
    (state) => {
      const shownStatus = statusOf(state);
      element.hidden = shownStatus === null;
      clearTimeout(timer);
      if (shownStatus === null) {
        delete element.dataset.status;
        spoken.textContent = '';
        return;
      }
      const { status, text } = shownStatus;
      element.dataset.status = status;
      element.title = text;
      fill(shown, icon(ICONS[status]), h('span', {}, text));
      timer = window.setTimeout(() => (spoken.textContent = text), SETTLED_MS);
    },
  );
  return element;
}
