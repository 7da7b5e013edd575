import { describe, expect, it } from "vitest";
import { bundleOrProblem } from "./evidence";

describe("an evidence bundle", () => {
  it("is the file that came, if it is one", async () => {
    const zip = new Blob([Uint8Array.from([0x50, 0x4b, 3, 4, 9])]);
    expect(await bundleOrProblem(zip)).toBe(zip);
  });

  it("is a problem where one came in its place", async () => {
    const problem = new Blob([Uint8Array.from([255, 255, 255, 255]), JSON.stringify({ type: "urn:sallyport:conflict", detail: "the session goes on", reference: "e-1" })]);
    await expect(bundleOrProblem(problem)).rejects.toMatchObject({ kind: "conflict", detail: "the session goes on", reference: "e-1" });
    await expect(bundleOrProblem(new Blob([Uint8Array.from([255, 255, 255, 255]), "{"]))).rejects.toMatchObject({ kind: "unknown" });
    await expect(bundleOrProblem(new Blob(["<html>"]))).rejects.toMatchObject({ kind: "unreadable" });
    await expect(bundleOrProblem(new Blob([]))).rejects.toMatchObject({ kind: "unreadable" });
  });
});
