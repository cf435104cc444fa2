/** The page of one document: makes its parts, gives them the store, and passes on what they want. */

import richText from "rich-text";
import { brand } from "../components/brand";
import { notice } from "../components/notice";
import { people } from "../components/people";
import { statusLine } from "../components/status";
import { titleField } from "../components/title-field";
import { toolbar } from "../components/toolbar";
import { createEditor, cursorsOf } from "../editor/editor";
import { COLLECTION, readDocument, renameDocument } from "../lib/api";
import { fill, h } from "../lib/dom";
import { keepName, loadPerson } from "../lib/person";
import { Store } from "../lib/store";
import { Binding } from "../sync/binding";
import { Line } from "../sync/connection";
import { Cursors } from "../sync/cursors";
import { Presence, type Peer } from "../sync/presence";
import { TitleKeeper } from "../sync/title";
import type { EditorState } from "./state";

export function showEditor(app: HTMLElement, id: string, isNew: boolean): void {
  const store = new Store<EditorState>({
    document: "loading",
    link: "connecting",
    wasOnline: false,
    waiting: 0,
    title: "",
    wantedTitle: null,
    me: loadPerson(),
    peers: [],
    formats: {},
    canUndo: false,
    canRedo: false,
    refusal: null,
    notice: null,
  });

  const sheet = h("div", { class: "sheet", id: "editor" });
  const quill = createEditor(sheet, (text) => store.set({ notice: text }));
  quill.disable();
  const tools = toolbar(quill, store);
  const title = new TitleKeeper(id, store, () => presence.publish(), { read: readDocument, rename: renameDocument });
  const cursors = new Cursors(quill, cursorsOf(quill));

  const line = new Line((link) => {
    store.set({ link, wasOnline: store.state.wasOnline || link === "online" });
    if (link === "online") title.refresh();
  });
  const doc = line.connection.get(COLLECTION, id);
  // Each peer's presence listens.
  doc.setMaxListeners(0);
  const binding = new Binding(doc, quill, {
    waiting(waiting) {
      store.set({ waiting });
      if (waiting === 0) title.settled();
    },
    drawn() {
      if (store.state.document !== "ready") {
        store.set({ document: "ready" });
        quill.enable();
        title.refresh();
        if (isNew) quill.focus();
      }
      cursors.draw();
    },
    refused(refusal) {
      const before = store.state.refusal;
      store.set({ refusal: { reason: refusal.reason || before?.reason || "", lost: refusal.lost || before?.lost || "" } });
    },
    deleted() {
      quill.disable();
      store.set({ document: "deleted" });
    },
  });
  const presence = new Presence(
    line.connection,
    doc,
    () => ({ person: store.state.me, range: selection, titleRevision: title.revision }),
    (peers) => store.set({ peers }),
    () => title.refresh(),
  );

  let selection: { index: number; length: number } | null = null;
  let frame = 0;
  quill.on("editor-change", (kind: string, ...args: unknown[]) => {
    const source = args.at(-1);
    if (kind === "text-change" && source !== "user") return;
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

  store.watch(["peers"], ({ peers }) => cursors.show(peers));
  store.watch(["document"], (state) => (app.dataset.document = state.document));

  /** The address to send to others is the one without `?new`. */
  const forgetNew = (): void => history.replaceState(null, "", location.pathname);
  const create = (): void => {
    const done = binding.pending();
    doc.create([{ insert: "\n" }], richText.type.uri, (error) => {
      done(error);
      if (doc.type) forgetNew();
    });
  };
  doc.subscribe((error) => {
    if (error) store.set({ document: "failed", notice: `This document cannot be opened. ${error.message}` });
    else if (doc.type) forgetNew();
    else if (isNew) create();
    else store.set({ document: "missing" });
  });

  // Without this a closed tab would take the unacknowledged work with it.
  addEventListener("beforeunload", (event) => {
    if (store.state.waiting > 0 || store.state.wantedTitle !== null) event.preventDefault();
  });

  const bar = h(
    "header",
    { class: "bar" },
    h(
      "div",
      { class: "bar-top" },
      brand("All documents"),
      h("div", { class: "bar-names" }, titleField(store, (wanted) => title.rename(wanted), () => quill.focus()), statusLine(store)),
      people(
        store,
        (name) => {
          store.set({ me: keepName(name) });
          presence.publish();
        },
        (peer: Peer) => cursors.visit(peer),
      ),
    ),
    tools.element,
    notice(store),
  );
  const absent = h("div", { class: "absent", hidden: true });
  store.watch(["document"], (state) => {
    const isAbsent = state.document === "missing" || state.document === "deleted";
    absent.hidden = !isAbsent;
    sheet.hidden = isAbsent || state.document === "failed";
    tools.element.hidden = sheet.hidden;
    if (!isAbsent) return;
    fill(
      absent,
      h("h1", {}, state.document === "missing" ? "There is no document here yet" : "This document was deleted"),
      h("p", {}, "Check the address, or begin a document under it."),
      h("div", { class: "form-actions" }, h("a", { class: "button quiet", href: "/" }, "All documents"), h("button", { class: "primary", type: "button", onclick: create }, "Start writing here")),
    );
  });
  const keys = h("p", { class: "sr-only", id: "editor-keys" }, "Press Alt and F10 to reach the toolbar, Escape to come back.");
  fill(app, bar, h("main", { class: "desk" }, sheet, tools.bubble, absent, keys));
}

