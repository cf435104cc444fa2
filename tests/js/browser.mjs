// The part of a browser that accounts need: stores cookies, sends them, and sets the Origin header.
import assert from 'node:assert/strict';
import { Client } from './client.mjs';
import { Wire } from './wire.mjs';

export class Browser {
  cookies = new Map();

  constructor(server) {
    this.server = server;
  }

  /** A user with a new account, signed in. */
  static async registered(server, login, invitation) {
    const browser = new Browser(server);
    const answer = await browser.post('/api/register', {
      login,
      name: login,
      password: `password of ${login}`,
      invitation,
    });
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    return browser;
  }

  get cookie() {
    return [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
  }

  /** The headers of this browser's sockets. */
  get headers() {
    return { Cookie: this.cookie, Origin: this.server.http };
  }

  async ask(method, path, body, headers = {}) {
    const response = await fetch(this.server.http + path, {
      method,
      headers: {
        cookie: this.cookie,
        origin: this.server.http,
        'x-copydesk': '1',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    for (const line of response.headers.getSetCookie()) this.keep(line);
    return { status: response.status, headers: response.headers, body: await response.json().catch(() => null) };
  }

  get(path, headers) {
    return this.ask('GET', path, undefined, headers);
  }

  post(path, body = {}, headers = {}) {
    return this.ask('POST', path, body, headers);
  }

  put(path, body, headers = {}) {
    return this.ask('PUT', path, body, headers);
  }

  keep(line) {
    const [pair, ...attributes] = line.split('; ');
    const at = pair.indexOf('=');
    const [name, value] = [pair.slice(0, at), pair.slice(at + 1)];
    if (attributes.includes('Max-Age=0')) this.cookies.delete(name);
    else this.cookies.set(name, value);
  }

  async me() {
    return (await this.get('/api/me')).body;
  }

  /** A ShareDB client of this browser's user. */
  client() {
    return Client.connect(this.server.ws, { headers: this.headers });
  }

  /** A plain WebSocket of this browser's user. */
  async wire(options = {}) {
    const wire = await Wire.open(this.server, { headers: this.headers, ...options });
    if (wire.status === 101) await wire.handshake();
    return wire;
  }

  /** A copy with the same cookies: another tab, or a stolen session. */
  copy() {
    const copy = new Browser(this.server);
    copy.cookies = new Map(this.cookies);
    return copy;
  }

  /** Grants a user a role on a document, or withdraws it. */
  async gives(login, role, id, collection = 'docs') {
    const answer = await this.put(`/api/documents/${collection}/${id}/people`, { login, role });
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
  }
}
