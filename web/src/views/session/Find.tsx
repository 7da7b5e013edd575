// What was found in a session: commands, files and text in the order of time, each a link to its moment.
import { useEffect, useRef } from "react";
import { useWords } from "../../i18n";
import { clockTime } from "../../player/recording";
import type { Source } from "../../player/useRecording";
import css from "../Session.module.css";
import { MOST_HITS, type Hit } from "./moments";
import { Looked } from "./Transcript";

const SIGNS = { command: "$", file: "⇅", text: "≡" } as const;

export function Found({ hits, words, at, source, hasText, onHit }: {
  hits: readonly Hit[];
  words: string;
  /** The number of the hit that is shown; -1 for none. */
  at: number;
  source: Source;
  hasText: boolean;
  onHit: (number: number) => void;
}) {
  const { t, number } = useWords();
  const list = useRef<HTMLOListElement>(null);
  useEffect(() => {
    list.current?.children[at]?.scrollIntoView({ block: "nearest" });
  }, [at]);
  return (
    <>
      <p className="row muted" role="status">
        <span>{hits.length === 0 ? t.session.notFound : hits.length >= MOST_HITS ? t.session.foundMany(number(MOST_HITS)) : t.session.found(number(at + 1), number(hits.length))}</span>
        <span className="grow" />
        <kbd>n</kbd> <kbd>N</kbd>
      </p>
      <p className="hint">{hasText ? t.session.findsIn : t.session.findsInLists}</p>
      {hasText ? <Looked source={source} /> : null}
      <ol className={css.moments} ref={list}>
        {hits.map((hit, index) => (
          <li key={hit.key}>
            <button type="button" className={css.moment} aria-current={index === at ? "true" : undefined} onClick={() => onHit(index)}>
              <span className="mono muted">{clockTime(hit.at)}</span>
              <code className="break">
                <span className="muted" title={t.session.hits[hit.what]}>
                  {SIGNS[hit.what]}{" "}
                </span>
                <Marked text={hit.text} words={words} />
              </code>
            </button>
          </li>
        ))}
      </ol>
    </>
  );
}

function Marked({ text, words }: { text: string; words: string }) {
  const from = text.toLowerCase().indexOf(words.toLowerCase());
  if (from < 0) return text;
  // A long line is shown around what was found.
  const start = from > 60 ? from - 40 : 0;
  return (
    <>
      {start > 0 ? "…" : ""}
      {text.slice(start, from)}
      <mark>{text.slice(from, from + words.length)}</mark>
      {text.slice(from + words.length, from + words.length + 160)}
    </>
  );
}
