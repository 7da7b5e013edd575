// What surrounds every page: who may see it, where it leads, the keys. Whoever is not signed in sees the way in, at the same address.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, Outlet, useNavigate, useRouterState } from "@tanstack/react-router";
import { Activity, ClipboardCheck, FileClock, Inbox, KeyRound, LayoutDashboard, Menu, ScrollText, Search, Server, Settings, Ticket, UserRound, type LucideIcon } from "lucide-react";
import { createContext, lazy, Suspense, useContext, useEffect, useRef, useState } from "react";
import { api, Problem, type Role } from "../api/client";
import { listen } from "../api/feed";
import { grantsQuery, liveSessionsQuery, meQuery, requestsQuery, reviewSumQuery, type Me } from "../api/queries";
import { recall, remember, useWords, type Words } from "../i18n";
import { useKeys } from "../parts/keys";
import { Toasts, useNow } from "../parts/small";
import { Forbidden, Loading, ProblemView } from "../parts/states";
import { Mark } from "./Door";
import { LedgerChip } from "./LedgerChip";
import css from "./Shell.module.css";
import { SignIn } from "./SignIn";

const KeysHelp = lazy(() => import("./KeysHelp"));

export const LOOK: readonly Role[] = ["admin", "reviewer", "auditor"];
const KNOWN: readonly Role[] = ["engineer", "admin", "reviewer", "auditor"];

interface Page {
  to: "/" | "/grants" | "/sessions" | "/review" | "/requests" | "/targets" | "/people" | "/audit" | "/settings" | "/me";
  key: string;
  icon: LucideIcon;
  roles: readonly Role[];
  name: (t: Words["t"]) => string;
}

const PAGES: readonly Page[] = [
  { to: "/", key: "o", icon: LayoutDashboard, roles: LOOK, name: (t) => t.overview },
  { to: "/grants", key: "g", icon: Ticket, roles: LOOK, name: (t) => t.grants },
  { to: "/sessions", key: "s", icon: Activity, roles: LOOK, name: (t) => t.sessions },
  { to: "/review", key: "v", icon: ClipboardCheck, roles: LOOK, name: (t) => t.review.list },
  { to: "/requests", key: "r", icon: Inbox, roles: LOOK, name: (t) => t.requests },
  { to: "/targets", key: "t", icon: Server, roles: LOOK, name: (t) => t.targets },
  { to: "/people", key: "p", icon: KeyRound, roles: LOOK, name: (t) => t.people },
  { to: "/audit", key: "a", icon: ScrollText, roles: LOOK, name: (t) => t.audit },
  { to: "/settings", key: "e", icon: Settings, roles: LOOK, name: (t) => t.settings },
  { to: "/me", key: "m", icon: UserRound, roles: KNOWN, name: (t) => t.myAccess },
];

const MeContext = createContext<Me | null>(null);

/** Who is signed in. */
export function useMe(): Me {
  const me = useContext(MeContext);
  if (me === null) throw new Error("nobody is signed in here");
  return me;
}

export function has(me: Me, ...roles: Role[]): boolean {
  return roles.some((role) => me.roles.includes(role));
}

/** Every page but one is for people who are signed in. */
export function Root() {
  const isInvite = useRouterState({ select: (state) => state.location.pathname === "/invite" });
  return isInvite ? (
    <Suspense fallback={<Loading />}>
      <Outlet />
    </Suspense>
  ) : (
    <Shell />
  );
}

function Shell() {
  const me = useQuery(meQuery);
  const signedOut = useQuery({ queryKey: ["signed-out"], queryFn: () => false, staleTime: Infinity, enabled: false });
  useEffect(() => {
    const apply = () => {
      const theme = recall("theme");
      if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
      else delete document.documentElement.dataset.theme;
    };
    addEventListener("storage", apply);
    return () => removeEventListener("storage", apply);
  }, []);

  if (signedOut.data === true || (me.error instanceof Problem && me.error.isSignedOut)) return <SignIn again={me.data !== undefined} />;
  if (me.data) {
    return (
      <MeContext value={me.data}>
        <Toasts>
          <Frame me={me.data} />
        </Toasts>
      </MeContext>
    );
  }
  return me.error ? <ProblemView error={me.error} retry={() => void me.refetch()} /> : <Loading />;
}

