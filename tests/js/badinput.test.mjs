// Messages that a correct client never sends. Each row has the message, sent after the handshake, and the expected answer: the
// code of an error reply, after which the socket is still served, or the status of the close. Every message gets an answer.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Bystander } from './bystander.mjs';
import { Client, RICH, TEXT } from './client.mjs';
import { plain } from './journal.mjs';
import { Server } from './server.mjs';
import { called } from './wait.mjs';
import { logOf, Wire } from './wire.mjs';

const FORM = 'ERR_MESSAGE_BADLY_FORMED';
const OP_FORM = 'ERR_OT_OP_BADLY_FORMED';
const UNFIT = 'ERR_OT_OP_NOT_APPLIED';
const BAD_OP = [OP_FORM, UNFIT];
const TYPE = 'ERR_DOC_TYPE_NOT_RECOGNIZED';
const FUTURE = 'ERR_OP_VERSION_NEWER_THAN_CURRENT_SNAPSHOT';
const OVERFLOW = 'ERR_CONNECTION_SEQ_INTEGER_OVERFLOW';
const NOT_AN_OBJECT = 1007;
/** Expected where closing is as good as an error reply. */
const CLOSES = [1002, 1003, 1007, 1008, 1009, 1011];
/** Expected where a normal reply is correct as well: the test checks that there is a reply. */
const FINE = 'fine';

const HALF = '\ud83d';
const DEEP = (depth) => '['.repeat(depth) + ']'.repeat(depth);
const LONG = 'x'.repeat(10_000);

const fetch = (fields) => ({ a: 'f', c: 'docs', d: 'text', ...fields });
const submit = (fields) => ({ a: 'op', c: 'docs', d: 'text', v: 1, seq: 1, x: {}, ...fields });
const edit = (op) => submit({ op });
const editRich = (op) => submit({ d: 'rich', op });
const create = (made) => submit({ d: 'new', v: null, create: made });
const bulk = (b, a = 'bs') => ({ a, c: 'docs', b });
const presence = (fields) => ({ a: 'p', ch: 'room', id: 'cursor', p: 1, pv: 0, ...fields });
/** A message as JSON text, with one string replaced by text that `JSON.stringify` would not write. */
const raw = (message, text) => JSON.stringify(message).replace('"RAW"', text);

