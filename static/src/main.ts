import "quill/dist/quill.core.css";
import "quill-cursors/css";
import "./styles/base.css";
import "./styles/editor.css";
import "./styles/list.css";
import { openBanner } from "./components/open-banner";
import { readMe } from "./lib/api";
import { showEditor } from "./pages/editor";
import { showList } from "./pages/list";

const app = document.querySelector<HTMLElement>("#app")!;
const id = /^\/d\/([^/]+)\/?$/.exec(location.pathname)?.[1];
if (id === undefined) showList(app);
else showEditor(app, decoded(id), new URLSearchParams(location.search).has("new"));

// Without an answer there is nothing to say; the page says elsewhere that the server is away.
void readMe().then(({ mode }) => mode === "open" && document.body.prepend(openBanner()), () => {});

/** An address may be wrong in any way; then the server says so. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
