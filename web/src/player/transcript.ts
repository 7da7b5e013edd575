// What scrolled by, as lines that can be read, searched and linked to. Pure. Not a terminal: it follows the cursor along its line, which is
// what shells and progress bars do, and takes every jump elsewhere as the end of the line.
import type { SegmentEvent } from "./recording";

export interface Line {
  /** Seconds: when the line was as it reads here. */
  at: number;
  text: string;
}

/** A longer line goes on in the next one, so that a flood without line feeds stays readable. */
const LONGEST = 2000;
const MOST_PARAMETERS = 32;

type State = "text" | "escape" | "one more" | "control" | "string" | "string escape";

/** The lines of one segment's output, empty ones left out. A line that begins in another segment is two lines. */
export function readLines(events: readonly SegmentEvent[]): Line[] {
  const lines: Line[] = [];
  let cells: string[] = [];
  let column = 0;
  let last = 0;
  let state: State = "text";
  let parameters = "";

  const end = () => {
    const text = cells.join("").trimEnd();
    if (text !== "") lines.push({ at: last, text });
    cells = [];
    column = 0;
  };
  const put = (character: string, at: number) => {
    if (column >= LONGEST) end();
    while (cells.length < column) cells.push(" ");
    cells[column] = character;
    column += 1;
    last = at;
  };
  const control = (final: string) => {
    const count = Math.min(LONGEST, Math.max(1, Number.parseInt(parameters, 10) || 1));
    const which = Number.parseInt(parameters, 10) || 0;
    if (final === "C") column = Math.min(LONGEST, column + count);
    else if (final === "D") column = Math.max(0, column - count);
    else if (final === "G") column = count - 1;
    else if (final === "P") cells.splice(column, count);
    else if (final === "@") {
      cells.splice(column, 0, ...Array.from({ length: count }, () => " "));
      cells.length = Math.min(cells.length, 2 * LONGEST);
    } else if (final === "K" || (final === "J" && which === 0)) {
      if (which === 0) cells.length = Math.min(cells.length, column);
      else if (which === 2) cells = [];
      else cells.fill(" ", 0, column);
    } else if ("ABEFHJLMSTdf".includes(final)) end();
  };

  for (const [at, code, data] of events) {
    if (code !== "o") continue;
    for (const character of data) {
      const number = character.codePointAt(0) ?? 0;
      if (state === "string") {
        if (number === 7) state = "text";
        else if (number === 27) state = "string escape";
      } else if (number === 27) {
        state = "escape";
      } else if (state === "escape" || state === "string escape") {
        if (character === "[") [state, parameters] = ["control", ""];
        else if ("]PX^_".includes(character)) state = "string";
        else if (number >= 0x20 && number <= 0x2f) state = "one more";
        else {
          if ("DEc".includes(character)) end();
          state = "text";
        }
      } else if (state === "one more") {
        if (number > 0x2f) state = "text";
      } else if (state === "control" && number >= 0x20) {
        if (number >= 0x40) {
          control(character);
          state = "text";
        } else if (parameters.length < MOST_PARAMETERS) parameters += character;
      } else if (character === "\n") end();
      else if (character === "\r") column = 0;
      else if (character === "\b") column = Math.max(0, column - 1);
      else if (character === "\t") column = Math.min(LONGEST, (Math.floor(column / 8) + 1) * 8);
      else if (number === 7 || number === 14 || number === 15) continue; // the bell and the character sets leave no trace
      else if (number < 0x20) put(String.fromCharCode(0x2400 + number), at);
      else if (number === 0x7f) put("\u2421", at);
      else if ((number >= 0x80 && number <= 0x9f) || (number >= 0x202a && number <= 0x202e) || (number >= 0x2066 && number <= 0x2069)) put("\ufffd", at);
      else put(character, at);
    }
  }
  end();
  return lines;
}

/** The number of the last line that was there at `at`; -1 before the first. */
export function lineAt(lines: readonly { at: number }[], at: number): number {
  let [low, high] = [0, lines.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((lines[middle]?.at ?? Infinity) <= at) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Where to go to see what was there at `at`, in whole milliseconds: earlier would not show it, and much later it may be wiped out. */
export const shownAt = (at: number): number => Math.ceil(Math.round(at * 1e6) / 1000) / 1000;
