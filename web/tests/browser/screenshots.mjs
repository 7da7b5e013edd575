// Pictures of every page: `npm run screenshots -- [FOLDER] [--all]`. With --all in both themes, both languages, wide and narrow.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cli, openPage, signIn, sleep, ssh, startBrowser, startDemo, until } from "./scene.mjs";

const folder = process.argv.slice(2).find((word) => !word.startsWith("--")) ?? "../target/screenshots";
const all = process.argv.includes("--all");
mkdirSync(folder, { recursive: true });
const demo = await startDemo();
const browser = await startBrowser();
let live, asks;
try {
  await furnish(demo);
  const to = (name) => `${demo.login}@${name}`;
  await ssh(demo, { to: to("gpu-a-018"), command: ["for i in 1 2 3 4; do echo \"node $i: 8 GPUs, 0 errors\"; done"], terminal: false }).ended;
  await type(ssh(demo, { to: to("gpu-a-017") }), [
    "for i in 0 1 2 3; do printf 'nvswitch%d  2.16.4  \\033[33mupdate available: 2.17.0\\033[m\\n' $i; done", "systemctl() { echo \"$2 stopped\"; }; systemctl stop slurmd",
    "for i in $(seq 1 24); do printf 'nvswitch0: block %02d/24 written\\n' $i; sleep 0.06; done", "sleep 3", "printf '\\033[32mnvswitch0  2.17.0  verified\\033[m\\n'",
  ], "exit");
  live = ssh(demo, { to: to("gpu-a-017") });
  await type(live, ["for i in 0 1 2 3; do printf 'nvswitch%d  2.17.0  \\033[32mok\\033[m\\n' $i; done"]);
  asks = ssh(demo, { to: "", command: ["request", "db-core-2", "--for", "2h", "--reason", "'replica lags, INC-2231'"], terminal: false });
  let sessions = [];
  await until(async () => (sessions = await cli(demo, ["session", "ls"])).length >= 3, 20_000, () => JSON.stringify(sessions));
  await until(async () => (await cli(demo, ["request", "ls"])).length > 0, 20_000, () => asks.output());
  const [running, shell, exec] = sessions.map((one) => one.id);
  const grant = (await cli(demo, ["grant", "ls"])).find((one) => one.reason.startsWith("NVSwitch"));
  const { link } = await cli(demo, ["person", "invite", "alice"]);
  const pages = {
    overview: "/", grants: "/grants", "new-grant": "/grants?new=true&person=alice&target=gpu-a-017", grant: `/grants/${grant.id}`, sessions: "/sessions",
    replay: `/sessions/${shell}?t=9`, live: `/sessions/${running}`, output: `/sessions/${exec}`, targets: "/targets?name=gpu-a-017", people: "/people?name=alice",
    requests: "/requests", audit: "/audit", "my-access": "/me", settings: "/settings", templates: "/settings/templates?name=firmware",
    review: "/review", search: "/search?q=nvswitch0",
  };
  const looks = all
    ? ["light", "dark"].flatMap((theme) => [{ theme, language: "en", width: 1440 }, { theme, language: "zh-CN", width: 1440 }, { theme, language: "en", width: 390 }])
    : [{ theme: "light", language: "en", width: 1440 }, { theme: "dark", language: "en", width: 1440 }];
  for (const look of looks) {
    const { page, context } = await openPage(browser, demo, { ...look, height: look.width < 500 ? 844 : 900 });
    const name = (of) => join(folder, `${of}-${look.theme}${look.language === "en" ? "" : "-zh"}${look.width < 500 ? "-390" : ""}.png`);
    await page.goto(demo.url);
    await page.getByRole("textbox").first().waitFor();
    await page.screenshot({ path: name("sign-in") });
    await page.goto(link);
    await page.getByRole("textbox").first().waitFor();
    await page.screenshot({ path: name("invite") });
    await signIn(page, demo);
    for (const [of, path] of Object.entries(pages)) {
      await page.goto(demo.url + path);
      await page.locator("h1").first().waitFor();
      await page.waitForLoadState("networkidle").catch(() => {});
      await sleep(["replay", "live"].includes(of) ? 1500 : 400);
      await page.screenshot({ path: name(of) });
    }
    await context.close();
  }
} finally {
  live?.kill();
  asks?.kill();
  await browser.close();
  await demo.stop();
}

/** A small client with a vendor's people: what the pictures show is made up, and nothing of the machine that they are taken on. */
async function furnish(demo) {
  const toy = await cli(demo, ["target", "show", "toy"]);
  const here = { address: toy.address, logins: { [demo.login]: { credential: "certificate" } }, host_keys: toy.host_keys.map((key) => key.public_key ?? key) };
  const there = (address) => ({ ...here, address, logins: { ops: { credential: "certificate" } } });
  const person = (organisation, ...roles) => ({ organisation, roles, keys: roles.includes("engineer") ? [newKey()] : [] });
  const state = {
    version: 1,
    people: {
      "li.wei": person("Fabric Systems", "engineer"), "tomas.k": person("Fabric Systems", "engineer"), "noor": person("Northwind Bank", "admin", "reviewer"),
      "judith": person("Northwind Bank", "reviewer"), "audit-ey": person("Auditors", "auditor"),
    },
    targets: {
      "gpu-a-017": { ...here, labels: { rack: "a", env: "prod" } }, "gpu-a-018": { ...here, labels: { rack: "a", env: "prod" } },
      "login-1": { ...there("10.20.0.11:22"), labels: { env: "prod" } }, "db-core-2": { ...there("10.20.4.2:22"), labels: { env: "prod", data: "customers" } },
    },
  };
  await cli(demo, ["apply", "-f", "-", "--yes"], JSON.stringify(state)); // JSON is YAML
  const template = ["gpu-a-*", "--login", demo.login, "--for", "4h", "--review", "5d", "--upload-path", "/srv/fw/**"];
  await cli(demo, ["template", "new", "firmware", ...template, "--note", "Firmware of the switches"]);
  await cli(demo, ["grant", "new", "alice", "gpu-a-*", "--login", demo.login, "--for", "3h", "--allow", "shell,exec,upload", "--reason", "NVSwitch firmware 2.17", "--ticket", "CHG-1042"]);
  await cli(demo, ["grant", "new", "li.wei", "login-1", "--for", "45m", "--reason", "Slow logins", "--ticket", "INC-2219"]);
  await cli(demo, ["grant", "new", "tomas.k", "db-core-2", "--from", "tomorrow 09:00", "--until", "tomorrow 11:00", "--watched", "--reason", "Index rebuild", "--ticket", "CHG-1047"]);
}

function newKey() {
  const folder = mkdtempSync(join(tmpdir(), "sallyport-picture-"));
  try {
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", join(folder, "key")]);
    return readFileSync(join(folder, "key.pub"), "utf8").trim();
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Types each line, and waits until the prompt is there again; `last`, where it is given, ends the session. */
async function type(session, lines, last) {
  const prompt = "[root@gpu-a-017 fw]# ";
  const prompts = () => session.output().split(prompt).length;
  await sleep(1000); // the shell's own prompt is nobody's to know
  for (const line of [`PS1='${prompt}'; cd $(mktemp -d); clear`, ...lines]) {
    const before = prompts();
    await session.type([line]);
    await until(() => prompts() > before && session.output().endsWith(prompt), 20_000, session.output);
  }
  if (last) {
    await session.type([last]);
    await session.ended;
  }
}
