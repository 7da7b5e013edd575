// How the ledger stands, on every page: by what the bastion says, and by what was checked in this browser.
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { ShieldAlert, ShieldCheck, ShieldX } from "lucide-react";
import type { Schema } from "../api/client";
import { ledgerQuery } from "../api/queries";
import { useWords } from "../i18n";
import { useNow } from "../parts/small";
import css from "./Shell.module.css";
import { checkedQuery } from "./checked";

/** Events are signed within a second; for so long, in milliseconds, one that waits is no cause for a word. */
const PATIENCE = 60_000;

export function isLate(ledger: Schema<"Ledger">, now: number): boolean {
  return ledger.anchors.some((anchor) => anchor.late) || now - Date.parse(ledger.waiting_since ?? "") > PATIENCE;
}

export function LedgerChip() {
  const { t, span, number } = useWords();
  const now = useNow(10_000);
  const ledger = useQuery(ledgerQuery);
  const checked = useQuery(checkedQuery);
  if (!ledger.data) return null;
  const broken = checked.data?.is === "broken" ? checked.data : null;
  const late = isLate(ledger.data, now);
  const signed = ledger.data.signed_at;
  const [tone, Icon, word] = broken
    ? (["bad", ShieldX, broken.at === null ? t.ledger.broken : t.ledger.brokenAt(number(broken.at))] as const)
    : late
      ? (["warn", ShieldAlert, t.ledger.late] as const)
      : (["ok", ShieldCheck, signed ? `${t.ledger.intact} · ${span(now - Date.parse(signed))}` : t.ledger.empty] as const);
  const title = broken?.detail ?? [t.ledger.signed(number(ledger.data.size)), checked.data?.is === "intact" ? t.ledger.verified(number(checked.data.size)) : t.ledger.notVerified].join(" ");
  return (
    <Link to="/audit" className={`button quiet ${css.ledger} ${css[tone]}`} title={title} aria-label={word}>
      <Icon size={15} aria-hidden />
      <span>{word}</span>
    </Link>
  );
}
