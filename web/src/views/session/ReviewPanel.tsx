// The review of a session: why it may be worth a look, how much of it was seen, what was said of it, and the verdict.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Flag } from "lucide-react";
import { useId, useRef, useState } from "react";
import { answer, api, type Schema } from "../../api/client";
import { reviewQuery } from "../../api/queries";
import { useWords } from "../../i18n";
import { Dialog } from "../../parts/Dialog";
import { useKeys } from "../../parts/keys";
import { useToast, When } from "../../parts/small";
import { Loading, ProblemLine } from "../../parts/states";
import { clockTime } from "../../player/recording";
import { momentOf, type Recording } from "./moments";
import css from "./ReviewPanel.module.css";
import { ReviewState, useReason, type Verdict } from "./ReviewState";

type Detail = Schema<"ReviewDetail">;
const VERDICTS: readonly Verdict[] = ["as_planned", "deviation", "incident"];

export function ReviewPanel({ session, recordings, recording, at, onMoment, onDone }: {
  session: string;
  recordings: readonly Recording[];
  recording: Recording | undefined;
  /** Seconds in that recording. */
  at: number;
  onMoment: (moment: { recording: Recording; at: number }) => void;
  onDone?: () => void;
}) {
  const { t } = useWords();
  const review = useQuery(reviewQuery(session));
  if (review.error && !review.data) return <ProblemLine error={review.error} />;
  if (!review.data) return <Loading />;
  return <Shown detail={review.data} recordings={recordings} recording={recording} at={at} onMoment={onMoment} onDone={onDone ?? (() => {})} label={t.review.one} />;
}

