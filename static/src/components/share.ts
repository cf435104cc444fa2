/** The share dialog: who may do what, and links for those who have no account. */

import { below, segmentOf } from "../lib/address";
import { addLink, endLink, readSharing, setRole, transfer, type Holder, type Role, type ShareLink, type Sharing } from "../lib/api";
import { fill, h } from "../lib/dom";
import type { Store } from "../lib/store";
import { sentence } from "../pages/access";
import type { EditorState } from "../pages/state";
import { icon } from "./icons";
import { popover } from "./popover";

const ROLES: [Role, string][] = [
  ["viewer", "may read"],
  ["commenter", "may comment"],
  ["editor", "may edit"],
];
const LASTS: [string, string][] = [
  ["", "for ever"],
  ["1", "for a day"],
  ["7", "for a week"],
  ["30", "for a month"],
];

/** The button is there for the owner. */
export function shareButton(store: Store<EditorState>, id: string): HTMLElement {
  const button = h("button", { type: "button", class: "primary share", "aria-haspopup": "dialog", "aria-label": "Share", title: "Share" }, icon("share"), h("span", {}, "Share"));
  const dialog = new Dialog(id);
  button.addEventListener("click", () => dialog.open(button.getBoundingClientRect()));
  store.watch(["role", "document"], ({ role, document }) => (button.hidden = role !== "owner" || document !== "ready"));
  return button;
}

class Dialog {
  #error = h("p", { class: "field-error", role: "alert" });
  #people = h("ul", { class: "share-list", "aria-label": "People" });
  #links = h("ul", { class: "share-list", "aria-label": "Links" });
  #made = h("div", { class: "share-made", role: "status" });
  #panel = popover("Share this document", [this.#content()]);

  constructor(private readonly id: string) {}

  open(anchor: DOMRect): void {
    this.#panel.open(anchor);
    fill(this.#made);
    this.#act(() => Promise.resolve());
  }

  #content(): HTMLElement {
    return h("div", { class: "share-dialog" }, h("h2", {}, "People"), this.#people, this.#addForm(), h("h2", {}, "Links"), this.#links, this.#linkForm(), this.#made, this.#error);
  }

  #addForm(): HTMLElement {
    const login = h("input", { type: "text", id: "share-login", required: true, autocomplete: "off", autocapitalize: "none", spellcheck: "false" });
    const role = select("share-role", "Role of the new person", ROLES, "editor");
    const form = h("form", { class: "share-row" }, h("label", { class: "field", for: "share-login" }, "Name they sign in by", login), role, h("button", { type: "submit", class: "quiet" }, "Add"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#act(() => setRole(this.id, { login: login.value.trim() }, role.value as Role).then(() => form.reset()));
    });
    return form;
  }

  #linkForm(): HTMLElement {
    const role = select("link-role", "Who has the link", ROLES, "viewer");
    const days = select("link-days", "How long the link lasts", LASTS, "");
    const password = h("input", { type: "password", id: "link-password", autocomplete: "new-password", minlength: 8 });
    const form = h("form", { class: "share-row" }, h("label", { class: "field", for: "link-password" }, "Password (if you want one)", password), role, days, h("button", { type: "submit", class: "quiet" }, "Make a link"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#act(async () => {
        const link = await addLink(this.id, { role: role.value as Role, days: Number(days.value) || undefined, password: password.value || undefined });
        form.reset();
        this.#show(`${below(`d/${segmentOf(this.id)}`)}#share=${link.secret}`);
      });
    });
    return form;
  }

  /** The only time that anybody sees it: the server keeps a hash. */
  #show(address: string): void {
    const input = h("input", { type: "text", id: "made-link", readonly: true, value: address });
    const copy = h("button", { type: "button", class: "primary" }, "Copy");
    copy.addEventListener("click", () => {
      input.select();
      void (navigator.clipboard as Clipboard | undefined)?.writeText(address).then(() => (copy.textContent = "Copied"), () => {});
    });
    fill(this.#made, h("label", { class: "field", for: "made-link" }, "Send this address; it is shown only now", input), copy);
    input.select();
  }

  /** Does something, and shows what is so afterwards. */
  #act(deed: () => Promise<unknown>): void {
    this.#error.textContent = "";
    deed()
      .then(() => readSharing(this.id))
      .then(
        (sharing) => this.#draw(sharing),
        (reason: unknown) => (this.#error.textContent = sentence(reason)),
      );
  }

  #draw({ people, links }: Sharing): void {
    fill(this.#people, ...people.map((holder) => this.#person(holder)));
    fill(this.#links, ...links.map((link) => this.#link(link)));
    this.#links.hidden = links.length === 0;
  }

  #person(holder: Holder): HTMLElement {
    const name = holder.name ?? holder.id;
    const label = h("span", { class: "share-who" }, h("strong", {}, name), holder.login && h("span", {}, holder.login));
    if (holder.role === "owner") return h("li", {}, label, h("span", { class: "share-role" }, "owner"));
    const role = select("", `Role of ${name}`, [...ROLES, ["owner", "owns it"], ["none", "remove"]], holder.role);
    role.addEventListener("change", () => {
      const wanted = role.value;
      if (wanted === "owner") this.#act(() => transfer(this.id, holder.id));
      else this.#act(() => setRole(this.id, { id: holder.id }, wanted === "none" ? null : (wanted as Role)));
    });
    return h("li", {}, label, role);
  }

  #link(link: ShareLink): HTMLElement {
    const role = ROLES.find(([each]) => each === link.role)?.[1] ?? link.role;
    const until = link.expires_at === null ? "" : `, until ${new Date(link.expires_at).toLocaleDateString()}`;
    const words = `Who has the link ${role}${link.has_password ? ", with its password" : ""}${until}`;
    const end = h("button", { type: "button", class: "quiet", "aria-label": `End the link: ${words}`, onclick: () => this.#act(() => endLink(this.id, link.id)) }, "End");
    return h("li", {}, h("span", { class: "share-who" }, words), end);
  }
}

function select(id: string, label: string, options: [string, string][], chosen: string): HTMLSelectElement {
  return h("select", { id: id || null, "aria-label": label }, ...options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
}
