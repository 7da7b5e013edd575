// Signing in at an identity provider: the built program, and `oidc-provider`, which is certified to be one.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Provider } from "oidc-provider";
import { cli, openPage, program, startBrowser, until } from "./scene.mjs";

const SECRET = "a-secret-of-the-client-0123456789";
let bastion;
let browser;
let server;

before(async () => {
  // The provider's address first, for the bastion's settings; then the bastion's, for the provider's.
  server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const issuer = `http://localhost:${server.address().port}`;
  bastion = await startBastion(issuer);
  const provider = new Provider(issuer, {
    clients: [{ client_id: "sallyport", client_secret: SECRET, redirect_uris: [`${bastion.url}/api/v1/sign-in/oidc/callback`] }],
    cookies: { keys: ["for the tests"] },
  });
  server.on("request", provider.callback());
  for (const name of ["alice", "bob"]) await cli(bastion, ["person", "add", name, "--role", "admin"]);
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
  await bastion?.stop();
  server?.closeAllConnections();
  server?.close();
});

async function startBastion(issuer) {
  const folder = mkdtempSync(join(tmpdir(), "sallyport-oidc-"));
  const file = join(folder, "sallyport.toml");
  writeFileSync(join(folder, "client-secret"), SECRET, { mode: 0o600 });
  writeFileSync(
    file,
    `[server]\ndata_dir = "${folder}/data"\n[ssh]\nlisten = "127.0.0.1:0"\n[api]\nhttps_listen = "127.0.0.1:0"\n` +
      `[sign_in.oidc]\nissuer = "${issuer}"\nclient_id = "sallyport"\nclient_secret_file = "${folder}/client-secret"\nlabel = "Example ID"\n`,
  );
  const serve = spawn(program, ["serve", "--config", file], { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, NO_COLOR: "1" } });
  let said = "";
  serve.stderr.setEncoding("utf8").on("data", (text) => (said += text));
  const open = /open over HTTPS.*address=127\.0\.0\.1:(\d+)/;
  await until(() => open.test(said) || serve.exitCode !== null, 60_000, () => `the bastion did not start: ${said}`);
  const [, port] = said.match(open) ?? assert.fail(said);
  return {
    folder,
    url: `https://localhost:${port}`,
    said: () => said,
    stop: async () => {
      serve.kill("SIGINT");
      await until(() => serve.exitCode !== null, 40_000, () => "the bastion did not end");
      rmSync(folder, { recursive: true });
    },
  };
}

/** A page with nobody signed in, at the provider either. */
async function newPage(language = "en", theme = "light") {
  const { page, context } = await openPage(browser, bastion, { language, theme });
  // The provider's own pages would load a font.
  await page.route((url) => url.hostname !== "localhost", (route) => route.abort());
  return { page, context };
}

/** Goes to the provider and proves to be `subject` there. */
async function goThrough(page, subject, button = "Sign in with Example ID") {
  await page.getByRole("button", { name: button }).click();
  await page.locator("input[name=login]").fill(subject);
  await page.locator("input[name=password]").fill("anything");
  await page.locator("button[type=submit]").click();
  await page.getByRole("button", { name: "Continue" }).click();
}

describe("an identity provider", () => {
  it("proves nobody until an admin has bound somebody to its subject, and leads back to the page", async () => {
    const { page, context } = await newPage();
    await page.goto(`${bastion.url}/people?name=alice`);
    await goThrough(page, "subject-of-alice");
    await page.getByRole("alert").getByText(/proved nobody who may come in/).waitFor();
    const refused = (await cli(bastion, ["audit", "ls", "--act", "login_refused"])).at(-1);
    assert.equal(refused.act.claimed, "subject subject-of-alice");

    await cli(bastion, ["person", "oidc", "set", "alice", "subject-of-alice"]);
    await context.clearCookies();
    await page.goto(`${bastion.url}/people?name=alice`);
    await goThrough(page, "subject-of-alice");
    await page.getByRole("complementary", { name: "alice" }).getByText("subject-of-alice").waitFor();
    assert.match(page.url(), /\/people\?name=alice$/);
    const cookies = await context.cookies(bastion.url);
    assert.deepEqual(cookies.filter((cookie) => cookie.name.startsWith("__Host-")).map((cookie) => [cookie.name, cookie.sameSite, cookie.httpOnly]), [["__Host-sallyport", "Strict", true]]);

    // She binds bob there, as an admin does.
    await page.goto(`${bastion.url}/people?name=bob`);
    await page.getByLabel("Subject").fill("subject-of-bob");
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: "Unbind" }).waitFor();
    await context.close();
  });

  it("is answered once, by the browser that asked, and not for somebody who is disabled", async () => {
    const { page, context } = await newPage("zh-CN", "dark");
    let back = "";
    page.on("request", (request) => {
      if (request.url().includes("/oidc/callback")) back = request.url();
    });
    await page.goto(bastion.url);
    await goThrough(page, "subject-of-alice", "使用 Example ID 登录");
    await page.locator("#main").waitFor();
    assert.match(back, /\/api\/v1\/sign-in\/oidc\/callback\?code=/);

    const other = await newPage();
    await other.page.goto(back);
    await other.page.getByRole("alert").getByText(/took too long, or began in another browser/).waitFor();
    await page.goto(back);
    await page.locator("#main").waitFor();
    assert.equal((await cli(bastion, ["audit", "ls", "--act", "logged_in"])).filter((event) => event.act.method === "web oidc").length, 2, "the second answer signed nobody in");
    await other.context.close();

    await cli(bastion, ["person", "disable", "alice"]);
    await context.clearCookies();
    await page.goto(bastion.url);
    await goThrough(page, "subject-of-alice", "使用 Example ID 登录");
    await page.getByRole("alert").getByText(/未证明任何可在此登录的人/).waitFor();
    assert.ok(!bastion.said().includes(SECRET), "the log has no secret");
    await context.close();
  });
});
