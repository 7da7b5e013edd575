// An event's canonical bytes (docs/formats.md, "Canonical bytes" and "Events"), as the ledger hashes them.

const PREFIX = "sallyport-event-v1\n";

export interface Said {
  id: string;
  at: string;
  actor: unknown;
  act: unknown;
}

/** The entry of an event as the API tells it. Integers above 2⁵³ do not survive that, so such an entry must be asked for. */
export function entryOf({ act, actor, at, id }: Said): string {
  return PREFIX + canonical({ act, actor, at, id });
}

/** What an entry says, or `null` if it is none. */
export function readEntry(entry: string): Said | null {
  if (!entry.startsWith(PREFIX)) return null;
  try {
    const said: unknown = JSON.parse(entry.slice(PREFIX.length));
    if (typeof said !== "object" || said === null || !("id" in said) || !("at" in said) || typeof said.id !== "string" || typeof said.at !== "string") return null;
    return { id: said.id, at: said.at, actor: "actor" in said ? said.actor : null, act: "act" in said ? said.act : null };
  } catch {
    return null;
  }
}

/** JSON as RFC 8785 spells it, for what events hold: strings, whole numbers, booleans, null, lists and objects. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`).join(",")}}`;
  }
  return JSON.stringify(value);
}
