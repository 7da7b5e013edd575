// What a program without a terminal printed, as text: never as HTML, and controls as pictures.
import { useEffect, useMemo, useRef } from "react";
import type { Schema } from "../api/client";
import { useWords } from "../i18n";
import { CopyButton } from "../parts/small";
import { Empty, Loading, ProblemView } from "../parts/states";
import css from "./player.module.css";
import { clockTime, plainText, type Gap } from "./recording";
import type { Source } from "./useRecording";

/** How often it is told what stands on the screen. */
const TELL = 3000;

export default function Output({ recording, source, onRead }: { recording: Schema<"Recording">; source: Source; onRead?: (part: Gap) => void }) {
  const shown = useRef<HTMLPreElement>(null);
  const last = source.events.at(-1)?.[0] ?? 0;
  // As much of the text as stands above the end of what is shown; the bastion keeps what there was time to read.
  useEffect(() => {
    if (!onRead) return;
    let furthest = 0;
    const timer = setInterval(() => {
      const place = shown.current;
      if (place === null || document.visibilityState !== "visible" || place.scrollHeight === 0) return;
      const box = place.getBoundingClientRect();
      const visible = Math.min(box.bottom, innerHeight) - box.top;
      furthest = Math.max(furthest, Math.min(1, (place.scrollTop + Math.max(0, visible)) / place.scrollHeight));
      if (furthest > 0) onRead({ from: 0, to: furthest >= 0.99 ? last + 1 : last * furthest });
    }, TELL);
    return () => clearInterval(timer);
  }, [onRead, last]);
  const { t, bytes } = useWords();
  const text = useMemo(() => plainText(source.events.flatMap(([, code, data]) => (code === "o" ? [data] : [])).join("")), [source.events]);
  if (source.error) return <ProblemView error={source.error} retry={source.retry} />;
  if (!source.index || source.parts.size === 0) return <Loading />;
  const failed = recording.exit_text !== null && recording.exit_text !== undefined && recording.exit_text !== "status 0";
  return (
    <div className={css.output}>
      <div className={css.outputHead}>
        <p className="row">
          <code className="break grow">$ {recording.program_text}</code>
          <CopyButton text={recording.program_text} />
        </p>
        <p className="row wrap muted">
          {recording.exit_text ? <span className={failed ? "bad" : "ok"}>{recording.exit_text}</span> : null}
          <span className="mono">{clockTime(recording.duration_us / 1e6)}</span>
          <span>
            {t.session.bytesIn}: {bytes(recording.bytes_in)} · {t.session.bytesOut}: {bytes(recording.bytes_out)}
          </span>
          <span>{t.player.noTerminal}</span>
        </p>
      </div>
      {text === "" ? (
        <Empty title={t.player.empty} />
      ) : (
        <pre ref={shown} className={css.text} tabIndex={0}>
          {text}
        </pre>
      )}
      {source.parts.size < source.index.segments.length ? (
        <button type="button" onClick={() => source.more(false)} disabled={source.isReading}>
          {t.player.more}
        </button>
      ) : null}
    </div>
  );
}
