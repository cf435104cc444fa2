/** One's own portrait as the way to one's account: password, invitations, signing out. */

import { homeAddress } from '../lib/address';
import { changePassword, invite, type Me, signOut } from '../lib/api';
import { h } from '../lib/dom';
import { colorOf, initials } from '../lib/person';
import { sentence } from '../pages/access';
import { confirmed } from './confirm';
import { members } from './members';
import { type Popover, popover } from './popover';

type User = NonNullable<Me['user']>;

export function accountButton(user: User, passwordCharsMin: number): HTMLElement {
  const title = `You are ${user.name}. Your account`;
  const button = h('button', {
    type: 'button',
    class: 'avatar own',
    title,
    'aria-label': title,
    'aria-haspopup': 'dialog',
    'data-initials': initials(user.name),
  });
  button.style.setProperty('--color', colorOf(user.name));
  const panel: Popover = popover('Your account', [content(user, passwordCharsMin, () => panel.element)]);
  button.addEventListener('click', () => panel.open(button.getBoundingClientRect()));
  return button;
}

/** `host` is the dialog that the content is in. */
function content(user: User, passwordCharsMin: number, host: () => HTMLElement): HTMLElement {
  const error = h('p', { class: 'field-error', role: 'alert' });
  const word = h('p', { class: 'hint', role: 'status' });
  const act = (done: Promise<unknown>): void => {
    error.textContent = word.textContent = '';
    done.catch((reason: unknown) => (error.textContent = sentence(reason)));
  };
  const leave = (everywhere: boolean): void => act(signOut(everywhere).then(() => location.assign(homeAddress())));
  const leaveEverywhere = async (): Promise<void> => {
    const words = 'Every browser and device on which you are signed in, this one too, asks for your password again.';
    if (await confirmed(host(), { title: 'Sign out everywhere?', words, action: 'Sign out everywhere' })) leave(true);
  };
  const who = h('p', { class: 'account-name' }, h('strong', {}, user.name), user.login && h('span', {}, user.login));
  if (!user.may_sign_out) return h('div', { class: 'small-form' }, who);

  const present = h('input', {
    type: 'password',
    id: 'present-password',
    autocomplete: 'current-password',
    required: true,
  });
  const next = h('input', {
    type: 'password',
    id: 'next-password',
    autocomplete: 'new-password',
    required: true,
    minlength: passwordCharsMin,
  });
  const form = h(
    'form',
    { class: 'small-form' },
    h('label', { class: 'field', for: 'present-password' }, 'Present password', present),
    h('label', { class: 'field', for: 'next-password' }, 'New password', next),
    h('div', { class: 'form-actions' }, h('button', { type: 'submit', class: 'primary' }, 'Change password')),
  );
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    act(
      changePassword(present.value, next.value).then(() => {
        form.reset();
        word.textContent = 'The password is changed, and your other sessions are ended.';
      }),
    );
  });
  const address = h('input', { type: 'text', id: 'invitation', readonly: true });
  const addressRow = h(
    'label',
    { class: 'field', for: 'invitation', hidden: true },
    'Send this address; it is good once, for a week',
    address,
  );
  const inviteButton = h(
    'button',
    { type: 'button', class: 'quiet', onclick: () => act(invited()) },
    'Invite somebody',
  );
  const invited = async (): Promise<void> => {
    // An address that was shown before may have been used.
    addressRow.hidden = true;
    const { code } = await invite();
    address.value = `${homeAddress()}#invitation=${code}`;
    addressRow.hidden = false;
    address.select();
  };
  return h(
    'div',
    { class: 'small-form' },
    who,
    h('details', {}, h('summary', {}, 'Change password'), form),
    user.role === 'owner' && inviteButton,
    user.role === 'owner' && addressRow,
    user.role === 'owner' && members(user, act, host),
    error,
    word,
    h('button', { type: 'button', class: 'quiet', onclick: () => leave(false) }, 'Sign out'),
    h('button', { type: 'button', class: 'quiet', onclick: () => void leaveEverywhere() }, 'Sign out everywhere'),
  );
}
