// What people sign in to the web app with besides a password, and where they are signed in: one's own, and for an admin another's.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useId, useState, type FormEvent } from "react";
import { answer, api, type Schema } from "../api/client";
import { addPasskey, hasPasskeys } from "../api/passkeys";
import { signInWaysQuery, webSessionsQuery } from "../api/queries";
import { useWords } from "../i18n";
import { deviceOf } from "../parts/device";
import { Ago, useToast, When } from "../parts/small";
import { ProblemLine } from "../parts/states";
import css from "./Lists.module.css";

type Passkey = Schema<"Passkey">;
const OWN = ["passkeys", "own"];

/** One's own passkeys. */
export function Passkeys() {
  const { t } = useWords();
  const id = useId();
  const client = useQueryClient();
  const toast = useToast();
  const [name, setName] = useState("");
  const ways = useQuery(signInWaysQuery);
  const own = useQuery({ queryKey: OWN, queryFn: () => answer(api.GET("/api/v1/me/passkeys")) });
  const add = useMutation({
    mutationFn: () => addPasskey(name.trim()),
    onSuccess: () => {
      setName("");
      toast(t.signingIn.added);
      void client.invalidateQueries({ queryKey: OWN });
    },
  });
  const remove = useMutation({
    mutationFn: (passkey: Passkey) => answer(api.DELETE("/api/v1/me/passkeys/{id}", { params: { path: { id: passkey.id } } })),
    onSuccess: (left) => {
      client.setQueryData(OWN, left);
      toast(t.signingIn.removed);
      void client.invalidateQueries({ queryKey: ["web-sessions"] });
    },
  });
  const canAdd = ways.data?.passkeys === true && hasPasskeys();
  return (
    <section>
      <h2>{t.signingIn.passkeys}</h2>
      <ProblemLine error={own.error ?? remove.error} />
      {own.data?.length === 0 ? <p className="muted">{t.signingIn.none}</p> : null}
      <PasskeyList passkeys={own.data} busy={remove.isPending} onRemove={(passkey) => remove.mutate(passkey)} />
      {canAdd ? (
        <form
          onSubmit={(event: FormEvent) => {
            event.preventDefault();
            if (!add.isPending) add.mutate();
          }}
        >
          <div className="field">
            <label htmlFor={id}>{t.signingIn.name}</label>
            <input id={id} required maxLength={100} value={name} onChange={(event) => setName(event.target.value)} aria-describedby={`${id}-hint`} />
            <span className="hint" id={`${id}-hint`}>
              {t.signingIn.nameHint}
            </span>
          </div>
          <ProblemLine error={add.error} />
          <span>
            <button type="submit" disabled={add.isPending || name.trim() === ""}>
              {t.signingIn.add}
            </button>
          </span>
        </form>
      ) : ways.data ? (
        <p className="muted">{ways.data.passkeys ? t.signingIn.oldBrowser : t.signingIn.notSetUp}</p>
      ) : null}
    </section>
  );
}

/** A person's passkeys, for whoever looks at people. */
export function PasskeysOf({ person, may }: { person: string; may: boolean }) {
  const { t } = useWords();
  const client = useQueryClient();
  const toast = useToast();
  const key = ["passkeys", "of", person];
  const path = { params: { path: { name: person } } };
  const passkeys = useQuery({ queryKey: key, queryFn: () => answer(api.GET("/api/v1/people/{name}/passkeys", path)) });
  const remove = useMutation({
    mutationFn: (passkey: Passkey) => answer(api.DELETE("/api/v1/people/{name}/passkeys/{id}", { params: { path: { name: person, id: passkey.id } } })),
    onSuccess: (left) => {
      client.setQueryData(key, left);
      toast(t.signingIn.removed);
    },
  });
  return (
    <>
      <h3>{t.signingIn.passkeys}</h3>
      <ProblemLine error={passkeys.error ?? remove.error} />
      {passkeys.data?.length === 0 ? <p className="muted">{t.none}</p> : null}
      <PasskeyList passkeys={passkeys.data} busy={remove.isPending} onRemove={may ? (passkey) => remove.mutate(passkey) : null} />
    </>
  );
}

