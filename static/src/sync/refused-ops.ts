/**
 * Undoes a refused op alone.
 *
 * When an op is refused, the ShareDB client undoes it by its type's `invert`. Rich text has none, because the inverse
 * depends on the document that the op was made on; the client then drops all unacknowledged edits of the document. So
 * the refusal, and the messages behind it, are held until that document has been fetched. Then the op in flight is given
 * the inverse, and the client transforms it over the edits that wait, which stay.
 */

import Delta, { type Op } from 'quill-delta';
import type { Connection, Doc, Snapshot } from 'sharedb/lib/client/index.js';
import type { Refusal } from './binding';
import { isPlainText } from './plain';

/** The number of messages that are held for one refusal. With more, the client drops all edits, as without this class. */
const HELD_MAX = 10_000;

/** Not a refusal: the op had no effect, and the client knows what to do. */
const NO_OP = 'ERR_NO_OP';

interface Message {
  a?: unknown;
  c?: unknown;
  d?: unknown;
  del?: unknown;
  src?: unknown;
  error?: { code?: unknown; message?: unknown };
}

export class RefusedOps {
  /** True while the client processes a refusal that undoes one op only. */
  isUndoing = false;
  readonly #connection: Connection;
  /** The refusal and the messages behind it. */
  #held: Message[] | null = null;

  constructor(
    private readonly doc: Doc,
    private readonly onLost: (refusal: Refusal) => void,
  ) {
    this.#connection = doc.connection;
    this.#connection.on('receive', (request) => {
      if (this.#holds((request.data ?? {}) as Message)) request.data = null;
    });
    // On a new socket the op is sent again, and refused again.
    this.#connection.on('state', () => (this.#held = null));
  }

  /** Takes the message if it is a refusal of this document's op in flight, or comes behind one. */
  #holds(message: Message): boolean {
    if (message.c !== this.doc.collection || message.d !== this.doc.id) return false;
    if (this.#held) {
      this.#held.push(message);
      if (this.#held.length > HELD_MAX) this.#release(this.#held);
      return true;
    }
    this.#reportDeletion(message);
    // The ops of a plain text can be inverted by themselves, which the client does.
    if (isPlainText(this.doc)) return false;
    const isRefusal = message.a === 'op' && message.error && message.error.code !== NO_OP;
    if (!isRefusal || !this.doc.inflightOp?.op) return false;
    const held = [message];
    this.#held = held;
    this.#connection.fetchSnapshot(this.doc.collection, this.doc.id, this.doc.version, (_error, base) =>
      this.#release(held, base),
    );
    return true;
  }

  #release(held: Message[], base?: Snapshot): void {
    if (this.#held !== held) return;
    this.#held = null;
    const lost = base?.type ? this.#makeInvertible(base.data as Op[]) : null;
    const [refusal, ...behind] = held;
    if (!base) {
      // Not even the document can be had: the client drops all edits.
      this.onLost({ reason: String(refusal?.error?.message ?? ''), lost: this.#pendingText(), isAlone: false });
    } else if (lost !== null) {
      this.onLost({ reason: String(refusal?.error?.message ?? ''), lost, isAlone: true });
      this.isUndoing = true;
    }
    try {
      this.#connection.handleMessage(refusal);
    } finally {
      this.isUndoing = false;
    }
    for (const message of behind) {
      this.#reportDeletion(message);
      this.#connection.handleMessage(message);
    }
  }

  /** When another client deletes the document, the client drops all edits. */
  #reportDeletion({ a, del, src, error }: Message): void {
    if (a !== 'op' || !del || error || src === this.#connection.id) return;
    const lost = this.#pendingText();
    if (lost.trim() !== '') this.onLost({ reason: 'The document was deleted.', lost, isAlone: false });
  }

  /** The text that all unacknowledged edits insert. */
  #pendingText(): string {
    const { inflightOp, pendingOps } = this.doc;
    return [...(inflightOp ? [inflightOp] : []), ...pendingOps]
      .map(({ op, create }) => textOf(op ?? create?.data))
      .join('');
  }

  /** Returns the text that the op in flight inserts, or null if it has no inverse on this document. */
  #makeInvertible(baseOps: Op[]): string | null {
    const refused = this.doc.inflightOp;
    if (!refused?.op) return null;
    const op = new Delta(refused.op as Op[]);
    const inverse = inverseOf(op, new Delta(baseOps));
    if (inverse === null) return null;
    refused.type = { ...refused.type, invert: () => inverse };
    return textOf(op);
  }
}

/** The text that an op inserts, in any form that the client has it in. In plain text a string is an insert. */
export function textOf(op: unknown): string {
  if (typeof op === 'string') return op;
  const components: (Op | string | number)[] = new Delta(op as Op[] | undefined).ops;
  const inserts = components.map((component) => (typeof component === 'object' ? component.insert : component));
  return inserts.filter((insert) => typeof insert === 'string').join('');
}

/** Null where the op runs past the document's end: then it cannot be undone in the client's copy. */
function inverseOf(op: Delta, base: Delta): Delta | null {
  try {
    const inverse = op.invert(base);
    return base.compose(op).compose(inverse).diff(base).ops.length === 0 ? inverse : null;
  } catch (error) {
    // Delta throws where a document is not made of inserts.
    console.warn('a refused op has no inverse:', error);
    return null;
  }
}
