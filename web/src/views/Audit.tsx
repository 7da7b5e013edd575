// The audit log, the newest event first, with what proves it.
import { useInfiniteQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { answer, api } from "../api/client";
import { useWords } from "../i18n";
import { Empty, Loading, ProblemView } from "../parts/states";
import { When } from "../parts/small";
import { auditRoute } from "../router";
import { Ledger } from "./Ledger";
import css from "./Lists.module.css";
import { Proof } from "./Proof";

/** The acts that are looked for most; any other is found by its name in the address. */
const ACTS = [
  "logged_in", "login_refused", "denied", "session_opened", "session_cut", "session_ended", "session_held", "session_released", "session_frozen",
  "message_sent", "watch_started", "recording_viewed", "recording_exported", "sessions_searched", "evidence_made", "file_operation", "command_flagged", "request_refused",
  "grant_made", "grant_extended", "grant_revoked", "template_made", "template_changed", "template_removed", "request_made", "request_approved", "request_denied", "request_withdrawn", "request_expired",
  "person_added", "person_changed", "person_disabled", "key_added", "key_removed", "invite_made", "invite_used", "invite_revoked", "break_glass_made", "break_glass_opened", "break_glass_refused", "break_glass_revoked", "second_factor_enrolled", "second_factor_reset",
  "second_factor_locked", "recovery_code_used", "target_added", "target_changed", "credential_rotation", "token_made", "token_revoked", "signed_out",
  "hold_set", "hold_released", "deletion_asked", "deletion_refused", "recordings_deleted", "recipients_changed", "bastion_key_staged",
  "bastion_key_activated", "bastion_key_retired", "ledger_key_rotated", "master_key_rotated", "master_key_retired", "ledger_alarm", "rollback_accepted",
  "anchor_late", "anchor_recovered", "outbox_late", "outbox_recovered", "outbox_dropped", "clock_stepped",
] as const;

export function Audit() {
  const { t, number } = useWords();
  const search = auditRoute.useSearch();
  const navigate = useNavigate();
  const events = useInfiniteQuery({
    queryKey: ["events", search.act ?? ""],
    initialPageParam: "",
    queryFn: ({ pageParam }) =>
      answer(api.GET("/api/v1/events", { params: { query: { newest: true, limit: 100, ...(search.act ? { act: search.act } : {}), ...(pageParam ? { cursor: pageParam } : {}) } } })),
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const items = events.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <>
      <div className="bar">
        <h1>{t.event.list}</h1>
        <select
          aria-label={t.event.kind}
          value={search.act ?? ""}
          onChange={(event) => void navigate({ to: "/audit", search: event.target.value ? { act: event.target.value } : {} })}
        >
          <option value="">{t.event.every}</option>
          {[...new Set<string>([...ACTS, ...(search.act ? [search.act] : [])])].map((act) => (
            <option key={act} value={act}>
              {act.replaceAll("_", " ")}
            </option>
          ))}
        </select>
        <span className="grow" />
        <span className="muted">{t.event.newest}</span>
      </div>
      <Ledger />
      {events.isPending ? <Loading /> : null}
      {events.error && items.length === 0 ? <ProblemView error={events.error} retry={() => void events.refetch()} /> : null}
      {events.data && items.length === 0 ? <Empty title={t.event.empty} /> : null}
      {items.length > 0 ? (
        <table>
          <thead>
            <tr>
              <th className="wide">{t.event.number}</th>
              <th>{t.event.at}</th>
              <th>{t.event.by}</th>
              <th>{t.event.act}</th>
            </tr>
          </thead>
          <tbody>
            {items.map((event) => (
              <tr key={event.id}>
                <td className="wide mono muted">{number(event.seq)}</td>
                <td className="muted">
                  <span className="wide">
                    <When at={event.at} exact />
                  </span>
                  <span className="narrow">
                    <When at={event.at} />
                  </span>
                </td>
                <td className="cut">{event.actor_text}</td>
                <td className={css.act}>
                  <details>
                    <summary className="cut">
                      {event.kind.replaceAll("_", " ")} <code className="muted">{event.act_text}</code>
                    </summary>
                    <Proof event={event} />
                    <pre>{JSON.stringify({ id: event.id, at: event.at, actor: event.actor, act: event.act }, null, 2)}</pre>
                  </details>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : null}
      {events.hasNextPage ? (
        <p className={css.more}>
          <button type="button" onClick={() => void events.fetchNextPage()} disabled={events.isFetchingNextPage}>
            {t.event.older}
          </button>
        </p>
      ) : null}
    </>
  );
}
