// What people do with the web app, in Chromium, against the built program and a real ssh client.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { axeSource, cli, fileOf, openPage, showInstead, signIn, ssh, startBrowser, startDemo, until } from "./scene.mjs";

const axe = readFileSync(axeSource, "utf8");
/** What a hostile target prints: HTML, script, links, the clipboard, titles, bytes that are no text. */
const HOSTILE = String.raw`printf '<img src=x onerror=alert(1)><script>alert(2)</script>\033]8;;javascript:alert(3)\033\\click\033]8;;\033\\ \033]52;c;aGVsbG8=\007\033]0;owned\007\033]1337;File=inline=1:aGk=\007\377\376 after-the-storm\n'`;

let demo;
let browser;
let shellSession;
let hostileSession;
let execSession;

before(async () => {
  demo = await startDemo();
  browser = await startBrowser();
  const shell = ssh(demo, { typed: ["PS1='$ '; clear", "echo first-frame-$((40 + 2))", "sleep 4", "echo second-frame-$((40 + 3))", "clear; exit 3"] });
  await shell.ended;
  await ssh(demo, { typed: ["PS1='$ '; clear", HOSTILE, "exit"] }).ended;
  await ssh(demo, { command: ["echo plain-output; echo '<b>not bold</b>'; exit 7"], terminal: false }).ended;
  let sessions = [];
  await until(async () => (sessions = await cli(demo, ["session", "ls"])).length >= 3 && sessions.every((one) => one.state === "ended"), 20_000, () => JSON.stringify(sessions));
  [execSession, hostileSession, shellSession] = sessions.map((one) => one.id);
});

after(async () => {
  await browser?.close();
  await demo?.stop();
});

const terminal = (page) => page.getByTestId("terminal");
const hasText = (page, text) => until(async () => (await terminal(page).textContent())?.includes(text), 15_000, () => `the terminal does not show ${text}`);

describe("signing in", () => {
  it("tells nothing of what was wrong, keeps the address, and ends with signing out", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await page.goto(`${demo.url}/sessions?state=ended`);
    await page.getByLabel("Name").fill("admin");
    await page.getByLabel("Password").fill("wrong");
    await page.getByRole("button", { name: "Sign in", exact: true }).click();
    assert.match(await page.getByRole("alert").innerText(), /the name or the password is wrong/);
    await page.getByLabel("Password").fill(demo.password);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Sessions" }).waitFor();
    assert.match(page.url(), /\/sessions\?state=ended$/);
    const [cookie] = await context.cookies();
    assert.deepEqual([cookie.name, cookie.secure, cookie.httpOnly, cookie.sameSite], ["__Host-sallyport", true, true, "Strict"]);
    await page.getByLabel("Signed in as admin").click();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Password").waitFor();
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });
});

/** A device of the person's, in the browser: it recognises them, and keeps keys. */
async function addDevice(page) {
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("WebAuthn.enable");
  const { authenticatorId } = await devtools.send("WebAuthn.addVirtualAuthenticator", {
    options: { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true },
  });
  return {
    verifies: (isUserVerified) => devtools.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified }),
    keys: async () => (await devtools.send("WebAuthn.getCredentials", { authenticatorId })).credentials,
  };
}

describe("passkeys", () => {
  for (const [language, theme] of [["en", "light"], ["zh", "dark"]]) {
    it(`are added with the keyboard, sign in without a name, and do not once they are removed (${language}, ${theme})`, async () => {
      const word = (en, zh) => (language === "en" ? en : zh);
      const { page, context, wrongs } = await openPage(browser, demo, { language: word("en", "zh-CN"), theme });
      const device = await addDevice(page);
      await signIn(page, demo, "/me");
      const name = page.getByLabel(word("Name of the new passkey", "新通行密钥的名称"));
      await name.focus();
      await page.keyboard.type(`laptop ${language}`);
      await page.keyboard.press("Enter");
      const removal = page.getByRole("button", { name: word(`Remove the passkey laptop ${language}`, `移除通行密钥 laptop ${language}`) });
      await removal.waitFor();
      const [key] = await device.keys();
      assert.deepEqual([key.isResidentCredential, key.rpId], [true, "localhost"]);
      assert.deepEqual(await judge(page), []);

      const out = async () => {
        await context.clearCookies();
        await page.goto(`${demo.url}/me`);
      };
      const enter = page.getByRole("button", { name: word("Sign in with a passkey", "使用通行密钥登录") });
      await out();
      await device.verifies(false);
      await enter.click();
      await page.getByRole("alert").waitFor();
      await device.verifies(true);
      await enter.focus();
      await page.keyboard.press("Enter");
      await removal.waitFor();
      const events = await cli(demo, ["audit", "ls", "--act", "logged_in"]);
      assert.equal(events.at(-1).act.method, "web passkey");

      await removal.click();
      await page.getByRole("button", { name: word("Remove", "移除"), exact: true }).click();
      // Not the button, in whose place the question was.
      await page.getByText(`laptop ${language}`, { exact: true }).waitFor({ state: "detached" });
      await out();
      await enter.click();
      await page.getByText("the passkey is not known here, or did not prove itself").waitFor();
      assert.deepEqual(await wrongs(), []);
      await context.close();
    });
  }
});

