// Signed checkpoints (docs/formats.md, "Checkpoint"; C2SP signed-note and tlog-checkpoint), checked with the browser's own Ed25519.
import { fromHex, same, toHex, type Hash } from "./tree";

export interface Checkpoint {
  origin: string;
  size: number;
  root: Hash;
}

/** A public key that may have signed. */
export interface Key {
  name: string;
  id: Uint8Array;
  fingerprint: string;
  key: CryptoKey;
  /** The largest tree that a retired key may have signed. */
  lastSize: number | null;
}

/** The browser cannot check Ed25519 signatures; everything else can still be checked. */
export class NoEd25519 extends Error {}

/** What a note says that cannot be believed. */
export class BadNote extends Error {}

const LONGEST = 128 * 1024;
const MOST_SIGNATURES = 64;

/** Reads a key as it is written, `name+id+base64`. */
export async function readKey(vkey: string, lastSize: number | null): Promise<Key> {
  const [, name, id, key] = vkey.match(/^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+=*)$/) ?? [];
  const bytes = key === undefined ? null : fromBase64(key);
  if (name === undefined || id === undefined || bytes?.length !== 33 || bytes[0] !== 1) throw new BadNote(`a key that cannot be read: ${vkey}`);
  const hashed = new Uint8Array([...new TextEncoder().encode(`${name}\n`), ...bytes]);
  const fingerprint = toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", hashed)));
  if (!fingerprint.startsWith(id)) throw new BadNote(`a key whose id is not its own: ${vkey}`);
  try {
    return { name, id: bytesOf(id), fingerprint, key: await crypto.subtle.importKey("raw", bytes.slice(1), { name: "Ed25519" }, false, ["verify"]), lastSize };
  } catch (cause) {
    throw new NoEd25519(String(cause));
  }
}

/** What a note says, and the key that says so. Throws {@link BadNote} if no known key does, or one's signature does not fit. */
export async function readNote(note: string, keys: readonly Key[]): Promise<{ checkpoint: Checkpoint; by: Key }> {
  // oxlint-disable-next-line no-control-regex
  if (note.length > LONGEST || /[\u0000-\u0009\u000b-\u001f\u007f]/.test(note)) throw new BadNote("this is no note");
  const cut = note.lastIndexOf("\n\n");
  if (cut < 0 || !note.endsWith("\n")) throw new BadNote("this is no note");
  const text = note.slice(0, cut + 1);
  const checkpoint = readText(text);
  const lines = note.slice(cut + 2, -1).split("\n");
  if (lines.length > MOST_SIGNATURES) throw new BadNote("too many signatures");
  let by: Key | null = null;
  for (const line of lines) {
    const [, name, said] = line.match(/^\u2014 (\S+) ([A-Za-z0-9+/]+=*)$/) ?? [];
    const bytes = said === undefined ? null : fromBase64(said);
    if (name === undefined || bytes === null || bytes.length < 5) throw new BadNote(`a signature that cannot be read: ${line}`);
    const key = keys.find((one) => one.name === name && same(one.id, bytes.subarray(0, 4)));
    if (!key) continue;
    const fits = await crypto.subtle.verify("Ed25519", key.key, bytes.slice(4), new TextEncoder().encode(text));
    if (!fits) throw new BadNote(`the signature of ${name} does not fit`);
    if (key.lastSize === null || checkpoint.size <= key.lastSize) by = key;
  }
  if (by === null) throw new BadNote("no known key signed it");
  if (by.name !== checkpoint.origin) throw new BadNote(`${by.name} signed for ${checkpoint.origin}`);
  return { checkpoint, by };
}

function readText(text: string): Checkpoint {
  const [origin, size, root] = text.split("\n");
  const hash = root === undefined ? null : fromBase64(root);
  if (!origin || !size || !/^(0|[1-9][0-9]{0,15})$/.test(size) || !Number.isSafeInteger(Number(size)) || hash?.length !== 32) throw new BadNote("this is no checkpoint");
  return { origin, size: Number(size), root: hash };
}

function fromBase64(text: string): Hash | null {
  try {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    // Another spelling of the same bytes is refused: padding is there, leftover bits are zero.
    return btoa(String.fromCharCode(...bytes)) === text ? bytes : null;
  } catch {
    return null;
  }
}

const bytesOf = (hex: string): Uint8Array => (fromHex(hex.padEnd(64, "0")) ?? new Uint8Array(32)).subarray(0, 4);
