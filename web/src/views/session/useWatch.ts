// Watching a session: reading its stream and giving back its beats, for as long as the page is open. Where a grant needs a watcher, the
// session goes on only while somebody does.
import { useEffect, useState } from "react";
import { answer, api, Problem, toProblem } from "../../api/client";
import { watchReader } from "./watch";

export type Watching = { is: "off" } | { is: "beginning" } | { is: "watching" } | { is: "over" } | { is: "failed"; error: unknown };

/** A beat counts for 5 s: what was not reached is tried again at once, and after half a second. */
const AGAIN = [0, 500, 1000];

export function useWatch(session: string, wanted: boolean): Watching {
  const [watching, setWatching] = useState<Watching>({ is: "off" });
  useEffect(() => {
    if (!wanted) {
      setWatching({ is: "off" });
      return;
    }
    const leave = new AbortController();
    setWatching({ is: "beginning" });
    void watch(session, leave.signal, () => setWatching({ is: "watching" })).then(
      () => leave.signal.aborted || setWatching({ is: "over" }),
      (error: unknown) => leave.signal.aborted || setWatching({ is: "failed", error }),
    );
    return () => leave.abort();
  }, [session, wanted]);
  return watching;
}

async function watch(session: string, signal: AbortSignal, onBeat: () => void): Promise<void> {
  const response = await fetch(`/api/v1/sessions/${encodeURIComponent(session)}/watch`, { signal }).catch((cause: unknown) => {
    throw new Problem("unreachable", 0, String(cause), null);
  });
  if (!response.ok || !response.body) throw toProblem(await response.json().catch(() => null), response.status);
  const read = watchReader();
  const stream = response.body.getReader();
  for (;;) {
    const { done, value } = await stream.read();
    if (done) return;
    for (const told of read(value)) {
      if (told.what === "problem") throw toProblem(told.said, response.status);
      if (told.what !== "beat") continue;
      // The stream is read on meanwhile: a beat that waits must not hold up what is behind it.
      void give(session, told.watch, told.beat, signal).then((taken) => taken && onBeat(), () => {});
    }
  }
}

async function give(session: string, watch: string, beat: string, signal: AbortSignal): Promise<boolean> {
  for (const [last, pause] of AGAIN.entries()) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    try {
      const { taken } = await answer(api.POST("/api/v1/sessions/{id}/watch", { params: { path: { id: session } }, body: { watch, beat }, signal }));
      return taken;
    } catch (error) {
      if (signal.aborted || last === AGAIN.length - 1) throw error;
    }
  }
  return false;
}
