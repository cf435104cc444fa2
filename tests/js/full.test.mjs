// A full disk: the node reports that nothing can be saved, can be restarted, and continues when there is space.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Client, TEXT } from './client.mjs';
import { freePort, Server } from './server.mjs';
import { called, until } from './wait.mjs';

/** A server that counts as started when it answers, ready or not. */
class FullServer extends Server {
  async isReady() {
    return (await this.probe('/healthz')) === 200;
  }

  async probe(where = '/readyz') {
    const answer = await fetch(this.http + where).catch(() => undefined);
    await answer?.arrayBuffer();
    return answer?.status;
  }
}

/** The reason why no small disk can be mounted; undefined if one is. */
let noDisk;

/** The folder of a small disk; undefined if this machine cannot mount one. */
function smallDisk() {
  const folder = mkdtempSync(path.join(tmpdir(), 'copydesk-full-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=28m', 'copydesk-test', folder], { stdio: 'pipe' });
    return folder;
  } catch (error) {
    rmSync(folder, { recursive: true });
    noDisk = `a small disk cannot be mounted: ${String(error.stderr ?? error).trim()}`;
    return undefined;
  }
}

/** Fills the disk to the last block. */
function fill(folder) {
  const file = openSync(path.join(folder, 'filler'), 'a');
  for (const size of [1 << 20, 4096]) {
    for (const block = Buffer.alloc(size, 1); ; ) {
      try {
        if (writeSync(file, block) < size) break;
      } catch (error) {
        assert.equal(error.code, 'ENOSPC');
        break;
      }
    }
  }
  fsyncSync(file);
  closeSync(file);
}

describe('a full disk', () => {
  const disk = smallDisk();
  let server;
  before(async () => {
    if (disk === undefined) return;
    server = new FullServer(
      await freePort(),
      path.join(disk, 'data'),
      { COPYDESK__SERVER__STOP_PATIENCE_MS: '300' },
      true,
    );
    await server.boot();
  });
  after(async () => {
    if (disk === undefined) return;
    try {
      await server?.stop();
    } finally {
      execFileSync('umount', ['--lazy', disk]);
      rmSync(disk, { recursive: true });
    }
  });

  test('is reported by readiness, does not prevent a start, and loses no acknowledged edit', {
    skip: noDisk,
  }, async () => {
    await until(async () => (await server.probe()) === 200, 'it is ready');
    const client = await Client.connect(server.ws);
    const doc = client.doc('full');
    await called((done) => doc.create('', TEXT.uri, done), 'create');
    fill(disk);
    // The write-ahead log is already allocated: it takes about 16 MiB.
    const PIECE = 'x'.repeat(300_000);
    let acked = 0;
    let isSubmitting = true;
    const submitting = (async () => {
      while (isSubmitting) {
        const op = acked % 2 ? [{ d: PIECE.length }] : [PIECE];
        await new Promise((resolve, reject) => doc.submitOp(op, (error) => (error ? reject(error) : resolve())));
        acked++;
      }
    })();
    await until(async () => (await server.probe()) === 503, 'it says that nothing can be saved', 60_000, 50);
    const known = acked;
    // However the server is stopped, it starts again, because reads need no space.
    for (const signal of ['SIGTERM', 'SIGKILL', 'SIGTERM', 'SIGKILL']) {
      await server.kill(signal);
      fill(disk);
      await server.boot();
      const listed = await fetch(`${server.http}/api/documents?collection=docs`);
      assert.equal(listed.status, 200, signal);
    }
    isSubmitting = false;
    rmSync(path.join(disk, 'filler'));
    await until(async () => (await server.probe()) === 200, 'it is ready again', 60_000, 50);
    await client.reconnect();
    await submitting;
    assert.ok(acked >= known);
    const reader = await Client.connect(server.ws);
    const copy = await reader.subscribed('full');
    assert.equal(copy.data, acked % 2 ? PIECE : '');
    reader.close();
    client.close();
  });
});
