// The admin listener: what Prometheus reads, and which requests are answered.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { Client, TEXT } from './client.mjs';
import { adminOf, seriesOf } from './metrics.mjs';
import { Server } from './server.mjs';
import { called, until } from './wait.mjs';

const hasPromtool = spawnSync('promtool', ['--version']).status === 0;
if (!hasPromtool && process.env.COPYDESK_SKIP_LOG)
  appendFileSync(process.env.COPYDESK_SKIP_LOG, 'promtool is missing\n');

/** The status line of a raw request. */
function statusOf(address, request) {
  const { hostname, port } = new URL(address);
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write(request));
    let answer = '';
    socket.setEncoding('utf8').on('data', (text) => {
      answer += text;
      if (answer.includes('\r\n')) {
        socket.destroy();
        resolve(answer.split('\r\n')[0]);
      }
    });
    socket.on('error', reject);
  });
}

describe('the admin listener', () => {
  let server;
  let admin;
  before(async () => {
    server = await Server.start();
    admin = await until(() => adminOf(server), 'the address is logged');
  });
  after(() => server?.stop());

  test('exports metrics that promtool accepts', { skip: !hasPromtool && 'promtool is missing' }, async () => {
    const answer = await fetch(`${admin}/metrics`);
    assert.equal(answer.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
    execFileSync('promtool', ['check', 'metrics'], {
      input: await answer.text(),
      stdio: ['pipe', 'inherit', 'inherit'],
    });
  });

  test('exports OpenMetrics to those that ask for it', async () => {
    const accept = 'application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.2';
    const answer = await fetch(`${admin}/metrics`, { headers: { accept } });
    assert.match(answer.headers.get('content-type'), /^application\/openmetrics-text/);
    assert.match(await answer.text(), /\n# EOF\n$/);
  });

  test('names every metric after the product, with base units', async () => {
    const text = await (await fetch(`${admin}/metrics`)).text();
    const names = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => ({ name, type }));
    assert.ok(names.length > 8);
    for (const { name, type } of names) {
      assert.match(name, /^copydesk_[a-z_]+$/);
      assert.equal(name.endsWith('_total'), type === 'counter', name);
      assert.doesNotMatch(name, /_(ms|millis|mib|kib|percent|age)(_|$)/, name);
    }
  });

  test('answers this machine under its own names only, and no web page', async () => {
    const request = (headers) => `GET /metrics HTTP/1.1\r\n${headers}connection: close\r\n\r\n`;
    for (const [headers, status] of [
      ['host: localhost\r\n', '200 OK'],
      ['host: attacker.example\r\n', '403 Forbidden'],
      ['host: 127.0.0.1\r\norigin: https://attacker.example\r\n', '403 Forbidden'],
    ]) {
      assert.equal(await statusOf(admin, request(headers)), `HTTP/1.1 ${status}`, headers);
    }
  });

  test('counts what clients do', async () => {
    const [writer, reader] = [await Client.connect(server.ws), await Client.connect(server.ws)];
    const doc = writer.doc('measured');
    await called((done) => doc.create('a', TEXT.uri, done), 'create');
    const seen = reader.doc('measured');
    await called((done) => seen.subscribe(done), 'subscribe');
    for (let edit = 0; edit < 20; edit += 1) await called((done) => doc.submitOp([`${edit}`], done), 'edit');
    await until(() => seen.version === doc.version, 'the reader has every edit');
    const series = await seriesOf(admin);
    assert.equal(series.copydesk_sockets_open, 2);
    assert.equal(series.copydesk_documents_open, 1);
    assert.equal(series.copydesk_documents_owned, 1);
    assert.equal(series['copydesk_owner_changes_total{reason="claimed"}'], 1);
    assert.equal(series['copydesk_claims_total{result="ok"}'], 1);
    assert.equal(series['copydesk_submits_total{result="committed"}'], 21);
    assert.equal(series['copydesk_ack_seconds_count{path="owner"}'], 21);
    assert.equal(series['copydesk_ack_seconds_count{path="forwarded"}'], 0);
    assert.ok(series['copydesk_appends_total{result="appended"}'] >= 1);
    assert.equal(series.copydesk_append_entries_sum, 21);
    assert.ok(series.copydesk_deliveries_total >= 20);
    assert.ok(series.copydesk_delivery_seconds_count >= 1);
    assert.ok(series.copydesk_client_messages_total >= 23);
    assert.ok(series['copydesk_http_requests_total{route="/healthz",status="2xx"}'] >= 1, 'readyz was asked');
    assert.equal(series.copydesk_serving, 1);
    assert.ok(series['copydesk_store_transactions_total{result="ok"}'] >= 1);
    assert.equal(series['copydesk_store_transactions_total{result="failed"}'], 0);
    assert.equal(series.copydesk_store_transaction_jobs_count, series.copydesk_store_transaction_seconds_count);
    writer.close();
    reader.close();
    await until(async () => (await seriesOf(admin)).copydesk_sockets_open === 0, 'both sockets are closed');
    assert.equal((await seriesOf(admin))['copydesk_sockets_closed_total{reason="client"}'], 2);
  });

  test('counts a submit that is rejected', async () => {
    const [first, second] = [await Client.connect(server.ws), await Client.connect(server.ws)];
    await called((done) => first.doc('taken').create('a', TEXT.uri, done), 'create');
    await assert.rejects(
      called((done) => second.doc('taken').create('b', TEXT.uri, done), 'create'),
      /already/i,
    );
    assert.equal((await seriesOf(admin))['copydesk_submits_total{result="rejected"}'], 1);
    first.close();
    second.close();
  });

  test('is not on the address of the clients', async () => {
    const answer = await fetch(`${server.http}/metrics`);
    assert.equal(answer.status, 404);
  });

  test('takes another port if the default is in use', async () => {
    const other = await Server.start();
    try {
      const second = await until(() => adminOf(other), 'the address is logged');
      assert.notEqual(second, admin);
      assert.equal((await fetch(`${second}/metrics`)).status, 200);
    } finally {
      await other.stop();
    }
  });
});

describe('the admin listener with a token', () => {
  const token = 'a-token-of-24-characters';
  let server;
  let admin;
  before(async () => {
    server = await Server.start({ env: { COPYDESK__ADMIN__LISTEN: '0.0.0.0:0', COPYDESK__ADMIN__TOKEN: token } });
    admin = (await until(() => adminOf(server), 'the address is logged')).replace('0.0.0.0', '127.0.0.1');
  });
  after(() => server?.stop());

  test('answers requests with the token only', async () => {
    for (const [authorization, status] of [
      [`Bearer ${token}`, 200],
      [`Bearer ${token}x`, 401],
      ['Bearer', 401],
      [`Basic ${token}`, 401],
      [undefined, 401],
    ]) {
      const headers = authorization === undefined ? {} : { authorization };
      const answer = await fetch(`${admin}/metrics`, { headers });
      assert.equal(answer.status, status, authorization);
      assert.equal(answer.headers.get('www-authenticate'), status === 401 ? 'Bearer' : null);
      await answer.arrayBuffer();
    }
  });

  test('does not log the token', () => {
    assert.ok(!server.log.includes(token));
  });
});

describe('the metrics of a server with accounts', () => {
  test('count sign-ins by their result, and tokens that prove nothing', async () => {
    const server = await Server.start({ open: false });
    try {
      const admin = await until(() => adminOf(server), 'the address is logged');
      const headers = { 'content-type': 'application/json', 'x-copydesk': '1' };
      const post = async (path, body) => {
        const answer = await fetch(server.http + path, { method: 'POST', headers, body: JSON.stringify(body) });
        await answer.arrayBuffer();
        return answer.status;
      };
      const [login, password] = ['ann@example.org', 'a long password of 30 characters'];
      assert.equal(await post('/api/register', { login, password, name: 'Ann' }), 200);
      assert.equal(await post('/api/sign-in', { login, password }), 200);
      assert.equal(await post('/api/sign-in', { login, password: `${password}!` }), 403);
      const forged = await fetch(`${server.http}/api/documents`, { headers: { cookie: 'copydesk_access=forged' } });
      assert.equal(forged.status, 401);
      const series = await seriesOf(admin);
      assert.equal(series['copydesk_sign_ins_total{result="ok"}'], 1);
      assert.equal(series['copydesk_sign_ins_total{result="rejected"}'], 1);
      assert.equal(series.copydesk_credentials_refused_total, 1);
      assert.equal(series['copydesk_http_requests_total{route="/api/accounts",status="2xx"}'], 2);
    } finally {
      await server.stop();
    }
  });
});

describe('an admin listener that other machines reach', () => {
  test('is refused without a token, and with a short one', async () => {
    for (const [value, reason] of [
      ['', /admin\.listen 0\.0\.0\.0:0 is reached from other machines/],
      ['short', /admin\.token has 5 characters/],
    ]) {
      const env = { COPYDESK__ADMIN__LISTEN: '0.0.0.0:0', COPYDESK__ADMIN__TOKEN: value };
      await assert.rejects(Server.start({ env }), reason);
    }
  });
});
