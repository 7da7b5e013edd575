// The replay of one recording with a terminal: the stage, the timeline under it, and the keys. A position always means the same moment
// of the recording, whatever is skipped and however fast it plays.
import { Maximize, Pause, Play } from "lucide-react";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { Player } from "asciinema-player";
import type { Schema } from "../api/client";
import { recall, remember, useWords } from "../i18n";
import { useKeys } from "../parts/keys";
import { CopyButton, putOnClipboard, useToast } from "../parts/small";
import { Loading, ProblemView } from "../parts/states";
import { showLive, showRecorded } from "./player";
import css from "./player.module.css";
import { base, clockTime, coverage, gaps, joined, moments, pastGap, type Gap, type Mark } from "./recording";
import { Timeline } from "./Timeline";
import type { Source } from "./useRecording";

const SPEEDS = [1, 2, 4, 8] as const;
/** Idle time that is worth skipping, in seconds. */
const LEAST_GAP = 2;
const TICK = 200;
/** What was watched of each recording, for as long as the page is open. */
const kept = new Map<string, readonly Gap[]>();

interface Props {
  recording: Schema<"Recording">;
  source: Source;
  marks: readonly Mark[];
  who: string;
  /** The moment that the address names, in seconds. */
  at: number | undefined;
  isLive: boolean;
  onMoment: (at: number) => void;
  /** Told about once a second while it plays, and after each seek. */
  onTime: (at: number) => void;
  onLive: (live: boolean) => void;
  /** Told of what was played. */
  onShown?: (part: Gap) => void;
}

export default function Replay(props: Props) {
  return props.isLive ? <Live {...props} /> : <Recorded {...props} />;
}

