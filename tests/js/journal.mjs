// Checks that hold for the log of any document.
import assert from 'node:assert/strict';
import { RICH, TEXT } from './client.mjs';

const TYPES = { [RICH.uri]: RICH, [TEXT.uri]: TEXT };

/** A document's content as plain data that can be compared: keys in order, Deltas as their lists. */
export function plain(data) {
  const json = data === undefined ? undefined : JSON.parse(JSON.stringify(data));
  return sorted(json?.ops ?? json);
}

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map((key) => [key, sorted(value[key])]),
  );
}

/** Folds a log with the npm types. */
export function replay(log) {
  let type;
  let data;
  for (const entry of log) {
    if (entry.create) {
      type = TYPES[entry.create.type];
      data = type.create(entry.create.data);
    } else if (entry.del) {
      data = undefined;
    } else if ('op' in entry) {
      data = type.apply(data, entry.op);
    }
  }
  return plain(data);
}

/** Checks that versions have no gap from 0, each submit is there once and was sent by one of `clients`, and each ack matches. */
export function assertLog(log, clients, id, collection = 'docs') {
  assert.deepEqual(
    log.map((entry) => entry.v),
    log.map((_, v) => v),
    'the versions have no gap',
  );
  const places = new Map();
  for (const { src, seq, v } of log) {
    const name = `${src}/${seq}`;
    assert.ok(!places.has(name), `${name} is in the log at ${places.get(name)} and at ${v}`);
    places.set(name, v);
    assert.ok(
      clients.some((client) => client.sent.has(name)),
      `no client sent ${name}, which is at ${v}`,
    );
  }
  for (const client of clients) {
    for (const { c, d, src, seq, v } of client.acks) {
      if (c !== collection || d !== id) continue;
      assert.equal(places.get(`${src}/${seq}`), v, `${src}/${seq} was acknowledged at ${v}`);
    }
  }
}
