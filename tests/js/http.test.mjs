// HTTP requests of unauthenticated clients: compressed bodies, requests that never end, answers that are not read, and the
// headers of all answers.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { brotliCompressSync, brotliDecompressSync, constants, deflateSync, gunzipSync, gzipSync } from 'node:zlib';
import { Server } from './server.mjs';
import { until } from './wait.mjs';

const MB = 1 << 20;

/** The most connections of one address in these tests. */
const CONNECTIONS = 60;

/** Sends one request and resolves to its answer. */
function ask(server, method, path, { headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    // Node announces no length of a DELETE's body by itself.
    const length =
      body === undefined || 'transfer-encoding' in headers ? {} : { 'content-length': Buffer.byteLength(body) };
    const options = {
      host: '127.0.0.1',
      port: server.port,
      method,
      path,
      agent: false,
      headers: { ...length, ...headers },
    };
    const request = http.request(options, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () =>
        resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(parts) }),
      );
    });
    request.on('error', reject);
    request.end(body);
  });
}

/** A connection as bytes. */
class Raw {
  text = '';
  isGone = false;

  constructor(server) {
    this.socket = net.connect(server.port, '127.0.0.1');
    this.socket.setEncoding('latin1').on('data', (text) => (this.text += text));
    this.socket.on('error', () => (this.isGone = true)).on('close', () => (this.isGone = true));
  }

  send(text) {
    this.socket.write(text);
    return this;
  }

  /** The statuses of the answers so far. */
  get statuses() {
    return [...this.text.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map(([, status]) => Number(status));
  }
}

/** Every route that the sources declare, with names in place of their parameters. */
function routes() {
  const folder = new URL('../../src/gateway/', import.meta.url);
  const found = new Set([
    '/',
    '/ws',
    '/ws/',
    '/healthz',
    '/readyz',
    '/favicon.svg',
    '/assets/gone.js',
    '/gone',
    '/api/gone',
    '/d/x',
  ]);
  for (const file of readdirSync(folder, { recursive: true }).filter((name) => name.endsWith('.rs'))) {
    const source = readFileSync(new URL(file, folder), 'utf8');
    for (const [, path] of source.matchAll(/"(\{document\}\/[a-z{}/]+|\/api\/[^"]*)"/g)) {
      found.add(path.replace('{document}', '/api/documents/docs/x').replace(/\{[^}]*\}/g, 'x'));
    }
  }
  return [...found];
}

