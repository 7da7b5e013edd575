// What engineers ask for, and the answers. The one who asks waits at a prompt, so the buttons are beside the question.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useId, useState } from "react";
import { answer, api, type Schema } from "../api/client";
import { requestsQuery } from "../api/queries";
import { useWords } from "../i18n";
import { Dialog, ReasonDialog } from "../parts/Dialog";
import { Status, useNow, useToast, When } from "../parts/small";
import { Empty, Loading, ProblemLine, ProblemView } from "../parts/states";
import { readWindow } from "../parts/when";
import { requestsRoute } from "../router";
import css from "./Grants.module.css";
import own from "./Requests.module.css";
import { has, useMe } from "./Shell";
import { short } from "./short";

type Request = Schema<"Request">;
type Change = { logins: string[]; allow: Schema<"Allow"> | null; not_after: string | null; second_factor: boolean };

export function Requests() {
  const { t } = useWords();
  const search = requestsRoute.useSearch();
  const requests = useQuery(requestsQuery(search.state === "open"));
  return (
    <>
      <div className="bar">
        <h1>{t.request.list}</h1>
        <span className="segmented">
          {(["open", "all"] as const).map((state) => (
            <Link key={state} to="/requests" search={{ state }} aria-current={search.state === state ? "true" : undefined}>
              {state === "open" ? t.request.open : t.request.answered}
            </Link>
          ))}
        </span>
      </div>
      {requests.isPending ? <Loading /> : null}
      {requests.error && !requests.data ? <ProblemView error={requests.error} retry={() => void requests.refetch()} /> : null}
      {requests.data?.items.length === 0 ? (
        <Empty title={t.request.empty}>
          <p className="muted">{t.request.emptyHint}</p>
          <code>ssh PERSON@BASTION request TARGET --for 2h --reason INC-7</code>
        </Empty>
      ) : null}
      <ul className={own.list} aria-live="polite">
        {requests.data?.items.map((request) => (
          <li key={request.id}>
            <One request={request} />
          </li>
        ))}
      </ul>
    </>
  );
}

function One({ request }: { request: Request }) {
  const { t, span } = useWords();
  const me = useMe();
  const client = useQueryClient();
  const toast = useToast();
  const now = useNow(5000);
  const [asked, setAsked] = useState<"deny" | "change" | null>(null);
  const lasting = span(request.lasting_seconds * 1000);
  const isOwn = request.person.name === me.name;

  const settled = (text: string) => () => {
    setAsked(null);
    toast(text);
    for (const key of ["requests", "grants"]) void client.invalidateQueries({ queryKey: [key] });
  };
  const path = { params: { path: { id: request.id } } };
  const approve = useMutation({
    mutationFn: (change: Change | null) => {
      const body = change ?? { logins: [], allow: null, not_after: null, second_factor: false };
      return answer(
        api.POST("/api/v1/requests/{id}/approve", {
          ...path,
          body: { ...body, not_before: null, max_sessions: null, source_networks: [], files: { upload: NO_LIMIT, download: NO_LIMIT, upload_sha256: null, terminal_bytes: null }, commands: { exec: [], flag: [] } },
        }),
      );
    },
    onSuccess: settled(t.request.approved),
  });
  const deny = useMutation({
    mutationFn: (reason: string) => answer(api.POST("/api/v1/requests/{id}/deny", { ...path, body: { reason } })),
    onSuccess: settled(t.request.wasDenied),
  });
  return (
    <article className={own.one}>
      <p className={own.what}>
        <strong>{request.person.name}</strong> {t.request.asks}{" "}
        {request.session ? (
          t.request.sessionOn(`${request.logins.length > 0 ? `${request.logins.join(", ")}@` : ""}${request.targets.join(", ")}`)
        ) : request.grant ? (
          <Link to="/grants/$id" params={{ id: request.grant }}>
            {t.request.moreTime(short(request.grant))}
          </Link>
        ) : (
          <code>
            {request.logins.length > 0 ? `${request.logins.join(", ")}@` : ""}
            {request.targets.join(", ")}
          </code>
        )}{" "}
        {request.session ? null : t.request.forTime(lasting)}
        {request.allow?.upload ? <span className="tag">↑ {t.grant.caps.upload}</span> : null}
        {request.allow?.download ? <span className="tag">↓ {t.grant.caps.download}</span> : null}
      </p>
      <p className="break">
        {request.ticket ? <code>{request.ticket} </code> : null}
        {request.reason}
      </p>
      <p className="muted">
        {t.request.asked(span(now - Date.parse(request.created_at)))}
        {request.state === "open" ? ` · ${t.request.expires(span(Date.parse(request.expires_at) - now))}` : null}
      </p>
      {request.state === "open" && request.session && request.approval === "watcher" ? (
        <p className="row wrap">
          <span className="grow">{t.request.waitsForWatcher}</span>
          {has(me, "reviewer") && !isOwn ? (
            <Link to="/sessions/$id" params={{ id: request.session }} search={{ watch: true }} className="button primary">
              {t.live.watch}
            </Link>
          ) : null}
        </p>
      ) : request.state === "open" ? (
        has(me, "admin") ? (
          isOwn ? (
            <p className="muted">{t.request.own}</p>
          ) : (
            <div className="row wrap">
              <button type="button" className="danger" onClick={() => setAsked("deny")}>
                {t.request.deny} …
              </button>
              {request.grant || request.session ? null : (
                <button type="button" onClick={() => setAsked("change")}>
                  {t.request.change} …
                </button>
              )}
              <button type="button" className="primary" disabled={approve.isPending} onClick={() => approve.mutate(null)}>
                {t.request.approve(lasting)}
              </button>
            </div>
          )
        ) : null
      ) : (
        <p className="row wrap">
          <Status is={request.state} />
          {request.answer ? (
            <span className="muted">
              {request.answer.by ? t.request.answeredBy(request.answer.by.name) : null} <When at={request.answer.at} />
              {request.answer.reason ? ` · ${request.answer.reason}` : null}
            </span>
          ) : null}
          {request.answer?.grant ? (
            <Link to="/grants/$id" params={{ id: request.answer.grant }} className="mono">
              {short(request.answer.grant)}
            </Link>
          ) : null}
        </p>
      )}
      {asked === null ? <ProblemLine error={approve.error} /> : null}
      {asked === "deny" ? (
        <ReasonDialog
          title={t.request.denyTitle}
          hint={`${request.person.name} → ${request.targets.join(", ")}`}
          action={t.request.deny}
          busy={deny.isPending}
          problem={<ProblemLine error={deny.error} />}
          onClose={() => setAsked(null)}
          onReason={(reason) => deny.mutate(reason)}
        />
      ) : null}
      {asked === "change" ? <ChangeDialog request={request} busy={approve.isPending} error={approve.error} onClose={() => setAsked(null)} onApprove={(change) => approve.mutate(change)} /> : null}
    </article>
  );
}

