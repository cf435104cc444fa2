// Accounts, permissions and limits over HTTP and sockets: sign-in, roles, share links, revocation and quotas.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { Browser } from './browser.mjs';
import { Client, TEXT, takeWarnings } from './client.mjs';
import { Server } from './server.mjs';
import { called, refused, until } from './wait.mjs';
import { Wire } from './wire.mjs';

const PATIENCE_MS = { downgrade: 1_000, revocation: 5_000 };

let people = 0;
/** A user with a new account. */
const register = (server) => Browser.registered(server, `person-${(people += 1)}`);
const loginOf = async (browser) => (await browser.me()).user.login;
let documents = 0;
/** A document of a user, with the user's client. */
const documentOf = async (browser, text = 'Hello') => {
  const client = await browser.client();
  const doc = client.doc(`secret-${(documents += 1)}`);
  await called((done) => doc.create(text, TEXT.uri, done), 'create');
  await called((done) => doc.subscribe(done), 'subscribe');
  return { client, doc, id: doc.id };
};

describe('accounts', () => {
  let server;
  let admin;
  before(async () => {
    server = await Server.start({ open: false, env: { COPYDESK__AUTH__REGISTRATION: 'open' } });
  });
  after(() => server?.stop());

  /** A user with a new account. */
  const newcomer = () => register(server);

  test('the first account becomes the tenant owner, and is created once', async () => {
    const stranger = new Browser(server);
    assert.equal((await stranger.me()).needs_setup, true);
    admin = await Browser.registered(server, 'Admin@Example.org');
    const me = await admin.me();
    assert.equal(me.needs_setup, false);
    assert.equal(me.user.login, 'admin@example.org');
    assert.equal(me.user.role, 'owner');
    const second = await newcomer();
    assert.equal((await second.me()).user.role, null);
  });

  test('cookies are HttpOnly, SameSite and bound to the host', async () => {
    const response = await fetch(`${server.http}/api/sign-in`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-copydesk': '1' },
      body: JSON.stringify({ login: 'admin@example.org', password: 'password of Admin@Example.org' }),
    });
    assert.equal(response.status, 200);
    const lines = response.headers.getSetCookie();
    assert.equal(lines.length, 3);
    for (const line of lines) assert.match(line, /; HttpOnly; SameSite=Strict; Path=\/; Max-Age=\d+$/);
    assert.equal(await response.text(), '{}');
    assert.equal(response.headers.get('cache-control'), 'no-store');
  });

  test('a wrong password and an unknown login get the same answer, and attempts are throttled', async () => {
    const ann = await newcomer();
    const login = await loginOf(ann);
    const stranger = new Browser(server);
    const answers = [];
    for (const name of [login, 'nobody-at-all']) {
      answers.push(await stranger.post('/api/sign-in', { login: name, password: 'not this one' }));
    }
    assert.deepEqual(
      answers.map(({ status }) => status),
      [403, 403],
    );
    assert.deepEqual(answers[0].body, answers[1].body);
    // Concurrent attempts are spaced out; those that would wait too long are rejected.
    const guesses = guessesAt(login, 60);
    const slowed = await guesses.first(429);
    assert.ok(Number(slowed.headers.get('retry-after')) >= 1);
    guesses.end();
    // Signed-in users and other accounts are not affected.
    assert.equal((await ann.me()).user.login, login);
    const other = await newcomer();
    const back = await new Browser(server).post('/api/sign-in', {
      login: await loginOf(other),
      password: `password of ${await loginOf(other)}`,
    });
    assert.equal(back.status, 200);
  });

  /** Attempts to sign in with `count` wrong passwords at once, by clients without cookies. */
  const guessesAt = (login, count, password = (n) => `not this one ${n}`) => {
    const end = new AbortController();
    const answers = Array.from({ length: count }, (_, n) =>
      fetch(`${server.http}/api/sign-in`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'x-copydesk': '1' },
        body: JSON.stringify({ login, password: password(n) }),
        signal: end.signal,
      }),
    );
    const settled = Promise.allSettled(answers);
    const wants = (status) => async (answer) => {
      const it = await answer;
      return it.status === status ? it : Promise.reject(new Error(`${it.status}`));
    };
    return { settled, first: (status) => Promise.any(answers.map(wants(status))), end: () => end.abort() };
  };

  test('failed attempts from the same address do not prevent a sign-in', async () => {
    const ann = await newcomer();
    const login = await loginOf(ann);
    const password = `password of ${login}`;
    // A browser that signed in before is not throttled by attempts from the address; another browser waits a little.
    const guesses = guessesAt(login, 60);
    await guesses.first(429);
    await ann.post('/api/sign-out');
    for (let n = 0; n < 3; n++) assert.equal((await ann.post('/api/sign-in', { login, password })).status, 200);
    guesses.end();
    await guesses.settled;
    const bob = await newcomer();
    const other = { login: await loginOf(bob), password: `password of ${await loginOf(bob)}` };
    await guessesAt(other.login, 8).settled;
    assert.equal((await new Browser(server).post('/api/sign-in', other)).status, 200);
    // Afterwards the account is not throttled. Repeating the same wrong password does not count as another attempt.
    await guessesAt(other.login, 1, () => 'one wrong password').settled;
    const repeated = await guessesAt(other.login, 60, () => 'one wrong password').settled;
    assert.ok(repeated.every(({ value }) => value?.status === 403));
    for (let n = 0; n < 3; n++) assert.equal((await new Browser(server).post('/api/sign-in', other)).status, 200);
  });

  test('without a session there is no socket, no list and no document', async () => {
    const stranger = new Browser(server);
    assert.equal((await stranger.wire()).status, 401);
    for (const path of ['/api/documents', '/api/documents/docs/secret-1', '/api/documents/docs/secret-1/people']) {
      assert.equal((await stranger.get(path)).status, 401, path);
    }
    for (const forged of ['x', 'x.9999999999.AAAA', '.9999999999.']) {
      stranger.cookies.set('copydesk_access', forged);
      assert.equal((await stranger.wire()).status, 401);
    }
  });

  test('a page of another site can neither open a socket nor change anything', async () => {
    const ann = await newcomer();
    for (const origin of [
      'https://evil.example',
      'null',
      `http://127.0.0.1:${server.port}0`,
      `http://127.0.0.1.evil.example:${server.port}`,
    ]) {
      const wire = await Wire.open(server, { headers: { Cookie: ann.cookie, Origin: origin } });
      assert.equal(wire.status, 403, origin);
      assert.equal((await ann.post('/api/sign-out-everywhere', {}, { origin })).status, 403);
    }
    // A form of the own origin is rejected as well: it cannot set our header.
    const form = await fetch(`${server.http}/api/sign-out`, { method: 'POST', headers: { cookie: ann.cookie } });
    assert.equal(form.status, 403);
    assert.ok((await ann.me()).user);
  });

  test('a document without permission and a missing document get the same answers', async () => {
    const { client, id } = await documentOf(await newcomer());
    const eve = await newcomer();
    const wire = await eve.wire();
    const ask = async (message) => {
      const start = wire.messages.length;
      wire.say(message);
      return wire.heard(({ a }) => a === message.a, 'an answer', start);
    };
    const without = (answer, name) => JSON.parse(JSON.stringify(answer).replaceAll(name, '?'));
    const create = { type: TEXT.uri, data: 'mine' };
    for (const shape of [
      (d) => ({ a: 'f', c: 'docs', d }),
      (d) => ({ a: 's', c: 'docs', d }),
      (d) => ({ a: 'f', c: 'docs', d, v: 0 }),
      (d) => ({ a: 'f', c: 'docs', d, v: 1 }),
      (d) => ({ a: 's', c: 'docs', d, v: 1 }),
      (d) => ({ a: 'bf', c: 'docs', b: [d] }),
      (d) => ({ a: 'bs', c: 'docs', b: { [d]: 1 } }),
      (d) => ({ a: 'nf', id: 1, c: 'docs', d, v: null }),
      (d) => ({ a: 'nt', id: 1, c: 'docs', d, ts: null }),
      (d) => ({ a: 'op', c: 'docs', d, v: 1, seq: 1, x: {}, op: ['x'] }),
      (d) => ({ a: 'op', c: 'docs', d, v: 1, seq: 1, x: {}, del: true }),
      (d) => ({ a: 'ps', ch: `docs.${d}`, seq: 1 }),
      (d) => ({ a: 'p', ch: `docs.${d}`, id: 'eve', p: { index: 0 }, pv: 0 }),
      (d) => ({ a: 'pr', ch: `docs.${d}` }),
    ]) {
      const [theirs, none] = [await ask(shape(id)), await ask(shape('no-such-one'))];
      assert.deepEqual(without(theirs, id), without(none, 'no-such-one'));
      assert.ok(!JSON.stringify(theirs).includes('Hello'));
    }
    const taken = await ask({ a: 'op', c: 'docs', d: id, v: null, seq: 2, x: {}, create });
    assert.equal(taken.error.code, 'ERR_FORBIDDEN');
    for (const what of ['', '/people', '/audit']) {
      const [theirs, none] = await Promise.all(
        [id, 'no-such-one'].map((d) => eve.get(`/api/documents/docs/${d}${what}`)),
      );
      assert.equal(theirs.status, 404);
      assert.deepEqual(theirs.body, none.body);
    }
    const renamed = await eve.ask('PATCH', `/api/documents/docs/${id}`, { title: 'mine' });
    assert.equal(renamed.status, 404);
    assert.deepEqual((await eve.get('/api/documents?collection=docs')).body.documents, []);
    wire.end();
    client.close();
  });

  test('a granted role applies on the open socket, with its permissions', async () => {
    const ann = await newcomer();
    const { client, doc, id } = await documentOf(ann);
    const bob = await newcomer();
    const theirs = await bob.client();
    const copy = await theirs.subscribed(id);
    assert.equal(copy.type, null);
    await ann.gives(await loginOf(bob), 'viewer', id);
    await until(() => copy.type !== null, 'the document is shown');
    assert.equal(copy.data, 'Hello');
    await called((done) => doc.submitOp([5, ' there'], done), 'an edit');
    await until(() => copy.data === 'Hello there', 'the edit is told');
    const error = await refused((done) => copy.submitOp(['No! '], done), 'an edit of a viewer');
    assert.equal(error.code, 'ERR_FORBIDDEN');
    await until(() => copy.data === 'Hello there', 'it is undone');
    assert.equal((await bob.get(`/api/documents/docs/${id}`)).body.role, 'viewer');
    assert.equal((await bob.ask('PATCH', `/api/documents/docs/${id}`, { title: 'mine' })).status, 403);
    assert.equal((await bob.get(`/api/documents/docs/${id}/people`)).status, 403);
    await ann.gives(await loginOf(bob), 'editor', id);
    await until(async () => {
      if (copy.type === null) return false;
      return called((done) => copy.submitOp(['Yes! '], done)).then(
        () => true,
        () => false,
      );
    }, 'the editor may edit');
    assert.equal((await refused((done) => copy.del(done), 'the end')).code, 'ERR_FORBIDDEN');
    await until(() => doc.data === 'Yes! Hello there', 'the owner sees it');
    takeWarnings();
    client.close();
    theirs.close();
  });

  test('a downgrade applies on an open socket within a second', async () => {
    const ann = await newcomer();
    const { client, id } = await documentOf(ann);
    const bob = await newcomer();
    const login = await loginOf(bob);
    for (let round = 0; round < 5; round++) {
      await ann.gives(login, 'editor', id);
      const wire = await bob.wire({ path: '/ws?rights' });
      let seq = 0;
      const submit = async () => {
        const start = wire.messages.length;
        wire.say({ a: 'op', c: 'docs', d: id, v: null, seq: (seq += 1), x: {}, op: ['x'] });
        return wire.heard((message) => message.a === 'op' && message.seq === seq, 'the answer', start);
      };
      assert.equal((await submit()).error, undefined);
      const start = performance.now();
      await ann.gives(login, 'viewer', id);
      const done = performance.now();
      const told = await wire.heard(({ a, role }) => a === 'rights' && role !== 'editor', 'the word');
      assert.deepEqual(told, { a: 'rights', c: 'docs', d: id, role: 'viewer' });
      assert.ok(performance.now() - done < PATIENCE_MS.downgrade, `it took ${performance.now() - start} ms`);
      assert.equal((await submit()).error.code, 'ERR_FORBIDDEN');
      wire.end();
    }
    client.close();
  });

  test('a user who loses a document is sent nothing more of it, and the socket is closed', async () => {
    const ann = await newcomer();
    const { client, doc, id } = await documentOf(ann);
    const bob = await newcomer();
    const login = await loginOf(bob);
    await ann.gives(login, 'editor', id);
    const wire = await bob.wire();
    wire.say({ a: 's', c: 'docs', d: id });
    await wire.heard(({ a }) => a === 's', 'the subscription');
    await ann.gives(login, null, id);
    await until(() => wire.isOver, 'the socket is closed', PATIENCE_MS.revocation);
    assert.equal(wire.closeCode, 4403);
    await called((done) => doc.submitOp([5, ' later'], done), 'an edit');
    assert.ok(!JSON.stringify(wire.messages).includes('later'));
    const back = await bob.wire();
    back.say({ a: 's', c: 'docs', d: id, v: 1 });
    assert.equal((await back.heard(({ a }) => a === 's')).error.code, 'ERR_FORBIDDEN');
    back.end();
    client.close();
  });

  test('a user who loses a document is removed from its presence channel', async () => {
    const ann = await newcomer();
    const { client, id } = await documentOf(ann);
    const bob = await newcomer();
    const login = await loginOf(bob);
    const guest = new Browser(server);
    const links = `/api/documents/docs/${id}/links`;
    const link = (await ann.post(links, { role: 'viewer' })).body;
    assert.equal((await guest.post('/api/links', { secret: link.secret })).status, 200);
    const room = client.connection.getPresence(`docs.${id}`);
    await called((done) => room.subscribe(done), 'presence');
    const cursor = room.create('ann');
    for (const [reader, loses] of [
      [bob, () => ann.gives(login, null, id)],
      [guest, () => ann.ask('DELETE', `${links}/${link.id}`)],
    ]) {
      await ann.gives(login, 'viewer', id);
      // The user never requests the document itself.
      const wire = await reader.wire();
      wire.say({ a: 'ps', ch: `docs.${id}`, seq: 1 });
      await wire.heard(({ a }) => a === 'ps', 'the channel');
      wire.say({ a: 'p', ch: `docs.${id}`, id: 'spy', p: { here: true }, pv: 1 });
      await until(() => room.remotePresences.spy, 'they are seen');
      await loses();
      await until(() => wire.isOver, 'the socket is closed', PATIENCE_MS.revocation);
      assert.equal(wire.closeCode, 4403);
      await until(() => !room.remotePresences.spy, 'they are seen no more');
      const secret = `later than ${wire.messages.length} messages of ${reader === guest ? 'the guest' : login}`;
      await called((done) => cursor.submit({ secret }, done), 'a cursor');
      assert.ok(!JSON.stringify(wire.messages).includes(secret));
      const back = await reader.wire();
      if (back.status !== 101) continue;
      back.say({ a: 'ps', ch: `docs.${id}`, seq: 1 });
      assert.equal((await back.heard(({ a }) => a === 'ps')).error.code, 'ERR_FORBIDDEN');
      back.end();
    }
    client.close();
  });

  test('a cursor cannot be moved or removed by another user through its id', async () => {
    const ann = await newcomer();
    const { client, id } = await documentOf(ann);
    const eve = await newcomer();
    await ann.gives(await loginOf(eve), 'viewer', id);
    const [mine, hers] = [await ann.wire(), await eve.wire()];
    const ch = `docs.${id}`;
    for (const wire of [mine, hers]) {
      wire.say({ a: 'ps', ch, seq: 1 });
      await wire.heard(({ a }) => a === 'ps', 'the channel');
    }
    const say = async (wire, p, pv, name = 'cursor') => {
      const start = wire.messages.length;
      wire.say({ a: 'p', ch, id: name, p, pv });
      return wire.heard((message) => message.a === 'p' && (message.error || message.pv === pv), 'the answer', start);
    };
    assert.equal((await say(mine, 1, 1)).error, undefined);
    for (const [value, version] of [
      [2, 2],
      [null, 3],
    ]) {
      assert.equal((await say(hers, value, version)).error.code, 'ERR_FORBIDDEN');
    }
    assert.equal((await say(hers, 1, 4, 'another')).error, undefined);
    // The next connection of the same user may, because it is the same user's cursor.
    const again = await ann.wire();
    assert.equal((await say(again, 3, 5)).error, undefined);
    const heard = () =>
      hers.messages.filter((message) => message.a === 'p' && message.id === 'cursor' && !message.error);
    await until(() => heard().length === 2, 'both are heard');
    assert.deepEqual(
      heard().map(({ p }) => p),
      [1, 3],
    );
    for (const wire of [mine, hers, again]) wire.end();
    client.close();
  });

  test('a ShareDB client that loses a document gets an error, and its other documents continue', async () => {
    const ann = await newcomer();
    const { client, id } = await documentOf(ann);
    const bob = await newcomer();
    await ann.gives(await loginOf(bob), 'editor', id);
    const theirs = await bob.client();
    const copy = await theirs.subscribed(id);
    const own = await documentOf(bob, 'own');
    const mine = await theirs.subscribed(own.id);
    const errors = [];
    copy.on('error', (error) => errors.push(error));
    await ann.gives(await loginOf(bob), null, id);
    await until(() => theirs.connection.state !== 'connected', 'the socket is closed');
    await theirs.reconnect();
    await until(() => errors.length > 0, 'the loss is told');
    assert.equal(errors[0].code, 'ERR_FORBIDDEN');
    await called((done) => mine.submitOp(['my '], done), 'an edit of the other document');
    takeWarnings();
    for (const each of [client, theirs, own.client]) each.close();
  });

  test('a lost document does not prevent the others from being resumed', async () => {
    const ann = await newcomer();
    const bob = await newcomer();
    const theirs = await bob.client();
    const { client, id } = await documentOf(ann);
    const own = await documentOf(bob, 'own');
    await ann.gives(await loginOf(bob), 'editor', id);
    // Without a handler for the document's errors, the library stops reading the answer at the first error.
    const copies = [await theirs.subscribed(id), await theirs.subscribed(own.id)];
    await ann.gives(await loginOf(bob), null, id);
    await until(() => theirs.connection.state !== 'connected', 'the socket is closed');
    const losses = [];
    const throws = (error) => losses.push(error.code);
    process.on('uncaughtException', throws);
    try {
      await theirs.reconnect();
      await own.doc.submitOp(['their ']);
      await until(() => copies[1].data.startsWith('their '), 'an edit arrives');
    } finally {
      process.off('uncaughtException', throws);
    }
    takeWarnings();
    for (const each of [client, theirs, own.client]) each.close();
  });

  test('signing out closes the sockets of the session, signing out everywhere those of all sessions', async () => {
    const ann = await newcomer();
    const login = await loginOf(ann);
    const phone = new Browser(server);
    const password = `password of ${login}`;
    assert.equal((await phone.post('/api/sign-in', { login, password })).status, 200);
    const [first, second] = [await ann.wire(), await phone.wire()];
    const thief = ann.copy();
    assert.equal((await ann.post('/api/sign-out')).status, 200);
    await until(() => first.isOver, 'the socket is closed', PATIENCE_MS.revocation);
    assert.equal(first.closeCode, 4401);
    // Cookies that were copied before are no longer accepted.
    assert.equal((await thief.wire()).status, 401);
    assert.equal((await thief.post('/api/refresh')).status, 401);
    assert.equal(second.isOver, false);
    assert.equal((await phone.post('/api/sign-out-everywhere')).status, 200);
    await until(() => second.isOver, 'the socket is closed', PATIENCE_MS.revocation);
    assert.equal(second.closeCode, 4401);
  });

  test('a new password requires the present one and ends the other sessions', async () => {
    const ann = await newcomer();
    const login = await loginOf(ann);
    const phone = new Browser(server);
    const password = `password of ${login}`;
    await phone.post('/api/sign-in', { login, password });
    const [here, there] = [await ann.wire(), await phone.wire()];
    assert.equal((await ann.post('/api/password', { present: 'wrong one', next: 'another one' })).status, 403);
    assert.equal((await ann.post('/api/password', { present: password, next: 'short' })).status, 422);
    assert.equal((await ann.post('/api/password', { present: password, next: 'another one' })).status, 200);
    await until(() => there.isOver, 'the other socket is closed', PATIENCE_MS.revocation);
    assert.equal(here.isOver, false);
    assert.equal((await phone.post('/api/sign-in', { login, password })).status, 403);
    assert.equal((await phone.post('/api/sign-in', { login, password: 'another one' })).status, 200);
    here.end();
  });

  test('a refresh token is accepted once: a replay ends the session, two tabs at once do not', async () => {
    const ann = await newcomer();
    // Two tabs with the same cookies.
    for (let round = 0; round < 20; round++) {
      const other = ann.copy();
      const answers = await Promise.all([ann.post('/api/refresh'), other.post('/api/refresh')]);
      assert.deepEqual(
        answers.map(({ status }) => status),
        [200, 200],
      );
      // A browser has one set of cookies: the newest refresh token counts.
      if (
        other.cookies.get('copydesk_refresh') !== ann.cookies.get('copydesk_refresh') &&
        answers[1].headers.getSetCookie().length === 2
      )
        ann.cookies = other.cookies;
    }
    const thief = ann.copy();
    const wire = await ann.wire();
    await ann.post('/api/refresh');
    await ann.post('/api/refresh');
    // A token from two exchanges ago does not come from a second tab.
    assert.equal((await thief.post('/api/refresh')).status, 401);
    await until(() => wire.isOver, 'the socket is closed', PATIENCE_MS.revocation);
    assert.equal(wire.closeCode, 4401);
    assert.equal((await ann.post('/api/refresh')).status, 401);
    assert.equal((await ann.get('/api/documents')).status, 401);
  });

  test('a client cannot act as another one: neither by src, nor by seq, nor by presence', async () => {
    const ann = await newcomer();
    const { client, doc, id } = await documentOf(ann);
    const eve = await newcomer();
    await ann.gives(await loginOf(eve), 'editor', id);
    const src = client.connection.id;
    const wire = await eve.wire();
    wire.say({ a: 'hs', id: src, protocol: 1, protocolMinor: 2 });
    await until(() => wire.messages.filter(({ a }) => a === 'hs').length === 2, 'the handshake is answered');
    assert.notEqual(wire.messages.at(-1).id, src);
    wire.say({ a: 'op', c: 'docs', d: id, v: 1, src, seq: client.connection.seq, x: {}, op: ['Eve '] });
    assert.equal((await wire.heard(({ a }) => a === 'op')).error.code, 'ERR_FORBIDDEN');
    await called((done) => doc.submitOp(['Ann '], done), "the victim's own op");
    assert.equal(doc.data, 'Ann Hello');
    const room = client.connection.getPresence(`docs.${id}`);
    await called((done) => room.subscribe(done), 'presence');
    const heard = [];
    room.on('receive', (name, value) => heard.push([name, value]));
    wire.say({ a: 'p', ch: `docs.${id}`, id: 'ann', src, p: { index: 0, length: 0 }, pv: 5 });
    const own = await wire.heard(({ a }) => a === 'p');
    assert.equal(own.error, undefined);
    assert.notEqual(own.src, src);
    await until(() => heard.length > 0, 'it is heard as hers');
    assert.deepEqual(heard, [['ann', { index: 0, length: 0 }]]);
    wire.end();
    client.close();
  });

  test('a presence has the name of its account, regardless of the name that its client sends', async () => {
    const ann = await newcomer();
    const { client, id } = await documentOf(ann);
    const eve = await newcomer();
    const name = await loginOf(eve);
    await ann.gives(name, 'viewer', id);
    const room = client.connection.getPresence(`docs.${id}`);
    await called((done) => room.subscribe(done), 'presence');
    const wire = await eve.wire();
    await wire.handshake();
    wire.say({ a: 'p', ch: `docs.${id}`, id: 'eve', p: { index: 1, name: await loginOf(ann) }, pv: 1 });
    await until(() => room.remotePresences.eve, 'she is seen');
    assert.deepEqual(room.remotePresences.eve, { index: 1, name });
    wire.end();
    client.close();
  });

  test('a share link opens one document with one role, with its password, until it is ended', async () => {
    const ann = await newcomer();
    const { client, id } = await documentOf(ann);
    const path = `/api/documents/docs/${id}/links`;
    const made = (await ann.post(path, { role: 'viewer', password: 'open sesame' })).body;
    const guest = new Browser(server);
    assert.equal((await guest.post('/api/links', { secret: 'wrong' })).status, 403);
    assert.equal((await guest.post('/api/links', { secret: made.secret })).status, 422);
    assert.equal((await guest.post('/api/links', { secret: made.secret, password: 'wrong one' })).status, 403);
    const opened = await guest.post('/api/links', { secret: made.secret, password: 'open sesame' });
    assert.deepEqual(opened.body, { collection: 'docs', id, role: 'viewer' });
    const theirs = await guest.client();
    const copy = await theirs.subscribed(id);
    assert.equal(copy.data, 'Hello');
    assert.equal((await refused((done) => copy.submitOp(['No '], done), 'an edit')).code, 'ERR_FORBIDDEN');
    const fresh = theirs.doc('guests-own');
    assert.equal((await refused((done) => fresh.create('', TEXT.uri, done), 'a create')).code, 'ERR_FORBIDDEN');
    assert.equal((await guest.get(path.replace('/links', ''))).body?.role, 'viewer');
    assert.equal((await guest.post(path, { role: 'viewer' })).status, 403);
    const wire = await guest.wire();
    wire.say({ a: 's', c: 'docs', d: id });
    await wire.heard(({ a }) => a === 's', 'the subscription');
    assert.equal((await ann.ask('DELETE', `${path}/${made.id}`)).status, 200);
    await until(() => wire.isOver, 'the socket is closed', PATIENCE_MS.revocation);
    assert.equal(wire.closeCode, 4403);
    assert.equal(
      (await new Browser(server).post('/api/links', { secret: made.secret, password: 'open sesame' })).status,
      403,
    );
    takeWarnings();
    client.close();
    theirs.close();
  });

  test('a share link cannot grant the owner role, and only owners create links', async () => {
    const ann = await newcomer();
    const { client, id } = await documentOf(ann);
    const bob = await newcomer();
    await ann.gives(await loginOf(bob), 'editor', id);
    const path = `/api/documents/docs/${id}`;
    assert.equal((await ann.post(`${path}/links`, { role: 'owner' })).status, 400);
    assert.equal((await ann.put(`${path}/people`, { login: await loginOf(bob), role: 'owner' })).status, 400);
    assert.equal((await bob.post(`${path}/links`, { role: 'viewer' })).status, 403);
    assert.equal((await bob.put(`${path}/people`, { login: await loginOf(bob), role: 'editor' })).status, 403);
    assert.equal((await bob.put(`${path}/owner`, { login: await loginOf(bob) })).status, 403);
    assert.equal((await ann.put(`${path}/people`, { login: await loginOf(ann), role: null })).status, 409);
    assert.equal((await ann.put(`${path}/owner`, { login: await loginOf(bob) })).status, 200);
    assert.equal((await ann.get(`${path}/people`)).status, 403);
    const { people } = (await bob.get(`${path}/people`)).body;
    assert.deepEqual(
      people.map(({ role }) => role),
      ['owner', 'editor'],
    );
    const { deeds } = (await bob.get(`${path}/audit`)).body;
    assert.deepEqual(
      deeds.map(({ deed }) => deed),
      ['transfer', 'set role', 'create'],
    );
    client.close();
  });

  test('a tenant owner grants roles on the whole tenant and ends sessions', async () => {
    const ann = await newcomer();
    const { client, id } = await documentOf(ann);
    const bob = await newcomer();
    const login = await loginOf(bob);
    assert.equal((await bob.put('/api/people/role', { login: await loginOf(ann), role: 'owner' })).status, 403);
    assert.equal((await bob.post('/api/people/sign-out', { login: await loginOf(ann) })).status, 403);
    assert.equal((await admin.put('/api/people/role', { login: await loginOf(admin), role: null })).status, 403);
    const wire = await bob.wire({ path: '/ws?rights' });
    wire.say({ a: 's', c: 'docs', d: id });
    await wire.heard(({ a }) => a === 's', 'nothing is shown');
    assert.equal((await admin.put('/api/people/role', { login, role: 'viewer' })).status, 200);
    await wire.heard(({ a, role }) => a === 'rights' && role === 'viewer', 'the role');
    await wire.heard(({ a, create }) => a === 'op' && create, 'the document');
    assert.equal((await admin.post('/api/people/sign-out', { login })).status, 200);
    await until(() => wire.isOver, 'the socket is closed', PATIENCE_MS.revocation);
    assert.equal(wire.closeCode, 4401);
    client.close();
  });

  test('the documents of a tenant cannot be reached by another tenant', async () => {
    const ann = await newcomer();
    const wire = await ann.wire();
    for (const c of ['acme:docs', 'a.b']) {
      wire.say({ a: 'op', c, d: 'x', v: null, seq: 1, x: {}, create: { type: TEXT.uri, data: '' } });
      assert.equal((await wire.heard((message) => message.a === 'op' && message.c === c)).error.code, 'ERR_FORBIDDEN');
    }
    wire.end();
  });

  test('answers with personal data are not cached, and pages are not framed', async () => {
    const { headers } = await new Browser(server).get('/api/me');
    assert.equal(headers.get('cache-control'), 'no-store');
    assert.equal(headers.get('x-content-type-options'), 'nosniff');
    assert.match(headers.get('content-security-policy'), /frame-ancestors 'none'/);
    assert.doesNotMatch(headers.get('content-security-policy'), /script-src[^;]*unsafe-inline/);
  });
});

