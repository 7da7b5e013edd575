// Targets: where they are, as whom they are entered, what they prove themselves with. One opens beside the list.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { useId, useState } from "react";
import { answer, api, type Schema } from "../api/client";
import { targetsQuery } from "../api/queries";
import { useWords } from "../i18n";
import { Dialog } from "../parts/Dialog";
import { Command, Status, useToast } from "../parts/small";
import { Empty, ProblemLine } from "../parts/states";
import { targetsRoute } from "../router";
import { ListPage } from "./ListPage";
import css from "./Lists.module.css";
import { has, useMe } from "./Shell";

type Target = Schema<"Target">;

export function Targets() {
  const { t } = useWords();
  const me = useMe();
  const search = targetsRoute.useSearch();
  const navigate = useNavigate();
  const targets = useQuery(targetsQuery);
  const [adding, setAdding] = useState(false);
  const chosen = targets.data?.items.find((target) => target.name === search.name);
  return (
    <ListPage
      title={t.target.list}
      add={has(me, "admin") ? { label: t.target.add, onClick: () => setAdding(true) } : null}
      filter={search.q ?? ""}
      onFilter={(q) => void navigate({ to: "/targets", search: q ? { q } : {}, replace: true })}
      query={targets}
      text={text}
      empty={
        <Empty title={t.target.empty}>
          <p className="muted">{t.target.emptyHint}</p>
          <Command text="sallyport target add web-1 10.0.0.7 --login root" />
        </Empty>
      }
      head={
        <>
          <th>{t.target.name}</th>
          <th>{t.target.address}</th>
          <th>{t.target.logins}</th>
          <th className="wide">{t.target.labels}</th>
        </>
      }
      row={(target) => (
        <>
          <td>
            <Link to="/targets" search={{ ...(search.q ? { q: search.q } : {}), name: target.name }} className="mono" aria-current={target === chosen ? "true" : undefined}>
              {target.name}
            </Link>{" "}
            {target.disabled_at ? <Status is="disabled" /> : null}
          </td>
          <td className="mono break">{target.address}</td>
          <td className="mono">{target.logins.map((login) => login.login).join(", ")}</td>
          <td className="wide">
            <span className="row wrap">
              {Object.entries(target.labels).map(([key, value]) => (
                <span key={key} className="tag">
                  {key}={value}
                </span>
              ))}
            </span>
          </td>
        </>
      )}
      chosen={chosen}
      side={chosen ? <One target={chosen} /> : null}
    >
      {adding ? <Add onClose={() => setAdding(false)} /> : null}
    </ListPage>
  );
}

const text = (target: Target): string =>
  [target.name, ...target.aliases, target.address, ...target.logins.map((login) => login.login), ...Object.entries(target.labels).map(([key, value]) => `${key}=${value}`)].join(" ");

function One({ target }: { target: Target }) {
  const { t, span, instant } = useWords();
  const me = useMe();
  const grants = useQuery({
    queryKey: ["grants", "active", "of-target", target.name],
    queryFn: () => answer(api.GET("/api/v1/grants", { params: { query: { state: "active", target: target.name, limit: 200 } } })),
  });
  return (
    <aside className={css.side} aria-label={target.name}>
      <h2 className="mono">{target.name}</h2>
      <dl className="facts">
        <dt>{t.target.address}</dt>
        <dd className="mono break">{target.address}</dd>
        {target.jump ? (
          <>
            <dt>{t.target.through}</dt>
            <dd className="mono">{target.jump}</dd>
          </>
        ) : null}
        <dt>{t.target.logins}</dt>
        <dd>
          {target.logins.map((login) => (
            <p key={login.login}>
              <code>{login.login}</code> <span className="muted">{t.target.credential[login.credential]}</span>
              {login.rotation ? (
                <span className="muted"> · {t.target.replaced(span(login.rotation.every_s * 1000), instant(login.rotation.next_at))}</span>
              ) : null}
            </p>
          ))}
        </dd>
        <dt>{t.target.hostKeys}</dt>
        <dd>
          {target.host_keys.map((key) => (
            <code key={key.fingerprint} className="break">
              {key.fingerprint}
            </code>
          ))}
        </dd>
      </dl>
      <h3>{t.target.mayEnter}</h3>
      {grants.error ? <ProblemLine error={grants.error} /> : null}
      {grants.data?.items.length === 0 ? <p className="muted">{t.none}</p> : null}
      <ul>
        {grants.data?.items.map((grant) => (
          <li key={grant.id}>
            <Link to="/grants/$id" params={{ id: grant.id }}>
              {grant.people.map((person) => person.name).join(", ")}
            </Link>{" "}
            <code>{grant.logins.join(", ")}</code>
          </li>
        ))}
      </ul>
      <span className="row wrap">
        <Link to="/sessions" search={{ state: "all", target: target.name }} className="button">
          {t.target.recent}
        </Link>
        {has(me, "admin") ? (
          <Link to="/grants" search={{ state: "active", new: true, target: target.name }} className="button">
            {t.target.grant} …
          </Link>
        ) : null}
      </span>
    </aside>
  );
}

