// Extending and revoking, with the consequences before the button.
import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { useId, useState } from "react";
import { answer, api, type Schema } from "../api/client";
import { sessionsQuery } from "../api/queries";
import { useWords } from "../i18n";
import { Dialog, ReasonDialog } from "../parts/Dialog";
import { useNow, useToast } from "../parts/small";
import { ProblemLine } from "../parts/states";
import { readWindow } from "../parts/when";
import { short } from "./short";

type Grant = Schema<"Grant">;

export default function GrantDialogs({ what, grant, onClose }: { what: "extend" | "revoke"; grant: Grant; onClose: () => void }) {
  return what === "revoke" ? <Revoke grant={grant} onClose={onClose} /> : <Extend grant={grant} onClose={onClose} />;
}

function useDone(grant: Grant, text: string, onClose: () => void) {
  const client = useQueryClient();
  const toast = useToast();
  return () => {
    toast(text);
    onClose();
    for (const key of [["grants"], ["grant", grant.id], ["sessions"], ["live-sessions"]]) void client.invalidateQueries({ queryKey: key });
  };
}

function Revoke({ grant, onClose }: { grant: Grant; onClose: () => void }) {
  const { t } = useWords();
  const live = useInfiniteQuery(sessionsQuery({ grant: grant.id, live: true }));
  const done = useDone(grant, t.grant.revokeDone, onClose);
  const revoke = useMutation({
    mutationFn: (reason: string) => answer(api.POST("/api/v1/grants/{id}/revoke", { params: { path: { id: grant.id } }, body: { reason } })),
    onSuccess: done,
  });
  const sessions = live.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <ReasonDialog
      title={t.grant.revokeTitle(short(grant.id))}
      hint={
        <>
          {grant.people.map((person) => person.name).join(", ")} → <code>{grant.targets.join(", ")}</code>
          <br />
          {live.data ? t.grant.revokeHint(sessions.length) : "…"}
          {sessions.map((session) => (
            <span key={session.id}>
              <br />
              <span className="ok">●</span> {session.person.name}{" "}
              <code>
                {session.login}@{session.target.name}
              </code>
            </span>
          ))}
        </>
      }
      action={t.grant.revoke}
      presets={t.session.cutReasons}
      busy={revoke.isPending}
      problem={<ProblemLine error={revoke.error} />}
      onClose={onClose}
      onReason={(reason) => revoke.mutate(reason)}
    />
  );
}

function Extend({ grant, onClose }: { grant: Grant; onClose: () => void }) {
  const words = useWords();
  const { t } = words;
  const id = useId();
  const now = useNow(1000);
  const [text, setText] = useState("2h");
  const [reason, setReason] = useState("");
  const done = useDone(grant, t.grant.extendDone, onClose);
  // A span is counted from the present end, so that "2h" gives two hours more; a time of day is one.
  const from = /^(for )?[\d.]/.test(text.trim()) ? Math.max(now, Date.parse(grant.not_after)) : now;
  const window = readWindow(text, new Date(from));
  const extend = useMutation({
    mutationFn: (until: Date) => answer(api.POST("/api/v1/grants/{id}/extend", { params: { path: { id: grant.id } }, body: { not_after: until.toISOString(), reason: reason.trim() } })),
    onSuccess: done,
  });
  const ready = window !== null && reason.trim() !== "" && !extend.isPending;
  return (
    <Dialog
      title={t.grant.extendTitle(short(grant.id))}
      onClose={onClose}
      onSubmit={() => ready && extend.mutate(window.until)}
      actions={
        <>
          <button type="button" onClick={onClose}>
            {t.cancel}
          </button>
          <button type="submit" className="primary" disabled={!ready}>
            {t.grant.extend}
          </button>
        </>
      }
    >
      <p>{t.grant.extendHint}</p>
      <div className="field">
        <label htmlFor={`${id}-by`}>{t.make.lasts}</label>
        <input id={`${id}-by`} className="mono" value={text} onChange={(event) => setText(event.target.value)} aria-describedby={`${id}-end`} />
        <span className={window ? "hint" : "bad"} id={`${id}-end`} role="status">
          {window ? t.make.ends(words.exact(window.until)) : t.make.notUnderstood}
        </span>
      </div>
      <div className="field">
        <label htmlFor={`${id}-why`}>{t.reason}</label>
        <input id={`${id}-why`} value={reason} maxLength={1000} required onChange={(event) => setReason(event.target.value)} />
      </div>
      <ProblemLine error={extend.error} />
    </Dialog>
  );
}
