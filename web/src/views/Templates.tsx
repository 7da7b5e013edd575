// Templates for grants: what is agreed once, so that a grant is who, which template, and until when.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { lazy, Suspense, useState } from "react";
import { answer, api, type Schema } from "../api/client";
import { templatesQuery } from "../api/queries";
import { useWords } from "../i18n";
import { Capabilities } from "../parts/Capabilities";
import { Dialog } from "../parts/Dialog";
import { Command, useToast, When } from "../parts/small";
import { Empty, ProblemLine } from "../parts/states";
import { templatesRoute } from "../router";
import { ListPage } from "./ListPage";
import css from "./Lists.module.css";
import { has, useMe } from "./Shell";
import { termsOf } from "./terms";

const TemplateDialog = lazy(() => import("./TemplateDialog"));

type Template = Schema<"Template">;

export function Templates() {
  const { t, span } = useWords();
  const me = useMe();
  const search = templatesRoute.useSearch();
  const navigate = useNavigate();
  const templates = useQuery(templatesQuery);
  const [asked, setAsked] = useState<"new" | Template | null>(null);
  // A list's rows have ids; a template's is its name.
  const rows = { ...templates, data: templates.data && { items: templates.data.items.map((one) => ({ ...one, id: one.name })) } };
  const chosen = rows.data?.items.find((one) => one.name === search.name);
  return (
    <ListPage
      title={t.template.list}
      add={has(me, "admin") ? { label: t.template.add, onClick: () => setAsked("new") } : null}
      filter={search.q ?? ""}
      onFilter={(q) => void navigate({ to: "/settings/templates", search: q ? { q } : {}, replace: true })}
      query={rows}
      text={(one) => [one.name, one.note, ...(one.terms.targets ?? []), ...(one.terms.logins ?? [])].join(" ")}
      empty={
        <Empty title={t.template.empty}>
          <p className="muted">{t.template.emptyHint}</p>
          <Command text="sallyport template new firmware 'gpu-*' --login root --for 4h --allow exec,upload" />
        </Empty>
      }
      head={
        <>
          <th>{t.template.name}</th>
          <th>{t.grant.targets}</th>
          <th>{t.grant.logins}</th>
          <th className="wide">{t.grant.allow}</th>
          <th className="wide">{t.make.lasts}</th>
        </>
      }
      row={(one) => (
        <>
          <td>
            <Link to="/settings/templates" search={{ ...(search.q ? { q: search.q } : {}), name: one.name }} aria-current={one === chosen ? "true" : undefined}>
              {one.name}
            </Link>
          </td>
          <td className="mono break">{one.terms.targets?.join(", ") ?? <span className="muted">{t.template.open}</span>}</td>
          <td className="mono">{one.terms.logins?.join(", ") ?? <span className="muted">{t.template.open}</span>}</td>
          <td className="wide">
            <Capabilities grant={termsOf(one)} />
          </td>
          <td className="wide">{one.lasting_seconds ? span(one.lasting_seconds * 1000) : <span className="muted">{t.template.open}</span>}</td>
        </>
      )}
      chosen={chosen}
      side={chosen ? <One template={chosen} onChange={() => setAsked(chosen)} /> : null}
    >
      <Suspense>{asked ? <TemplateDialog template={asked === "new" ? null : asked} onClose={() => setAsked(null)} /> : null}</Suspense>
    </ListPage>
  );
}

function One({ template, onChange }: { template: Template; onChange: () => void }) {
  const { t, span } = useWords();
  const me = useMe();
  const client = useQueryClient();
  const navigate = useNavigate();
  const toast = useToast();
  const [removing, setRemoving] = useState(false);
  const terms = termsOf(template);
  const remove = useMutation({
    mutationFn: () => answer(api.DELETE("/api/v1/templates/{name}", { params: { path: { name: template.name } } })),
    onSuccess: () => {
      toast(t.template.removed);
      setRemoving(false);
      void client.invalidateQueries({ queryKey: ["templates"] });
      void navigate({ to: "/settings/templates", search: {}, replace: true });
    },
  });
  const open = <span className="muted">{t.template.open}</span>;
  return (
    <aside className={css.side} aria-label={template.name}>
      <h2>{template.name}</h2>
      {template.note ? <p className="break">{template.note}</p> : null}
      <dl className="facts">
        <dt>{t.grant.targets}</dt>
        <dd className="mono break">{terms.targets.length > 0 ? terms.targets.join(", ") : open}</dd>
        <dt>{t.grant.logins}</dt>
        <dd className="mono">{terms.logins.length > 0 ? terms.logins.join(", ") : open}</dd>
        <dt>{t.grant.allow}</dt>
        <dd>
          <Capabilities grant={terms} />
        </dd>
        <dt>{t.grant.secondFactor}</dt>
        <dd>{terms.second_factor ? t.person.yes : t.person.no}</dd>
        <dt>{t.grant.approval}</dt>
        <dd>{t.grant.approvals[terms.approval]}</dd>
        <dt>{t.make.lasts}</dt>
        <dd>{template.lasting_seconds ? span(template.lasting_seconds * 1000) : open}</dd>
        <dt>{t.reason}</dt>
        <dd className="break">{template.reason ?? open}</dd>
        <dt>{t.template.changedAt}</dt>
        <dd>
          <When at={template.changed_at} />
        </dd>
      </dl>
      <p className="hint">{t.template.copies}</p>
      {has(me, "admin") ? (
        <span className="row wrap">
          <Link to="/grants" search={{ state: "active", new: true, template: template.name }} className="button">
            {t.newGrant} …
          </Link>
          <button type="button" onClick={onChange}>
            {t.template.change} …
          </button>
          <button type="button" className="danger" onClick={() => setRemoving(true)}>
            {t.template.remove} …
          </button>
        </span>
      ) : null}
      {removing ? (
        <Dialog
          title={t.template.removeTitle(template.name)}
          onClose={() => setRemoving(false)}
          onSubmit={() => !remove.isPending && remove.mutate()}
          actions={
            <>
              <button type="button" onClick={() => setRemoving(false)}>
                {t.cancel}
              </button>
              <button type="submit" className="danger primary" disabled={remove.isPending}>
                {t.template.remove}
              </button>
            </>
          }
        >
          <p>{t.template.removeHint}</p>
          <ProblemLine error={remove.error} />
        </Dialog>
      ) : null}
    </aside>
  );
}
