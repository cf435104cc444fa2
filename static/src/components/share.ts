/** The share dialog: roles of users, and links for people without an account. */

import { below, segmentOf } from '../lib/address';
import {
  addLink,
  endLink,
  type Holder,
  type Me,
  type Role,
  readSharing,
  type ShareLink,
  type Sharing,
  setRole,
  transfer,
} from '../lib/api';
import { fill, h } from '../lib/dom';
import type { Store } from '../lib/store';
import { sentence } from '../pages/access';
import type { EditorState } from '../pages/state';
import { confirmed, type Question } from './confirm';
import { icon } from './icons';
import { type Popover, popover } from './popover';

/**
 * The roles that the page gives. The server also knows commenters; until there are comments they may do what viewers may, and
 * are shown as such.
 */
const ROLES: [Role, string][] = [
  ['viewer', 'may read'],
  ['editor', 'may edit'],
];
const LASTS: [string, string][] = [
  ['', 'for ever'],
  ['1', 'for a day'],
  ['7', 'for a week'],
  ['30', 'for a month'],
];

/** Only the owner sees the button. */
export function shareButton(store: Store<EditorState>, id: string, mode: Me['mode']): HTMLElement {
  const button = h(
    'button',
    { type: 'button', class: 'primary share', 'aria-haspopup': 'dialog', 'aria-label': 'Share', title: 'Share' },
    icon('share'),
    h('span', {}, 'Share'),
  );
  const dialog = new Dialog(id, mode);
  button.addEventListener('click', () => dialog.open(button.getBoundingClientRect()));
  store.watch(['role', 'document'], ({ role, document }) => {
    button.hidden = role !== 'owner' || document !== 'ready';
    if (button.hidden) dialog.close();
  });
  return button;
}

class Dialog {
  #error = h('p', { class: 'field-error', role: 'alert' });
  #people = h('ul', { class: 'share-list', 'aria-label': 'People' });
  #links = h('ul', { class: 'share-list', 'aria-label': 'Links' });
  #made = h('div', { class: 'share-made', role: 'status' });
  #panel: Popover;

  constructor(
    private readonly id: string,
    private readonly mode: Me['mode'],
  ) {
    this.#panel = popover('Share this document', [this.#content()]);
  }

  open(anchor: DOMRect): void {
    this.#panel.open(anchor);
    fill(this.#made);
    this.#act(() => Promise.resolve());
  }

  close(): void {
    this.#panel.close();
  }

  #content(): HTMLElement {
    return h(
      'div',
      { class: 'share-dialog' },
      h('h2', {}, 'People'),
      this.#people,
      this.#addForm(),
      h('h2', {}, 'Links'),
      this.#links,
      this.#linkForm(),
      this.#made,
      this.#error,
    );
  }

