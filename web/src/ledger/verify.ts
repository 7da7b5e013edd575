// The ledger, checked in the browser: one event, or everything that the API gives. The bastion is asked for hashes and signatures, and
// believed in nothing that they do not show.
import { answer, api, Problem } from "../api/client";
import { recall, remember } from "../i18n";
import { canonical, entryOf, readEntry, type Said } from "./entry";
import { BadNote, NoEd25519, readKey, readNote, type Checkpoint, type Key } from "./note";
import { extends_, fromHex, Growing, includes, leafHash, same, toHex, type Hash } from "./tree";

const TILE = 256;
const PAGE = 1000;
/** Hashes that are asked for at a time. */
const AT_ONCE = 4;

/** Something does not fit. `at` is the event's number in the log, where it is known. */
export class Broken extends Error {
  constructor(
    readonly what: "signature" | "root" | "event" | "missing" | "history" | "proof",
    readonly detail: string,
    readonly at: number | null = null,
  ) {
    super(detail);
  }
}

export interface Proved {
  checkpoint: Checkpoint;
  by: Key;
}

const text = (entry: string) => new TextEncoder().encode(entry);

async function signers(): Promise<Key[]> {
  const keys = await answer(api.GET("/api/v1/ledger/keys"));
  return Promise.all(keys.map((key) => readKey(key.vkey, key.last_size ?? null)));
}

async function believed(note: string): Promise<Proved> {
  try {
    return await readNote(note, await signers());
  } catch (error) {
    if (error instanceof BadNote) throw new Broken("signature", error.message);
    throw error;
  }
}

const hashes = (path: readonly string[]): Hash[] =>
  path.map((one) => {
    const hash = fromHex(one);
    if (hash === null) throw new Broken("proof", `this is no hash: ${one.slice(0, 80)}`);
    return hash;
  });

async function noteOf(size?: number): Promise<string> {
  return answer(api.GET("/api/v1/ledger/checkpoint", { params: { query: size === undefined ? {} : { size } }, parseAs: "text" }));
}

/** Proves that an event, as the log shows it, is in a tree that a known key signed. */
export async function proveEvent(event: Said & { seq: number }): Promise<Proved & { index: number; path: number }> {
  const proof = await answer(api.GET("/api/v1/ledger/proof/inclusion", { params: { query: { event: event.id } } }));
  const said = readEntry(proof.entry);
  if (said === null || canonical(said) !== canonical({ id: event.id, at: event.at, actor: event.actor, act: event.act })) {
    throw new Broken("event", "the proof is of an event that says something else", event.seq);
  }
  const proved = await believed(proof.checkpoint ?? (await noteOf(proof.size)));
  const { size, root } = proved.checkpoint;
  const holds = size === proof.size && (await includes(await leafHash(text(proof.entry)), proof.index, size, hashes(proof.path), root));
  if (!holds) throw new Broken("event", "the proof does not lead to the signed root", event.seq);
  return { ...proved, index: proof.index, path: proof.path.length };
}

export interface Progress {
  doing: "hashes" | "events";
  done: number;
  of: number;
}

export interface Verified extends Proved {
  /** The checkpoint that this browser had seen before, if there was one. */
  since: number | null;
  finished: Date;
}

/** Checks that every event of the log is in the signed tree, that the tree holds no others, and that it begins with what this browser saw before. */
export async function verifyAll(onProgress: (progress: Progress) => void, signal: AbortSignal): Promise<Verified> {
  const proved = await believed(await noteOf());
  const { size } = proved.checkpoint;
  const since = await sameHistory(proved);
  const places = await readTiles(proved.checkpoint, onProgress, signal);
  await readEvents(size, places, onProgress, signal);
  remember(SEEN, JSON.stringify({ origin: proved.checkpoint.origin, size, root: toHex(proved.checkpoint.root) }));
  return { ...proved, since, finished: new Date() };
}

const SEEN = "checkpoint";

