// The stream of `/sessions/{id}/watch`: frames, of which only the lengths matter here, and marks between them. Pure: bytes come in as they
// arrive, cut anywhere.

export type Told = { what: "beat"; watch: string; beat: string } | { what: "channel" } | { what: "channel ended" } | { what: "frame" } | { what: "problem"; said: unknown };

/** What follows the mark, in bytes. */
const MARKS: Record<number, readonly [name: "beat" | "channel" | "channel ended", length: number]> = {
  0xffff_fffe: ["beat", 32],
  0xffff_fffd: ["channel", 20],
  0xffff_fffc: ["channel ended", 16],
};
const PROBLEM = 0xffff_ffff;
/** A frame has at most so many bytes (docs/formats.md). */
const LONGEST = 1 << 20;
const MOST_SAID = 64 * 1024;

/** Reads the stream; throws if it is none. */
export function watchReader(): (bytes: Uint8Array) => Told[] {
  let waiting = new Uint8Array(0);
  let toSkip = 0;
  return (bytes) => {
    const told: Told[] = [];
    const skipped = Math.min(toSkip, bytes.length);
    toSkip -= skipped;
    let rest = new Uint8Array(waiting.length + bytes.length - skipped);
    rest.set(waiting);
    rest.set(bytes.subarray(skipped), waiting.length);
    while (rest.length >= 4) {
      const length = new DataView(rest.buffer, rest.byteOffset).getUint32(0);
      const mark = MARKS[length];
      if (length === PROBLEM) {
        // It goes on to the end of the stream: it is whole once it can be read.
        if (rest.length > MOST_SAID) throw new Error("a problem of more than 64 KiB");
        const said = parsed(rest.subarray(4));
        if (said === undefined) break;
        told.push({ what: "problem", said });
        rest = rest.subarray(rest.length);
      } else if (mark) {
        const [name, size] = mark;
        if (rest.length < 4 + size) break;
        if (name === "beat") told.push({ what: "beat", watch: uuid(rest.subarray(4, 20)), beat: uuid(rest.subarray(20, 36)) });
        else told.push({ what: name });
        rest = rest.subarray(4 + size);
      } else {
        if (length > LONGEST) throw new Error("a frame of more than 1 MiB");
        told.push({ what: "frame" });
        toSkip = Math.max(0, 4 + length - rest.length);
        rest = rest.subarray(Math.min(rest.length, 4 + length));
      }
    }
    waiting = rest.slice();
    return told;
  };
}

function parsed(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}

function uuid(bytes: Uint8Array): string {
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
