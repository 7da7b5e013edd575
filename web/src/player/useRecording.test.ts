import { expect, test } from "vitest";
import { near } from "./useRecording";

test("what is furthest from the moment that is looked at goes first, and the rest keeps its order", () => {
  const parts = new Map([[9, "i"], [1, "a"], [4, "d"], [5, "e"], [6, "f"]]);

  expect([...near(parts, 5, 3)]).toEqual([[4, "d"], [5, "e"], [6, "f"]]);
  expect([...near(parts, 5, Infinity).keys()]).toEqual([1, 4, 5, 6, 9]);
});