describe('tenant owners', () => {
  let server;
  let admin;
  before(async () => {
    server = await Server.start({ open: false, env: { COPYDESK__AUTH__REGISTRATION: 'open' } });
    admin = await Browser.registered(server, 'admin');
  });
  after(() => server?.stop());
  const newcomer = () => register(server);

  test('a disabled account has no sockets and cannot sign in, until it is enabled', async () => {
    const bob = await newcomer();
    const login = await loginOf(bob);
    const password = `password of ${login}`;
    assert.equal((await bob.put('/api/people/disabled', { login: await loginOf(admin), disabled: true })).status, 403);
    assert.equal((await bob.get('/api/people')).status, 403);
    const wire = await bob.wire();
    assert.equal((await admin.put('/api/people/disabled', { login, disabled: true })).status, 200);
    await until(() => wire.isOver, 'the socket is closed', PATIENCE_MS.revocation);
    assert.equal(wire.closeCode, 4401);
    assert.equal((await bob.post('/api/refresh')).status, 401);
    const closed = await new Browser(server).post('/api/sign-in', { login, password });
    const wrong = await new Browser(server).post('/api/sign-in', { login, password: 'not this one' });
    assert.deepEqual([closed.status, closed.body], [wrong.status, wrong.body]);
    const { people } = (await admin.get('/api/people')).body;
    assert.equal(people.find((each) => each.login === login).disabled, true);
    assert.equal((await admin.put('/api/people/disabled', { login, disabled: false })).status, 200);
    assert.equal((await new Browser(server).post('/api/sign-in', { login, password })).status, 200);
  });

  test('a reset code sets a new password once', async () => {
    const bob = await newcomer();
    const login = await loginOf(bob);
    const { code } = (await admin.post('/api/people/reset', { login })).body;
    const reset = (browser, body) => browser.post('/api/password-reset', body);
    const password = 'remembered this time';
    assert.equal((await reset(new Browser(server), { code: 'guess', password })).status, 403);
    const wire = await bob.wire();
    const back = new Browser(server);
    assert.equal((await reset(back, { code, password })).status, 200);
    assert.equal((await back.me()).user.login, login);
    await until(() => wire.isOver, 'the old sockets are closed', PATIENCE_MS.revocation);
    assert.equal((await reset(new Browser(server), { code, password })).status, 403);
    assert.equal((await new Browser(server).post('/api/sign-in', { login, password })).status, 200);
  });

  test('a tenant owner reads the audit log', async () => {
    const bob = await newcomer();
    const login = await loginOf(bob);
    const { id } = (await bob.me()).user;
    await new Browser(server).post('/api/sign-in', { login, password: 'not this one' });
    await bob.post('/api/sign-out');
    assert.equal((await (await newcomer()).get('/api/audit')).status, 403);
    const { deeds } = (await admin.get('/api/audit')).body;
    const theirs = deeds.filter(({ actor }) => actor === id).map(({ deed }) => deed);
    assert.deepEqual(theirs, ['sign out', 'fail to sign in', 'sign in', 'make account']);
  });

  test('signing out closes the share links that were opened', async () => {
    const ann = await newcomer();
    const { client, id } = await documentOf(ann);
    const { secret } = (await ann.post(`/api/documents/docs/${id}/links`, { role: 'viewer' })).body;
    const bob = await newcomer();
    assert.equal((await bob.post('/api/links', { secret })).status, 200);
    assert.ok(bob.cookies.has('copydesk_links'));
    await bob.post('/api/sign-out');
    assert.equal(bob.cookies.has('copydesk_links'), false);
    assert.equal((await bob.get(`/api/documents/docs/${id}`)).status, 401);
    client.close();
  });
});

