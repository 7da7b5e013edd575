// A template, new or changed: the fields of a grant without its people and its window.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { lazy, Suspense, useId, useState } from "react";
import { answer, api, type Schema } from "../api/client";
import { targetsQuery } from "../api/queries";
import { useWords } from "../i18n";
import { AllowChecks } from "../parts/AllowChecks";
import { Dialog } from "../parts/Dialog";
import { readLimits, UNLIMITED, writeLimits, type Written } from "../parts/limits";
import { useToast } from "../parts/small";
import { ProblemLine } from "../parts/states";
import { Suggest } from "../parts/Suggest";
import { readSpan, writeSpan } from "../parts/when";
import css from "./Grants.module.css";
import { termsOf, toTerms } from "./terms";

// Folded at first: the dialog is there before it.
const MoreLimits = lazy(() => import("./MoreLimits").then((module) => ({ default: module.MoreLimits })));

const USUAL: Schema<"Allow"> = { shell: true, exec: true, upload: false, download: false, forwards: [] };

export default function TemplateDialog({ template, onClose }: { template: Schema<"Template"> | null; onClose: () => void }) {
  const { t } = useWords();
  const id = useId();
  const client = useQueryClient();
  const navigate = useNavigate();
  const toast = useToast();
  const all = useQuery(targetsQuery);
  const before = template ? termsOf(template) : null;
  const [name, setName] = useState("");
  const [note, setNote] = useState(template?.note ?? "");
  const [targets, setTargets] = useState<string[]>(before?.targets ?? []);
  const [logins, setLogins] = useState<string[]>(before?.logins ?? []);
  const [allow, setAllow] = useState(before?.allow ?? USUAL);
  const [second, setSecond] = useState(before?.second_factor ?? false);
  const [written, setWritten] = useState<Written>(before ? writeLimits(before) : UNLIMITED);
  const [lasts, setLasts] = useState(template ? (template.lasting_seconds ? writeSpan(template.lasting_seconds) : "") : "4h");
  const [reason, setReason] = useState(template?.reason ?? "");

  const read = readLimits(written);
  const lasting = lasts.trim() === "" ? null : readSpan(lasts);
  const terms = toTerms(targets, logins, { allow, second, written });
  const isReady = (template !== null || name.trim() !== "") && terms !== null && (lasts.trim() === "" || lasting !== null);
  const save = useMutation({
    mutationFn: () => {
      if (terms === null) throw new Error("the limits cannot be read");
      // The form has no field for when sessions are to be reviewed: that stays as it is.
      const body = { note: note.trim(), terms: { ...terms, review: template?.terms.review ?? null }, lasting_seconds: lasting, reason: reason.trim() === "" ? null : reason.trim() };
      return answer(
        template
          ? api.PUT("/api/v1/templates/{name}", { params: { path: { name: template.name } }, body })
          : api.POST("/api/v1/templates", { body: { name: name.trim(), ...body } }),
      );
    },
    onSuccess: (saved) => {
      toast(t.template.saved);
      onClose();
      void client.invalidateQueries({ queryKey: ["templates"] });
      void navigate({ to: "/settings/templates", search: { name: saved.name }, replace: true });
    },
  });

  const labels = [...new Set((all.data?.items ?? []).flatMap((one) => Object.entries(one.labels).map(([key, value]) => `${key}=${value}`)))];
  const target_options = [...(all.data?.items ?? []).filter((one) => !one.disabled_at).map((one) => ({ value: one.name, note: one.address })), ...labels.map((label) => ({ value: label, note: t.target.labels }))];
  const login_options = [...new Set((all.data?.items ?? []).flatMap((one) => one.logins.map((login) => login.login)))].sort().map((value) => ({ value }));
  return (
    <Dialog
      title={template ? t.template.changeTitle(template.name) : t.template.addTitle}
      onClose={onClose}
      onSubmit={() => isReady && !save.isPending && save.mutate()}
      actions={
        <>
          <span className="grow hint">{template ? t.template.copies : ""}</span>
          <button type="button" onClick={onClose}>
            {t.cancel}
          </button>
          <button type="submit" className="primary" disabled={!isReady || save.isPending} title="Ctrl Enter, ⌘ Enter">
            {t.save}
          </button>
        </>
      }
    >
      <div className={css.two}>
        {template ? null : (
          <div className="field">
            <label htmlFor={`${id}-name`}>{t.template.name}</label>
            <input id={`${id}-name`} className="mono" autoCapitalize="off" autoComplete="off" spellCheck={false} value={name} onChange={(event) => setName(event.target.value)} />
          </div>
        )}
        <div className="field">
          <label htmlFor={`${id}-note`}>
            {t.template.note} ({t.make.optional})
          </label>
          <input id={`${id}-note`} value={note} maxLength={1000} autoComplete="off" onChange={(event) => setNote(event.target.value)} />
        </div>
      </div>
      <Suggest label={t.grant.targets} options={target_options} value={targets} onChange={setTargets} many free hint={`${t.make.targetsHint} ${t.template.openHint}`} remove={t.cancel} />
      <Suggest label={t.grant.logins} options={login_options} value={logins} onChange={setLogins} many free hint={t.template.openHint} remove={t.cancel} />
      <AllowChecks allow={allow} onlyCommands={written.exec.trim() !== ""} onChange={setAllow} />
      <div className={css.two}>
        <div className="field">
          <label htmlFor={`${id}-lasts`}>{t.make.lasts}</label>
          <input id={`${id}-lasts`} className="mono" value={lasts} onChange={(event) => setLasts(event.target.value)} aria-describedby={`${id}-lasts-hint`} aria-invalid={lasts.trim() !== "" && lasting === null} />
          <span className={lasts.trim() !== "" && lasting === null ? "bad" : "hint"} id={`${id}-lasts-hint`}>
            {lasts.trim() !== "" && lasting === null ? t.template.notSpan : t.template.openHint}
          </span>
        </div>
        <div className="field">
          <label htmlFor={`${id}-reason`}>{t.reason}</label>
          <input id={`${id}-reason`} value={reason} maxLength={1000} autoComplete="off" onChange={(event) => setReason(event.target.value)} aria-describedby={`${id}-reason-hint`} />
          <span className="hint" id={`${id}-reason-hint`}>
            {t.template.openHint}
          </span>
        </div>
      </div>
      <span className={css.checks}>
        <label>
          <input type="checkbox" checked={second} onChange={(event) => setSecond(event.target.checked)} />
          {t.make.second}
        </label>
      </span>
      <Suspense>
        <MoreLimits written={written} wrong={"wrong" in read ? read.wrong : []} upload={allow.upload ?? false} download={allow.download ?? false} onChange={setWritten} />
      </Suspense>
      <ProblemLine error={save.error} />
    </Dialog>
  );
}