function Shown({ detail, recordings, recording, at, onMoment, onDone, label }: {
  detail: Detail;
  recordings: readonly Recording[];
  recording: Recording | undefined;
  at: number;
  onMoment: (moment: { recording: Recording; at: number }) => void;
  onDone: () => void;
  label: string;
}) {
  const { t } = useWords();
  const client = useQueryClient();
  const toast = useToast();
  const reason = useReason();
  const id = useId();
  const [verdict, setVerdict] = useState<Verdict>("as_planned");
  const [note, setNote] = useState("");
  const [flags, setFlags] = useState(false);
  const field = useRef<HTMLTextAreaElement>(null);
  const { review } = detail;
  const path = { params: { path: { id: detail.session_id } } };
  const settled = (text: string) => (after: Detail) => {
    client.setQueryData(["review", detail.session_id], after);
    for (const key of ["reviews", "review-sum", "sessions"]) void client.invalidateQueries({ queryKey: [key] });
    toast(text);
  };
  const signOff = useMutation({
    mutationFn: () => answer(api.POST("/api/v1/sessions/{id}/review/sign-off", { ...path, body: { verdict, note } })),
    onSuccess: (after) => {
      settled(t.review.signed)(after);
      setNote("");
      onDone();
    },
  });
  const say = useMutation({
    mutationFn: () => answer(api.POST("/api/v1/sessions/{id}/review/notes", { ...path, body: { words: note } })),
    onSuccess: (after) => {
      settled(t.review.noted)(after);
      setNote("");
    },
  });
  const mark = useMutation({
    mutationFn: (words: string) => {
      const here = recording ? { recording: recording.id, at: new Date(Date.parse(recording.started_at) + at * 1000).toISOString() } : {};
      return answer(api.POST("/api/v1/sessions/{id}/review/flags", { ...path, body: { words, ...here } }));
    },
    onSuccess: (after) => {
      setFlags(false);
      settled(t.review.flagged)(after);
    },
  });
  const maySign = detail.may_judge && review !== null && review !== undefined;
  const send = () => {
    if (!maySign || signOff.isPending) return;
    if (verdict !== "as_planned" && note.trim() === "") field.current?.focus();
    else signOff.mutate();
  };
  useKeys({ ...(maySign ? { s: send } : {}), ...(detail.may_judge ? { f: () => setFlags(true) } : {}) });
  const percent = detail.coverage?.percent;
  return (
    <section className={css.review} aria-label={label}>
      <p className="row wrap">
        <strong>{t.review.one}</strong>
        {review ? <ReviewState review={review} /> : <span className="muted">{t.review.notYet}</span>}
        {review?.due_at && review.state !== "done" ? (
          <span className={review.state === "overdue" ? "warn" : "muted"}>
            {t.review.due} <When at={review.due_at} />
          </span>
        ) : null}
        {review && review.sign_offs > 1 ? <span className="muted">{t.review.signedOf(review.signed, review.sign_offs)}</span> : null}
        {review ? <span className="muted">{t.review.risk(review.risk)}</span> : null}
      </p>
      {detail.deleted ? <p className="notice warn">{t.review.deleted}</p> : null}
      {review && review.reasons.length > 0 ? (
        <ul className={css.reasons} aria-label={t.review.because}>
          {review.reasons.map((one) => {
            const moment = one.recording && one.at ? momentOf(recordings, { recording: one.recording, at: one.at }) : null;
            return (
              <li key={one.sign}>
                {moment ? (
                  <button type="button" className="quiet" onClick={() => onMoment(moment)}>
                    {reason(one)} <span className="muted">{clockTime(moment.at)}</span>
                  </button>
                ) : (
                  reason(one)
                )}
              </li>
            );
          })}
        </ul>
      ) : null}
      {detail.coverage ? (
        <div>
          <div
            className={css.bar}
            role="meter"
            aria-label={t.review.seen}
            aria-valuemin={0}
            aria-valuemax={100}
            aria-valuenow={percent ?? 0}
            aria-valuetext={typeof percent === "number" ? t.player.seen(percent) : t.review.nothingToSee}
          >
            <span style={{ width: `${percent ?? 0}%` }} />
          </div>
          <p className="muted" title={t.review.seenHint}>
            {typeof percent === "number" ? t.player.seen(percent) : t.review.nothingToSee}
          </p>
        </div>
      ) : null}
      {detail.remarks.length > 0 ? (
        <ul className={css.remarks}>
          {detail.remarks.map((one) => {
            const moment = one.recording && one.moment ? momentOf(recordings, { recording: one.recording, at: one.moment }) : null;
            const what = one.verdict ? t.review.verdicts[one.verdict as Verdict] : one.kind === "flag" ? t.review.flag : t.review.note;
            return (
              <li key={one.id}>
                <span className="muted">
                  {one.by.name} · <When at={one.at} /> ·{" "}
                </span>
                {moment ? (
                  <button type="button" className="quiet" onClick={() => onMoment(moment)}>
                    <Flag size={12} aria-hidden="true" /> {clockTime(moment.at)}
                  </button>
                ) : (
                  <strong>{what}</strong>
                )}
                {typeof one.coverage?.percent === "number" ? <span className="muted"> · {t.player.seen(one.coverage.percent)}</span> : null}
                {one.words ? <p className="break">{one.words}</p> : null}
              </li>
            );
          })}
        </ul>
      ) : null}
      {detail.may_judge ? (
        <>
          <fieldset className={css.verdicts} disabled={!maySign}>
            <legend className="hidden-text">{t.review.verdict}</legend>
            {VERDICTS.map((one) => (
              <label key={one}>
                <input type="radio" name={`${id}-verdict`} checked={verdict === one} onChange={() => setVerdict(one)} />
                {t.review.verdicts[one]}
              </label>
            ))}
          </fieldset>
          <textarea ref={field} rows={2} maxLength={1000} aria-label={t.review.noteLabel} placeholder={t.review.noteHint} value={note} onChange={(event) => setNote(event.target.value)} />
          <p className="row wrap">
            <button type="button" className="primary" disabled={!maySign || signOff.isPending} title="s" onClick={send}>
              {t.review.signOff}
            </button>
            <button type="button" title="f" onClick={() => setFlags(true)}>
              {recording ? t.review.flagAt(clockTime(at)) : t.review.flag}
            </button>
            <button type="button" className="quiet" disabled={note.trim() === "" || say.isPending} onClick={() => say.mutate()}>
              {t.review.onlyNote}
            </button>
          </p>
        </>
      ) : (
        <p className="muted">{detail.refusal}</p>
      )}
      <ProblemLine error={signOff.error ?? say.error} />
      {flags ? <FlagDialog where={recording ? clockTime(at) : ""} busy={mark.isPending} error={mark.error} onClose={() => setFlags(false)} onFlag={(words) => mark.mutate(words)} /> : null}
    </section>
  );
}

function FlagDialog({ where, busy, error, onClose, onFlag }: { where: string; busy: boolean; error: unknown; onClose: () => void; onFlag: (words: string) => void }) {
  const { t } = useWords();
  const id = useId();
  const [words, setWords] = useState("");
  return (
    <Dialog
      title={where ? t.review.flagAt(where) : t.review.flag}
      onClose={onClose}
      onSubmit={() => words.trim() !== "" && !busy && onFlag(words)}
      actions={
        <>
          <button type="button" onClick={onClose}>
            {t.cancel}
          </button>
          <button type="submit" className="primary" disabled={busy || words.trim() === ""}>
            {t.review.flag}
          </button>
        </>
      }
    >
      <div className="field">
        <label htmlFor={id}>{t.review.flagWords}</label>
        <input id={id} maxLength={1000} autoComplete="off" value={words} onChange={(event) => setWords(event.target.value)} />
        <span className="hint">{t.reasonHint}</span>
      </div>
      <ProblemLine error={error} />
    </Dialog>
  );
}

