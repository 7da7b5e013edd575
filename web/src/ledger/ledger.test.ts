import { describe, expect, it } from "vitest";
import fixture from "../../../src/domain/ledger/fixtures/events-v1.jsonl?raw";
import { canonical, entryOf, readEntry } from "./entry";
import { BadNote, readKey, readNote } from "./note";
import { extends_, fromHex, Growing, includes, leafHash, nodeHash, toHex, type Hash } from "./tree";

const bytes = (text: string) => new TextEncoder().encode(text);
const base64 = (what: Uint8Array) => btoa(String.fromCharCode(...what));
const leaves = (count: number) => Promise.all(Array.from({ length: count }, (_, n) => leafHash(bytes(`entry ${n}`))));

/** MTH of §2.1.1, as it is written there. */
async function mth(of: Hash[]): Promise<Hash> {
  if (of.length === 1) return of[0] as Hash;
  const k = 2 ** Math.ceil(Math.log2(of.length) - 1);
  return nodeHash(await mth(of.slice(0, k)), await mth(of.slice(k)));
}
/** PATH of §2.1.3.1. */
async function path(m: number, of: Hash[]): Promise<Hash[]> {
  if (of.length === 1) return [];
  const k = 2 ** Math.ceil(Math.log2(of.length) - 1);
  return m < k ? [...(await path(m, of.slice(0, k))), await mth(of.slice(k))] : [...(await path(m - k, of.slice(k))), await mth(of.slice(0, k))];
}
/** SUBPROOF of §2.1.4.1. */
async function subproof(m: number, of: Hash[], whole: boolean): Promise<Hash[]> {
  if (m === of.length) return whole ? [] : [await mth(of)];
  const k = 2 ** Math.ceil(Math.log2(of.length) - 1);
  return m <= k ? [...(await subproof(m, of.slice(0, k), whole)), await mth(of.slice(k))] : [...(await subproof(m - k, of.slice(k), false)), await mth(of.slice(0, k))];
}

describe("the tree", () => {
  it("has the RFC's root at every size", async () => {
    const growing = new Growing();
    expect(toHex(await growing.root())).toBe("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    const all = await leaves(40);
    for (const [number, leaf] of all.entries()) {
      await growing.add(leaf);
      expect(await growing.root()).toEqual(await mth(all.slice(0, number + 1)));
    }
  });

  it("takes every proof of inclusion, and none with another leaf, place or path", async () => {
    const all = await leaves(13);
    for (const size of [1, 2, 3, 7, 8, 13]) {
      const root = await mth(all.slice(0, size));
      for (let index = 0; index < size; index += 1) {
        const proof = await path(index, all.slice(0, size));
        const leaf = all[index] as Hash;
        expect(await includes(leaf, index, size, proof, root)).toBe(true);
        expect(await includes(leaf, index, size, [...proof, leaf], root)).toBe(false);
        expect(await includes(leaf, index + 1, size, proof, root)).toBe(false);
        if (size > 1) {
          expect(await includes(all[(index + 1) % size] as Hash, index, size, proof, root)).toBe(false);
          expect(await includes(leaf, index, size, proof.slice(1), root)).toBe(false);
        }
      }
    }
  });

  it("takes every proof of consistency, and none to another history", async () => {
    const all = await leaves(20);
    const others = [...(await leaves(3)), await leafHash(bytes("altered")), ...all.slice(4)];
    for (let from = 1; from <= 20; from += 1) {
      for (let to = from; to <= 20; to += 1) {
        const proof = from === to ? [] : await subproof(from, all.slice(0, to), true);
        const [small, large] = [await mth(all.slice(0, from)), await mth(all.slice(0, to))];
        expect(await extends_(from, small, to, large, proof)).toBe(true);
        if (from > 3) expect(await extends_(from, await mth(others.slice(0, from)), to, large, proof)).toBe(false);
        if (to > from) expect(await extends_(to, large, from, small, proof)).toBe(false);
      }
    }
  });

  it("reads no hash that is none", () => {
    expect([fromHex("00"), fromHex("G".repeat(64)), fromHex("A".repeat(64))]).toEqual([null, null, null]);
    expect(toHex(fromHex("0f".repeat(32)) as Hash)).toBe("0f".repeat(32));
  });
});

describe("an entry", () => {
  it("is spelt as the bastion spells it", () => {
    const lines = fixture.trim().split("\n");
    expect(lines.length).toBeGreaterThan(20);
    for (const line of lines) {
      expect(canonical(JSON.parse(line))).toBe(line);
      const entry = entryOf(JSON.parse(line));
      expect(entry).toBe(`sallyport-event-v1\n${line}`);
      expect(entryOf(readEntry(entry) ?? { id: "", at: "", actor: null, act: null })).toBe(entry);
    }
    expect([readEntry("other"), readEntry("sallyport-event-v1\n{"), readEntry("sallyport-event-v1\n{}")]).toEqual([null, null, null]);
  });
});

describe("a checkpoint", async () => {
  const NAME = "bastion.example.com/ledger";
  const { publicKey, privateKey } = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
  const raw = new Uint8Array([1, ...new Uint8Array(await crypto.subtle.exportKey("raw", publicKey))]);
  const id = new Uint8Array(await crypto.subtle.digest("SHA-256", new Uint8Array([...bytes(`${NAME}\n`), ...raw]))).subarray(0, 4);
  const vkey = `${NAME}+${toHex(id)}+${base64(raw)}`;
  const text = `${NAME}\n7\n${base64(new Uint8Array(32).fill(9))}\n`;
  const signature = new Uint8Array(await crypto.subtle.sign("Ed25519", privateKey, bytes(text)));
  const line = (name: string, key: Uint8Array, said: Uint8Array) => `\u2014 ${name} ${base64(new Uint8Array([...key, ...said]))}\n`;
  const note = `${text}\n${line(NAME, id, signature)}`;

  it("is believed if a known key signed it", async () => {
    const { checkpoint, by } = await readNote(note, [await readKey(vkey, null)]);
    expect([checkpoint.origin, checkpoint.size, by.name]).toEqual([NAME, 7, NAME]);
    await readNote(note, [await readKey(vkey, 7)]);
    await readNote(`${note}${line("witness", Uint8Array.from([1, 2, 3, 4]), signature)}`, [await readKey(vkey, null)]);
  });

  it("is not if it was altered, or signed by nobody who is known, or by a key that was retired before", async () => {
    const key = await readKey(vkey, null);
    const wrong = signature.map((byte, index) => (index === 3 ? byte ^ 1 : byte));
    for (const [bad, keys] of [
      [note.replace("\n7\n", "\n8\n"), [key]],
      [`${text}\n${line(NAME, id, wrong)}`, [key]],
      [`${note}${line(NAME, id, wrong)}`, [key]],
      [note, []],
      [note, [await readKey(vkey, 6)]],
      [text, [key]],
      [note.slice(0, -1), [key]],
      [note.replace("\n7\n", "\n07\n"), [key]],
      ["", [key]],
    ] as const) {
      await expect(readNote(bad, keys)).rejects.toThrow(BadNote);
    }
    await expect(readKey(vkey.replace(/\+.{8}\+/, "+00000000+"), null)).rejects.toThrow(BadNote);
  });
});
