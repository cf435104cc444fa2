// Byte sequences that no WebSocket library sends. Each row writes them to an upgraded socket and names the statuses with
// which the server may close it; 'gone': the connection ends without a close frame, 'served': it stays open.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { deflateRawSync } from 'node:zlib';
import { Bystander } from './bystander.mjs';
import { Server } from './server.mjs';
import { until } from './wait.mjs';
import { frame, OPCODE, Wire } from './wire.mjs';

const PING = JSON.stringify({ a: 'pp' });
const BROKEN = [1002, 'gone'];
const TOO_LARGE = [1009, 'gone'];
const MB = 1 << 20;
const { binary, continuation, close, ping, pong } = OPCODE;
const part = (payload, fin) => frame(payload, { opcode: continuation, fin });
const status = (code, reason = '') => {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(code);
  return Buffer.concat([bytes, Buffer.from(reason)]);
};

/** Writes `bytes` repeatedly, until the server ends the connection or `most` bytes are written. */
async function pour(wire, bytes, most) {
  for (let written = 0; written < most && !wire.isOver; written += bytes.length) {
    wire.write(bytes);
    await until(() => wire.socket.writableLength < MB || wire.isOver, 'the bytes are taken');
  }
}

const TABLE = {
  sizes: [
    ['a header that announces 100 MB', (wire) => wire.write(frame('x', { length: 100 * MB })), TOO_LARGE],
    [
      'a header that announces 2^63 - 1 bytes',
      (wire) => wire.write(frame('x', { length: 2n ** 63n - 1n })),
      [1002, ...TOO_LARGE],
    ],
    [
      'a header that announces 2^63 bytes',
      (wire) => wire.write(frame('x', { length: 2n ** 63n })),
      [1002, ...TOO_LARGE],
    ],
    [
      'a header that announces 2^64 - 1 bytes',
      (wire) => wire.write(frame('x', { length: 2n ** 64n - 1n })),
      [1002, ...TOO_LARGE],
    ],
    [
      'a frame of 1 GB',
      async (wire) => {
        wire.write(frame('x', { length: 1024 * MB }));
        await pour(wire, Buffer.alloc(MB, 'x'), 1024 * MB);
      },
      TOO_LARGE,
    ],
    ['a message of 8 MB in one frame', (wire) => wire.write(frame('x'.repeat(8 * MB))), TOO_LARGE],
    [
      'a message of 8 MB in frames of 64 kB',
      async (wire) => {
        wire.write(frame('', { fin: false }));
        await pour(wire, part('x'.repeat(1 << 16), false), 8 * MB);
      },
      TOO_LARGE,
    ],
    [
      'a message without an end',
      async (wire) => {
        wire.write(frame('{', { fin: false }));
        await pour(wire, part('x'.repeat(1_000), false), 100 * MB);
      },
      TOO_LARGE,
    ],
    [
      'a message of endless empty fragments',
      async (wire) => {
        wire.write(frame('', { fin: false }));
        await pour(wire, Buffer.concat(Array.from({ length: 1_000 }, () => part('', false))), MB);
        wire.write(part(PING, true));
      },
      ['served', 1008, ...TOO_LARGE],
    ],
  ],
  fragments: [
    [
      'a message in three frames',
      (wire) => {
        wire.write(frame(PING.slice(0, 3), { fin: false }));
        wire.write(part(PING.slice(3, 5), false));
        wire.write(part(PING.slice(5), true));
      },
      ['served'],
    ],
    [
      'a ping between two fragments',
      (wire) => {
        wire.write(frame(PING.slice(0, 3), { fin: false }));
        wire.write(frame('there?', { opcode: ping }));
        wire.write(part(PING.slice(3), true));
      },
      ['served'],
    ],
    [
      'a message that arrives byte by byte',
      (wire) => {
        for (const byte of frame(PING)) wire.write(Buffer.from([byte]));
      },
      ['served'],
    ],
    ['a final continuation frame without a first frame', (wire) => wire.write(part(PING, true)), BROKEN],
    ['a continuation frame without a first frame', (wire) => wire.write(part(PING, false)), BROKEN],
    [
      'a first frame within another message',
      (wire) => {
        wire.write(frame('{"a":', { fin: false }));
        wire.write(frame(PING));
      },
      BROKEN,
    ],
  ],
  bits: [
    ['the first reserved bit', (wire) => wire.write(frame(PING, { rsv: 4 })), [1007, ...BROKEN]],
    ['the second reserved bit', (wire) => wire.write(frame(PING, { rsv: 2 })), [1007, ...BROKEN]],
    ['the third reserved bit', (wire) => wire.write(frame(PING, { rsv: 1 })), [1007, ...BROKEN]],
    ['a compressed frame', (wire) => wire.write(frame(deflateRawSync(PING), { rsv: 4 })), [1007, ...BROKEN]],
    [
      'a decompression bomb of 100 MB',
      (wire) => wire.write(frame(deflateRawSync(Buffer.alloc(100 * MB)), { rsv: 4 })),
      [1007, ...BROKEN],
    ],
    ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((opcode) => [
      `the reserved opcode ${opcode}`,
      (wire) => wire.write(frame(PING, { opcode })),
      BROKEN,
    ]),
    ['a text frame without a mask', (wire) => wire.write(frame(PING, { masked: false })), BROKEN],
    ['a ping without a mask', (wire) => wire.write(frame('', { opcode: ping, masked: false })), BROKEN],
    ['a close without a mask', (wire) => wire.write(frame('', { opcode: close, masked: false })), BROKEN],
  ],
  payloads: [
    ['a binary frame', (wire) => wire.write(frame(PING, { opcode: binary })), [1003]],
    ['an empty binary frame', (wire) => wire.write(frame('', { opcode: binary })), [1003]],
    ['bytes that are not UTF-8', (wire) => wire.write(frame([0x7b, 0xff, 0x7d])), [1007]],
    ['UTF-8 longer than need be', (wire) => wire.write(frame([0xc0, 0xaf])), [1007]],
    ['a surrogate in UTF-8', (wire) => wire.write(frame([0x22, 0xed, 0xa0, 0x80, 0x22])), [1007]],
    ['UTF-8 that ends early', (wire) => wire.write(frame([0x22, 0xf0, 0x9f])), [1007]],
    [
      'a character that is split over two fragments',
      (wire) => {
        const bytes = Buffer.from('{"a":"pp","x":"😀"}');
        wire.write(frame(bytes.subarray(0, 17), { fin: false }));
        wire.write(part(bytes.subarray(17), true));
      },
      ['served'],
    ],
    [
      'bytes that are not UTF-8, in fragments',
      (wire) => {
        wire.write(frame([0x7b, 0xff], { fin: false }));
        wire.write(part([0x7d], true));
      },
      [1007],
    ],
  ],
  'control frames': [
    ['a ping of 125 bytes', (wire) => wire.write(frame('x'.repeat(125), { opcode: ping })), ['served']],
    ['a ping of 126 bytes', (wire) => wire.write(frame('x'.repeat(126), { opcode: ping })), BROKEN],
    ['a ping of 100 kB', (wire) => wire.write(frame('x'.repeat(100_000), { opcode: ping })), BROKEN],
    ['half a ping', (wire) => wire.write(frame('x', { opcode: ping, fin: false })), BROKEN],
    ['an unsolicited pong', (wire) => wire.write(frame('x', { opcode: pong })), ['served']],
    [
      '10,000 unsolicited pongs',
      (wire) => wire.write(Buffer.concat(Array.from({ length: 10_000 }, () => frame('', { opcode: pong })))),
      ['served'],
    ],
    ['a close', (wire) => wire.write(frame('', { opcode: close })), [1000, 1005]],
    ['a close with a status', (wire) => wire.write(frame(status(1001, 'bye'), { opcode: close })), [1000, 1001]],
    ['a close of one byte', (wire) => wire.write(frame('x', { opcode: close })), [1000, ...BROKEN]],
    ['a close with an invalid status', (wire) => wire.write(frame(status(999), { opcode: close })), [1000, ...BROKEN]],
    [
      'a close with a reason that is not UTF-8',
      (wire) => wire.write(frame(Buffer.concat([status(1000), Buffer.from([0xff])]), { opcode: close })),
      [1000, 1007, ...BROKEN],
    ],
    [
      'a close of 200 bytes',
      (wire) => wire.write(frame(status(1000, 'x'.repeat(198)), { opcode: close })),
      [1000, ...BROKEN],
    ],
    [
      'requests after a close frame',
      (wire) => {
        wire.write(frame('', { opcode: close }));
        wire.write(frame(PING));
      },
      [1000, 1005, 'gone'],
    ],
  ],
};

