/**
 * Remembers over a reload which version of the document this tab has seen. The fetch or subscription after the reload names it
 * as `min`, so a node that is a little behind does not show less than the page showed before. If the server has lost that
 * version, as after a restore, it refuses the request, and the page opens the document as it is.
 */

import type { Doc } from 'sharedb/lib/client/index.js';

interface Request {
  a?: unknown;
  c?: unknown;
  d?: unknown;
  v?: unknown;
  min?: number;
}

const NEWER_THAN_LOG = 'ERR_OP_VERSION_NEWER_THAN_CURRENT_SNAPSHOT';

/** Names the version, in the first request only. */
export function nameKnownVersion(doc: Doc): KnownVersion {
  const key = `copydesk-version:${doc.collection}/${doc.id}`;
  let known = take(key);
  let isNamed = known !== null;
  doc.connection.on('send', (message) => {
    const request = message as Request;
    const opens = (request.a === 'f' || request.a === 's') && request.c === doc.collection && request.d === doc.id;
    if (!opens) return;
    if (request.v == null && known !== null) request.min = known;
    known = null;
  });
  addEventListener('pagehide', () => {
    if (doc.version) keep(key, doc.version);
  });
  return {
    isLost({ code }) {
      const isLost = isNamed && code === NEWER_THAN_LOG;
      isNamed = false;
      return isLost;
    },
  };
}

export interface KnownVersion {
  /** Whether the first request was refused because the server has lost the version that it named. True once at most. */
  isLost(error: Error & { code?: unknown }): boolean;
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
