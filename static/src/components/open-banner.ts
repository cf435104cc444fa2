/** Says that this server lets everybody in. */

import { h } from '../lib/dom';

export function openBanner(): HTMLElement {
  return h(
    'aside',
    { class: 'open-banner', 'aria-label': 'Open mode' },
    'Open mode: everybody who reaches this server can read and change every document.',
  );
}
