// The scene of the browser tests: `sallyport demo`, the built program with a target that runs a real shell, real ssh clients, and Chromium.
// SALLYPORT names the program; if it does not, it is where `cargo build` leaves it. SALLYPORT_WEB_FOLDER names a build of the web app
// (`npm run build -- FOLDER`) that is shown in place of the program's own, under the program's own content security policy.
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { extname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const here = fileURLToPath(new URL(".", import.meta.url));
const repository = join(here, "../../..");
export const program = process.env.SALLYPORT ?? resolve(repository, process.env.CARGO_TARGET_DIR ?? "target", "debug/sallyport");
const CHROMIUM = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => path && existsSync(path));
export const axeSource = fileURLToPath(import.meta.resolve("axe-core/axe.min.js"));

export async function startDemo() {
  const demo = spawn(program, ["demo", "--for", "3h"], { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  demo.stdout.setEncoding("utf8").on("data", (text) => (said += text));
  demo.stderr.setEncoding("utf8").on("data", (text) => (said += text));
  await until(() => /fingerprint is\n[0-9A-F:]+/.test(said) || demo.exitCode !== null, 60_000, () => `the demo did not start: ${said}`);
  const find = (pattern) => {
    const match = said.match(pattern);
    if (!match) throw new Error(`the demo did not say ${pattern}: ${said}`);
    return match[1];
  };
  const folder = find(/-i (\S+)\/id_ed25519/);
  return {
    url: find(/(https:\/\/\S+)\//),
    password: find(/with the password (\S+)/),
    folder,
    login: find(/alice\+(\S+)@toy/),
    port: find(/-p (\d+)/),
    /** Kills it; its folder stays. */
    kill: async () => {
      demo.kill("SIGKILL");
      await until(() => demo.signalCode !== null, 10_000, () => "the demo does not die");
    },
    stop: async () => {
      demo.kill("SIGINT");
      await until(() => demo.exitCode !== null, 40_000, () => "the demo did not end");
    },
  };
}

/** Runs ssh as alice, to the bastion itself where `to` is empty. With a terminal, `typed` is what she types, each line with a pause before it. */
export function ssh(demo, { to = `${demo.login}@toy`, command = [], typed = [], terminal = true, pause = 400 } = {}) {
  const options = ["-p", demo.port, "-i", `${demo.folder}/id_ed25519`, "-o", "IdentitiesOnly=yes", "-o", `UserKnownHostsFile=${demo.folder}/known_hosts`];
  const client = spawn("ssh", [...(terminal ? ["-tt"] : []), ...options, `${["alice", to].filter(Boolean).join("+")}@127.0.0.1`, ...command], { stdio: ["pipe", "pipe", "pipe"] });
  let output = "";
  client.stdout.setEncoding("utf8").on("data", (text) => (output += text));
  client.stderr.setEncoding("utf8").on("data", (text) => (output += text));
  const ended = new Promise((resolve) => client.on("close", resolve));
  const type = async (lines) => {
    for (const line of lines) {
      await sleep(pause);
      client.stdin.write(`${line}\n`);
    }
  };
  return { type, typing: type(typed), ended, output: () => output, kill: () => client.kill(), close: () => client.stdin.end() };
}

export async function cli(demo, args, input = "") {
  const run = spawn(program, [...args, "--json"], { env: { ...process.env, SALLYPORT_SOCKET: `${demo.folder}/data/sallyport.sock` }, stdio: ["pipe", "pipe", "inherit"] });
  run.stdin.end(input);
  let said = "";
  run.stdout.setEncoding("utf8").on("data", (text) => (said += text));
  const code = await new Promise((resolve) => run.on("close", resolve));
  if (code !== 0) throw new Error(`sallyport ${args.join(" ")} failed`);
  const answer = JSON.parse(said);
  return answer.items ?? answer;
}

/** A file in a bundle: a ZIP archive in which everything is stored as it is. */
export function fileOf(archive, wanted) {
  for (let at = 0; archive.readUInt32LE(at) === 0x04034b50; ) {
    const [size, nameLength, extra] = [archive.readUInt32LE(at + 18), archive.readUInt16LE(at + 26), archive.readUInt16LE(at + 28)];
    const name = archive.toString("utf8", at + 30, at + 30 + nameLength);
    const start = at + 30 + nameLength + extra;
    if (name === wanted) return archive.subarray(start, start + size);
    at = start + size;
  }
  throw new Error(`the archive has no ${wanted}`);
}

export async function startBrowser() {
  if (!CHROMIUM) throw new Error("Chromium is not installed (scripts/install-test-deps installs it)");
  // A page that is put in the program's place comes from no address, and could not open a WebSocket to this machine.
  const instead = process.env.SALLYPORT_WEB_FOLDER ? ["--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets"] : [];
  return chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb", ...instead] });
}

/** A page that notes what must never happen: violations of the policy, requests to elsewhere, dialogs, errors. */
export async function openPage(browser, demo, { theme = "light", language = "en", width = 1440, height = 900 } = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width, height }, colorScheme: theme, locale: language, timezoneId: "Asia/Shanghai" });
  const page = await context.newPage();
  const wrong = [];
  await page.addInitScript(() => {
    window.__violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.__violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
  });
  page.on("console", (message) => {
    if (/Content Security Policy/.test(message.text())) wrong.push(message.text());
  });
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => {
    wrong.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(`${demo.url}/`) && !request.url().startsWith("blob:")) wrong.push(`request to ${request.url()}`);
  });
  page.setDefaultTimeout(15_000);
  if (process.env.SALLYPORT_WEB_FOLDER && demo.url.startsWith("http")) await serveInstead(page, demo, process.env.SALLYPORT_WEB_FOLDER);
  const wrongs = async () => [...wrong, ...(await page.evaluate(() => window.__violations))];
  return { page, context, wrongs };
}

/** Shows the build that SALLYPORT_WEB_FOLDER names in another page as well. */
export const showInstead = (page, demo) => serveInstead(page, demo, process.env.SALLYPORT_WEB_FOLDER);

const KINDS = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2", ".woff": "font/woff" };
let policy;

async function serveInstead(page, demo, folder) {
  await page.route(
    (url) => url.href.startsWith(`${demo.url}/`) && !url.pathname.startsWith("/api/"),
    async (route) => {
      // One answer of the program says under which headers it shows the app.
      policy ??= await route.fetch({ url: `${demo.url}/` }).then((answer) => answer.headers()["content-security-policy"]);
      const path = join(folder, new URL(route.request().url()).pathname);
      const file = existsSync(path) && extname(path) in KINDS ? path : join(folder, "index.html");
      await route.fulfill({ body: readFileSync(file), headers: { "content-type": KINDS[extname(file)], "content-security-policy": policy } });
    },
  );
}

export async function signIn(page, demo, path = "/") {
  await page.goto(demo.url + path);
  await page.getByLabel(/^(Name|姓名)$/).fill("admin");
  await page.getByLabel(/^(Password|密码)$/).fill(demo.password);
  await page.keyboard.press("Enter");
  await page.locator("#main").waitFor();
}

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export async function until(holds, patience, what) {
  const end = Date.now() + patience;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(what());
    await sleep(50);
  }
}
