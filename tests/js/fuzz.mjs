// Randomly malformed input: valid requests and messages with a few random changes.
import net from 'node:net';
import { dice, someText } from './random.mjs';
import { frame, OPCODE, Wire } from './wire.mjs';

/** Requests, of which every part may be changed. */
const REQUESTS = [
  ['GET', '/'],
  ['GET', '/d/plan'],
  ['GET', '/assets/index.js'],
  ['GET', '/healthz'],
  ['GET', '/readyz'],
  ['GET', '/ws'],
  ['GET', '/api/me'],
  ['GET', '/api/documents?collection=docs&limit=50&q=a&after=1.x'],
  ['GET', '/api/documents/docs/plan'],
  ['PATCH', '/api/documents/docs/plan', { title: 'A plan' }],
  ['GET', '/api/documents/docs/plan/people'],
  ['PUT', '/api/documents/docs/plan/people', { login: 'bob', role: 'viewer' }],
  ['PUT', '/api/documents/docs/plan/owner', { login: 'bob' }],
  ['POST', '/api/documents/docs/plan/links', { role: 'viewer', days: 7, password: 'a long password' }],
  ['DELETE', '/api/documents/docs/plan/links/x'],
  ['GET', '/api/documents/docs/plan/audit'],
  ['POST', '/api/links', { secret: 'guess', password: 'guess' }],
  ['POST', '/api/register', { login: 'eve', name: 'Eve', password: 'a long password', invitation: 'guess' }],
  ['POST', '/api/sign-in', { login: 'ann', password: 'guess' }],
  ['POST', '/api/refresh', {}],
  ['POST', '/api/password', { present: 'guess', next: 'another guess' }],
  ['POST', '/api/password-reset', { code: 'guess', password: 'another guess' }],
  ['POST', '/api/invitations', { role: null }],
  ['GET', '/api/people?after=a'],
  ['PUT', '/api/people/role', { login: 'bob', role: 'editor' }],
  ['PUT', '/api/people/disabled', { login: 'bob', disabled: true }],
  ['GET', '/api/audit?before=9'],
];

const HEADERS = [
  ['Content-Type', 'application/json'],
  ['X-Copydesk', '1'],
  ['Origin', 'http://127.0.0.1'],
  ['Authorization', 'Bearer a.b.c'],
  ['Cookie', 'copydesk_access=a.9.b; copydesk_links=c.d'],
  ['Sec-WebSocket-Protocol', 'copydesk, bearer.x'],
  ['Upgrade', 'websocket'],
  ['Connection', 'Upgrade'],
  ['X-Forwarded-For', '192.0.2.1, ::1'],
  ['Transfer-Encoding', 'chunked'],
  ['Expect', '100-continue'],
  ['If-None-Match', '"x"'],
  ['Accept-Encoding', 'br, gzip'],
];

const create = { type: 'http://sharejs.org/types/text-unicode', data: 'x' };
const RICH = 'http://sharejs.org/types/rich-text/v1';

/** Messages of a socket, of which every part may be changed. */
const MESSAGES = [
  { a: 'hs', id: null, protocol: 1, protocolMinor: 2 },
  { a: 'pp' },
  { a: 'f', c: 'docs', d: 'plan', v: 1 },
  { a: 's', c: 'docs', d: 'plan', v: null },
  { a: 'u', c: 'docs', d: 'plan' },
  { a: 'bf', c: 'docs', b: ['plan', 'other'] },
  { a: 'bs', c: 'docs', b: { plan: 1, other: null } },
  { a: 'bu', c: 'docs', b: ['plan'] },
  { a: 'op', c: 'docs', d: 'plan', v: 1, seq: 1, x: {}, op: [1, 'a', { d: 1 }] },
  {
    a: 'op',
    c: 'docs',
    d: 'rich',
    v: 1,
    seq: 2,
    x: {},
    op: [{ retain: 1, attributes: { bold: true } }, { insert: 'a' }, { delete: 1 }],
  },
  { a: 'op', c: 'docs', d: 'new', v: 0, seq: 3, x: {}, create },
  { a: 'op', c: 'docs', d: 'rich', v: 0, seq: 4, x: {}, create: { type: RICH, data: { ops: [{ insert: 'a\n' }] } } },
  { a: 'op', c: 'docs', d: 'new', v: 1, seq: 5, x: {}, del: true },
  { a: 'nf', id: 1, c: 'docs', d: 'plan', v: 1 },
  { a: 'nt', id: 2, c: 'docs', d: 'plan', ts: 1_700_000_000_000 },
  { a: 'ps', ch: 'docs.plan', seq: 1 },
  { a: 'pu', ch: 'docs.plan', seq: 2 },
  { a: 'pr', ch: 'docs.plan' },
  { a: 'p', ch: 'docs.plan', id: 'eve', p: { index: 1, length: 2 }, pv: 1 },
  { a: 'p', ch: 'docs.plan', id: 'eve', p: { index: 1 }, pv: 1, c: 'docs', d: 'plan', v: 1, t: create.type },
];

const ODD = [
  null,
  true,
  0,
  -1,
  1.5,
  1e308,
  2 ** 53,
  '',
  '\0',
  'x'.repeat(70_000),
  [],
  {},
  [[]],
  { __proto__: null, constructor: 1 },
  '\ud800',
  '../..',
  '%00',
  'constructor',
];

