// What a recording's index and segments say about time: where the segments are, where something happened, where nothing did.
// Pure; what is fetched is parsed where it enters.

/** Where a recording's index and segments are. */
export const base = (recording: string) => `/api/v1/recordings/${recording}/`;

export interface Index {
  /** Seconds. */
  duration: number;
  segments: { start: number; url: string }[];
}

export type SegmentEvent = [at: number, code: string, data: string];

export interface Gap {
  from: number;
  to: number;
}

/** The index, or `null` if it is none. */
export function readIndex(value: unknown): Index | null {
  if (!isObject(value) || typeof value.duration !== "number" || !Array.isArray(value.segments)) return null;
  const segments: Index["segments"] = [];
  for (const segment of value.segments as unknown[]) {
    if (!isObject(segment) || typeof segment.start !== "number" || typeof segment.url !== "string") return null;
    segments.push({ start: segment.start, url: segment.url });
  }
  return segments.length > 0 ? { duration: value.duration, segments } : null;
}

/** A segment's events; what does not look like one is left out. */
export function readEvents(value: unknown): SegmentEvent[] {
  if (!isObject(value) || !Array.isArray(value.events)) return [];
  return (value.events as unknown[]).filter(
    (event): event is SegmentEvent => Array.isArray(event) && typeof event[0] === "number" && typeof event[1] === "string" && typeof event[2] === "string",
  );
}

/** The number of the segment that holds `at`. */
export function segmentAt(index: Index, at: number): number {
  let [low, high] = [0, index.segments.length];
  while (low + 1 < high) {
    const middle = (low + high) >> 1;
    if ((index.segments[middle]?.start ?? Infinity) <= at) low = middle;
    else high = middle;
  }
  return low;
}

/** When something was printed or typed between `from` and `to`, in seconds. */
export function moments(events: readonly SegmentEvent[]): number[] {
  return events.filter(([, code, data]) => (code === "o" || code === "i") && data !== "").map(([at]) => at);
}

/** Where nothing happened for longer than `least` seconds, from `from` to `to`. */
export function gaps(when: readonly number[], from: number, to: number, least: number): Gap[] {
  const found: Gap[] = [];
  let last = from;
  for (const at of [...when, to]) {
    if (at - last > least) found.push({ from: last, to: at });
    last = Math.max(last, at);
  }
  return found;
}

/** Where to go on from `at` when gaps are skipped: shortly before something happens, or `at` itself. */
export function pastGap(found: readonly Gap[], at: number): number {
  const lead = 0.2;
  const gap = found.find((one) => one.from + 0.5 <= at && at < one.to - lead);
  return gap ? gap.to - lead : at;
}

/** How much happened in each of `bins` equal parts, from 0 to 1; a root keeps small things visible beside floods. */
export function activity(events: readonly SegmentEvent[], duration: number, bins: number): number[] {
  const sums = Array.from({ length: bins }, () => 0);
  for (const [at, code, data] of events) {
    if (code !== "o" && code !== "i") continue;
    const bin = Math.min(bins - 1, Math.floor((at / duration) * bins));
    sums[bin] = (sums[bin] ?? 0) + data.length;
  }
  const most = Math.max(1, ...sums);
  return sums.map((sum) => Math.cbrt(sum / most));
}

/** The same with one more part; parts that touch are made one. */
export function joined(parts: readonly Gap[], more: Gap): Gap[] {
  const touching = parts.filter((part) => part.from <= more.to + 0.3 && more.from <= part.to + 0.3);
  const all = [...touching, more];
  const one = { from: Math.min(...all.map((part) => part.from)), to: Math.max(...all.map((part) => part.to)) };
  return [...parts.filter((part) => !touching.includes(part)), one];
}

/** How much of the time in which something happened was watched, from 0 to 1. Idle time asks for no watching, and counts for none. */
export function coverage(watched: readonly Gap[], idle: readonly Gap[], duration: number): number {
  const length = (parts: readonly Gap[]) => parts.reduce((sum, part) => sum + Math.max(0, part.to - part.from), 0);
  const both = watched.flatMap((part) => idle.map((gap) => ({ from: Math.max(part.from, gap.from), to: Math.min(part.to, gap.to) })));
  const busy = duration - length(idle);
  return busy <= 0 ? 0 : Math.min(1, Math.max(0, (length(watched) - length(both)) / busy));
}

/** Something that the timeline marks. */
export interface Mark {
  at: number;
  what: "command" | "failed" | "flagged" | "upload" | "download" | "denied" | "remark";
}

/** `1:07:12`, or `0:42` */
export function clockTime(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number) => String(n).padStart(2, "0");
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** Output as text that can be read: escape sequences left out, other controls shown as pictures (U+2400). */
export function plainText(output: string): string {
  return output
    // oxlint-disable-next-line no-control-regex
    .replaceAll(/\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[PX^_][^\u001b]*(?:\u001b\\)?|[ -/]*[0-~])/g, "")
    .replaceAll("\r\n", "\n")
    // oxlint-disable-next-line no-control-regex
    .replaceAll(/[\u0000-\u0008\u000b-\u001f]/g, (control) => String.fromCharCode(0x2400 + control.charCodeAt(0)))
    .replaceAll("\u007f", "\u2421")
    .replaceAll(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