describe('limits', () => {
  let server;
  before(async () => {
    const env = {
      COPYDESK__GATEWAY__USER_MESSAGES_PER_SECOND: '10',
      COPYDESK__GATEWAY__ADDRESS_HANDSHAKES_PER_SECOND: '40',
      COPYDESK__GATEWAY__USER_HANDSHAKES_PER_SECOND: '60',
    };
    server = await Server.start({ open: false, env });
  });
  after(() => server?.stop());

  test('all sockets of a user share a rate limit: first slowed, then notified', async () => {
    const ann = await Browser.registered(server, 'ann');
    // Each socket has one message in flight: many are needed for more than two seconds' worth of messages to wait.
    const wires = await Promise.all(Array.from({ length: 40 }, () => ann.wire()));
    for (const wire of wires) for (let n = 0; n < 2; n++) wire.say({ a: 'f', c: 'docs', d: `d${n}` });
    const answers = () => wires.flatMap(({ messages }) => messages.filter(({ a }) => a === 'f'));
    await until(() => answers().length === 80, 'all are answered');
    const refused = answers().filter(({ error }) => error);
    assert.ok(refused.length > 0 && refused.length < 80, `${refused.length} were refused`);
    assert.deepEqual([...new Set(refused.map(({ error }) => error.code))], ['ERR_BUSY']);
    for (const wire of wires) wire.end();
  });

  test('an address that opens too many sockets is rejected with 429', async () => {
    const statuses = new Set();
    for (let n = 0; n < 2_000 && !statuses.has(429); n++) {
      const wire = await Wire.open(server);
      statuses.add(wire.status);
      wire.end();
    }
    assert.deepEqual([...statuses], [401, 429]);
  });

  test('sockets of sessions are counted apart from others of their address, and each session has a limit', async () => {
    const statuses = (browser, count, names) =>
      Promise.all(
        Array.from({ length: count }, async () => {
          const cookie = [...browser.cookies]
            .filter(([name]) => names.test(name))
            .map((pair) => pair.join('='))
            .join('; ');
          const wire = await Wire.open(server, { headers: { Cookie: cookie, Origin: server.http } });
          wire.end();
          return wire.status;
        }),
      );
    const bob = new Browser(server);
    await bob.post('/api/sign-in', { login: 'ann', password: 'password of ann' });
    const strangers = statuses(new Browser(server), 200, /./);
    // The cookie of the session alone, and that of a browser that has signed in: this browser opens no socket.
    assert.deepEqual(await statuses(bob, 5, /access/), Array(5).fill(101));
    assert.deepEqual(await statuses(bob, 5, /device/), Array(5).fill(401));
    assert.ok((await strangers).includes(429), 'requests without a session are rejected');
    const flood = await statuses(bob, 300, /access/);
    assert.ok(flood.includes(101) && flood.includes(429), 'one session does not get any number');
  });
});

