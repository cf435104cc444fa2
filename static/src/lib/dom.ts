/** Builds elements without parsing html, so that text from users stays text. */

type Child = Node | string | null | undefined | false;
type Handler = (event: never) => void;
type Props = Record<string, string | number | boolean | null | undefined | Handler>;

/** `h("button", { class: "primary", onclick: save }, "Save")`. Keys that start with `on` are listeners. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(key.slice(2), value as EventListener);
    else element.setAttribute(key, value === true ? '' : String(value));
  }
  fill(element, ...children);
  return element;
}

export function fill(element: Element, ...children: Child[]): void {
  element.replaceChildren(...children.filter((child): child is Node | string => !!child));
}

/**
 * Whether no element that can be seen has the focus, so that the page may give it to one without taking it from the user. An
 * element that was hidden a moment ago still has it.
 */
export function isFocusFree(): boolean {
  const focused = document.activeElement;
  return focused === null || focused === document.body || focused.getClientRects().length === 0;
}