function Recorded({ recording, source, marks, who, at, onMoment, onTime, onLive, onShown }: Props) {
  const words = useWords();
  const { t } = words;
  const toast = useToast();
  const { index, look } = source;
  const duration = index?.duration ?? recording.duration_us / 1e6;
  const place = useRef<HTMLDivElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const player = useRef<Player | null>(null);
  const [speed, setSpeed] = useState<number>(() => SPEEDS.find((one) => String(one) === recall("speed")) ?? 1);
  const [skips, setSkips] = useState(recall("skip-idle") !== "no");
  const [isPlaying, setPlaying] = useState(false);
  const [time, setTime] = useState(Math.min(at ?? 0, duration));
  const [failed, setFailed] = useState<unknown>(null);
  const [watched, setWatched] = useState<readonly Gap[]>(() => kept.get(recording.id) ?? []);
  useEffect(() => void kept.set(recording.id, watched), [recording.id, watched]);
  const now = useRef(time);
  const plays = useRef(at === undefined && !matchMedia("(prefers-reduced-motion: reduce)").matches);
  const said = useRef(at);

  const idle = useMemo(() => {
    const found: Gap[] = [];
    for (const [number, part] of source.parts) {
      const from = index?.segments[number]?.start ?? 0;
      const to = index?.segments[number + 1]?.start ?? duration;
      found.push(...gaps(moments(part.events), from, to, LEAST_GAP));
    }
    return found;
  }, [source.parts, index, duration]);

  // Of a long recording the parts around what is shown are read, so that the timeline and the transcript have them.
  useEffect(() => look(now.current), [look]);

  /** Puts the moment into the address, once it rests. */
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const tell = useCallback(
    (moment: number) => {
      clearTimeout(timer.current);
      timer.current = setTimeout(() => {
        const rounded = Math.round(moment * 10) / 10;
        said.current = rounded;
        onMoment(rounded);
      }, 400);
    },
    [onMoment],
  );
  useEffect(() => () => clearTimeout(timer.current), []);

  // Speed is fixed when the player is made: another one is made at the same moment.
  const hasIndex = index !== undefined;
  useEffect(() => {
    const stage = place.current;
    if (!hasIndex || stage === null) return;
    let wanted = true;
    void showRecorded(`${base(recording.id)}index.json`, stage, now.current, speed).then(
      (made) => {
        if (!wanted) return made.dispose();
        player.current = made;
        made.addEventListener("playing", () => {
          plays.current = true;
          setPlaying(true);
        });
        made.addEventListener("pause", () => {
          plays.current = false;
          setPlaying(false);
        });
        made.addEventListener("ended", () => {
          plays.current = false;
          setPlaying(false);
          now.current = duration;
          setTime(duration);
        });
        if (plays.current) void made.play();
      },
      (error: unknown) => wanted && setFailed(error),
    );
    return () => {
      wanted = false;
      player.current?.dispose();
      player.current = null;
    };
  }, [recording.id, speed, hasIndex, duration]);

  const seek = useCallback(
    (moment: number) => {
      const to = Math.max(0, Math.min(duration, moment));
      now.current = to;
      setTime(to);
      onTime(to);
      look(to);
      void player.current?.seek(to);
      tell(to);
    },
    [duration, tell, onTime, look],
  );
  useEffect(() => {
    // The address was changed by another hand: a link, the list of files, the back button.
    if (at !== undefined && at !== said.current) {
      said.current = at;
      now.current = Math.min(at, duration);
      setTime(now.current);
      onTime(now.current);
      look(now.current);
      void player.current?.seek(now.current);
    }
  }, [at, duration, onTime, look]);
  const told = useRef(-1);

  useEffect(() => {
    const tick = setInterval(() => {
      const shown = player.current;
      if (shown === null || !isPlaying) return;
      const moment = shown.getCurrentTime();
      if (typeof moment !== "number" || !Number.isFinite(moment)) return;
      look(moment);
      const last = now.current;
      if (moment > last && moment - last < 3 * speed) {
        setWatched((before) => joined(before, { from: last, to: moment }));
        onShown?.({ from: last, to: moment });
      }
      now.current = moment;
      setTime(moment);
      if (Math.abs(moment - told.current) >= 1) {
        told.current = moment;
        onTime(moment);
      }
      if (skips) {
        const further = pastGap(idle, moment);
        if (further > moment + 0.5) {
          now.current = further;
          setTime(further);
          void shown.seek(further);
        }
      }
    }, TICK);
    return () => clearInterval(tick);
  }, [isPlaying, skips, idle, look, speed, onTime, onShown]);

  const toggle = useCallback(() => {
    const shown = player.current;
    if (shown === null) return;
    if (isPlaying) {
      void shown.pause();
      tell(now.current);
    } else if (now.current >= duration - 0.05) {
      void Promise.resolve(shown.seek(0)).then(() => shown.play());
    } else {
      void shown.play();
    }
  }, [isPlaying, duration, tell]);
  const faster = (by: number) => {
    const next = SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, SPEEDS.indexOf(speed as 1) + by))] ?? 1;
    remember("speed", String(next));
    setSpeed(next);
  };
  const setSkipping = (on: boolean) => {
    remember("skip-idle", on ? null : "no");
    setSkips(on);
  };
  const link = () => {
    const url = new URL(location.href);
    url.searchParams.set("t", String(Math.round(now.current * 10) / 10));
    return url.href;
  };
  useKeys({
    " ": toggle,
    ArrowLeft: () => seek(now.current - 5),
    ArrowRight: () => seek(now.current + 5),
    "Shift+ArrowLeft": () => seek(now.current - 60),
    "Shift+ArrowRight": () => seek(now.current + 60),
    "<": () => faster(-1),
    ">": () => faster(1),
    i: () => setSkipping(!skips),
    l: () => void putOnClipboard(link()).then(() => toast(t.copied)),
    v: () => !recording.ended_at && onLive(true),
    ...Object.fromEntries(Array.from({ length: 10 }, (_, tenth) => [String(tenth), () => seek((duration * tenth) / 10)])),
  });

  const error = source.error ?? failed;
  if (error) return <ProblemView error={error} retry={() => (setFailed(null), source.retry())} />;
  return (
    <div className={css.replay} ref={frame}>
      <div className={css.stage} role="img" aria-label={t.player.stage(who)} onClick={toggle}>
        {index ? <div className={css.place} ref={place} data-testid="terminal" /> : <Loading />}
      </div>
      <Timeline duration={duration} time={time} events={source.events} idle={idle} watched={watched} marks={marks} onSeek={seek} />
      <div className={css.bar}>
        <button type="button" className="icon" aria-label={isPlaying ? t.player.pause : t.player.play} title={`${isPlaying ? t.player.pause : t.player.play} (Space)`} onClick={toggle}>
          {isPlaying ? <Pause size={15} aria-hidden /> : <Play size={15} aria-hidden />}
        </button>
        <span className={`mono ${css.time}`}>
          {clockTime(time)} <span className="muted">/ {clockTime(duration)}</span>
        </span>
        <span className={`muted ${css.wideOnly}`}>{words.clock(new Date(Date.parse(recording.started_at) + time * 1000))}</span>
        {watched.length > 0 ? (
          <span className={`muted ${css.wideOnly}`} title={t.player.seenHint}>
            {t.player.seen(Math.floor(coverage(watched, idle, duration) * 100))}
          </span>
        ) : null}
        <span className="grow" />
        {recording.ended_at ? null : (
          <button type="button" onClick={() => onLive(true)} title="v">
            {t.player.live}
          </button>
        )}
        <button type="button" aria-pressed={skips} className={skips ? "tag accent" : ""} title={`${t.player.skipIdleHint} (i)`} onClick={() => setSkipping(!skips)}>
          {t.player.skipIdle}
        </button>
        <span className="segmented" role="group" aria-label={t.player.speed}>
          {SPEEDS.map((one) => (
            <button key={one} type="button" aria-pressed={one === speed} onClick={() => (remember("speed", String(one)), setSpeed(one))}>
              {one}×
            </button>
          ))}
        </span>
        <CopyButton className={css.wideOnly ?? ""} text={link} label={t.player.linkTo(clockTime(time))} />
        <button type="button" className="quiet icon" aria-label={t.player.fullScreen} title={t.player.fullScreen} onClick={() => void (document.fullscreenElement ? document.exitFullscreen() : frame.current?.requestFullscreen())}>
          <Maximize size={15} aria-hidden />
        </button>
      </div>
    </div>
  );
}

