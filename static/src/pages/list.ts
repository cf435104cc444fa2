/** All documents, newest edit first: find one, open one, name one, begin one. */

import { accountButton } from '../components/account';
import { brand } from '../components/brand';
import { icon } from '../components/icons';
import { below, pageAddress } from '../lib/address';
import {
  ApiError,
  cleanTitle,
  type DocumentSummary,
  homeCollection,
  listDocuments,
  type Me,
  ourCollection,
  presentTitle,
  renameDocument,
  renamedMeanwhile,
  TITLE_LENGTH_MAX,
  UNTITLED,
} from '../lib/api';
import { fill, h } from '../lib/dom';
import { randomId } from '../lib/ids';
import { Session } from '../lib/session';
import { Store } from '../lib/store';
import { ago } from '../lib/time';

interface ListState {
  query: string;
  documents: DocumentSummary[] | null;
  next: string | null;
  error: string | null;
  renaming: string | null;
}

/** How others come to a document, by how people sign in. */
const INVITE: Record<Me['mode'], string> = {
  open: 'send its address to those who should write with you',
  accounts: 'press “Share” in it to let others in: its address alone opens nothing for them',
  tokens: 'press “Share” in it to let others in: its address alone opens nothing for them',
};

const SEARCH_PAUSE_MS = 180;
const PAGE_LENGTH = 50;
const PAGE_LENGTH_MAX = 200;
const MINUTE_MS = 60_000;
/** How many more requests fill one page of a search. Each looks at some 10,000 documents. */
const TURNS_MAX = 10;

export function showList(app: HTMLElement, me: Me): void {
  const store = new Store<ListState>({ query: '', documents: null, next: null, error: null, renaming: null });
  document.title = 'Documents · Copydesk';
  Session.of(me, () => location.reload());

  /** Only the newest question's answer counts. */
  let asked = 0;
  const load = async (after?: string, limit = PAGE_LENGTH): Promise<void> => {
    const question = (asked += 1);
    try {
      const q = store.state.query.trim();
      let page = await listDocuments({ q, after, limit });
      // The page of a search may be short, or empty, although there is more.
      for (
        let turn = 0;
        turn < TURNS_MAX && page.next && page.documents.length < limit && question === asked;
        turn += 1
      ) {
        const rest = await listDocuments({ q, after: page.next, limit: limit - page.documents.length });
        page = { documents: [...page.documents, ...rest.documents], next: rest.next };
      }
      if (question !== asked) return;
      const known = after ? (store.state.documents ?? []) : [];
      store.set({ documents: [...known, ...page.documents], next: page.next, error: null });
    } catch (error) {
      if (question === asked) store.set({ error: messageOf(error) });
    }
  };
  /** Loads as many rows as are shown, so that the scroll position is kept. */
  const reload = (): Promise<void> => {
    const shown = store.state.documents?.length ?? 0;
    return load(undefined, Math.min(PAGE_LENGTH_MAX, Math.max(PAGE_LENGTH, shown)));
  };
  const rename = async (summary: DocumentSummary, title: string): Promise<void> => {
    store.set({ renaming: null });
    if (title === '' || title === summary.title) return;
    try {
      const renamed = await renameDocument(summary.id, title, summary.title);
      store.set({
        documents: (store.state.documents ?? []).map((each) => (each.id === renamed.id ? renamed : each)),
        error: null,
      });
    } catch (error) {
      const present = presentTitle(error);
      if (present === null) return store.set({ error: messageOf(error) });
      const documents = store.state.documents ?? [];
      store.set({
        documents: documents.map((each) => (each.id === summary.id ? { ...each, title: present } : each)),
        error: renamedMeanwhile(present, title),
      });
    }
  };

  const rows = h('ul', { class: 'rows', 'aria-label': 'Documents' });
  const empty = h('div', { class: 'empty' });
  const more = h(
    'button',
    { type: 'button', class: 'quiet more', onclick: () => void load(store.state.next ?? undefined) },
    'Show more',
  );
  const error = h('div', { class: 'notices' });
  const count = h('p', { class: 'sr-only', role: 'status' });

  store.watch(['documents', 'renaming'], ({ documents, renaming, query }) => {
    const focus = focusIn(rows);
    fill(
      rows,
      ...(documents ?? []).map((each) => row(each, each.id === renaming, (id) => store.set({ renaming: id }), rename)),
    );
    rows.hidden = !documents?.length;
    rows.querySelector<HTMLInputElement>('input')?.select();
    if (focus) rows.querySelector<HTMLElement>(focus)?.focus();
    empty.hidden = documents === null || documents.length > 0;
    if (!empty.hidden) fill(empty, ...(query.trim() ? nothingFound(query) : invitation(me.mode)));
    if (documents) count.textContent = documents.length === 1 ? '1 document' : `${documents.length} documents`;
    app.dataset.list = documents === null ? 'loading' : 'ready';
  });
  store.watch(['next'], ({ next }) => (more.hidden = next === null));
  store.watch(['error'], ({ error: text }) => {
    const again = h('button', { type: 'button', class: 'primary', onclick: () => void reload() }, 'Try again');
    fill(error, text && h('div', { class: 'notice', role: 'alert' }, h('p', {}, text), again));
  });

  fill(
    app,
    h(
      'header',
      { class: 'bar list-bar' },
      h(
        'div',
        { class: 'bar-top' },
        brand('Copydesk'),
        h('span', { class: 'wordmark' }, 'Copydesk'),
        searchBox(store, load),
        newButton('New document'),
        me.user && accountButton(me.user, me.password_chars_min),
      ),
    ),
    h('main', { class: 'list' }, h('h1', {}, 'Documents'), error, count, rows, empty, more),
  );

  void load();
  setInterval(() => {
    for (const time of rows.querySelectorAll('time')) time.textContent = edited(Date.parse(time.dateTime));
  }, MINUTE_MS);
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden && store.state.renaming === null) void reload();
  });
  addEventListener('pageshow', (event) => {
    if (event.persisted) void reload();
  });
}

