// What a program without a terminal printed, as text: never as HTML, and controls as pictures.
import { useMemo } from "react";
import type { Schema } from "../api/client";
import { useWords } from "../i18n";
import { CopyButton } from "../parts/small";
import { Empty, Loading, ProblemView } from "../parts/states";
import css from "./player.module.css";
import { clockTime, plainText } from "./recording";
import type { Source } from "./useRecording";

export default function Output({ recording, source }: { recording: Schema<"Recording">; source: Source }) {
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
        <pre className={css.text} tabIndex={0}>
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
