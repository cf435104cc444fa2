// The JavaScript examples of README.md and docs/API.md, run with only addresses and times replaced:
// `COPYDESK_BIN=.. node --test readme.mjs`.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { build } from '../../static/node_modules/vite/dist/node/index.js';
import { freePort, Server } from './server.mjs';
import { contentOf, openBrowser, textOf } from './writers.mjs';

const PAGES = ['README.md', 'docs/API.md'].map((page) => new URL(`../../${page}`, import.meta.url));
const TEXT = (await Promise.all(PAGES.map((page) => readFile(page, 'utf8')))).join('\n');
const SECRET = 'a secret that the application shares with us';

let folder;
let browser;

before(async () => {
  // Below this folder, so that the examples find their packages.
  folder = await mkdtemp(new URL('.readme-', import.meta.url).pathname);
  browser = await openBrowser();
});

after(async () => {
  await browser?.close();
  await rm(folder, { recursive: true, force: true });
});

/** The one example that contains this text. */
function example(part) {
  const found = [...TEXT.matchAll(/```js\n(.*?)```/gs)].map(([, code]) => code).filter((code) => code.includes(part));
  assert.equal(found.length, 1, `one example has ${part}`);
  return found[0];
}

/** Replaces parts of an example, each of which must be present. */
function replaced(code, parts) {
  for (const [from, to] of Object.entries(parts)) {
    assert.ok(code.includes(from), `the example has ${from}`);
    code = code.replaceAll(from, to);
  }
  return code;
}

async function written(name, code) {
  const file = join(folder, name);
  await writeFile(file, code);
  return file;
}

/** A web server for a page with one script. `routes` adds answers by path. */
async function serve(code, routes = {}) {
  const answers = {
    '/': () => '<script type="module" src="/example.js"></script>',
    '/example.js': () => code,
    ...routes,
  };
  const types = { '/': 'text/html', '/example.js': 'text/javascript' };
  const site = createServer(async ({ url }, response) => {
    const answer = await answers[url]?.();
    response.writeHead(answer === undefined ? 404 : 200, { 'content-type': types[url] ?? 'text/plain' });
    response.end(answer);
  });
  await once(site.listen(0, '127.0.0.1'), 'listening');
  return { site, origin: `http://127.0.0.1:${site.address().port}` };
}

async function bundled(name, code) {
  const input = await written(`${name}.js`, `${code}\nglobalThis.doc = doc;`);
  const { output } = await build({
    configFile: false,
    logLevel: 'error',
    root: folder,
    build: { write: false, rollupOptions: { input } },
  });
  return output[0].code;
}

/** Opens the page, and waits until its document is loaded. */
async function visit(origin) {
  const page = await browser.newPage();
  page.setDefaultTimeout(60_000);
  const faults = [];
  page.on('pageerror', (error) => faults.push(error.stack));
  await page.goto(origin);
  await page.waitForFunction(() => globalThis.doc?.type && !globalThis.doc.hasPending());
  assert.deepEqual(faults, []);
  return page;
}

test('the examples of a client work in a bundled page and in Node', async () => {
  const server = await Server.prepare();
  const address = { 'ws://127.0.0.1:8080/ws': `${server.url.replace('http', 'ws')}/ws` };
  const inNode = example("import WebSocket from 'ws'");
  const inPage = example('// A server without accounts');
  const { site, origin } = await serve(await bundled('client', replaced(inPage, address)));
  server.env = { COPYDESK__AUTH__ORIGINS: `["${origin}"]` };
  await server.up();
  const page = await visit(origin);
  assert.equal(textOf(await contentOf(server.url, 'my-document')), 'Hello\n');

  const changed = page.waitForEvent('console', { predicate: (message) => message.text().startsWith('changed') });
  const child = spawn(process.execPath, [await written('client.mjs', replaced(inNode, address))], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.on('data', (data) => (said += data));
  const [code] = await once(child, 'exit');
  assert.equal(code, 0);
  assert.match(said, /From Node\. Hello/);
  await changed;
  await page.close();
  site.close();
  await server.end();
});

test('the examples of tokens work, and a page continues when its token expires', async () => {
  const env = { COPYDESK__AUTH__MODE: 'tokens', COPYDESK__AUTH__TOKEN_SECRET: SECRET };
  const server = await Server.prepare({ open: false });
  const port = await freePort();
  const application = replaced(example("The application's server"), { 3000: String(port), "'10m'": "'3s'" });
  const child = spawn(process.execPath, [await written('application.mjs', application)], {
    env: { ...process.env, ...env },
    stdio: 'inherit',
  });
  let tokens = 0;
  const token = async () => {
    for (;;) {
      const answer = await fetch(`http://127.0.0.1:${port}/token`).catch(() => null);
      tokens += answer ? 1 : 0;
      if (answer) return answer.text();
      assert.equal(child.exitCode, null, 'the application runs');
    }
  };
  const code = replaced(example("The application's page"), {
    'wss://desk.example.org/ws': `${server.url.replace('http', 'ws')}/ws`,
  });
  const { site, origin } = await serve(await bundled('page', code), { '/token': token });
  server.env = { ...env, COPYDESK__AUTH__ORIGINS: `["${origin}"]` };
  try {
    await server.up();
    const page = await visit(origin);
    await page.waitForFunction(() => doc.connection.state === 'disconnected');
    await page.waitForFunction(() => doc.connection.state === 'connected');
    assert.ok(tokens >= 2, `${tokens} tokens`);
    await page.evaluate(
      () =>
        new Promise((resolve, reject) =>
          doc.submitOp([{ insert: 'Later. ' }], (error) => (error ? reject(error) : resolve())),
        ),
    );
    assert.equal(await page.evaluate(() => doc.data.ops[0].insert), 'Later. The plan\n');
    await page.close();
  } finally {
    child.kill();
    site.close();
    await server.end();
  }
});
