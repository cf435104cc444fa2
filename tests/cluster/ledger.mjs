// The log as Postgres holds it, and the checks that hold for every log after any failure.
import { plain, replay } from '../js/journal.mjs';

/** The log of a document from the tables, oldest first, in the form of the wire protocol. */
export async function logIn(postgres, id, collection = 'docs') {
  const rows = await postgres.query(
    `SELECT revision, epoch, client, seq, payload
     FROM entries JOIN documents ON doc = number
     WHERE collection = $1 AND id = $2
     ORDER BY revision`,
    [collection, id],
  );
  return rows.map(({ revision, epoch, client, seq, payload }) => ({
    v: Number(revision) - 1,
    epoch: Number(epoch),
    src: client,
    seq: Number(seq),
    ...changeOf(payload),
  }));
}

/** The stored form: a letter for the kind of change, then its JSON. */
function changeOf(payload) {
  const [letter, json] = [String.fromCharCode(payload[0]), payload.subarray(1).toString()];
  switch (letter) {
    case 'C':
      return { create: JSON.parse(json) };
    case 'T':
    case 'R':
      return { op: JSON.parse(json) };
    case 'D':
      return { del: true };
    case 'N':
      return {};
    default:
      throw new Error(`an entry of kind ${letter}`);
  }
}

/** The findings about logs, by kind; a correct log has none. */
export class Findings {
  /** Acknowledged, and not in the log or at another version. */
  lost = [];
  /** More than once in the log. */
  doubled = [];
  /** Rejected and nevertheless in the log. */
  denied = [];
  /** In the log, and sent by no client. */
  unsent = [];
  /** Sent to a client as a commit, and not in the log or at another version. */
  untrue = [];
  /** A missing version, or an epoch lower than the one before. */
  disorder = [];
  /** A text that differs from the fold of the log. */
  unequal = [];

  get count() {
    return Object.values(this).reduce((sum, list) => sum + list.length, 0);
  }

  toString() {
    const some = (list) =>
      [...list.slice(0, 5), ...(list.length > 5 ? [`and ${list.length - 5} more`] : [])].join('\n  ');
    const kinds = Object.entries(this).filter(([, list]) => list.length);
    return kinds.map(([kind, list]) => `${kind} ${list.length}:\n  ${some(list)}`).join('\n') || 'nothing';
  }
}

/** Compares the log of a document with what clients sent, what was acknowledged to them, and what all received. */
export function audit(log, { id, clients, hearsay, collection = 'docs' }, findings) {
  const places = new Map();
  let epoch = 0;
  for (const [at, entry] of log.entries()) {
    const name = `${entry.src}/${entry.seq}`;
    if (entry.v !== at) findings.disorder.push(`${id}: version ${entry.v} is at place ${at}`);
    if (entry.epoch < epoch) findings.disorder.push(`${id}: epoch ${entry.epoch} at ${entry.v}, after ${epoch}`);
    epoch = entry.epoch;
    if (places.has(name)) findings.doubled.push(`${id}: ${name} at ${places.get(name)} and ${entry.v}`);
    places.set(name, entry.v);
  }
  const sent = new Set(clients.flatMap((client) => [...client.sent]));
  for (const [name, v] of places) if (!sent.has(name)) findings.unsent.push(`${id}: ${name} at ${v}`);
  for (const client of clients) {
    for (const { c, d, src, seq, v } of client.acks) {
      if (c !== collection || d !== id || places.get(`${src}/${seq}`) === v) continue;
      findings.lost.push(`${id}: ${src}/${seq} was acknowledged at ${v}, and is at ${places.get(`${src}/${seq}`)}`);
    }
  }
  for (const name of clients.flatMap((client) => [...(client.refused ?? [])])) {
    if (places.has(name)) findings.denied.push(`${id}: ${name} was refused, and is at ${places.get(name)}`);
  }
  const prefix = `${collection}/${id}/`;
  for (const [place, name] of hearsay?.told ?? []) {
    if (!place.startsWith(prefix)) continue;
    const v = Number(place.slice(prefix.length));
    if (places.get(name) !== v) findings.untrue.push(`${id}: ${name} was told at ${v}, and is at ${places.get(name)}`);
  }
}

/** Compares texts with the fold of the log. */
export function compare(log, docs, findings) {
  const truth = JSON.stringify(replay(log) ?? null);
  for (const { who, doc } of docs) {
    if (doc.version !== log.length) findings.unequal.push(`${doc.id}: ${who} is at ${doc.version} of ${log.length}`);
    else if (JSON.stringify(plain(doc.data) ?? null) !== truth)
      findings.unequal.push(`${doc.id}: ${who} has another text`);
  }
}
