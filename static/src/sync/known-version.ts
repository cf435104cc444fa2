/**
 * Remembers over a reload which version of the document this tab has seen. The fetch or subscription after the reload names it
 * as `min`, so a node that is a little behind does not show less than the page showed before.
 */

import type { Doc } from "sharedb/lib/client/index.js";

interface Request {
  a?: unknown;
  c?: unknown;
  d?: unknown;
  v?: unknown;
  min?: number;
}

export function nameKnownVersion(doc: Doc): void {
  const key = `copydesk-version:${doc.collection}/${doc.id}`;
  // Used once: where the server has lost that version, the next reload opens the document as it is.
  let known = take(key);
  doc.connection.on("send", (message) => {
    const request = message as Request;
    const opens = (request.a === "f" || request.a === "s") && request.c === doc.collection && request.d === doc.id;
    if (!opens) return;
    if (request.v == null && known !== null) request.min = known;
    known = null;
  });
  addEventListener("pagehide", () => {
    if (doc.version) keep(key, doc.version);
  });
}

function take(key: string): number | null {
  try {
    const version = Number(sessionStorage.getItem(key));
    sessionStorage.removeItem(key);
    return Number.isSafeInteger(version) && version > 0 ? version : null;
  } catch {
    return null;
  }
}

function keep(key: string, version: number): void {
  try {
    sessionStorage.setItem(key, String(version));
  } catch {
    // A browser without storage opens the document as any other page does.
  }
}
