// Invites of a person, for whoever looks at people; admins make them. A link is shown once.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useId, useState } from "react";
import { answer, api, type Schema } from "../api/client";
import { useWords } from "../i18n";
import { Dialog } from "../parts/Dialog";
import { Command, CopyButton, useToast, When } from "../parts/small";
import { ProblemLine } from "../parts/states";
import { readWindow } from "../parts/when";
import css from "./Lists.module.css";

type Invite = Schema<"Invite">;
/** As many of the newest are shown. */
const SHOWN = 3;

export function InvitesOf({ person, may }: { person: string; may: boolean }) {
  const { t } = useWords();
  const client = useQueryClient();
  const toast = useToast();
  const [making, setMaking] = useState(false);
  const key = ["invites", person];
  const path = { params: { path: { name: person } } };
  const invites = useQuery({ queryKey: key, queryFn: () => answer(api.GET("/api/v1/people/{name}/invites", path)) });
  const revoke = useMutation({
    mutationFn: (invite: Invite) => answer(api.DELETE("/api/v1/people/{name}/invites/{id}", { params: { path: { name: person, id: invite.id } } })),
    onSuccess: (left) => {
      client.setQueryData(key, left);
      toast(t.invite.revoked);
    },
  });
  return (
    <>
      <h3>{t.invite.list}</h3>
      <ProblemLine error={invites.error ?? revoke.error} />
      {invites.data?.length === 0 ? <p className="muted">{t.none}</p> : null}
      <ul className={css.plain}>
        {invites.data?.slice(0, SHOWN).map((invite) => (
          <li key={invite.id} className="row wrap">
            <span className={invite.state === "open" ? "ok" : "muted"}>{t.invite.states[invite.state]}</span>
            <span className="muted">
              <When at={(invite.state === "used" ? invite.used_at : invite.state === "revoked" ? invite.revoked_at : null) ?? invite.not_after} />
            </span>
            {invite.added?.startsWith("SHA256:") ? <code className="break">{invite.added}</code> : null}
            {may && invite.state === "open" ? (
              <button type="button" className="quiet" disabled={revoke.isPending} onClick={() => revoke.mutate(invite)}>
                {t.invite.revoke}
              </button>
            ) : null}
          </li>
        ))}
      </ul>
      {may ? (
        <span>
          <button type="button" onClick={() => setMaking(true)}>
            {t.invite.make} …
          </button>
        </span>
      ) : null}
      {making ? <Make person={person} hasOpen={invites.data?.some((invite) => invite.state === "open") ?? false} onClose={() => setMaking(false)} onMade={() => void client.invalidateQueries({ queryKey: key })} /> : null}
    </>
  );
}

function Make({ person, hasOpen, onClose, onMade }: { person: string; hasOpen: boolean; onClose: () => void; onMade: () => void }) {
  const words = useWords();
  const { t } = words;
  const id = useId();
  const [lasts, setLasts] = useState("24h");
  const window = readWindow(lasts, new Date());
  const make = useMutation({
    mutationFn: (until: Date) => answer(api.POST("/api/v1/people/{name}/invites", { params: { path: { name: person } }, body: { not_after: until.toISOString() } })),
    onSuccess: onMade,
  });
  if (make.data) {
    // Where the bastion does not know its address, it is the one that this page came from.
    const link = make.data.link ?? `${location.origin}/invite#${make.data.token}`;
    return (
      <Dialog
        key="made"
        title={t.invite.madeTitle(person)}
        onClose={onClose}
        onSubmit={onClose}
        actions={
          <>
            <CopyButton text={link} label={t.invite.copy} className="primary" />
            <button type="submit">{t.close}</button>
          </>
        }
      >
        <p>{t.invite.once(words.exact(make.data.not_after))}</p>
        <Command text={link} />
      </Dialog>
    );
  }
  const isReady = window !== null && !make.isPending;
  return (
    <Dialog
      key="make"
      title={t.invite.title(person)}
      onClose={onClose}
      onSubmit={() => isReady && make.mutate(window.until)}
      actions={
        <>
          <button type="button" onClick={onClose}>
            {t.cancel}
          </button>
          <button type="submit" className="primary" disabled={!isReady}>
            {t.invite.submit}
          </button>
        </>
      }
    >
      <p>{t.invite.hint(person)}</p>
      {hasOpen ? <p className="notice warn">{t.invite.replaces}</p> : null}
      <div className="field">
        <label htmlFor={id}>{t.make.lasts}</label>
        <input id={id} className="mono" value={lasts} autoComplete="off" onChange={(event) => setLasts(event.target.value)} aria-describedby={`${id}-end`} />
        <span className={window ? "hint" : "bad"} id={`${id}-end`} role="status">
          {window ? t.make.ends(words.exact(window.until)) : t.make.notUnderstood}
        </span>
      </div>
      <ProblemLine error={make.error} />
    </Dialog>
  );
}
