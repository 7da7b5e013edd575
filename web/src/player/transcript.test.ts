import { describe, expect, it } from "vitest";
import type { SegmentEvent } from "./recording";
import { lineAt, readLines, shownAt } from "./transcript";

const texts = (...printed: string[]) => readLines(printed.map((data, number): SegmentEvent => [number, "o", data])).map((line) => line.text);

describe("the transcript", () => {
  it("has a line for each line, and leaves out empty ones", () => {
    expect(texts("one\r\ntwo\r\n\r\nthree")).toEqual(["one", "two", "three"]);
  });

  it("says when a line was as it reads", () => {
    const events: SegmentEvent[] = [[1, "o", "$ "], [2, "o", "l"], [3, "o", "s"], [3.25, "i", "\r"], [4, "o", "\r\na.txt\r\n"]];
    expect(readLines(events)).toEqual([{ at: 3, text: "$ ls" }, { at: 4, text: "a.txt" }]);
  });

  it("follows what is typed, wiped out and written over", () => {
    expect(texts("$ lx\b \bs -l\r\n")).toEqual(["$ ls -l"]);
    expect(texts("10 %\r20 %\rdone\x1b[K\r\n")).toEqual(["done"]);
    expect(texts("abc\x1b[2D\x1b[P\r\n")).toEqual(["ac"]);
    expect(texts("ac\x1b[D\x1b[@b\r\n")).toEqual(["abc"]);
  });

  it("leaves out colours, titles, links and what a string hides, however they are cut", () => {
    expect(texts("\x1b[1;3", "1mred\x1b[m \x1b]0;own", "ed\x07\x1b]8;;javascript:1\x1b\\link\x1b]8;;\x1b\\\x1b(B\r\n")).toEqual(["red link"]);
  });

  it("ends the line where the cursor jumps elsewhere", () => {
    expect(texts("top\x1b[5;1Hbottom\x1b[2Jnew")).toEqual(["top", "bottom", "new"]);
  });

  it("shows controls as pictures and no marks that turn the text around", () => {
    expect(texts("a\x01b\u202ec\u009b31m")).toEqual(["a\u2401b\ufffdc\ufffd31m"]);
  });

  it("stays bounded by what was printed, whatever the sequences ask for", () => {
    const long = texts("\x1b[999999999Cx\x1b[99999999@y\r\n");
    expect(long.every((line) => line.length <= 4001)).toBe(true);
    expect(texts("z".repeat(5000)).map((line) => line.length)).toEqual([2000, 2000, 1000]);
  });

  it("finds the line of a moment", () => {
    const lines = [{ at: 1 }, { at: 2 }, { at: 2 }, { at: 5 }];
    expect([0.5, 1, 2, 4.9, 9].map((at) => lineAt(lines, at))).toEqual([-1, 0, 2, 2, 3]);
    expect([shownAt(1.230_001), shownAt(1.23), shownAt(4.1)]).toEqual([1.231, 1.23, 4.1]);
  });
});
