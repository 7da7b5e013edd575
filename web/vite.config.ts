// `npm run build -- FOLDER` builds into that folder: build.rs names its own.
export default {
  build: {
    outDir: process.env.SALLYPORT_WEB_OUT ?? "dist",
    emptyOutDir: true,
    target: "es2022",
    // Nothing is inlined as `data:`: the content security policy takes fonts and scripts from files alone.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 400,
    reportCompressedSize: false,
    // Libraries say "use client" for servers that render; there is none here, and it would bury what else a build says.
    rolldownOptions: {
      onLog: (level, log, say) => void (log.code === "MODULE_LEVEL_DIRECTIVE" || say(level, log)),
      // What the player and the page around it share is a file of its own, or the one would wait for the other.
      output: { codeSplitting: { groups: [{ name: "recording", test: /src\/player\/recording\.ts$/ }] } },
    },
  },
  // `npm run dev` beside a bastion that listens without encryption on this port.
  server: { proxy: { "/api": { target: "http://127.0.0.1:8080", ws: true } } },
  test: { include: ["src/**/*.test.ts", "src/**/*.test.tsx"], environment: "node" },
};