describe('requests of unauthenticated clients', () => {
  let server;
  before(async () => {
    const bounds = {
      REQUEST_TIMEOUT_MS: 1500,
      ANSWER_TIMEOUT_MS: 1000,
      ADDRESS_CONNECTIONS_MAX: CONNECTIONS,
      ADDRESS_REQUESTS_PER_SECOND: 100_000,
    };
    const env = Object.fromEntries(
      Object.entries(bounds).map(([name, value]) => [`COPYDESK__GATEWAY__${name}`, String(value)]),
    );
    server = await Server.start({ open: false, env });
  });
  after(() => server?.stop());

  const ours = { 'x-copydesk': '1', 'content-type': 'application/json' };

  test('a compressed body is rejected before it is decompressed, on every route', async () => {
    const spaces = Buffer.alloc(64 * MB, ' ');
    const bombs = {
      br: brotliCompressSync(spaces, { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } }),
      gzip: gzipSync(spaces, { level: 1 }),
      deflate: deflateSync(spaces, { level: 1 }),
    };
    // A body above the size limit gets the error for that.
    const bodies = Object.entries(bombs).map(([encoding, bomb]) => [encoding, bomb.subarray(0, 8_000)]);
    bodies.push(
      ['BR', bombs.br.subarray(0, 8_000)],
      ['zstd', Buffer.from('x')],
      ['gzip, br', Buffer.from('x')],
      ['x-gzip', Buffer.from('x')],
    );
    const rss = server.rssBytes();
    for (const path of routes()) {
      for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
        const [encoding, body] = bodies[(path.length + method.length) % bodies.length];
        const answer = await ask(server, method, path, { body, headers: { ...ours, 'content-encoding': encoding } });
        assert.equal(answer.status, 415, `${method} ${path} ${encoding}: ${answer.body}`);
        assert.equal(JSON.parse(answer.body).error.code, 'unsupported_encoding');
      }
    }
    for (const [encoding, bomb] of bodies) {
      const answer = await ask(server, 'POST', '/api/sign-in', {
        body: bomb,
        headers: { ...ours, 'content-encoding': encoding },
      });
      assert.equal(answer.status, 415, encoding);
    }
    const plain = await ask(server, 'POST', '/api/sign-in', {
      body: '{}',
      headers: { ...ours, 'content-encoding': 'identity' },
    });
    assert.equal(plain.status, 400, 'a body that is not compressed is read');
    const grown = server.rssBytes() - rss;
    assert.ok(grown < 30 * MB, `${Math.round(grown / MB)} MiB were kept`);
  });

  test('a body above its limit is rejected with the limit in the message, on every route', async () => {
    const large = ' '.repeat(20_000);
    for (const path of ['/api/sign-in', '/api/gone', '/gone', '/', '/healthz']) {
      for (const method of ['POST', 'PUT']) {
        const answer = await ask(server, method, path, { body: large, headers: ours });
        assert.equal(answer.status, 413, `${method} ${path}`);
        assert.match(JSON.parse(answer.body).error.message, /16384 bytes/);
      }
    }
    // With chunked encoding the size is not announced.
    const chunked = await ask(server, 'POST', '/api/sign-in', {
      body: large,
      headers: { ...ours, 'transfer-encoding': 'chunked' },
    });
    assert.equal(chunked.status, 413);
    const multipart = await ask(server, 'POST', '/api/sign-in', {
      body: '--x--',
      headers: { ...ours, 'content-type': 'multipart/form-data; boundary=x' },
    });
    assert.equal(multipart.status, 415);
    assert.equal((await ask(server, 'GET', `/api/documents?q=${'x'.repeat(9_000)}`)).status, 414);
    assert.equal((await ask(server, 'GET', '/', { headers: { cookie: 'x'.repeat(40_000) } })).status, 431);
    const announced = new Raw(server).send(
      'POST /api/sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Copydesk: 1\r\nContent-Length: 99999999999\r\n\r\n',
    );
    await until(() => announced.isGone, 'the connection ends');
    assert.deepEqual(announced.statuses, [413]);
  });

  test('an unread request body closes its connection', async () => {
    const body = 'Transfer-Encoding: chunked\r\n\r\n';
    const heads = [
      'GET /healthz',
      'GET /',
      'POST /gone',
      'GET /api/documents',
      'DELETE /api/invitations/x',
      'POST /api/sign-in',
      'GET /ws',
    ];
    const wires = heads.map((head) =>
      new Raw(server).send(
        `${head} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Copydesk: 1\r\nContent-Type: application/json\r\n${body}`,
      ),
    );
    const trickle = setInterval(() => wires.forEach((wire) => wire.isGone || wire.send('1\r\nx\r\n')), 50);
    try {
      await until(() => wires.every(({ isGone }) => isGone), 'they are closed', 20_000);
      for (const [n, wire] of wires.entries()) assert.equal(wire.statuses.length, 1, `${heads[n]}: ${wire.text}`);
    } finally {
      clearInterval(trickle);
    }
  });

  test('an incomplete request head ends its connection after a time limit, also after an answered request', async () => {
    const first = new Raw(server).send('GET / HTTP/1.1\r\nX: ');
    const second = new Raw(server).send('GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n');
    await until(() => second.statuses.length === 1, 'it is answered');
    second.send('GET / HTTP/1.1\r\nX: ');
    const trickle = setInterval(() => [first, second].forEach((wire) => wire.isGone || wire.send('x')), 50);
    try {
      await until(() => first.isGone && second.isGone, 'they are closed', 20_000);
    } finally {
      clearInterval(trickle);
    }
  });

  test('unread answers are bounded in memory, and their connections are closed', async () => {
    const page = String((await ask(server, 'GET', '/')).body);
    const script = /src="[./]*(assets\/[^"]+\.js)"/.exec(page)?.[1];
    assert.ok(script, 'the page has a script');
    const rss = server.rssBytes();
    const request = `GET /${script} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`;
    const wires = Array.from({ length: CONNECTIONS - 5 }, () => {
      const wire = new Raw(server);
      wire.socket.pause();
      return wire.send(request.repeat(100));
    });
    let most = 0;
    await until(() => openConnections(server.port) === wires.length, 'they are connected');
    try {
      // A paused socket is not notified of its end: the test counts what the server has closed.
      await until(
        async () => {
          most = Math.max(most, server.rssBytes() - rss);
          return openConnections(server.port) === 0;
        },
        'they are closed',
        30_000,
        50,
      );
    } finally {
      wires.forEach(({ socket }) => socket.destroy());
    }
    assert.ok(most < 60 * MB, `${Math.round(most / MB)} MiB were kept`);
  });

  test('idle connections are closed in favour of connections that send requests', async () => {
    const idle = Array.from({ length: 3 * CONNECTIONS }, () => new Raw(server));
    for (let n = 0; n < 20; n++) assert.equal((await ask(server, 'GET', '/healthz')).status, 200);
    await until(() => idle.filter(({ isGone }) => isGone).length >= 2 * CONNECTIONS, 'the oldest are closed', 1_000);
    idle.forEach(({ socket }) => socket.destroy());
  });

  test('assets are served as they were compressed by the build', async () => {
    const page = String((await ask(server, 'GET', '/')).body);
    const files = [...page.matchAll(/(?:src|href)="[./]*(assets\/[^"]+)"/g)].map(([, file]) => `/${file}`);
    assert.ok(files.length >= 2, page);
    for (const file of files) {
      const plain = await ask(server, 'GET', file);
      assert.equal(plain.headers['content-encoding'], undefined);
      assert.match(plain.headers['cache-control'], /immutable/);
      for (const [accepted, encoding, unpack] of [
        ['gzip, deflate, br, zstd', 'br', brotliDecompressSync],
        ['gzip', 'gzip', gunzipSync],
        ['br;q=0, gzip', 'gzip', gunzipSync],
      ]) {
        const answer = await ask(server, 'GET', file, { headers: { 'accept-encoding': accepted } });
        assert.equal(answer.headers['content-encoding'], encoding, accepted);
        assert.equal(answer.headers.vary, 'accept-encoding');
        assert.notEqual(answer.headers.etag, plain.headers.etag, 'each form has a tag of its own');
        assert.deepEqual(unpack(answer.body), plain.body);
        const known = await ask(server, 'GET', file, {
          headers: { 'accept-encoding': accepted, 'if-none-match': `"x", ${answer.headers.etag}` },
        });
        assert.equal(known.status, 304);
      }
    }
  });

  test('an answer to an unparsable request has the headers of all other answers', async () => {
    const ok = 'GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n';
    for (const [bytes, status] of [
      ['nonsense\r\n\r\n', 400],
      ['GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: x\r\n\r\n', 400],
      ['POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n', 400],
      [`GET / HTTP/1.1\r\n${'X: y\r\n'.repeat(200)}\r\n`, 431],
      [`GET / HTTP/1.1\r\nX: ${'y'.repeat(140_000)}`, 431],
      [`${ok}nonsense\r\n\r\n`, 400],
    ]) {
      const wire = new Raw(server).send(bytes);
      await until(() => wire.isGone, 'the connection ends');
      assert.equal(wire.statuses.at(-1), status, `${bytes.slice(0, 60)}: ${wire.text}`);
      for (const head of wire.text.split('HTTP/1.1 ').slice(1)) assert.match(head, /cache-control: no-store\r\n/, head);
    }
    assert.doesNotMatch(server.log, /stream error/, 'strangers do not fill the log');
  });

  test('every answer of every route has its cache and security headers', async () => {
    const all = routes();
    assert.ok(all.length > 30, `${all.length} routes`);
    for (const path of [...all, '/%61pi/me', '/d/', '/D/x', '//', '/%ff', '/assets/', '/../x']) {
      for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
        const body = ['GET', 'HEAD'].includes(method) ? undefined : 'no JSON';
        const { status, headers } = await ask(server, method, path, { body, headers: ours });
        const what = `${method} ${path}: ${status}`;
        const isFile = status === 200 && method === 'GET' && ['/', '/d/x', '/favicon.svg'].includes(path);
        assert.equal(headers['cache-control'], isFile ? 'no-cache' : 'no-store', what);
        assert.equal(headers['x-content-type-options'], 'nosniff', what);
        assert.match(headers['content-security-policy'] ?? '', /default-src 'self'/, what);
        assert.equal(headers['referrer-policy'], 'same-origin', what);
      }
    }
  });
});

