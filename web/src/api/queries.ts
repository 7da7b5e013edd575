// What the pages ask the API for, with how long an answer stays fresh. What is live is asked for again while a page shows it.
import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { answer, api, type Role } from "./client";
import { unlessTold } from "./feed";

/** How often what is live is asked for again, in milliseconds, while the bastion does not tell of changes. */
const LIVE = 3000;
const PAGE = 200;

export interface Me {
  name: string;
  roles: Role[];
}

export const meQuery = queryOptions({
  queryKey: ["me"],
  queryFn: async (): Promise<Me> => {
    const me = await answer(api.GET("/api/v1/me"));
    return me.kind === "person" ? { name: me.name, roles: me.roles } : { name: `uid ${me.uid}`, roles: [] };
  },
  staleTime: 60_000,
  retry: false,
});

export interface SessionFilter {
  live?: boolean | undefined;
  person?: string | undefined;
  target?: string | undefined;
  grant?: string | undefined;
}

export const sessionsQuery = (filter: SessionFilter) =>
  infiniteQueryOptions({
    queryKey: ["sessions", filter],
    initialPageParam: "",
    queryFn: ({ pageParam }) =>
      answer(api.GET("/api/v1/sessions", { params: { query: { ...given(filter), limit: PAGE, ...(pageParam ? { cursor: pageParam } : {}) } } })),
    getNextPageParam: (page) => page.next ?? undefined,
  });

/** The newest sessions that go on, asked for again and again. */
export const liveSessionsQuery = queryOptions({
  queryKey: ["live-sessions"],
  queryFn: () => answer(api.GET("/api/v1/sessions", { params: { query: { live: true, limit: 100 } } })),
  refetchInterval: unlessTold(LIVE),
});

export const sessionQuery = (id: string) =>
  queryOptions({
    queryKey: ["session", id],
    queryFn: () => answer(api.GET("/api/v1/sessions/{id}", { params: { path: { id } } })),
    refetchInterval: (query) => (query.state.data && query.state.data.state !== "ended" ? unlessTold(LIVE)() : false),
  });

const MANY = 1000;

export const filesQuery = (id: string, live: boolean) =>
  infiniteQueryOptions({
    queryKey: ["files", id],
    initialPageParam: "",
    queryFn: ({ pageParam }) =>
      answer(api.GET("/api/v1/sessions/{id}/files", { params: { path: { id }, query: { limit: MANY, ...(pageParam ? { cursor: pageParam } : {}) } } })),
    getNextPageParam: (page) => page.next ?? undefined,
    refetchInterval: live ? LIVE : false,
  });

export const commandsQuery = (id: string, live: boolean) =>
  infiniteQueryOptions({
    queryKey: ["commands", id],
    initialPageParam: "",
    queryFn: ({ pageParam }) =>
      answer(api.GET("/api/v1/sessions/{id}/commands", { params: { path: { id }, query: { limit: MANY, ...(pageParam ? { cursor: pageParam } : {}) } } })),
    getNextPageParam: (page) => page.next ?? undefined,
    refetchInterval: live ? LIVE : false,
  });

export type GrantStateFilter = "active" | "upcoming" | "ended" | "all";

export const grantsQuery = (state: GrantStateFilter) =>
  queryOptions({
    queryKey: ["grants", state],
    queryFn: () => answer(api.GET("/api/v1/grants", { params: { query: { state, limit: 1000 } } })),
    refetchInterval: unlessTold(15_000),
  });

export const grantQuery = (id: string) =>
  queryOptions({
    queryKey: ["grant", id],
    queryFn: () => answer(api.GET("/api/v1/grants/{id}", { params: { path: { id } } })),
    refetchInterval: unlessTold(15_000),
  });

export const requestsQuery = (open: boolean) =>
  queryOptions({
    queryKey: ["requests", open],
    queryFn: () => answer(api.GET("/api/v1/requests", { params: { query: { ...(open ? { state: "open" as const } : {}), limit: 200 } } })),
    refetchInterval: unlessTold(LIVE),
  });

export type ReviewStateFilter = "due" | "overdue" | "done" | "not_asked";

/** With `mine`, only those that the reader may judge and has not. */
export const reviewsQuery = (state: ReviewStateFilter, mine: boolean) =>
  infiniteQueryOptions({
    queryKey: ["reviews", state, mine],
    initialPageParam: "",
    queryFn: ({ pageParam }) => answer(api.GET("/api/v1/reviews", { params: { query: { state, mine, limit: 100, ...(pageParam ? { cursor: pageParam } : {}) } } })),
    getNextPageParam: (page) => page.next ?? undefined,
    refetchInterval: 15_000,
  });

export const reviewSumQuery = (mine: boolean) =>
  queryOptions({
    queryKey: ["review-sum", mine],
    queryFn: () => answer(api.GET("/api/v1/reviews/summary", { params: { query: { mine } } })),
    refetchInterval: 15_000,
  });

export const reviewQuery = (id: string) =>
  queryOptions({
    queryKey: ["review", id],
    queryFn: () => answer(api.GET("/api/v1/sessions/{id}/review", { params: { path: { id } } })),
    refetchInterval: 10_000,
  });

export const peopleQuery = queryOptions({
  queryKey: ["people"],
  queryFn: () => answer(api.GET("/api/v1/people", { params: { query: { limit: 1000 } } })),
  staleTime: 15_000,
});

export const targetsQuery = queryOptions({
  queryKey: ["targets"],
  queryFn: () => answer(api.GET("/api/v1/targets", { params: { query: { limit: 1000 } } })),
  staleTime: 15_000,
});

export const templatesQuery = queryOptions({
  queryKey: ["templates"],
  queryFn: () => answer(api.GET("/api/v1/templates", { params: { query: { limit: 1000 } } })),
  staleTime: 15_000,
});

export const bastionQuery = queryOptions({
  queryKey: ["bastion"],
  queryFn: () => answer(api.GET("/api/v1/bastion")),
  staleTime: 300_000,
});

export const knownHostsQuery = queryOptions({
  queryKey: ["known-hosts"],
  queryFn: () => answer(api.GET("/api/v1/known-hosts")),
  staleTime: 300_000,
});

export const healthQuery = queryOptions({
  queryKey: ["health"],
  queryFn: () => answer(api.GET("/api/v1/health")),
  refetchInterval: 10_000,
});

export const ledgerQuery = queryOptions({
  queryKey: ["ledger"],
  queryFn: () => answer(api.GET("/api/v1/ledger")),
  refetchInterval: 10_000,
});

/** The ways in besides a name and a password. */
export const signInWaysQuery = queryOptions({
  queryKey: ["sign-in"],
  queryFn: () => answer(api.GET("/api/v1/sign-in")),
  staleTime: 300_000,
});

export const webSessionsQuery = queryOptions({
  queryKey: ["web-sessions"],
  queryFn: () => answer(api.GET("/api/v1/me/web-sessions")),
});

/** The same without what is not given: the API takes an absent filter, not an empty one. */
export function given<T extends object>(filter: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const entries = Object.entries(filter).filter(([, value]) => value !== undefined && value !== "");
  return Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> };
}