function Frame({ me }: { me: Me }) {
  const { t } = useWords();
  const navigate = useNavigate();
  const client = useQueryClient();
  const path = useRouterState({ select: (state) => state.location.pathname });
  const [menu, setMenu] = useState(false);
  const [help, setHelp] = useState(false);
  const main = useRef<HTMLElement>(null);
  const pages = PAGES.filter((page) => page.roles.some((role) => me.roles.includes(role)));
  const onlyEngineer = pages.length === 1;
  const here = PAGES.find((page) => (page.to === "/" ? path === "/" : path === page.to || path.startsWith(`${page.to}/`)));

  // A vendor's engineer has one page.
  useEffect(() => {
    if (onlyEngineer && path === "/") void navigate({ to: "/me", replace: true });
  }, [onlyEngineer, path, navigate]);
  useEffect(() => {
    document.title = path === "/search" ? `${t.find.title} · Sallyport` : here ? `${here.name(t)} · Sallyport` : "Sallyport";
  }, [here, path, t]);
  useEffect(() => setMenu(false), [path]);

  useKeys({
    "?": () => setHelp(true),
    ...Object.fromEntries(pages.map((page) => [`g ${page.key}`, () => void navigate({ to: page.to })])),
    ...(has(me, "admin") ? { "g n": () => void navigate({ to: "/grants", search: { state: "active", new: true } }) } : {}),
  });
  // An engineer's one page asks by itself.
  const looks = has(me, ...LOOK);
  useEffect(() => {
    if (!looks) return;
    const over = new AbortController();
    listen(client, over.signal);
    return () => over.abort();
  }, [client, looks]);

  return (
    <div className={css.frame}>
      <a className={css.skip} href="#main">
        {t.skip}
      </a>
      <header className={css.top}>
        <button type="button" className={`quiet icon ${css.menuButton}`} aria-label={t.menu} aria-expanded={menu} onClick={() => setMenu(!menu)}>
          <Menu size={18} aria-hidden />
        </button>
        <Link to={onlyEngineer ? "/me" : "/"} className={css.brand}>
          <Mark size={18} />
          sallyport
        </Link>
        {has(me, ...LOOK) ? <SearchBox path={path} /> : null}
        <span className="grow" />
        {has(me, ...LOOK) ? <LedgerChip /> : null}
        <Clock />
        <button type="button" className="quiet icon" aria-label={t.keys.open} title={`${t.keys.open} (?)`} onClick={() => setHelp(true)}>
          ?
        </button>
        <UserMenu me={me} />
        {has(me, "admin") ? (
          <Link to="/grants" search={{ state: "active", new: true }} className={`button primary ${css.newGrant}`} title="g n">
            + <span>{t.newGrant}</span>
          </Link>
        ) : null}
      </header>
      <nav className={css.nav} data-open={menu} aria-label={t.nav}>
        <ul>
          {pages.map((page) => (
            <li key={page.to}>
              <Link to={page.to} activeOptions={{ exact: page.to === "/", includeSearch: false }} title={`g ${page.key}`}>
                <page.icon size={16} aria-hidden />
                <span className="grow">{page.name(t)}</span>
                <Count page={page.to} />
              </Link>
            </li>
          ))}
        </ul>
      </nav>
      <main className={css.main} id="main" ref={main} tabIndex={-1}>
        {here && !here.roles.some((role) => me.roles.includes(role)) ? (
          <Forbidden roles={here.roles} />
        ) : (
          <Suspense fallback={<Loading />}>
            <Outlet />
          </Suspense>
        )}
      </main>
      {help ? (
        <Suspense>
          <KeysHelp onClose={() => setHelp(false)} pages={pages.map((page) => ({ key: `g ${page.key}`, name: page.name(t) }))} />
        </Suspense>
      ) : null}
    </div>
  );
}

/** Looks for words over everything. Where it is narrow, it is a link to the page that has the field. */
function SearchBox({ path }: { path: string }) {
  const { t } = useWords();
  const navigate = useNavigate();
  const field = useRef<HTMLInputElement>(null);
  const q = useRouterState({ select: (state) => (state.location.pathname === "/search" ? ((state.location.search as { q?: unknown }).q ?? "") : "") });
  const asked = String(q);
  const [text, setText] = useState(asked);
  useEffect(() => setText(asked), [asked]);
  // On a session's page the key finds in the session.
  useKeys(path.startsWith("/sessions/") ? {} : { "/": () => field.current?.focus() });
  return (
    <form
      role="search"
      aria-label={t.find.box}
      className={css.search}
      onSubmit={(event) => {
        event.preventDefault();
        if (text.trim() === "") return;
        field.current?.blur();
        void navigate({ to: "/search", search: { q: text.trim() } });
      }}
    >
      <Search size={14} aria-hidden />
      <input
        ref={field}
        type="search"
        aria-label={t.find.box}
        placeholder={`${t.find.box}  /`}
        maxLength={200}
        spellCheck={false}
        autoCapitalize="off"
        value={text}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") event.currentTarget.blur();
        }}
      />
    </form>
  );
}

