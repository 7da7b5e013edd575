// The timeline under the stage: how much happened when, where nothing did, commands and files, what was watched. A slider for the keyboard and for readers of
// the page by voice; drawn on a canvas, so that a long recording costs as much as a short one.
import { useEffect, useMemo, useRef, useState, type KeyboardEvent, type PointerEvent } from "react";
import { useWords } from "../i18n";
import css from "./player.module.css";
import { activity, clockTime, type Gap, type Mark, type SegmentEvent } from "./recording";

const BIN = 4;
/** Below the bars: a row for marks, then the line of what was watched. */
const MARKS = 14;
const WATCHED = 5;
const COLOURS = { command: "--mut", failed: "--bad", flagged: "--warn", upload: "--accent", download: "--accent", denied: "--bad", remark: "--warn" } as const;
/** Outlines around a point, in pixels: colour never tells alone. */
const SHAPES: Record<Mark["what"], readonly (readonly [number, number])[]> = {
  command: [[-0.5, -4], [0.5, -4], [0.5, 4], [-0.5, 4]],
  failed: [[-3, -4], [0, -1.2], [3, -4], [4, -3], [1.2, 0], [4, 3], [3, 4], [0, 1.2], [-3, 4], [-4, 3], [-1.2, 0], [-4, -3]],
  flagged: [[-1, -5], [5, -2.5], [0, 0], [0, 5], [-1, 5]],
  upload: [[0, -4], [4, 3], [-4, 3]],
  download: [[-4, -3], [4, -3], [0, 4]],
  remark: [[-1, -6], [6, -3], [0, 0], [0, 6], [-1, 6]],
  denied: [[-4, -1.5], [4, -1.5], [4, 1.5], [-4, 1.5]],
};

export function Timeline({ duration, time, events, idle, watched, marks, onSeek }: {
  duration: number;
  time: number;
  events: readonly SegmentEvent[];
  idle: readonly Gap[];
  watched: readonly Gap[];
  marks: readonly Mark[];
  onSeek: (at: number) => void;
}) {
  const { t } = useWords();
  const track = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [size, setSize] = useState({ width: 0, height: 0, theme: "" });
  const bars = useMemo(() => activity(events, duration, Math.max(1, Math.floor(size.width / BIN))), [events, duration, size.width]);

  useEffect(() => {
    const element = track.current;
    if (element === null) return;
    const measure = () => setSize({ width: element.clientWidth, height: element.clientHeight, theme: getComputedStyle(element).getPropertyValue("--panel") });
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    // The canvas does not follow the theme by itself.
    const themes = new MutationObserver(measure);
    themes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", measure);
    return () => {
      observer.disconnect();
      themes.disconnect();
      system.removeEventListener("change", measure);
    };
  }, []);

  useEffect(() => {
    const element = canvas.current;
    const context = element?.getContext("2d");
    if (!element || !context || size.width === 0) return;
    const scale = devicePixelRatio || 1;
    element.width = Math.round(size.width * scale);
    element.height = Math.round(size.height * scale);
    context.scale(scale, scale);
    const colour = (name: string) => getComputedStyle(element).getPropertyValue(name).trim();
    const x = (at: number) => (at / duration) * size.width;
    const floor = size.height - WATCHED - 1 - MARKS;
    context.strokeStyle = colour("--line");
    context.lineWidth = 1;
    for (const gap of idle) {
      context.save();
      context.beginPath();
      context.rect(x(gap.from), 4, x(gap.to) - x(gap.from), floor - 4);
      context.clip();
      context.beginPath();
      for (let left = Math.floor(x(gap.from) / 6) * 6 - size.height; left < x(gap.to); left += 6) {
        context.moveTo(left, floor);
        context.lineTo(left + floor, 0);
      }
      context.stroke();
      context.restore();
    }
    context.fillStyle = colour("--accent");
    context.globalAlpha = 0.75;
    for (const [bin, height] of bars.entries()) {
      if (height > 0) context.fillRect(bin * BIN, floor - Math.max(2, height * (floor - 6)), BIN - 1, Math.max(2, height * (floor - 6)));
    }
    context.globalAlpha = 1;
    // Ticks first, so that what matters more is not hidden behind them.
    for (const mark of [...marks].sort((a, b) => Number(b.what === "command") - Number(a.what === "command"))) {
      context.fillStyle = colour(COLOURS[mark.what]);
      context.beginPath();
      for (const [right, down] of SHAPES[mark.what]) context.lineTo(x(mark.at) + right, floor + MARKS / 2 + down);
      context.fill();
    }
    context.fillStyle = colour("--line");
    context.fillRect(0, size.height - WATCHED, size.width, 2);
    context.fillStyle = colour("--ok");
    for (const part of watched) context.fillRect(x(part.from), size.height - WATCHED, Math.max(1, x(part.to) - x(part.from)), 2);
  }, [size, bars, idle, watched, marks, duration]);

  const point = (event: PointerEvent) => {
    const box = track.current?.getBoundingClientRect();
    if (box) onSeek(Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * duration);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const by = { ArrowLeft: -5, ArrowDown: -5, ArrowRight: 5, ArrowUp: 5, PageDown: -60, PageUp: 60 }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? duration : by === undefined ? null : time + by * (event.shiftKey ? 12 : 1);
    if (to === null) return;
    event.preventDefault();
    onSeek(to);
  };
  return (
    <div
      ref={track}
      className={css.track}
      role="slider"
      tabIndex={0}
      aria-label={t.player.timeline}
      aria-valuemin={0}
      aria-valuemax={Math.round(duration)}
      aria-valuenow={Math.round(time)}
      aria-valuetext={t.player.position(clockTime(time), clockTime(duration))}
      onKeyDown={onKeyDown}
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        point(event);
      }}
      onPointerMove={(event) => event.buttons === 1 && point(event)}
    >
      <canvas ref={canvas} aria-hidden="true" />
      <div className={css.head} style={{ left: `${Math.min(100, (time / duration) * 100)}%` }} aria-hidden="true" />
    </div>
  );
}
