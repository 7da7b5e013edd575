// What waits for a review: a queue by due date and risk on the left, the session with its recording and the verdict on the right.
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { lazy, Suspense, useMemo } from "react";
import type { Schema } from "../api/client";
import { reviewsQuery, reviewSumQuery } from "../api/queries";
import { useWords } from "../i18n";
import { useKeys } from "../parts/keys";
import { When } from "../parts/small";
import { Empty, Loading, ProblemView } from "../parts/states";
import { reviewRoute, REVIEW_STATES } from "../router";
import css from "./Review.module.css";
import { ReviewState, useReason } from "./session/ReviewState";
import { has, useMe } from "./Shell";

const Opened = lazy(() => import("./Reviewed"));

type One = Schema<"Review">;

export function Review() {
  const words = useWords();
  const { t } = words;
  const me = useMe();
  const search = reviewRoute.useSearch();
  const navigate = useNavigate();
  const mine = has(me, "reviewer") && (search.state === "due" || search.state === "overdue");
  const pages = useInfiniteQuery(reviewsQuery(search.state, mine));
  const sum = useQuery(reviewSumQuery(mine));
  const items = useMemo(() => pages.data?.pages.flatMap((page) => page.items) ?? [], [pages.data]);
  const at = items.findIndex((one) => one.session_id === search.session);
  const go = (to: number) => {
    const one = items[Math.max(0, Math.min(items.length - 1, to))];
    if (one) void navigate({ to: "/review", search: { state: search.state, session: one.session_id }, replace: true });
  };
  useKeys({ j: () => go(at + 1), k: () => go(Math.max(0, at - 1)) });
  return (
    <div className={css.page}>
      <div className="bar">
        <h1>{t.review.list}</h1>
        <span className="segmented">
          {REVIEW_STATES.map((state) => (
            <Link key={state} to="/review" search={{ state }} aria-current={search.state === state ? "true" : undefined}>
              {t.review.states[state]}
            </Link>
          ))}
        </span>
        <span className="grow" />
        <span className={sum.data && sum.data.overdue > 0 ? "warn" : "muted"} role="status">
          {sum.data ? (
            <>
              {t.review.header(words.number(sum.data.due), words.number(sum.data.overdue), words.span(sum.data.active_us / 1000))}
              {sum.data.oldest_due_at ? (
                <>
                  , {t.review.oldest} <When at={sum.data.oldest_due_at} />
                </>
              ) : null}
            </>
          ) : null}
        </span>
      </div>
      {pages.isPending ? <Loading /> : null}
      {pages.error && items.length === 0 ? <ProblemView error={pages.error} retry={() => void pages.refetch()} /> : null}
      {pages.data && items.length === 0 && search.session === undefined ? (
        <Empty title={t.review.empty}>
          <p className="muted">{t.review.emptyHint}</p>
        </Empty>
      ) : null}
      {items.length > 0 || search.session !== undefined ? (
        <div className={css.split}>
          <div className={css.queue}>
            <ol aria-label={t.review.list}>
              {items.map((one) => (
                <li key={one.session_id}>
                  <Entry one={one} isAt={one.session_id === search.session} />
                </li>
              ))}
            </ol>
            {pages.hasNextPage ? (
              <button type="button" onClick={() => void pages.fetchNextPage()} disabled={pages.isFetchingNextPage}>
                {t.player.more}
              </button>
            ) : null}
          </div>
          {search.session !== undefined ? (
            <Suspense fallback={<Loading />}>
              <Opened key={search.session} id={search.session} />
            </Suspense>
          ) : (
            <Empty title={t.review.choose}>
              <p className="muted">{t.review.chooseHint}</p>
            </Empty>
          )}
        </div>
      ) : null}
    </div>
  );
}

function Entry({ one, isAt }: { one: One; isAt: boolean }) {
  const { t } = useWords();
  const reason = useReason();
  const search = reviewRoute.useSearch();
  return (
    <Link to="/review" search={{ state: search.state, session: one.session_id }} className={css.entry} aria-current={isAt ? "true" : undefined}>
      <span className="row">
        <span className="grow cut mono">
          {one.login}@{one.target.name}
        </span>
        <span className={one.risk >= 50 ? "warn" : "muted"}>{t.review.risk(one.risk)}</span>
      </span>
      <span className="row">
        <span className="grow cut">{one.person.name}</span>
        <ReviewState review={one} />
        {one.due_at && one.state !== "done" ? <When at={one.due_at} /> : null}
      </span>
      <span className={`muted ${css.reasons}`}>{one.reasons.map(reason).join("; ")}</span>
    </Link>
  );
}
