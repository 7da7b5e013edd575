// A session: what its channels did, the recording of each at the moment that the address names, and beside it what was run, printed and
// carried, each a link to its moment.
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { lazy, Suspense, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { Problem, type Schema } from "../api/client";
import { commandsQuery, filesQuery, reviewQuery, sessionQuery } from "../api/queries";
import { useWords } from "../i18n";
import { clockTime } from "../player/recording";
import { shownAt } from "../player/transcript";
import { useSource } from "../player/useRecording";
import { useSeen } from "../player/useSeen";
import { Duration } from "../parts/Duration";
import { Evidence } from "../parts/Evidence";
import { useKeys } from "../parts/keys";
import { Status } from "../parts/small";
import { Empty, Loading, ProblemLine, ProblemView } from "../parts/states";
import { SESSION_TABS, sessionRoute, type SessionTab } from "../router";
import { Commands } from "./session/Commands";
import { Details } from "./session/Details";
import { Files, FileTable } from "./session/Files";
import { Found } from "./session/Find";
import { LiveActions, LiveNotes, WatchNote } from "./session/Live";
import { commandAt, find, hasFailed, marksOf, momentOf, secondsIn, type Moment } from "./session/moments";
import { ReviewPanel } from "./session/ReviewPanel";
import { Transcript } from "./session/Transcript";
import { useWatch, type Watching } from "./session/useWatch";
import css from "./Session.module.css";
import { has, useMe } from "./Shell";
import { short } from "./short";

const Replay = lazy(() => import("../player/Replay"));
const Output = lazy(() => import("../player/Output"));

type Detail = Schema<"SessionDetail">;

/** Recordings of up to so many segments are read as a whole. */
const FEW = 24;

export function Session() {
  const { t } = useWords();
  const { id } = sessionRoute.useParams();
  const search = sessionRoute.useSearch();
  const navigate = useNavigate();
  const session = useQuery(sessionQuery(id));
  const watching = useWatch(id, search.watch === true && session.data?.state !== "ended");
  const onWatch = (wanted: boolean) =>
    void navigate({ to: "/sessions/$id", params: { id }, search: (before) => ({ ...before, tab: before.tab ?? "commands", watch: wanted }), replace: true });
  // One that waits for its watcher is no session yet.
  const waits = watching.is !== "off" && !session.data && session.error instanceof Problem && session.error.status === 404;
  const { refetch } = session;
  useEffect(() => {
    if (!waits) return;
    const timer = setInterval(() => void refetch(), 1000);
    return () => clearInterval(timer);
  }, [waits, refetch]);
  if (session.data) return <Shown key={id} session={session.data} watching={watching} onWatch={onWatch} />;
  if (waits) {
    return (
      <div className={css.page}>
        <div className="bar">
          <h1 className="mono">{short(id)}</h1>
        </div>
        <WatchNote watching={watching} onWatch={onWatch} />
        {watching.is === "failed" ? null : (
          <Empty title={t.live.waits}>
            <p className="muted">{t.live.waitsHint}</p>
          </Empty>
        )}
      </div>
    );
  }
  return session.error ? <ProblemView error={session.error} retry={() => void session.refetch()} /> : <Loading />;
}

interface Place {
  ch?: number;
  tab?: SessionTab;
  t?: number;
  live?: boolean;
  find?: string;
}

function Shown({ session, watching, onWatch }: { session: Detail; watching: Watching; onWatch: (wanted: boolean) => void }) {
  const { t } = useWords();
  const me = useMe();
  const search = sessionRoute.useSearch();
  const navigate = useNavigate();
  const mayLook = has(me, "reviewer", "auditor");
  const { recordings } = session;
  const recording = recordings.find((one) => one.channel === search.ch) ?? recordings.find((one) => one.term) ?? recordings[0];
  const isLive = session.state !== "ended";
  const hasTerminal = Boolean(recording?.cols);
  const follows = hasTerminal && !recording?.ended_at && (search.live === true || search.t === undefined);
  const carriesFiles = !hasTerminal && recording?.kind === "subsystem";
  const who = `${session.login}@${session.target.name}`;

  const commandPages = useInfiniteQuery(commandsQuery(session.id, isLive));
  const filePages = useInfiniteQuery(filesQuery(session.id, isLive));
  const commands = useMemo(() => commandPages.data?.pages.flatMap((page) => page.items) ?? [], [commandPages.data]);
  const files = useMemo(() => filePages.data?.pages.flatMap((page) => page.items) ?? [], [filePages.data]);
  const source = useSource(mayLook && !follows && !carriesFiles ? recording : undefined, hasTerminal ? FEW : 1);
  const review = useQuery(reviewQuery(session.id));
  const seen = useSeen(session.id, recording?.id, review.data?.may_judge === true);
  const remarks = review.data?.remarks;
  const marks = useMemo(() => {
    if (!recording) return [];
    const flags = (remarks ?? []).flatMap((one) => (one.recording === recording.id && one.moment ? [{ at: secondsIn(recording, one.moment), what: "remark" as const }] : []));
    return [...marksOf(recording, commands, files), ...flags].sort((a, b) => a.at - b.at);
  }, [recording, commands, files, remarks]);
  const [now, setNow] = useState(search.t ?? 0);

  const go = useCallback(
    (change: Place) =>
      void navigate({ to: "/sessions/$id", params: { id: session.id }, search: (before) => ({ ...before, tab: before.tab ?? "commands", ...change }), replace: true }),
    [navigate, session.id],
  );
  const see = useCallback(
    (moment: Moment) => {
      // A program without a terminal has no positions: its output is seen as a whole.
      const at = moment.recording.cols ? shownAt(moment.at) : 0;
      setNow(at);
      go({ ch: moment.recording.channel, t: at, live: false });
    },
    [go],
  );
  const channel = recording?.channel;
  const onMoment = useCallback((at: number) => go({ ...(channel === undefined ? {} : { ch: channel }), t: at, live: false }), [go, channel]);

  const current = recording ? commandAt(commands, { recording, at: now }) : -1;
  const step = (by: 1 | -1, wanted: (number: number) => boolean) => {
    for (let number = current + by; number >= 0 && number < commands.length; number += by) {
      const command = commands[number];
      const moment = command && wanted(number) ? momentOf(recordings, command) : null;
      if (moment) return see(moment);
    }
  };
  const matters = (number: number) => {
    const command = commands[number];
    return command !== undefined && (Boolean(command.flag) || hasFailed(command));
  };

  const field = useRef<HTMLInputElement>(null);
  const words = search.find ?? "";
  const hits = useMemo(() => (words === "" ? [] : find(words, recordings, commands, files, recording, source.lines)), [words, recordings, commands, files, recording, source.lines]);
  const [hit, setHit] = useState("");
  // Whoever comes by a link to a moment is at the hit that is there.
  const isMeant = (one: (typeof hits)[number]) => (hit === "" ? one.channel === recording?.channel && Math.abs(one.at - (search.t ?? Number.NaN)) < 0.05 : one.key === hit);
  const hitNumber = hits.findIndex(isMeant);
  const showHit = (number: number) => {
    const found = hits[(number + hits.length) % hits.length];
    if (!found) return;
    setHit(found.key);
    const on = recordings.find((one) => one.channel === found.channel);
    if (on) see({ recording: on, at: found.at });
  };
  // Enter may come before what is typed has been looked for.
  const wantsFirst = useRef(false);
  useEffect(() => {
    if (!wantsFirst.current || words === "") return;
    wantsFirst.current = false;
    showHit(0);
  });
  const onFind = useCallback((value: string) => go({ find: value }), [go]);
  const onFindEnter = (value: string, back: boolean) => {
    if (value === words) return showHit(back ? hitNumber - 1 : hitNumber + 1);
    wantsFirst.current = true;
    go({ find: value });
  };
  useKeys({
    "[": () => step(-1, () => true),
    "]": () => step(1, () => true),
    "{": () => step(-1, matters),
    "}": () => step(1, matters),
    "/": () => field.current?.focus(),
    n: () => showHit(hitNumber + 1),
    N: () => showHit(hitNumber < 0 ? -1 : hitNumber - 1),
  });

  const counts: Partial<Record<SessionTab, number>> = { commands: commands.length, files: files.length };

  return (
    <div className={css.page}>
      <div className="bar">
        <h1 className="mono">{who}</h1>
        <Status is={session.state} pulse={session.state === "live"} />
        <span>
          {session.person.name} ·{" "}
          <Link to="/grants/$id" params={{ id: session.grant_id }} className="mono" title={session.grant_id}>
            {short(session.grant_id)}
          </Link>
        </span>
        <span className="muted mono">
          <Duration session={session} />
        </span>
        {recordings.length > 1 && recording ? (
          <select className={css.channel} aria-label={t.session.channel} value={recording.channel} onChange={(event) => go({ ch: Number(event.target.value), t: 0, live: false })}>
            {recordings.map((one) => (
              <option key={one.id} value={one.channel}>
                {one.channel} · {one.kind === one.program_text ? one.kind : `${one.kind} ${one.program_text.slice(0, 60)}`} · {one.ended_at ? clockTime(one.duration_us / 1e6) : t.states.live}
              </option>
            ))}
          </select>
        ) : null}
        {recording && recording.gaps > 0 ? (
          <span className="warn" title={t.session.gapsHint}>
            ⚠ {t.session.gaps}: {recording.gaps}
          </span>
        ) : null}
        <span className="grow" />
        {mayLook && !isLive ? <Evidence of="sessions" id={session.id} /> : null}
        {isLive && has(me, "admin") ? <LiveActions session={session} /> : null}
      </div>
      {isLive ? <LiveNotes session={session} watching={watching} onWatch={onWatch} /> : null}
      <div className={css.split}>
        <section className={css.stageSide} aria-label={t.session.stage}>
          {recording === undefined ? (
            <Empty title={t.session.noChannels}>
              <p className="muted">{t.session.noChannelsHint}</p>
              {session.ending_text ? <p>{session.ending_text}</p> : null}
            </Empty>
          ) : carriesFiles ? (
            <div className={css.carried}>
              <p className={`muted ${css.carriedHead}`}>{t.session.sftp}</p>
              <FileTable files={files.filter((file) => file.recording === recording.id)} />
            </div>
          ) : !mayLook ? (
            <Empty title={t.session.notYou}>
              <p className="muted">{t.session.notYouHint}</p>
            </Empty>
          ) : (
            <Suspense fallback={<Loading />}>
              {hasTerminal ? (
                <Replay
                  key={recording.id}
                  recording={recording}
                  source={source}
                  marks={marks}
                  who={session.person.name}
                  at={search.t}
                  isLive={follows}
                  onMoment={onMoment}
                  onTime={setNow}
                  onLive={(live) => go({ ch: recording.channel, live })}
                  onShown={seen.shown}
                />
              ) : (
                <Output key={recording.id} recording={recording} source={source} onRead={seen.read} />
              )}
            </Suspense>
          )}
        </section>
        <aside className={css.side}>
          <div className={css.tabs}>
            <span className="segmented" role="tablist" aria-label={t.session.details}>
              {SESSION_TABS.map((tab) => (
                <button key={tab} type="button" role="tab" id={`tab-${tab}`} aria-selected={search.tab === tab} aria-controls="tab-panel" onClick={() => go({ tab, find: "" })}>
                  {t.session[tab]}
                  {counts[tab] ? <span className="muted">{counts[tab]}</span> : null}
                </button>
              ))}
            </span>
            <FindField key={session.id} field={field} value={words} onChange={onFind} onEnter={onFindEnter} />
          </div>
          <div className={css.panel} role="tabpanel" id="tab-panel" aria-labelledby={`tab-${search.tab}`} tabIndex={0}>
            {words !== "" ? (
              <Found hits={hits} words={words} at={hitNumber} source={source} hasText={source.index !== undefined} onHit={showHit} />
            ) : search.tab === "commands" ? (
              <>
                {commandPages.error ? <ProblemLine error={commandPages.error} /> : null}
                {commandPages.data ? <Commands commands={commands} counts={session.commands} recordings={recordings} current={current} onMoment={see} /> : commandPages.error ? null : <Loading />}
                <More pages={commandPages} />
              </>
            ) : search.tab === "files" ? (
              <>
                {filePages.error ? <ProblemLine error={filePages.error} /> : null}
                {filePages.data ? <Files files={files} recordings={recordings} onMoment={see} /> : filePages.error ? null : <Loading />}
                <More pages={filePages} />
              </>
            ) : search.tab === "details" ? (
              <Details session={session} recording={recording} />
            ) : !mayLook ? (
              <p className="muted">{t.session.notYou}</p>
            ) : follows ? (
              <div className={css.none}>
                <p className="muted">{t.session.liveText}</p>
                <button type="button" onClick={() => onMoment(0)}>
                  {t.player.recorded}
                </button>
              </div>
            ) : carriesFiles ? (
              <p className="muted">{t.session.sftp}</p>
            ) : source.index ? (
              <Transcript source={source} at={now} onMoment={(at) => recording && see({ recording, at })} onRead={seen.read} />
            ) : (
              <Loading />
            )}
          </div>
          <ReviewPanel session={session.id} recordings={recordings} recording={recording} at={now} onMoment={see} />
        </aside>
      </div>
    </div>
  );
}

/** The address follows what is typed once it rests. */
function FindField({ field, value, onChange, onEnter }: { field: React.RefObject<HTMLInputElement | null>; value: string; onChange: (value: string) => void; onEnter: (value: string, back: boolean) => void }) {
  const { t } = useWords();
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  useEffect(() => {
    if (text === value) return;
    const timer = setTimeout(() => onChange(text), 200);
    return () => clearTimeout(timer);
  }, [text, value, onChange]);
  return (
    <input
      ref={field}
      type="search"
      aria-label={t.session.find}
      placeholder={`${t.session.find}  /`}
      value={text}
      onChange={(event) => setText(event.target.value)}
      onKeyDown={(event) => {
        if (event.key === "Enter") onEnter(text, event.shiftKey);
        else if (event.key === "Escape") event.currentTarget.blur();
      }}
    />
  );
}

function More({ pages }: { pages: { hasNextPage: boolean; isFetchingNextPage: boolean; fetchNextPage: () => unknown } }) {
  const { t } = useWords();
  if (!pages.hasNextPage) return null;
  return (
    <button type="button" onClick={() => void pages.fetchNextPage()} disabled={pages.isFetchingNextPage}>
      {t.player.more}
    </button>
  );
}
