// Sessions, the newest first: as many as there are, in a list that draws only the rows that are seen.
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { useEffect, useId, useMemo, useRef, useState } from "react";
import type { Schema } from "../api/client";
import { liveSessionsQuery, sessionsQuery } from "../api/queries";
import { useWords } from "../i18n";
import { useKeys } from "../parts/keys";
import { Duration } from "../parts/Duration";
import { Ago, Status } from "../parts/small";
import { Empty, Loading, ProblemView } from "../parts/states";
import { useRows } from "../parts/useRows";
import { sessionsRoute } from "../router";
import { ReviewState } from "./session/ReviewState";
import css from "./Sessions.module.css";

type Session = Schema<"Session">;
const ROW = 32;

export function Sessions() {
  const words = useWords();
  const { t } = words;
  const search = sessionsRoute.useSearch();
  const navigate = useNavigate();
  const filter = useRef<HTMLInputElement>(null);
  const live = search.state === "all" ? undefined : search.state === "live";
  const asked = { live, person: search.person, target: search.target, grant: search.grant };
  const sessions = useInfiniteQuery(sessionsQuery(asked));
  // Rows that are live are renewed in place, and new ones come in at the top; older pages stay as they are.
  const newest = useQuery({ ...liveSessionsQuery, enabled: live !== false });
  const items = useMemo(() => {
    const all = sessions.data?.pages.flatMap((page) => page.items) ?? [];
    const fresh = new Map((newest.data?.items ?? []).map((session) => [session.id, session]));
    return all.map((session) => fresh.get(session.id) ?? session);
  }, [sessions.data, newest.data]);

  // A row that was live and is no longer among them has ended, or a new one has come: the first page is asked for again.
  const known = useRef<string | null>(null);
  const { refetch } = sessions;
  useEffect(() => {
    if (!newest.data) return;
    const ids = newest.data.items.map((session) => session.id).join();
    if (known.current !== null && known.current !== ids) void refetch();
    known.current = ids;
  }, [newest.data, refetch]);

  const isFiltered = search.person !== undefined || search.target !== undefined || search.grant !== undefined;
  useKeys({ f: () => filter.current?.focus() });

  return (
    <div className={css.page}>
      <div className="bar">
        <h1>{t.session.list}</h1>
        <span className="segmented">
          {(["all", "live", "ended"] as const).map((state) => (
            <Link key={state} to="/sessions" search={{ ...search, state }} aria-current={search.state === state ? "true" : undefined}>
              {state === "all" ? t.all : t.states[state]}
            </Link>
          ))}
        </span>
        <Filter
          key={JSON.stringify(asked)}
          inputRef={filter}
          search={search}
          onSearch={(person, target, grant) =>
            void navigate({ to: "/sessions", search: { state: search.state, ...(person ? { person } : {}), ...(target ? { target } : {}), ...(grant ? { grant } : {}) } })
          }
        />
        <span className="grow" />
        <span className="muted" role="status">
          {sessions.data ? t.count.sessions(words.number(items.length), sessions.hasNextPage) : ""}
        </span>
      </div>
      {sessions.isPending ? <Loading /> : null}
      {sessions.error && items.length === 0 ? <ProblemView error={sessions.error} retry={() => void sessions.refetch()} /> : null}
      {sessions.data && items.length === 0 ? (
        isFiltered || search.state !== "all" ? (
          <Empty title={t.session.noMatch}>
            <Link to="/sessions">{t.session.clear}</Link>
          </Empty>
        ) : (
          <Empty title={t.session.empty}>
            <p className="muted">{t.session.emptyHint}</p>
          </Empty>
        )
      ) : null}
      {items.length > 0 ? (
        <Rows items={items} more={sessions.hasNextPage} wanted={() => !sessions.isFetchingNextPage && void sessions.fetchNextPage()} />
      ) : null}
    </div>
  );
}

