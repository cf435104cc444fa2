import "quill/dist/quill.core.css";
import "quill-cursors/css";
import "./styles/base.css";
import "./styles/editor.css";
import "./styles/list.css";
import { showEditor } from "./pages/editor";
import { showList } from "./pages/list";

const app = document.querySelector<HTMLElement>("#app")!;
const id = /^\/d\/([^/]+)\/?$/.exec(location.pathname)?.[1];
if (id === undefined) showList(app);
else showEditor(app, decoded(id), new URLSearchParams(location.search).has("new"));

/** An address may be wrong in any way; then the server says so. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