/** Where the focus goes when the rows are drawn anew. From a field that is gone, to the button that opened it. */
function focusIn(rows: HTMLElement): string | null {
  const focused = document.activeElement;
  const id = rows.contains(focused) ? focused?.closest<HTMLElement>('.row')?.dataset.id : undefined;
  return id === undefined ? null : `[data-id="${CSS.escape(id)}"] ${focused!.matches('a') ? 'a' : 'button'}`;
}

function searchBox(store: Store<ListState>, load: () => Promise<void>): HTMLElement {
  const input = h('input', {
    type: 'search',
    id: 'search',
    placeholder: 'Search titles',
    autocomplete: 'off',
    'aria-label': 'Search documents',
  });
  let timer = 0;
  input.addEventListener('input', () => {
    store.set({ query: input.value });
    clearTimeout(timer);
    timer = window.setTimeout(() => void load(), SEARCH_PAUSE_MS);
  });
  return h('div', { class: 'search', role: 'search' }, icon('search'), input);
}

function newButton(label: string): HTMLElement {
  const button = h('button', { type: 'button', class: 'primary new' }, icon('plus'), h('span', {}, label));
  button.setAttribute('aria-label', label);
  button.addEventListener('click', () =>
    location.assign(pageAddress(ourCollection(), randomId(), homeCollection(), true)),
  );
  return button;
}

function row(
  summary: DocumentSummary,
  isRenaming: boolean,
  startRenaming: (id: string | null) => void,
  rename: (summary: DocumentSummary, title: string) => Promise<void>,
): HTMLElement {
  const title = summary.title || UNTITLED;
  const time = h(
    'time',
    { datetime: new Date(summary.updated_at).toISOString(), title: new Date(summary.updated_at).toLocaleString() },
    edited(summary.updated_at),
  );
  if (isRenaming) {
    const input = h('input', {
      type: 'text',
      class: 'row-input',
      value: summary.title,
      maxlength: TITLE_LENGTH_MAX,
      'aria-label': `New title of ${title}`,
    });
    let isDone = false;
    const done = (keep: boolean): void => {
      if (isDone) return;
      isDone = true;
      void rename(summary, keep ? cleanTitle(input.value) : '');
    };
    input.addEventListener('blur', () => done(true));
    input.addEventListener('keydown', (event) => {
      if (event.isComposing || (event.key !== 'Enter' && event.key !== 'Escape')) return;
      // The focus moves to the button before the key has done its work: unprevented, Enter would press it.
      event.preventDefault();
      done(event.key === 'Enter');
    });
    return h('li', { class: 'row', 'data-id': summary.id }, icon('page'), h('div', { class: 'row-text' }, input, time));
  }
  return h(
    'li',
    { class: 'row', 'data-id': summary.id },
    icon('page'),
    h(
      'a',
      { class: 'row-text', href: pageAddress(summary.collection, summary.id, homeCollection()) },
      h('span', { class: 'row-title' }, title),
      time,
    ),
    h(
      'button',
      {
        type: 'button',
        class: 'icon-button',
        'aria-label': `Rename ${title}`,
        title: 'Rename',
        onclick: () => startRenaming(summary.id),
      },
      icon('pencil'),
    ),
  );
}

function invitation(mode: Me['mode']): Node[] {
  const picture = h('img', { src: below('empty.svg'), alt: '', width: 220, height: 150 });
  return [
    picture,
    h('h2', {}, 'A clean desk'),
    h('p', {}, `Begin a document, and ${INVITE[mode]}. Everybody sees every word at once.`),
    newButton('Start your first document'),
  ];
}

function nothingFound(query: string): Node[] {
  return [h('h2', {}, 'Nothing found'), h('p', {}, `No title contains “${query.trim()}”.`)];
}

function edited(timeMs: number): string {
  return `edited ${ago(timeMs)}`;
}

function messageOf(error: unknown): string {
  return error instanceof ApiError ? error.message : 'Something went wrong.';
}
