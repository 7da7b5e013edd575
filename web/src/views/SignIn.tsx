// The way in: a passkey; or a password, then a code where one is needed. What failed is told without saying what was wrong.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useId, useRef, useState, type FormEvent } from "react";
import { answer, api, Problem } from "../api/client";
import { hasPasskeys, signInByPasskey } from "../api/passkeys";
import { signInWaysQuery } from "../api/queries";
import { useWords } from "../i18n";
import { ProblemLine } from "../parts/states";
import { Door, Mark } from "./Door";
import css from "./SignIn.module.css";

export function SignIn({ again }: { again: boolean }) {
  const { t } = useWords();
  const client = useQueryClient();
  const id = useId();
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [code, setCode] = useState("");
  const [needsCode, setNeedsCode] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  // The identity provider's way back ends here when it proved nobody.
  const [returned, setReturned] = useState(() => new URLSearchParams(location.search).get("sign_in"));
  const ways = useQuery(signInWaysQuery);
  const codeField = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = `${t.signIn.submit} · Sallyport`;
  }, [t]);
  useEffect(() => {
    if (needsCode) codeField.current?.focus();
  }, [needsCode]);

  const enter = async (prove: () => Promise<unknown>) => {
    if (busy) return;
    setBusy(true);
    setError(null);
    setReturned(null);
    try {
      await prove();
      // Nothing that another person was shown stays.
      client.clear();
      const here = new URL(location.href);
      here.searchParams.delete("sign_in");
      location.replace(here);
    } catch (problem) {
      if (problem instanceof Problem && problem.kind === "code_needed") {
        setNeedsCode(true);
      } else {
        setError(problem);
        setCode("");
        if (problem instanceof Problem && problem.kind === "refused") setNeedsCode(false);
      }
      setBusy(false);
    }
  };
  const leave = async () => {
    setBusy(true);
    setError(null);
    setReturned(null);
    try {
      const here = new URL(location.href);
      here.searchParams.delete("sign_in");
      const begun = await answer(api.POST("/api/v1/sign-in/oidc", { body: { to: here.pathname + here.search } }));
      location.assign(begun.url);
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    void enter(() => answer(api.POST("/api/v1/sign-in", { body: { name: name.trim(), password, ...(needsCode ? { code } : {}) } })));
  };
  return (
    <Door>
      <form className={css.form} onSubmit={submit}>
        <Mark size={32} className={css.mark} />
        <h1>{t.signIn.title}</h1>
        {again ? <p className="notice">{t.signIn.ended}</p> : null}
        {returned ? (
          <p className="notice bad" role="alert">
            {returned === "refused" ? t.signIn.oidcRefused : returned === "again" ? t.signIn.oidcAgain : t.signIn.oidcAway}
          </p>
        ) : null}
        {needsCode ? (
          <div className="field">
            <label htmlFor={`${id}-code`}>{t.signIn.code}</label>
            <input id={`${id}-code`} ref={codeField} className="mono" value={code} onChange={(event) => setCode(event.target.value)} autoComplete="one-time-code" required aria-describedby={`${id}-hint`} />
            <span className="hint" id={`${id}-hint`}>
              {t.signIn.codeHint}
            </span>
          </div>
        ) : (
          <>
            <div className="field">
              <label htmlFor={`${id}-name`}>{t.signIn.name}</label>
              <input id={`${id}-name`} value={name} onChange={(event) => setName(event.target.value)} autoComplete="username" autoCapitalize="off" spellCheck={false} autoFocus required />
            </div>
            <div className="field">
              <label htmlFor={`${id}-password`}>{t.signIn.password}</label>
              <input id={`${id}-password`} type="password" value={password} onChange={(event) => setPassword(event.target.value)} autoComplete="current-password" required />
            </div>
          </>
        )}
        <ProblemLine error={error} />
        <button type="submit" className="primary" disabled={busy}>
          {t.signIn.submit}
        </button>
        {!needsCode && ways.data?.passkeys && hasPasskeys() ? (
          <button type="button" disabled={busy} onClick={() => void enter(signInByPasskey)}>
            {t.signIn.passkey}
          </button>
        ) : null}
        {!needsCode && ways.data?.oidc ? (
          <button type="button" disabled={busy} onClick={() => void leave()}>
            {t.signIn.oidc(ways.data.oidc)}
          </button>
        ) : null}
        {needsCode ? (
          <button
            type="button"
            className="quiet"
            onClick={() => {
              setNeedsCode(false);
              setCode("");
              setError(null);
            }}
          >
            {t.signIn.back}
          </button>
        ) : null}
        <p className="hint">{t.signIn.noPassword}</p>
      </form>
    </Door>
  );
}
