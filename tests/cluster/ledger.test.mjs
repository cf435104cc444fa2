// Tests of the audit: a correct record with one fault at a time.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TEXT } from '../js/client.mjs';
import { Hearsay } from './crowd.mjs';
import { audit, compare, Findings } from './ledger.mjs';

/** Ann creates a document and edits it, Bob edits it; all is acknowledged and sent to both. */
function story() {
  const log = [
    { v: 0, epoch: 1, src: 'ann', seq: 1, create: { type: TEXT.uri, data: '' } },
    { v: 1, epoch: 1, src: 'ann', seq: 2, op: ['a'] },
    { v: 2, epoch: 2, src: 'bob', seq: 1, op: [1, 'b'] },
    { v: 3, epoch: 2, src: 'ann', seq: 3, op: [2, 'c'] },
  ];
  const hearsay = new Hearsay();
  const clients = ['ann', 'bob'].map((name) => {
    const mine = log.filter(({ src }) => src === name);
    const acks = mine.map(({ v, src, seq }) => ({ c: 'docs', d: 'doc', v, src, seq }));
    return { sent: new Set(mine.map(({ src, seq }) => `${src}/${seq}`)), acks };
  });
  for (const { v, src, seq } of log) hearsay.hear({ c: 'docs', d: 'doc', v, src, seq });
  return { log, clients, hearsay, shown: { id: 'doc', version: 4, data: 'abc' } };
}

function found({ log, clients, hearsay, shown }) {
  const findings = new Findings();
  audit(log, { id: 'doc', clients, hearsay }, findings);
  compare(log, [{ who: 'ann', doc: shown }], findings);
  return Object.entries(findings).flatMap(([kind, list]) => (list.length ? [kind] : []));
}

test('a correct record has no findings', () => assert.deepEqual(found(story()), []));

for (const [what, spoil, kinds] of [
  [
    'an acknowledged edit is not in the log',
    ({ log, shown }) => log.pop() && Object.assign(shown, { version: 3, data: 'ab' }),
    ['lost', 'untrue'],
  ],
  ['an acknowledged edit is elsewhere', ({ clients }) => (clients[1].acks[0].v = 1), ['lost']],
  [
    'an edit is there twice',
    ({ log, shown }) => log.push({ ...log[3], v: 4 }) && Object.assign(shown, { version: 5, data: 'abcc' }),
    ['lost', 'doubled', 'untrue'],
  ],
  ['an edit that no client sent', ({ clients }) => clients[1].sent.clear(), ['unsent']],
  ['a rejected edit is in the log', ({ clients }) => (clients[1].refused = new Set(['bob/1'])), ['denied']],
  [
    'a commit was sent that is not in the log',
    ({ hearsay }) => hearsay.hear({ c: 'docs', d: 'doc', v: 4, src: 'bob', seq: 2 }),
    ['untrue'],
  ],
  [
    'a version is missing',
    ({ log, clients, hearsay }) => {
      log.splice(1, 1);
      clients[0].acks.splice(1, 1);
      hearsay.told.delete('docs/doc/1');
      log[1].op = log[2].op = ['x'];
    },
    ['disorder', 'unequal'],
  ],
  ['an epoch falls', ({ log }) => (log[3].epoch = 1), ['disorder']],
  ['a client shows another text', ({ shown }) => (shown.data = 'acb'), ['unequal']],
  ['a client is behind', ({ shown }) => Object.assign(shown, { version: 3, data: 'ab' }), ['unequal']],
]) {
  test(what, () => {
    const told = story();
    spoil(told);
    assert.deepEqual(found(told), kinds);
  });
}

test('two clients receive different ops at one version', () => {
  const { hearsay } = story();
  hearsay.hear({ c: 'docs', d: 'doc', v: 3, src: 'bob', seq: 2 });
  assert.equal(hearsay.contradictions.length, 1);
});
