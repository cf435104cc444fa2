// The participants of a test: users in browsers, and a plain ShareDB client that reads the server's documents.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';
import richText from 'rich-text';
import ShareDB from 'sharedb/lib/client/index.js';
import WebSocket from 'ws';

const axeSource = await import('node:fs').then(({ readFileSync }) =>
  readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8'),
);

ShareDB.types.register(richText.type);

/** The time limit for a condition. Long, because machines that build at the same time are slow. */
const WAIT_MS = 60_000;
const LAPTOP = { width: 1280, height: 800 };

export async function openBrowser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
      '--disable-quic',
    ],
  });
}

/** A user with a browser of their own. */
export class Writer {
  /** Faults of any page: exceptions in scripts, and what the Content-Security-Policy blocked. */
  faults = [];

  static async arrive(browser, url, name, options = {}) {
    const context = await browser.newContext({ viewport: LAPTOP, reducedMotion: 'reduce', ...options });
    await context.addInitScript((own) => localStorage.setItem('copydesk.name', own), name);
    const page = await context.newPage();
    page.setDefaultTimeout(WAIT_MS);
    const writer = new Writer(url, name, context, page);
    page.on('pageerror', (error) => writer.faults.push(error.stack));
    page.on('console', (message) => {
      if (/Content.Security.Policy|MaxListenersExceeded|the page differs/i.test(message.text()))
        writer.faults.push(message.text());
    });
    return writer;
  }

  constructor(url, name, context, page) {
    Object.assign(this, { url, name, context, page });
    this.text = page.locator('.ql-editor');
    this.title = page.getByLabel('Document title');
  }

  get id() {
    return new URL(this.page.url()).pathname.split('/').at(-1);
  }

  async list() {
    await this.page.goto(this.url);
    await this.page.waitForSelector('#app[data-list="ready"]');
  }

  /** Creates a document. `first` runs as soon as the text has the cursor, before anything is saved. */
  async begin(first = async () => {}) {
    await this.list();
    await this.page.getByRole('button', { name: 'New document' }).click();
    await this.page.waitForURL(/\/d\//);
    await first(this);
    await this.saved();
    await this.page.waitForURL(/\/d\/[0-9A-Za-z]{20,}$/);
    return this.id;
  }

  async open(id) {
    await this.page.goto(`${this.url}/d/${id}`);
    await this.saved();
  }

  async status(status) {
    await this.page.waitForSelector(`.status[data-status="${status}"]`);
  }

  saved() {
    return this.status('saved');
  }

  /** Types at the cursor that the page itself has set. */
  async typing(text) {
    await this.page.waitForSelector('.ql-editor:focus');
    await this.type(text);
  }

  async type(text, delay = 0) {
    await this.page.keyboard.type(text, { delay });
  }

  /** Pastes data of these types into the text. */
  async paste(content) {
    const isTaken = await this.text.evaluate((text, byType) => {
      const clipboardData = new DataTransfer();
      for (const [type, data] of Object.entries(byType)) clipboardData.setData(type, data);
      return !text.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
    }, content);
    assert.ok(isTaken, 'the editor takes what is pasted');
  }

  press(keys) {
    return this.page.keyboard.press(keys);
  }

  tool(name) {
    return this.page.getByRole('toolbar').getByRole('button', { name, exact: true });
  }

  /** Moves the cursor to the end or the beginning of the text. */
  async goTo(place) {
    await this.text.focus();
    await this.press(place === 'end' ? 'Control+End' : 'Control+Home');
  }

  async sees(text) {
    await this.page.waitForFunction(
      ([selector, wanted]) => document.querySelector(selector)?.textContent.includes(wanted),
      ['.ql-editor', text],
    );
  }

  /**
   * The HTML of the text. Quill leaves empty style attributes where it has hidden a bullet, and
   * the order of attributes and classes varies.
   */
  async html() {
    const html = await this.text.evaluate((text) => {
      const copy = text.cloneNode(true);
      for (const element of copy.querySelectorAll('*')) {
        const attributes = [...element.attributes].map(({ name, value }) => [
          name,
          name === 'class' ? value.split(' ').sort().join(' ') : value,
        ]);
        for (const [name] of attributes) element.removeAttribute(name);
        for (const [name, value] of attributes.sort()) element.setAttribute(name, value);
      }
      return copy.innerHTML;
    });
    return html.replaceAll(' style=""', '');
  }

  /** The text, one line for each block, as Quill counts it. */
  lines() {
    return this.page.evaluate(() =>
      [...document.querySelectorAll('.ql-editor :is(p, h1, h2, h3, blockquote, li, .ql-code-block)')].map(
        (block) => block.textContent,
      ),
    );
  }

  async shot(name) {
    // A blinking caret and running animations would make all screenshots differ.
    await this.page.screenshot({
      path: new URL(`shots/${name}.png`, import.meta.url).pathname,
      animations: 'disabled',
    });
  }

  async isAccessible() {
    await this.page.evaluate(axeSource);
    const findings = await this.page.evaluate(async () => {
      const { violations } = await globalThis.axe.run(document);
      return violations.map(({ id, impact, nodes }) => ({ id, impact, at: nodes.map(({ html }) => html) }));
    });
    assert.deepEqual(findings, []);
  }

  async leave() {
    await this.context.close();
    assert.deepEqual(this.faults, [], `${this.name}'s page had faults`);
  }
}

/** The document of the server, read by the plain client. */
export async function contentOf(url, id) {
  const { doc, close } = await plainClient(url, id);
  const { ops } = doc.data;
  close();
  return ops;
}

export function textOf(ops) {
  return ops.map(({ insert }) => (typeof insert === 'string' ? insert : '\ufffc')).join('');
}

/** A ShareDB client without a page; it may send ops that no page sends. */
export async function plainClient(url, id) {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/ws`);
  const connection = new ShareDB.Connection(socket);
  const doc = connection.get('documents', id);
  await new Promise((resolve, reject) => {
    socket.on('error', reject);
    doc.subscribe((error) => (error ? reject(error) : resolve()));
  });
  return {
    doc,
    close: () => connection.close(),
    submit: (op) => new Promise((resolve) => doc.submitOp(op, {}, resolve)),
  };
}

/** Waits until the server has this text. */
export async function stored(url, id, text) {
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const found = textOf(await contentOf(url, id));
    if (found === text) return;
    // Long texts are not printed: a report of some megabytes cannot be read.
    assert.ok(
      Date.now() < deadline,
      `the server has ${found.length} characters, not the ${text.length} that were written`,
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Waits until all pages have saved everything and show the text of the server. Returns the text. */
export async function settled(url, ...writers) {
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    for (const writer of writers) await writer.saved();
    const text = textOf(await contentOf(url, writers[0].id));
    const shown = await Promise.all(writers.map(async (writer) => `${(await writer.lines()).join('\n')}\n`));
    const pages = await Promise.all(writers.map((writer) => writer.html()));
    const isSettled = shown.every((each) => each === text) && new Set(pages).size === 1;
    if (isSettled) return text;
    if (Date.now() > deadline) {
      assert.deepEqual(
        shown,
        writers.map(() => text),
        'the pages differ from the server',
      );
      assert.deepEqual(
        pages,
        writers.map(() => pages[0]),
        'the pages look different',
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export function countOf(text, part) {
  return text.split(part).length - 1;
}