describe("an invite", () => {
  const run = promisify(execFile);

  /** A link, made by an admin at the keyboard. */
  async function invite(page, word) {
    const make = page.getByRole("button", { name: word("Invite …", "邀请 …") });
    await make.focus();
    await page.keyboard.press("Enter");
    await page.getByLabel(word("For", "时长")).fill("2h");
    assert.deepEqual(await judge(page), []);
    await page.keyboard.press("Enter");
    const shown = page.getByRole("dialog").locator("pre");
    await shown.waitFor();
    const link = await shown.textContent();
    assert.deepEqual(await judge(page), []);
    await page.keyboard.press("Escape");
    return link;
  }

  /** Somebody opens the link who was never here. */
  async function open(link, options) {
    const opened = await openPage(browser, demo, options);
    const asked = [];
    opened.page.on("request", (request) => asked.push(request.url()));
    await opened.page.goto(link);
    return { ...opened, asked };
  }

  for (const [language, theme] of [["en", "light"], ["zh", "dark"]]) {
    const word = (en, zh) => (language === "en" ? en : zh);
    const options = { language: word("en", "zh-CN"), theme };

    it(`takes a public key from the keyboard, once, and ssh connects as the page says (${language}, ${theme})`, async () => {
      const name = `key-${language}`;
      await cli(demo, ["person", "add", name]);
      const before = await cli(demo, ["person", "invite", name]);
      const admin = await openPage(browser, demo, options);
      await signIn(admin.page, demo, `/people?name=${name}`);
      await admin.page.getByRole("button", { name: word("Take back", "收回"), exact: true }).click();
      await admin.page.getByText(word("The link opens nothing any more.", "该链接已失效。")).waitFor();
      const link = await invite(admin.page, word);
      assert.match(link, /^https:\/\/localhost:\d+\/invite#spi_[\w-]{43}$/);
      const file = join(demo.folder, name);
      await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file]);

      const { page, context, wrongs, asked } = await open(link, options);
      await page.getByRole("heading", { name: word(`Welcome, ${name}`, `欢迎，${name}`) }).waitFor();
      assert.deepEqual(await judge(page), []);
      const field = page.getByLabel(word("Public key", "公钥"));
      assert.ok(await field.evaluate((element) => element === document.activeElement));
      await field.fill(readFileSync(file, "utf8"));
      await page.getByRole("alert").getByText(word("This is a private key", "这是私钥")).waitFor();
      assert.ok(await page.getByRole("button", { name: word("Add this key", "添加此公钥") }).isDisabled());
      await field.fill(readFileSync(`${file}.pub`, "utf8"));
      await page.keyboard.press("Tab");
      await page.keyboard.press("Enter");
      await page.getByRole("heading", { name: word(`You are set up, ${name}`, `设置完成，${name}`) }).waitFor();
      assert.equal(page.url(), `${demo.url}/invite`);
      assert.deepEqual(await judge(page), []);
      const [line, known] = await page.locator("pre").allTextContents();
      writeFileSync(`${file}.known`, `${known}\n`);
      const [client, ...place] = line.split(" ");
      const trust = ["-i", file, "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes", "-o", `UserKnownHostsFile=${file}.known`];
      assert.match((await run(client, [...trust, ...place, "whoami"])).stdout, new RegExp(name));

      // The page is left for the link again, which opens nothing any more, as one that never was.
      for (const again of [link, before.link, `${demo.url}/invite#spi_${"A".repeat(43)}`, `${demo.url}/invite`]) {
        await page.goto("about:blank");
        await page.goto(again);
        await page.getByRole("alert").getByText(word("This link opens nothing", "此链接无效")).waitFor();
      }
      assert.deepEqual(asked.filter((url) => url.includes("spi_")), [], "no address that is sent holds the token");
      assert.deepEqual(await wrongs(), []);
      await context.close();

      // The admin's page is told.
      const [invites] = await cli(demo, ["person", "invites", name]);
      await admin.page.getByText(word("Used", "已使用"), { exact: true }).waitFor();
      assert.ok((await admin.page.getByText(invites.added, { exact: true }).count()) >= 2, "with the invite and among the keys");
      assert.deepEqual(await admin.wrongs(), []);
      await admin.context.close();
    });

    it(`makes a passkey that signs in (${language}, ${theme})`, async () => {
      const name = `device-${language}`;
      await cli(demo, ["person", "add", name]);
      const { link } = await cli(demo, ["person", "invite", name]);
      const { page, context, wrongs } = await open(`${demo.url}/invite#spi_`, options);
      await page.getByRole("alert").getByText(word("This link opens nothing", "此链接无效")).waitFor();
      const device = await addDevice(page);
      // In the same tab only what is behind the # changes.
      await page.goto(link);
      const label = page.getByLabel(word("Name of the new passkey", "新通行密钥的名称"));
      await device.verifies(false);
      await label.fill("laptop");
      await page.keyboard.press("Enter");
      await page.getByRole("alert").getByText(word("The device gave no passkey", "设备没有给出通行密钥")).waitFor();
      await device.verifies(true);
      await label.focus();
      await page.keyboard.press("Enter");
      await page.getByRole("heading", { name: word(`You are set up, ${name}`, `设置完成，${name}`) }).waitFor();
      assert.deepEqual(await judge(page), []);
      await page.getByRole("link", { name: word("Sign in", "登录") }).click();
      await page.getByRole("button", { name: word("Sign in with a passkey", "使用通行密钥登录") }).click();
      await page.getByLabel(word(`Signed in as ${name}`, `已登录：${name}`)).waitFor();
      assert.deepEqual(await wrongs(), []);
      await context.close();
    });
  }
});

