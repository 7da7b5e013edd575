// The Merkle tree of RFC 9162 §2.1 (docs/formats.md, "Ledger"), as a verifier needs it. Hashes are 32 bytes; SHA-256 is the browser's own.

export type Hash = Uint8Array<ArrayBuffer>;

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Hash> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

export function leafHash(entry: Uint8Array): Promise<Hash> {
  const bytes = new Uint8Array(entry.length + 1);
  bytes.set(entry, 1);
  return sha256(bytes);
}

export function nodeHash(left: Hash, right: Hash): Promise<Hash> {
  const bytes = new Uint8Array(65);
  bytes[0] = 1;
  bytes.set(left, 1);
  bytes.set(right, 33);
  return sha256(bytes);
}

export const same = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((byte, index) => byte === b[index]);
export const toHex = (bytes: Uint8Array): string => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** The hash that 64 hexadecimal digits spell, or `null`. */
export function fromHex(text: string): Hash | null {
  if (!/^[0-9a-f]{64}$/.test(text)) return null;
  return Uint8Array.from(text.match(/../g) ?? [], (two) => Number.parseInt(two, 16));
}

/** RFC 9162 §2.1.3.2: whether `path` leads from a leaf to the root. Sizes are below 2⁵³. */
export async function includes(leaf: Hash, index: number, size: number, path: readonly Hash[], root: Hash): Promise<boolean> {
  if (index < 0 || index >= size) return false;
  let [fn, sn, hash] = [index, size - 1, leaf];
  for (const beside of path) {
    if (sn === 0) return false;
    if (fn % 2 === 1 || fn === sn) {
      hash = await nodeHash(beside, hash);
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [Math.floor(fn / 2), Math.floor(sn / 2)];
    } else {
      hash = await nodeHash(hash, beside);
    }
    [fn, sn] = [Math.floor(fn / 2), Math.floor(sn / 2)];
  }
  return sn === 0 && same(hash, root);
}

/** RFC 9162 §2.1.4.2: whether the tree of `to` entries begins with that of `from`. */
export async function extends_(from: number, fromRoot: Hash, to: number, toRoot: Hash, proof: readonly Hash[]): Promise<boolean> {
  if (from > to) return false;
  if (from === to) return proof.length === 0 && same(fromRoot, toRoot);
  if (from === 0) return proof.length === 0;
  let path = [...proof];
  if (Number.isInteger(Math.log2(from))) path = [fromRoot, ...path];
  let [fn, sn] = [from - 1, to - 1];
  while (fn % 2 === 1) [fn, sn] = [Math.floor(fn / 2), Math.floor(sn / 2)];
  const first = path[0];
  if (!first) return false;
  let [fr, sr] = [first, first];
  for (const hash of path.slice(1)) {
    if (sn === 0) return false;
    if (fn % 2 === 1 || fn === sn) {
      [fr, sr] = [await nodeHash(hash, fr), await nodeHash(hash, sr)];
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [Math.floor(fn / 2), Math.floor(sn / 2)];
    } else {
      sr = await nodeHash(sr, hash);
    }
    [fn, sn] = [Math.floor(fn / 2), Math.floor(sn / 2)];
  }
  return sn === 0 && same(fr, fromRoot) && same(sr, toRoot);
}

/** Makes a root of leaves that come one after another, and keeps one hash a level. */
export class Growing {
  size = 0;
  /** The roots of the full trees that the leaves make, the largest first. */
  private roots: { level: number; hash: Hash }[] = [];

  async add(leaf: Hash): Promise<void> {
    this.size += 1;
    let [level, hash] = [0, leaf];
    for (let last = this.roots.at(-1); last?.level === level; last = this.roots.at(-1)) {
      this.roots.pop();
      hash = await nodeHash(last.hash, hash);
      level += 1;
    }
    this.roots.push({ level, hash });
  }

  async root(): Promise<Hash> {
    const last = this.roots.at(-1);
    if (!last) return sha256(new Uint8Array(0));
    let hash = last.hash;
    for (const { hash: left } of this.roots.slice(0, -1).reverse()) hash = await nodeHash(left, hash);
    return hash;
  }
}
