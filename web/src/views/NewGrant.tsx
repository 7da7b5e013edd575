// A new grant: five fields with sensible answers filled in, and what comes of it before the button. A template fills in all but who.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { lazy, Suspense, useEffect, useId, useMemo, useState } from "react";
import { answer, api, type Schema } from "../api/client";
import { bastionQuery, grantQuery, peopleQuery, targetsQuery, templatesQuery } from "../api/queries";
import { useWords } from "../i18n";
import { AllowChecks } from "../parts/AllowChecks";
import { Dialog } from "../parts/Dialog";
import { Command, CopyButton, useNow } from "../parts/small";
import { Loading, ProblemLine } from "../parts/states";
import { readLimits, UNLIMITED, writeLimits, type Written } from "../parts/limits";
import { Suggest } from "../parts/Suggest";
import { readWindow, writeSpan } from "../parts/when";
import css from "./Grants.module.css";
import { sameTerms, termsOf } from "./terms";

// Folded at first: the dialog is there before it.
const MoreLimits = lazy(() => import("./MoreLimits").then((module) => ({ default: module.MoreLimits })));

type Allow = Schema<"Allow">;
type Template = Schema<"Template">;

const LASTS = ["1h", "4h", "8h"] as const;
const USUAL: Allow = { shell: true, exec: true, upload: false, download: false, forwards: [] };

interface Props {
  person: string | undefined;
  target: string | undefined;
  /** The id of a grant that this one shall be like. */
  like: string | undefined;
  /** The name of a template to begin with. */
  template: string | undefined;
  onClose: () => void;
}

export default function NewGrant(props: Props) {
  const { t } = useWords();
  const like = useQuery({ ...grantQuery(props.like ?? ""), enabled: props.like !== undefined, refetchInterval: false });
  const templates = useQuery(templatesQuery);
  if (props.like !== undefined && !like.data && !like.error) return <Loading />;
  // A template that the address names must be known before the fields are filled in.
  if (templates.isPending) return <Loading />;
  return <Form key={props.like ?? "new"} {...props} begun={like.data} templates={templates.data?.items ?? []} title={t.make.title} />;
}

interface FormProps extends Props {
  begun: Schema<"Grant"> | undefined;
  templates: readonly Template[];
  title: string;
}