function Add({ onClose }: { onClose: () => void }) {
  const { t } = useWords();
  const id = useId();
  const client = useQueryClient();
  const toast = useToast();
  const [name, setName] = useState("");
  const [address, setAddress] = useState("");
  const [login, setLogin] = useState("root");
  const [trusted, setTrusted] = useState(false);
  const scan = useMutation({ mutationFn: () => answer(api.POST("/api/v1/targets/scan", { body: { address: address.trim() } })), onSuccess: () => setTrusted(false) });
  const add = useMutation({
    mutationFn: () =>
      answer(
        api.POST("/api/v1/targets", {
          body: {
            name: name.trim(),
            address: scan.data?.address ?? address.trim(),
            logins: [{ login: login.trim(), credential: { kind: "certificate" } }],
            host_keys: (scan.data?.host_keys ?? []).map(({ public_key, trust }) => ({ public_key, trust })),
          },
        }),
      ),
    onSuccess: () => {
      toast(t.target.added);
      onClose();
      void client.invalidateQueries({ queryKey: ["targets"] });
    },
  });
  const isReady = scan.data !== undefined && trusted && name.trim() !== "" && login.trim() !== "";
  return (
    <Dialog
      title={t.target.addTitle}
      onClose={onClose}
      onSubmit={() => (scan.data ? isReady && !add.isPending && add.mutate() : address.trim() !== "" && !scan.isPending && scan.mutate())}
      actions={
        <>
          <button type="button" onClick={onClose}>
            {t.cancel}
          </button>
          {scan.data ? (
            <button type="submit" className="primary" disabled={!isReady || add.isPending}>
              {t.target.add}
            </button>
          ) : (
            <button type="submit" className="primary" disabled={address.trim() === "" || scan.isPending}>
              {t.target.scan}
            </button>
          )}
        </>
      }
    >
      <div className="field">
        <label htmlFor={`${id}-name`}>{t.target.name}</label>
        <input id={`${id}-name`} className="mono" autoCapitalize="off" value={name} onChange={(event) => setName(event.target.value)} />
      </div>
      <div className="field">
        <label htmlFor={`${id}-address`}>{t.target.address}</label>
        <input
          id={`${id}-address`}
          className="mono"
          autoCapitalize="off"
          placeholder="10.0.0.7:22"
          value={address}
          onChange={(event) => {
            setAddress(event.target.value);
            scan.reset();
          }}
        />
      </div>
      <div className="field">
        <label htmlFor={`${id}-login`}>{t.target.login}</label>
        <input id={`${id}-login`} className="mono" autoCapitalize="off" value={login} onChange={(event) => setLogin(event.target.value)} aria-describedby={`${id}-cert`} />
        <span className="hint" id={`${id}-cert`}>
          {t.target.certificate}
        </span>
      </div>
      {scan.data ? (
        <fieldset className={css.plain}>
          <legend>{t.target.hostKeys}</legend>
          {scan.data.host_keys.map((key) => (
            <code key={key.fingerprint} className="break">
              {key.public_key.split(" ")[0]} {key.fingerprint}
            </code>
          ))}
          <p className="hint">{t.target.scanHint}</p>
          <label className="row">
            <input type="checkbox" checked={trusted} onChange={(event) => setTrusted(event.target.checked)} /> {t.target.trust}
          </label>
        </fieldset>
      ) : null}
      <ProblemLine error={scan.error ?? add.error} />
    </Dialog>
  );
}