describe("requests from the server's own machine", () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server?.stop());

  test('pages of other origins can neither read nor change anything, programs can', async () => {
    const own = `http://127.0.0.1:${server.port}`;
    for (const [headers, status] of [
      [{}, 101],
      [{ Origin: own }, 101],
      [{ Origin: 'https://evil.example' }, 403],
      [{ Origin: 'null' }, 403],
      [{ Origin: 'http://localhost:1' }, 403],
    ]) {
      const wire = await Wire.open(server, { headers });
      assert.equal(wire.status, status, JSON.stringify(headers));
      wire.end();
    }
    const path = `${server.http}/api/documents/docs/x`;
    const body = JSON.stringify({ title: 'Mine' });
    const rename = (headers) =>
      fetch(path, { method: 'PATCH', body, headers: { 'content-type': 'application/json', ...headers } });
    assert.equal((await rename({ origin: 'https://evil.example' })).status, 403);
    assert.equal((await rename({})).status, 404);
    assert.equal((await rename({ origin: own })).status, 404);
  });

  test('a foreign host name that resolves to the machine is rejected', async () => {
    const answer = async (host, lines = '') => {
      const wire = await Wire.open(server, { upgrade: false });
      wire.write(`GET /api/documents HTTP/1.1\r\nHost: ${host}\r\n${lines}\r\n`);
      await until(() => wire.status, 'an answer');
      wire.end();
      return wire.status;
    };
    assert.equal(await answer(`evil.example:${server.port}`), 403);
    assert.equal(await answer(`127.0.0.1.evil.example:${server.port}`), 403);
    const upgrade =
      'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n';
    assert.equal(
      await answer(`evil.example:${server.port}`, `Origin: http://evil.example:${server.port}\r\n${upgrade}`),
      403,
    );
    for (const host of [`127.0.0.1:${server.port}`, `localhost:${server.port}`, `[::1]:${server.port}`]) {
      assert.equal(await answer(host), 200, host);
    }
  });

  test('an incomplete request body is not waited for', async () => {
    const BODY_PATIENCE_MS = 10_000;
    const wires = [];
    for (const path of ['/api/sign-in', '/api/documents/docs/x']) {
      const wire = await Wire.open(server, { upgrade: false });
      wires.push(wire);
      const method = path.endsWith('x') ? 'PATCH' : 'POST';
      wire.write(
        `${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n\r\n{`,
      );
    }
    const trickle = setInterval(() => wires.forEach((wire) => wire.write(' ')), 200);
    try {
      await until(() => wires.every(({ isGone }) => isGone), 'they are closed', 3 * BODY_PATIENCE_MS);
    } finally {
      clearInterval(trickle);
    }
  });
});