describe("browsers that are signed in", () => {
  it("are listed with their devices, ended one by one or all others, and by an admin", async () => {
    const one = await openPage(browser, demo);
    await signIn(one.page, demo, "/me");
    const two = await openPage(browser, demo);
    await signIn(two.page, demo, "/me");
    await one.page.reload();
    const section = one.page.locator("section", { has: one.page.getByRole("heading", { name: "Where you are signed in" }) });
    await section.getByText("Chrome, Linux").first().waitFor();
    assert.equal(await section.getByText("this browser").count(), 1);
    await section.getByRole("button", { name: /^Sign out Chrome, Linux at/ }).first().click();
    await one.page.getByText("Signed out.").waitFor();
    await section.getByRole("button", { name: "Sign out the others" }).or(section.getByRole("button", { name: "Sign out everywhere" })).first().waitFor();
    await two.page.goto(`${demo.url}/me`);
    await two.page.getByLabel("Password").waitFor();
    assert.deepEqual(await one.wrongs(), []);
    await two.context.close();

    await one.page.goto(`${demo.url}/people?name=admin`);
    await one.page.getByRole("button", { name: "Sign them out everywhere" }).click();
    await one.page.getByLabel("Password").waitFor();
    await one.context.close();
  });
});

describe("what changes", () => {
  it("is told to the pages, by one stream for all tabs, which ask rarely then", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    const asked = [];
    context.on("request", (request) => asked.push(new URL(request.url()).pathname));
    const streams = () => asked.filter((path) => path === "/api/v1/live").length;
    const lists = () => asked.filter((path) => path === "/api/v1/sessions").length;
    await signIn(page, demo, "/sessions?state=live");
    await until(() => streams() === 1, 10_000, () => "the page does not listen");
    const second = await context.newPage();
    if (process.env.SALLYPORT_WEB_FOLDER) await showInstead(second, demo);
    await second.goto(`${demo.url}/sessions?state=live`);
    await second.getByRole("heading", { name: "Sessions" }).waitFor();

    const session = ssh(demo, { typed: ["sleep 60"] });
    const row = (on) => on.getByRole("row", { name: /alice/ }).first();
    await row(page).waitFor({ timeout: 3000 });
    await row(second).waitFor({ timeout: 3000 });
    const before = lists();
    session.kill();
    await session.ended;
    await until(async () => (await row(page).count()) === 0 && (await row(second).count()) === 0, 5000, () => "the end of the session is not shown");
    assert.ok(lists() - before <= 12, `asked ${lists() - before} times for one change`);
    assert.equal(streams(), 1, "the second tab has the first one's stream");

    // The tab that listens goes; the other takes its place.
    await page.close();
    await until(() => streams() === 2, 10_000, () => "nobody listens any more");
    assert.deepEqual((await wrongs().catch(() => [])).filter((wrong) => !/closed/.test(wrong)), []);
    await context.close();
  });
});

