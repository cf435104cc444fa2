/** The small form behind Ctrl+K: makes a link of the selection, changes one, or takes it away. */

import type Quill from 'quill/core';
import type { Range } from 'quill/core';
import { stretchAt } from '../editor/ranges';
import { safeLink } from '../editor/sanitise';
import { h } from '../lib/dom';
import { textPopover } from './text-popover';

export interface LinkForm {
  open(): void;
}

export function linkForm(quill: Quill): LinkForm {
  const address = h('input', {
    type: 'text',
    inputmode: 'url',
    id: 'link-address',
    autocomplete: 'off',
    spellcheck: 'false',
    placeholder: 'https://',
  });
  const text = h('input', { type: 'text', id: 'link-text', autocomplete: 'off' });
  const textRow = h('label', { class: 'field', for: 'link-text' }, 'Text', text);
  const error = h('p', { class: 'field-error', role: 'alert' });
  const remove = h('button', { type: 'button', class: 'quiet', onclick: () => unlink() }, 'Remove link');
  const form = h(
    'form',
    { class: 'small-form', novalidate: true },
    textRow,
    h('label', { class: 'field', for: 'link-address' }, 'Address', address),
    error,
    h('div', { class: 'form-actions' }, remove, h('button', { type: 'submit', class: 'primary' }, 'Apply')),
  );
  const panel = textPopover(quill, 'Link', [form]);

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const link = complete(address.value.trim());
    if (link === null) {
      error.textContent = 'Only http, https and mailto addresses can be links.';
      address.setAttribute('aria-invalid', 'true');
      address.focus();
      return;
    }
    const range = panel.close();
    if (range.length === 0) {
      const words = text.value.trim() || link;
      quill.insertText(range.index, words, { link }, 'user');
      quill.setSelection(range.index + words.length, 0, 'user');
      quill.format('link', false, 'silent');
    } else {
      quill.formatText(range.index, range.length, 'link', link, 'user');
      quill.setSelection(range.index + range.length, 0, 'user');
    }
  });

  function unlink(): void {
    const range = panel.close();
    quill.formatText(range.index, range.length, 'link', false, 'user');
    quill.setSelection(range.index + range.length, 0, 'user');
  }

  return {
    open() {
      const selection = quill.getSelection(true);
      const current = quill.getFormat(selection).link;
      const range = selection.length > 0 ? selection : stretchAt(quill, selection.index, 'link');
      address.value = typeof current === 'string' ? current : '';
      address.removeAttribute('aria-invalid');
      text.value = '';
      error.textContent = '';
      textRow.hidden = range.length > 0;
      remove.hidden = typeof current !== 'string';
      panel.open(range, boundsOf(quill, range));
      (textRow.hidden ? address : text).focus();
      address.select();
    },
  };
}

/** People write "example.org" and mean a web page, "ann@example.org" and mean a letter. */
function complete(address: string): string | null {
  if (address === '') return null;
  if (/^[^\s@/:]+@[^\s@/:]+\.[^\s@/:]+$/.test(address)) return safeLink(`mailto:${address}`);
  if (!/^[a-z][a-z0-9+.-]*:(?!\d)/i.test(address)) return safeLink(`https://${address}`);
  return safeLink(address);
}

export function boundsOf(quill: Quill, range: Range): DOMRect {
  const bounds = quill.getBounds(range.index, range.length) ?? { left: 0, top: 0, width: 0, height: 0 };
  const box = quill.container.getBoundingClientRect();
  return new DOMRect(box.left + bounds.left, box.top + bounds.top, bounds.width, bounds.height);
}
