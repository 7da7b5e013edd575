// What was found, for the words in the address: what was run, shown and carried first, then sessions, grants, people and targets. Every
// search in sessions is an event, so it is asked for when somebody has finished writing, and once.
import { useInfiniteQuery, useQueries, useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useRef, type ReactNode } from "react";
import { answer, api, type Schema } from "../api/client";
import { grantsQuery, peopleQuery, targetsQuery } from "../api/queries";
import { useWords } from "../i18n";
import { useKeys } from "../parts/keys";
import { Ago, Status } from "../parts/small";
import { Empty, Forbidden, Loading, ProblemLine, ProblemView } from "../parts/states";
import { clockTime } from "../player/recording";
import { searchRoute } from "../router";
import { filtered } from "./ListPage";
import css from "./Search.module.css";
import { LOOK, has, useMe } from "./Shell";
import { short } from "./short";

type Found = Schema<"SearchSession">;
type Hit = Schema<"SearchHit">;

const SIGNS = { command: "$", screen: "≡", file: "⇅" } as const;
/** Of each other group so many are shown. */
const FEW = 5;

export function Search() {
  const me = useMe();
  const { q } = searchRoute.useSearch();
  const { t } = useWords();
  if (!has(me, ...LOOK)) return <Forbidden roles={LOOK} />;
  if (!q) {
    return (
      <>
        <div className="bar">
          <h1>{t.find.title}</h1>
        </div>
        <Empty title={t.find.nothing}>
          <p className="muted">{t.find.hint}</p>
        </Empty>
      </>
    );
  }
  return <Results key={q} q={q} />;
}

function Results({ q }: { q: string }) {
  const { t } = useWords();
  const me = useMe();
  const place = useRef<HTMLDivElement>(null);
  const pages = useInfiniteQuery({
    queryKey: ["search", q],
    initialPageParam: "",
    queryFn: ({ pageParam }) => answer(api.GET("/api/v1/search", { params: { query: { q, ...(pageParam ? { cursor: pageParam } : {}) } } })),
    getNextPageParam: (page) => page.next ?? undefined,
    staleTime: Infinity,
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
    retry: false,
  });
  const found = pages.data?.pages.flatMap((page) => page.items) ?? [];
  const move = (by: 1 | -1) => {
    const links = [...(place.current?.querySelectorAll<HTMLElement>("[data-hit]") ?? [])];
    const at = links.findIndex((link) => link === document.activeElement);
    links[at < 0 ? 0 : Math.max(0, Math.min(links.length - 1, at + by))]?.focus();
  };
  useKeys({ j: () => move(1), k: () => move(-1) });
  const last = pages.data?.pages.at(-1);
  const isCut = found.some((one) => one.is_cut);
  return (
    <div className={css.page} ref={place}>
      <div className="bar">
        <h1>{t.find.title}</h1>
        <code className="cut">{q}</code>
        <span className="grow" />
        <span className="muted wide">{t.find.event}</span>
      </div>
      <section aria-labelledby="found-sessions">
        <h2 id="found-sessions">{t.find.shown}</h2>
        {pages.isPending ? <Loading /> : null}
        {pages.error && !pages.data ? <ProblemView error={pages.error} retry={() => void pages.refetch()} /> : null}
        {pages.data ? (
          <p className="muted" role="status">
            {found.length > 0 ? t.find.count(found.reduce((sum, one) => sum + one.hits.length, 0), pages.hasNextPage || found.some((one) => one.has_more)) : last?.is_partial ? t.find.notYet : t.find.none}
          </p>
        ) : null}
        {!has(me, "reviewer", "auditor") ? <p className="hint">{t.find.listsOnly}</p> : null}
        {isCut ? <p className="hint">{t.find.cut}</p> : null}
        {found.map((one, index) => (
          <FoundSession key={`${one.session.id} ${index}`} found={one} />
        ))}
        {pages.error && pages.data ? <ProblemLine error={pages.error} /> : null}
        {pages.hasNextPage ? (
          <button type="button" onClick={() => void pages.fetchNextPage()} disabled={pages.isFetchingNextPage}>
            {pages.isFetchingNextPage ? `${t.loading} …` : t.find.older}
          </button>
        ) : null}
      </section>
      <Others q={q} />
    </div>
  );
}

function FoundSession({ found }: { found: Found }) {
  const { t, number } = useWords();
  const { session } = found;
  return (
    <article className={css.session} aria-label={`${session.login}@${session.target.name}`}>
      <p className="row wrap">
        <Status is={session.state} pulse={session.state === "live"} />
        <Link to="/sessions/$id" params={{ id: session.id }} className="mono">
          {session.login}@{session.target.name}
        </Link>
        <span>{session.person.name}</span>
        <span className="muted">
          <Ago at={session.started_at} />
        </span>
        {found.is_cut ? (
          <span className="warn" title={t.find.cut}>
            ⚠ {t.find.firstLines(number(found.indexed_lines))}
          </span>
        ) : null}
      </p>
      <ol className={css.hits}>
        {found.hits.map((hit) => (
          <li key={`${hit.recording} ${hit.kind} ${hit.t} ${hit.line}`}>
            <Link data-hit to="/sessions/$id" params={{ id: session.id }} search={{ ch: hit.channel, t: hit.t, find: hit.found }} className={css.hit}>
              <span className="mono muted">{clockTime(hit.t)}</span>
              <code className={css.lines}>
                {hit.before.map((line, index) => (
                  <span key={index} className={css.around}>
                    {line}
                  </span>
                ))}
                <span className={css.line}>
                  <span className="muted" title={t.find.kinds[hit.kind]}>
                    {SIGNS[hit.kind]}{" "}
                  </span>
                  <Marked hit={hit} />
                </span>
                {hit.after.map((line, index) => (
                  <span key={index} className={css.around}>
                    {line}
                  </span>
                ))}
              </code>
            </Link>
          </li>
        ))}
      </ol>
      {found.has_more && found.hits[0] ? (
        <Link data-hit to="/sessions/$id" params={{ id: session.id }} search={{ ch: found.hits[0].channel, t: found.hits[0].t, find: found.hits[0].found }} className={css.more}>
          {t.find.moreHere}
        </Link>
      ) : null}
    </article>
  );
}