const TABLE = {
  'what is no object': [
    ['nothing', '', NOT_AN_OBJECT],
    ['white space', '  \n', NOT_AN_OBJECT],
    ['not JSON', 'nonsense', NOT_AN_OBJECT],
    ['JavaScript', "{a:'pp'}", NOT_AN_OBJECT],
    ['null', 'null', NOT_AN_OBJECT],
    ['a number', '5', NOT_AN_OBJECT],
    ['a string', '"pp"', NOT_AN_OBJECT],
    ['true', 'true', NOT_AN_OBJECT],
    ['an array', '[]', NOT_AN_OBJECT],
    ['an array of messages', '[{"a":"pp"}]', NOT_AN_OBJECT],
    ['half a message', '{"a":"pp"', NOT_AN_OBJECT],
    ['two messages', '{"a":"pp"}{"a":"pp"}', NOT_AN_OBJECT],
    ['a byte order mark', '\ufeff{"a":"pp"}', NOT_AN_OBJECT],
    ['an array 100,000 deep', DEEP(100_000), NOT_AN_OBJECT],
  ],
  'what is no request': [
    ['an empty object', {}, FORM],
    ['an unknown action', { a: 'zz' }, FORM],
    ['an action of the server', { a: 'init' }, FORM],
    ['an action in capitals', { a: 'F', c: 'docs', d: 'text' }, FORM],
    ['an action that is a number', { a: 5 }, FORM],
    ['an action that is null', { a: null }, FORM],
    ['an action that is a list', { a: ['f'], c: 'docs', d: 'text' }, FORM],
    ['an action of every object', { a: '__proto__' }, FORM],
    ['an action cut in a pair', { a: HALF }, [FORM, NOT_AN_OBJECT]],
    ['an action named twice', '{"a":"f","a":"f","c":"docs","d":"text"}', FORM],
    ['a document named twice', '{"a":"f","c":"docs","d":"text","d":"rich"}', FORM],
    ['a fetch query', { a: 'qf', id: 1, c: 'docs', q: {} }, ['ERR_NOT_SERVED', FORM]],
    ['a live query', { a: 'qs', id: 1, c: 'docs', q: {} }, ['ERR_NOT_SERVED', FORM]],
    ['a query without an id', { a: 'qs', c: 'docs', q: {} }, ['ERR_NOT_SERVED', FORM]],
  ],
  'names of documents': [
    ['no collection', { a: 'f', d: 'text' }, FORM],
    ['no document', { a: 'f', c: 'docs' }, FORM],
    ['no document to subscribe to', { a: 's', c: 'docs' }, FORM],
    ['no document to leave', { a: 'u', c: 'docs' }, FORM],
    ['no document to change', { a: 'op', c: 'docs', v: 1, seq: 1, op: ['x'] }, FORM],
    ['no document of the past', { a: 'nf', id: 1, c: 'docs', v: 1 }, FORM],
    ['null', fetch({ d: null }), FORM],
    ['a number', fetch({ d: 5 }), FORM],
    ['an object', fetch({ d: { text: 1 } }), FORM],
    ['a list', fetch({ d: ['text'] }), FORM],
    ['empty', fetch({ d: '' }), FORM],
    ['513 bytes', fetch({ d: 'x'.repeat(513) }), FORM],
    ['10 kB', fetch({ d: LONG }), FORM],
    ['1 MB', fetch({ d: 'x'.repeat(1_000_000) }), FORM],
    ['NUL', fetch({ d: 'a\0b' }), FORM],
    ['a line break', fetch({ d: 'a\nb' }), FORM],
    ['a control character of Latin 1', fetch({ d: 'a\u0085b' }), FORM],
    ['half a pair', fetch({ d: HALF }), FORM],
    ...['__proto__', 'constructor', 'toString', 'hasOwnProperty', '__defineGetter__'].flatMap((name) => [
      [`${name} as a document`, fetch({ d: name }), FORM],
      [`${name} as a collection`, fetch({ c: name }), FORM],
      [`${name} in a bulk request`, bulk([name]), FORM],
      [`${name} in a bulk request with versions`, raw(bulk('RAW'), `{"${name}":1}`), FORM],
      [`${name} as a channel`, { a: 'ps', ch: name, seq: 1 }, FORM],
      [`${name} as a presence`, presence({ id: name }), FORM],
    ]),
  ],
  versions: [
    ...[
      ['negative', '-1'],
      ['a fraction', '1.5'],
      ['a string', '"1"'],
      ['a truth', 'true'],
      ['an object', '{}'],
      ['a list', '[1]'],
      ['beyond what is exact', '9007199254740993'],
      ['beyond 64 bits', '18446744073709551616'],
      ['1e308', '1e308'],
      ['1e400', '1e400'],
    ].flatMap(([what, number]) => [
      [`${what}: fetch`, raw(fetch({ v: 'RAW' }), number), FORM],
      [`${what}: subscribe`, raw({ ...fetch({ v: 'RAW' }), a: 's' }, number), FORM],
      [`${what}: an op`, raw(submit({ v: 'RAW', op: ['x'] }), number), FORM],
      [`${what}: history`, raw({ ...fetch({ v: 'RAW' }), a: 'nf', id: 1 }, number), FORM],
      [`${what}: bulk`, raw(bulk({ text: 'RAW' }), number), FORM],
      [`${what}: presence`, raw(presence({ pv: 'RAW' }), number), FORM],
    ]),
    ['an op from the future', submit({ v: 2, op: ['x'] }), FUTURE],
    ['an op from the far future', submit({ v: 2 ** 53 - 1, op: ['x'] }), FUTURE],
    ['an op for nothing, from the future', submit({ d: 'new', v: 3, op: ['x'] }), FUTURE],
    ['a create from the future', submit({ d: 'new', v: 3, create: { type: TEXT.uri } }), FUTURE],
    ['a delete from the future', submit({ v: 7, del: true }), FUTURE],
    ['history from the future', { a: 'nf', id: 1, c: 'docs', d: 'text', v: 2 }, FUTURE],
    ['a fetch from the future', fetch({ v: 99 }), FUTURE],
    ['a subscription from the future', { ...fetch({ v: 99 }), a: 's' }, FUTURE],
    ['a time that is a string', { a: 'nt', id: 1, c: 'docs', d: 'text', ts: 'now' }, FORM],
    ['a time that is an object', { a: 'nt', id: 1, c: 'docs', d: 'text', ts: {} }, FORM],
    ['a time before time', { a: 'nt', id: 1, c: 'docs', d: 'text', ts: -1 }, FINE],
    ['the end of time', { a: 'nt', id: 1, c: 'docs', d: 'text', ts: 1e308 }, FINE],
    ['beyond the end of time', raw({ a: 'nt', id: 1, c: 'docs', d: 'text', ts: 'RAW' }, '1e400'), [FORM, FINE]],
  ],
  'who says it': [
    ['no seq', { a: 'op', c: 'docs', d: 'text', v: 1, op: ['x'] }, OP_FORM],
    ['a seq that is a string', submit({ seq: '1', op: ['x'] }), FORM],
    ['a negative seq', submit({ seq: -1, op: ['x'] }), FORM],
    ['a fraction of a seq', submit({ seq: 1.5, op: ['x'] }), FORM],
    ['the last exact seq', submit({ seq: 2 ** 53 - 1, op: ['x'] }), OVERFLOW],
    ['a seq beyond exactness', submit({ seq: 2 ** 53, op: ['x'] }), [OVERFLOW, FORM]],
    ['a src that is a number', submit({ src: 5, op: ['x'] }), OP_FORM],
    ['an empty src', submit({ src: '', op: ['x'] }), OP_FORM],
    ['a src with a space', submit({ src: 'a b', op: ['x'] }), OP_FORM],
    ['a src of 10 kB', submit({ src: LONG, op: ['x'] }), OP_FORM],
    ['a src that was never issued', submit({ src: 'somebody', op: ['x'] }), 'ERR_FORBIDDEN'],
    ['a forged src', submit({ src: 'A'.repeat(32), op: ['x'] }), 'ERR_FORBIDDEN'],
  ],
  'what is no change': [
    ['neither op nor create nor del', submit({}), OP_FORM],
    ['del: false', submit({ del: false }), OP_FORM],
    ['del: 1', submit({ del: 1 }), OP_FORM],
    ['create: 5', create(5), OP_FORM],
    ['create without a type', create({}), OP_FORM],
    ['a type that is a number', create({ type: 5 }), OP_FORM],
    ['an unknown type', create({ type: 'nope' }), TYPE],
    ['a type of every object', create({ type: '__proto__' }), TYPE],
    ['json0', create({ type: 'json0', data: {} }), TYPE],
    ['json1', create({ type: 'http://sharejs.org/types/JSONv1', data: {} }), TYPE],
    ['text from a number', create({ type: TEXT.uri, data: 5 }), BAD_OP],
    ['text from an object', create({ type: TEXT.uri, data: {} }), BAD_OP],
    ['text with half a pair', create({ type: TEXT.uri, data: `a${HALF}` }), BAD_OP],
    ['rich text with half a pair', create({ type: RICH.uri, data: [{ insert: HALF }] }), BAD_OP],
    [
      'rich text with half a pair in an attribute',
      create({ type: RICH.uri, data: [{ insert: 'x', attributes: { a: HALF } }] }),
      BAD_OP,
    ],
    ['rich text that retains', create({ type: RICH.uri, data: [{ retain: 1 }] }), BAD_OP],
    ['rich text that deletes', create({ type: RICH.uri, data: [{ delete: 1 }] }), BAD_OP],
    ['rich text from a list of null', create({ type: RICH.uri, data: [null] }), BAD_OP],
    [
      'attributes 101 deep',
      create({ type: RICH.uri, data: [{ insert: 'x', attributes: { a: JSON.parse(DEEP(101)) } }] }),
      BAD_OP,
    ],
    ['a text of 12 MB', create({ type: TEXT.uri, data: 'x'.repeat(12 << 20) }), ['ERR_TOO_LARGE', ...CLOSES]],
  ],
  'text-unicode ops': [
    ...[
      ['null', null],
      ['a string', 'x'],
      ['a number', 5],
      ['an object', {}],
      ['like an array', { length: 1, 0: 'x' }],
      ['null in it', [null]],
      ['a list in it', [['x']]],
      ['an empty component', [{}]],
      ['true', [true]],
      ['keep nothing', [0, 'x']],
      ['keep less than nothing', [-1, 'x']],
      ['keep a part', [0.5, 'x']],
      ['insert nothing', ['']],
      ['delete nothing', [{ d: 0 }]],
      ['delete less than nothing', [{ d: -1 }]],
      ['delete a part', [{ d: 0.5 }]],
      ['delete an empty text', [{ d: '' }]],
      ['delete null', [{ d: null }]],
      ['something else', [{ x: 1 }]],
      ['two keeps', [1, 1, 'x']],
      ['a keep at the end', ['x', 1]],
      ['two inserts', ['x', 'y']],
      ['two deletes', [{ d: 1 }, { d: 1 }]],
      ['keep beyond the end', [4, 'x']],
      ['delete beyond the end', [{ d: 4 }]],
      ['keep and delete beyond the end', [2, { d: 2 }]],
      ['half a pair', [HALF]],
      ['the other half', ['\ude00']],
      ['halves the wrong way round', ['\ude00\ud83d']],
      ['delete half a pair', [{ d: HALF }]],
      ['keep as many as numbers go', [2 ** 53, 'x']],
    ].map(([what, op]) => [what, edit(op), BAD_OP]),
    ['keep 1e400', raw(edit(['RAW', 'x']), '1e400'), BAD_OP],
    [
      '100,000 components',
      edit(Array.from({ length: 50_000 }, () => ['x', { d: 1 }]).flat()),
      [...BAD_OP, 'ERR_TOO_LARGE'],
    ],
    ['100,000 deep', raw(edit('RAW'), DEEP(100_000)), BAD_OP],
  ],
  'rich-text ops': [
    ...[
      ['null', null],
      ['a string', 'x'],
      ['a number', 5],
      ['an object without ops', {}],
      ['ops that are a number', { ops: 5 }],
      ['null in it', [null]],
      ['a number in it', [5]],
      ['an empty component', [{}]],
      ['insert null', [{ insert: null }]],
      ['insert true', [{ insert: true }]],
      ['insert a list', [{ insert: [] }]],
      ['an embed of nothing', [{ insert: {} }]],
      ['insert and delete at once', [{ insert: 'x', delete: 1 }]],
      ['insert and retain at once', [{ insert: 'x', retain: 1 }]],
      ['retain nothing', [{ retain: 0 }, { insert: 'x' }]],
      ['retain less than nothing', [{ retain: -1 }, { insert: 'x' }]],
      ['retain a part', [{ retain: 0.5 }, { insert: 'x' }]],
      ['retain a string', [{ retain: '1' }, { insert: 'x' }]],
      ['retain an embed', [{ retain: { image: 1 } }]],
      ['delete nothing', [{ delete: 0 }]],
      ['delete less than nothing', [{ delete: -1 }]],
      ['delete a string', [{ delete: '1' }]],
      ['delete beyond the end', [{ delete: 6 }]],
      ['retain beyond the end', [{ retain: 6 }, { insert: 'x' }]],
      ['format beyond the end', [{ retain: 6, attributes: { bold: true } }]],
      ['attributes that are a number', [{ insert: 'x', attributes: 5 }]],
      ['attributes that are a string', [{ insert: 'x', attributes: 'bold' }]],
      ['attributes that are a list', [{ insert: 'x', attributes: ['bold'] }]],
      ['half a pair', [{ insert: HALF }]],
      ['half a pair in an attribute', [{ insert: 'x', attributes: { a: HALF } }]],
      ["half a pair in an attribute's name", [{ insert: 'x', attributes: { [HALF]: 1 } }]],
      ['half a pair in an embed', [{ insert: { image: HALF } }]],
      ['insert into a pair', [{ retain: 2 }, { insert: 'x' }]],
      ['delete half a pair', [{ retain: 1 }, { delete: 1 }]],
      ['format half a pair', [{ retain: 1 }, { retain: 1, attributes: { bold: true } }]],
      ['attributes 101 deep', [{ insert: 'x', attributes: { a: JSON.parse(DEEP(101)) } }]],
      ['an embed 101 deep', [{ insert: { a: JSON.parse(DEEP(101)) } }]],
      ['retain as many as numbers go', [{ retain: 2 ** 53 }, { insert: 'x' }]],
    ].map(([what, op]) => [what, editRich(op), BAD_OP]),
    ['retain 1e400', raw(editRich([{ retain: 'RAW' }, { insert: 'x' }]), '1e400'), BAD_OP],
    ['attributes 100,000 deep', raw(editRich([{ insert: 'x', attributes: { a: 'RAW' } }]), DEEP(100_000)), BAD_OP],
    [
      '100,000 components',
      editRich(Array.from({ length: 100_000 }, (_, n) => ({ insert: 'x', attributes: { n } }))),
      [...BAD_OP, 'ERR_TOO_LARGE', ...CLOSES],
    ],
    [
      'attributes named twice',
      raw(editRich([{ insert: 'x', attributes: 'RAW' }]), '{"a":5,"a":{}}'),
      [...BAD_OP, FINE],
    ],
  ],
  'bulk requests': [
    ...['bf', 'bs', 'bu'].flatMap((a) => [
      [`${a} of nothing`, { a, c: 'docs' }, FORM],
      [`${a} of null`, bulk(null, a), FORM],
      [`${a} of a number`, bulk(5, a), FORM],
      [`${a} of a string`, bulk('text', a), FORM],
      [`${a} of a list of numbers`, bulk([5], a), FORM],
      [`${a} of a list of null`, bulk([null], a), FORM],
      [`${a} of an empty name`, bulk([''], a), FORM],
      [`${a} without a collection`, { a, b: ['text'] }, FORM],
      [`${a} of none`, bulk([], a), FINE],
      [`${a} of none, with versions`, bulk({}, a), FINE],
    ]),
    ['100,000 documents', bulk(Array.from({ length: 100_000 }, (_, n) => `d${n}`)), 'ERR_TOO_MANY'],
    [
      '100,000 documents with versions',
      bulk(Object.fromEntries(Array.from({ length: 100_000 }, (_, n) => [`d${n}`, 0]))),
      'ERR_TOO_MANY',
    ],
    ['one document 100,000 times', bulk(Array.from({ length: 100_000 }, () => 'text')), [FINE, 'ERR_TOO_MANY']],
  ],
  handshakes: [
    ['a second handshake', { a: 'hs', id: null, protocol: 1, protocolMinor: 2 }, FINE],
    ['an id that is a number', { a: 'hs', id: 5, protocol: 1, protocolMinor: 2 }, [FORM, FINE]],
    ['an id that is an object', { a: 'hs', id: {}, protocol: 1, protocolMinor: 2 }, [FORM, FINE]],
    ['an id that is a list', { a: 'hs', id: ['x'], protocol: 1, protocolMinor: 2 }, [FORM, FINE]],
    ['an id of half a pair', { a: 'hs', id: HALF, protocol: 1, protocolMinor: 2 }, [FORM, FINE]],
    ['an id of 1 MB', { a: 'hs', id: 'x'.repeat(1_000_000), protocol: 1, protocolMinor: 2 }, [FORM, FINE]],
    ['an id of every object', { a: 'hs', id: '__proto__', protocol: 1, protocolMinor: 2 }, [FORM, FINE]],
    ['a protocol that is an object', { a: 'hs', id: null, protocol: {} }, FORM],
    ['a protocol that is true', { a: 'hs', id: null, protocol: true }, FORM],
    ['a minor that is a list', { a: 'hs', id: null, protocol: 1, protocolMinor: [] }, FORM],
  ],
  presences: [
    ['no channel', presence({ ch: undefined }), FORM],
    ['a channel that is a number', presence({ ch: 5 }), FORM],
    ['an empty channel', presence({ ch: '' }), FORM],
    ['a channel of 10 kB', { a: 'ps', ch: LONG, seq: 1 }, FORM],
    ['no id', presence({ id: undefined }), FORM],
    ['an id that is a number', presence({ id: 5 }), FORM],
    ['a seq that is a string', { a: 'ps', ch: 'room', seq: 'x' }, FORM],
    ['a document without a collection', presence({ d: 'text', v: 1, t: RICH.uri }), FORM],
    ['an unknown type', presence({ c: 'docs', d: 'rich', v: 0, t: 'nope' }), TYPE],
    [
      'a type without positions',
      presence({ c: 'docs', d: 'text', v: 0, t: TEXT.uri }),
      'ERR_TYPE_DOES_NOT_SUPPORT_PRESENCE',
    ],
    ['a position that is none', presence({ c: 'docs', d: 'rich', v: 1, t: RICH.uri, p: 'here' }), FINE],
    [
      'a position before the beginning',
      presence({ c: 'docs', d: 'rich', v: 1, t: RICH.uri, p: { index: -5, length: -5 } }),
      FINE,
    ],
    [
      'a position from the future',
      presence({ c: 'docs', d: 'rich', v: 99, t: RICH.uri, p: { index: 1, length: 0 } }),
      [FINE, FUTURE],
    ],
    ['1 MB', presence({ p: 'x'.repeat(1_000_000) }), ['ERR_TOO_LARGE', ...CLOSES]],
    ['100,000 deep', raw(presence({ p: 'RAW' }), DEEP(100_000)), ['ERR_TOO_LARGE', FORM]],
    ['1,000 deep', raw(presence({ p: 'RAW' }), DEEP(1_000)), [FINE, FORM, 'ERR_TOO_LARGE']],
    ['half a pair', presence({ p: HALF }), [FINE, FORM]],
  ],
};

