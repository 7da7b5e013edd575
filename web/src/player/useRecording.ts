// A recording's index, and its segments as they are needed. Segments that are final are kept by the browser, so that the player
// and the timeline fetch each of them once.
import { useQuery } from "@tanstack/react-query";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { Problem, toProblem } from "../api/client";
import { base, readEvents, readIndex, segmentAt, type Index, type SegmentEvent } from "./recording";
import { readLines, type Line } from "./transcript";

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

/** A segment that was read. */
export interface Part {
  events: SegmentEvent[];
  lines: Line[];
}

/** What a page knows of a recording. */
export interface Source {
  index: Index | undefined;
  /** Why it cannot be shown. */
  error: unknown;
  retry: () => void;
  /** What was read of it so far, in its order. */
  events: readonly SegmentEvent[];
  lines: readonly Line[];
  parts: ReadonlyMap<number, Part>;
  isReading: boolean;
  /** Reads what is around a moment. */
  look: (at: number) => void;
  /** Reads the next segment that was not read yet, or all of them. */
  more: (all: boolean) => void;
}

const NONE: ReadonlyMap<number, Part> = new Map();

/** Segments of a long recording that are kept, unless all were asked for; each takes some megabytes. */
const KEPT = 12;
/** How long a moment must rest before what is around it is read: the player comes first. Milliseconds. */
const REST = 150;

/** The parts without those that are furthest from segment `number`, so that no more than `most` stay; in their order. */
export function near<T>(parts: ReadonlyMap<number, T>, number: number, most: number): ReadonlyMap<number, T> {
  const byDistance = [...parts].sort(([a], [b]) => Math.abs(a - number) - Math.abs(b - number));
  return new Map(byDistance.slice(0, most).sort(([a], [b]) => a - b));
}

/** Up to `few` segments are read as a whole; of a longer recording what is looked at. Nothing is asked for without a recording. */
export function useSource(wanted: { id: string; ended_at?: string | null } | undefined, few: number): Source {
  const recording = wanted?.id;
  // A live recording's index ends where it was asked for; there is another one once it has ended.
  const version = wanted && `${wanted.id} ${wanted.ended_at ?? ""}`;
  // Opening it is an event, so it is asked for once and kept while the page is open.
  const asked = useQuery({
    queryKey: ["index", version],
    queryFn: async (): Promise<Index> => {
      const index = readIndex(await fetchJson(`${base(recording ?? "")}index.json`));
      if (index === null) throw new Problem("unreadable", 0, "index.json", null);
      return index;
    },
    enabled: recording !== undefined,
    staleTime: Infinity,
    refetchOnWindowFocus: false,
  });
  const index = recording === undefined ? undefined : asked.data;
  const [read, setRead] = useState({ of: version, parts: NONE });
  const parts = read.of === version ? read.parts : NONE;
  const [failed, setFailed] = useState<unknown>(null);
  const [reading, setReading] = useState(0);
  const begun = useRef(new Set<number>());
  /** How many parts may stay. */
  const room = useRef(KEPT);
  const later = useRef<ReturnType<typeof setTimeout>>(undefined);
  const current = useRef<Index | undefined>(undefined);
  current.current = index;

  useEffect(() => {
    begun.current = new Set();
    room.current = KEPT;
    setFailed(null);
    return () => clearTimeout(later.current);
  }, [version]);

  const load = useCallback(
    async (number: number) => {
      const segment = index?.segments[number];
      if (!segment || recording === undefined || begun.current.has(number)) return;
      begun.current.add(number);
      setReading((count) => count + 1);
      try {
        const events = readEvents(await fetchJson(base(recording) + segment.url));
        const part = { events, lines: readLines(events) };
        if (current.current === index) {
          setRead((before) => {
            const kept = near(new Map([...(before.of === version ? before.parts : NONE), [number, part] as const]), number, room.current);
            for (const gone of before.parts.keys()) if (before.of === version && !kept.has(gone)) begun.current.delete(gone);
            return { of: version, parts: kept };
          });
        }
      } catch (error) {
        begun.current.delete(number);
        if (current.current === index) setFailed(error);
        throw error;
      } finally {
        setReading((count) => count - 1);
      }
    },
    [recording, version, index],
  );
  const readOn = useCallback(
    async (most: number) => {
      const numbers = index?.segments.map((_, number) => number).filter((number) => !begun.current.has(number)) ?? [];
      for (const number of numbers.slice(0, most)) {
        if (current.current !== index) return;
        await load(number);
      }
    },
    [index, load],
  );
  useEffect(() => {
    if (index && index.segments.length <= Math.max(1, few)) {
      room.current = Infinity;
      void readOn(Infinity).catch(() => {});
    }
    else if (index) void readOn(1).catch(() => {});
  }, [index, few, readOn]);

  const look = useCallback(
    (at: number) => {
      if (!index) return;
      const number = segmentAt(index, at);
      clearTimeout(later.current);
      if (begun.current.has(number) && (begun.current.has(number + 1) || number + 1 >= index.segments.length)) return;
      // The player says what is wrong.
      later.current = setTimeout(() => void load(number).then(() => load(number + 1)).catch(() => {}), REST);
    },
    [index, load],
  );
  const more = useCallback(
    (all: boolean) => {
      setFailed(null);
      room.current = all ? Infinity : room.current + 1;
      void readOn(all ? Infinity : 1).catch(() => {});
    },
    [readOn],
  );
  const known = useMemo(() => [...parts.values()], [parts]);
  return {
    index,
    error: asked.error ?? (parts.size === 0 ? failed : null),
    retry: () => (asked.error ? void asked.refetch() : more(false)),
    events: useMemo(() => known.flatMap((part) => part.events), [known]),
    lines: useMemo(() => known.flatMap((part) => part.lines), [known]),
    parts,
    isReading: reading > 0,
    look,
    more,
  };
}
