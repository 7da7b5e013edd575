// Every page and what its address holds. Pages load when they are opened.
import type { QueryClient } from "@tanstack/react-query";
import { createRootRouteWithContext, createRoute, createRouter, lazyRouteComponent, stripSearchParams, type SearchSchemaInput } from "@tanstack/react-router";
import type { GrantStateFilter, ReviewStateFilter } from "./api/queries";
import { NotFound, PageFailed } from "./parts/states";
import { Root } from "./views/Shell";

const text = (value: unknown): string | undefined => (typeof value === "string" && value !== "" ? value : undefined);
/** What was written may look like a number or like `true`, and is text all the same. */
const words = (value: unknown): string | undefined => text(typeof value === "number" || typeof value === "boolean" ? String(value) : value);
const number = (value: unknown): number | undefined => {
  const read = typeof value === "number" ? value : typeof value === "string" && value !== "" ? Number(value) : Number.NaN;
  return Number.isFinite(read) ? read : undefined;
};
const one = <T extends string>(words: readonly T[], value: unknown, usual: T): T => words.find((word) => word === value) ?? usual;

type Texts<Name extends string> = { [Key in Name]?: string };

/** What is not given is left out of the address. */
function given<T extends object>(search: T): { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & { [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(search).filter(([, value]) => value !== undefined)) as never;
}

export const rootRoute = createRootRouteWithContext<{ client: QueryClient }>()({
  component: Root,
  notFoundComponent: NotFound,
  errorComponent: PageFailed,
});

const overview = createRoute({ getParentRoute: () => rootRoute, path: "/", component: lazyRouteComponent(() => import("./views/Overview"), "Overview") });

export const sessionsRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/sessions",
  validateSearch: (search: { state?: "all" | "live" | "ended" } & Texts<"person" | "target" | "grant"> & SearchSchemaInput) =>
    given({ state: one(["all", "live", "ended"] as const, search.state, "all"), person: text(search.person), target: text(search.target), grant: text(search.grant) }),
  search: { middlewares: [stripSearchParams({ state: "all" as const })] },
  component: lazyRouteComponent(() => import("./views/Sessions"), "Sessions"),
});

export const SESSION_TABS = ["commands", "transcript", "files", "details"] as const;
export type SessionTab = (typeof SESSION_TABS)[number];

export const sessionRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/sessions/$id",
  validateSearch: (search: { ch?: number; t?: number; tab?: SessionTab; live?: boolean | string; watch?: boolean | string } & Texts<"find"> & SearchSchemaInput) =>
    given({
      ch: number(search.ch),
      t: number(search.t),
      tab: one(SESSION_TABS, search.tab, "commands"),
      find: words(search.find),
      live: search.live === true || search.live === "true" ? true : undefined,
      watch: search.watch === true || search.watch === "true" ? true : undefined,
    }),
  search: { middlewares: [stripSearchParams({ tab: "commands" as const })] },
  component: lazyRouteComponent(() => import("./views/Session"), "Session"),
});

export const REVIEW_STATES = ["due", "overdue", "done", "not_asked"] as const;

export const reviewRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/review",
  validateSearch: (search: { state?: ReviewStateFilter } & Texts<"session"> & SearchSchemaInput) =>
    given({ state: one<ReviewStateFilter>(REVIEW_STATES, search.state, "due"), session: text(search.session) }),
  search: { middlewares: [stripSearchParams({ state: "due" as const })] },
  component: lazyRouteComponent(() => import("./views/Review"), "Review"),
});

export const grantsRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/grants",
  validateSearch: (search: { state?: GrantStateFilter; new?: boolean | string } & Texts<"q" | "person" | "target" | "like" | "template"> & SearchSchemaInput) =>
    given({
      state: one<GrantStateFilter>(["active", "upcoming", "ended", "all"], search.state, "active"),
      q: text(search.q),
      // The dialog has an address too: `new`, with what is filled in already.
      new: search.new === true || search.new === "true" ? true : undefined,
      person: text(search.person),
      target: text(search.target),
      like: text(search.like),
      template: text(search.template),
    }),
  search: { middlewares: [stripSearchParams({ state: "active" as const })] },
  component: lazyRouteComponent(() => import("./views/Grants"), "Grants"),
});

export const grantRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/grants/$id",
  component: lazyRouteComponent(() => import("./views/Grant"), "GrantPage"),
});

export const requestsRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/requests",
  validateSearch: (search: { state?: "open" | "all" } & SearchSchemaInput) => ({ state: one(["open", "all"] as const, search.state, "open") }),
  search: { middlewares: [stripSearchParams({ state: "open" as const })] },
  component: lazyRouteComponent(() => import("./views/Requests"), "Requests"),
});

export const targetsRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/targets",
  validateSearch: (search: Texts<"q" | "name"> & SearchSchemaInput) => given({ q: text(search.q), name: text(search.name) }),
  component: lazyRouteComponent(() => import("./views/Targets"), "Targets"),
});

export const peopleRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/people",
  validateSearch: (search: Texts<"q" | "name"> & SearchSchemaInput) => given({ q: text(search.q), name: text(search.name) }),
  component: lazyRouteComponent(() => import("./views/People"), "People"),
});

export const auditRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/audit",
  validateSearch: (search: Texts<"act" | "q"> & SearchSchemaInput) => given({ act: text(search.act), q: text(search.q) }),
  component: lazyRouteComponent(() => import("./views/Audit"), "Audit"),
});

export const searchRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/search",
  validateSearch: (search: Texts<"q"> & SearchSchemaInput) => given({ q: words(search.q) }),
  component: lazyRouteComponent(() => import("./views/Search"), "Search"),
});

const invite = createRoute({ getParentRoute: () => rootRoute, path: "/invite", component: lazyRouteComponent(() => import("./views/Invite"), "Invite") });
const me = createRoute({ getParentRoute: () => rootRoute, path: "/me", component: lazyRouteComponent(() => import("./views/MyAccess"), "MyAccess") });
const settings = createRoute({ getParentRoute: () => rootRoute, path: "/settings", component: lazyRouteComponent(() => import("./views/Settings"), "Settings") });

export const templatesRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/settings/templates",
  validateSearch: (search: Texts<"q" | "name"> & SearchSchemaInput) => given({ q: text(search.q), name: text(search.name) }),
  component: lazyRouteComponent(() => import("./views/Templates"), "Templates"),
});

const tree = rootRoute.addChildren([overview, sessionsRoute, sessionRoute, reviewRoute, grantsRoute, grantRoute, requestsRoute, targetsRoute, peopleRoute, auditRoute, searchRoute, me, invite, settings, templatesRoute]);

export function makeRouter(client: QueryClient) {
  return createRouter({
    routeTree: tree,
    context: { client },
    defaultPreload: "intent",
    defaultPendingMs: 150,
    defaultErrorComponent: PageFailed,
    scrollRestoration: true,
  });
}

declare module "@tanstack/react-router" {
  interface Register {
    router: ReturnType<typeof makeRouter>;
  }
}