const NO_LIMIT = { paths: null, file_bytes: null, total_bytes: null };

function ChangeDialog({ request, busy, error, onClose, onApprove }: { request: Request; busy: boolean; error: unknown; onClose: () => void; onApprove: (change: Change) => void }) {
  const words = useWords();
  const { t } = words;
  const id = useId();
  const now = useNow(5000);
  const [lasts, setLasts] = useState(`${Math.max(1, Math.round(request.lasting_seconds / 60))}m`);
  const [logins, setLogins] = useState(request.logins.join(" "));
  const [allow, setAllow] = useState(request.allow ?? { shell: true, exec: true, upload: false, download: false, forwards: [] });
  const [second, setSecond] = useState(false);
  const window = readWindow(lasts, new Date(now));
  const send = () =>
    window !== null && !busy && onApprove({ logins: logins.split(/[\s,]+/).filter(Boolean), allow, not_after: window.until.toISOString(), second_factor: second });
  return (
    <Dialog
      title={t.request.approveTitle}
      onClose={onClose}
      onSubmit={send}
      actions={
        <>
          <button type="button" onClick={onClose}>
            {t.cancel}
          </button>
          <button type="submit" className="primary" disabled={window === null || busy}>
            {t.request.approve("")}
          </button>
        </>
      }
    >
      <p>
        {request.person.name} → <code>{request.targets.join(", ")}</code>
      </p>
      <div className="field">
        <label htmlFor={`${id}-for`}>{t.make.lasts}</label>
        <input id={`${id}-for`} className="mono" value={lasts} onChange={(event) => setLasts(event.target.value)} aria-describedby={`${id}-end`} />
        <span id={`${id}-end`} className={window ? "hint" : "bad"} role="status">
          {window ? t.make.ends(words.exact(window.until)) : t.make.notUnderstood}
        </span>
      </div>
      <div className="field">
        <label htmlFor={`${id}-login`}>{t.make.logins}</label>
        <input id={`${id}-login`} className="mono" value={logins} onChange={(event) => setLogins(event.target.value)} />
      </div>
      <fieldset className={css.plain}>
        <legend>{t.grant.allow}</legend>
        <span className={css.checks}>
          {(["shell", "exec", "upload", "download"] as const).map((what) => (
            <label key={what}>
              <input type="checkbox" checked={allow[what]} onChange={(event) => setAllow({ ...allow, [what]: event.target.checked })} />
              {t.grant.caps[what]}
            </label>
          ))}
          <label>
            <input type="checkbox" checked={second} onChange={(event) => setSecond(event.target.checked)} />
            {t.make.second}
          </label>
        </span>
      </fieldset>
      <ProblemLine error={error} />
    </Dialog>
  );
}
