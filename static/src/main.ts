import "quill/dist/quill.core.css";
import "quill-cursors/css";
import "./styles/base.css";
import "./styles/editor.css";
import "./styles/list.css";
import "./styles/people.css";
import { openBanner } from "./components/open-banner";
import { ApiError, readMe, renewSession, type Me } from "./lib/api";
import { showAccess, showShareLink } from "./pages/access";
import { showEditor } from "./pages/editor";
import { showList } from "./pages/list";

const app = document.querySelector<HTMLElement>("#app")!;
const id = /^\/d\/([^/]+)\/?$/.exec(location.pathname)?.[1];
const RETRY_MS = 1_500;

void begin();

async function begin(): Promise<void> {
  const me = await known();
  if (me.mode === "open") document.body.prepend(openBanner());
  const share = new URLSearchParams(location.hash.slice(1)).get("share");
  if (share !== null && me.mode !== "open") {
    // Gone from the address before anything else: it is not for whoever looks over a shoulder or into the history.
    history.replaceState(null, "", location.pathname);
    return showShareLink(app, me, share);
  }
  if (me.mode !== "open" && !me.user && !(me.is_guest && id !== undefined)) return showAccess(app, me);
  if (id === undefined) showList(app, me);
  else showEditor(app, decoded(id), new URLSearchParams(location.search).has("new"), me);
}

/** Who we are. An access token may have run out while no page was open: then it is renewed first. */
async function known(): Promise<Me> {
  for (;;) {
    try {
      const me = await readMe();
      if (me.mode !== "accounts" || me.user || me.needs_setup) return me;
      return (await renewed()) ? await readMe() : me;
    } catch {
      app.textContent = "The server cannot be reached. Trying again…";
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      app.textContent = "";
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
  return navigator.locks ? navigator.locks.request("copydesk.session", renew) : renew();
}

/** An address may be wrong in any way; then the server says so. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
