// The proof of one event, checked in the browser.
import { useMutation } from "@tanstack/react-query";
import type { Schema } from "../api/client";
import { useWords } from "../i18n";
import { Broken, NoEd25519, proveEvent } from "../ledger/verify";
import { ProblemLine } from "../parts/states";

export function Proof({ event }: { event: Schema<"Event"> }) {
  const { t, number } = useWords();
  const proof = useMutation({ mutationFn: () => proveEvent(event) });
  const broken = proof.error instanceof Broken ? proof.error : null;
  return (
    <div className="row wrap">
      <button type="button" onClick={() => proof.mutate()} disabled={proof.isPending}>
        {t.ledger.prove}
      </button>
      <span role="status" className="break">
        {proof.isPending ? `${t.loading} …` : null}
        {proof.data ? (
          <span className="ok">
            ✓ {t.ledger.proved(number(proof.data.index), number(proof.data.checkpoint.size), number(proof.data.path))} <code title={proof.data.by.fingerprint}>{proof.data.by.fingerprint.slice(0, 16)}</code>
          </span>
        ) : null}
      </span>
      {broken ? (
        <p className="notice bad break" role="alert">
          ✕ {t.ledger.faults[broken.what]}: {broken.detail}
        </p>
      ) : proof.error instanceof NoEd25519 ? (
        <p className="notice warn">{t.ledger.noEd25519}</p>
      ) : (
        <ProblemLine error={proof.error} />
      )}
    </div>
  );
}
