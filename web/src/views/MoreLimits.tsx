// What most grants leave open: commands, forwards, files, networks, whose yes each session takes. Folded, unless something is set.
import { useId, type ReactNode } from "react";
import { useWords } from "../i18n";
import { UNLIMITED, type Written } from "../parts/limits";
import css from "./Grants.module.css";

type Texts = { [K in keyof Written]: Written[K] extends boolean ? never : K }[keyof Written];

export function MoreLimits({ written, wrong, upload, download, onChange }: {
  written: Written;
  wrong: readonly (keyof Written)[];
  /** Whether files may go that way at all. */
  upload: boolean;
  download: boolean;
  onChange: (written: Written) => void;
}) {
  const { t } = useWords();
  const w = t.limits;
  const id = useId();
  const set = (change: Partial<Written>) => onChange({ ...written, ...change });
  const isSet = (Object.keys(UNLIMITED) as (keyof Written)[]).filter((field) => written[field] !== UNLIMITED[field]).length;
  const field = (name: Texts, label: string, shape: "lines" | "line", hint?: ReactNode, placeholder?: string) => {
    const shared = {
      id: `${id}-${name}`, className: "mono", spellCheck: false, autoComplete: "off", autoCapitalize: "off", value: written[name], "aria-invalid": wrong.includes(name), "aria-describedby": `${id}-${name}-hint`,
      ...(placeholder ? { placeholder } : {}), onChange: (event: { target: { value: string } }) => set({ [name]: event.target.value }),
    } as const;
    return (
      <div className="field">
        <label htmlFor={shared.id}>{label}</label>
        {shape === "lines" ? <textarea rows={2} {...shared} /> : <input {...shared} />}
        <span className={wrong.includes(name) ? "bad" : "hint"} id={`${id}-${name}-hint`}>
          {wrong.includes(name) ? `${w.wrong} ` : ""}
          {hint}
        </span>
      </div>
    );
  };
  return (
    <details className={css.more}>
      <summary>
        {w.title}
        {isSet > 0 ? <span className="tag">{w.set(isSet)}</span> : null}
        {wrong.length > 0 ? <span className="bad">{w.wrong}</span> : null}
      </summary>
      <div className={css.moreBody}>
        <fieldset className={css.plain}>
          <legend>{w.commands}</legend>
          <div className={css.two}>
            {field("exec", w.exec, "lines", w.execHint, "systemctl restart app-*")}
            {field("flag", w.flag, "lines", w.flagHint, "*rm -rf*")}
          </div>
        </fieldset>
        <fieldset className={css.plain}>
          <legend>{t.grant.caps.forwarding}</legend>
          {field("forwards", w.forwards, "lines", w.forwardsHint, "db-1:5432")}
          {written.forwards.trim() === "" ? null : (
            <div className="row wrap">
              <select aria-label={w.dialled} value={written.from} onChange={(event) => set({ from: event.target.value === "bastion" ? "bastion" : "target" })}>
                <option value="target">{w.fromTarget}</option>
                <option value="bastion">{w.fromBastion}</option>
              </select>
              <label className="row">
                <input type="checkbox" checked={written.metadataOnly} onChange={(event) => set({ metadataOnly: event.target.checked })} /> {w.metadataOnly}
              </label>
            </div>
          )}
        </fieldset>
        <fieldset className={css.plain}>
          <legend>↑ {t.grant.caps.upload}</legend>
          {upload ? null : <p className="hint">{w.notAllowed}</p>}
          {field("uploadPaths", w.paths, "lines", w.pathsHint, "/srv/app/**")}
          <div className={css.two}>
            {field("uploadFile", w.file, "line", w.sizeHint, "500 MB")}
            {field("uploadTotal", w.total, "line", w.sizeHint, "2 GB")}
          </div>
          {field("uploadHashes", w.hashes, "lines", w.hashesHint)}
        </fieldset>
        <fieldset className={css.plain}>
          <legend>↓ {t.grant.caps.download}</legend>
          {download ? null : <p className="hint">{w.notAllowed}</p>}
          {field("downloadPaths", w.paths, "lines", w.pathsHint, "~/logs/*")}
          <div className={css.two}>
            {field("downloadFile", w.file, "line", w.sizeHint, "10 MB")}
            {field("downloadTotal", w.total, "line", w.sizeHint, "100 MB")}
          </div>
          {field("terminal", w.terminal, "line", w.terminalHint, "50 MB")}
        </fieldset>
        <fieldset className={css.plain}>
          <legend>{t.sessions}</legend>
          <div className={css.two}>
            {field("networks", t.grant.networks, "lines", w.networksHint, "203.0.113.0/24")}
            <div>
              {field("sessions", t.grant.maxSessions, "line", "", "1")}
              <div className="field">
                <label htmlFor={`${id}-approval`}>{t.grant.approval}</label>
                <select id={`${id}-approval`} value={written.approval} onChange={(event) => set({ approval: (["none", "per_session", "watcher"] as const).find((one) => one === event.target.value) ?? "none" })}>
                  {(["none", "per_session", "watcher"] as const).map((one) => (
                    <option key={one} value={one}>
                      {t.grant.approvals[one]}
                    </option>
                  ))}
                </select>
              </div>
            </div>
          </div>
        </fieldset>
      </div>
    </details>
  );
}
