// The first page: what is live, what ends soon, what needs somebody, whether the bastion works.
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Hourglass } from "lucide-react";
import type { ReactNode } from "react";
import { grantsQuery, healthQuery, liveSessionsQuery, peopleQuery, requestsQuery, targetsQuery } from "../api/queries";
import { useWords } from "../i18n";
import { Duration } from "../parts/Duration";
import { Command, Remaining, Status, useNow } from "../parts/small";
import { Loading, ProblemView } from "../parts/states";
import css from "./Overview.module.css";
import { has, useMe } from "./Shell";

const HOUR = 3_600_000;

export function Overview() {
  const { t, span, number } = useWords();
  const me = useMe();
  const now = useNow(10_000);
  const live = useQuery(liveSessionsQuery);
  const grants = useQuery(grantsQuery("active"));
  const requests = useQuery(requestsQuery(true));
  const health = useQuery(healthQuery);
  const targets = useQuery(targetsQuery);
  const people = useQuery(peopleQuery);
  // A quiet day is not the first one.
  const ever = useQuery({ ...grantsQuery("all"), enabled: grants.data?.items.length === 0 });

  if (grants.error && !grants.data) return <ProblemView error={grants.error} retry={() => void grants.refetch()} />;
  if (!grants.data || !live.data || !requests.data || !targets.data || !people.data) return <Loading />;
  const sessions = live.data.items;
  const soon = grants.data.items.filter((grant) => Date.parse(grant.not_after) - now < HOUR).sort((a, b) => Date.parse(a.not_after) - Date.parse(b.not_after));
  const engineers = people.data.items.filter((person) => person.roles.includes("engineer"));
  const isFirstDay = targets.data.items.length === 0 || engineers.length === 0 || ever.data?.items.length === 0;
  return (
    <div className={css.page}>
      <h1 className="hidden-text">{t.overview}</h1>
      <dl className={css.numbers}>
        <Number name={t.overviewPage.live} to="/sessions">
          <span className={sessions.length > 0 ? "ok" : ""}>{number(sessions.length)}</span>
        </Number>
        <Number name={t.overviewPage.ending} to="/grants">
          <span className={soon.length > 0 ? "warn" : ""}>{number(soon.length)}</span>
        </Number>
        <Number name={t.overviewPage.requests} to="/requests">
          <span className={requests.data.items.length > 0 ? "warn" : ""}>{number(requests.data.items.length)}</span>
        </Number>
        <Number name={t.overviewPage.health} to="/settings">
          {health.data?.status === "ok" ? <span className="ok">{t.overviewPage.working}</span> : health.isPending ? "…" : <span className="bad">{t.states.away}</span>}
        </Number>
      </dl>
      {isFirstDay && has(me, "admin") ? <FirstDay targets={targets.data.items.length} people={engineers.length} /> : null}
      <div className={css.columns}>
        <section>
          <h2>{t.overviewPage.live}</h2>
          {sessions.length === 0 ? <p className="muted">{t.overviewPage.nobody}</p> : null}
          <ul>
            {sessions.map((session) => {
              const grant = grants.data.items.find((one) => one.id === session.grant_id);
              return (
                <li key={session.id} className={css.row}>
                  <Status is={session.state} pulse={session.state === "live"} />
                  <span className="cut">{session.person.name}</span>
                  <Link to="/sessions/$id" params={{ id: session.id }} className="mono cut">
                    {session.login}@{session.target.name}
                  </Link>
                  <span className="mono">
                    <Duration session={session} />
                  </span>
                  <span className={css.left}>{grant ? <Remaining from={grant.not_before} until={grant.not_after} /> : null}</span>
                </li>
              );
            })}
          </ul>
        </section>
        <section>
          <h2>{t.overviewPage.needsYou}</h2>
          {requests.data.items.length === 0 ? <p className="muted">{t.overviewPage.nothing}</p> : null}
          <ul>
            {requests.data.items.map((request) => (
              <li key={request.id} className={css.need}>
                <Hourglass className="warn" size={14} aria-hidden="true" />
                <Link to="/requests">
                  {request.person.name} → <code>{request.targets.join(", ")}</code> {t.request.forTime(span(request.lasting_seconds * 1000))}
                </Link>
                <span className="muted cut">{request.reason}</span>
              </li>
            ))}
          </ul>
          <h2>{t.overviewPage.soon}</h2>
          {soon.length === 0 ? <p className="muted">{t.none}</p> : null}
          <ul>
            {soon.map((grant) => (
              <li key={grant.id} className={css.need}>
                <Link to="/grants/$id" params={{ id: grant.id }}>
                  {grant.people.map((person) => person.name).join(", ")} → <code>{grant.targets.join(", ")}</code>
                </Link>
                <span className="grow" />
                <Remaining from={grant.not_before} until={grant.not_after} />
              </li>
            ))}
          </ul>
        </section>
      </div>
    </div>
  );
}

function Number({ name, to, children }: { name: string; to: "/sessions" | "/grants" | "/requests" | "/settings"; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        <Link to={to} {...(to === "/sessions" ? { search: { state: "live" as const } } : {})}>
          {children}
        </Link>
      </dd>
    </div>
  );
}

function FirstDay({ targets, people }: { targets: number; people: number }) {
  const { t } = useWords();
  const steps = [
    { name: t.overviewPage.step1, done: targets > 0, command: "sallyport target add web-1 10.0.0.7 --login root", to: "/targets" as const },
    { name: t.overviewPage.step2, done: people > 0, command: "sallyport person add li.wei --role engineer --key li.wei.pub", to: "/people" as const },
    { name: t.overviewPage.step3, done: false, command: "sallyport grant new li.wei web-1 --login root --for 4h --reason INC-7", to: "/grants" as const },
  ];
  return (
    <section className={css.first}>
      <h2>{t.overviewPage.firstDay}</h2>
      <ol>
        {steps.map((step, index) => (
          <li key={step.to}>
            <span className="row">
              <span className={step.done ? "ok" : "muted"}>{step.done ? "✓" : `${index + 1}.`}</span>
              {step.to === "/grants" ? (
                <Link to="/grants" search={{ state: "active", new: true }}>
                  {step.name}
                </Link>
              ) : (
                <Link to={step.to}>{step.name}</Link>
              )}
            </span>
            {step.done ? null : <Command text={step.command} />}
          </li>
        ))}
      </ol>
    </section>
  );
}