  #addForm(): HTMLElement {
    const label = this.mode === 'tokens' ? 'Their id in your application' : 'Name they sign in by';
    const who = h('input', {
      type: 'text',
      id: 'share-login',
      required: true,
      autocomplete: 'off',
      autocapitalize: 'none',
      spellcheck: 'false',
    });
    const role = select('share-role', 'Role of the new person', ROLES, 'editor');
    const form = h(
      'form',
      { class: 'share-row' },
      h('label', { class: 'field', for: 'share-login' }, label, who),
      role,
      h('button', { type: 'submit', class: 'quiet' }, 'Add'),
    );
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const named = who.value.trim();
      const whom = this.mode === 'tokens' ? { id: named } : { login: named };
      this.#act(() => setRole(this.id, whom, role.value as Role).then(() => form.reset()));
    });
    return form;
  }

  #linkForm(): HTMLElement {
    const role = select('link-role', 'Who has the link', ROLES, 'viewer');
    const days = select('link-days', 'How long the link lasts', LASTS, '');
    const password = h('input', { type: 'password', id: 'link-password', autocomplete: 'new-password', minlength: 8 });
    const form = h(
      'form',
      { class: 'share-row' },
      h('label', { class: 'field', for: 'link-password' }, 'Password (if you want one)', password),
      role,
      days,
      h('button', { type: 'submit', class: 'quiet' }, 'Make a link'),
    );
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#act(async () => {
        const link = await addLink(this.id, {
          role: role.value as Role,
          days: Number(days.value) || undefined,
          password: password.value || undefined,
        });
        form.reset();
        this.#show(`${below(`d/${segmentOf(this.id)}`)}#share=${link.secret}`);
      });
    });
    return form;
  }

  /** The address is shown this once: the server keeps only a hash of its secret. */
  #show(address: string): void {
    const input = h('input', { type: 'text', id: 'made-link', readonly: true, value: address });
    const copy = h('button', { type: 'button', class: 'primary' }, 'Copy');
    copy.addEventListener('click', () => {
      input.select();
      void (navigator.clipboard as Clipboard | undefined)?.writeText(address).then(
        () => (copy.textContent = 'Copied'),
        () => {},
      );
    });
    fill(
      this.#made,
      h('label', { class: 'field', for: 'made-link' }, 'Send this address; it is shown only now', input),
      copy,
    );
    input.select();
  }

  /** Does something, then shows the present state. */
  #act(deed: () => Promise<unknown>): void {
    this.#error.textContent = '';
    deed()
      .then(() => readSharing(this.id))
      .then(
        (sharing) => this.#draw(sharing),
        (reason: unknown) => (this.#error.textContent = sentence(reason)),
      );
  }

  #ask(question: Question, deed: () => Promise<unknown>): void {
    void confirmed(this.#panel.element, question).then((isAgreed) => {
      if (isAgreed) this.#act(deed);
    });
  }

  /** Drawing replaces the rows, so the focus is put back to where it was, or to the first field if that is gone. */
  #draw({ people, links }: Sharing): void {
    const focused = document.activeElement?.closest<HTMLElement>('[data-key]')?.dataset.key;
    const within = [this.#people, this.#links].some((list) => list.contains(document.activeElement));
    fill(this.#people, ...people.map((holder) => this.#person(holder)));
    fill(this.#links, ...links.map((link) => this.#link(link)));
    this.#links.hidden = links.length === 0;
    if (!within && document.activeElement !== document.body) return;
    const again =
      focused === undefined
        ? null
        : this.#panel.element.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`);
    (again ?? this.#panel.element.querySelector<HTMLElement>('#share-login'))?.focus();
  }

  #person(holder: Holder): HTMLElement {
    const name = holder.name ?? holder.id;
    const label = h(
      'span',
      { class: 'share-who' },
      h('strong', {}, h('bdi', {}, name)),
      holder.login && h('span', {}, holder.login),
    );
    if (holder.role === 'owner') return h('li', {}, label, h('span', { class: 'share-role' }, 'owner'));
    const key = `role ${holder.id}`;
    const role = select('', `Role of ${name}`, ROLES, holder.role === 'commenter' ? 'viewer' : holder.role, key);
    role.addEventListener('change', () => this.#act(() => setRole(this.id, { id: holder.id }, role.value as Role)));
    const remove = button('Remove', `Remove ${name}`, `remove ${holder.id}`, () =>
      this.#ask(
        {
          title: `Remove ${name}?`,
          words: `${name} can no longer open this document, unless a link opens it.`,
          action: 'Remove',
        },
        () => setRole(this.id, { id: holder.id }, null),
      ),
    );
    const give = button('Make owner', `Make owner: ${name}`, `give ${holder.id}`, () =>
      this.#ask(
        {
          title: `Give this document to ${name}?`,
          words: `${name} then decides who may open it, and you may only edit it. Only ${name} can give it back.`,
          action: 'Give it away',
        },
        () => transfer(this.id, holder.id),
      ),
    );
    return h('li', {}, label, role, give, remove);
  }

  #link(link: ShareLink): HTMLElement {
    const role = link.role === 'editor' ? 'may edit' : 'may read';
    const until = link.expires_at === null ? '' : `, until ${new Date(link.expires_at).toLocaleDateString()}`;
    const words = `Who has the link ${role}${link.has_password ? ', with its password' : ''}${until}`;
    const end = button('End', `End the link: ${words}`, `link ${link.id}`, () =>
      this.#ask(
        {
          title: 'End this link?',
          words: 'It opens nothing any more, for everybody to whom it was sent. It cannot be brought back.',
          action: 'End the link',
        },
        () => endLink(this.id, link.id),
      ),
    );
    return h('li', {}, h('span', { class: 'share-who' }, words), end);
  }
}

/** `key` finds the button again when the rows are drawn anew. */
function button(text: string, label: string, key: string, onclick: () => void): HTMLElement {
  return h('button', { type: 'button', class: 'quiet', 'aria-label': label, 'data-key': key, onclick }, text);
}

function select(id: string, label: string, options: [string, string][], chosen: string, key = ''): HTMLSelectElement {
  return h(
    'select',
    { id: id || null, 'aria-label': label, 'data-key': key || null },
    ...options.map(([value, text]) => h('option', { value, selected: value === chosen }, text)),
  );
}
