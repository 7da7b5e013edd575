// A template's terms as forms hold them. Pure.
import type { Schema } from "../api/client";
import { readLimits, writeLimits, type Written } from "../parts/limits";

type Allow = Schema<"Allow">;
type Template = Schema<"Template">;

const ANY_FILES: Schema<"Files"> = {
  upload: { paths: null, file_bytes: null, total_bytes: null },
  download: { paths: null, file_bytes: null, total_bytes: null },
  upload_sha256: null,
  terminal_bytes: null,
};

/** What a form says, but for targets and logins. */
export interface Said {
  allow: Allow;
  second: boolean;
  written: Written;
}

/** What a template says, with what is usual where it says nothing. */
export function termsOf({ terms }: Pick<Template, "terms">) {
  const commands = { exec: terms.commands?.exec ?? [], flag: terms.commands?.flag ?? [] };
  const usual: Allow = { shell: commands.exec.length === 0, exec: true, upload: false, download: false, forwards: [] };
  return {
    targets: terms.targets ?? [],
    logins: terms.logins ?? [],
    allow: terms.allow ?? usual,
    second_factor: terms.second_factor ?? false,
    commands,
    files: terms.files ?? ANY_FILES,
    forwarding: terms.forwarding ?? { from: "target" as const, metadata_only: false },
    source_networks: terms.source_networks ?? [],
    max_sessions: terms.max_sessions ?? null,
    approval: terms.approval ?? ("none" as const),
  };
}

/** Whether what the form says is what the template says; targets and logins are not looked at. */
export function sameTerms(terms: ReturnType<typeof termsOf>, said: Said): boolean {
  const caps = ({ shell, exec, upload, download }: Allow, isShut: boolean) => [(shell ?? false) && !isShut, exec ?? false, upload ?? false, download ?? false];
  const shut = said.written.exec.trim() !== "";
  return (
    JSON.stringify(caps(terms.allow, shut)) === JSON.stringify(caps(said.allow, shut)) &&
    terms.second_factor === said.second &&
    // Written and read again, so that neither case nor units nor spaces make a difference.
    JSON.stringify(readLimits(writeLimits(terms))) === JSON.stringify(readLimits(said.written))
  );
}

/** The terms that a form says. */
export function toTerms(targets: string[], logins: string[], said: Said): Schema<"GrantTerms"> | null {
  const limits = readLimits(said.written);
  if ("wrong" in limits) return null;
  const { forwards, ...more } = limits;
  return { targets, logins, allow: { ...said.allow, shell: (said.allow.shell ?? false) && said.written.exec.trim() === "", forwards }, second_factor: said.second, ...more };
}
