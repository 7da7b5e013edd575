// Grants: who may reach what, until when. A new one is a dialog with an address of its own.
import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { lazy, Suspense, useEffect, useRef, useState } from "react";
import type { Schema } from "../api/client";
import { grantsQuery, liveSessionsQuery } from "../api/queries";
import { useWords, type Words } from "../i18n";
import { useKeys } from "../parts/keys";
import { canChange, Capabilities } from "../parts/Capabilities";
import { Remaining, Status } from "../parts/small";
import { Empty, Loading, ProblemView } from "../parts/states";
import { grantsRoute } from "../router";
import css from "./Grants.module.css";
import { has, useMe } from "./Shell";

const NewGrant = lazy(() => import("./NewGrant"));
const GrantDialogs = lazy(() => import("./GrantDialogs"));

type Grant = Schema<"Grant">;

export function Grants() {
  const words = useWords();
  const { t } = words;
  const me = useMe();
  const search = grantsRoute.useSearch();
  const navigate = useNavigate();
  const grants = useQuery(grantsQuery(search.state));
  const live = useQuery(liveSessionsQuery);
  const filter = useRef<HTMLInputElement>(null);
  const [at, setAt] = useState(-1);
  const [asked, setAsked] = useState<{ what: "extend" | "revoke"; grant: Grant } | null>(null);
  const isAdmin = has(me, "admin");

  const wanted = (search.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const items = (grants.data?.items ?? []).filter((grant) => wanted.every((word) => matches(grant, word)));
  useEffect(() => setAt(-1), [search.state, search.q]);

  const chosen = items[at];
  useKeys({
    f: () => filter.current?.focus(),
    j: () => setAt(Math.min(items.length - 1, at + 1)),
    k: () => setAt(Math.max(0, at - 1)),
    Enter: () => chosen && void navigate({ to: "/grants/$id", params: { id: chosen.id } }),
    e: () => isAdmin && chosen && canChange(chosen) && setAsked({ what: "extend", grant: chosen }),
    x: () => isAdmin && chosen && canChange(chosen) && setAsked({ what: "revoke", grant: chosen }),
    d: () => isAdmin && chosen && void navigate({ to: "/grants", search: { state: search.state, new: true, like: chosen.id } }),
  });
  const close = () => void navigate({ to: "/grants", search: { state: search.state, ...(search.q ? { q: search.q } : {}) }, replace: true });

  return (
    <>
      <div className="bar">
        <h1>{t.grant.list}</h1>
        <span className="segmented">
          {(["active", "upcoming", "ended", "all"] as const).map((state) => (
            <Link key={state} to="/grants" search={{ state, ...(search.q ? { q: search.q } : {}) }} aria-current={search.state === state ? "true" : undefined}>
              {state === "all" ? t.all : t.states[state]}
            </Link>
          ))}
        </span>
        <input
          ref={filter}
          className={css.filter}
          type="search"
          aria-label={t.search}
          placeholder={`${t.search}  f`}
          value={search.q ?? ""}
          onChange={(event) => void navigate({ to: "/grants", search: { state: search.state, ...(event.target.value ? { q: event.target.value } : {}) }, replace: true })}
        />
        <span className="grow" />
        <span className="muted" role="status">
          {grants.data ? t.count.grants(words.number(items.length)) : ""}
        </span>
      </div>
      {grants.isPending ? <Loading /> : null}
      {grants.error && !grants.data ? <ProblemView error={grants.error} retry={() => void grants.refetch()} /> : null}
      {grants.data && items.length === 0 ? (
        wanted.length > 0 ? (
          <Empty title={t.grant.noMatch}>
            <Link to="/grants" search={{ state: search.state }}>
              {t.session.clear}
            </Link>
          </Empty>
        ) : (
          <Empty title={t.grant.noneIn[search.state]}>
            <p className="muted">{t.grant.emptyHint}</p>
            {isAdmin ? (
              <Link to="/grants" search={{ state: search.state, new: true }} className="button primary">
                + {t.newGrant}
              </Link>
            ) : null}
          </Empty>
        )
      ) : null}
      {items.length > 0 ? (
        <div className="scroll-x">
          <table>
            <thead>
              <tr>
                <th>{t.grant.person}</th>
                <th>{t.grant.targets}</th>
                <th>{t.grant.logins}</th>
                <th className="wide">{t.grant.allow}</th>
                <th>{t.grant.window}</th>
                <th className="wide">{t.grant.reason}</th>
                <th className="wide">{t.grant.by}</th>
                <th className="wide">
                  <span className="hidden-text">{t.grant.live}</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {items.map((grant, index) => (
                <tr key={grant.id} className={index === at ? css.at : ""}>
                  <td>
                    <Link to="/grants/$id" params={{ id: grant.id }}>
                      {grant.people.map((person) => person.name).join(", ")}
                    </Link>
                  </td>
                  <td className="mono break">{grant.targets.join(", ")}</td>
                  <td className="mono">{grant.logins.join(", ")}</td>
                  <td className="wide">
                    <Capabilities grant={grant} />
                  </td>
                  <td>{grant.state === "active" || grant.state === "upcoming" ? <Remaining from={grant.not_before} until={grant.not_after} /> : <Status is={grant.state} />}</td>
                  <td className={`wide ${css.reason}`} title={grant.reason}>
                    {grant.ticket ? <code>{grant.ticket} </code> : null}
                    {grant.reason}
                  </td>
                  <td className="wide muted">{grant.created_by?.name ?? t.grant.operator}</td>
                  <td className="wide">
                    <LiveCount count={live.data?.items.filter((session) => session.grant_id === grant.id).length ?? 0} t={t} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : null}
      <Suspense>
        {search.new === true && isAdmin ? <NewGrant like={search.like} template={search.template} person={search.person} target={search.target} onClose={close} /> : null}
        {asked ? <GrantDialogs what={asked.what} grant={asked.grant} onClose={() => setAsked(null)} /> : null}
      </Suspense>
    </>
  );
}

function LiveCount({ count, t }: { count: number; t: Words["t"] }) {
  return count > 0 ? <span className="ok">● {t.count.live(count)}</span> : null;
}

function matches(grant: Grant, word: string): boolean {
  const texts = [grant.id, grant.reason, grant.ticket ?? "", grant.created_by?.name ?? "", ...grant.people.map((person) => person.name), ...grant.targets, ...grant.logins];
  return texts.some((text) => text.toLowerCase().includes(word));
}
