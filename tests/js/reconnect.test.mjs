// A connection that breaks at any moment loses no edit: each is committed exactly once.
import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { Delta, RICH, TEXT } from './client.mjs';
import { FaultProxy } from './proxy.mjs';
import { setStage } from './stage.mjs';
import { called, until } from './wait.mjs';
import { logOf, Wire } from './wire.mjs';

const stage = setStage();
const proxies = [];
afterEach(() => proxies.splice(0).forEach((proxy) => proxy.close()));

async function newProxy() {
  const proxy = await FaultProxy.to(stage.server);
  proxies.push(proxy);
  return proxy;
}

const begin = (type) => (type === TEXT ? 'start' : [{ insert: 'start\n' }]);
const insert = (type, text) => (type === TEXT ? [text] : new Delta().insert(text));
const textOf = (doc) => (doc.type === TEXT ? doc.data : doc.data.ops.map((part) => part.insert).join(''));
const submit = (doc, op) => called((done) => doc.submitOp(op, done), 'an edit');
const occurrences = (text, part) => text.split(part).length - 1;

/** A rule that cuts once, at the first message that matches. */
function once(matches, verdict) {
  let armed = true;
  return (message, towards) => {
    if (!armed || !matches(message, towards)) return 'pass';
    armed = false;
    return verdict;
  };
}

const isSubmit = (message, towards) => towards === 'server' && message.a === 'op';
const isAck = (message, towards) => towards === 'client' && message.a === 'op';

const CUTS = [
  ['before the op is written', isSubmit, 'drop'],
  ['in the middle of the op', isSubmit, 'half'],
  ['as soon as the op is written', isSubmit, 'last'],
  ['before the ack is read', isAck, 'drop'],
  ['in the middle of the ack', isAck, 'half'],
  ['as soon as the ack is read', isAck, 'last'],
];

for (const type of [TEXT, RICH]) {
  describe(`${type.name}: an edit is in flight when the connection is cut`, () => {
    for (const [when, matches, verdict] of CUTS) {
      for (const restarts of [false, true]) {
        const name = `${when}${restarts ? ', and the server is killed and comes back' : ''}`;
        test(name, async () => {
          const proxy = await newProxy();
          const [ann, bob] = [await stage.client({ url: proxy.ws }), await stage.client()];
          const [mine, theirs] = await stage.shared(type, begin(type), [ann, bob]);
          const { id } = ann.connection;
          proxy.rule = once(matches, verdict);
          let acks = 0;
          mine.submitOp(insert(type, '<ann>'), (error) => (acks += error ? 100 : 1));
          await until(() => ann.connection.state === 'disconnected', 'the connection is cut');
          if (restarts) {
            await stage.server.restart();
            await bob.reconnect();
          }
          mine.submitOp(insert(type, '<offline>'), (error) => (acks += error ? 100 : 1));
          await submit(theirs, insert(type, '<bob 1>'));
          await submit(theirs, insert(type, '<bob 2>'));
          await ann.reconnect();
          await stage.converged([mine, theirs]);
          assert.equal(ann.connection.id, id, 'the client keeps its id');
          assert.equal(acks, 2);
          for (const part of ['<ann>', '<offline>', '<bob 1>', '<bob 2>']) {
            assert.equal(occurrences(textOf(mine), part), 1, part);
          }
        });
      }
    }
  });
}

describe('a create or delete is in flight when the connection is cut', () => {
  for (const [when, matches, verdict] of CUTS) {
    test(`create: ${when}`, async () => {
      const proxy = await newProxy();
      const ann = await stage.client({ url: proxy.ws });
      const doc = ann.doc(stage.freshId());
      proxy.rule = once(matches, verdict);
      const created = called((done) => doc.create('text', TEXT.uri, done), 'create');
      await until(() => ann.connection.state === 'disconnected', 'the connection is cut');
      await ann.reconnect();
      await created;
      const log = await stage.converged([doc]);
      assert.equal(log.length, 1);
    });

    test(`delete: ${when}`, async () => {
      const proxy = await newProxy();
      const [ann, bob] = [await stage.client({ url: proxy.ws }), await stage.client()];
      const [mine, theirs] = await stage.shared(TEXT, 'text', [ann, bob]);
      proxy.rule = once(matches, verdict);
      const deleted = called((done) => mine.del(done), 'delete');
      await until(() => ann.connection.state === 'disconnected', 'the connection is cut');
      await ann.reconnect();
      await deleted;
      const log = await stage.converged([mine, theirs]);
      assert.equal(log.filter((entry) => entry.del).length, 1);
    });
  }
});

