// What may be done to a session that goes on: say something, let it stand still, let it go on, cut it; and to watch it.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useId, useState } from "react";
import { answer, api, type Schema } from "../../api/client";
import { grantQuery } from "../../api/queries";
import { useWords } from "../../i18n";
import { Dialog, ReasonDialog } from "../../parts/Dialog";
import { useKeys } from "../../parts/keys";
import { useToast } from "../../parts/small";
import { ProblemLine } from "../../parts/states";
import css from "../Session.module.css";
import { has, useMe } from "../Shell";
import type { Watching } from "./useWatch";

type Detail = Schema<"SessionDetail">;
type Asked = "message" | "hold" | "cut";

/** A message has at most so many characters, on one line. */
const MOST = 160;

export function LiveActions({ session }: { session: Detail }) {
  const { t } = useWords();
  const toast = useToast();
  const client = useQueryClient();
  const [asked, setAsked] = useState<Asked | null>(null);
  const path = { params: { path: { id: session.id } } };
  const done = (text: string) => () => {
    setAsked(null);
    toast(text);
    void client.invalidateQueries({ queryKey: ["session", session.id] });
  };
  const say = useMutation({ mutationFn: (text: string) => answer(api.POST("/api/v1/sessions/{id}/message", { ...path, body: { text } })), onSuccess: done(t.live.said) });
  const hold = useMutation({ mutationFn: (reason: string) => answer(api.POST("/api/v1/sessions/{id}/hold", { ...path, body: { reason } })), onSuccess: done(t.live.isHeld) });
  const release = useMutation({ mutationFn: () => answer(api.POST("/api/v1/sessions/{id}/release", path)), onSuccess: done(t.live.released) });
  const cut = useMutation({ mutationFn: (reason: string) => answer(api.POST("/api/v1/sessions/{id}/cut", { ...path, body: { reason } })), onSuccess: done(t.session.cutDone) });
  const isHeld = session.held !== null && session.held !== undefined;
  const isEnding = session.state === "ending";
  const holdOrRelease = () => (isHeld ? release.isPending || release.mutate() : setAsked("hold"));
  useKeys(isEnding ? {} : { m: () => setAsked("message"), h: holdOrRelease, x: () => setAsked("cut") });
  const who = session.person.name;
  return (
    <>
      <button type="button" title="m" onClick={() => setAsked("message")} disabled={isEnding}>
        {t.live.message} …
      </button>
      <button type="button" title="h" onClick={holdOrRelease} disabled={isEnding || release.isPending}>
        {isHeld ? t.live.release : `${t.live.hold} …`}
      </button>
      <button type="button" title="x" className="danger" onClick={() => setAsked("cut")} disabled={isEnding}>
        {t.session.cut} …
      </button>
      {asked === "message" ? <MessageDialog who={who} busy={say.isPending} error={say.error} onClose={() => setAsked(null)} onSay={(text) => say.mutate(text)} /> : null}
      {asked === "hold" ? (
        <ReasonDialog
          title={t.live.holdTitle(who)}
          hint={t.live.holdHint(who)}
          action={t.live.hold}
          presets={t.live.holdReasons}
          busy={hold.isPending}
          problem={<ProblemLine error={hold.error} />}
          onClose={() => setAsked(null)}
          onReason={(reason) => hold.mutate(reason)}
        />
      ) : null}
      {asked === "cut" ? (
        <ReasonDialog
          title={t.session.cutTitle(who)}
          hint={t.session.cutHint(who, session.target.name)}
          action={t.session.cut}
          presets={t.session.cutReasons}
          busy={cut.isPending}
          problem={<ProblemLine error={cut.error} />}
          onClose={() => setAsked(null)}
          onReason={(reason) => cut.mutate(reason)}
        />
      ) : null}
      {asked === null && release.error ? <ProblemLine error={release.error} /> : null}
    </>
  );
}

function MessageDialog({ who, busy, error, onClose, onSay }: { who: string; busy: boolean; error: unknown; onClose: () => void; onSay: (text: string) => void }) {
  const { t, number } = useWords();
  const id = useId();
  const [text, setText] = useState("");
  const isReady = text.trim() !== "" && !busy;
  return (
    <Dialog
      title={t.live.messageTitle(who)}
      onClose={onClose}
      onSubmit={() => isReady && onSay(text.trim())}
      actions={
        <>
          <button type="button" onClick={onClose}>
            {t.cancel}
          </button>
          <button type="submit" className="primary" disabled={!isReady}>
            {t.live.send}
          </button>
        </>
      }
    >
      <div className="field">
        <label htmlFor={id}>{t.live.message}</label>
        <input id={id} value={text} maxLength={MOST} autoComplete="off" onChange={(event) => setText(event.target.value)} aria-describedby={`${id}-hint`} />
        <span className="hint" id={`${id}-hint`}>
          {t.live.messageHint} {number([...text].length)}/{MOST}
        </span>
      </div>
      <ProblemLine error={error} />
    </Dialog>
  );
}

/** That a session stands still, that its grant needs a watcher, that this page is one. */
export function LiveNotes({ session, watching, onWatch }: { session: Detail; watching: Watching; onWatch: (wanted: boolean) => void }) {
  const { t } = useWords();
  const me = useMe();
  const grant = useQuery({ ...grantQuery(session.grant_id), refetchInterval: false });
  const mayWatch = has(me, "reviewer") && session.person.name !== me.name;
  const needsWatcher = grant.data?.approval === "watcher";
  return (
    <>
      {session.held ? (
        <p className={`notice warn ${css.note}`} role="status">
          {t.live.standsStill(session.held)}
        </p>
      ) : null}
      {watching.is !== "off" ? (
        <WatchNote watching={watching} onWatch={onWatch} />
      ) : needsWatcher ? (
        <p className={`notice warn row wrap ${css.note}`}>
          <span className="grow">{t.live.needsWatcher}</span>
          {mayWatch ? (
            <button type="button" onClick={() => onWatch(true)}>
              {t.live.watch}
            </button>
          ) : (
            <span>{t.live.watchers}</span>
          )}
        </p>
      ) : null}
    </>
  );
}

export function WatchNote({ watching, onWatch }: { watching: Watching; onWatch: (wanted: boolean) => void }) {
  const { t } = useWords();
  if (watching.is === "off" || watching.is === "over") return null;
  if (watching.is === "failed") {
    return (
      <div className={`row wrap ${css.note}`}>
        <div className="grow">
          <ProblemLine error={watching.error} />
        </div>
        <button type="button" onClick={() => onWatch(false)}>
          {t.live.watchNoMore}
        </button>
      </div>
    );
  }
  return (
    <p className={`notice ok row wrap ${css.note}`} role="status">
      <span className="grow">{watching.is === "beginning" ? `${t.live.watchBegins} …` : t.live.watching}</span>
      <button type="button" onClick={() => onWatch(false)}>
        {t.live.watchNoMore}
      </button>
    </p>
  );
}
