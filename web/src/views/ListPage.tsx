// A page that is a list, with a filter in its bar and the chosen row opened beside it.
import { useRef, type ReactNode } from "react";
import { useWords } from "../i18n";
import { useKeys } from "../parts/keys";
import css from "./Lists.module.css";
import { Empty, Loading, ProblemView } from "../parts/states";

/** Those of `items` that have every word of the filter in their text. */
export function filtered<T>(items: readonly T[], filter: string, text: (item: T) => string): T[] {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  return items.filter((item) => words.every((word) => text(item).toLowerCase().includes(word)));
}

export function ListPage<T extends { id: string }>({ title, add, filter, onFilter, query, text, empty, head, row, chosen, side, children }: {
  title: string;
  /** The button that adds one, where one may. */
  add: { label: string; onClick: () => void } | null;
  filter: string;
  onFilter: (filter: string) => void;
  query: { data: { items: T[] } | undefined; error: unknown; isPending: boolean; refetch: () => unknown };
  /** What the filter looks at. */
  text: (item: T) => string;
  empty: ReactNode;
  head: ReactNode;
  /** The row's cells. */
  row: (item: T) => ReactNode;
  chosen: T | undefined;
  side: ReactNode;
  /** Dialogs. */
  children?: ReactNode;
}) {
  const { t } = useWords();
  const field = useRef<HTMLInputElement>(null);
  useKeys({ f: () => field.current?.focus() });
  const items = filtered(query.data?.items ?? [], filter, text);
  return (
    <div className={css.page}>
      <div className="bar">
        <h1>{title}</h1>
        <input ref={field} type="search" aria-label={t.search} placeholder={`${t.search}  f`} value={filter} onChange={(event) => onFilter(event.target.value)} />
        <span className="grow" />
        {add ? (
          <button type="button" onClick={add.onClick}>
            {add.label} …
          </button>
        ) : null}
      </div>
      {query.isPending ? <Loading /> : null}
      {query.error && !query.data ? <ProblemView error={query.error} retry={() => void query.refetch()} /> : null}
      {query.data?.items.length === 0 ? empty : null}
      {items.length > 0 ? (
        <div className={chosen ? css.withSide : ""}>
          <div className="scroll-x">
            <table>
              <thead>
                <tr>{head}</tr>
              </thead>
              <tbody>
                {items.map((item) => (
                  <tr key={item.id} className={item === chosen ? css.at : ""}>
                    {row(item)}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          {chosen ? side : null}
        </div>
      ) : null}
      {query.data && query.data.items.length > 0 && items.length === 0 ? <Empty title={t.grant.noMatch} /> : null}
      {children}
    </div>
  );
}
