import { expect, it } from "vitest";
import { visibleRows } from "./useRows";

it("only rows that are seen, and a few beyond, are drawn", () => {
  expect(visibleRows(0, 320, 32, 10_000)).toEqual({ first: 0, end: 22 });
  expect(visibleRows(160_000, 320, 32, 10_000)).toEqual({ first: 4988, end: 5022 });
  expect(visibleRows(319_680, 320, 32, 10_000)).toEqual({ first: 9978, end: 10_000 });
  expect(visibleRows(320_000, 320, 32, 3)).toEqual({ first: 3, end: 3 });
});
