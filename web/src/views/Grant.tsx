// One grant: a time line that carries everything, its terms, and the sessions under it.
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Fragment, lazy, Suspense, useState } from "react";
import type { Schema } from "../api/client";
import { bastionQuery, grantQuery, sessionsQuery } from "../api/queries";
import { useWords } from "../i18n";
import { useKeys } from "../parts/keys";
import { canChange, Capabilities } from "../parts/Capabilities";
import { Duration } from "../parts/Duration";
import { Evidence } from "../parts/Evidence";
import { fileLimits, writeDestination, writeSize } from "../parts/limits";
import { Ago, CopyButton, Remaining, Status, useNow, When } from "../parts/small";
import { Loading, ProblemView } from "../parts/states";
import { grantRoute } from "../router";
import css from "./Grants.module.css";
import { has, useMe } from "./Shell";
import { short } from "./short";

const GrantDialogs = lazy(() => import("./GrantDialogs"));

type Grant = Schema<"Grant">;
type Session = Schema<"Session">;

export function GrantPage() {
  const { id } = grantRoute.useParams();
  const grant = useQuery(grantQuery(id));
  if (grant.data) return <Shown grant={grant.data} />;
  return grant.error ? <ProblemView error={grant.error} retry={() => void grant.refetch()} /> : <Loading />;
}

