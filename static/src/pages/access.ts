/** Pages before sign-in: the first account, signing in, making an account, opening a share link. */

import { brand } from '../components/brand';
import { homeAddress, pageAddress } from '../lib/address';
import { ApiError, type Me, openLink, register, resetPassword, signIn } from '../lib/api';
import { fill, h } from '../lib/dom';

export function showAccess(app: HTMLElement, me: Me): void {
  const invitation = new URLSearchParams(location.hash.slice(1)).get('invitation');
  if (me.mode === 'tokens') showElsewhere(app);
  else if (me.needs_setup) showRegister(app, me, 'setup');
  else if (invitation !== null) showRegister(app, me, 'invited', invitation);
  else showSignIn(app, me);
}

function showElsewhere(app: HTMLElement): void {
  frame(app, 'Sign in elsewhere', h('p', {}, 'You come in by way of the application that this editor belongs to.'));
}

function showSignIn(app: HTMLElement, me: Me): void {
  const login = field('login', 'Name to sign in by', {
    autocomplete: 'username',
    autocapitalize: 'none',
    spellcheck: 'false',
  });
  const password = field('password', 'Password', { type: 'password', autocomplete: 'current-password' });
  const other =
    me.registration === 'open' &&
    h('button', { type: 'button', class: 'quiet', onclick: () => showRegister(app, me, 'open') }, 'Make an account');
  frame(
    app,
    'Sign in',
    form([login, password], 'Sign in', () => signIn(value(login), value(password, false)), come, other),
    me.registration === 'invite' && h('p', { class: 'hint' }, 'No account? Whoever runs this server can invite you.'),
  );
}

function showRegister(app: HTMLElement, me: Me, why: 'setup' | 'invited' | 'open', invitation?: string): void {
  const name = field('name', 'Your name, as others see it', { autocomplete: 'name', maxlength: 100 });
  const login = field('login', 'Name to sign in by (an e-mail address, for example)', {
    autocomplete: 'username',
    autocapitalize: 'none',
    spellcheck: 'false',
    maxlength: 100,
  });
  const password = field('password', `Password, at least ${me.password_chars_min} characters`, {
    type: 'password',
    autocomplete: 'new-password',
    minlength: me.password_chars_min,
  });
  const code =
    why === 'setup' && me.needs_setup_code
      ? field('setup-code', "Set-up code, which the server's log shows", {
          autocomplete: 'off',
          autocapitalize: 'none',
          spellcheck: 'false',
        })
      : null;
  const make = (): Promise<void> =>
    register({
      name: value(name),
      login: value(login),
      password: value(password, false),
      invitation: code ? value(code) : invitation,
    });
  const back =
    why === 'open' && h('button', { type: 'button', class: 'quiet', onclick: () => showSignIn(app, me) }, 'I have one');
  frame(
    app,
    why === 'setup' ? 'Welcome: make the first account' : 'Make an account',
    why === 'setup' && h('p', {}, 'This desk is new. The first account owns everything here and invites the others.'),
    form([name, login, password, ...(code ? [code] : [])], 'Make the account', make, come, back),
  );
}

/**
 * Asks whether an address may sign in as another user than the present one. Resolves with whether it may. Without the question a
 * link of an attacker could make a user write under the attacker's account.
 */
export function askToSwitch(app: HTMLElement, kept: string, offered: string): Promise<boolean> {
  return new Promise((resolve) => {
    const stay = h(
      'button',
      { type: 'button', class: 'primary', onclick: () => resolve(false) },
      `Stay signed in as ${kept}`,
    );
    const go = h('button', { type: 'button', class: 'quiet', onclick: () => resolve(true) }, `Sign in as ${offered}`);
    frame(
      app,
      `You are signed in as ${kept}`,
      h(
        'p',
        {},
        `The address that you have opened signs in as ${offered} instead. What you do then is done as ${offered}. If you did not expect this, stay.`,
      ),
      h('div', { class: 'form-actions' }, go, stay),
    );
    stay.focus();
  });
}