describe('a new server', () => {
  let server;
  before(async () => (server = await Server.start({ open: false })));
  after(() => server?.stop());

  const account = { login: 'eve', name: 'Eve', password: 'a long password' };
  /** The status of a request for the first account, by a name of the server and with further headers. */
  const register = async (host, lines = [], asked = account) => {
    const wire = await Wire.open(server, { upgrade: false });
    const body = JSON.stringify(asked);
    const head = [
      `POST /api/register HTTP/1.1`,
      `Host: ${host}`,
      'X-Copydesk: 1',
      'Content-Type: application/json',
      `Content-Length: ${body.length}`,
      ...lines,
    ];
    wire.write(`${head.join('\r\n')}\r\n\r\n${body}`);
    await until(() => wire.status, 'an answer');
    wire.end();
    return wire.status;
  };

  test('gives the first account to the local machine or for the set-up code, not for a foreign host name', async () => {
    const code = /#invitation=([\w-]+)/.exec(server.log)?.[1];
    assert.ok(code, server.log);
    for (const [host, lines = []] of [
      [`evil.example:${server.port}`],
      [`evil.example:${server.port}`, [`Origin: http://evil.example:${server.port}`]],
      // A single word is a name of this network; a proxy forwards requests of others.
      [`copydesk:${server.port}`],
      [`127.0.0.1:${server.port}`, ['X-Forwarded-For: 192.0.2.1']],
      [`127.0.0.1:${server.port}`, ['Via: 1.1 proxy']],
    ]) {
      assert.equal(await register(host, lines), 403, `${host} ${lines}`);
      assert.equal(await register(host, lines, { ...account, invitation: 'guess' }), 403, `${host} ${lines}`);
    }
    const stranger = new Browser(server);
    const me = await stranger.me();
    assert.deepEqual([me.needs_setup, me.needs_setup_code], [true, false]);
    assert.equal((await stranger.get('/api/me', { 'x-forwarded-for': '192.0.2.1' })).body.needs_setup_code, true);
    for (const password of ['password', 'Passw0rd!', '12345678', 'eveeveeve']) {
      const answer = await stranger.post('/api/register', { ...account, password });
      assert.equal(answer.status, 422, password);
      assert.match(answer.body.error.message, /easy to guess/);
    }
    assert.equal(await register(`copydesk:${server.port}`, [], { ...account, invitation: code }), 200);
    // The code is valid for the first account only.
    assert.equal(await register(`copydesk:${server.port}`, [], { ...account, login: 'bob', invitation: code }), 403);
  });
});

