// Measures the replay of a long recording in Chromium: `make bench-web`. HOURS (8) and MEGABYTES (500) say how long and how large.
//
// A recording of that size is made within a minute by writing what a shell might have printed in that time into the journal of a bastion that
// was killed: from there it goes to rest the way every journal goes that a crash leaves behind. What the page then shows is compared
// with a full replay of the same bytes by another terminal (xterm.js).
import { spawn } from "node:child_process";
import { closeSync, openSync, readdirSync, rmSync, writeFileSync, writeSync } from "node:fs";
import xterm from "@xterm/headless";
import { cli, openPage, program, signIn, ssh, startBrowser, startDemo, until } from "./scene.mjs";

const HOURS = Number(process.env.HOURS ?? 8);
const BYTES = Number(process.env.MEGABYTES ?? 500) * 1e6;
const SECONDS = Math.round(HOURS * 3600);
const SEEKS = 100;
const COMPARED = 60;
/** Each way; what lies between a reviewer and the bastion. */
const LATENCY = 15;
const COLS = 100;
const ROWS = 30;
/** The second of the recording from which on it was generated. */
const BEGIN = 60;

/** CRC-32C (Castagnoli), as the journal's records have it. */
const table = Uint32Array.from({ length: 256 }, (_, at) => {
  let word = at;
  for (let bit = 0; bit < 8; bit++) word = word & 1 ? (word >>> 1) ^ 0x82f63b78 : word >>> 1;
  return word;
});
function crc32c(bytes) {
  let crc = ~0;
  for (const byte of bytes) crc = table[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Numbers that are the same in every run. */
function dice(seed) {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
}

/** What is printed in a second: a log that scrolls, a screen that is drawn in place, colours, wide characters; the second last. */
function printed(second, bytes, roll) {
  const words = ["kernel", "systemd", "nvme0n1", "fwupd", "error", "ok", "retry", "节点", "主机", "état", "/opt/fw/nv-2.17.bin", "10.0.3.17"];
  let text = "";
  if (second % 600 === 120) text += "\x1b[?1049h\x1b[2J";
  if (second % 600 === 180) text += "\x1b[?1049l";
  const isFullScreen = second % 600 >= 120 && second % 600 < 180;
  while (text.length < bytes) {
    const line = Array.from({ length: 4 + Math.floor(roll() * 6) }, () => `\x1b[3${1 + Math.floor(roll() * 6)}m${words[Math.floor(roll() * words.length)]}\x1b[0m`).join(" ");
    text += isFullScreen ? `\x1b[${2 + Math.floor(roll() * (ROWS - 3))};1H\x1b[K${line}` : `${line}\r\n`;
  }
  return `${text}\x1b[${ROWS};1H\x1b[K\x1b[7m second ${second} \x1b[0m`;
}

function* seconds() {
  const roll = dice(7);
  for (let second = 1; second <= SECONDS; second++) yield [second, Buffer.from(printed(second, BYTES / SECONDS, roll))];
}

/** Adds the hours to a journal that a killed bastion left. */
function writeJournal(file) {
  const out = openSync(file, "a");
  let pending = [];
  let size = 0;
  const add = (kind, second, body) => {
    const record = Buffer.alloc(4 + 13 + body.length);
    record.writeUInt32BE(9 + body.length, 4);
    record.writeBigUInt64BE(BigInt(BEGIN + second) * 1_000_000n, 8);
    record.write(kind, 16);
    body.copy(record, 17);
    record.writeUInt32BE(crc32c(record.subarray(4)), 0);
    pending.push(record);
    size += record.length;
  };
  add("r", 0, Buffer.from([0, COLS, 0, ROWS]));
  add("o", 0, Buffer.from("\x1b[H\x1b[2J"));
  for (const [second, output] of seconds()) {
    for (let from = 0; from < output.length; from += 32_768) add("o", second, output.subarray(from, from + 32_768));
    if (size > 8e6 || second === SECONDS) {
      writeSync(out, Buffer.concat(pending));
      [pending, size] = [[], 0];
    }
  }
  closeSync(out);
}

/** The moment, in seconds of the recording, at which a generated second is the last that was printed. */
const momentOf = (second) => BEGIN + second + 0.5;

const share = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
const asShown = (rows) => rows.map((row) => row.trimEnd()).join("\n").trimEnd();

/** What another terminal shows at these seconds after all that was printed before. */
async function fullReplay(wanted) {
  const terminal = new xterm.Terminal({ cols: COLS, rows: ROWS, scrollback: 0, allowProposedApi: true });
  const shown = new Map();
  for (const [second, output] of seconds()) {
    // It takes what it is given when it has time for it: waited for now and then, and where it counts.
    const looks = wanted.has(second);
    if (!looks && second % 50 !== 0) {
      terminal.write(output);
      continue;
    }
    await new Promise((resolve) => terminal.write(output, resolve));
    if (looks) {
      const { active } = terminal.buffer;
      shown.set(second, asShown(Array.from({ length: ROWS }, (_, row) => active.getLine(active.baseY + row)?.translateToString(true) ?? "")));
    }
  }
  return shown;
}

/** Makes the recording: a session, a bastion that is killed, and one that finds its journal. */
async function record() {
  const demo = await startDemo();
  const shell = ssh(demo);
  let session;
  await until(async () => (session = (await cli(demo, ["session", "ls"])).find((one) => one.state === "live")) !== undefined, 20_000, () => "the session does not begin");
  await shell.type(["echo begun"]);
  await until(() => shell.output().includes("begun\r\n"), 20_000, () => `the shell says nothing: ${shell.output()}`);
  await demo.kill();
  await shell.ended;

  const journals = `${demo.folder}/data/journal`;
  const [recording] = readdirSync(journals);
  const files = readdirSync(`${journals}/${recording}`).filter((name) => name.endsWith(".spj"));
  let begun = performance.now();
  writeJournal(`${journals}/${recording}/${files.at(-1)}`);
  console.log(`made      ${HOURS} h, ${BYTES / 1e6} MB in ${secondsSince(begun)}`);

  const config = `${demo.folder}/sallyport.toml`;
  const { port } = new URL(demo.url);
  writeFileSync(config, `[server]\ndata_dir = "${demo.folder}/data"\nnode = "demo"\n[ssh]\nlisten = "127.0.0.1:${demo.port}"\n[api]\nhttps_listen = "127.0.0.1:${port}"\n[log]\nlevel = "warn"\n`);
  const server = spawn(program, ["serve", "--config", config], { stdio: ["ignore", "inherit", "inherit"] });
  begun = performance.now();
  const isAtRest = () => readdirSync(journals).length === 0 || server.exitCode !== null;
  await until(isAtRest, 1_200_000, () => "the recording does not come to rest");
  console.log(`at rest   in ${secondsSince(begun)}`);
  const stop = async () => {
    server.kill("SIGTERM");
    await until(() => server.exitCode !== null, 60_000, () => "the bastion does not end");
    rmSync(demo.folder, { recursive: true });
  };
  return { demo, session: session.id, stop };
}

const secondsSince = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;

/** Runs in the page: goes to an address of the same session, and waits until the terminal shows `mark`; milliseconds. */
const goTo = ({ search, mark }) =>
  new Promise((resolve, reject) => {
    const start = performance.now();
    history.pushState(history.state, "", `${location.pathname}${search}`);
    dispatchEvent(new PopStateEvent("popstate", { state: history.state }));
    const look = () => {
      const took = performance.now() - start;
      if (document.querySelector('[data-testid="terminal"]')?.textContent?.includes(mark)) resolve(took);
      else if (took > 10_000) reject(new Error(`${mark} is not shown`));
      else requestAnimationFrame(look);
    };
    look();
  });

const linesShown = () => Array.from(document.querySelectorAll('[data-testid="terminal"] .ap-line'), (line) => line.textContent ?? "");

async function main() {
  const made = await record();
  const browser = await startBrowser();
  const { page, wrongs } = await openPage(browser, made.demo);
  await signIn(page, made.demo);
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Network.enable");
  await devtools.send("Network.emulateNetworkConditions", { offline: false, latency: 2 * LATENCY, downloadThroughput: -1, uploadThroughput: -1 });

  const roll = dice(11);
  const anySecond = () => 1 + Math.floor(roll() * (SECONDS - 1));
  const mark = (second) => ` second ${second} `;
  const search = (second) => `?ch=1&t=${momentOf(second)}`;

  const firsts = [];
  for (let round = 0; round < 5; round++) {
    const second = anySecond();
    await page.goto(`${made.demo.url}/sessions/${made.session}${search(second)}`);
    const shown = await page.waitForFunction((mark) => document.querySelector('[data-testid="terminal"]')?.textContent?.includes(mark) && performance.now(), mark(second), { polling: "raf" });
    firsts.push(await shown.jsonValue());
  }
  firsts.sort((a, b) => a - b);

  const wanted = Array.from({ length: SEEKS }, anySecond);
  const replayed = await fullReplay(new Set(wanted.slice(0, COMPARED)));
  const took = [];
  let same = 0;
  for (const [number, second] of wanted.entries()) {
    took.push(await page.evaluate(goTo, { search: search(second), mark: mark(second) }));
    if (number >= COMPARED) continue;
    const shown = asShown(await page.evaluate(linesShown));
    if (shown === replayed.get(second)) same += 1;
    else console.log(`second ${second} differs:\n${shown}\n--- and in a full replay:\n${replayed.get(second)}`);
  }
  took.sort((a, b) => a - b);
  await devtools.send("HeapProfiler.collectGarbage");
  const { usedSize } = await devtools.send("Runtime.getHeapUsage");

  const line = (what, figure, goal, met) => console.log(`${what.padEnd(34)} ${figure.padStart(10)}   ${goal.padEnd(10)} ${met ? "met" : "MISSED"}`);
  line("first frame, median of 5", `${Math.round(share(firsts, 0.5))} ms`, "< 1000 ms", share(firsts, 0.5) < 1000);
  line("first frame, slowest", `${Math.round(firsts.at(-1))} ms`, "< 1000 ms", firsts.at(-1) < 1000);
  line(`seek, p50 of ${SEEKS}`, `${Math.round(share(took, 0.5))} ms`, "", true);
  line(`seek, p95 of ${SEEKS}`, `${Math.round(share(took, 0.95))} ms`, "< 200 ms", share(took, 0.95) < 200);
  line("heap after them", `${(usedSize / 1e6).toFixed(1)} MB`, "< 50 MB", usedSize < 50e6);
  line("frames as in a full replay", `${same} of ${COMPARED}`, "all", same === COMPARED);
  const wrong = await wrongs();
  if (wrong.length > 0) console.log(wrong.join("\n"));
  await browser.close();
  await made.stop();
  if (same !== COMPARED || wrong.length > 0) process.exitCode = 1;
}

await main();
