// People: who they are, what they log in with, what they may do now.
import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { useId, useState } from "react";
import { answer, api, type Role, type Schema } from "../api/client";
import { peopleQuery, sessionsQuery } from "../api/queries";
import { useWords } from "../i18n";
import { Dialog } from "../parts/Dialog";
import { Remaining, Status, useToast, When } from "../parts/small";
import { Empty, ProblemLine } from "../parts/states";
import { peopleRoute } from "../router";
import { ListPage } from "./ListPage";
import { InvitesOf } from "./Invites";
import css from "./Lists.module.css";
import { has, useMe } from "./Shell";
import { BrowsersOf, IdentityOf, PasskeysOf } from "./SigningIn";

type Person = Schema<"Person">;
const ROLES: readonly Role[] = ["engineer", "admin", "reviewer", "auditor"];

export function People() {
  const { t } = useWords();
  const me = useMe();
  const search = peopleRoute.useSearch();
  const navigate = useNavigate();
  const people = useQuery(peopleQuery);
  const [adding, setAdding] = useState(false);
  const chosen = people.data?.items.find((person) => person.name === search.name);
  return (
    <ListPage
      title={t.person.list}
      add={has(me, "admin") ? { label: t.person.add, onClick: () => setAdding(true) } : null}
      filter={search.q ?? ""}
      onFilter={(q) => void navigate({ to: "/people", search: q ? { q } : {}, replace: true })}
      query={people}
      text={(person) => [person.name, person.organisation ?? "", ...person.roles].join(" ")}
      empty={<Empty title={t.person.empty} />}
      head={
        <>
          <th>{t.person.name}</th>
          <th className="wide">{t.person.organisation}</th>
          <th>{t.person.roles}</th>
          <th>{t.person.keys}</th>
          <th className="wide">{t.person.factor}</th>
        </>
      }
      row={(person) => (
        <>
          <td>
            <Link to="/people" search={{ ...(search.q ? { q: search.q } : {}), name: person.name }} aria-current={person === chosen ? "true" : undefined}>
              {person.name}
            </Link>{" "}
            {person.disabled_at ? <Status is="disabled" /> : null}
          </td>
          <td className="wide">{person.organisation ?? ""}</td>
          <td>{person.roles.map((role) => t.roles[role]).join(", ")}</td>
          <td>{person.keys.length}</td>
          <td className="wide">{person.has_second_factor ? <span className="ok">{t.person.yes}</span> : <span className="muted">{t.person.no}</span>}</td>
        </>
      )}
      chosen={chosen}
      side={chosen ? <One person={chosen} /> : null}
    >
      {adding ? <Add onClose={() => setAdding(false)} /> : null}
    </ListPage>
  );
}

function One({ person }: { person: Person }) {
  const { t } = useWords();
  const me = useMe();
  const client = useQueryClient();
  const [disabling, setDisabling] = useState(false);
  const grants = useQuery({
    queryKey: ["grants", "active", "of-person", person.name],
    queryFn: () => answer(api.GET("/api/v1/grants", { params: { query: { state: "active", person: person.name, limit: 200 } } })),
  });
  const change = useMutation({
    mutationFn: () => {
      const path = { params: { path: { name: person.name } } };
      return answer(person.disabled_at ? api.POST("/api/v1/people/{name}/enable", path) : api.POST("/api/v1/people/{name}/disable", path));
    },
    onSuccess: () => {
      setDisabling(false);
      void client.invalidateQueries({ queryKey: ["people"] });
      void client.invalidateQueries({ queryKey: ["live-sessions"] });
    },
  });
  return (
    <aside className={css.side} aria-label={person.name}>
      <h2>
        {person.name} <span className="muted">{person.organisation}</span>
      </h2>
      <dl className="facts">
        <dt>{t.person.roles}</dt>
        <dd>{person.roles.map((role) => t.roles[role]).join(", ")}</dd>
        <dt>{t.person.password}</dt>
        <dd>{person.has_password ? t.person.yes : t.person.no}</dd>
        <dt>{t.person.factor}</dt>
        <dd>{person.has_second_factor ? t.person.yes : t.person.no}</dd>
        <dt>{t.person.since}</dt>
        <dd>
          <When at={person.created_at} />
        </dd>
      </dl>
      <h3>{t.person.may}</h3>
      {grants.error ? <ProblemLine error={grants.error} /> : null}
      {grants.data?.items.length === 0 ? <p className="muted">{t.person.mayNothing}</p> : null}
      <ul>
        {grants.data?.items.map((grant) => (
          <li key={grant.id}>
            <Link to="/grants/$id" params={{ id: grant.id }} className="mono">
              {grant.logins.join(", ")}@{grant.targets.join(", ")}
            </Link>{" "}
            <Remaining from={grant.not_before} until={grant.not_after} />
          </li>
        ))}
      </ul>
      <h3>{t.person.keys}</h3>
      {person.keys.length === 0 ? <p className="muted">{t.none}</p> : null}
      <ul>
        {person.keys.map((key) => (
          <li key={key.fingerprint}>
            <code className="break">{key.fingerprint}</code>
            <p className="muted break">
              {key.public_key.split(" ")[0]} {key.comment} · {key.last_used_at ? <>{t.person.lastUsed} <When at={key.last_used_at} /></> : t.person.never}
            </p>
          </li>
        ))}
      </ul>
      <InvitesOf key={`invites ${person.name}`} person={person.name} may={has(me, "admin") && !person.disabled_at} />
      <PasskeysOf person={person.name} may={has(me, "admin")} />
      <IdentityOf key={person.name} person={person.name} may={has(me, "admin")} />
      <BrowsersOf person={person.name} may={has(me, "admin")} />
      <span className="row wrap">
        <Link to="/sessions" search={{ state: "all", person: person.name }} className="button">
          {t.sessions}
        </Link>
        {has(me, "admin") && !person.disabled_at ? (
          <Link to="/grants" search={{ state: "active", new: true, person: person.name }} className="button">
            {t.newGrant} …
          </Link>
        ) : null}
        {has(me, "admin") && person.name !== me.name ? (
          person.disabled_at ? (
            <button type="button" onClick={() => change.mutate()} disabled={change.isPending}>
              {t.person.enable}
            </button>
          ) : (
            <button type="button" className="danger" onClick={() => setDisabling(true)}>
              {t.person.disable} …
            </button>
          )
        ) : null}
      </span>
      {disabling ? <Disable person={person} busy={change.isPending} error={change.error} onClose={() => setDisabling(false)} onDisable={() => change.mutate()} /> : null}
    </aside>
  );
}