describe('invitations', () => {
  let server;
  before(async () => (server = await Server.start({ open: false })));
  after(() => server?.stop());

  test('registration without an invitation is rejected', async () => {
    const ann = await Browser.registered(server, 'ann');
    const stranger = new Browser(server);
    const asked = { login: 'bob', name: 'Bob', password: 'a long password' };
    for (const invitation of [undefined, 'guess', '']) {
      assert.equal((await stranger.post('/api/register', { ...asked, invitation })).status, 403);
    }
    const { code } = (await ann.post('/api/invitations', { role: null })).body;
    assert.equal((await stranger.post('/api/register', { ...asked, invitation: code })).status, 200);
    assert.equal((await stranger.post('/api/invitations', {})).status, 403);
    const again = { ...asked, login: 'eve', invitation: code };
    assert.equal((await new Browser(server).post('/api/register', again)).status, 403);
  });
  test('a bad invitation reveals no user', async () => {
    const stranger = new Browser(server);
    const asked = { name: 'Eve', password: 'a long password', invitation: 'guess' };
    const answers = [];
    for (const login of ['ann', 'nobody']) answers.push(await stranger.post('/api/register', { ...asked, login }));
    assert.deepEqual(
      answers.map(({ status }) => status),
      [403, 403],
    );
    assert.deepEqual(answers[0].body, answers[1].body);
  });

  test('invitations are listed and revoked, and end with the role of the user who made them', async () => {
    const ann = new Browser(server);
    await ann.post('/api/sign-in', { login: 'ann', password: 'password of ann' });
    const make = async (browser) => (await browser.post('/api/invitations', { role: 'owner' })).body.code;
    const join = async (login, invitation) => {
      const browser = new Browser(server);
      const { status } = await browser.post('/api/register', {
        login,
        name: login,
        password: `password of ${login}`,
        invitation,
      });
      return { browser, status };
    };
    const { browser: max, status } = await join('max', await make(ann));
    assert.equal(status, 200);
    const codes = [await make(max), await make(max)];
    const { invitations } = (await ann.get('/api/invitations')).body;
    assert.equal(invitations.length, 2);
    assert.deepEqual(Object.keys(invitations[0]).sort(), ['expires_at', 'id', 'maker', 'role']);
    assert.equal((await join('kim', codes[0])).status, 200);
    assert.equal((await ann.put('/api/people/role', { login: 'max', role: 'editor' })).status, 200);
    assert.equal((await join('lee', codes[1])).status, 403);
    assert.equal((await max.get('/api/invitations')).status, 403);
    const code = await make(ann);
    const known = (await ann.get('/api/invitations')).body.invitations.map(({ id }) => id);
    for (const id of known) assert.equal((await ann.ask('DELETE', `/api/invitations/${id}`)).status, 200);
    assert.equal((await ann.ask('DELETE', `/api/invitations/${known[0]}`)).status, 404);
    assert.equal((await join('zoe', code)).status, 403);
  });
});

