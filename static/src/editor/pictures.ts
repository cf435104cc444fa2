/**
 * Pictures on other servers. Loading one tells its server the address of the reader and the time, so none is loaded before
 * the reader has agreed, for each document and each server. Until then a placeholder stands in the text.
 */

/** Servers that are remembered for one document, at most. */
const HOSTS_MAX = 100;
/** Placeholders that are looked at to find out which servers wait, at most. */
const WITHHELD_MAX = 1_000;
const WITHHELD = 'withheld';
/** Nothing, in the smallest picture that there is. */
const EMPTY = 'data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==';

class RemotePictures {
  #allowed: Set<string>;
  #watchers: (() => void)[] = [];
  #isTelling = false;
  readonly #key = `copydesk.pictures.${location.pathname}${new URLSearchParams(location.search).get('in') ?? ''}`;

  constructor() {
    this.#allowed = new Set(readHosts(this.#key));
  }

  /** Draws a picture into its element, or the placeholder for it. */
  draw(image: HTMLElement, address: string): void {
    const host = remoteHost(address);
    if (host === null || this.#allowed.has(host)) {
      image.setAttribute('src', address);
      return;
    }
    image.dataset.address = address;
    image.classList.add(WITHHELD);
    image.setAttribute('src', EMPTY);
    image.title = `A picture from ${host}. It is not loaded: ${host} would learn that you read this document, and when.`;
    this.changed();
  }

  /** The address of a picture, whether it is loaded or not. */
  addressOf(image: HTMLElement): string | null {
    return image.dataset.address ?? image.getAttribute('src');
  }

  /** Loads pictures from these servers in this document, from now on. */
  allow(hosts: readonly string[]): void {
    for (const host of hosts) if (this.#allowed.size < HOSTS_MAX) this.#allowed.add(host);
    keepHosts(this.#key, [...this.#allowed]);
    for (const image of withheld()) {
      const address = image.dataset.address ?? '';
      if (!this.#allowed.has(remoteHost(address) ?? '')) continue;
      image.setAttribute('src', address);
      image.classList.remove(WITHHELD);
      image.removeAttribute('title');
      delete image.dataset.address;
    }
    this.changed();
  }

  /** Hosts of pictures that are not loaded. */
  get waiting(): string[] {
    return [...new Set(withheld().map((image) => remoteHost(image.dataset.address ?? '') ?? ''))].filter(
      (host) => host !== '',
    );
  }

  watch(watcher: () => void): void {
    this.#watchers.push(watcher);
  }

  /** Tells the watchers, once for many changes in a row. */
  changed(): void {
    if (this.#isTelling) return;
    this.#isTelling = true;
    setTimeout(() => {
      this.#isTelling = false;
      for (const watcher of this.#watchers) watcher();
    });
  }
}

/** The server of a picture that is neither part of the document nor ours; null if there is none. */
export function remoteHost(address: string): string | null {
  try {
    const { protocol, origin, host } = new URL(address);
    return protocol === 'https:' && origin !== location.origin ? host : null;
  } catch {
    return null;
  }
}

export const pictures = new RemotePictures();

function withheld(): HTMLElement[] {
  return [...document.getElementsByClassName(WITHHELD)].slice(0, WITHHELD_MAX) as HTMLElement[];
}

function readHosts(key: string): string[] {
  try {
    const hosts = JSON.parse(localStorage.getItem(key) ?? '[]') as unknown;
    return Array.isArray(hosts) ? hosts.filter((host) => typeof host === 'string').slice(0, HOSTS_MAX) : [];
  } catch {
    return [];
  }
}

function keepHosts(key: string, hosts: string[]): void {
  try {
    localStorage.setItem(key, JSON.stringify(hosts));
  } catch {
    // Without storage the choice holds as long as the page.
  }
}
