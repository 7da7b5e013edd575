// Pictures of every page: `npm run screenshots -- [FOLDER] [--all]`. With --all in both themes, both languages, wide and narrow.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { cli, openPage, signIn, sleep, ssh, startBrowser, startDemo, until } from "./scene.mjs";

const folder = process.argv.slice(2).find((word) => !word.startsWith("--")) ?? "../target/screenshots";
const all = process.argv.includes("--all");
mkdirSync(folder, { recursive: true });
const demo = await startDemo();
const browser = await startBrowser();
let live;
try {
  // What the pictures show is made up: nothing of the machine that they are taken on.
  const prompt = "PS1='[root@gpu-a-017 fw]# '; cd $(mktemp -d); clear";
  const work = [
    prompt, "for i in 0 1 2 3; do printf 'nvswitch%d  2.16.4  \\033[33mupdate available: 2.17.0\\033[m\\n' $i; done", "systemctl() { echo \"$2 stopped\"; }; systemctl stop slurmd",
    "for i in $(seq 1 24); do printf 'nvswitch0: block %02d/24 written\\n' $i; sleep 0.06; done", "sleep 4", "printf '\\033[32mnvswitch0  2.17.0  verified\\033[m\\n'", "exit",
  ];
  await ssh(demo, { typed: work, pause: 700 }).ended;
  await ssh(demo, { command: ["for i in 1 2 3 4; do echo \"node $i: 8 GPUs, 0 errors\"; done"], terminal: false }).ended;
  live = ssh(demo, { typed: [prompt, "for i in 0 1 2 3; do printf 'nvswitch%d  2.17.0  \\033[32mok\\033[m\\n' $i; done"] });
  await live.typing;
  let sessions = [];
  await until(async () => (sessions = await cli(demo, ["session", "ls"])).length >= 3, 20_000, () => JSON.stringify(sessions));
  const [running, exec, shell] = sessions.map((one) => one.id);
  const [grant] = await cli(demo, ["grant", "ls"]);
  await cli(demo, ["template", "new", "firmware", "gpu-a-*", "--login", "root", "--for", "4h", "--review", "5d", "--upload-path", "/srv/fw/**", "--note", "Firmware of the switches"]);
  const { link } = await cli(demo, ["person", "invite", "alice"]);
  const pages = {
    overview: "/", grants: "/grants", "new-grant": "/grants?new=true&person=alice&target=toy", grant: `/grants/${grant.id}`, sessions: "/sessions",
    replay: `/sessions/${shell}?t=7`, live: `/sessions/${running}`, output: `/sessions/${exec}`, targets: "/targets?name=toy", people: "/people?name=alice",
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
  await browser.close();
  await demo.stop();
}