describe('quotas', () => {
  let server;
  before(async () => {
    const env = {
      COPYDESK__AUTH__TENANT_DOCUMENTS_MAX: '2',
      COPYDESK__AUTH__TENANT_MIB_MAX: '1',
      COPYDESK__GATEWAY__USER_SOCKETS_MAX: '3',
      COPYDESK__AUTH__DOCUMENT_LINKS_MAX: '2',
      COPYDESK__AUTH__DOCUMENT_PEOPLE_MAX: '1',
      COPYDESK__AUTH__TENANT_INVITATIONS_MAX: '2',
    };
    server = await Server.start({ open: false, env });
  });
  after(() => server?.stop());

  test('a request over a quota is rejected with a code and loses nothing else', async () => {
    const ann = await Browser.registered(server, 'ann');
    const client = await ann.client();
    const docs = [client.doc('one'), client.doc('two'), client.doc('three')];
    for (const doc of docs.slice(0, 2)) await called((done) => doc.create('', TEXT.uri, done), 'create');
    const full = await refused((done) => docs[2].create('', TEXT.uri, done), 'a third document');
    assert.equal(full.code, 'ERR_QUOTA');
    const page = 'x'.repeat(400_000);
    await called((done) => docs[0].submitOp([page], done), 'a long text');
    await called((done) => docs[1].submitOp([page], done), 'another');
    assert.equal((await refused((done) => docs[0].submitOp([page], done), 'one too many')).code, 'ERR_QUOTA');
    await called((done) => docs[0].submitOp(['y'], done), 'a short one');
    assert.equal(docs[0].data, `y${page}`);
    await called((done) => docs[1].del(done), 'the end');
    takeWarnings();
    client.close();
  });

  test('links, grants and invitations have quotas, and ended ones are not counted', async () => {
    const ann = new Browser(server);
    await ann.post('/api/sign-in', { login: 'ann', password: 'password of ann' });
    const invite = () => ann.post('/api/invitations', { role: null });
    const [
      {
        body: { code },
      },
      { status },
    ] = [await invite(), await invite()];
    assert.equal(status, 200);
    const full = await invite();
    assert.deepEqual([full.status, full.body.error.code], [429, 'quota']);
    await Browser.registered(server, 'bob', code);
    const again = await invite();
    assert.equal(again.status, 200);
    await Browser.registered(server, 'kim', again.body.code);
    const share = () => ann.post('/api/documents/docs/one/links', { role: 'viewer' });
    const links = [await share(), await share()];
    assert.deepEqual(
      links.map((it) => it.status),
      [200, 200],
    );
    assert.equal((await share()).body.error.code, 'quota');
    const ended = await ann.ask('DELETE', `/api/documents/docs/one/links/${links[0].body.id}`);
    assert.equal(ended.status, 200);
    assert.equal((await share()).status, 200);
    const give = (login, role) => ann.put('/api/documents/docs/one/people', { login, role });
    assert.equal((await give('bob', 'viewer')).status, 200);
    assert.equal((await give('kim', 'viewer')).body.error.code, 'quota');
    assert.equal((await give('bob', 'editor')).status, 200);
    assert.equal((await give('bob', null)).status, 200);
    assert.equal((await give('kim', 'viewer')).status, 200);
    // Repeated openings of a link do not displace earlier audit events.
    const guest = new Browser(server);
    for (let n = 0; n < 50; n++)
      assert.equal((await guest.post('/api/links', { secret: links[1].body.secret })).status, 200);
    const { deeds } = (await ann.get('/api/documents/docs/one/audit')).body;
    assert.deepEqual(
      deeds.filter(({ deed }) => deed === 'open link').map(({ times }) => times),
      [50],
    );
    assert.equal(deeds.at(-1).deed, 'create');
    const older = (await ann.get('/api/documents/docs/one/audit?before=1')).body;
    assert.deepEqual(older, { deeds: [], next: null });
  });

  test('sockets of one user above the limit are rejected until others close', async () => {
    const ann = new Browser(server);
    await ann.post('/api/sign-in', { login: 'ann', password: 'password of ann' });
    const wires = [];
    await until(async () => {
      const wire = await Wire.open(server, { headers: ann.headers });
      wires.push(wire);
      return wire.status === 429;
    }, 'one too many');
    assert.equal(wires.filter(({ status }) => status === 101).length, 3);
    wires[0].end();
    await until(async () => {
      const wire = await Wire.open(server, { headers: ann.headers });
      wires.push(wire);
      return wire.status === 101;
    }, 'there is room again');
    for (const wire of wires) wire.end();
  });
});

