import { defineConfig } from "vite";

// The server embeds `dist` and serves it under a strict Content-Security-Policy, so nothing may be inlined into
// the html: no module preload polyfill, no data: assets but images.
export default defineConfig({
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