describe("replay", () => {
  it("shows the frame of the moment that the address names", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, `/sessions/${shellSession}?ch=1&t=3`);
    await hasText(page, "first-frame-42");
    assert.ok(!(await terminal(page).textContent()).includes("second-frame-43"), "what was printed later is not shown yet");
    const slider = page.getByRole("slider", { name: "Position" });
    await until(async () => Number(await slider.getAttribute("aria-valuemax")) > 4, 5000, () => "the recording has no length");
    assert.equal(await slider.getAttribute("aria-valuenow"), "3");
    await page.keyboard.press("ArrowRight");
    await until(async () => !(await terminal(page).textContent()).includes("first-frame-42") || (await terminal(page).textContent()).includes("second-frame-43"), 10_000, () => "a seek shows the old frame");
    await page.keyboard.press("0");
    await until(async () => (await slider.getAttribute("aria-valuenow")) === "0", 5000, () => "0 does not go to the start");
    await page.waitForURL(/t=0/);
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });

  it("skips idle time, and goes on from the same place at another speed", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, `/sessions/${shellSession}?ch=1&t=0`);
    await hasText(page, "");
    const slider = page.getByRole("slider", { name: "Position" });
    const at = async () => Number(await slider.getAttribute("aria-valuenow"));
    await until(async () => Number(await slider.getAttribute("aria-valuemax")) > 4, 5000, () => "the recording has no length");
    const duration = Number(await slider.getAttribute("aria-valuemax"));
    const started = Date.now();
    await page.getByRole("button", { name: "Play" }).click();
    await page.getByRole("button", { name: "Pause" }).waitFor();
    await until(async () => (await at()) >= 1, 5000, () => "it does not play");
    const before = await at();
    await page.getByRole("button", { name: "2×" }).click();
    assert.ok((await at()) >= before, "another speed begins where the one before was");
    await page.getByRole("button", { name: "Play" }).waitFor({ timeout: duration * 1000 });
    assert.ok((Date.now() - started) / 1000 < duration - 1.5, "four idle seconds were skipped");
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });

  it("goes to the moment of a command, and to what is found", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, `/sessions/${shellSession}?ch=1&t=0`);
    await page.getByRole("slider").waitFor();
    const command = page.getByRole("button", { name: /echo first-frame/ });
    await command.click();
    await page.waitForURL(/t=[0-9.]+/);
    const current = (text) => page.locator("button[aria-current=true]", { hasText: text }).waitFor();
    await current("echo first-frame");
    await page.locator("h1").click();
    await page.keyboard.press("]");
    await current("sleep 4");
    await hasText(page, "first-frame-42");
    await page.keyboard.press("[");
    await current("echo first-frame");
    await page.keyboard.press("/");
    await page.keyboard.type("SECOND-FRAME-43");
    await page.waitForURL(/find=SECOND-FRAME-43/);
    await page.keyboard.press("Enter");
    await hasText(page, "second-frame-43");
    await page.getByText("1 of 1", { exact: true }).waitFor();
    await page.getByRole("tab", { name: "Transcript" }).click();
    await page.getByRole("button", { name: /first-frame-42/ }).click();
    await until(async () => !(await terminal(page).textContent()).includes("second-frame-43"), 10_000, () => "a line of the transcript leads elsewhere");
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });

  it("obeys nothing that a hostile target printed", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, `/sessions/${hostileSession}?ch=1&t=0`);
    await page.getByRole("slider").waitFor();
    await page.getByRole("button", { name: "Play" }).click();
    await hasText(page, "after-the-storm");
    assert.ok((await terminal(page).textContent()).includes("<script>alert(2)</script>"), "HTML is text");
    assert.equal(await terminal(page).locator("script, img").count(), 0);
    assert.equal(await page.locator('a[href^="javascript"]').count(), 0);
    assert.match(await page.title(), /Sallyport/);
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });

  it("shows a program without a terminal as text", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, `/sessions/${execSession}`);
    const text = page.locator("pre");
    await text.getByText("plain-output").waitFor();
    assert.match(await text.innerText(), /<b>not bold<\/b>/);
    await page.getByText("status 7").waitFor();
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });
});

