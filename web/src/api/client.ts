// The API as the pages use it: typed by the OpenAPI document, errors as problems (RFC 9457).
import createClient from "openapi-fetch";
import { fetchOnce, named } from "./once";
import type { components, paths } from "./schema";

type Schemas = components["schemas"];
export type Schema<Name extends keyof Schemas> = Schemas[Name];
export type Role = "engineer" | "admin" | "reviewer" | "auditor";

/** Every change asked for by our pages carries this header; no other site can set it. */
export const api = createClient<paths>({ baseUrl: "/", headers: { "x-sallyport": "web" }, fetch: fetchOnce });
api.use(named);

/** What the bastion, or the network, said instead of an answer. */
export class Problem extends Error {
  constructor(
    readonly kind: string,
    readonly status: number,
    readonly detail: string,
    readonly reference: string | null,
  ) {
    super(detail);
  }

  get isSignedOut(): boolean {
    return this.kind === "unauthenticated";
  }
}

/** The answer, or a {@link Problem} thrown. */
export async function answer<T>(asked: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  let got;
  try {
    got = await asked;
  } catch (cause) {
    throw new Problem("unreachable", 0, String(cause), null);
  }
  if (got.response.ok && got.data !== undefined) return got.data;
  throw toProblem(got.error, got.response.status);
}

export function toProblem(said: unknown, status: number): Problem {
  const field = (name: string): string | null => {
    const value = said !== null && typeof said === "object" ? (said as Record<string, unknown>)[name] : undefined;
    return typeof value === "string" ? value : null;
  };
  const kind = field("type")?.replace("urn:sallyport:", "") ?? "unknown";
  return new Problem(kind, status, field("detail") ?? `HTTP ${status}`, field("reference"));
}
