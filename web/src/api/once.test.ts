import createClient from "openapi-fetch";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import text from "../../../docs/openapi.json?raw";
import { ONCE, fetchOnce, named } from "./once";
import type { paths } from "./schema";

type Operation = { parameters?: { name: string }[] };

/** The names under which requests came; `answers` says what each gets. */
function serve(answers: (Response | Error)[]): (string | null)[] {
  const names: (string | null)[] = [];
  vi.stubGlobal("fetch", async (request: Request) => {
    names.push(request.headers.get("idempotency-key"));
    await request.text(); // as a network does, which takes the body with it
    const answer = answers.shift();
    if (answer instanceof Response) return answer;
    throw answer ?? new Error("too many requests");
  });
  return names;
}

const json = (status: number, headers: Record<string, string> = {}): Response =>
  new Response("{}", { status, headers: { "content-type": "application/json", ...headers } });
const lost = (): Error => new TypeError("Failed to fetch");

const api = createClient<paths>({ baseUrl: "https://bastion.example", fetch: fetchOnce });
api.use(named);

const cut = async () => api.POST("/api/v1/sessions/{id}/cut", { params: { path: { id: "s-1" } }, body: { reason: "enough" } });

describe("a change that is asked for", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  it("is sent again by the same name when its answer gets lost or is not there yet", async () => {
    const names = serve([lost(), json(409, { "retry-after": "1" }), json(503), json(202)]);

    const cutting = cut();
    await vi.runAllTimersAsync();

    expect((await cutting).response.status).toBe(202);
    expect(names).toHaveLength(4);
    expect(new Set(names).size).toBe(1);
    expect(names[0]).toMatch(/^"[0-9a-f-]{36}"$/);
  });

  it("is not sent again once there is an answer, whatever it says", async () => {
    const names = serve([json(409)]);

    expect((await cut()).response.status).toBe(409);
    expect(names).toHaveLength(1);
  });

  it("has another name the next time", async () => {
    const names = serve([json(202), json(202)]);

    await cut();
    await cut();

    expect(new Set(names).size).toBe(2);
  });

  it("is given up at last", async () => {
    const names = serve([lost(), lost(), lost(), lost()]);

    const failed = expect(cut()).rejects.toThrow("Failed to fetch");
    await vi.runAllTimersAsync();
    await failed;

    expect(names).toHaveLength(4);
  });

  it("is sent once only where it has no name", async () => {
    const names = serve([lost()]);

    const scan = api.POST("/api/v1/targets/scan", { body: { address: "web-1" } });

    await expect(scan).rejects.toThrow("Failed to fetch");
    expect(names).toEqual([null]);
  });
});

it("has a name wherever the document has room for one", () => {
  const document = JSON.parse(text) as { paths: Record<string, { post?: Operation }> };
  const takes = ([, item]: [string, { post?: Operation }]) => item.post?.parameters?.some((parameter) => parameter.name === "Idempotency-Key");

  expect([...ONCE].toSorted()).toEqual(Object.entries(document.paths).filter(takes).map(([path]) => path).toSorted());
});