function Live({ recording, who, onMoment }: Props) {
  const { t } = useWords();
  const place = useRef<HTMLDivElement>(null);
  const [hasEnded, setEnded] = useState(false);
  const [failed, setFailed] = useState<unknown>(null);
  useEffect(() => {
    const stage = place.current;
    if (stage === null) return;
    let wanted = true;
    let player: Player | null = null;
    void showLive(`${base(recording.id)}live`, stage).then(
      (made) => {
        if (!wanted) return made.dispose();
        player = made;
        made.addEventListener("ended", () => setEnded(true));
      },
      (error: unknown) => wanted && setFailed(error),
    );
    return () => {
      wanted = false;
      player?.dispose();
    };
  }, [recording.id]);
  useKeys({ ArrowLeft: () => onMoment(0) });
  if (failed) return <ProblemView error={failed} />;
  return (
    <div className={css.replay}>
      <div className={css.stage} role="img" aria-label={t.player.stage(who)}>
        <div className={css.place} ref={place} data-testid="terminal" />
      </div>
      <div className={css.bar}>
        {hasEnded ? <span role="status">{t.player.ended}</span> : <span className={css.live}>● {t.player.behind}</span>}
        <span className="grow" />
        <button type="button" onClick={() => onMoment(0)}>
          {hasEnded ? t.player.watch : t.player.recorded}
        </button>
      </div>
    </div>
  );
}
