// The commands of a session, each a link to its moment.
import { Flag } from "lucide-react";
import { useEffect, useRef } from "react";
import type { Schema } from "../../api/client";
import { useWords } from "../../i18n";
import { clockTime } from "../../player/recording";
import css from "../Session.module.css";
import { hasFailed, momentOf, type Command, type Moment, type Recording } from "./moments";

export function Commands({ commands, counts, recordings, current, onMoment }: {
  commands: readonly Command[];
  counts: Schema<"CommandCounts">;
  recordings: readonly Recording[];
  /** The number of the command that runs at what is shown. */
  current: number;
  onMoment: (moment: Moment) => void;
}) {
  const { t, number } = useWords();
  const list = useRef<HTMLOListElement>(null);
  useEffect(() => {
    // Whoever reads the list is left where they are.
    if (list.current && !list.current.matches(":hover, :focus-within")) list.current.children[current]?.scrollIntoView({ block: "nearest" });
  }, [current]);
  return (
    <>
      {counts.seen > counts.kept ? <p className="notice warn">{t.session.notKept(number(counts.seen - counts.kept))}</p> : null}
      {commands.length === 0 ? (
        <div className={css.none}>
          <h2>{t.session.noCommands}</h2>
          <p className="muted">{t.session.noCommandsHint}</p>
        </div>
      ) : null}
      <ol className={css.moments} ref={list}>
        {commands.map((one, index) => (
          <Row key={`${one.recording} ${one.number}`} command={one} moment={momentOf(recordings, one)} isCurrent={index === current} onMoment={onMoment} />
        ))}
      </ol>
    </>
  );
}

function Row({ command, moment, isCurrent, onMoment }: { command: Command; moment: Moment | null; isCurrent: boolean; onMoment: (moment: Moment) => void }) {
  const { t, number } = useWords();
  const lasted = command.duration_us;
  return (
    <li>
      <button type="button" className={css.moment} aria-current={isCurrent ? "true" : undefined} disabled={moment === null} onClick={() => moment && onMoment(moment)}>
        <span className="mono muted">{moment ? clockTime(moment.at) : "–"}</span>
        <span className={css.what}>
          <code className={css.commandText}>
            $ {command.text}
            {command.is_cut ? " …" : ""}
          </code>
          <span className="row wrap muted">
            {command.flag ? (
              <span className="warn" title={command.flag}>
                <Flag size={12} aria-hidden="true" /> {t.session.flagged}
              </span>
            ) : null}
            {command.exit_status !== null && command.exit_status !== undefined ? (
              <span className={hasFailed(command) ? "bad" : "ok"}>
                {hasFailed(command) ? "✕" : "✓"} {t.session.exitStatus(command.exit_status)}
              </span>
            ) : null}
            {lasted !== null && lasted !== undefined ? <span>{`${number(Math.round(lasted / 1e5) / 10)} ${t.units.s}`}</span> : null}
            <span title={t.session.certaintyHints[command.certainty]}>{t.session.certainties[command.certainty]}</span>
          </span>
        </span>
      </button>
    </li>
  );
}
