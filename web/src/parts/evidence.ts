// An evidence bundle as it comes from the API: a file, or a problem in its place.
import { Problem, toProblem } from "../api/client";

/** More than a problem takes. */
const MOST_SAID = 64 * 1024;

/** Throws the problem that stands in place of a bundle: making one begins before it is known whether it can be made. */
export async function bundleOrProblem(made: Blob): Promise<Blob> {
  const head = new Uint8Array(await made.slice(0, 4).arrayBuffer());
  if (head.length === 4 && head.every((byte) => byte === 0xff)) {
    const said = await made.slice(4, MOST_SAID).text();
    throw toProblem(parsed(said), 500);
  }
  // A zip begins so (APPNOTE 4.3.7); anything else was broken off.
  if (head[0] !== 0x50 || head[1] !== 0x4b) throw new Problem("unreadable", 0, "what came is no evidence bundle", null);
  return made;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

export async function fetchBundle(of: "grants" | "sessions", id: string): Promise<Blob> {
  let response: Response;
  try {
    response = await fetch(`/api/v1/${of}/${encodeURIComponent(id)}/evidence`, { method: "POST", headers: { "x-sallyport": "web" } });
  } catch (cause) {
    throw new Problem("unreachable", 0, String(cause), null);
  }
  if (!response.ok) throw toProblem(parsed(await response.text()), response.status);
  try {
    return await bundleOrProblem(await response.blob());
  } catch (cause) {
    throw cause instanceof Problem ? cause : new Problem("unreachable", 0, String(cause), null);
  }
}