/** The number of established connections to a port of this machine. */
function openConnections(port) {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  const lines = readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1);
  const ESTABLISHED = '01';
  return lines
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => local?.endsWith(`:${hex}`) && state === ESTABLISHED).length;
}

describe('the rate limit per address', () => {
  let server;
  before(async () => {
    server = await Server.start({ open: false, env: { COPYDESK__GATEWAY__ADDRESS_REQUESTS_PER_SECOND: '4' } });
  });
  after(() => server?.stop());

  test('no spelling of a path avoids it', async () => {
    const variants = [
      '/api/me',
      '/%61pi/me',
      '/%61%70%69/me',
      '//api/me',
      '/api;x/me',
      '/API/me',
      '/api/me/',
      '/%2e/api/me',
      '/./api/me',
      '/readyz',
      '/gone',
      '/d/x/y',
    ];
    const check = async (path) => {
      const answers = await Promise.all(Array.from({ length: 20 }, () => ask(server, 'GET', path)));
      assert.ok(
        answers.some(({ status }) => status === 429),
        `${path} is not paced`,
      );
    };
    // A rejection is delayed by a second, so the requests are sent at once.
    await Promise.all(variants.map(check));
    // The page itself is served from memory and not limited.
    for (const path of ['/d/x', '/healthz']) {
      const pages = await Promise.all(Array.from({ length: 20 }, () => ask(server, 'GET', path)));
      assert.ok(
        pages.every(({ status }) => status === 200),
        path,
      );
    }
  });
});

