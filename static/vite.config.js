import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import { defineConfig } from 'vite';

/** What is smaller when compressed. The page itself is not among it: the server writes the base of its addresses into it. */
const COMPRESSIBLE = /\.(js|css|svg|json|webmanifest|txt)$/;

/** Writes brotli and gzip forms beside each file: the server sends them as they are and compresses nothing itself. */
function compress() {
  const encoders = {
    '.br': (bytes) =>
      brotliCompressSync(bytes, {
        params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
      }),
    '.gz': (bytes) => gzipSync(bytes, { level: 9 }),
  };
  let folder;
  return {
    name: 'compress',
    apply: 'build',
    configResolved(config) {
      folder = path.resolve(config.root, config.build.outDir);
    },
    // After the files of `public` have been copied too.
    closeBundle() {
      for (const name of readdirSync(folder, { recursive: true })) {
        const file = path.join(folder, name);
        if (!COMPRESSIBLE.test(name) || !statSync(file).isFile()) continue;
        const bytes = readFileSync(file);
        for (const [ending, encode] of Object.entries(encoders)) {
          const encoded = encode(bytes);
          if (encoded.length < bytes.length) writeFileSync(file + ending, encoded);
        }
      }
    },
  };
}

// The server embeds `dist` and serves it under a strict Content-Security-Policy, so nothing may be inlined into
// the html: no module preload polyfill, no data: assets but images.
// Addresses are relative to `<base href>`, which the server sets to the path below which it is mounted.
export default defineConfig({
  base: './',
  plugins: [compress()],
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
  },
  server: {
    proxy: {
      '/api': 'http://127.0.0.1:8080',
      '/ws': { target: 'ws://127.0.0.1:8080', ws: true },
    },
  },
});
