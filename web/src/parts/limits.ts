// What limits a grant, as people write it: a pattern, path, network or destination to a line, sizes with units. Pure. What is left empty
// limits nothing; `none` in place of paths or hashes allows none.
import type { Schema } from "../api/client";

type Made = Schema<"MakeGrant">;
type Files = Schema<"Files">;
type OneWay = Schema<"FilesOneWay">;

export interface Written {
  exec: string;
  flag: string;
  forwards: string;
  from: "target" | "bastion";
  metadataOnly: boolean;
  uploadPaths: string;
  uploadFile: string;
  uploadTotal: string;
  uploadHashes: string;
  downloadPaths: string;
  downloadFile: string;
  downloadTotal: string;
  terminal: string;
  networks: string;
  sessions: string;
  approval: Schema<"Grant">["approval"];
}

export const UNLIMITED: Written = {
  exec: "", flag: "", forwards: "", from: "target", metadataOnly: false, uploadPaths: "", uploadFile: "", uploadTotal: "", uploadHashes: "",
  downloadPaths: "", downloadFile: "", downloadTotal: "", terminal: "", networks: "", sessions: "", approval: "none",
};

export type Limits = Required<Pick<Made, "commands" | "files" | "forwarding" | "source_networks" | "max_sessions" | "approval">> & { forwards: Schema<"Destination">[] };

/** The limits that are meant, or the fields that cannot be read. */
export function readLimits(written: Written): Limits | { wrong: (keyof Written)[] } {
  const wrong: (keyof Written)[] = [];
  const read = <T>(field: keyof Written, value: T | undefined): T | null => {
    if (value === undefined) wrong.push(field);
    return value ?? null;
  };
  const forwards = lines(written.forwards).map(readDestination);
  if (forwards.includes(undefined)) wrong.push("forwards");
  const size = (field: keyof Written): number | null => (written[field] === "" ? null : read(field, readSize(String(written[field]))));
  const hashes = someOf(written.uploadHashes)?.map((hash) => hash.toLowerCase()) ?? null;
  if (hashes?.some((hash) => !/^[0-9a-f]{64}$/.test(hash))) wrong.push("uploadHashes");
  const sessions = written.sessions.trim() === "" ? null : read("sessions", /^[1-9][0-9]{0,5}$/.test(written.sessions.trim()) ? Number(written.sessions) : undefined);
  const limits: Limits = {
    commands: { exec: lines(written.exec), flag: lines(written.flag) },
    forwards: forwards.filter((one) => one !== undefined),
    forwarding: { from: written.from, metadata_only: written.metadataOnly },
    files: {
      upload: { paths: someOf(written.uploadPaths), file_bytes: size("uploadFile"), total_bytes: size("uploadTotal") },
      download: { paths: someOf(written.downloadPaths), file_bytes: size("downloadFile"), total_bytes: size("downloadTotal") },
      upload_sha256: hashes,
      terminal_bytes: size("terminal"),
    },
    source_networks: lines(written.networks),
    max_sessions: sessions,
    approval: written.approval,
  };
  return wrong.length > 0 ? { wrong } : limits;
}

/** A grant's limits as they would be written. */
export function writeLimits(grant: Pick<Schema<"Grant">, "allow" | "commands" | "files" | "forwarding" | "source_networks" | "max_sessions" | "approval">): Written {
  const { files } = grant;
  const [up, down] = [files.upload, files.download];
  const bytes = (value: number | null | undefined) => (value === null || value === undefined ? "" : writeSize(value));
  return {
    exec: (grant.commands.exec ?? []).join("\n"),
    flag: (grant.commands.flag ?? []).join("\n"),
    forwards: (grant.allow.forwards ?? []).map(writeDestination).join("\n"),
    from: grant.forwarding.from === "bastion" ? "bastion" : "target",
    metadataOnly: grant.forwarding.metadata_only ?? false,
    uploadPaths: many(up?.paths),
    uploadFile: bytes(up?.file_bytes),
    uploadTotal: bytes(up?.total_bytes),
    uploadHashes: many(files.upload_sha256),
    downloadPaths: many(down?.paths),
    downloadFile: bytes(down?.file_bytes),
    downloadTotal: bytes(down?.total_bytes),
    terminal: bytes(files.terminal_bytes),
    networks: grant.source_networks.join("\n"),
    sessions: grant.max_sessions ? String(grant.max_sessions) : "",
    approval: grant.approval,
  };
}

const lines = (text: string): string[] => text.split("\n").map((line) => line.trim()).filter(Boolean);

/** `null` limits nothing, an empty list allows nothing. */
function someOf(text: string): string[] | null {
  const found = lines(text);
  if (found.length === 0) return null;
  return found.length === 1 && found[0] === "none" ? [] : found;
}

const many = (list: readonly string[] | null | undefined): string => (list ? (list.length === 0 ? "none" : list.join("\n")) : "");

const UNITS: readonly (readonly [string, number])[] = [
  ["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10], ["TB", 1e12], ["GB", 1e9], ["MB", 1e6], ["KB", 1e3], ["B", 1],
];

/** `500 MB`, `1.5 GiB`, `4096`: whole bytes, at least one. */
export function readSize(text: string): number | undefined {
  const [, count, unit] = text.trim().match(/^(\d+(?:\.\d+)?)\s*([kmgt]i?b|b)?$/i) ?? [];
  if (count === undefined) return undefined;
  const bytes = Math.round(Number(count) * (UNITS.find(([name]) => name.toLowerCase() === (unit ?? "B").toLowerCase())?.[1] ?? 1));
  return bytes > 0 && Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** Exactly so many bytes, in the largest unit of which they are a whole number. */
export function writeSize(bytes: number): string {
  const [name, unit] = UNITS.toSorted(([, a], [, b]) => b - a).find(([, size]) => bytes >= size && bytes % size === 0) ?? ["B", 1];
  return `${bytes / unit} ${name}`;
}

/** `db-1:5432`, `[fe80::1]:80`, `/run/db.sock` */
export function readDestination(text: string): Schema<"Destination"> | undefined {
  if (text.startsWith("/")) return { host: text, port: 0 };
  const [, host, port] = text.match(/^(.+):(\d{1,5})$/) ?? [];
  const name = host?.replace(/^\[(.*)\]$/, "$1") ?? "";
  return name !== "" && Number(port) > 0 && Number(port) < 65_536 ? { host: name, port: Number(port) } : undefined;
}

export const writeDestination = ({ host, port }: Schema<"Destination">): string => (port === 0 ? host : host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`);

/** What limits files, in few words; each is a fact of the grant. */
export function fileLimits(files: Files): { upload: OneWay | null; download: OneWay | null; hashes: number | null; terminal: number | null } {
  const any = (way: OneWay | undefined) => (way && (way.paths || way.file_bytes || way.total_bytes) ? way : null);
  return { upload: any(files.upload), download: any(files.download), hashes: files.upload_sha256?.length ?? null, terminal: files.terminal_bytes ?? null };
}