describe('request ids', () => {
  let server;
  before(async () => {
    server = await Server.start({ open: false });
  });
  after(() => server?.stop());

  test('every answer has an id of its own, and an id or a trace of a client is ignored', async () => {
    const ids = new Set();
    const headers = {
      'x-request-id': 'chosen-by-a-client',
      traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
      origin: 'https://elsewhere.example.org',
    };
    for (const path of ['/healthz', '/ws', '/no/such/path', '/api/documents']) {
      const id = (await ask(server, 'GET', path, { headers })).headers['x-request-id'];
      assert.match(id, /^[0-9a-f]{16}$/, path);
      ids.add(id);
    }
    assert.equal(ids.size, 4);
    // The rejection of the page's origin is logged with the id of its request.
    const line = () => server.log.split('\n').find((line) => line.includes('request of another origin rejected'));
    await until(line, 'the rejection is logged');
    const { span } = JSON.parse(line());
    assert.ok(span.name === 'request' && ids.has(span.request_id), line());
    assert.ok(!server.log.includes('chosen-by-a-client') && !server.log.includes('4bf92f3577b34da6'));
  });
});

describe('behind a proxy', () => {
  let server;
  before(async () => {
    server = await Server.start({
      open: false,
      env: { COPYDESK__AUTH__BEHIND_PROXY: 'true', COPYDESK__GATEWAY__ADDRESS_REQUESTS_PER_SECOND: '4' },
    });
  });
  after(() => server?.stop());

  test('an address with a port or in brackets counts as the same address', async () => {
    for (const forms of [
      (n) => `192.0.2.7:${1000 + n}`,
      (n) => (n % 2 ? '[2001:db8::1]' : `[2001:db8::1]:${n + 1}`),
      (n) => `203.0.113.${n}, 192.0.2.8`,
    ]) {
      const answers = await Promise.all(
        Array.from({ length: 20 }, (_, n) =>
          ask(server, 'GET', '/api/documents', { headers: { 'x-forwarded-for': forms(n) } }),
        ),
      );
      assert.ok(
        answers.some(({ status }) => status === 429),
        forms(0),
      );
    }
    const other = await ask(server, 'GET', '/api/documents', { headers: { 'x-forwarded-for': '192.0.2.9:1' } });
    assert.equal(other.status, 401, 'others are not slowed by that');
  });

  test('an Origin with the default port or in other case is accepted, another origin is rejected and logged', async () => {
    const upgrade = {
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
    };
    let n = 0;
    // 401: not signed in. 403: page of another origin.
    for (const [origin, host, status] of [
      ['https://desk.example.org', 'desk.example.org:443', 401],
      ['https://desk.example.org', 'Desk.Example.ORG', 401],
      ['http://desk.example.org', 'desk.example.org:80', 401],
      ['https://desk.example.org', 'desk.example.org:8443', 403],
      ['https://elsewhere.example.org', 'desk.example.org', 403],
    ]) {
      const headers = {
        ...upgrade,
        origin,
        host,
        'x-forwarded-for': `198.51.100.${++n}`,
        'x-forwarded-proto': origin.split(':')[0],
      };
      assert.equal((await ask(server, 'GET', '/ws', { headers })).status, status, `${origin} at ${host}`);
    }
    await until(() => server.log.includes('request of another origin rejected'), 'the log says so');
    assert.match(server.log, /https:\/\/desk\.example\.org.*8443|desk\.example\.org:8443/);
  });

  test('the request id of the proxy is taken over if it is well-formed', async () => {
    const idOf = async (sent) => {
      const headers = { 'x-request-id': sent, 'x-forwarded-for': '198.51.100.77' };
      return (await ask(server, 'GET', '/healthz', { headers })).headers['x-request-id'];
    };
    assert.equal(await idOf('7f3e-09_A.b'), '7f3e-09_A.b');
    for (const bad of ['a'.repeat(65), 'two words', 'quo"ted', 'a,b']) assert.match(await idOf(bad), /^[0-9a-f]{16}$/);
  });

  test('a chain of proxies in X-Forwarded-Proto that begins with https makes cookies secure', async () => {
    const invitation = /#invitation=([\w-]+)/.exec(server.log)?.[1];
    const account = JSON.stringify({ login: 'ann', name: 'Ann', password: 'four unusual words here', invitation });
    const headers = {
      'content-type': 'application/json',
      'x-copydesk': '1',
      'x-forwarded-proto': 'https, https',
      'x-forwarded-for': '198.51.100.99',
    };
    const answer = await ask(server, 'POST', '/api/register', { headers, body: account });
    assert.equal(answer.status, 200, String(answer.body));
    for (const cookie of answer.headers['set-cookie']) assert.match(cookie, /^__Host-.*Secure/);
  });
});

