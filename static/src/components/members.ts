/** For the owner of the tenant: its accounts and invitations. */

import { homeAddress } from '../lib/address';
import {
  type Account,
  allowReset,
  endInvitation,
  type Invitation,
  listAccounts,
  listInvitations,
  type Me,
  setDisabled,
} from '../lib/api';
import { fill, h } from '../lib/dom';
import { confirmed } from './confirm';

/** `act` shows what went wrong; `host` is the dialog that the list is in. */
export function members(
  me: NonNullable<Me['user']>,
  act: (done: Promise<unknown>) => void,
  host: () => HTMLElement,
): HTMLElement {
  const accounts = h('ul', { class: 'share-list', 'aria-label': 'Accounts' });
  const invitations = h('ul', { class: 'share-list', 'aria-label': 'Invitations' });
  const address = h('input', { type: 'text', id: 'reset-address', readonly: true });
  const addressRow = h(
    'label',
    { class: 'field', for: 'reset-address', hidden: true },
    'For a new password, once and within a day',
    address,
  );

  const draw = async (): Promise<void> => {
    const [{ people }, invited] = await Promise.all([listAccounts(), listInvitations()]);
    const focused = document.activeElement?.closest<HTMLElement>('[data-key]')?.dataset.key;
    fill(accounts, ...people.map(account));
    fill(invitations, ...invited.invitations.map(invitation));
    if (focused === undefined) return;
    (
      details.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`) ?? details.querySelector('summary')
    )?.focus();
  };
  const then = (deed: Promise<unknown>): void => act(deed.then(draw));
  const allow = async (login: string): Promise<void> => {
    // An address that was shown before is for another account, or no longer valid.
    addressRow.hidden = true;
    const { code } = await allowReset(login);
    address.value = `${homeAddress()}#reset=${code}`;
    addressRow.hidden = false;
    address.select();
  };
  const close = async (login: string, name: string): Promise<void> => {
    const words = `${name} is signed out everywhere at once and cannot sign in until you open the account again.`;
    const isAgreed = await confirmed(host(), {
      title: `Close the account of ${name}?`,
      words,
      action: 'Close the account',
    });
    if (isAgreed) then(setDisabled(login, true));
  };
  const end = async (id: string): Promise<void> => {
    const words = 'Its address makes no account any more. It cannot be brought back.';
    if (await confirmed(host(), { title: 'End this invitation?', words, action: 'End it' })) then(endInvitation(id));
  };
  const account = ({ id, login, name, disabled }: Account): HTMLElement => {
    const who = h(
      'span',
      { class: 'share-who' },
      h('strong', {}, h('bdi', {}, name)),
      h('span', {}, disabled ? `${login}, closed` : login),
    );
    if (id === me.id) return h('li', {}, who);
    const reset = button('New password', `New password for ${name}`, `reset ${id}`, () => act(allow(login)));
    const verb = disabled ? 'Open' : 'Close';
    const onclick = (): unknown => (disabled ? then(setDisabled(login, false)) : void close(login, name));
    return h('li', {}, who, reset, button(verb, `${verb} the account of ${name}`, `close ${id}`, onclick));
  };
  const invitation = ({ id, role, expires_at }: Invitation): HTMLElement => {
    const words = `Invitation${role ? ` as ${role} of everything` : ''}, until ${new Date(expires_at).toLocaleDateString()}`;
    return h(
      'li',
      {},
      h('span', { class: 'share-who' }, words),
      button('End', `End: ${words}`, `end ${id}`, () => void end(id)),
    );
  };

  const details = h('details', {}, h('summary', {}, 'Accounts and invitations'), accounts, invitations, addressRow);
  details.addEventListener('toggle', () => details.open && act(draw()));
  return details;
}

/** `key` finds the button again when the rows are drawn anew. */
function button(text: string, label: string, key: string, onclick: () => unknown): HTMLElement {
  return h('button', { type: 'button', class: 'quiet', 'aria-label': label, 'data-key': key, onclick }, text);
}
