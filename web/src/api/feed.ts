// What changes is told by the bastion (`/api/v1/live`), and what the pages show is asked for again. One tab of a browser listens and
// tells the others: over HTTP/1.1 a browser has six connections to a host, and a stream takes one for good.
import type { QueryClient, QueryKey } from "@tanstack/react-query";

/** Which lists a topic is about, by the beginnings of their keys. */
const KEYS: Record<string, readonly QueryKey[]> = {
  sessions: [["live-sessions"], ["session"]],
  requests: [["requests"]],
  grants: [["grants"], ["grant"]],
  people: [["people"], ["passkeys"], ["identity"], ["invites"]],
  targets: [["targets"]],
  ledger: [["ledger"], ["health"]],
};
const EVERYTHING = [...new Set(Object.values(KEYS).flat())];

/** Many changes at once are one question. */
const TOGETHER = 150;
/** A stream that was refused is tried again after this. */
const AGAIN = 30_000;
/** Whoever leads says every few seconds that they hear; who has not heard that for longer asks by themselves again. */
const BEAT = 4000;

type Said = { topic: string } | { beat: true };

let heardAt = 0;

/** How often what is live is to be asked for: rarely, while the bastion tells of changes. */
export const unlessTold = (milliseconds: number) => (): number => (Date.now() - heardAt < 3 * BEAT ? Math.max(30_000, milliseconds) : milliseconds);

/** Listens until the given signal. */
export function listen(client: QueryClient, signal: AbortSignal): void {
  const waiting = new Set<QueryKey>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const ask = (keys: readonly QueryKey[]) => {
    for (const key of keys) waiting.add(key);
    timer ??= setTimeout(() => {
      timer = undefined;
      for (const key of waiting) void client.invalidateQueries({ queryKey: key });
      waiting.clear();
    }, TOGETHER);
  };
  const hear = (said: Said) => {
    heardAt = Date.now();
    if ("topic" in said) ask(KEYS[said.topic] ?? EVERYTHING);
  };

  const others = new BroadcastChannel("sallyport-live");
  others.onmessage = (event: MessageEvent<Said>) => hear(event.data);
  const tell = (said: Said) => {
    hear(said);
    others.postMessage(said);
  };
  signal.addEventListener("abort", () => {
    others.close();
    clearTimeout(timer);
  });

  // Who gets the lock leads; when their tab goes, the next one does.
  navigator.locks.request("sallyport-live", { signal }, () => lead(tell, signal)).catch(() => undefined);
}

/** Holds the stream open until the signal. */
async function lead(tell: (said: Said) => void, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const source = new EventSource("/api/v1/live");
    const beat = setInterval(() => {
      if (source.readyState === EventSource.OPEN) tell({ beat: true });
    }, BEAT);
    // What was missed before this page was there is asked for anew.
    source.addEventListener("reset", () => tell({ topic: "reset" }));
    source.addEventListener("ready", () => tell({ beat: true }));
    for (const topic of Object.keys(KEYS)) source.addEventListener(topic, () => tell({ topic }));
    await new Promise<void>((over) => {
      signal.addEventListener("abort", () => over(), { once: true });
      // The browser connects again by itself unless it was refused.
      source.addEventListener("error", () => {
        if (source.readyState === EventSource.CLOSED) over();
      });
    });
    clearInterval(beat);
    source.close();
    if (!signal.aborted) await new Promise((resolve) => setTimeout(resolve, AGAIN));
  }
}
