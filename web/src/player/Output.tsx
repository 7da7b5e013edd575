// What a program without a terminal printed, as text: never as HTML, and controls as pictures.
import { useInfiniteQuery } from "@tanstack/react-query";
import type { Schema } from "../api/client";
import { useWords } from "../i18n";
import { Empty, Loading, ProblemView } from "../parts/states";
import css from "./player.module.css";
import { plainText, readEvents } from "./recording";
import { base, fetchJson, useIndex } from "./useRecording";

export default function Output({ recording }: { recording: Schema<"Recording"> }) {
  const { t } = useWords();
  const index = useIndex(recording.id, true);
  const segments = index.data?.segments ?? [];
  const parts = useInfiniteQuery({
    queryKey: ["output", recording.id],
    initialPageParam: 0,
    queryFn: async ({ pageParam }) => {
      const segment = segments[pageParam];
      const events = segment ? readEvents(await fetchJson(base(recording.id) + segment.url)) : [];
      return plainText(events.flatMap(([, code, data]) => (code === "o" ? [data] : [])).join(""));
    },
    getNextPageParam: (_page, _all, last) => (last + 1 < segments.length ? last + 1 : undefined),
    enabled: index.data !== undefined,
    staleTime: Infinity,
    refetchOnWindowFocus: false,
  });
  const error = index.error ?? parts.error;
  if (error) return <ProblemView error={error} retry={() => void (index.error ? index.refetch() : parts.refetch())} />;
  if (!parts.data) return <Loading />;
  const isEmpty = parts.data.pages.every((page) => page === "");
  return (
    <div className={css.output}>
      <p className={`muted ${css.outputHead}`}>
        <code className="break">$ {recording.program_text}</code>
        <span>{t.player.noTerminal}</span>
      </p>
      {isEmpty ? (
        <Empty title={t.player.empty}>{recording.exit_text ? <p className="muted">{recording.exit_text}</p> : null}</Empty>
      ) : (
        <pre className={css.text} tabIndex={0}>
          {parts.data.pages.join("")}
        </pre>
      )}
      {parts.hasNextPage ? (
        <button type="button" onClick={() => void parts.fetchNextPage()} disabled={parts.isFetchingNextPage}>
          {t.player.more}
        </button>
      ) : null}
    </div>
  );
}