/** How many there are, beside a page's name. */
function Count({ page }: { page: Page["to"] }) {
  const { number } = useWords();
  const me = useMe();
  const reviews = useQuery({ ...reviewSumQuery(has(me, "reviewer")), enabled: page === "/review" });
  const live = useQuery({ ...liveSessionsQuery, enabled: page === "/sessions" });
  const open = useQuery({ ...requestsQuery(true), enabled: page === "/requests" });
  const active = useQuery({ ...grantsQuery("active"), enabled: page === "/grants" });
  const shown = (count: number | undefined, tone = "") => (count ? <span className={`${css.count} ${tone}`}>{number(count)}</span> : null);
  if (page === "/sessions") return shown(live.data?.items.length, css.live);
  if (page === "/review") return shown(reviews.data?.due, reviews.data?.overdue ? css.waiting : "");
  if (page === "/requests") return shown(open.data?.items.length, css.waiting);
  if (page === "/grants") return shown(active.data?.items.length);
  return null;
}

function Clock() {
  const { t, zone, setZone, language } = useWords();
  const now = useNow(1000);
  const locale = language === "en" ? "en-GB" : language;
  const text = new Intl.DateTimeFormat(locale, {
    hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZoneName: "short", ...(zone === "utc" ? { timeZone: "UTC" } : {}),
  }).format(now);
  return (
    <button type="button" className={`quiet ${css.clock}`} title={`${t.clock.label}: ${zone === "utc" ? t.clock.utc : t.clock.local}`} onClick={() => setZone(zone === "utc" ? "local" : "utc")}>
      <FileClock size={14} aria-hidden />
      <span className="hidden-text">{t.clock.label}: </span>
      {text}
    </button>
  );
}

function UserMenu({ me }: { me: Me }) {
  const { t, language, setLanguage } = useWords();
  const [theme, setTheme] = useState(recall("theme") ?? "system");
  const menu = useRef<HTMLDetailsElement>(null);
  useEffect(() => {
    const close = (event: Event) => {
      if (!menu.current?.open) return;
      if (event instanceof KeyboardEvent ? event.key === "Escape" : !menu.current.contains(event.target as Node)) menu.current.open = false;
    };
    addEventListener("pointerdown", close);
    addEventListener("keydown", close);
    return () => {
      removeEventListener("pointerdown", close);
      removeEventListener("keydown", close);
    };
  }, []);
  const choose = (chosen: string) => {
    setTheme(chosen);
    remember("theme", chosen === "system" ? null : chosen);
    if (chosen === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
  };
  const signOut = async () => {
    await api.POST("/api/v1/sign-out", { body: { everywhere: false } });
    location.assign("/");
  };
  return (
    <details className={css.user} ref={menu}>
      <summary className="button quiet" aria-label={t.signedInAs(me.name)}>
        <UserRound size={15} aria-hidden />
        <span className={css.userName}>{me.name}</span>
      </summary>
      <div className={css.panel}>
        <p className="muted">{me.roles.map((role) => t.roles[role]).join(" · ")}</p>
        <fieldset>
          <legend>{t.theme.label}</legend>
          <span className="segmented">
            {(["light", "dark", "system"] as const).map((name) => (
              <button key={name} type="button" aria-pressed={theme === name} onClick={() => choose(name)}>
                {t.theme[name]}
              </button>
            ))}
          </span>
        </fieldset>
        <fieldset>
          <legend>Language · 语言</legend>
          <span className="segmented">
            <button type="button" lang="en" aria-pressed={language === "en"} onClick={() => setLanguage("en")}>
              English
            </button>
            <button type="button" lang="zh-CN" aria-pressed={language === "zh-CN"} onClick={() => setLanguage("zh-CN")}>
              简体中文
            </button>
          </span>
        </fieldset>
        <button type="button" onClick={() => void signOut()}>
          {t.signOut}
        </button>
      </div>
    </details>
  );
}