describe('configured paths', () => {
  let server;
  before(async () => {
    class Below extends Server {
      async isReady() {
        return (await fetch(`${this.http}/readyz`).catch(() => undefined))?.status === 200;
      }
    }
    server = await Below.start({
      env: { COPYDESK__SERVER__BASE_PATH: '/tools/desk', COPYDESK__SERVER__SOCKET_PATH: '/live/socket' },
    });
  });
  after(() => server?.stop());

  test('all routes are below the base path', async () => {
    for (const [path, status] of [
      ['/tools/desk/', 200],
      ['/tools/desk/d/x', 200],
      ['/tools/desk/favicon.svg', 200],
      ['/tools/desk/api/documents', 200],
      ['/tools/desk/readyz', 200],
      ['/healthz', 200],
      ['/', 404],
      ['/api/documents', 404],
      ['/d/x', 404],
      ['/tools/deskx/', 404],
      ['/tools', 404],
    ]) {
      assert.equal((await ask(server, 'GET', path)).status, status, path);
    }
    const moved = await ask(server, 'GET', '/tools/desk');
    assert.equal(moved.status, 308);
    assert.equal(moved.headers.location, '/tools/desk/');
    const page = String((await ask(server, 'GET', '/tools/desk/d/x')).body);
    assert.match(page, /<base href="\/tools\/desk\/" data-socket="live\/socket"/);
    const asset = /src="\.\/(assets\/[^"]+)"/.exec(page)?.[1];
    assert.equal((await ask(server, 'GET', `/tools/desk/${asset}`)).status, 200, page);
  });

  test('the socket path is served with and without a final slash', async () => {
    const upgrade = {
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
    };
    const statusOf = (path) =>
      new Promise((resolve, reject) => {
        const request = http.request({ host: '127.0.0.1', port: server.port, path, headers: upgrade });
        request.on('upgrade', (response, socket) => resolve(response.statusCode, socket.destroy()));
        request.on('response', (response) => resolve(response.statusCode, response.destroy()));
        request.on('error', reject);
        request.end();
      });
    for (const [path, status] of [
      ['/tools/desk/live/socket', 101],
      ['/tools/desk/live/socket/', 101],
      ['/tools/desk/ws', 404],
      ['/live/socket', 404],
      ['/ws', 404],
    ]) {
      assert.equal(await statusOf(path), status, path);
    }
  });
});
