/** The people in the document. The user's own portrait comes first and opens the form for the name. */

import { fill, h } from '../lib/dom';
import { initials, NAME_LENGTH_MAX, type Person } from '../lib/person';
import type { Store } from '../lib/store';
import type { EditorState } from '../pages/state';
import type { Peer } from '../sync/presence';
import { popover } from './popover';

/** Portraits, besides one that counts the rest. On a narrow page the title needs the room. */
const SHOWN_MAX = { wide: 5, narrow: 2 };
const narrow = matchMedia('(max-width: 640px)');

/** For a signed-in user `account` is the button; the name is then the account's. */
export function people(
  store: Store<EditorState>,
  rename: (name: string) => void,
  visit: (peer: Peer) => void,
  account: HTMLElement | null,
): HTMLElement {
  const peers = h('ul', { class: 'peers', 'aria-label': 'Also here' });
  const own = h('button', { type: 'button', class: 'avatar own', 'aria-haspopup': 'dialog' });
  const form = nameForm(store, rename);
  own.addEventListener('click', () => form.open(own.getBoundingClientRect()));

  store.watch(['me'], ({ me }) => {
    paint(own, me);
    own.title = `You are ${me.name}. Change your name`;
    own.setAttribute('aria-label', own.title);
  });
  let drawn = '';
  const draw = (state: Readonly<EditorState>): void => {
    // A portrait takes no more room than the number in its place.
    const most = narrow.matches ? SHOWN_MAX.narrow : SHOWN_MAX.wide;
    const shown = state.peers.slice(0, state.peers.length === most + 1 ? most + 1 : most);
    const rest = state.peers.slice(shown.length);
    // Every edit moves the peers; few moves change what is shown here.
    const next = JSON.stringify([
      shown.map(({ id, name, color, range }) => [id, name, color, range === null]),
      rest.map(({ name }) => name),
    ]);
    if (next === drawn) return;
    drawn = next;
    const visitNow = ({ id }: Peer): void => {
      const peer = store.state.peers.find((each) => each.id === id);
      if (peer) visit(peer);
    };
    fill(
      peers,
      ...shown.map((peer) => h('li', {}, portrait(peer, visitNow))),
      rest.length > 0 &&
        h(
          'li',
          {},
          h('span', { class: 'avatar rest', title: rest.map(({ name }) => name).join(', ') }, `+${rest.length}`),
        ),
    );
    peers.hidden = state.peers.length === 0;
  };
  store.watch(['peers'], draw);
  narrow.addEventListener('change', () => draw(store.state));
  return h('div', { class: 'people' }, peers, account ?? own);
}

function portrait(peer: Peer, visit: (peer: Peer) => void): HTMLElement {
  const title = peer.range ? `${peer.name}: go to where they write` : `${peer.name} is reading`;
  const button = h('button', {
    type: 'button',
    class: 'avatar',
    title,
    'aria-label': title,
    onclick: () => visit(peer),
  });
  paint(button, peer);
  return button;
}

function paint(element: HTMLElement, person: Person): void {
  // Drawn by the style sheet, so that a screen reader does not read the initials before the name.
  element.dataset.initials = initials(person.name);
  element.style.setProperty('--color', person.color);
}

function nameForm(store: Store<EditorState>, rename: (name: string) => void) {
  const input = h('input', { type: 'text', id: 'own-name', maxlength: NAME_LENGTH_MAX, autocomplete: 'nickname' });
  const form = h(
    'form',
    { class: 'small-form' },
    h('label', { class: 'field', for: 'own-name' }, 'Your name, as others see it', input),
    h('div', { class: 'form-actions' }, h('button', { type: 'submit', class: 'primary' }, 'Save')),
  );
  const panel = popover('Your name', [form]);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    rename(input.value);
    panel.close();
  });
  return {
    open(anchor: DOMRect): void {
      input.value = store.state.me.name;
      panel.open(anchor);
      input.select();
    },
  };
}
