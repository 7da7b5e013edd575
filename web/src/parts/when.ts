// What people write for a time: `4h`, `90m`, `until 18:00`, `tomorrow 9-12`. Pure: the present comes in.

export interface Window {
  /** Absent for one that begins now. */
  from?: Date;
  until: Date;
}

const HOUR = 3_600_000;
const UNITS: Record<string, number> = { m: 60_000, min: 60_000, h: HOUR, d: 24 * HOUR, w: 7 * 24 * HOUR };

/** The window that `text` means at `now`, in the reader's own time zone; `null` if it means none. */
export function readWindow(text: string, now: Date): Window | null {
  const words = text.trim().toLowerCase().replaceAll(/\s+/g, " ");
  return span(words, now) ?? until(words, now) ?? range(words, now);
}

function span(words: string, now: Date): Window | null {
  const parts = words.match(/^(?:for )?((?:\d+(?:\.\d+)? ?(?:w|d|h|min|m) ?)+)$/)?.[1];
  if (parts === undefined) return null;
  let milliseconds = 0;
  for (const [, count, unit] of parts.matchAll(/(\d+(?:\.\d+)?) ?(w|d|h|min|m)/g)) {
    milliseconds += Number(count) * (UNITS[unit ?? ""] ?? Number.NaN);
  }
  const end = new Date(now.getTime() + milliseconds);
  return milliseconds > 0 && !Number.isNaN(end.getTime()) ? { until: end } : null;
}

function until(words: string, now: Date): Window | null {
  const match = words.match(/^(?:until|till) (?:(today|tomorrow) )?(\d{1,2})(?::(\d{2}))?$/);
  if (!match) return null;
  const end = at(now, match[1] === "tomorrow" ? 1 : 0, match[2], match[3]);
  if (end === null) return null;
  // "until 6" in the evening means the next morning.
  if (end <= now && match[1] === undefined) end.setDate(end.getDate() + 1);
  return end > now ? { until: end } : null;
}

function range(words: string, now: Date): Window | null {
  const match = words.match(/^(today|tomorrow) (\d{1,2})(?::(\d{2}))? ?[-–] ?(\d{1,2})(?::(\d{2}))?$/);
  if (!match) return null;
  const day = match[1] === "tomorrow" ? 1 : 0;
  const from = at(now, day, match[2], match[3]);
  const end = at(now, day, match[4], match[5]);
  if (from === null || end === null || end <= from || end <= now) return null;
  return from > now ? { from, until: end } : { until: end };
}

function at(now: Date, days: number, hours: string | undefined, minutes: string | undefined): Date | null {
  const [hour, minute] = [Number(hours), Number(minutes ?? 0)];
  if (!(hour >= 0 && hour <= 24 && minute >= 0 && minute < 60)) return null;
  return new Date(now.getFullYear(), now.getMonth(), now.getDate() + days, hour, minute);
}

/** How many seconds `4h` or `1h 30m` is; `null` for what is no length of time. */
export function readSpan(text: string): number | null {
  const start = new Date(0);
  const read = span(text.trim().toLowerCase().replaceAll(/\s+/g, " "), start);
  return read && Math.round(read.until.getTime() / 1000) > 0 ? Math.round(read.until.getTime() / 1000) : null;
}

/** The same the other way: `4h`, `1h 30m`. */
export function writeSpan(seconds: number): string {
  const minutes = seconds / 60;
  const [days, hours, rest] = [Math.floor(minutes / 1440), Math.floor((minutes % 1440) / 60), minutes % 60];
  return [days ? `${days}d` : "", hours ? `${hours}h` : "", rest ? `${rest}m` : ""].filter(Boolean).join(" ");
}
