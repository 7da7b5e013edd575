// What may be done, to be ticked.
import type { Schema } from "../api/client";
import { useWords } from "../i18n";
import css from "./parts.module.css";

type Allow = Schema<"Allow">;

export function AllowChecks({ allow, onlyCommands, onChange }: {
  allow: Allow;
  /** Where there are patterns of commands there is no shell. */
  onlyCommands: boolean;
  onChange: (allow: Allow) => void;
}) {
  const { t } = useWords();
  return (
    <fieldset className={css.fields}>
      <legend>{t.grant.allow}</legend>
      <span className={css.checks}>
        {(["shell", "exec", "upload", "download"] as const).map((what) => {
          const isShut = what === "shell" && onlyCommands;
          return (
            <label key={what}>
              <input type="checkbox" checked={(allow[what] ?? false) && !isShut} disabled={isShut} onChange={(event) => onChange({ ...allow, [what]: event.target.checked })} />
              {t.grant.caps[what]}
            </label>
          );
        })}
      </span>
    </fieldset>
  );
}
