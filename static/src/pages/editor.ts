/** The page of one document: makes its parts, gives them the store, and passes on what they want. */

import richText from 'rich-text';
import { accountButton } from '../components/account';
import { brand } from '../components/brand';
import { notice } from '../components/notice';
import { people } from '../components/people';
import { type PlainText, plainText } from '../components/plain-text';
import { readOnly } from '../components/read-only';
import { remotePictures } from '../components/remote-pictures';
import { shareButton } from '../components/share';
import { statusLine } from '../components/status';
import { titleField } from '../components/title-field';
import { toolbar } from '../components/toolbar';
import { createEditor } from '../editor/editor';
import { homeAddress, queryWithout } from '../lib/address';
import { type Me, ourCollection, readDocument, renameDocument } from '../lib/api';
import { fill, h, isFocusFree } from '../lib/dom';
import { keepName, loadPerson, personOf } from '../lib/person';
import { Session } from '../lib/session';
import { Store } from '../lib/store';
import { Binding } from '../sync/binding';
import { isUnwritable, ReconnectingConnection } from '../sync/connection';
import { Cursors } from '../sync/cursors';
import { nameKnownVersion } from '../sync/known-version';
import { isPlainText } from '../sync/plain';
import { type Peer, Presence } from '../sync/presence';
import { TitleKeeper } from '../sync/title';
import { RestoredServer } from './restored';
import { type EditorState, mayWrite, mergedRefusal } from './state';
import { resumeUnsent } from './unsent';

/** How long a change may be unacknowledged on an open connection until the page says that nothing is being saved. */
const OLDER =
  'The server has an older version of this document than this tab showed before: the newest changes may be missing.';
const STUCK_MS = 4_000;

