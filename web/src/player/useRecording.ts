// A recording's index, and its segments as they are needed. Segments that are final are kept by the browser, so that the player
// and the timeline fetch each of them once.
import { useQuery } from "@tanstack/react-query";
import { useCallback, useEffect, useRef, useState } from "react";
import { Problem, toProblem } from "../api/client";
import { readEvents, readIndex, segmentAt, type Index, type SegmentEvent } from "./recording";

/** Up to so many segments are looked at as a whole; of a longer recording those that are played. */
const FEW = 24;

export async function fetchJson(url: string): Promise<unknown> {
  let response: Response;
  try {
    response = await fetch(url, { headers: { accept: "application/json" } });
  } catch (cause) {
    throw new Problem("unreachable", 0, String(cause), null);
  }
  const body: unknown = await response.json().catch(() => null);
  if (!response.ok) throw toProblem(body, response.status);
  return body;
}

export const base = (recording: string) => `/api/v1/recordings/${recording}/`;

/** Opening it is an event, so it is asked for once and kept while the page is open. */
export function useIndex(recording: string, enabled: boolean) {
  return useQuery({
    queryKey: ["index", recording],
    queryFn: async (): Promise<Index> => {
      const index = readIndex(await fetchJson(`${base(recording)}index.json`));
      if (index === null) throw new Problem("unreadable", 0, "index.json", null);
      return index;
    },
    enabled,
    staleTime: Infinity,
    refetchOnWindowFocus: false,
  });
}

export interface Known {
  events: SegmentEvent[];
  /** Which segments they are of. */
  segments: ReadonlySet<number>;
}

/** The events that are known so far, and a way to have those around a moment looked at. */
export function useEvents(recording: string, index: Index | undefined): { known: Known; look: (at: number) => void } {
  const [known, setKnown] = useState<Known>({ events: [], segments: new Set() });
  const asked = useRef(new Set<number>());

  const load = useCallback(
    async (number: number) => {
      const segment = index?.segments[number];
      if (!segment || asked.current.has(number)) return;
      asked.current.add(number);
      try {
        const events = readEvents(await fetchJson(base(recording) + segment.url));
        setKnown((before) => ({ events: merge(before.events, events), segments: new Set([...before.segments, number]) }));
      } catch {
        asked.current.delete(number); // the player says what is wrong
      }
    },
    [recording, index],
  );

  useEffect(() => {
    asked.current = new Set();
    setKnown({ events: [], segments: new Set() });
  }, [recording]);
  useEffect(() => {
    if (!index || index.segments.length > FEW) return;
    let goesOn = true;
    void (async () => {
      for (let number = 0; number < index.segments.length && goesOn; number += 1) await load(number);
    })();
    return () => {
      goesOn = false;
    };
  }, [index, load]);
  const look = useCallback(
    (at: number) => {
      if (!index) return;
      const number = segmentAt(index, at);
      void load(number).then(() => load(number + 1));
    },
    [index, load],
  );
  return { known, look };
}

function merge(before: SegmentEvent[], more: SegmentEvent[]): SegmentEvent[] {
  const last = before.at(-1);
  if (!last || (more[0] && last[0] <= more[0][0])) return [...before, ...more];
  return [...before, ...more].sort((a, b) => a[0] - b[0]);
}