function Disable({ person, busy, error, onClose, onDisable }: { person: Person; busy: boolean; error: unknown; onClose: () => void; onDisable: () => void }) {
  const { t } = useWords();
  const live = useInfiniteQuery(sessionsQuery({ person: person.name, live: true }));
  const count = live.data?.pages.flatMap((page) => page.items).length ?? 0;
  return (
    <Dialog
      title={t.person.disableTitle(person.name)}
      onClose={onClose}
      onSubmit={() => !busy && onDisable()}
      actions={
        <>
          <button type="button" onClick={onClose}>
            {t.cancel}
          </button>
          <button type="submit" className="danger primary" disabled={busy}>
            {t.person.disable}
          </button>
        </>
      }
    >
      <p>{t.person.disableHint(count)}</p>
      <ProblemLine error={error} />
    </Dialog>
  );
}

function Add({ onClose }: { onClose: () => void }) {
  const { t } = useWords();
  const id = useId();
  const client = useQueryClient();
  const toast = useToast();
  const [name, setName] = useState("");
  const [organisation, setOrganisation] = useState("");
  const [key, setKey] = useState("");
  const [roles, setRoles] = useState<Role[]>(["engineer"]);
  const add = useMutation({
    mutationFn: () =>
      answer(
        api.POST("/api/v1/people", {
          body: { name: name.trim(), organisation: organisation.trim() === "" ? null : organisation.trim(), roles, keys: key.trim() === "" ? [] : key.trim().split(/\n+/) },
        }),
      ),
    onSuccess: () => {
      toast(t.person.added);
      onClose();
      void client.invalidateQueries({ queryKey: ["people"] });
    },
  });
  const isReady = name.trim() !== "" && roles.length > 0 && !add.isPending;
  return (
    <Dialog
      title={t.person.addTitle}
      onClose={onClose}
      onSubmit={() => isReady && add.mutate()}
      actions={
        <>
          <button type="button" onClick={onClose}>
            {t.cancel}
          </button>
          <button type="submit" className="primary" disabled={!isReady}>
            {t.person.add}
          </button>
        </>
      }
    >
      <div className="field">
        <label htmlFor={`${id}-name`}>{t.person.name}</label>
        <input id={`${id}-name`} autoCapitalize="off" value={name} onChange={(event) => setName(event.target.value)} />
      </div>
      <div className="field">
        <label htmlFor={`${id}-org`}>{t.person.organisation}</label>
        <input id={`${id}-org`} value={organisation} onChange={(event) => setOrganisation(event.target.value)} />
      </div>
      <fieldset className={css.plain}>
        <legend>{t.person.roles}</legend>
        <span className={css.checks}>
          {ROLES.map((role) => (
            <label key={role}>
              <input type="checkbox" checked={roles.includes(role)} onChange={(event) => setRoles(event.target.checked ? [...roles, role] : roles.filter((other) => other !== role))} />
              {t.roles[role]}
            </label>
          ))}
        </span>
      </fieldset>
      <div className="field">
        <label htmlFor={`${id}-key`}>{t.person.key}</label>
        <textarea id={`${id}-key`} className="mono" rows={3} spellCheck={false} placeholder="ssh-ed25519 AAAA…" value={key} onChange={(event) => setKey(event.target.value)} aria-describedby={`${id}-hint`} />
        <span className="hint" id={`${id}-hint`}>
          {t.person.keyHint}
        </span>
      </div>
      <ProblemLine error={add.error} />
    </Dialog>
  );
}
