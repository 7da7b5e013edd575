// The budget of JavaScript, in bytes after gzip: what the first page loads, what replay adds, what any other page adds, and a language.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const KIB = 1024;
const FIRST = 140 * KIB;
// The player's core and its WebAssembly terminal.
const REPLAY = 75 * KIB;
const PAGE = 10 * KIB;
// All words of another language, which are no page: they grow with every one.
const WORDS = 14 * KIB;

export function check(folder) {
  const manifest = JSON.parse(readFileSync(join(folder, ".vite/manifest.json"), "utf8"));
  const size = (file) => gzipSync(readFileSync(join(folder, file)), { level: 9 }).length;
  const needs = (key, seen = new Set()) => {
    const chunk = manifest[key];
    if (seen.has(chunk.file)) return seen;
    seen.add(chunk.file);
    for (const other of chunk.imports ?? []) needs(other, seen);
    return seen;
  };
  const sum = (set) => [...set].filter((file) => file.endsWith(".js")).reduce((total, file) => total + size(file), 0);
  const first = needs("index.html");
  const faults = [];
  const judge = (what, bytes, most) => {
    if (process.env.SALLYPORT_WEB_VERBOSE) console.log(`${what}: ${(bytes / KIB).toFixed(1)} of ${most / KIB} KiB`);
    if (bytes > most) faults.push(`${what} takes ${(bytes / KIB).toFixed(1)} KiB of JavaScript (gzip), ${most / KIB} are allowed`);
  };
  judge("the first page", sum(first), FIRST);
  for (const [key, chunk] of Object.entries(manifest)) {
    if (!chunk.isDynamicEntry) continue;
    const added = new Set([...needs(key)].filter((file) => !first.has(file)));
    judge(key, sum(added), key.startsWith("src/i18n/") ? WORDS : /views\/(Session|Reviewed)\.tsx|player\//.test(key) ? REPLAY : PAGE);
  }
  if (faults.length > 0) {
    console.error(faults.join("\n"));
    process.exit(1);
  }
}