/** The line with what was looked for marked; a long one is shown around it. Characters are Unicode's, as the API counts them. */
function Marked({ hit }: { hit: Hit }) {
  const characters = [...hit.line];
  const start = hit.offset > 100 ? hit.offset - 60 : 0;
  const end = hit.offset + [...hit.found].length;
  return (
    <>
      {start > 0 ? "…" : ""}
      {characters.slice(start, hit.offset).join("")}
      <mark>{hit.found}</mark>
      {characters.slice(end, end + 240).join("")}
      {characters.length > end + 240 ? "…" : ""}
    </>
  );
}

/** Sessions, grants, people and targets by their names. */
function Others({ q }: { q: string }) {
  const { t } = useWords();
  const words = q.replaceAll(/\b(cmd|text|file):/g, "").replaceAll('"', " ").trim();
  const people = useQuery(peopleQuery);
  const targets = useQuery(targetsQuery);
  const grants = useQuery(grantsQuery("all"));
  const known = words !== "";
  const namedPeople = known ? filtered(people.data?.items ?? [], words, (one) => `${one.name} ${one.organisation ?? ""}`) : [];
  const namedTargets = known ? filtered(targets.data?.items ?? [], words, (one) => `${one.name} ${one.address}`) : [];
  const named = known
    ? filtered(grants.data?.items ?? [], words, (one) => [one.id, one.reason, one.ticket ?? "", ...one.people.map((person) => person.name), ...one.targets].join(" "))
    : [];
  const wanted = [...namedPeople.slice(0, 2).map((one) => ({ person: one.name })), ...namedTargets.slice(0, 2).map((one) => ({ target: one.name }))];
  const sessions = useQueries({
    queries: wanted.map((filter) => ({
      queryKey: ["sessions-of", filter],
      queryFn: () => answer(api.GET("/api/v1/sessions", { params: { query: { ...filter, limit: FEW } } })),
      staleTime: 15_000,
    })),
  });
  const all = new Map(sessions.flatMap((one) => one.data?.items ?? []).map((one) => [one.id, one]));
  const newest = [...all.values()].sort((a, b) => Date.parse(b.started_at) - Date.parse(a.started_at));
  const error = people.error ?? targets.error ?? grants.error ?? sessions.find((one) => one.error)?.error;
  return (
    <>
      {error ? <ProblemLine error={error} /> : null}
      <Group name={t.sessions} count={newest.length}>
        {newest.slice(0, FEW).map((one) => (
          <li key={one.id}>
            <Link data-hit to="/sessions/$id" params={{ id: one.id }} className={css.other}>
              <Status is={one.state} />
              <span className="mono">
                {one.login}@{one.target.name}
              </span>
              <span>{one.person.name}</span>
              <span className="muted">
                <Ago at={one.started_at} />
              </span>
            </Link>
          </li>
        ))}
      </Group>
      <Group name={t.grants} count={named.length} more={<Link to="/grants" search={{ state: "all", q: words }}>{t.find.all}</Link>}>
        {named.slice(0, FEW).map((one) => (
          <li key={one.id}>
            <Link data-hit to="/grants/$id" params={{ id: one.id }} className={css.other}>
              <Status is={one.state} />
              <span className="mono">{short(one.id)}</span>
              <span>{one.people.map((person) => person.name).join(", ")}</span>
              <span className="mono">{one.targets.join(" ")}</span>
              <span className="muted">{one.reason}</span>
            </Link>
          </li>
        ))}
      </Group>
      <Group name={t.people} count={namedPeople.length} more={<Link to="/people" search={{ q: words }}>{t.find.all}</Link>}>
        {namedPeople.slice(0, FEW).map((one) => (
          <li key={one.name}>
            <Link data-hit to="/people" search={{ name: one.name }} className={css.other}>
              <span>{one.name}</span>
              <span className="muted">{one.organisation ?? ""}</span>
            </Link>
          </li>
        ))}
      </Group>
      <Group name={t.targets} count={namedTargets.length} more={<Link to="/targets" search={{ q: words }}>{t.find.all}</Link>}>
        {namedTargets.slice(0, FEW).map((one) => (
          <li key={one.name}>
            <Link data-hit to="/targets" search={{ name: one.name }} className={css.other}>
              <span className="mono">{one.name}</span>
              <span className="mono muted">{one.address}</span>
            </Link>
          </li>
        ))}
      </Group>
    </>
  );
}

function Group({ name, count, more, children }: { name: string; count: number; more?: ReactNode; children: ReactNode }) {
  if (count === 0) return null;
  return (
    <section>
      <h2>{name}</h2>
      <ul className={css.others}>{children}</ul>
      {count > FEW && more ? <p>{more}</p> : null}
    </section>
  );
}