describe("search", () => {
  it("finds what was on a screen from any page, by the keyboard alone, and opens the frame that shows it", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, "/grants");
    await page.getByRole("heading", { name: "Grants" }).waitFor();
    await page.keyboard.press("/");
    await page.keyboard.type("text:SECOND-FRAME-43");
    await page.keyboard.press("Enter");
    await page.waitForURL(/\/search\?q=/);
    const hit = page.getByRole("link", { name: /second-frame-43/ });
    await hit.first().waitFor();
    assert.equal(await page.locator("mark").first().innerText(), "second-frame-43");
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    await page.waitForURL(new RegExp(`/sessions/${shellSession}\\?.*find=second-frame-43`));
    await hasText(page, "second-frame-43");
    await page.locator("button[aria-current=true]", { hasText: "second-frame-43" }).waitFor();
    const events = await cli(demo, ["audit", "ls"]);
    assert.ok(JSON.stringify(events).includes("text:SECOND-FRAME-43"), "the search is in the audit log");
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });

  it("finds commands, people and targets, and says what it did not find", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, "/search?q=alice");
    await page.getByRole("heading", { name: "People & keys" }).waitFor();
    await page.getByRole("heading", { name: "Sessions", exact: true }).waitFor();
    await page.goto(`${demo.url}/search?q=cmd%3A%22sleep%204%22`);
    await page.getByRole("link", { name: /sleep 4/ }).waitFor();
    await page.goto(`${demo.url}/search?q=${encodeURIComponent("100%_' OR \\ <script>nowhere")}`);
    await page.getByText("Nothing that was run, shown or carried has this.").waitFor();
    await page.goto(`${demo.url}/search?q=-f`);
    await page.getByText(/is too short to look for/).waitFor();
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });
});

describe("a live session", () => {
  it("is seen as it goes on, told something, held, released, and cut", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, "/sessions?state=live");
    const client = ssh(demo);
    await client.type(["echo before-$((1 + 1))"]);
    const link = page.getByRole("link", { name: `${demo.login}@toy` });
    await link.click();
    await hasText(page, "before-2");
    await client.type(["echo while-looking-$((3 + 4))"]);
    await hasText(page, "while-looking-7");
    await page.keyboard.press("m");
    await page.getByRole("textbox", { name: "Message" }).fill("please wait a moment");
    await page.keyboard.press("Enter");
    await until(() => client.output().includes("please wait a moment"), 10_000, () => `the message did not arrive: ${client.output()}`);
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    await page.keyboard.press("h");
    await page.getByRole("textbox", { name: "Reason" }).fill("a look at this first");
    await page.keyboard.press("Enter");
    await page.getByText("The session stands still, held by an admin: a look at this first").waitFor();
    await client.type(["echo released-$((5 + 6))"]);
    await page.getByRole("button", { name: "Release" }).click();
    await until(() => client.output().includes("released-11"), 10_000, () => `what was typed meanwhile did not run: ${client.output()}`);
    await page.getByRole("button", { name: /^Cut/ }).click();
    await page.getByRole("textbox", { name: "Reason" }).fill("the test is over");
    await page.keyboard.press("Enter");
    await client.ended;
    assert.match(client.output(), /the test is over/);
    await page.getByText("Ended", { exact: true }).first().waitFor();
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });
});

describe("a grant", () => {
  it("is made from the keyboard alone, and revoked", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, "/grants");
    await page.getByRole("heading", { name: "Grants" }).waitFor();
    await page.keyboard.press("g");
    await page.keyboard.press("n");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.type("alice");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    await page.keyboard.type("toy");
    await page.keyboard.press("Enter");
    await page.getByText("matches 1 target").waitFor();
    await page.getByLabel("Reason").fill("INC-4812 a test");
    await page.getByRole("heading", { name: "What alice will get" }).waitFor();
    await page.keyboard.press("Control+Enter");
    await page.getByRole("heading", { name: "alice has access." }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("row", { name: /INC-4812 a test/ }).getByRole("link").click();
    await page.getByRole("button", { name: /^Revoke/ }).click();
    await page.getByRole("textbox", { name: "Reason" }).fill("no longer needed");
    await page.keyboard.press("Enter");
    await page.getByText("Revoked by admin: no longer needed").waitFor();
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });
});

