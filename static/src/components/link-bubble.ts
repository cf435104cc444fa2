/** Shows where the link under the cursor leads, with a way to go there: a click in an editor only sets the cursor. */

import type Quill from 'quill/core';
import { stretchAt } from '../editor/ranges';
import { safeLink } from '../editor/sanitise';
import { h } from '../lib/dom';
import { icon } from './icons';
import { boundsOf } from './link-form';

export function linkBubble(quill: Quill, edit: () => void): HTMLElement {
  const anchor = h('a', { target: '_blank', rel: 'noopener noreferrer' });
  const change = h(
    'button',
    { type: 'button', class: 'icon-button', 'aria-label': 'Edit link', title: 'Edit link', onclick: edit },
    icon('pencil'),
  );
  const bubble = h('div', { class: 'bubble', hidden: true }, anchor, change);

  const draw = (): void => {
    const range = quill.hasFocus() ? quill.getSelection() : null;
    const link = range?.length === 0 ? safeLink(quill.getFormat(range.index).link) : null;
    bubble.hidden = link === null || range === null;
    if (bubble.hidden) return;
    change.hidden = !quill.isEnabled();
    anchor.href = link!;
    anchor.replaceChildren(icon('external'), link!.replace(/^(https?:\/\/|mailto:)/, ''));
    const bounds = boundsOf(quill, stretchAt(quill, range!.index, 'link'));
    const page = bubble.offsetParent?.getBoundingClientRect() ?? new DOMRect();
    const left = Math.min(bounds.left, document.documentElement.clientWidth - bubble.offsetWidth - 8);
    bubble.style.left = `${Math.max(8, left) - page.left}px`;
    bubble.style.top = `${bounds.bottom + 6 - page.top}px`;
  };
  quill.on('editor-change', () => requestAnimationFrame(draw));
  // A user who may no longer write has no cursor, which no event of the editor tells.
  new MutationObserver(() => requestAnimationFrame(draw)).observe(quill.root, { attributeFilter: ['contenteditable'] });
  return bubble;
}
