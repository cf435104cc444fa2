/** A banner that says that this server is in open mode. */

import { h } from '../lib/dom';

export function openBanner(): HTMLElement {
  return h(
    'aside',
    { class: 'open-banner', 'aria-label': 'Open mode' },
    'Open mode: everybody who reaches this server can read and change every document.',
  );
}