function Form({ person, target, begun, template: named, templates, title, onClose }: FormProps) {
  const words = useWords();
  const { t } = words;
  const id = useId();
  const now = useNow(5000);
  const client = useQueryClient();
  const people = useQuery(peopleQuery);
  const all = useQuery(targetsQuery);
  const bastion = useQuery(bastionQuery);

  const [names, setNames] = useState<string[]>(begun?.people.map((one) => one.name) ?? (person ? [person] : []));
  // What a grant of the past was made from, or the address names. Of one that is gone nothing is known.
  const [template, setTemplate] = useState<Template | null>(templates.find((one) => one.name === (named ?? begun?.template)) ?? null);
  const said = begun ? null : template;
  const [targets, setTargets] = useState<string[]>(begun?.targets ?? (target ? [target] : (said?.terms.targets ?? [])));
  const [logins, setLogins] = useState<string[] | null>(begun?.logins ?? (said?.terms.logins?.length ? said.terms.logins : null));
  const [allow, setAllow] = useState<Allow>(begun?.allow ?? said?.terms.allow ?? USUAL);
  const [lasts, setLasts] = useState(said?.lasting_seconds ? writeSpan(said.lasting_seconds) : "4h");
  const [reason, setReason] = useState(begun?.reason ?? said?.reason ?? "");
  const [ticket, setTicket] = useState(begun?.ticket ?? "");
  const [second, setSecond] = useState(begun?.second_factor ?? said?.terms.second_factor ?? false);
  const [written, setWritten] = useState<Written>(begun ? writeLimits(begun) : said ? writeLimits(termsOf(said)) : UNLIMITED);

  const choose = (name: string) => {
    const chosen = templates.find((one) => one.name === name) ?? null;
    setTemplate(chosen);
    if (chosen === null) return; // what is filled in stays
    const terms = termsOf(chosen);
    if (terms.targets.length > 0) setTargets(terms.targets);
    setLogins(terms.logins.length > 0 ? terms.logins : null);
    setAllow(terms.allow);
    setSecond(terms.second_factor);
    setWritten(writeLimits(terms));
    if (chosen.lasting_seconds) setLasts(writeSpan(chosen.lasting_seconds));
    if (chosen.reason && reason.trim() === "") setReason(chosen.reason);
  };
  // Targets and logins may be fewer than the template's, the bastion sees to that; any other change makes the terms the grant's own.
  const isTemplates = template !== null && sameTerms(termsOf(template), { allow, second, written });
  const read = readLimits(written);
  const limits = "wrong" in read ? null : read;
  // Where there are patterns of commands there is no shell.
  const onlyCommands = written.exec.trim() !== "";

  // What the selectors mean is asked of the bastion, which alone decides it.
  const preview = useQuery({
    queryKey: ["preview", targets],
    queryFn: () =>
      answer(api.POST("/api/v1/grants/preview", { body: { people: names, targets, logins: [], not_after: new Date(Date.now() + 3_600_000).toISOString(), reason: "preview" } })),
    enabled: targets.length > 0,
    staleTime: 5000,
    retry: false,
  });
  const matching = targets.length > 0 ? (preview.data?.matching_targets ?? []) : [];
  const possible = useMemo(() => [...new Set(matching.flatMap((one) => one.logins))].sort(), [matching]);
  // The only login there is needs no choice.
  const chosenLogins = logins ?? (possible.length === 1 ? possible : []);
  useEffect(() => {
    if (logins !== null && possible.length > 0 && !begun && logins.some((login) => !possible.includes(login))) setLogins(logins.filter((login) => possible.includes(login)));
  }, [possible, logins, begun]);

  const window = readWindow(lasts, new Date(now));
  const isReady = names.length > 0 && targets.length > 0 && chosenLogins.length > 0 && window !== null && reason.trim() !== "" && limits !== null;

  const make = useMutation({
    mutationFn: () => {
      if (limits === null) throw new Error("the limits cannot be read");
      const { forwards, ...more } = limits;
      const exact = readWindow(lasts, new Date());
      // The form has no field for it: it stays as the template, or the grant that this one is like, says.
      const review = begun?.review ?? template?.terms.review ?? null;
      const terms = isTemplates ? { template: template.name } : { review, allow: { ...allow, shell: allow.shell && !onlyCommands, forwards }, second_factor: second, ...more };
      return answer(
        api.POST("/api/v1/grants", {
          body: {
            people: names,
            targets,
            logins: chosenLogins,
            ...(exact?.from ? { not_before: exact.from.toISOString() } : {}),
            not_after: (exact?.until ?? new Date(0)).toISOString(),
            reason: reason.trim(),
            ticket: ticket.trim() === "" ? null : ticket.trim(),
            ...terms,
          },
        }),
      );
    },
    onSuccess: () => void client.invalidateQueries({ queryKey: ["grants"] }),
  });

  const first = matching[0]?.name ?? targets[0] ?? "";
  const line = (name: string): string => {
    const place = bastion.data ? `${bastion.data.ssh_port === 22 ? "" : `-p ${bastion.data.ssh_port} `}${name}+${chosenLogins[0] ?? "LOGIN"}@${first}@${bastion.data.ssh_host}` : "";
    return `ssh ${place}`;
  };

  if (make.data) {
    const made = make.data;
    const who = words.list(made.people.map((one) => one.name));
    return (
      <Dialog key="done" title={t.make.done(who)} onClose={onClose} onSubmit={onClose} actions={<button type="submit" className="primary">{t.close}</button>}>
        {made.people.map((one) => (
          <div key={one.id} className="field">
            <span className="label">{one.name}</span>
            <Command text={line(one.name)} />
            <span>
              <CopyButton label={t.grant.copyMessage(one.name)} text={t.make.message(one.name, line(one.name), bastion.data?.host_key ?? "", words.exact(made.not_after))} />
            </span>
          </div>
        ))}
        <p className="muted">{t.make.ends(words.exact(made.not_after))}</p>
      </Dialog>
    );
  }

  const people_options = people.data?.items
    .filter((one) => !one.disabled_at)
    .map((one) => ({ value: one.name, note: [one.organisation, one.keys.length > 0 ? t.make.keys(one.keys.length) : t.make.noKeys].filter(Boolean).join(" · ") }));
  const labels = [...new Set((all.data?.items ?? []).flatMap((one) => Object.entries(one.labels).map(([key, value]) => `${key}=${value}`)))];
  const target_options = [
    ...(all.data?.items ?? []).filter((one) => !one.disabled_at).map((one) => ({ value: one.name, note: one.logins.map((login) => login.login).join(", ") })),
    ...labels.map((label) => ({ value: label, note: t.target.labels })),
  ];
  return (
    <Dialog
      title={title}
      onClose={onClose}
      onSubmit={() => isReady && !make.isPending && make.mutate()}
      actions={
        <>
          <span className="grow hint" role="status">
            {isReady ? "" : t.make.wait}
          </span>
          <button type="button" onClick={onClose}>
            {t.cancel}
          </button>
          <button type="submit" className="primary" disabled={!isReady || make.isPending} title="Ctrl Enter, ⌘ Enter">
            {t.make.submit}
          </button>
        </>
      }
    >
      <Suggest label={t.make.person} options={people_options} value={names} onChange={setNames} many mono={false} remove={t.cancel} />
      <ProblemLine error={people.error} />
      {templates.length > 0 ? (
        <div className="field">
          <label htmlFor={`${id}-template`}>{t.template.one}</label>
          <select id={`${id}-template`} value={template?.name ?? ""} onChange={(event) => choose(event.target.value)} aria-describedby={`${id}-template-hint`}>
            <option value="">{t.template.without}</option>
            {templates.map((one) => (
              <option key={one.name} value={one.name}>
                {one.name}
              </option>
            ))}
          </select>
          <span className={template !== null && !isTemplates ? "warn" : "hint"} id={`${id}-template-hint`} role="status">
            {template === null ? t.template.choose : isTemplates ? template.note : t.template.changed(template.name)}
          </span>
        </div>
      ) : null}
      <div>
        <Suggest label={t.make.targets} options={target_options} value={targets} onChange={setTargets} many free hint={t.make.targetsHint} remove={t.cancel} />
        {targets.length > 0 && preview.data ? (
          <p className={matching.length > 0 ? "hint" : "bad"} role="status" title={matching.map((one) => one.name).join(", ")}>
            {matching.length > 0 ? t.make.matches(matching.length) : t.make.noMatch}
            {matching.length > 0 && matching.length <= 6 ? ": " : ""}
            {matching.length <= 6 ? <code>{matching.map((one) => one.name).join(", ")}</code> : null}
          </p>
        ) : null}
        {targets.length > 0 && preview.error ? <ProblemLine error={preview.error} /> : null}
      </div>
      <div className={css.two}>
        <fieldset className={css.plain}>
          <legend>{t.make.logins}</legend>
          <span className={css.checks}>
            {possible.length === 0 ? <span className="faint">–</span> : null}
            {possible.map((login) => (
              <label key={login} className="mono">
                <input
                  type="checkbox"
                  checked={chosenLogins.includes(login)}
                  onChange={(event) => setLogins(event.target.checked ? [...chosenLogins, login] : chosenLogins.filter((other) => other !== login))}
                />
                {login}
              </label>
            ))}
          </span>
        </fieldset>
        <AllowChecks allow={allow} onlyCommands={onlyCommands} onChange={setAllow} />
      </div>
      <div className="field">
        <label htmlFor={`${id}-lasts`}>{t.make.lasts}</label>
        <span className="row wrap">
          <input id={`${id}-lasts`} className="mono grow" value={lasts} onChange={(event) => setLasts(event.target.value)} aria-describedby={`${id}-end`} />
          <span className="segmented" role="group" aria-label={t.make.lasts}>
            {LASTS.map((one) => (
              <button key={one} type="button" aria-pressed={lasts === one} onClick={() => setLasts(one)}>
                {one}
              </button>
            ))}
          </span>
        </span>
        <span className={window ? "hint" : "bad"} id={`${id}-end`} role="status">
          {window ? `${window.from ? `${t.make.begins(words.exact(window.from))}. ` : ""}${t.make.ends(words.exact(window.until))}` : t.make.notUnderstood}
        </span>
      </div>
      <div className={css.two}>
        <div className="field">
          <label htmlFor={`${id}-why`}>{t.reason}</label>
          <input id={`${id}-why`} value={reason} maxLength={1000} required onChange={(event) => setReason(event.target.value)} autoComplete="off" />
        </div>
        <div className="field">
          <label htmlFor={`${id}-ticket`}>
            {t.make.ticket} ({t.make.optional})
          </label>
          <input id={`${id}-ticket`} className="mono" value={ticket} maxLength={100} onChange={(event) => setTicket(event.target.value)} autoComplete="off" />
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
      {isReady && bastion.data ? (
        <div className={css.will}>
          <h2>{t.make.get(words.list(names))}</h2>
          <code className="break">{line(names[0] ?? "")}</code>
          <span className="muted">{t.make.recorded}</span>
        </div>
      ) : null}
      <ProblemLine error={make.error} />
    </Dialog>
  );
}