describe('bad frames', () => {
  let server;
  let bystander;
  before(async () => {
    server = await Server.start();
    bystander = await Bystander.join(server);
  });
  after(() => {
    bystander?.leave();
    return server?.stop();
  });

  for (const [chapter, rows] of Object.entries(TABLE)) {
    describe(chapter, () => {
      for (const [what, write, expected] of rows) {
        test(`${what}: ${expected.join(' or ')}`, async () => {
          const wire = await Wire.open(server);
          await wire.handshake();
          const start = wire.messages.length;
          await write(wire);
          // The client keeps the socket open: it is either served or closed.
          wire.write(frame(PING));
          const isServed = () => wire.messages.slice(start).some(({ a }) => a === 'pp');
          await until(() => isServed() || wire.isOver, 'it is served or over');
          const fate = wire.closeCode ?? (isServed() ? 'served' : 'gone');
          assert.ok(expected.includes(fate), String(fate));
          wire.end();
          await bystander.assertWell();
        });
      }
    });
  }

  test('a client that does not answer a close is disconnected', async () => {
    const wire = await Wire.open(server);
    wire.write(frame('nonsense'));
    await until(() => wire.isGone, 'the connection ends');
    assert.equal(wire.closeCode, 1007);
    await bystander.assertWell();
  });

  test("after the client's close the server ends the connection at once", async () => {
    const patient = await Server.start({ env: { COPYDESK__GATEWAY__CLOSE_PATIENCE_MS: '60000' } });
    for (const [said, code] of [
      [frame(status(1000), { opcode: close }), 1000],
      [frame('x', { rsv: 4 }), 1002],
    ]) {
      const wire = await Wire.open(patient, {});
      await wire.handshake();
      wire.write(said);
      await until(() => wire.isGone, 'the connection ends');
      assert.equal(wire.closeCode, code);
      wire.end();
    }
    await patient.stop();
  });

  describe('upgrades', () => {
    const head = (lines) => [...lines, '', ''].join('\r\n');
    const GOOD = [
      'GET /ws HTTP/1.1',
      'Host: localhost',
      'Upgrade: websocket',
      'Connection: Upgrade',
      'Sec-WebSocket-Version: 13',
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ];
    const without = (name) => GOOD.filter((line) => !line.startsWith(name));
    const many = (count) => Array.from({ length: count }, (_, n) => `X-${n}: ${n}`);

    for (const [what, bytes, expected] of [
      ['a valid upgrade', head(GOOD), [101]],
      [
        'permessage-deflate is offered, and not taken',
        head([...GOOD, 'Sec-WebSocket-Extensions: permessage-deflate']),
        [101],
      ],
      ['a request without an upgrade', head(['GET /ws HTTP/1.1', 'Host: localhost']), [400, 404, 426]],
      ['without a key', head(without('Sec-WebSocket-Key')), [400]],
      ['without a version', head(without('Sec-WebSocket-Version')), [400, 426]],
      ['of another version', head([...without('Sec-WebSocket-Version'), 'Sec-WebSocket-Version: 8']), [400, 426]],
      ['by POST', head(['POST /ws HTTP/1.1', 'Content-Length: 0', ...GOOD.slice(1)]), [400, 404, 405]],
      ['5,000 headers', head([...GOOD, ...many(5_000)]), [400, 431, 'gone']],
      ['a header of 1 MB', head([...GOOD, `X: ${'x'.repeat(MB)}`]), [400, 431, 'gone']],
      ['an endless header section', head([...GOOD, ...many(200_000)]).slice(0, -4), [400, 431, 'gone']],
      ['not HTTP', '\0\x01\x02 nonsense\r\n\r\n', [400, 'gone']],
      ['a TLS hello', '\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n', [400, 'gone']],
    ]) {
      test(`${what}: ${expected.join(' or ')}`, async () => {
        const wire = await Wire.open(server, { upgrade: false });
        wire.write(Buffer.from(bytes, 'latin1'));
        await until(() => wire.status || wire.isGone, 'it is answered or over');
        assert.ok(expected.includes(wire.status ?? 'gone'), String(wire.status));
        assert.doesNotMatch(wire.splitter.head ?? '', /sec-websocket-extensions/i);
        wire.end();
        await bystander.assertWell();
      });
    }

    test('messages sent before the upgrade is answered are read in order', async () => {
      const ping = { a: 'pp' };
      for (const cut of [0, 1, 7]) {
        const wire = await Wire.open(server, { upgrade: false });
        const frames = Buffer.concat(
          [ping, { a: 'hs', id: null, protocol: 1 }, ping].map((said) => frame(JSON.stringify(said))),
        );
        wire.write(Buffer.concat([Buffer.from(head(GOOD)), frames.subarray(0, frames.length - cut)]));
        await until(() => wire.status === 101, 'the upgrade is answered');
        wire.write(frames.subarray(frames.length - cut));
        await until(() => wire.messages.length === 4, 'all is answered');
        assert.deepEqual(
          wire.messages.map(({ a }) => a),
          ['init', 'pp', 'hs', 'pp'],
        );
        wire.end();
      }
      await bystander.assertWell();
    });

    test('fifty upgrade requests that arrive byte by byte are disconnected', async () => {
      const slow = await Promise.all(Array.from({ length: 50 }, () => Wire.open(server, { upgrade: false })));
      const bytes = head([...GOOD, ...many(100_000)]);
      let at = 0;
      const over = () => slow.every((wire) => wire.isGone || wire.status);
      await until(
        async () => {
          for (const wire of slow) if (!wire.isGone && !wire.status) wire.write(bytes[at]);
          at += 1;
          if (at % 50 === 0) await bystander.types();
          return over();
        },
        'all are disconnected',
        60_000,
      );
      for (const wire of slow) wire.end();
      await bystander.assertWell();
    });

    test('a thousand connections that send nothing do not prevent others from connecting', async () => {
      const idle = await Promise.all(Array.from({ length: 1_000 }, () => Wire.open(server, { upgrade: false })));
      const wire = await Wire.open(server);
      await wire.handshake();
      await bystander.assertWell();
      for (const other of [...idle, wire]) other.end();
    });
  });
});