function Shown({ grant }: { grant: Grant }) {
  const words = useWords();
  const { t } = words;
  const me = useMe();
  const bastion = useQuery(bastionQuery);
  const found = useInfiniteQuery({ ...sessionsQuery({ grant: grant.id }), refetchInterval: 5000 });
  const sessions = found.data?.pages.flatMap((page) => page.items) ?? [];
  const [asked, setAsked] = useState<"extend" | "revoke" | null>(null);
  const mayChange = has(me, "admin") && canChange(grant);
  useKeys({ e: () => mayChange && setAsked("extend"), x: () => mayChange && setAsked("revoke") });
  const message = (name: string) => {
    const { ssh_host, ssh_port, host_key } = bastion.data ?? { ssh_host: "", ssh_port: 22, host_key: "" };
    const line = `ssh ${ssh_port === 22 ? "" : `-p ${ssh_port} `}${name}+${grant.logins[0] ?? ""}@${grant.targets[0] ?? ""}@${ssh_host}`;
    return t.make.message(name, line, host_key, words.exact(grant.not_after));
  };
  return (
    <>
      <div className="bar">
        <h1>
          <span className="mono" title={grant.id}>
            {short(grant.id)}
          </span>{" "}
          {words.list(grant.people.map((person) => person.name))} → <span className="mono">{grant.targets.join(", ")}</span>
        </h1>
        <Status is={grant.state} />
        {canChange(grant) ? <Remaining from={grant.not_before} until={grant.not_after} /> : null}
        <span className="grow" />
        {mayChange ? (
          <button type="button" onClick={() => setAsked("extend")} title="e">
            {t.grant.extend} …
          </button>
        ) : null}
        {has(me, "admin") ? (
          <Link className="button" to="/grants" search={{ state: "active", new: true, like: grant.id }}>
            {t.grant.again} …
          </Link>
        ) : null}
        {bastion.data && canChange(grant) ? grant.people.slice(0, 1).map((person) => <CopyButton key={person.id} label={t.grant.copyMessage(person.name)} text={() => message(person.name)} />) : null}
        {has(me, "reviewer", "auditor") ? <Evidence of="grants" id={grant.id} /> : null}
        {mayChange ? (
          <button type="button" className="danger" onClick={() => setAsked("revoke")} title="x">
            {t.grant.revoke} …
          </button>
        ) : null}
      </div>
      {grant.revoked ? (
        <div className="bar">
          <p className="notice bad grow">
            {t.grant.revokedBy(grant.revoked.by?.name ?? t.grant.operator, grant.revoked.reason)} · <When at={grant.revoked.at} exact />
          </p>
        </div>
      ) : null}
      <Line grant={grant} sessions={sessions} />
      <div className={css.sheet}>
        <section>
          <h2>{t.session.details}</h2>
          <dl className="facts">
            <dt>{t.grant.person}</dt>
            <dd>{words.list(grant.people.map((person) => person.name))}</dd>
            <dt>{t.grant.targets}</dt>
            <dd className="mono break">{grant.targets.join(", ")}</dd>
            <dt>{t.grant.logins}</dt>
            <dd className="mono">{grant.logins.join(", ")}</dd>
            <dt>{t.grant.allow}</dt>
            <dd>
              <Capabilities grant={grant} />
            </dd>
            {grant.allow.forwards.length > 0 ? (
              <>
                <dt>{t.grant.caps.forwarding}</dt>
                <dd className="mono break">{grant.allow.forwards.map(writeDestination).join(", ")}</dd>
              </>
            ) : null}
            {grant.allow.forwards.length > 0 && (grant.forwarding.from === "bastion" || grant.forwarding.metadata_only) ? (
              <>
                <dt>{t.grant.forwarded}</dt>
                <dd>{words.list([...(grant.forwarding.from === "bastion" ? [t.grant.fromBastion] : []), ...(grant.forwarding.metadata_only ? [t.grant.metadataOnly] : [])])}</dd>
              </>
            ) : null}
            {grant.commands.exec.length > 0 ? (
              <>
                <dt>{t.grant.onlyCommands}</dt>
                <dd className="mono break">{grant.commands.exec.join(", ")}</dd>
              </>
            ) : null}
            {grant.commands.flag.length > 0 ? (
              <>
                <dt>{t.grant.flagged}</dt>
                <dd className="mono break">{grant.commands.flag.join(", ")}</dd>
              </>
            ) : null}
            <FileLimits files={grant.files} />
            <dt>{t.grant.from}</dt>
            <dd>
              <When at={grant.not_before} exact />
            </dd>
            <dt>{t.grant.until}</dt>
            <dd>
              <When at={grant.not_after} exact />
            </dd>
            <dt>{t.grant.reason}</dt>
            <dd className="break">{grant.reason}</dd>
            {grant.ticket ? (
              <>
                <dt>{t.grant.ticket}</dt>
                <dd className="mono">{grant.ticket}</dd>
              </>
            ) : null}
            {grant.template ? (
              <>
                <dt>{t.template.one}</dt>
                <dd>{grant.template}</dd>
              </>
            ) : null}
            <dt>{t.grant.by}</dt>
            <dd>
              {grant.created_by?.name ?? t.grant.operator}, <When at={grant.created_at} exact />
            </dd>
            {grant.source_networks.length > 0 ? (
              <>
                <dt>{t.grant.networks}</dt>
                <dd className="mono">{grant.source_networks.join(", ")}</dd>
              </>
            ) : null}
            {grant.max_sessions ? (
              <>
                <dt>{t.grant.maxSessions}</dt>
                <dd>{grant.max_sessions}</dd>
              </>
            ) : null}
            <dt>{t.grant.secondFactor}</dt>
            <dd>{grant.second_factor ? t.person.yes : t.person.no}</dd>
            <dt>{t.grant.approval}</dt>
            <dd>{t.grant.approvals[grant.approval]}</dd>
            <dt>Id</dt>
            <dd className="row">
              <code className="break">{grant.id}</code>
              <CopyButton text={grant.id} />
            </dd>
          </dl>
        </section>
        <section>
          <h2>{t.grant.sessions}</h2>
          {found.error ? <ProblemView error={found.error} retry={() => void found.refetch()} /> : null}
          {found.data && sessions.length === 0 ? <p className="muted">{t.session.empty}</p> : null}
          {sessions.length > 0 ? (
            <ul>
              {sessions.map((session) => (
                <li key={session.id} className="row" style={{ minHeight: 32 }}>
                  <Status is={session.state} pulse={session.state === "live"} />
                  <Link to="/sessions/$id" params={{ id: session.id }} className="mono cut">
                    {session.person.name} → {session.login}@{session.target.name}
                  </Link>
                  <span className="grow" />
                  <span className="muted">
                    <Ago at={session.started_at} />
                  </span>
                  <span className="mono">
                    <Duration session={session} />
                  </span>
                </li>
              ))}
            </ul>
          ) : null}
        </section>
      </div>
      <Suspense>{asked ? <GrantDialogs what={asked} grant={grant} onClose={() => setAsked(null)} /> : null}</Suspense>
    </>
  );
}

