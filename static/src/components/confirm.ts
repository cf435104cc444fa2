/** Asks before an action that cannot be taken back. */

import { h } from '../lib/dom';
import { randomId } from '../lib/ids';

export interface Question {
  title: string;
  /** What follows from it. */
  words: string;
  /** The label of the button that does it. */
  action: string;
}

/**
 * Resolves with whether the user chose the action. The dialog is modal and begins on "Cancel", so that neither Enter nor Escape
 * does it. `host` is the element that it belongs to; a popover stays open while the dialog within it is.
 */
export function confirmed(host: HTMLElement, { title, words, action }: Question): Promise<boolean> {
  const id = randomId(8);
  const cancel = h(
    'button',
    { type: 'button', class: 'quiet', autofocus: true, onclick: () => dialog.close() },
    'Cancel',
  );
  const go = h('button', { type: 'button', class: 'danger', onclick: () => dialog.close('yes') }, action);
  const dialog = h(
    'dialog',
    { class: 'confirm', role: 'alertdialog', 'aria-labelledby': `${id}-title`, 'aria-describedby': `${id}-words` },
    h('h2', { id: `${id}-title` }, title),
    h('p', { id: `${id}-words` }, words),
    h('div', { class: 'form-actions' }, cancel, go),
  );
  host.append(dialog);
  dialog.showModal();
  // When the host closes, the question goes with it: a modal dialog that is not drawn would block the page.
  const withdraw = (event: Event): void => {
    if ((event as ToggleEvent).newState === 'closed') dialog.close();
  };
  host.addEventListener('beforetoggle', withdraw);
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      host.removeEventListener('beforetoggle', withdraw);
      resolve(dialog.returnValue === 'yes');
      dialog.remove();
    });
  });
}
