// Changes that are asked for once, though the answer got lost: each has a name of its own, by which the bastion knows it again
// (`Idempotency-Key`), so a request that went nowhere is sent again without doing anything twice.
import type { Middleware } from "openapi-fetch";
import type { paths } from "./schema";

/** The POSTs that take a name; a test compares them with the OpenAPI document. */
export const ONCE: ReadonlySet<string> = new Set<keyof paths>([
  "/api/v1/break-glass",
  "/api/v1/break-glass/{id}/revoke",
  "/api/v1/deletions/{id}/approve",
  "/api/v1/deletions/{id}/refuse",
  "/api/v1/grants",
  "/api/v1/grants/{id}/extend",
  "/api/v1/grants/{id}/revoke",
  "/api/v1/holds",
  "/api/v1/holds/{id}/release",
  "/api/v1/keys/ledger/rotate",
  "/api/v1/keys/master/rotate",
  "/api/v1/keys/{purpose}/activate",
  "/api/v1/keys/{purpose}/retire",
  "/api/v1/keys/{purpose}/stage",
  "/api/v1/me/passkeys",
  "/api/v1/people",
  "/api/v1/people/{name}/disable",
  "/api/v1/people/{name}/enable",
  "/api/v1/people/{name}/invites",
  "/api/v1/people/{name}/keys",
  "/api/v1/requests",
  "/api/v1/requests/{id}/approve",
  "/api/v1/requests/{id}/deny",
  "/api/v1/requests/{id}/withdraw",
  "/api/v1/sessions/{id}/cut",
  "/api/v1/sessions/{id}/deletion",
  "/api/v1/sessions/{id}/hold",
  "/api/v1/sessions/{id}/message",
  "/api/v1/sessions/{id}/release",
  "/api/v1/sessions/{id}/review/flags",
  "/api/v1/sessions/{id}/review/notes",
  "/api/v1/sessions/{id}/review/sign-off",
  "/api/v1/targets",
  "/api/v1/targets/{name}/disable",
  "/api/v1/targets/{name}/enable",
  "/api/v1/templates",
  "/api/v1/tokens",
  "/api/v1/tokens/{id}/revoke",
]);

const KEY = "idempotency-key";

/** Names each change that can be named. */
export const named: Middleware = {
  onRequest({ request, schemaPath }) {
    if (request.method === "POST" && ONCE.has(schemaPath)) request.headers.set(KEY, `"${crypto.randomUUID()}"`);
    return request;
  },
};

/** Milliseconds before a change is sent again whose answer did not come. */
const WAITS = [300, 1000, 3000];

/** `fetch`, which sends a named change again when its answer got lost, or is not there yet. */
export async function fetchOnce(request: Request): Promise<Response> {
  if (!request.headers.has(KEY)) return fetch(request);
  for (const wait of WAITS) {
    const answer = await fetch(request.clone()).catch((cause: unknown) => {
      if (request.signal.aborted) throw cause;
      return null;
    });
    if (answer !== null && !isPassing(answer)) return answer;
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
  return fetch(request);
}

/** Whether the bastion works on it, or cannot answer now. */
function isPassing(answer: Response): boolean {
  return answer.status === 503 || (answer.status === 409 && answer.headers.has("retry-after"));
}
