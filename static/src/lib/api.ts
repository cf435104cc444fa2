/** The server's REST interface: names of documents and the list of them. Text travels over the socket only. */

export interface DocumentSummary {
  collection: string;
  id: string;
  title: string;
  created_at: number;
  updated_at: number;
  revision: number;
}

export interface DocumentPage {
  documents: DocumentSummary[];
  next: string | null;
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** Who the server takes us for. */
export interface Me {
  mode: "open" | "accounts" | "tokens";
}

export const COLLECTION = "documents";
export const TITLE_LENGTH_MAX = 200;
export const UNTITLED = "Untitled document";

export function listDocuments(query: { q?: string; after?: string; limit?: number }): Promise<DocumentPage> {
  const params = new URLSearchParams({ limit: String(query.limit ?? 50) });
  if (query.q) params.set("q", query.q);
  if (query.after) params.set("after", query.after);
  return request(`/api/documents?${params}`);
}

export function readDocument(id: string): Promise<DocumentSummary> {
  return request(addressOf(id));
}

export function renameDocument(id: string, title: string): Promise<DocumentSummary> {
  return request(addressOf(id), {
    method: "PATCH",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ title }),
  });
}

export function readMe(): Promise<Me> {
  return request("/api/me");
}

/** A title as the server takes it: one line. */
export function cleanTitle(title: string): string {
  return title.replace(/[\p{Cc}\s]+/gu, " ").trim();
}

function addressOf(id: string): string {
  return `/api/documents/${COLLECTION}/${encodeURIComponent(id)}`;
}

async function request<T>(url: string, init?: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(url, { ...init, signal: AbortSignal.timeout(10_000) });
  } catch {
    throw new ApiError(0, "unreachable", "The server cannot be reached.");
  }
  const body: unknown = await response.json().catch(() => null);
  if (response.ok && body !== null) return body as T;
  const error = (body as { error?: { code?: string; message?: string } } | null)?.error;
  throw new ApiError(
    response.status,
    error?.code ?? "unknown",
    error?.message ?? `The server answered with status ${response.status}.`,
  );
}
