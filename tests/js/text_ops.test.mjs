// Edits of plain-text documents over HTTP, beside clients on sockets.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser } from './browser.mjs';
import { Client, Delta, RICH, TEXT, takeWarnings } from './client.mjs';
import { Server } from './server.mjs';
import { called, until } from './wait.mjs';

let documents = 0;
const nextId = () => `text-ops-${(documents += 1)}`;

/** Creates a plain-text document with this text and subscribes to it. */
async function created(client, text) {
  const doc = client.doc(nextId());
  await called((done) => doc.create(text, TEXT.uri, done), 'create');
  await called((done) => doc.subscribe(done), 'subscribe');
  return doc;
}

const pathOf = (id, collection = 'docs') => `/api/documents/${collection}/${id}/text-ops`;

describe('text edits over HTTP', () => {
  let server;
  let client;
  before(async () => {
    server = await Server.start();
    client = await Client.connect(server.ws);
  });
  after(async () => {
    client?.close();
    await server?.stop();
    assert.deepEqual(takeWarnings(), []);
  });

  /** Sends a body unchanged. */
  const send = async (id, body) => {
    const headers = { 'content-type': 'application/json', 'x-copydesk': '1' };
    const response = await fetch(server.http + pathOf(id), { method: 'POST', headers, body });
    const text = await response.text();
    return { status: response.status, body: text ? JSON.parse(text) : undefined };
  };
  const edit = (id, base, ops) => send(id, JSON.stringify({ base, ops }));

  test('an edit is committed, answered with its revision and delivered to subscribers', async () => {
    const doc = await created(client, 'Hello world');
    const { status, body } = await edit(doc.id, doc.version, [5, ', dear', -1, 5]);
    assert.equal(status, 200);
    assert.deepEqual(body, { revision: 2, ops: [5, ', dear', -1] });
    await until(() => doc.data === 'Hello, dearworld', 'the edit is delivered');
    assert.equal(doc.version, 2);
  });

  test('an edit with an old base is transformed over the commits since', async () => {
    const doc = await created(client, 'abc');
    await called((done) => doc.submitOp(['😀'], done), 'an insert at the start');
    const { status, body } = await edit(doc.id, 1, [3, 'd']);
    assert.deepEqual([status, body], [200, { revision: 3, ops: [4, 'd'] }]);
    await until(() => doc.data === '😀abcd', 'the edit is delivered');
    // A character that both deleted is deleted once.
    await called((done) => doc.submitOp([{ d: 1 }], done), 'a delete');
    const same = await edit(doc.id, 3, [-1, 4]);
    assert.deepEqual([same.status, same.body], [200, { revision: 5, ops: [] }]);
    await until(() => doc.version === 5 && doc.data === 'abcd', 'the second delete changes nothing');
  });

  test('a repeated request is a second edit', async () => {
    const doc = await created(client, '');
    for (const revision of [2, 3]) assert.equal((await edit(doc.id, 1, ['x'])).body.revision, revision);
    await until(() => doc.data === 'xx', 'both edits are delivered');
  });

  test('edits over HTTP and of sockets at the same time converge', async () => {
    const doc = await created(client, '');
    const other = await Client.connect(server.ws);
    const theirs = await other.subscribed(doc.id);
    const EACH = 40;
    const overHttp = async (letter) => {
      let base = 1;
      for (let n = 0; n < EACH; n++) {
        const { status, body } = await edit(doc.id, base, [letter]);
        assert.equal(status, 200);
        base = body.revision;
      }
    };
    const overSocket = async (copy, letter) => {
      for (let n = 0; n < EACH; n++) await called((done) => copy.submitOp([letter], done), 'an op');
    };
    await Promise.all([overHttp('h'), overHttp('p'), overSocket(doc, 's'), overSocket(theirs, 't')]);
    const last = 1 + 4 * EACH;
    await until(() => doc.version === last && theirs.version === last, 'both clients have all commits');
    assert.equal(doc.data, theirs.data);
    for (const letter of 'hpst') assert.equal(doc.data.split(letter).length - 1, EACH, letter);
    other.close();
  });

  test('bad input is rejected and changes nothing', async () => {
    const doc = await created(client, 'abc');
    const cases = [
      ['a base from the future', JSON.stringify({ base: 2, ops: ['x', 3] }), 409, 'bad_base'],
      ['a base beyond all revisions', '{"base":18446744073709551615,"ops":["x"]}', 422, 'bad_ops'],
      ['a longer text', JSON.stringify({ base: 1, ops: [4, 'x'] }), 422, 'bad_ops'],
      ['a delete beyond the end', JSON.stringify({ base: 1, ops: [2, -2] }), 422, 'bad_ops'],
      ['a huge count', '{"base":1,"ops":[9223372036854775807]}', 422, 'bad_ops'],
      ['a count beyond 64 bits', '{"base":1,"ops":[18446744073709551616]}', 422, 'bad_ops'],
      ['the least 64-bit number', '{"base":1,"ops":[-9223372036854775808]}', 422, 'bad_ops'],
      ['a fraction', '{"base":1,"ops":[1.5]}', 422, 'bad_ops'],
      ['retains alone', '{"base":1,"ops":[3]}', 422, 'bad_ops'],
      ['no components', '{"base":1,"ops":[]}', 422, 'bad_ops'],
      ['no count', '{"base":1,"ops":[0]}', 422, 'bad_ops'],
      ['an empty insert', '{"base":1,"ops":[""]}', 422, 'bad_ops'],
      ['half a surrogate pair', '{"base":1,"ops":["\\ud83d",3]}', 422, 'bad_ops'],
      ['an object as a component', '{"base":1,"ops":[{"d":1}]}', 422, 'bad_ops'],
      ['no list', '{"base":1,"ops":"x"}', 422, 'bad_ops'],
    ];
    for (const [name, body, status, code] of cases) {
      const answer = await send(doc.id, body);
      assert.deepEqual([answer.status, answer.body.error.code], [status, code], name);
    }
    const malformed = [
      ['a negative base', '{"base":-1,"ops":["x"]}'],
      ['a fraction as the base', '{"base":1.5,"ops":["x"]}'],
      ['a text as the base', '{"base":"1","ops":["x"]}'],
      ['no base', '{"ops":["x"]}'],
      ['no ops', '{"base":1}'],
      ['another member', '{"base":1,"ops":["x"],"seq":1}'],
      ['no JSON', '{"base":1,'],
    ];
    for (const [name, body] of malformed) assert.equal((await send(doc.id, body)).status, 400, name);
    const large = await send(doc.id, JSON.stringify({ base: 1, ops: ['x'.repeat(20_000)] }));
    assert.equal(large.status, 413);
    // The text and its revision are as before: the next edit is made on them.
    assert.deepEqual((await edit(doc.id, 1, ['d'])).body, { revision: 2, ops: ['d'] });
    await until(() => doc.data === 'dabc', 'the edit is delivered');
  });

  test('only existing plain-text documents are edited', async () => {
    assert.equal((await edit(nextId(), 0, ['x'])).status, 404);
    const rich = client.doc(nextId());
    await called((done) => rich.create(new Delta().insert('abc\n'), RICH.uri, done), 'create');
    for (const ops of [[4], ['x', 4], [-1, 3]]) {
      const answer = await edit(rich.id, 1, ops);
      assert.deepEqual([answer.status, answer.body.error.code], [422, 'bad_ops'], JSON.stringify(ops));
    }
    assert.equal(rich.version, 1);
    await called((done) => rich.del(done), 'delete');
    assert.equal((await edit(rich.id, 2, ['x'])).status, 404);
  });
});

