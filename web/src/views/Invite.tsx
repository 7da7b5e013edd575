// What somebody sees who opens an invite's link: whom it is for, and two ways to use it up: a public key, or a passkey. They need no
// account yet, and are not signed in by it. The token is behind the `#`, where it is sent to nobody; the page sends it in bodies alone.
import { useMutation, useQuery } from "@tanstack/react-query";
import { useEffect, useId, useRef, useState, type FormEvent } from "react";
import { answer, api, Problem, type Schema } from "../api/client";
import { hasPasskeys, makeInvitedPasskey } from "../api/passkeys";
import { signInWaysQuery } from "../api/queries";
import { useWords } from "../i18n";
import { Command } from "../parts/small";
import { Loading, ProblemLine } from "../parts/states";
import { Door, Mark } from "./Door";
import css from "./SignIn.module.css";

type Invitation = Schema<"Invitation">;
type Done = "key" | "passkey";

/** The token in the address, also when another link is opened in the same tab. */
function useToken(): string {
  const [token, setToken] = useState(() => location.hash.slice(1));
  useEffect(() => {
    const read = () => setToken(location.hash.slice(1));
    addEventListener("hashchange", read);
    return () => removeEventListener("hashchange", read);
  }, []);
  return token;
}

export function Invite() {
  const token = useToken();
  return <ByLink key={token} token={token} />;
}

function ByLink({ token }: { token: string }) {
  const words = useWords();
  const { t } = words;
  const [done, setDone] = useState<Done | null>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const invitation = useQuery({
    queryKey: ["invitation", token],
    queryFn: () => answer(api.POST("/api/v1/invite", { body: { token } })),
    enabled: token !== "",
    // Each look is counted and what opens nothing is noted: once is enough.
    staleTime: Infinity,
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
  });
  useEffect(() => {
    document.title = `${t.invite.page} · Sallyport`;
  }, [t]);
  const finish = (what: Done) => {
    setDone(what);
    // It opens nothing any more, and is not left lying about.
    history.replaceState(history.state, "", location.pathname);
  };
  useEffect(() => {
    if (done) heading.current?.focus();
  }, [done]);
  const opensNothing = token === "" || (invitation.error instanceof Problem && invitation.error.status === 404);
  const invited = invitation.data;
  return (
    <Door>
      <div className={`${css.form} ${css.wide}`}>
        <Mark size={32} className={css.mark} />
        <h1 ref={heading} tabIndex={-1}>
          {done ? t.invite.done(invited?.person ?? "") : invited ? t.invite.hello(invited.person) : t.invite.page}
        </h1>
        {opensNothing ? (
          <p className="notice bad" role="alert">
            {t.invite.nothing}
          </p>
        ) : invitation.error ? (
          <ProblemLine error={invitation.error} />
        ) : invited === undefined ? (
          <Loading />
        ) : done ? (
          <After invited={invited} done={done} />
        ) : (
          <>
            <p>{t.invite.until(words.exact(invited.not_after))}</p>
            <ByKey token={token} onDone={() => finish("key")} />
            <ByPasskey token={token} onDone={() => finish("passkey")} />
          </>
        )}
      </div>
    </Door>
  );
}

function ByKey({ token, onDone }: { token: string; onDone: () => void }) {
  const { t } = useWords();
  const id = useId();
  const [key, setKey] = useState("");
  // It does not even go to the bastion.
  const isPrivate = /PRIVATE KEY/.test(key);
  const accept = useMutation({
    mutationFn: () => answer(api.POST("/api/v1/invite/key", { body: { token, public_key: key.trim() } })),
    onSuccess: onDone,
  });
  const isReady = key.trim() !== "" && !isPrivate && !accept.isPending;
  return (
    <form
      className={css.way}
      onSubmit={(event: FormEvent) => {
        event.preventDefault();
        if (isReady) accept.mutate();
      }}
    >
      <h2>{t.invite.key}</h2>
      <div className="field">
        <label htmlFor={id}>{t.person.key}</label>
        <textarea id={id} className="mono" rows={4} spellCheck={false} autoCapitalize="off" autoFocus placeholder="ssh-ed25519 AAAA…" value={key} onChange={(event) => setKey(event.target.value)} aria-invalid={isPrivate} aria-describedby={`${id}-hint`} />
        <span className={isPrivate ? "bad" : "hint"} id={`${id}-hint`} role={isPrivate ? "alert" : undefined}>
          {isPrivate ? t.invite.isPrivate : t.invite.keyHint}
        </span>
      </div>
      <ProblemLine error={accept.error} />
      <button type="submit" className="primary" disabled={!isReady}>
        {t.invite.giveKey}
      </button>
    </form>
  );
}

function ByPasskey({ token, onDone }: { token: string; onDone: () => void }) {
  const { t } = useWords();
  const id = useId();
  const [name, setName] = useState("");
  const ways = useQuery(signInWaysQuery);
  const make = useMutation({ mutationFn: () => makeInvitedPasskey(token, name.trim()), onSuccess: onDone });
  // Without a public address of the bastion's there are none, and nothing that the reader could do about it.
  if (!ways.data?.passkeys) return null;
  return (
    <form
      className={css.way}
      onSubmit={(event: FormEvent) => {
        event.preventDefault();
        if (name.trim() !== "" && !make.isPending) make.mutate();
      }}
    >
      <h2>{t.invite.passkey}</h2>
      {hasPasskeys() ? (
        <>
          <div className="field">
            <label htmlFor={id}>{t.signingIn.name}</label>
            <input id={id} maxLength={100} autoComplete="off" value={name} onChange={(event) => setName(event.target.value)} aria-describedby={`${id}-hint`} />
            <span className="hint" id={`${id}-hint`}>
              {t.signingIn.nameHint}
            </span>
          </div>
          <ProblemLine error={make.error} />
          <button type="submit" disabled={make.isPending || name.trim() === ""}>
            {t.invite.makePasskey}
          </button>
        </>
      ) : (
        <p className="muted">{t.signingIn.oldBrowser}</p>
      )}
    </form>
  );
}

function After({ invited, done }: { invited: Invitation; done: Done }) {
  const { t } = useWords();
  if (done === "passkey") {
    return (
      <>
        <p>{t.invite.afterPasskey}</p>
        <a className="button primary" href="/me">
          {t.signIn.submit}
        </a>
      </>
    );
  }
  const { person, ssh_host, ssh_port, known_host } = invited;
  return (
    <>
      <p>{t.invite.afterKey}</p>
      <Command text={`ssh ${ssh_port === 22 ? "" : `-p ${ssh_port} `}${person}@${ssh_host}`} />
      <h2>{t.mine.known}</h2>
      <p className="hint">{t.invite.known}</p>
      <Command text={known_host} />
    </>
  );
}
