// The timeline under the stage: how much happened when, where nothing did, what was watched. A slider for the keyboard and for readers of
// the page by voice; drawn on a canvas, so that a long recording costs as much as a short one.
import { useEffect, useMemo, useRef, useState, type KeyboardEvent, type PointerEvent } from "react";
import { useWords } from "../i18n";
import css from "./player.module.css";
import { activity, clockTime, type Gap, type SegmentEvent } from "./recording";

const BIN = 4;

export function Timeline({ duration, time, events, idle, watched, onSeek }: {
  duration: number;
  time: number;
  events: readonly SegmentEvent[];
  idle: readonly Gap[];
  watched: readonly Gap[];
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
    const floor = size.height - 8;
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
    context.fillStyle = colour("--line");
    context.fillRect(0, size.height - 5, size.width, 2);
    context.fillStyle = colour("--ok");
    for (const part of watched) context.fillRect(x(part.from), size.height - 5, Math.max(1, x(part.to) - x(part.from)), 2);
  }, [size, bars, idle, watched, duration]);

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