describe('permission to edit text over HTTP', () => {
  let server;
  let owner;
  let doc;
  before(async () => {
    server = await Server.start({ open: false, env: { COPYDESK__AUTH__REGISTRATION: 'open' } });
    owner = await Browser.registered(server, 'text-owner');
    doc = await created(await owner.client(), 'abc');
  });
  after(() => server?.stop());

  const edit = (browser, base, ops) => browser.post(pathOf(doc.id), { base, ops });

  test('an editor may edit; a viewer and a user without a role may not', async () => {
    assert.deepEqual((await edit(owner, 1, ['1', 3])).body, { revision: 2, ops: ['1'] });
    const reader = await Browser.registered(server, 'text-reader');
    assert.equal((await edit(reader, 2, ['x'])).status, 404);
    await owner.gives('text-reader', 'viewer', doc.id);
    const refused = await edit(reader, 2, ['x']);
    assert.deepEqual([refused.status, refused.body.error.code], [403, 'forbidden']);
    await owner.gives('text-reader', 'editor', doc.id);
    assert.deepEqual((await edit(reader, 2, ['2'])).body, { revision: 3, ops: ['2'] });
    await until(() => doc.data === '21abc', 'both edits are delivered');
  });

  test('without a session the edit is rejected', async () => {
    const headers = { 'content-type': 'application/json', 'x-copydesk': '1' };
    const body = JSON.stringify({ base: 3, ops: ['x'] });
    const response = await fetch(server.http + pathOf(doc.id), { method: 'POST', headers, body });
    assert.ok([401, 404].includes(response.status), `${response.status}`);
    assert.equal(doc.data, '21abc');
  });
});
