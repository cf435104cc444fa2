import 'quill/dist/quill.core.css';
import './styles/base.css';
import './styles/editor.css';
import './styles/list.css';
import './styles/people.css';
import { openBanner } from './components/open-banner';
import { documentIn } from './lib/address';
import { ApiError, bringToken, type Me, openCollection, readMe, renewSession } from './lib/api';
import { fill } from './lib/dom';
import { askToSwitch, showAccess, showReset, showShareLink } from './pages/access';
import { showEditor } from './pages/editor';
import { showList } from './pages/list';

const app = document.querySelector<HTMLElement>('#app')!;
const id = documentIn(location.pathname);
const RETRY_MS = 1_500;

// A secret that is put into the address of an open page is one for a page that begins anew.
addEventListener('hashchange', () => {
  if (/[#&](token|share|reset|invitation)=/.test(location.hash)) location.reload();
});

void begin();

async function begin(): Promise<void> {
  const { token, share, reset } = brought();
  if (token !== null) await enter(token);
  const me = await known();
  if (me.mode === 'open') document.body.prepend(openBanner());
  if (share !== null && me.mode !== 'open') return showShareLink(app, me, share);
  if (reset !== null && me.mode === 'accounts') return showReset(app, me, reset);
  const elsewhere = new URLSearchParams(location.search).get('in');
  if (elsewhere !== null) openCollection(elsewhere);
  if (me.mode !== 'open' && !me.user && !(me.is_guest && id !== undefined)) return showAccess(app, me);
  if (id === undefined) showList(app, me);
  else showEditor(app, id, new URLSearchParams(location.search).has('new'), me);
}

/** Signs in by a token. One that is refused is as none: then the page says where to sign in. */
async function enter(token: string, replaces = false): Promise<void> {
  try {
    await bringToken(token, replaces);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.code === 'other_session') {
      const [kept, offered] = [error.answer.kept, error.answer.offered].map((name) =>
        typeof name === 'string' ? name : 'another user',
      );
      const mayReplace = await askToSwitch(app, kept!, offered!);
      fill(app);
      delete app.dataset.access;
      return mayReplace ? enter(token, true) : undefined;
    }
    if (error.status !== 0 && error.status !== 429 && error.status < 500) return;
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    return enter(token, replaces);
  }
}

/**
 * The secrets in the address. They are removed from it first, so that neither the screen nor the browser's history shows
 * them.
 */
function brought(): { token: string | null; share: string | null; reset: string | null } {
  const said = new URLSearchParams(location.hash.slice(1));
  const [token, share, reset] = [said.get('token'), said.get('share'), said.get('reset')];
  if (token !== null || share !== null || reset !== null)
    history.replaceState(null, '', location.pathname + location.search);
  return { token, share, reset };
}

/** The user's identity. An access token may have run out while no page was open: then it is renewed first. */
async function known(): Promise<Me> {
  for (;;) {
    try {
      const me = await readMe();
      if (me.mode !== 'accounts' || me.user || me.needs_setup) return me;
      return (await renewed()) ? await readMe() : me;
    } catch {
      app.textContent = 'The server cannot be reached. Trying again…';
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      app.textContent = '';
    }
  }
}

async function renewed(): Promise<boolean> {
  const renew = (): Promise<boolean> =>
    renewSession().then(
      () => true,
      (error) => {
        if (error instanceof ApiError && error.status > 0) return false;
        throw error;
      },
    );
  return navigator.locks ? navigator.locks.request('copydesk.session', renew) : renew();
}
