import { describe, expect, it } from "vitest";
import { watchReader } from "./watch";

const BEAT = [0xff, 0xff, 0xff, 0xfe, ...Array.from({ length: 16 }, (_, n) => n), ...Array.from({ length: 16 }, (_, n) => 0xa0 + n)];
const FRAME = [0, 0, 0, 10, ...Array.from({ length: 10 }, () => 0xff)];
const CHANNEL = [0xff, 0xff, 0xff, 0xfd, ...Array.from({ length: 20 }, () => 7)];
const ENDED = [0xff, 0xff, 0xff, 0xfc, ...Array.from({ length: 16 }, () => 7)];
const PROBLEM = [0xff, 0xff, 0xff, 0xff, ...new TextEncoder().encode('{"status":503,"detail":"gone"}')];
const beat = { what: "beat", watch: "00010203-0405-0607-0809-0a0b0c0d0e0f", beat: "a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf" };

describe("the stream of a watch", () => {
  it("tells the same wherever it is cut", () => {
    const bytes = Uint8Array.from([...CHANNEL, ...FRAME, ...BEAT, ...FRAME, ...FRAME, ...ENDED, ...BEAT, ...PROBLEM]);
    const whole = watchReader()(bytes);
    expect(whole.map((told) => told.what)).toEqual(["channel", "frame", "beat", "frame", "frame", "channel ended", "beat", "problem"]);
    expect(whole[2]).toEqual(beat);
    for (const size of [1, 2, 3, 5, 13, 36]) {
      const read = watchReader();
      const told = [];
      for (let from = 0; from < bytes.length; from += size) told.push(...read(bytes.subarray(from, from + size)));
      expect(told).toEqual(whole);
    }
  });

  it("is refused where it is none", () => {
    expect(() => watchReader()(Uint8Array.from([0x7f, 0, 0, 0]))).toThrow("1 MiB");
    expect(() => watchReader()(Uint8Array.from([0xff, 0xff, 0xff, 0xff, ...Array.from({ length: 70_000 }, () => 0x20)]))).toThrow("64 KiB");
  });
});