/**
 * Sends such input to a server for some seconds, over several connections at once, without a session and, with `headers`, as
 * a signed-in user. Returns how many of each kind it sent.
 */
export async function fuzz(server, { seconds, seed, headers = {} }) {
  const counts = { requests: 0, answers: {}, sockets: 0, messages: 0, frames: 0 };
  const until = performance.now() + seconds * 1_000;
  const lanes = [asksFor, asksFor, speaksTo, speaksTo].map(async (act, lane) => {
    const r = dice(`${seed}/${lane}`);
    while (performance.now() < until && server.isAlive) await act(server, r, r.chance(0.6) ? headers : {}, counts);
  });
  await Promise.all(lanes);
  return counts;
}

/** Sends one or a few requests over one connection. */
async function asksFor(server, r, headers, counts) {
  const socket = net.connect(server.port, '127.0.0.1');
  const ended = new Promise((resolve) => socket.on('close', resolve));
  socket.on('error', () => {});
  let heard = '';
  socket.setEncoding('latin1').on('data', (text) => (heard += text));
  const total = r.from(1, 3);
  for (let n = 0; n < total; n++) socket.write(request(server, r, headers));
  counts.requests += total;
  // The server has a time limit for incomplete requests; this client does not wait for it.
  socket.setTimeout(r.from(20, 200), () => socket.destroy());
  await ended;
  const status = heard.slice(9, 12) || 'none';
  counts.answers[status] = (counts.answers[status] ?? 0) + 1;
}

function request(server, r, headers) {
  const [method, path, body] = r.pick(REQUESTS);
  const text =
    body === undefined ? '' : r.chance(0.5) ? JSON.stringify(changed(r, body)) : bent(r, JSON.stringify(body));
  const lines = [
    `${r.chance(0.9) ? method : r.pick(['OPTIONS', 'HEAD', 'TRACE', 'CONNECT', someText(r)])} ${r.chance(0.5) ? path : bent(r, path)} HTTP/1.${r.chance(0.95) ? 1 : 0}`,
    `Host: 127.0.0.1:${server.port}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    ...HEADERS.filter(() => r.chance(0.3)).map(([name, value]) => `${name}: ${r.chance(0.7) ? value : bent(r, value)}`),
    ...(text
      ? [
          'Content-Type: application/json',
          'X-Copydesk: 1',
          `Content-Length: ${Buffer.byteLength(text) + (r.chance(0.9) ? 0 : r.from(-2, 1_000))}`,
        ]
      : []),
  ];
  const whole = `${lines.join('\r\n')}\r\n\r\n${text}`;
  return r.chance(0.9) ? whole : bent(r, whole);
}

/** Opens a socket and sends messages until it is closed or a limit is reached. */
async function speaksTo(server, r, headers, counts) {
  const wire = await Wire.open(server, { headers });
  counts.sockets += 1;
  if (wire.status !== 101) return wire.end();
  const total = r.from(1, 200);
  for (let n = 0; n < total && !wire.isOver; n++) {
    counts.messages += 1;
    const message = r.pick(MESSAGES);
    const text = r.chance(0.6)
      ? JSON.stringify(changed(r, message))
      : r.chance(0.5)
        ? bent(r, JSON.stringify(message))
        : JSON.stringify(message);
    if (r.chance(0.97)) {
      wire.write(frame(text));
      continue;
    }
    counts.frames += 1;
    const opcode = r.chance(0.5) ? OPCODE.text : r.below(16);
    wire.write(
      bent(r, frame(text, { opcode, fin: r.chance(0.7), rsv: r.chance(0.8) ? 0 : r.below(8), masked: r.chance(0.8) })),
    );
  }
  await new Promise((resolve) => setTimeout(resolve, r.from(0, 50)));
  wire.end();
}

/** The same value with one part replaced. */
function changed(r, value) {
  if (r.chance(0.15)) return r.pick(ODD);
  if (Array.isArray(value)) {
    const items = value.map((item) => (r.chance(0.4) ? changed(r, item) : item));
    return r.chance(0.1) ? [...items, ...items] : items;
  }
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).filter(() => r.chance(0.95));
    const others = entries.map(([key, each]) => [
      r.chance(0.97) ? key : someText(r),
      r.chance(0.35) ? changed(r, each) : each,
    ]);
    return Object.fromEntries(others);
  }
  if (typeof value === 'number') return r.pick([value + 1, -value, value * 1e15, r.below(2 ** 31), value]);
  return typeof value === 'string' ? bent(r, value) : value;
}

/** The same text or bytes with a few of them removed, duplicated or replaced. */
function bent(r, value) {
  const bytes = Buffer.from(value);
  const copy = [...bytes];
  for (let n = r.from(1, 4); n > 0 && copy.length; n--) {
    const at = r.below(copy.length);
    const act = r.below(4);
    if (act === 0) copy.splice(at, r.from(1, 5));
    else if (act === 1) copy.splice(at, 0, ...copy.slice(at, at + r.from(1, 20)));
    else if (act === 2) copy[at] = r.below(256);
    else copy.splice(at, 0, ...Buffer.from(someText(r)));
  }
  const out = Buffer.from(copy);
  return typeof value === 'string' ? out.toString('utf8') : out;
}
