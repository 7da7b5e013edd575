// Pictures of every page: `npm run screenshots -- FOLDER [--all]`. With --all in both themes, both languages, wide and narrow.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { cli, openPage, signIn, sleep, ssh, startBrowser, startDemo, until } from "./scene.mjs";

const folder = process.argv[2] ?? "../docs/img";
const all = process.argv.includes("--all");
mkdirSync(folder, { recursive: true });
const demo = await startDemo();
const browser = await startBrowser();
let live;
try {
  const work = [
    "PS1='[root@gpu-a-017 ~]# '; clear", "uname -sr; uptime", "df -h / | cat", "for i in $(seq 1 40); do printf 'firmware block %02d/40 written\\n' $i; sleep 0.05; done",
    "sha256sum /etc/hostname", "sleep 3", "ls -la --color=always / | head -20", "echo done; exit",
  ];
  await ssh(demo, { typed: work, pause: 700 }).ended;
  await ssh(demo, { command: ["ls -l /etc | head -30"], terminal: false }).ended;
  live = ssh(demo, { typed: ["PS1='[root@gpu-a-017 ~]# '; clear", "ls --color=always /; uptime"] });
  await live.typing;
  let sessions = [];
  await until(async () => (sessions = await cli(demo, ["session", "ls"])).length >= 3, 20_000, () => JSON.stringify(sessions));
  const [running, exec, shell] = sessions.map((one) => one.id);
  const [grant] = await cli(demo, ["grant", "ls"]);
  const pages = {
    overview: "/", grants: "/grants", "new-grant": "/grants?new=true&person=alice&target=toy", grant: `/grants/${grant.id}`, sessions: "/sessions",
    replay: `/sessions/${shell}?t=7`, live: `/sessions/${running}`, output: `/sessions/${exec}`, targets: "/targets?name=toy", people: "/people?name=alice",
    requests: "/requests", audit: "/audit", "my-access": "/me", settings: "/settings",
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
