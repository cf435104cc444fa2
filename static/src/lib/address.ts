/**
 * Addresses of this server. All of them are below the page's base (`<base href>`), because the server may be mounted below
 * a path prefix.
 */

/** The absolute address of a path that is relative to the base: `below("api/me")`. */
export function below(path: string): string {
  return new URL(path, document.baseURI).href;
}

/** The list of documents. */
export function homeAddress(): string {
  return below('.');
}

/** The page of a document. `home` is the collection that needs no mention in the address. */
export function pageAddress(collection: string, id: string, home: string, isNew = false): string {
  const query = [isNew && 'new', collection !== home && `in=${encodeURIComponent(collection)}`]
    .filter(Boolean)
    .join('&');
  return below(`d/${segmentOf(id)}${query && `?${query}`}`);
}

/** The WebSocket that carries documents, with messages about the user's roles. The server writes its path beside the base. */
export function socketAddress(): string {
  const path = document.querySelector('base')?.dataset.socket ?? 'ws';
  const url = new URL(`${path}?rights`, document.baseURI);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

/** The document id in the address of an editor page; undefined for other pages. */
export function documentIn(pathname: string): string | undefined {
  const base = new URL('.', document.baseURI).pathname;
  if (!pathname.startsWith(base)) return undefined;
  const segment = /^d\/([^/]+)\/?$/.exec(pathname.slice(base.length))?.[1];
  return segment === undefined ? undefined : nameIn(segment);
}

/**
 * A name as one segment of a path. Browsers and proxies resolve `.` and `..`, encoded or not, so such a name is written
 * with `~` before it; so is a name that already looks like one written this way.
 */
export function segmentOf(name: string): string {
  return encodeURIComponent(/^~*\.{1,2}$/.test(name) ? `~${name}` : name);
}

function nameIn(segment: string): string {
  const name = decoded(segment);
  return /^~+\.{1,2}$/.test(name) ? name.slice(1) : name;
}

/** A segment with a malformed escape is taken literally: the server then reports that there is no such document. */
function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** The query of an address without one of its parameters. The rest keeps its exact spelling. */
export function queryWithout(search: string, name: string): string {
  const kept = search
    .slice(1)
    .split('&')
    .filter((part) => part !== '' && part !== name && !part.startsWith(`${name}=`));
  return kept.length === 0 ? '' : `?${kept.join('&')}`;
}