describe("a new grant on a slow line", () => {
  it("keeps the name that was typed before the bastion had said who there is", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, "/sessions");
    let tell;
    const told = new Promise((resolve) => (tell = resolve));
    await page.route("**/api/v1/people*", async (route) => {
      await told;
      await route.continue();
    });
    await page.goto(`${demo.url}/grants?new=true&target=toy`);
    await page.getByText("matches 1 target").waitFor();
    await page.getByRole("combobox", { name: "Person" }).fill("alice");
    await page.getByLabel("Reason").fill("INC-4815 typed ahead");
    assert.equal(await page.getByRole("button", { name: "Grant access" }).isDisabled(), true);
    tell();
    await page.getByRole("heading", { name: "What alice will get" }).waitFor();
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });
});

describe("a template", () => {
  it("is made once, and then a grant takes five keystrokes after the person's name", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, "/settings/templates");
    await page.getByRole("button", { name: "New template" }).click();
    await page.getByLabel("Name", { exact: true }).fill("firmware");
    await page.getByLabel("Targets", { exact: true }).fill("toy");
    await page.getByLabel("Login").fill(demo.login);
    await page.getByRole("checkbox", { name: "upload" }).check();
    await page.getByLabel("For", { exact: true }).fill("2h");
    await page.getByLabel("Reason").fill("firmware of the switches");
    await page.getByRole("checkbox", { name: "shell" }).uncheck();
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByRole("heading", { name: "firmware" }).waitFor();

    await page.keyboard.press("g");
    await page.keyboard.press("n");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.type("alice");
    for (const key of ["Tab", "f"]) await page.keyboard.press(key);
    await page.getByRole("heading", { name: "What alice will get" }).waitFor();
    await page.keyboard.press("Control+Enter");
    await page.getByRole("heading", { name: "alice has access." }).waitFor();
    const [grant] = (await cli(demo, ["grant", "ls"])).filter((one) => one.template === "firmware");
    assert.deepEqual([grant.reason, grant.allow.upload, grant.allow.shell, grant.targets], ["firmware of the switches", true, false, ["toy"]]);
    assert.equal(Math.round((Date.parse(grant.not_after) - Date.parse(grant.not_before)) / 60_000), 120);
    await page.keyboard.press("Escape");
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });

  it("that is changed in the form is the grant's own, and one that is changed later touches no grant", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, "/grants?new=true&person=alice&template=firmware");
    await page.getByText("matches 1 target").waitFor();
    assert.equal(await page.getByLabel("Reason").inputValue(), "firmware of the switches");
    await page.getByLabel("Reason").fill("INC-4814 more than firmware");
    await page.getByRole("checkbox", { name: "download" }).check();
    await page.getByText("No longer firmware").waitFor();
    await page.getByRole("button", { name: "Grant access" }).click();
    await page.getByRole("heading", { name: "alice has access." }).waitFor();
    const before = await cli(demo, ["grant", "ls"]);
    assert.equal(before.find((one) => one.reason === "INC-4814 more than firmware").template, null);
    await page.goto(`${demo.url}/settings/templates?name=firmware`);
    await page.getByRole("button", { name: "Change" }).click();
    await page.getByRole("checkbox", { name: "Ask for a second factor" }).check();
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    assert.deepEqual(await cli(demo, ["grant", "ls"]), before);
    await page.getByRole("button", { name: "Remove" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await page.getByText("No templates yet").waitFor();
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });
});

describe("an evidence bundle", () => {
  it("plays from a file, without a server, and asks no network for anything", async () => {
    const folder = join(demo.folder, "evidence");
    mkdirSync(folder);
    await cli(demo, ["evidence", "make", shellSession, "-o", join(folder, "bundle.zip")]);
    writeFileSync(join(folder, "index.html"), fileOf(readFileSync(join(folder, "bundle.zip")), "index.html"));
    // Whatever is not this folder is noted as wrong.
    const { page, context, wrongs } = await openPage(browser, { url: pathToFileURL(folder).href });
    const asked = [];
    page.on("request", (request) => asked.push(request.url()));
    await page.goto(pathToFileURL(join(folder, "index.html")).href);
    await page.getByRole("heading", { name: `Session ${shellSession}` }).waitFor();
    const screen = page.locator(".screen").first();
    const shows = (text) => until(async () => (await screen.textContent()).includes(text), 15_000, () => `the screen does not show ${text}`);
    assert.ok(!(await screen.textContent()).includes("first-frame-42"));
    await page.getByRole("button", { name: "Play" }).first().click();
    await shows("first-frame-42");
    await page.getByRole("button", { name: "Pause" }).first().click();
    const slider = page.getByRole("slider", { name: "Position" }).first();
    await slider.fill("0");
    assert.ok(!(await screen.textContent()).includes("first-frame-42"), "it can be wound back");
    await slider.fill("3000");
    assert.ok((await screen.textContent()).includes("first-frame-42"), "and forward");
    await page.getByRole("heading", { name: "Commands" }).waitFor();
    await page.getByRole("row", { name: /echo first-frame-/ }).first().waitFor();
    await page.getByText("Transcript").first().click();
    await page.locator("pre", { hasText: "first-frame-42" }).waitFor();
    assert.deepEqual(asked, [page.url()], "nothing but the page itself was asked for");
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });
});

