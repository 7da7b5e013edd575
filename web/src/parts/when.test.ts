import { describe, expect, it } from "vitest";
import { readSpan, readWindow, writeSpan } from "./when";

const now = new Date(2026, 10, 22, 10, 4);

describe("a time that is written down", () => {
  it.each([
    ["4h", new Date(2026, 10, 22, 14, 4)],
    ["90m", new Date(2026, 10, 22, 11, 34)],
    ["1h 30m", new Date(2026, 10, 22, 11, 34)],
    ["for 2d", new Date(2026, 10, 24, 10, 4)],
    ["until 18:00", new Date(2026, 10, 22, 18, 0)],
    ["until 6", new Date(2026, 10, 23, 6, 0)],
    ["until tomorrow 12", new Date(2026, 10, 23, 12, 0)],
  ])("%s begins now and ends then", (text, until) => {
    expect(readWindow(text, now)).toEqual({ until });
  });

  it("may begin later", () => {
    expect(readWindow("tomorrow 9-12:30", now)).toEqual({ from: new Date(2026, 10, 23, 9), until: new Date(2026, 10, 23, 12, 30) });
  });

  it.each(["", "soon", "0h", "until 25:00", "until today 9", "tomorrow 12-9", "9-12", "4", "99999999999999h"])("is not guessed: %j", (text) => {
    expect(readWindow(text, now)).toBeNull();
  });
});

describe("a length of time", () => {
  it.each([60, 90, 5400, 14_400, 90_000, 604_800])("of %d seconds reads back as it is written", (seconds) => {
    expect(readSpan(writeSpan(seconds))).toBe(seconds);
  });

  it.each(["", "until 18:00", "0h", "soon"])("is not %j", (text) => {
    expect(readSpan(text)).toBeNull();
  });
});