describe('repeated cuts', () => {
  for (const type of [TEXT, RICH]) {
    test(`${type.name}: an edit is committed once though the way back is cut five times at each message`, async () => {
      const proxy = await newProxy();
      const [ann, bob] = [await stage.client({ url: proxy.ws }), await stage.client()];
      const [mine, theirs] = await stage.shared(type, begin(type), [ann, bob]);
      const steps = [
        (message, towards) => towards === 'server' && message.a === 'hs',
        (message, towards) => towards === 'client' && message.a === 'init',
        (message, towards) => towards === 'client' && message.a === 'hs',
        isSubmit,
        isAck,
        (message, towards) => towards === 'server' && message.a === 's',
        (message, towards) => towards === 'client' && message.a === 's',
      ];
      ann.cut();
      for (const [step, matches] of steps.entries()) {
        for (let time = 0; time < 5; time++) {
          mine.submitOp(insert(type, `<${step}.${time}>`));
          const cuts = proxy.cuts + 1;
          proxy.rule = once(matches, time % 2 ? 'drop' : 'last');
          ann.rebind();
          await submit(theirs, insert(type, '.'));
          await until(() => proxy.cuts === cuts && ann.connection.state === 'disconnected', 'the connection is cut');
        }
      }
      proxy.rule = () => 'pass';
      await ann.reconnect();
      await stage.converged([mine, theirs]);
      for (let step = 0; step < steps.length; step++) {
        for (let time = 0; time < 5; time++) {
          assert.equal(occurrences(textOf(mine), `<${step}.${time}>`), 1, `<${step}.${time}>`);
        }
      }
    });
  }

  test('ten documents edited offline on one connection are committed after a reconnect', async () => {
    const [ann, bob] = [await stage.client(), await stage.client()];
    const pairs = await Promise.all(Array.from({ length: 10 }, () => stage.shared(TEXT, '', [ann, bob])));
    ann.cut();
    for (let n = 0; n < 10; n++) for (const [mine] of pairs) mine.submitOp([String(n)]);
    await Promise.all(pairs.map(([, theirs]) => submit(theirs, ['bob'])));
    await ann.reconnect();
    for (const docs of pairs) {
      await stage.converged(docs);
      assert.equal(docs[0].data, '9876543210bob');
    }
  });

  test('two live connections with one client id are both served', async () => {
    const ann = await stage.client();
    const [mine] = await stage.shared(TEXT, '', [ann]);
    const twin = await Wire.open(stage.server);
    await twin.handshake(ann.connection.id);
    twin.say({ a: 's', c: 'docs', d: mine.id, v: 1 });
    await twin.heard((message) => message.a === 's', 'the subscription');
    await submit(mine, ['a']);
    await twin.heard((message) => message.a === 'op' && message.v === 1, 'the edit');
    twin.end();
    await submit(mine, ['b']);
    await stage.converged([mine]);
  });
});

describe('client identity', () => {
  /** The cookie that the page gives a browser that has none. */
  async function guest() {
    const page = await fetch(stage.server.http);
    await page.arrayBuffer();
    const cookies = page.headers.getSetCookie().map((cookie) => cookie.split(';')[0]);
    assert.ok(cookies.length, 'the page gives a guest its cookie');
    return { Cookie: cookies.join('; ') };
  }

  const code = (answer) => answer?.error?.code;

  test('two guests are two users, and neither can submit under the client id of the other', async () => {
    const [victim, thief] = [await guest(), await guest()];
    assert.notDeepEqual(victim, thief);
    const ann = await stage.client({ headers: victim });
    const [mine] = await stage.shared(TEXT, '', [ann]);
    await submit(mine, ['a']);
    const { id } = ann.connection;
    const next = ann.connection.seq;

    // The second guest has read ann's client id in the log, and uses the number of her next op.
    const wire = await Wire.open(stage.server, { headers: thief });
    wire.say({ a: 'hs', id, protocol: 1, protocolMinor: 2 });
    const greeting = await wire.heard((message) => message.a === 'hs', 'the handshake');
    assert.notEqual(greeting?.id, id, 'the id is not taken over');
    wire.say({ a: 'op', c: 'docs', d: mine.id, v: 2, src: id, seq: next, x: {}, op: ['stolen'] });
    const answer = await wire.heard((message) => message.a === 'op' && message.seq === next, 'the refusal');
    assert.ok(code(answer), `the op is refused: ${JSON.stringify(answer)}; the socket closed with ${wire.closeCode}`);

    await submit(mine, ['b']);
    const log = await stage.converged([mine]);
    assert.deepEqual(
      log.map((entry) => entry.op ?? 'create'),
      ['create', ['a'], ['b']],
    );
    wire.end();
  });

  test('a client id that was never issued is not resumed', async () => {
    const wire = await Wire.open(stage.server);
    wire.say({ a: 'hs', id: 'of-my-own-making', protocol: 1, protocolMinor: 2 });
    const greeting = await wire.heard((message) => message.a === 'hs', 'the handshake');
    assert.notEqual(greeting?.id, 'of-my-own-making');
    wire.end();
  });

  test('an op resent without the earlier client id is still acked', async () => {
    const ann = await stage.client();
    const [mine] = await stage.shared(TEXT, '', [ann]);
    await submit(mine, ['a']);
    const old = { src: ann.connection.id, seq: ann.connection.seq - 1 };
    const wire = await Wire.open(stage.server);
    await wire.handshake();
    wire.say({ a: 'op', c: 'docs', d: mine.id, v: 1, ...old, x: {}, op: ['a'] });
    const ack = await wire.heard((message) => message.a === 'op' && message.seq === old.seq, 'the ack');
    assert.deepEqual([ack.error, ack.v, ack.src], [undefined, 1, old.src]);
    assert.equal((await logOf(stage.server, mine.id)).length, 2);
    wire.end();
  });
});
