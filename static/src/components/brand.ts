import { below, homeAddress } from '../lib/address';
import { h } from '../lib/dom';

export function brand(label: string): HTMLElement {
  return h(
    'a',
    { class: 'brand', href: homeAddress(), 'aria-label': label, title: label },
    h('img', { src: below('favicon.svg'), alt: '', width: 32, height: 32 }),
  );
}