/** A smaller tree than was seen before, or one that does not begin with it, means that another history was put in its place. */
async function sameHistory({ checkpoint: { origin, size, root } }: Proved): Promise<number | null> {
  const seen = readSeen(recall(SEEN));
  if (seen === null || seen.origin !== origin) return null;
  if (seen.size > size) throw new Broken("history", `this browser saw ${seen.size} signed events before, and there are ${size} now`);
  const proof = seen.size === size || seen.size === 0 ? [] : (await answer(api.GET("/api/v1/ledger/proof/consistency", { params: { query: { from: seen.size, to: size } } }))).path;
  if (!(await extends_(seen.size, seen.root, size, root, hashes(proof)))) {
    throw new Broken("history", `the first ${seen.size} events are not those that this browser saw signed before`);
  }
  return seen.size;
}

function readSeen(kept: string | null): Checkpoint | null {
  try {
    const { origin, size, root } = JSON.parse(kept ?? "null") as Record<string, unknown>;
    const hash = typeof root === "string" ? fromHex(root) : null;
    return typeof origin === "string" && typeof size === "number" && hash ? { origin, size, root: hash } : null;
  } catch {
    return null;
  }
}

/** The place of each leaf by its hash, once the leaves are known to make the signed root. */
async function readTiles({ size, root }: Checkpoint, onProgress: (progress: Progress) => void, signal: AbortSignal): Promise<Map<string, number>> {
  const places = new Map<string, number>();
  const tree = new Growing();
  const tiles = Math.ceil(size / TILE);
  for (let from = 0; from < tiles; from += AT_ONCE) {
    const numbers = Array.from({ length: Math.min(AT_ONCE, tiles - from) }, (_, more) => from + more);
    for (const bytes of await Promise.all(numbers.map((number) => tile(number, signal)))) {
      for (let at = 0; at + 32 <= bytes.length && tree.size < size; at += 32) {
        const leaf = bytes.slice(at, at + 32);
        places.set(toHex(leaf), tree.size);
        await tree.add(leaf);
      }
    }
    onProgress({ doing: "hashes", done: tree.size, of: size });
  }
  if (tree.size !== size || !same(await tree.root(), root)) throw new Broken("root", `the ${tree.size} hashes that are kept do not make the root that was signed for ${size}`);
  return places;
}

async function tile(number: number, signal: AbortSignal): Promise<Hash> {
  const path = { level: 0, index: number };
  return new Uint8Array(await answer(api.GET("/api/v1/ledger/tiles/{level}/{index}", { params: { path }, parseAs: "arrayBuffer", signal })));
}

async function readEvents(size: number, places: Map<string, number>, onProgress: (progress: Progress) => void, signal: AbortSignal): Promise<void> {
  const missing = new Map(places);
  let cursor: string | null | undefined;
  do {
    const page = await answer(api.GET("/api/v1/events", { params: { query: { limit: PAGE, ...(cursor ? { cursor } : {}) } }, signal }));
    const leaves = await Promise.all(page.items.map((event) => leafHash(text(entryOf(event)))));
    for (const [number, event] of page.items.entries()) {
      const key = toHex(leaves[number] ?? new Uint8Array(0));
      if (places.has(key)) missing.delete(key);
      else if (missing.size > 0) {
        const other = await asHashed(event, size);
        if (other === null) continue; // it came after the checkpoint
        if (!places.has(other)) throw new Broken("event", `event ${event.id} is not as it was signed`, event.seq);
        missing.delete(other);
      }
    }
    onProgress({ doing: "events", done: size - missing.size, of: size });
    cursor = page.next;
  } while (cursor && missing.size > 0);
  const [first] = missing.values();
  if (first !== undefined) throw new Broken("missing", `${missing.size} signed events are not in the log, the first of them in place ${first} (from 0)`);
}

/** The hash of an event's entry as the bastion spells it, `null` if it has no place in the tree of this size. */
async function asHashed(event: Said & { seq: number }, size: number): Promise<string | null> {
  try {
    const proof = await answer(api.GET("/api/v1/ledger/proof/inclusion", { params: { query: { event: event.id, size } } }));
    const said = readEntry(proof.entry);
    const isSame = said !== null && canonical(said) === canonical({ id: event.id, at: event.at, actor: event.actor, act: event.act });
    if (!isSame) throw new Broken("event", `event ${event.id} is shown otherwise than it is kept`, event.seq);
    return toHex(await leafHash(text(proof.entry)));
  } catch (error) {
    if (error instanceof Problem && error.status >= 400 && error.status < 500) return null;
    throw error;
  }
}

export { NoEd25519 };
