/** Asks for a picture's address and for what it shows. */

import type Quill from 'quill/core';
import { pictures, remoteHost } from '../editor/pictures';
import { safeImage } from '../editor/sanitise';
import { h } from '../lib/dom';
import { boundsOf } from './link-form';
import { textPopover } from './text-popover';

export function imageForm(quill: Quill): { open(): void } {
  const address = h('input', {
    type: 'text',
    inputmode: 'url',
    id: 'image-address',
    autocomplete: 'off',
    spellcheck: 'false',
    placeholder: 'https://',
  });
  const alt = h('input', { type: 'text', id: 'image-alt', autocomplete: 'off', maxlength: 500 });
  const error = h('p', { class: 'field-error', role: 'alert' });
  const form = h(
    'form',
    { class: 'small-form', novalidate: true },
    h('label', { class: 'field', for: 'image-address' }, 'Address of the picture', address),
    h('label', { class: 'field', for: 'image-alt' }, 'What it shows, for those who cannot see it', alt),
    error,
    h('div', { class: 'form-actions' }, h('button', { type: 'submit', class: 'primary' }, 'Insert')),
  );
  const panel = textPopover(quill, 'Picture', [form]);

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const image = safeImage(address.value.trim());
    if (image === null) {
      error.textContent = 'The address must start with https://.';
      address.setAttribute('aria-invalid', 'true');
      address.focus();
      return;
    }
    const range = panel.close();
    const index = range.index + range.length;
    // To insert a picture by its address is to agree to load it.
    pictures.allow([remoteHost(image)].filter((host) => host !== null));
    quill.insertEmbed(index, 'image', image, 'user');
    if (alt.value.trim() !== '') quill.formatText(index, 1, 'alt', alt.value.trim(), 'user');
    quill.setSelection(index + 1, 0, 'user');
  });

  return {
    open() {
      const range = quill.getSelection(true);
      form.reset();
      error.textContent = '';
      address.removeAttribute('aria-invalid');
      panel.open(range, boundsOf(quill, range));
      address.focus();
    },
  };
}