/** Sets a new password with a reset code. */
export function showReset(app: HTMLElement, me: Me, code: string): void {
  const password = field('password', `New password, at least ${me.password_chars_min} characters`, {
    type: 'password',
    autocomplete: 'new-password',
    minlength: me.password_chars_min,
  });
  const other =
    me.user &&
    h(
      'p',
      {},
      `You are signed in as ${me.user.name}. The new password is for the account that this address was made for, and you are then signed in to that account.`,
    );
  frame(
    app,
    'Choose a new password',
    other ?? false,
    form([password], 'Change password', () => resetPassword(code, value(password, false)), come),
  );
}

/** Opens a share link, asking for its password where it has one. */
export function showShareLink(app: HTMLElement, me: Me, secret: string): void {
  const open = async (password?: string): Promise<void> => {
    const { collection, id } = await openLink(secret, password);
    location.replace(pageAddress(collection, id, me.collection));
  };
  open().catch((error: unknown) => {
    if (error instanceof ApiError && error.code === 'unfit') {
      const password = field('link-password', 'Password of the link', { type: 'password', autocomplete: 'off' });
      return frame(
        app,
        'This link wants a password',
        form(
          [password],
          'Open',
          () => open(value(password, false)),
          () => {},
        ),
      );
    }
    const words =
      error instanceof ApiError && error.status !== 403
        ? error.message
        : 'The link does not open anything, or no longer.';
    frame(
      app,
      'This link does not work',
      h('p', {}, words),
      h(
        'div',
        { class: 'form-actions' },
        h('a', { class: 'button quiet', href: homeAddress() }, me.user ? 'All documents' : 'Sign in'),
      ),
    );
  });
}

/** Signed in: loads the page again with the new identity. */
function come(): void {
  history.replaceState(null, '', location.pathname + location.search);
  location.reload();
}

function frame(app: HTMLElement, title: string, ...content: (Node | string | false)[]): void {
  document.title = `${title} · Copydesk`;
  fill(
    app,
    h(
      'header',
      { class: 'bar list-bar' },
      h('div', { class: 'bar-top' }, brand('Copydesk'), h('span', { class: 'wordmark' }, 'Copydesk')),
    ),
    h('main', { class: 'access' }, h('h1', {}, title), ...content),
  );
  app.dataset.access = 'ready';
  app.querySelector<HTMLInputElement>('main input')?.focus();
}

function field(id: string, label: string, props: Record<string, string | number>): HTMLLabelElement {
  return h(
    'label',
    { class: 'field', for: id },
    label,
    h('input', { type: 'text', id, name: id, required: true, ...props }),
  );
}

function value(label: HTMLLabelElement, trims = true): string {
  const text = label.querySelector('input')!.value;
  return trims ? text.trim() : text;
}

/** A form that says what went wrong, and does one thing at a time. */
function form(
  fields: HTMLElement[],
  label: string,
  submit: () => Promise<void>,
  done: () => void,
  other: HTMLElement | false = false,
): HTMLElement {
  const error = h('p', { class: 'field-error', role: 'alert' });
  const button = h('button', { type: 'submit', class: 'primary' }, label);
  const element = h(
    'form',
    { class: 'access-form' },
    ...fields,
    error,
    h('div', { class: 'form-actions' }, other, button),
  );
  element.addEventListener('submit', (event) => {
    event.preventDefault();
    button.disabled = true;
    error.textContent = '';
    submit()
      .then(done, (reason: unknown) => {
        error.textContent = sentence(reason);
      })
      .finally(() => (button.disabled = false));
  });
  return element;
}

export function sentence(reason: unknown): string {
  const words = reason instanceof ApiError ? reason.message : 'something went wrong';
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}${words.endsWith('.') ? '' : '.'}`;
}