describe('a session', () => {
  const ACCESS_SECONDS = 3;
  let server;
  before(
    async () =>
      (server = await Server.start({ open: false, env: { COPYDESK__AUTH__ACCESS_SECONDS: String(ACCESS_SECONDS) } })),
  );
  after(() => server?.stop());

  test('keeps its sockets while it is renewed, without a lost op, and closes them when it expires', async () => {
    const ann = await Browser.registered(server, 'ann');
    const client = await ann.client();
    const doc = client.doc('kept');
    await called((done) => doc.create('', TEXT.uri, done), 'create');
    const begun = performance.now();
    let written = 0;
    while (performance.now() - begun < 2.5 * ACCESS_SECONDS * 1_000) {
      assert.equal((await ann.post('/api/refresh')).status, 200);
      await called((done) => doc.submitOp(['x'], done), 'an edit');
      written += 1;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    assert.equal(client.connection.state, 'connected');
    assert.equal(doc.data, 'x'.repeat(written));
    client.close();
    const wire = await ann.wire();
    await until(() => wire.isOver, 'the socket is closed', 3 * ACCESS_SECONDS * 1_000);
    assert.equal(wire.closeCode, 4401);
    assert.equal((await ann.wire()).status, 401);
    assert.equal((await ann.post('/api/refresh')).status, 200);
    assert.equal((await ann.wire()).status, 101);
  });
});

describe("another application's tokens", () => {
  const SECRET = 'a secret that the application shares with us';
  let server;
  before(async () => {
    const env = {
      COPYDESK__AUTH__MODE: 'tokens',
      COPYDESK__AUTH__TOKEN_SECRET: SECRET,
      COPYDESK__AUTH__TOKEN_AUDIENCE: 'desk',
    };
    server = await Server.start({ open: false, env });
  });
  after(() => server?.stop());

  const signText = (claims, secret = SECRET, header = { alg: 'HS256', typ: 'JWT' }) => {
    const part = (text) => Buffer.from(text).toString('base64url');
    const text = `${part(JSON.stringify(header))}.${part(claims)}`;
    return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
  };
  const sign = async (claims, ...rest) =>
    signText(JSON.stringify({ aud: 'desk', exp: Math.floor(Date.now() / 1000) + 300, ...claims }), ...rest);

  test('a signed token opens a socket by header, by subprotocol and by cookie', async () => {
    const token = await sign({ sub: '7', name: 'Ann', tenant: 'acme' });
    const byHeader = await Client.connect(server.ws, { headers: { Authorization: `Bearer ${token}` } });
    const doc = byHeader.doc('plan', 'acme:notes');
    await called((done) => doc.create('Hello', TEXT.uri, done), 'create');
    const byProtocol = await Wire.open(server, { headers: { 'Sec-WebSocket-Protocol': `copydesk, bearer.${token}` } });
    assert.equal(byProtocol.status, 101);
    assert.match(byProtocol.splitter.head, /sec-websocket-protocol: copydesk\r\n/i);
    assert.doesNotMatch(byProtocol.splitter.head, /bearer/);
    const browser = new Browser(server);
    assert.equal((await browser.post('/api/session', {}, { authorization: `Bearer ${token}` })).status, 200);
    assert.deepEqual((await browser.me()).user.name, 'Ann');
    const byCookie = await browser.client();
    assert.equal((await byCookie.subscribed('plan', 'acme:notes')).data, 'Hello');
    byProtocol.end();
    byHeader.close();
    byCookie.close();
  });

  test('a token replaces the session of another user only when the request says so', async () => {
    const tokens = await Promise.all(['Ann', 'Eve'].map((name) => sign({ sub: name, name })));
    const [ann, eve] = tokens.map((token) => ({ authorization: `Bearer ${token}` }));
    const browser = new Browser(server);
    assert.equal((await browser.post('/api/session', {}, ann)).status, 200);
    assert.equal((await browser.post('/api/session', {}, ann)).status, 200);
    for (const body of [{}, { replace: false }]) {
      const refused = await browser.post('/api/session', body, eve);
      assert.equal(refused.status, 409);
      assert.equal(refused.body.error.code, 'other_session');
      assert.deepEqual([refused.body.kept, refused.body.offered], ['Ann', 'Eve']);
      assert.equal((await browser.me()).user.name, 'Ann');
    }
    assert.equal((await browser.post('/api/session', { replace: true }, eve)).status, 200);
    assert.equal((await browser.me()).user.name, 'Eve');
  });

  test('a token that is forged, expired, not yet valid or for another audience opens nothing', async () => {
    const now = Math.floor(Date.now() / 1000);
    const tokens = [
      '',
      'x.y.z',
      await sign({ sub: '7' }, 'another secret that nobody has shared with us'),
      await sign({ sub: '7' }, SECRET, { alg: 'none' }),
      await sign({ sub: '7' }, SECRET, { alg: 'HS512' }),
      await sign({ sub: '7', exp: now - 61 }),
      await sign({ sub: '7', nbf: now + 120 }),
      await sign({ sub: '7', aud: 'others' }),
      await sign({ sub: '' }),
      await sign({ sub: '7', tenant: 'a.b' }),
    ];
    for (const token of tokens) {
      const wire = await Wire.open(server, { headers: { Authorization: `Bearer ${token}` } });
      assert.equal(wire.status, 401, token);
    }
  });

  test('a token gives roles on documents, in its own tenant only', async () => {
    const owner = await Client.connect(server.ws, {
      headers: { Authorization: `Bearer ${await sign({ sub: '1', tenant: 'globex' })}` },
    });
    const doc = owner.doc('plan', 'globex:notes');
    await called((done) => doc.create('Hello', TEXT.uri, done), 'create');
    const documents = { 'globex:notes/plan': 'viewer' };
    const reader = await Client.connect(server.ws, {
      headers: { Authorization: `Bearer ${await sign({ sub: '2', tenant: 'globex', documents })}` },
    });
    const copy = await reader.subscribed('plan', 'globex:notes');
    assert.equal(copy.data, 'Hello');
    assert.equal((await refused((done) => copy.submitOp(['No '], done), 'an edit')).code, 'ERR_FORBIDDEN');
    const stranger = await Client.connect(server.ws, {
      headers: { Authorization: `Bearer ${await sign({ sub: '2', tenant: 'initech', documents, role: 'owner' })}` },
    });
    assert.equal((await stranger.subscribed('plan', 'globex:notes')).type, null);
    takeWarnings();
    for (const each of [owner, reader, stranger]) each.close();
  });

  test('a role that is granted here applies beside the roles of the token, on the open socket', async () => {
    const owner = new Browser(server);
    const headers = { authorization: `Bearer ${await sign({ sub: '1', tenant: 'hooli' })}` };
    const client = await Client.connect(server.ws, { headers: { Authorization: headers.authorization } });
    const doc = client.doc('plan', 'hooli:notes');
    await called((done) => doc.create('Hello', TEXT.uri, done), 'create');
    const bob = await Client.connect(server.ws, {
      headers: { Authorization: `Bearer ${await sign({ sub: '2', tenant: 'hooli' })}` },
    });
    const copy = await bob.subscribed('plan', 'hooli:notes');
    assert.equal(copy.type, null);
    const given = await owner.put('/api/documents/hooli:notes/plan/people', { id: '2', role: 'editor' }, headers);
    assert.equal(given.status, 200);
    await until(() => copy.data === 'Hello', 'the document is shown on the same socket');
    await called((done) => copy.submitOp(['Bob: '], done), 'an edit');
    for (const each of [client, bob]) each.close();
  });

  test('a token with an expiry beyond all clocks opens a socket', async () => {
    for (const exp of [2 ** 53, '9223372036854775807', '18446744073709551615']) {
      const token = signText(`{"aud":"desk","sub":"7","exp":${exp}}`);
      const wire = await Wire.open(server, { headers: { Authorization: `Bearer ${token}` } });
      assert.equal(wire.status, 101, String(exp));
      await wire.handshake();
      wire.end();
    }
    assert.deepEqual(server.panics, []);
  });

  test('all tokens of a user that were issued until then are ended', async () => {
    const now = () => Math.floor(Date.now() / 1000);
    const bearer = (token) => ({ authorization: `Bearer ${token}` });
    const owner = bearer(await sign({ sub: '1', tenant: 'umbrella', role: 'owner' }));
    const [old, undated] = [
      await sign({ sub: '2', tenant: 'umbrella', iat: now() - 5 }),
      await sign({ sub: '2', tenant: 'umbrella' }),
    ];
    const wire = await Wire.open(server, { headers: { Authorization: `Bearer ${old}` } });
    const browser = new Browser(server);
    assert.equal((await browser.post('/api/people/sign-out', { login: '1' }, bearer(old))).status, 403);
    assert.equal((await browser.post('/api/people/sign-out', { login: '2' }, owner)).status, 200);
    await until(() => wire.isOver, 'the socket is closed', PATIENCE_MS.revocation);
    assert.equal(wire.closeCode, 4401);
    for (const token of [old, undated]) {
      assert.equal((await Wire.open(server, { headers: { Authorization: `Bearer ${token}` } })).status, 401);
    }
    const later = await sign({ sub: '2', tenant: 'umbrella', iat: now() + 2 });
    assert.equal((await Wire.open(server, { headers: { Authorization: `Bearer ${later}` } })).status, 101);
  });

  test('a socket is closed when its token expires', async () => {
    // The leeway for differing clocks does not extend the socket.
    const token = await sign({ sub: '7', exp: Math.floor(Date.now() / 1000) + 2 });
    const wire = await Wire.open(server, { headers: { Authorization: `Bearer ${token}` } });
    assert.equal(wire.status, 101);
    await until(() => wire.isOver, 'the socket is closed');
    assert.equal(wire.closeCode, 4401);
  });
});