function FileLimits({ files }: { files: Grant["files"] }) {
  const { t, list } = useWords();
  const { upload, download, hashes, terminal } = fileLimits(files);
  return (
    <>
      {([["upload", upload], ["download", download]] as const).map(([name, way]) =>
        way ? (
          <Fragment key={name}>
            <dt>
              {name === "upload" ? "↑" : "↓"} {t.grant.caps[name]}
            </dt>
            <dd className="break">
              {way.paths ? <code>{way.paths.length > 0 ? way.paths.join(", ") : t.none}</code> : null}{" "}
              {list([...(way.file_bytes ? [`${t.limits.file}: ${writeSize(way.file_bytes)}`] : []), ...(way.total_bytes ? [`${t.limits.total}: ${writeSize(way.total_bytes)}`] : [])])}
            </dd>
          </Fragment>
        ) : null,
      )}
      {hashes === null ? null : (
        <>
          <dt>{t.limits.hashes}</dt>
          <dd>{hashes}</dd>
        </>
      )}
      {terminal === null ? null : (
        <>
          <dt>{t.limits.terminal}</dt>
          <dd>{writeSize(terminal)}</dd>
        </>
      )}
    </>
  );
}

/** From when it was given to its end, with the sessions under it. */
function Line({ grant, sessions }: { grant: Grant; sessions: readonly Session[] }) {
  const words = useWords();
  const { t } = words;
  const now = useNow(5000);
  const [from, until] = [Date.parse(grant.not_before), Date.parse(grant.not_after)];
  const start = Math.min(from, Date.parse(grant.created_at));
  const end = Math.max(until, ...sessions.map((session) => Date.parse(session.ended_at ?? "") || 0));
  const x = (at: number) => ((at - start) / Math.max(1, end - start)) * 1000;
  const stop = Math.min(until, grant.revoked ? Date.parse(grant.revoked.at) : until);
  return (
    <figure className={css.lineBox}>
      <svg className={css.line} viewBox="0 0 1000 64" preserveAspectRatio="none" role="img" aria-label={`${t.grant.window}: ${words.exact(grant.not_before)} – ${words.exact(grant.not_after)}`}>
        <rect x={x(from)} y="12" width={Math.max(2, x(until) - x(from))} height="12" fill="var(--line)" />
        <rect x={x(from)} y="12" width={Math.max(0, x(Math.min(Math.max(now, from), stop)) - x(from))} height="12" fill="var(--accent)" />
        {grant.revoked ? <rect x={x(stop) - 1} y="6" width="3" height="24" fill="var(--bad)" /> : null}
        {now > start && now < end ? <rect x={x(now)} y="4" width="1.500" height="56" fill="var(--fg)" /> : null}
        {sessions.slice(0, 300).map((session, index) => {
          const [began, ended] = [Date.parse(session.started_at), Date.parse(session.ended_at ?? "") || now];
          return <rect key={session.id} x={x(began)} y={34 + (index % 4) * 7} width={Math.max(3, x(ended) - x(began))} height="5" fill={session.ended_at ? "var(--mut)" : "var(--ok)"} />;
        })}
      </svg>
      <figcaption className={css.lineLabels}>
        <span>{words.instant(new Date(start))}</span>
        <span>{words.instant(new Date(end))}</span>
      </figcaption>
    </figure>
  );
}
