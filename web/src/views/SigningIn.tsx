// What people sign in to the web app with besides a password, and where they are signed in: one's own, and for an admin another's.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useId, useState, type FormEvent } from "react";
import { answer, api, type Schema } from "../api/client";
import { addPasskey, hasPasskeys } from "../api/passkeys";
import { signInWaysQuery, webSessionsQuery } from "../api/queries";
import { useWords } from "../i18n";
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

/** Where one is signed in. */
export function Browsers() {
  const { t } = useWords();
  const sessions = useQuery(webSessionsQuery);
  const out = useMutation({
    mutationFn: () => answer(api.POST("/api/v1/sign-out", { body: { everywhere: true } })),
    onSuccess: () => location.assign("/"),
  });
  return (
    <section>
      <h2>{t.mine.browsers}</h2>
      <ProblemLine error={sessions.error ?? out.error} />
      <ul className={css.plain}>
        {sessions.data?.map((session) => (
          <li key={session.id}>
            <span className="row wrap">
              <code>{session.address}</code>
              {session.is_this ? <span className="tag accent">{t.mine.thisOne}</span> : null}
              <span className="muted">
                {t.mine.lastSeen} <Ago at={session.last_seen_at} />
              </span>
            </span>
            <span className="faint break">{session.browser}</span>
          </li>
        ))}
      </ul>
      <span>
        <button type="button" className="danger" onClick={() => out.mutate()} disabled={out.isPending}>
          {t.mine.everywhere}
        </button>
      </span>
    </section>
  );
}
