import { h } from "../lib/dom";

export function brand(label: string): HTMLElement {
  return h(
    "a",
    { class: "brand", href: "/", "aria-label": label, title: label },
    h("img", { src: "/favicon.svg", alt: "", width: 32, height: 32 }),
  );
}
