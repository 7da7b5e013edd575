// How a page says that it waits, that there is nothing, that it may not be seen, or that something failed.
import { useEffect, useState, type ReactNode } from "react";
import { Problem, type Role } from "../api/client";
import { useWords } from "../i18n";
import css from "./parts.module.css";

/** Shown once the wait is long enough to be felt. */
export function Loading() {
  const { t } = useWords();
  const [shown, setShown] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setShown(true), 150);
    return () => clearTimeout(timer);
  }, []);
  return (
    <div className={css.state} role="status">
      {shown ? `${t.loading} …` : ""}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className={css.state}>
      <h2>{title}</h2>
      {children}
    </div>
  );
}

export function ProblemView({ error, retry }: { error: unknown; retry?: () => void }) {
  const { t } = useWords();
  const problem = error instanceof Problem ? error : null;
  if (problem?.status === 404) return <Empty title={t.problem.notFound}>{<p className="muted">{problem.detail}</p>}</Empty>;
  // The detail says who can read it, and how.
  if (problem?.kind === "encrypted") return <Empty title={t.problem.encrypted}>{<p className="break">{problem.detail}</p>}</Empty>;
  return (
    <div className={css.state} role="alert">
      <h2>{problem?.status === 403 ? t.problem.forbidden : t.problem.title}</h2>
      <p className="break">{problem?.kind === "unreachable" ? t.problem.unreachable : problem ? problem.detail : String(error)}</p>
      {problem?.reference ? <p className="mono faint">{t.problem.reference(problem.reference)}</p> : null}
      {retry && problem?.status !== 403 ? (
        <button type="button" onClick={retry}>
          {t.retry}
        </button>
      ) : null}
    </div>
  );
}

/** A problem beside what caused it: in a dialog, under a form. */
export function ProblemLine({ error }: { error: unknown }) {
  const { t } = useWords();
  if (!error) return null;
  const problem = error instanceof Problem ? error : null;
  return (
    <p className="notice bad break" role="alert">
      {problem?.kind === "unreachable" ? t.problem.unreachable : problem?.kind === "passkey_none" ? t.signingIn.noAnswer : problem?.kind === "passkey_known" ? t.signingIn.known : problem ? problem.detail : String(error)}
      {problem?.reference ? <span className="mono"> · {t.problem.reference(problem.reference)}</span> : null}
    </p>
  );
}

export function Forbidden({ roles }: { roles: readonly Role[] }) {
  const { t, list } = useWords();
  return (
    <Empty title={t.problem.forbidden}>
      <p className="muted">{t.problem.forbiddenHint(list(roles.map((role) => t.roles[role])))}</p>
    </Empty>
  );
}

export function NotFound() {
  const { t } = useWords();
  return (
    <Empty title={t.problem.notFound}>
      <p className="muted">{t.problem.notFoundHint}</p>
    </Empty>
  );
}

export function PageFailed({ error }: { error: unknown }) {
  const { t } = useWords();
  return (
    <div className={css.state} role="alert">
      <h2>{t.problem.page}</h2>
      <p className="mono break">{error instanceof Error ? error.message : String(error)}</p>
      <button type="button" onClick={() => location.reload()}>
        {t.retry}
      </button>
    </div>
  );
}