export function showEditor(app: HTMLElement, id: string, isNew: boolean, account: Me): void {
  const store = new Store<EditorState>({
    kind: 'rich',
    document: 'loading',
    link: 'connecting',
    wasOnline: false,
    waiting: 0,
    isStuck: false,
    isSlowed: false,
    role: account.mode === 'open' ? 'owner' : undefined,
    isCreating: false,
    lostAccess: null,
    damage: null,
    isSignedOut: false,
    title: '',
    wantedTitle: null,
    replacedTitle: null,
    me: account.user ? personOf(account.user.name) : loadPerson(),
    peers: [],
    formats: {},
    canUndo: false,
    canRedo: false,
    refusal: null,
    unstored: null,
    notice: null,
  });

  const sheet = h('div', { class: 'sheet', id: 'editor' });
  const quill = createEditor(sheet, (text) => store.set({ notice: text }));
  quill.disable();
  const tools = toolbar(quill, store);
  const title = new TitleKeeper(id, store, () => presence.publish(), { read: readDocument, rename: renameDocument });
  const cursors = new Cursors(quill);

  const session = Session.of(account, () => store.set({ isSignedOut: true }));
  let slowed = 0;
  const fresh = (isDoubtful: boolean): Promise<void> => session?.fresh(isDoubtful) ?? Promise.resolve();
  const restored = new RestoredServer(store);
  const server = new ReconnectingConnection(
    (link) => {
      store.set({ link, wasOnline: store.state.wasOnline || link === 'online' });
      if (link === 'online') {
        store.set({ isSignedOut: false });
        title.refresh();
      }
    },
    {
      fresh,
      limited({ c, d, code, message }) {
        if (c !== ourCollection() || d !== id) return;
        store.set(isUnwritable(code) ? { damage: message } : { notice: message });
      },
      slowed(untilMs) {
        store.set({ isSlowed: true });
        clearTimeout(slowed);
        slowed = window.setTimeout(() => store.set({ isSlowed: false }), untilMs - Date.now());
      },
      outdated() {
        text().enable(false);
        restored.reload(doc);
      },
      rights({ c, d, role }) {
        if (c !== ourCollection() || d !== id || account.mode === 'open') return;
        if (role === null && store.state.isCreating) return store.set({ role });
        const couldWrite = store.state.role !== undefined && mayWrite(store.state);
        const had = store.state.document === 'ready';
        const lost = role === null && had ? 'document' : null;
        const readOnly = role !== null && couldWrite && !mayWrite({ ...store.state, role }) ? 'write' : null;
        store.set({ role, lostAccess: lost ?? readOnly, isCreating: false });
      },
    },
  );
  /** Enables or disables the text. As soon as it can be typed into it has the cursor, unless the user is elsewhere. */
  const allowWriting = (state: Readonly<EditorState>): void => {
    const isAllowed = mayWrite(state);
    text().enable(isAllowed);
    if (isAllowed && isFocusFree()) text().focus();
  };
  /** Called whenever the text shows what the document holds. */
  const drawn = (): void => {
    if (store.state.document !== 'ready') {
      store.set({ document: 'ready', kind: isPlainText(doc) ? 'plain' : 'rich' });
      allowWriting(store.state);
      title.refresh();
    }
    cursors.draw();
  };
  const doc = server.connection.get(ourCollection(), id);
  const knownVersion = nameKnownVersion(doc);
  // Each peer's presence listens.
  doc.setMaxListeners(0);
  let stuck = 0;
  const binding = new Binding(doc, quill, {
    waiting(waiting) {
      const isAck = waiting < store.state.waiting;
      store.set({ waiting });
      if (isAck || waiting === 0) {
        clearTimeout(stuck);
        stuck = 0;
        store.set({ isStuck: false });
      }
      if (waiting > 0 && stuck === 0) stuck = window.setTimeout(() => store.set({ isStuck: true }), STUCK_MS);
      if (waiting === 0) title.settled();
    },
    drawn,
    refused(refusal) {
      // Reported once, together with the loss of the document.
      if (store.state.role === null && refusal.lost === '') return;
      store.set({ refusal: mergedRefusal(store.state.refusal, refusal) });
    },
    repaired(lost) {
      store.set({ unstored: lost });
    },
    deleted() {
      text().enable(false);
      store.set({ document: 'deleted' });
    },
  });
  const plain = plainText(
    doc,
    {
      pending: () => binding.pending(),
      drawn,
      lost: (lost) => store.set({ refusal: mergedRefusal(store.state.refusal, { reason: '', lost, isAlone: false }) }),
    },
    (range) => {
      selection = range;
      presence.publish();
    },
  );
  /** What the document is written in: a document of the type text-unicode has no formats. */
  const text = (): Pick<PlainText, 'enable' | 'focus'> => (store.state.kind === 'plain' ? plain : quill);
  const presence = new Presence(
    server.connection,
    doc,
    () => ({ person: store.state.me, range: selection, titleRevision: title.revision }),
    (peers) => store.set({ peers }),
    () => title.announced(),
  );

  let selection: { index: number; length: number } | null = null;
  let frame = 0;
  quill.on('editor-change', (kind: string, ...args: unknown[]) => {
    const source = args.at(-1);
    if (kind === 'text-change' && source !== 'user') return;
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      const range = quill.hasFocus() ? quill.getSelection() : null;
      const { undo, redo } = quill.history.stack;
      store.set({ canUndo: undo.length > 0, canRedo: redo.length > 0 });
      if (!range) return;
      selection = { index: range.index, length: range.length };
      store.set({ formats: quill.getFormat(range) });
      presence.publish();
    });
  });

  store.watch(['peers', 'kind'], ({ peers, kind }) => cursors.show(kind === 'rich' ? peers : []));
  store.watch(['document'], (state) => (app.dataset.document = state.document));
  store.watch(['role', 'isCreating', 'damage'], (state) => {
    if (state.document === 'ready') allowWriting(state);
    app.dataset.role = state.role ?? 'none';
  });

  /** The address to send to others is the one without `?new`. */
  const forgetNew = (): void =>
    history.replaceState(null, '', location.pathname + queryWithout(location.search, 'new') + location.hash);
  const create = (): void => {
    const done = binding.pending();
    store.set({ isCreating: account.mode !== 'open' });
    doc.create([{ insert: '\n' }], richText.type.uri, (error) => {
      done(error);
      if (error) store.set({ isCreating: false });
      if (doc.type) forgetNew();
    });
  };
  const open = (): void =>
    doc.subscribe((error) => {
      if (error && knownVersion.isLost(error)) {
        store.set({ notice: store.state.notice ?? OLDER });
        return open();
      }
      if (error) store.set({ document: 'failed', notice: `This document cannot be opened. ${error.message}` });
      else if (doc.type) forgetNew();
      else if (isNew) create();
      else store.set({ document: 'missing' });
    });
  // What an earlier page left unsent may be what creates the document.
  void resumeUnsent(account, doc, store, {
    fresh,
    pending: () => binding.pending(),
    titled: (wanted, replaced) => title.resume(wanted, replaced),
    kept: () => restored.editsAreKept(),
  }).then(open);

  // Without this a closed tab would take the unacknowledged work with it.
  addEventListener('beforeunload', (event) => {
    if (restored.isReloading) return;
    if (store.state.waiting > 0 || store.state.wantedTitle !== null) event.preventDefault();
  });

  const bar = h(
    'header',
    { class: 'bar' },
    h(
      'div',
      { class: 'bar-top' },
      brand('All documents'),
      h(
        'div',
        { class: 'bar-names' },
        titleField(
          store,
          (wanted, shown) => title.rename(wanted, shown),
          () => text().focus(),
        ),
        statusLine(store),
      ),
      account.user && shareButton(store, id, account.mode),
      people(
        store,
        (name) => {
          store.set({ me: keepName(name) });
          presence.publish();
        },
        (peer: Peer) => (store.state.kind === 'plain' ? plain : cursors).visit(peer),
        account.user && accountButton(account.user, account.password_chars_min),
      ),
    ),
    tools.element,
    notice(store),
    readOnly(store),
    remotePictures(quill),
  );
  const notFound = h('div', { class: 'not-found', hidden: true });
  store.watch(['document', 'lostAccess', 'role', 'damage', 'kind'], (state) => {
    const isLost = state.lostAccess === 'document';
    const isNotFound = isLost || state.document === 'missing' || state.document === 'deleted';
    notFound.hidden = !isNotFound;
    const hasText = !isNotFound && state.document !== 'failed';
    sheet.hidden = !hasText || state.kind === 'plain';
    plain.element.hidden = !hasText || state.kind === 'rich';
    tools.element.hidden = sheet.hidden || !mayWrite(state);
    if (!isNotFound) return;
    if (isLost || account.mode !== 'open') return fill(notFound, ...elsewhere(state, isLost));
    fill(
      notFound,
      h('h1', {}, state.document === 'missing' ? 'There is no document here yet' : 'This document was deleted'),
      h('p', {}, 'Check the address, or begin a document under it.'),
      h(
        'div',
        { class: 'form-actions' },
        h('a', { class: 'button quiet', href: homeAddress() }, 'All documents'),
        h('button', { class: 'primary', type: 'button', onclick: create }, 'Start writing here'),
      ),
    );
  });
  const keys = h(
    'p',
    { class: 'sr-only', id: 'editor-keys' },
    'Press Alt and F10 to reach the toolbar, Escape to come back.',
  );
  fill(app, bar, h('main', { class: 'desk' }, sheet, plain.element, tools.bubble, notFound, keys));
}
/** Shown for a document that does not exist or is not shared with the user; the server does not tell which. */
function elsewhere(state: Readonly<EditorState>, isLost: boolean): HTMLElement[] {
  const [title, words] = isLost
    ? ['You no longer have access to this document', 'Its owner has taken it back. What you wrote before is in it.']
    : state.document === 'deleted'
      ? ['This document was deleted', 'Its owner has ended it.']
      : [
          'There is no document here for you',
          'Check the address, or ask whoever sent it to share the document with you.',
        ];
  return [
    h('h1', {}, title!),
    h('p', {}, words!),
    h('div', { class: 'form-actions' }, h('a', { class: 'button quiet', href: homeAddress() }, 'All documents')),
  ];
}
