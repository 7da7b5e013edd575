// Builds the web app: `npm run build -- [FOLDER]`. Then compresses what is worth it, and checks the budget.
import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { check } from "./budget.mjs";

const folder = resolve(process.argv[2] ?? "dist");
const built = spawnSync(process.execPath, ["node_modules/vite/bin/vite.js", "build", "--logLevel", "warn", "--manifest"], {
  stdio: "inherit",
  env: { ...process.env, SALLYPORT_WEB_OUT: folder },
});
if (built.status !== 0) process.exit(built.status ?? 1);

for (const file of files(folder)) {
  if (!/\.(js|css|html|svg)$/.test(file)) continue;
  const plain = readFileSync(file);
  const forms = {
    br: brotliCompressSync(plain, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }),
    gz: gzipSync(plain, { level: 9 }),
  };
  for (const [ending, bytes] of Object.entries(forms)) {
    if (bytes.length < plain.length * 0.9) writeFileSync(`${file}.${ending}`, bytes);
  }
}
check(folder);

function files(place) {
  return readdirSync(place).flatMap((name) => {
    const path = join(place, name);
    return statSync(path).isDirectory() ? files(path) : [path];
  });
}
