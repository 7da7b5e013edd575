// What a session's commands and files are to a page: moments of its recordings. Pure.
import type { Schema } from "../../api/client";
import type { Mark } from "../../player/recording";
import type { Line } from "../../player/transcript";

export type Recording = Schema<"Recording">;
export type Command = Schema<"CommandEntry">;
export type File = Schema<"FileEntry">;

/** A moment of one recording. */
export interface Moment {
  recording: Recording;
  /** Seconds since its start. */
  at: number;
}

/** When `at` was in its recording, in seconds; the wall clock may have been set meanwhile, so never before its start. */
export const secondsIn = (recording: Recording, at: string): number => Math.max(0, (Date.parse(at) - Date.parse(recording.started_at)) / 1000);

export const momentOf = (recordings: readonly Recording[], entry: { recording: string; at: string }): Moment | null => {
  const recording = recordings.find((one) => one.id === entry.recording);
  return recording ? { recording, at: secondsIn(recording, entry.at) } : null;
};

export const hasFailed = (command: Command): boolean => command.exit_status !== null && command.exit_status !== undefined && command.exit_status !== 0;
const wasRefused = (file: File): boolean => file.result === "denied" || file.result === "failed";

/** What the timeline of `recording` marks. */
export function marksOf(recording: Recording, commands: readonly Command[], files: readonly File[]): Mark[] {
  const ofCommands = commands.filter((one) => one.recording === recording.id).map((one): Mark => ({
    at: secondsIn(recording, one.at),
    what: one.flag ? "flagged" : hasFailed(one) ? "failed" : "command",
  }));
  const ofFiles = files.filter((one) => one.recording === recording.id && (one.direction || wasRefused(one))).map((one): Mark => ({
    at: secondsIn(recording, one.at),
    what: wasRefused(one) ? "denied" : one.direction === "upload" ? "upload" : "download",
  }));
  return [...ofCommands, ...ofFiles].sort((a, b) => a.at - b.at);
}

/** The number of the command that ran at a moment: the last one that had begun; -1 before the first. */
export function commandAt(commands: readonly Command[], moment: Moment): number {
  // Without a terminal a recording has one command, and no position.
  if (!moment.recording.cols) return commands.findLastIndex((one) => one.recording === moment.recording.id);
  const when = Date.parse(moment.recording.started_at) + moment.at * 1000 + 100;
  return commands.findLastIndex((one) => Date.parse(one.at) <= when);
}

/** Something that was found. */
export interface Hit {
  key: string;
  what: "command" | "file" | "text";
  text: string;
  /** Where to see it. */
  channel: number | undefined;
  at: number;
}

/** More are counted as so many. */
export const MOST_HITS = 1000;

/** Where `words` stand in what the page has, in the order of time; case is not looked at. */
export function find(words: string, recordings: readonly Recording[], commands: readonly Command[], files: readonly File[], shown: Recording | undefined, lines: readonly Line[]): Hit[] {
  const wanted = words.toLowerCase();
  const has = (text: string) => text.toLowerCase().includes(wanted);
  const hits: (Hit & { when: number })[] = [];
  const add = (what: Hit["what"], key: string, text: string, entry: { recording: string; at: string }) => {
    const moment = momentOf(recordings, entry);
    hits.push({ key: `${what} ${key}`, what, text, channel: moment?.recording.channel, at: moment?.at ?? 0, when: Date.parse(entry.at) });
  };
  for (const one of commands) if (has(one.text)) add("command", `${one.recording} ${one.number}`, one.text, one);
  for (const [number, one] of files.entries()) {
    const text = [one.path, one.other_path].filter(Boolean).join(" → ");
    if (has(`${text} ${one.sha256 ?? ""}`)) add("file", String(number), text, one);
  }
  if (shown) {
    const start = Date.parse(shown.started_at);
    for (const [number, line] of lines.entries()) {
      if (hits.length > MOST_HITS) break;
      if (has(line.text)) hits.push({ key: `text ${number}`, what: "text", text: line.text, channel: shown.channel, at: line.at, when: start + line.at * 1000 });
    }
  }
  return hits.sort((a, b) => a.when - b.when).slice(0, MOST_HITS);
}
