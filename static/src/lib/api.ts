/** The server's REST interface: names of documents and the list of them. Text travels over the socket only. */

import { below, segmentOf } from './address';

export interface DocumentSummary {
  collection: string;
  id: string;
  title: string;
  created_at: number;
  updated_at: number;
  revision: number;
  /** What we may do with it; only where one document is asked for. */
  role?: Role;
}

export type Role = 'viewer' | 'commenter' | 'editor' | 'owner';

export interface DocumentPage {
  documents: DocumentSummary[];
  next: string | null;
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    /** The whole answer: some errors say more in it. */
    readonly answer: Readonly<Record<string, unknown>> = {},
  ) {
    super(message);
  }
}

/** The identity that the server sees. */
export interface Me {
  mode: 'open' | 'accounts' | 'tokens';
  user: { id: string; login: string; name: string; role: Role | null; may_sign_out: boolean } | null;
  /** A guest with a share link. */
  is_guest: boolean;
  needs_setup: boolean;
  /** The first account can only be made with the code that the server's log shows. */
  needs_setup_code?: boolean;
  registration: 'open' | 'invite';
  /** Where our documents are. */
  collection: string;
  password_chars_min: number;
  renew_after_ms: number;
}

export interface Holder {
  id: string;
  login: string | null;
  name: string | null;
  role: Role;
}

export interface ShareLink {
  id: string;
  role: Role;
  has_password: boolean;
  expires_at: number | null;
}

export interface Account {
  id: string;
  login: string;
  name: string;
  role: Role | null;
  disabled: boolean;
}

export interface Invitation {
  id: string;
  role: Role | null;
  expires_at: number;
}

export interface Sharing {
  people: Holder[];
  links: ShareLink[];
}

/** Every request that changes something says that it is ours: another site's page cannot. */
const OURS = { 'x-copydesk': '1' };

let collection = 'documents';
let home = 'documents';

/** The collection of this page's documents: the user's own, or the one that the address names. */
export function ourCollection(): string {
  return collection;
}

/** The collection of the user's own documents. */
export function homeCollection(): string {
  return home;
}

export function openCollection(name: string): void {
  collection = name;
}

export const TITLE_LENGTH_MAX = 200;
export const UNTITLED = 'Untitled document';

export function listDocuments(query: { q?: string; after?: string; limit?: number }): Promise<DocumentPage> {
  const params = new URLSearchParams({ limit: String(query.limit ?? 50), collection });
  if (query.q) params.set('q', query.q);
  if (query.after) params.set('after', query.after);
  return request(`api/documents?${params}`);
}

export function readDocument(id: string): Promise<DocumentSummary> {
  return request(addressOf(id));
}

/** With `was`, the server refuses the title if the document has another one than `was` by now; see `presentTitle`. */
export function renameDocument(id: string, title: string, was: string | null): Promise<DocumentSummary> {
  return request(addressOf(id), {
    ...body('PATCH', was === null ? { title } : { title, was }),
  });
}

/** What the user reads whose title lost to another one. Both are in it: nothing that was typed is lost. */
export function renamedMeanwhile(present: string, lost: string): string {
  return `The document has been renamed to “${present || UNTITLED}” meanwhile. Your title “${lost}” was not used.`;
}

/** The title that a document has, if that is why a rename was refused. */
export function presentTitle(error: unknown): string | null {
  const isChanged = error instanceof ApiError && error.code === 'title_changed';
  return isChanged && typeof error.answer.title === 'string' ? error.answer.title : null;
}

export async function readMe(): Promise<Me> {
  const me = await request<Me>('api/me');
  collection = home = me.collection;
  return me;
}

export function register(account: {
  login: string;
  name: string;
  password: string;
  invitation?: string;
}): Promise<void> {
  return request('api/register', body('POST', account));
}

export function signIn(login: string, password: string): Promise<void> {
  return request('api/sign-in', body('POST', { login, password }));
}

export function signOut(everywhere: boolean): Promise<void> {
  return request(everywhere ? 'api/sign-out-everywhere' : 'api/sign-out', body('POST', {}));
}

export function changePassword(present: string, next: string): Promise<void> {
  return request('api/password', body('POST', { present, next }));
}

export function renewSession(): Promise<void> {
  return request('api/refresh', body('POST', {}));
}

/**
 * Gives the server a token that another application signed, which from then on is in a cookie. Unless `replaces`, the server
 * refuses with `other_session` if the browser is signed in as another user.
 */
export function bringToken(token: string, replaces = false): Promise<void> {
  const { headers, ...rest } = body('POST', { replace: replaces });
  return request('api/session', { ...rest, headers: { ...headers, authorization: `Bearer ${token}` } });
}

export function resetPassword(code: string, password: string): Promise<void> {
  return request('api/password-reset', body('POST', { code, password }));
}

export function listAccounts(): Promise<{ people: Account[] }> {
  return request('api/people');
}

export function setDisabled(login: string, disabled: boolean): Promise<void> {
  return request('api/people/disabled', body('PUT', { login, disabled }));
}

export function allowReset(login: string): Promise<{ code: string }> {
  return request('api/people/reset', body('POST', { login }));
}

export function listInvitations(): Promise<{ invitations: Invitation[] }> {
  return request('api/invitations');
}

export function endInvitation(id: string): Promise<void> {
  return request(`api/invitations/${encodeURIComponent(id)}`, { method: 'DELETE', headers: OURS });
}

export function invite(): Promise<{ code: string }> {
  return request('api/invitations', body('POST', { role: null }));
}

export function openLink(secret: string, password?: string): Promise<{ collection: string; id: string; role: Role }> {
  return request('api/links', body('POST', { secret, password }));
}

export function readSharing(id: string): Promise<Sharing> {
  return request(`${addressOf(id)}/people`);
}

export function setRole(id: string, whom: { login: string } | { id: string }, role: Role | null): Promise<Sharing> {
  return request(`${addressOf(id)}/people`, body('PUT', { ...whom, role }));
}

export function transfer(id: string, to: string): Promise<void> {
  return request(`${addressOf(id)}/owner`, body('PUT', { id: to }));
}

export function addLink(
  id: string,
  link: { role: Role; days?: number; password?: string },
): Promise<{ id: string; secret: string }> {
  return request(`${addressOf(id)}/links`, body('POST', link));
}

export function endLink(id: string, link: string): Promise<void> {
  return request(`${addressOf(id)}/links/${encodeURIComponent(link)}`, { method: 'DELETE', headers: OURS });
}

function body(method: string, content: unknown): RequestInit & { headers: Record<string, string> } {
  return { method, headers: { ...OURS, 'content-type': 'application/json' }, body: JSON.stringify(content) };
}

/** A title as the server takes it: one line. */
export function cleanTitle(title: string): string {
  return title.replace(/[\p{Cc}\s]+/gu, ' ').trim();
}

function addressOf(id: string): string {
  return `api/documents/${segmentOf(collection)}/${segmentOf(id)}`;
}

async function request<T>(url: string, init?: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(below(url), { ...init, signal: AbortSignal.timeout(10_000) });
  } catch {
    throw new ApiError(0, 'unreachable', 'The server cannot be reached.');
  }
  const body: unknown = await response.json().catch(() => null);
  if (response.ok && body !== null) return body as T;
  const answer = (body ?? {}) as Record<string, unknown>;
  const error = answer.error as { code?: string; message?: string } | undefined;
  throw new ApiError(
    response.status,
    error?.code ?? 'unknown',
    error?.message ?? `The server answered with status ${response.status}.`,
    answer,
  );
}
