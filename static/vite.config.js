import { defineConfig } from "vite";

// The server embeds `dist` and serves it under a strict Content-Security-Policy, so nothing may be inlined into
// the html: no module preload polyfill, no data: assets but images.
// Addresses are relative to `<base href>`, which the server sets to the path below which it is mounted.
export default defineConfig({
  base: "./",
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
  },
  server: {
    proxy: {
      "/api": "http://127.0.0.1:8080",
      "/ws": { target: "ws://127.0.0.1:8080", ws: true },
    },
  },
});
