// The head of the audit log: how the ledger stands, and everything checked in the browser itself.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { ledgerQuery } from "../api/queries";
import { useWords } from "../i18n";
import { Broken, NoEd25519, verifyAll, type Progress } from "../ledger/verify";
import { useNow, When } from "../parts/small";
import { ProblemLine } from "../parts/states";
import { checkedQuery, type Checked } from "./checked";
import { isLate } from "./LedgerChip";
import css from "./Lists.module.css";

export function Ledger() {
  const { t, number, span } = useWords();
  const client = useQueryClient();
  const now = useNow(10_000);
  const ledger = useQuery(ledgerQuery);
  const checked = useQuery(checkedQuery).data;
  const [progress, setProgress] = useState<Progress | null>(null);
  const [error, setError] = useState<unknown>(null);
  const stop = useRef<AbortController | null>(null);
  useEffect(() => () => stop.current?.abort(), []);

  const verify = async () => {
    const abort = new AbortController();
    stop.current = abort;
    setError(null);
    setProgress({ doing: "hashes", done: 0, of: ledger.data?.size ?? 0 });
    const put = (found: Checked) => client.setQueryData(checkedQuery.queryKey, found);
    try {
      const { checkpoint, by, since, finished } = await verifyAll((step) => !abort.signal.aborted && setProgress(step), abort.signal);
      put({ is: "intact", size: checkpoint.size, since, finished, by: by.fingerprint });
    } catch (failed) {
      if (failed instanceof Broken) put({ is: "broken", what: failed.what, detail: failed.detail, at: failed.at, finished: new Date() });
      else if (!abort.signal.aborted) setError(failed);
    }
    if (!abort.signal.aborted) setProgress(null);
  };

  if (!ledger.data) return ledger.error ? <ProblemLine error={ledger.error} /> : null;
  const { size, anchors, signed_at, waiting } = ledger.data;
  return (
    <section className={css.ledger} aria-label={t.ledger.title}>
      <div className="row wrap">
        <span className="grow" role="status">
          {progress ? (
            <>
              <progress value={progress.done} max={Math.max(1, progress.of)} aria-label={t.ledger.doing[progress.doing]} /> {t.ledger.doing[progress.doing]}: {number(progress.done)} / {number(progress.of)}
            </>
          ) : checked?.is === "intact" ? (
            <span className="ok">
              ✓ {t.ledger.intactAll(number(checked.size))} <When at={checked.finished.toISOString()} exact />
            </span>
          ) : (
            t.ledger.signed(number(size))
          )}
        </span>
        <button type="button" className={progress ? "" : "primary"} disabled={size === 0} onClick={() => (progress ? (stop.current?.abort(), setProgress(null)) : void verify())}>
          {progress ? t.cancel : t.ledger.verify}
        </button>
      </div>
      <p className="row wrap muted">
        {signed_at ? (
          <span>
            {t.ledger.lastSigned} <When at={signed_at} exact />
          </span>
        ) : null}
        {waiting > 0 ? <span className={isLate(ledger.data, now) ? "warn" : ""}>{t.ledger.waiting(number(waiting))}</span> : null}
        {anchors.length === 0 ? <span>{t.ledger.noAnchors}</span> : null}
        {anchors.map((anchor) => (
          <span key={`${anchor.node} ${anchor.name}`} className={anchor.late ? "warn" : ""} title={anchor.error ?? ""}>
            {anchor.late ? "⚠ " : ""}
            {t.ledger.anchored(anchor.name, number(anchor.size))}
            {anchor.at ? `, ${t.ago(span(now - Date.parse(anchor.at)))}` : ""}
          </span>
        ))}
      </p>
      {checked?.is === "broken" ? (
        <div className="notice bad break" role="alert">
          <strong>
            {checked.at === null ? t.ledger.broken : t.ledger.brokenAt(number(checked.at))}: {t.ledger.faults[checked.what as keyof typeof t.ledger.faults]}
          </strong>
          <p>{checked.detail}</p>
          <p>{t.ledger.what}</p>
        </div>
      ) : null}
      {checked?.is === "intact" ? (
        <p className="hint break">
          {t.ledger.by} <code>{checked.by}</code> {checked.since === null ? t.ledger.firstSeen : t.ledger.since(number(checked.since))}
        </p>
      ) : null}
      {error instanceof NoEd25519 ? <p className="notice warn">{t.ledger.noEd25519}</p> : <ProblemLine error={error} />}
      <details>
        <summary>{t.ledger.how}</summary>
        <ol className={css.how}>
          {t.ledger.steps.map((step) => (
            <li key={step}>{step}</li>
          ))}
        </ol>
      </details>
    </section>
  );
}
