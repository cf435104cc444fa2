// The server terminates TLS itself, and loads a new certificate without a restart.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import tls from 'node:tls';
import WebSocket from 'ws';
import { Server } from './server.mjs';
import { until } from './wait.mjs';

/** A server with TLS. */
class SecureServer extends Server {
  async isReady() {
    return (await ask(this, 'GET', '/readyz').catch(() => undefined))?.status === 200;
  }
}

function ask(server, method, where, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const options = {
      host: '127.0.0.1',
      port: server.port,
      method,
      path: where,
      rejectUnauthorized: false,
      headers: { 'content-type': 'application/json', 'x-copydesk': '1', ...headers },
    };
    const request = https.request(options, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part) => (text += part));
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, text }));
    });
    request.on('error', reject);
    request.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

/** The certificate that a new connection gets. */
function shown(server) {
  return new Promise((resolve, reject) => {
    const socket = tls.connect({ host: '127.0.0.1', port: server.port, rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().subject.CN);
      socket.destroy();
    });
    socket.on('error', reject);
  });
}

describe('TLS', () => {
  let folder;
  let server;
  const certify = (name) => {
    const args = [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-nodes',
      '-days',
      '2',
      '-subj',
      `/CN=${name}`,
    ];
    execFileSync('openssl', [...args, '-keyout', path.join(folder, 'key.pem'), '-out', path.join(folder, 'cert.pem')], {
      stdio: 'ignore',
    });
  };
  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'copydesk-tls-'));
    certify('first');
    server = await SecureServer.start({
      open: false,
      env: {
        COPYDESK__GATEWAY__ADDRESS_CONNECTIONS_MAX: '100',
        COPYDESK__TLS__CERT: path.join(folder, 'cert.pem'),
        COPYDESK__TLS__KEY: path.join(folder, 'key.pem'),
      },
    });
  });
  after(async () => {
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test('cookies have the __Host prefix, and browsers are told to use TLS only', async () => {
    const account = { login: 'ann', name: 'Ann', password: 'a long password' };
    const answer = await ask(server, 'POST', '/api/register', account);
    assert.equal(answer.status, 200, answer.text);
    for (const line of answer.headers['set-cookie'])
      assert.match(line, /^__Host-copydesk_(access|refresh|device)=.*; HttpOnly; SameSite=Strict; Secure; Path=\//);
    assert.match(answer.headers['strict-transport-security'], /max-age=/);
    const cookie = answer.headers['set-cookie'].map((line) => line.split(';')[0]).join('; ');
    // A cookie name that a page without TLS can set is ignored.
    const plain = await ask(server, 'GET', '/api/documents', undefined, { cookie: cookie.replaceAll('__Host-', '') });
    assert.equal(plain.status, 401);
    const listed = await ask(server, 'GET', '/api/documents', undefined, { cookie });
    assert.equal(listed.status, 200);
    // A page of the same host without TLS may have been modified on the network.
    const origins = { [`https://127.0.0.1:${server.port}`]: true, [`http://127.0.0.1:${server.port}`]: false };
    for (const [origin, opens] of Object.entries(origins)) {
      const socket = new WebSocket(`wss://127.0.0.1:${server.port}/ws`, {
        rejectUnauthorized: false,
        headers: { Cookie: cookie, Origin: origin },
      });
      const fate = await new Promise((resolve) => {
        socket.on('message', () => resolve(true)).on('error', () => resolve(false));
      });
      assert.equal(fate, opens, origin);
      socket.terminate();
    }
  });

  test('unfinished handshakes do not block other clients', async () => {
    const BOUND = 100;
    // The first bytes of a record that announces 512 more.
    const hello = Buffer.from('1603010200010001fc0303', 'hex');
    const wires = [];
    const begin = (count) => {
      for (let n = 0; n < count; n++) {
        const wire = net.connect(server.port, '127.0.0.1');
        wire.on('error', () => {}).on('close', () => (wire.isGone = true));
        if (n % 2) wire.on('connect', () => wire.write(hello));
        wires.push(wire);
      }
    };
    try {
      begin(1_000);
      for (let n = 0; n < 10; n++) {
        // The oldest are closed in favour of the newest, down to the limit.
        await until(() => wires.filter(({ isGone }) => !isGone).length <= BOUND, 'the oldest are closed', 2_000);
        begin(BOUND / 4);
        assert.equal((await ask(server, 'GET', '/healthz')).status, 200);
      }
    } finally {
      wires.forEach((wire) => wire.destroy());
    }
  });

  test('a new certificate is used without a restart, an invalid one is not', async () => {
    assert.equal(await shown(server), 'first');
    certify('second');
    server.child.kill('SIGHUP');
    await until(async () => (await shown(server)) === 'second', 'the new certificate is shown');
    writeFileSync(path.join(folder, 'cert.pem'), readFileSync(path.join(folder, 'key.pem')));
    server.child.kill('SIGHUP');
    await until(() => server.log.includes('TLS certificate was not reloaded'), 'it is complained of');
    assert.equal(await shown(server), 'second');
    assert.ok(server.isAlive);
  });
});