describe("a grant's limits", () => {
  it("are written in the form, refused where they cannot be read, and shown with the grant", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, "/grants?new=true&person=alice&target=toy");
    await page.getByText("matches 1 target").waitFor();
    await page.getByLabel("Reason").fill("INC-4813 limited");
    await page.getByText("More limits").click();
    await page.getByLabel("Only these commands").fill("uptime\nsystemctl restart app-*");
    await page.getByLabel("Most over the grant's life").first().fill("much");
    await page.getByText("This cannot be read.").first().waitFor();
    assert.ok(await page.getByRole("button", { name: "Grant access" }).isDisabled());
    assert.ok(await page.getByRole("checkbox", { name: "shell" }).isDisabled());
    await page.getByLabel("Most over the grant's life").first().fill("2 GB");
    await page.getByRole("button", { name: "Grant access" }).click();
    await page.getByRole("heading", { name: "alice has access." }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("row", { name: /INC-4813 limited/ }).getByRole("link").click();
    await page.getByText("uptime, systemctl restart app-*").waitFor();
    await page.getByText("2 GB").waitFor();
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });
});

describe("the ledger", () => {
  it("is verified in the browser, an event by its own proof and all of them together", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, "/audit");
    await page.getByRole("button", { name: "Verify now" }).click();
    await page.getByText(/^✓ Intact: \d+ of \d+ events verified in this browser/).waitFor();
    await page.getByRole("link", { name: /^Ledger intact/ }).waitFor();
    await page.locator("tbody tr").nth(3).locator("summary").click();
    await page.locator("tbody tr").nth(3).getByRole("button", { name: "Prove it" }).click();
    await page.getByText(/^✓ In place \d+/).waitFor();
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });

  it("is called broken, on every page, when an event is not what was signed", async () => {
    const { page, context } = await openPage(browser, demo);
    await page.route("**/api/v1/events?*", async (route) => {
      const answer = await route.fetch();
      const body = await answer.json();
      const altered = body.items.find((event) => event.kind === "grant_made");
      if (altered) altered.act.reason = "something else";
      await route.fulfill({ response: answer, json: body });
    });
    await signIn(page, demo, "/audit");
    await page.getByRole("button", { name: "Verify now" }).click();
    await page.getByRole("alert").getByText(/Ledger broken at #\d+: an event was altered/).waitFor();
    await page.getByRole("link", { name: "Sessions" }).click();
    await page.getByRole("heading", { name: "Sessions" }).waitFor();
    await page.getByRole("link", { name: /^Ledger broken at #/ }).waitFor();
    await context.close();
  });
});

describe("review", () => {
  it("is a queue: watched, flagged at a moment and signed off, with how much was seen", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, "/review");
    await page.getByRole("status").getByText(/\d+ to review/).waitFor();
    await page.keyboard.press("j");
    await page.waitForURL(/session=s-/);
    await page.goto(`${demo.url}/review?session=${shellSession}`);
    const panel = page.getByRole("region", { name: "Review" });
    await panel.getByText("first time on this target").waitFor();
    await hasText(page, "first-frame-42");
    const seen = panel.getByRole("meter");
    await until(async () => Number(await seen.getAttribute("aria-valuenow")) > 0, 20_000, () => "nothing counts as seen");
    await page.keyboard.press("f");
    await page.getByLabel("What is to be seen here?").fill("why this frame?");
    await page.keyboard.press("Enter");
    await panel.getByText("why this frame?").waitFor();
    await page.keyboard.press("s");
    await page.getByText("Signed off.").waitFor();
    const { review, remarks } = await cli(demo, ["session", "review", "show", shellSession]);
    assert.deepEqual([review.state, review.verdict, review.flags], ["done", "as_planned", 1]);
    assert.ok(remarks.find((one) => one.kind === "sign_off").coverage.percent > 0);
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });

  it("is in the evidence: what was flagged, the verdict and how much was seen", async () => {
    const file = join(demo.folder, "reviewed.zip");
    await cli(demo, ["evidence", "make", shellSession, "-o", file]);
    const html = join(demo.folder, "reviewed.html");
    writeFileSync(html, fileOf(readFileSync(file), "index.html"));
    const { page, context, wrongs } = await openPage(browser, { url: pathToFileURL(demo.folder).href });
    await page.goto(pathToFileURL(html).href);
    await page.getByRole("heading", { name: "Review", exact: true }).waitFor();
    await page.getByRole("row", { name: /to be reviewed: risk \d+ first time on this target/ }).waitFor();
    await page.getByRole("row", { name: /flag why this frame\?/ }).waitFor();
    await page.getByRole("row", { name: /verdict: as planned, \d+ % seen/ }).waitFor();
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });

  it("is not for who gave the grant", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo);
    const post = (path, body) =>
      page.evaluate(([path, body]) => fetch(path, { method: "POST", headers: { "content-type": "application/json", "x-sallyport": "web" }, body: JSON.stringify(body) }).then((answer) => answer.status), [path, body]);
    // Of two grants the one that lasts longest counts.
    const given = await post("/api/v1/grants", { people: ["alice"], targets: ["toy"], logins: [demo.login], not_after: "2100-01-01T00:00:00Z", reason: "another one" });
    assert.equal(given, 201);
    await ssh(demo, { command: ["echo given-by-admin"], terminal: false }).ended;
    let own;
    await until(async () => {
      [own] = await cli(demo, ["session", "ls"]);
      return own.state === "ended" && (await cli(demo, ["session", "review", "show", own.id])).review !== null;
    }, 20_000, () => JSON.stringify(own));
    await page.goto(`${demo.url}/sessions/${own.id}`);
    await page.getByText("nobody reviews a session under a grant that they gave").waitFor();
    assert.equal(await page.getByRole("button", { name: "Sign off" }).count(), 0);
    assert.equal(await post(`/api/v1/sessions/${own.id}/review/sign-off`, { verdict: "as_planned" }), 403);
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });
});

