import { describe, expect, it } from "vitest";
import { activity, clockTime, coverage, gaps, joined, moments, pastGap, plainText, readEvents, readIndex, segmentAt, type SegmentEvent } from "./recording";

const index = { duration: 30, segments: [{ start: 0, url: "seg/0" }, { start: 11.2, url: "seg/1" }, { start: 20, url: "seg/2" }] };

describe("an index", () => {
  it("is taken only if it is one", () => {
    expect(readIndex({ version: 1, term: {}, ...index })).toEqual(index);
    for (const other of [null, {}, { duration: 1, segments: [] }, { duration: "1", segments: index.segments }, { duration: 1, segments: [{ start: 0 }] }]) {
      expect(readIndex(other)).toBeNull();
    }
  });

  it("finds the segment of a moment", () => {
    expect([0, 11.19, 11.2, 19.9, 20, 99].map((at) => segmentAt(index, at))).toEqual([0, 0, 1, 1, 2, 2]);
  });
});

describe("idle time", () => {
  const events: SegmentEvent[] = [[0.1, "o", "$ "], [5, "o", ""], [9, "i", "x"], [9.5, "r", "80x24"], [10, "o", "y"]];

  it("is where nothing was printed or typed", () => {
    expect(gaps(moments(events), 0, 14, 2)).toEqual([{ from: 0.1, to: 9 }, { from: 10, to: 14 }]);
  });

  it("is skipped to shortly before its end, once it is seen that it is one", () => {
    const found = gaps(moments(events), 0, 14, 2);
    expect(pastGap(found, 0.3)).toBe(0.3);
    expect(pastGap(found, 3)).toBeCloseTo(8.8);
    expect(pastGap(found, 8.9)).toBe(8.9);
    expect(pastGap(found, 9.5)).toBe(9.5);
  });
});

describe("activity", () => {
  it("shows small things beside floods", () => {
    const [small, large, none] = activity([[1, "o", "x"], [11, "o", "y".repeat(1000)]], 30, 3);
    expect(large).toBe(1);
    expect(small).toBeCloseTo(0.1);
    expect(none).toBe(0);
  });
});

describe("what came from a target", () => {
  it("is text, whatever it is", () => {
    const hostile = "\u001b[31mred\u001b[m\u001b]8;;http://evil\u0007link\u001b]8;;\u001b\\ <script>alert(1)</script>\u001bPq#0\u001b\\\u0007\r\nend\u202e";
    expect(plainText(hostile)).toBe("redlink <script>alert(1)</script>\u2407\nend\ufffd");
  });

  it("is left out of the events where it is none", () => {
    expect(readEvents({ events: [[1, "o", "x"], ["1", "o", "x"], [1, "o"], null] })).toEqual([[1, "o", "x"]]);
    expect(readEvents("x")).toEqual([]);
  });
});

it("a time is written as on a clock", () => {
  expect([0, 59.9, 61, 3599, 4032.5].map(clockTime)).toEqual(["0:00", "0:59", "1:01", "59:59", "1:07:12"]);
});

describe("what was watched", () => {
  it("is one part where parts touch", () => {
    const parts = [{ from: 0, to: 2 }, { from: 5, to: 6 }].reduce(joined, [] as ReturnType<typeof joined>);
    expect(joined(parts, { from: 2.1, to: 4.9 })).toEqual([{ from: 0, to: 6 }]);
    expect(joined(parts, { from: 10, to: 11 })).toHaveLength(3);
  });

  it("counts against the time in which something happened", () => {
    const idle = [{ from: 10, to: 90 }];
    expect(coverage([], idle, 100)).toBe(0);
    expect(coverage([{ from: 0, to: 10 }], idle, 100)).toBe(0.5);
    expect(coverage([{ from: 20, to: 80 }], idle, 100)).toBe(0);
    expect(coverage([{ from: 0, to: 100 }], idle, 100)).toBe(1);
    expect(coverage([], [{ from: 0, to: 5 }], 5)).toBe(0);
  });
});