/** `person:li.wei target:gpu-a-1`; what is not understood is said, never ignored. */
function Filter({ inputRef, search, onSearch }: {
  inputRef: React.RefObject<HTMLInputElement | null>;
  search: { person?: string; target?: string; grant?: string };
  onSearch: (person: string | undefined, target: string | undefined, grant: string | undefined) => void;
}) {
  const { t } = useWords();
  const id = useId();
  const written = (["person", "target", "grant"] as const).flatMap((word) => (search[word] ? [`${word}:${search[word]}`] : [])).join(" ");
  const [text, setText] = useState(written);
  const [wrong, setWrong] = useState<string | null>(null);
  const submit = () => {
    const found: Record<string, string> = {};
    for (const word of text.trim().split(/\s+/).filter(Boolean)) {
      const match = word.match(/^(person|target|grant):(.+)$/);
      if (!match) return setWrong(word);
      found[match[1] ?? ""] = match[2] ?? "";
    }
    setWrong(null);
    onSearch(found.person, found.target, found.grant);
  };
  return (
    <form
      role="search"
      aria-label={t.sessions}
      className={css.filter}
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <label className="hidden-text" htmlFor={id}>
        {t.search}
      </label>
      <input
        id={id}
        ref={inputRef}
        className="mono"
        placeholder="person: target: grant:"
        value={text}
        spellCheck={false}
        autoCapitalize="off"
        onChange={(event) => setText(event.target.value)}
        onBlur={() => text.trim() !== written && submit()}
        aria-invalid={wrong !== null}
        aria-describedby={`${id}-wrong`}
      />
      <span id={`${id}-wrong`} className="bad" role="alert">
        {wrong !== null ? (
          <>
            <u className="mono">{wrong}</u> ?
          </>
        ) : null}
      </span>
    </form>
  );
}

function Rows({ items, more, wanted }: { items: Session[]; more: boolean; wanted: () => void }) {
  const { t } = useWords();
  const navigate = useNavigate();
  const place = useRef<HTMLDivElement>(null);
  const [at, setAt] = useState(-1);
  const { first, end, show } = useRows(place, ROW, items.length);
  useEffect(() => {
    if (more && end >= items.length - 40) wanted();
  });
  const move = (by: number) => {
    const next = Math.max(0, Math.min(items.length - 1, at + by));
    setAt(next);
    show(next);
  };
  useKeys({
    j: () => move(1),
    k: () => move(-1),
    Enter: () => {
      const session = items[at];
      if (session) void navigate({ to: "/sessions/$id", params: { id: session.id } });
    },
  });
  return (
    <div className={css.table} role="table" aria-label={t.session.list} aria-rowcount={more ? -1 : items.length + 1}>
      <div role="rowgroup">
        <div className={`${css.row} ${css.head}`} role="row" aria-rowindex={1}>
          <span role="columnheader">{t.session.state}</span>
          <span role="columnheader">{t.session.person}</span>
          <span role="columnheader">{t.session.target}</span>
          <span role="columnheader">{t.session.started}</span>
          <span role="columnheader">{t.session.duration}</span>
          <span role="columnheader">{t.review.one}</span>
          <span role="columnheader">{t.session.ending}</span>
        </div>
      </div>
      <div className={css.scroll} ref={place} role="rowgroup" tabIndex={0} aria-label={t.session.list}>
        <div style={{ height: items.length * ROW, position: "relative" }} role="presentation">
          {items.slice(first, end).map((session, index) => (
            <div
              key={session.id}
              role="row"
              aria-rowindex={first + index + 2}
              className={`${css.row} ${first + index === at ? css.at : ""}`}
              style={{ position: "absolute", top: (first + index) * ROW, left: 0, right: 0 }}
            >
              <SessionCells session={session} />
            </div>
          ))}
        </div>
      </div>
    </div>
  );
}

function SessionCells({ session }: { session: Session }) {
  return (
    <>
      <span role="cell">
        <Status is={session.state} pulse={session.state === "live"} />
      </span>
      <span role="cell" className="cut">
        {session.person.name}
      </span>
      <span role="cell" className="cut">
        {/* The link covers the row: everything in it opens the session. */}
        <Link to="/sessions/$id" params={{ id: session.id }} className={`mono ${css.open}`}>
          {session.login}@{session.target.name}
        </Link>
      </span>
      <span role="cell" className="cut muted">
        <Ago at={session.started_at} />
      </span>
      <span role="cell" className="mono">
        <Duration session={session} />
      </span>
      <span role="cell" className="cut">
        {session.review ? <ReviewState review={session.review} /> : null}
      </span>
      <span role="cell" className="cut muted" title={session.ending_text ?? ""}>
        {session.ending_text ?? ""}
      </span>
    </>
  );
}