describe('bad input', () => {
  let server;
  let bystander;
  const DATA = { text: 'a😀b', rich: [{ insert: 'a😀b\n' }] };

  before(async () => {
    server = await Server.start();
    const ann = await Client.connect(server.ws);
    await called((done) => ann.doc('text').create(DATA.text, TEXT.uri, done));
    await called((done) => ann.doc('rich').create(DATA.rich, RICH.uri, done));
    ann.close();
    bystander = await Bystander.join(server);
  });
  after(() => {
    bystander?.leave();
    return server?.stop();
  });

  for (const [chapter, rows] of Object.entries(TABLE)) {
    describe(chapter, () => {
      for (const [what, message, expected] of rows) {
        test(`${what}: ${expected}`, async () => {
          const wire = await Wire.open(server);
          await wire.handshake();
          const start = wire.messages.length;
          wire.say(message);
          const answer = await wire.heard(() => true, 'an answer', start);
          const fate = answer ? (answer.error?.code ?? FINE) : wire.closeCode;
          assert.ok([expected].flat().includes(fate), `${fate}: ${JSON.stringify(answer)}`);
          if (answer) {
            assert.ok(!answer.error || answer.error.message, 'an error says something');
            wire.say({ a: 'pp' });
            await wire.heard(({ a }) => a === 'pp', 'the ping that follows is answered', start);
          }
          wire.end();
          await bystander.assertWell();
        });
      }
    });
  }

  test('requests before the handshake are answered', async () => {
    const wire = await Wire.open(server);
    wire.say(fetch());
    const { data } = await wire.heard(({ a }) => a === 'f', 'the document');
    assert.equal(data.data, DATA.text);
    wire.say(edit([0]));
    assert.ok((await wire.heard(({ a }) => a === 'op', 'the refusal')).error);
    wire.end();
  });

  test('none of the inputs changed a document', async () => {
    const reader = await Client.connect(server.ws);
    const { text, rich } = { text: await reader.fetched('text'), rich: await reader.fetched('rich') };
    assert.deepEqual([text.data, text.version], [DATA.text, 1]);
    // One row, attributes named twice, may be taken as JavaScript takes it: then it is in the log.
    if (rich.version === 1) assert.deepEqual(plain(rich.data), DATA.rich);
    assert.equal((await reader.fetched('new')).version, 0);
    assert.equal((await logOf(server, 'text')).length, 1);
    reader.close();
    await bystander.assertWell();
  });
});
