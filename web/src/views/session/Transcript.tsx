// The text that scrolled by, each line a link to its moment. Long: only the lines that are seen are drawn.
import { useEffect, useRef } from "react";
import { useWords } from "../../i18n";
import { useRows } from "../../parts/useRows";
import { clockTime, type Gap } from "../../player/recording";
import { lineAt, shownAt } from "../../player/transcript";
import type { Source } from "../../player/useRecording";
import css from "../Session.module.css";

const ROW = 22;
const READ_AFTER = 1500;

export function Transcript({ source, at, onMoment, onRead }: { source: Source; at: number; onMoment: (at: number) => void; onRead?: (part: Gap) => void }) {
  const { t } = useWords();
  const place = useRef<HTMLDivElement>(null);
  const { lines } = source;
  const { first, end, show } = useRows(place, ROW, lines.length);
  const current = lineAt(lines, at + 0.05);
  useEffect(() => {
    if (current >= 0 && place.current && !place.current.matches(":hover, :focus-within")) show(current);
  }, [current, show]);
  // Lines that have stood there for a while were there to be read.
  useEffect(() => {
    if (!onRead || lines.length === 0) return;
    const timer = setTimeout(() => {
      const [from, to] = [lines[first]?.at, lines[Math.min(end, lines.length) - 1]?.at];
      if (from !== undefined && to !== undefined && document.visibilityState === "visible") onRead({ from: first === 0 ? 0 : from, to: to + 0.5 });
    }, READ_AFTER);
    return () => clearTimeout(timer);
  }, [onRead, lines, first, end]);
  return (
    <div className={css.transcript}>
      <Looked source={source} />
      {lines.length === 0 && !source.isReading ? <p className="muted">{t.player.empty}</p> : null}
      <div className={css.lines} ref={place}>
        <ol style={{ height: lines.length * ROW, paddingTop: first * ROW }}>
          {lines.slice(first, end).map((line, number) => (
            <li key={first + number} aria-setsize={lines.length} aria-posinset={first + number + 1}>
              <button type="button" className={css.line} aria-current={first + number === current ? "true" : undefined} title={line.text} onClick={() => onMoment(shownAt(line.at))}>
                <span className="muted">{clockTime(line.at)}</span>
                <span className="cut">{line.text}</span>
              </button>
            </li>
          ))}
        </ol>
      </div>
    </div>
  );
}

/** How much of the recording the page has read, and a way to have the rest. */
export function Looked({ source }: { source: Source }) {
  const { t, number } = useWords();
  const all = source.index?.segments.length ?? 0;
  if (!source.index || source.parts.size >= all) return null;
  return (
    <p className={css.looked} role="status">
      <span className="muted">{t.session.readParts(number(source.parts.size), number(all))}</span>
      <button type="button" onClick={() => source.more(true)} disabled={source.isReading}>
        {source.isReading ? `${t.loading} …` : t.session.readAll}
      </button>
    </p>
  );
}