function PasskeyList({ passkeys, busy, onRemove }: { passkeys: Passkey[] | undefined; busy: boolean; onRemove: ((passkey: Passkey) => void) | null }) {
  const { t } = useWords();
  const [asked, setAsked] = useState("");
  return (
    <ul className={css.plain}>
      {passkeys?.map((passkey) => (
        <li key={passkey.id} className="row wrap">
          <span className="break">{passkey.name}</span>
          <span className="muted">
            {passkey.last_used_at ? (
              <>
                {t.person.lastUsed} <Ago at={passkey.last_used_at} />
              </>
            ) : (
              <>
                {t.person.never}, <When at={passkey.created_at} />
              </>
            )}
          </span>
          {onRemove === null ? null : asked === passkey.id ? (
            <>
              <button type="button" className="danger" disabled={busy} onClick={() => onRemove(passkey)} autoFocus aria-describedby={`${passkey.id}-hint`}>
                {t.signingIn.remove}
              </button>
              <button type="button" className="quiet" onClick={() => setAsked("")}>
                {t.cancel}
              </button>
              <span className="hint" id={`${passkey.id}-hint`}>
                {t.signingIn.removeHint}
              </span>
            </>
          ) : (
            <button type="button" className="quiet" onClick={() => setAsked(passkey.id)} aria-label={t.signingIn.removeOne(passkey.name)}>
              {t.signingIn.remove} …
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}

/** Who a person is at the identity provider; an admin says so. */
export function IdentityOf({ person, may }: { person: string; may: boolean }) {
  const { t } = useWords();
  const id = useId();
  const client = useQueryClient();
  const toast = useToast();
  const [subject, setSubject] = useState("");
  const key = ["identity", person];
  const path = { params: { path: { name: person } } };
  const ways = useQuery(signInWaysQuery);
  const found = useQuery({ queryKey: key, queryFn: () => answer(api.GET("/api/v1/people/{name}/oidc", path)) });
  const bind = useMutation({
    mutationFn: () => answer(api.PUT("/api/v1/people/{name}/oidc", { ...path, body: { subject: subject.trim() } })),
    onSuccess: (bound) => {
      setSubject("");
      client.setQueryData(key, bound);
      toast(t.signingIn.bound);
    },
  });
  const unbind = useMutation({
    mutationFn: () => answer(api.DELETE("/api/v1/people/{name}/oidc", path)),
    onSuccess: (bound) => {
      client.setQueryData(key, bound);
      toast(t.signingIn.unbound);
    },
  });
  const identity = found.data?.identity;
  // Without a provider there is nothing to say, unless there was one.
  if (!ways.data?.oidc && !identity) return null;
  return (
    <>
      <h3>{t.signingIn.identity}</h3>
      <ProblemLine error={found.error ?? bind.error ?? unbind.error} />
      {identity ? (
        <p className="row wrap">
          <code className="break">{identity.subject}</code>
          <span className="muted break">{identity.issuer}</span>
          {may ? (
            <button type="button" className="quiet" disabled={unbind.isPending} onClick={() => unbind.mutate()}>
              {t.signingIn.unbind}
            </button>
          ) : null}
        </p>
      ) : found.data ? (
        <p className="muted">{t.none}</p>
      ) : null}
      {may && found.data && !identity ? (
        <form
          onSubmit={(event: FormEvent) => {
            event.preventDefault();
            if (!bind.isPending) bind.mutate();
          }}
        >
          <div className="field">
            <label htmlFor={id}>{t.signingIn.subject}</label>
            <input id={id} className="mono" autoCapitalize="off" spellCheck={false} required maxLength={255} value={subject} onChange={(event) => setSubject(event.target.value)} aria-describedby={`${id}-hint`} />
            <span className="hint" id={`${id}-hint`}>
              {t.signingIn.subjectHint}
            </span>
          </div>
          <span>
            <button type="submit" disabled={bind.isPending || subject.trim() === ""}>
              {t.signingIn.bind}
            </button>
          </span>
        </form>
      ) : null}
    </>
  );
}

type WebSession = Schema<"WebSession">;

/** Where one is signed in. */
export function Browsers() {
  const { t } = useWords();
  const client = useQueryClient();
  const toast = useToast();
  const sessions = useQuery(webSessionsQuery);
  const end = useMutation({
    mutationFn: (session: WebSession) => answer(api.DELETE("/api/v1/me/web-sessions/{id}", { params: { path: { id: session.id } } })),
    onSuccess: (left) => {
      client.setQueryData(webSessionsQuery.queryKey, left);
      toast(t.signingIn.ended);
    },
  });
  const others = useMutation({
    mutationFn: () => answer(api.POST("/api/v1/me/web-sessions/end-others")),
    onSuccess: () => {
      toast(t.signingIn.ended);
      void client.invalidateQueries({ queryKey: webSessionsQuery.queryKey });
    },
  });
  const out = useMutation({
    mutationFn: () => answer(api.POST("/api/v1/sign-out", { body: { everywhere: true } })),
    onSuccess: () => location.assign("/"),
  });
  return (
    <section>
      <h2>{t.mine.browsers}</h2>
      <ProblemLine error={sessions.error ?? end.error ?? others.error ?? out.error} />
      <BrowserList sessions={sessions.data} busy={end.isPending} onEnd={(session) => end.mutate(session)} />
      <span className="row wrap">
        {sessions.data && sessions.data.length > 1 ? (
          <button type="button" onClick={() => others.mutate()} disabled={others.isPending}>
            {t.signingIn.others}
          </button>
        ) : null}
        <button type="button" className="danger" onClick={() => out.mutate()} disabled={out.isPending}>
          {t.mine.everywhere}
        </button>
      </span>
    </section>
  );
}

/** Where a person is signed in, for whoever looks at people. */
export function BrowsersOf({ person, may }: { person: string; may: boolean }) {
  const { t } = useWords();
  const client = useQueryClient();
  const toast = useToast();
  const key = ["web-sessions", "of", person];
  const path = { params: { path: { name: person } } };
  const sessions = useQuery({ queryKey: key, queryFn: () => answer(api.GET("/api/v1/people/{name}/web-sessions", path)) });
  const end = useMutation({
    mutationFn: () => answer(api.DELETE("/api/v1/people/{name}/web-sessions", path)),
    onSuccess: () => {
      client.setQueryData(key, []);
      toast(t.signingIn.ended);
    },
  });
  return (
    <>
      <h3>{t.signingIn.browsers}</h3>
      <ProblemLine error={sessions.error ?? end.error} />
      {sessions.data?.length === 0 ? <p className="muted">{t.signingIn.nowhere}</p> : null}
      <BrowserList sessions={sessions.data} busy={false} onEnd={null} />
      {may && sessions.data && sessions.data.length > 0 ? (
        <span>
          <button type="button" className="danger" disabled={end.isPending} onClick={() => end.mutate()}>
            {t.signingIn.endAll}
          </button>
        </span>
      ) : null}
    </>
  );
}

function BrowserList({ sessions, busy, onEnd }: { sessions: WebSession[] | undefined; busy: boolean; onEnd: ((session: WebSession) => void) | null }) {
  const { t } = useWords();
  return (
    <ul className={css.plain}>
      {sessions?.map((session) => (
        <li key={session.id} className="row wrap">
          <span title={session.browser}>{deviceOf(session.browser) ?? t.signingIn.unknownDevice}</span>
          <code>{session.address}</code>
          {session.is_this ? <span className="tag accent">{t.mine.thisOne}</span> : null}
          <span className="muted">
            {t.mine.lastSeen} <Ago at={session.last_seen_at} />
          </span>
          {onEnd && !session.is_this ? (
            <button type="button" className="quiet" disabled={busy} onClick={() => onEnd(session)} aria-label={t.signingIn.endOne(deviceOf(session.browser) ?? session.address, session.address)}>
              {t.signingIn.end}
            </button>
          ) : null}
        </li>
      ))}
    </ul>
  );
}
