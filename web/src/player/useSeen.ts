// What this page has shown of a recording, told to the bastion every few seconds: it keeps what there was time for. The first report has
// nothing in it; from then on the reviewer's time runs.
import { useQueryClient } from "@tanstack/react-query";
import { useCallback, useEffect, useRef } from "react";
import { answer, api } from "../api/client";
import type { Gap } from "./recording";
import { joined } from "./recording";

const EVERY = 4000;
/** A report tells of so many parts at most. */
const MOST = 200;

export interface Telling {
  /** Seconds of the recording that were played, or read as text. */
  shown: (part: Gap) => void;
  read: (part: Gap) => void;
}

const microseconds = (parts: readonly Gap[]): [number, number][] =>
  parts.slice(0, MOST).flatMap(({ from, to }): [number, number][] => {
    const [begin, end] = [Math.max(0, Math.floor(from * 1e6)), Math.floor(to * 1e6)];
    return begin < end ? [[begin, end]] : [];
  });

export function useSeen(session: string, recording: string | undefined, wanted: boolean): Telling {
  const client = useQueryClient();
  const waiting = useRef<{ shown: readonly Gap[]; read: readonly Gap[] }>({ shown: [], read: [] });
  useEffect(() => {
    if (!wanted || recording === undefined) return;
    waiting.current = { shown: [], read: [] };
    let begun = false;
    const tell = () => {
      const { shown, read } = waiting.current;
      if (begun && shown.length === 0 && read.length === 0) return;
      waiting.current = { shown: shown.slice(MOST), read: read.slice(MOST) };
      begun = true;
      const body = { recording, shown: microseconds(shown), read: microseconds(read) };
      void answer(api.POST("/api/v1/sessions/{id}/review/seen", { params: { path: { id: session } }, body })).then(
        () => client.invalidateQueries({ queryKey: ["review", session] }),
        // What was not taken is told again.
        () => {
          const now = waiting.current;
          waiting.current = { shown: shown.reduce((all, part) => joined(all, part), now.shown), read: read.reduce((all, part) => joined(all, part), now.read) };
        },
      );
    };
    tell();
    const timer = setInterval(tell, EVERY);
    return () => {
      clearInterval(timer);
      tell();
    };
  }, [session, recording, wanted, client]);
  const shown = useCallback((part: Gap) => void (waiting.current = { ...waiting.current, shown: joined(waiting.current.shown, part) }), []);
  const read = useCallback((part: Gap) => void (waiting.current = { ...waiting.current, read: joined(waiting.current.read, part) }), []);
  return useRef({ shown, read }).current;
}