describe("evidence", () => {
  it("of a session is saved as a file that proves itself", async () => {
    const { page, context, wrongs } = await openPage(browser, demo);
    await signIn(page, demo, `/sessions/${execSession}`);
    const saving = page.waitForEvent("download");
    await page.getByRole("button", { name: "Evidence" }).click();
    const file = await saving;
    assert.equal(file.suggestedFilename(), `evidence-${execSession}.zip`);
    assert.equal(readFileSync(await file.path()).subarray(0, 2).toString(), "PK");
    assert.deepEqual(await wrongs(), []);
    await context.close();
  });
});

describe("every page", () => {
  for (const theme of ["light", "dark"]) {
    for (const language of ["en", "zh-CN"]) {
      it(`is found good by axe in ${theme}, ${language}`, async () => {
        const { page, context, wrongs } = await openPage(browser, demo, { theme, language });
        await page.goto(demo.url);
        await page.getByRole("textbox").first().waitFor();
        const findings = { "sign-in": await judge(page) };
        await signIn(page, demo);
        const grants = await cli(demo, ["grant", "ls"]);
        for (const path of ["/", "/grants", "/grants?new=true", `/grants/${grants[0].id}`, "/sessions", `/sessions/${shellSession}?t=2`, `/sessions/${shellSession}?t=2&tab=transcript`, `/sessions/${shellSession}?t=2&find=frame`, `/sessions/${execSession}?tab=details`, `/sessions/${execSession}?tab=files`, "/review", `/review?session=${shellSession}`, "/requests", "/targets?name=toy", "/people?name=alice", "/audit", "/search", "/search?q=frame", "/search?q=alice", "/settings", "/settings/templates", "/me"]) {
          await page.goto(demo.url + path);
          await page.locator("h1").first().waitFor();
          await page.waitForLoadState("networkidle");
          findings[path] = await judge(page);
        }
        assert.deepEqual(Object.entries(findings).filter(([, found]) => found.length > 0), []);
        assert.deepEqual(await wrongs(), []);
        await context.close();
      });
    }
  }
});

async function judge(page) {
  await page.evaluate(axe);
  const result = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return result.violations.flatMap((one) => one.nodes.slice(0, 4).map((node) => `${one.id}: ${node.target.join(" ")} ${node.failureSummary}`));
}
