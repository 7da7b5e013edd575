// What the reader may reach, how to connect, how to ask for more; their second factor, and where they are signed in.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useId, useState, type FormEvent } from "react";
import { answer, api } from "../api/client";
import { bastionQuery, knownHostsQuery, requestsQuery } from "../api/queries";
import { useWords } from "../i18n";
import { Capabilities } from "../parts/Capabilities";
import { Ago, Command, CopyButton, Remaining, Status, useToast } from "../parts/small";
import { ProblemLine } from "../parts/states";
import { readWindow } from "../parts/when";
import css from "./Lists.module.css";
import { useMe } from "./Shell";
import { Browsers, Passkeys } from "./SigningIn";

export function MyAccess() {
  const { t } = useWords();
  return (
    <>
      <div className="bar">
        <h1>{t.myAccess}</h1>
      </div>
      <div className={css.sheet}>
        <May />
        <Connect />
        <Ask />
        <SecondFactor />
        <Passkeys />
        <Browsers />
      </div>
    </>
  );
}

function useOwnGrants() {
  return useQuery({ queryKey: ["grants", "own"], queryFn: () => answer(api.GET("/api/v1/me/grants")), refetchInterval: 15_000 });
}

function useSshLine() {
  const me = useMe();
  const bastion = useQuery(bastionQuery);
  return (login: string, target: string) => (bastion.data ? `ssh ${bastion.data.ssh_port === 22 ? "" : `-p ${bastion.data.ssh_port} `}${me.name}+${login}@${target}@${bastion.data.ssh_host}` : "ssh …");
}

function May() {
  const { t } = useWords();
  const grants = useOwnGrants();
  const line = useSshLine();
  return (
    <section>
      <h2>{t.mine.may}</h2>
      <ProblemLine error={grants.error} />
      {grants.data?.length === 0 ? (
        <p className="notice">{t.mine.nothing}</p>
      ) : null}
      {grants.data?.map((grant) => (
        <div key={grant.id} className={css.plain}>
          <span className="row wrap">
            <Status is={grant.state} />
            <code className="break">{grant.targets.join(", ")}</code>
            <Remaining from={grant.not_before} until={grant.not_after} />
          </span>
          <Capabilities grant={grant} />
          <Command text={line(grant.logins[0] ?? "", grant.targets[0] ?? "")} />
          <span className="muted break">{grant.reason}</span>
        </div>
      ))}
    </section>
  );
}

function Connect() {
  const { t } = useWords();
  const me = useMe();
  const bastion = useQuery(bastionQuery);
  const known = useQuery(knownHostsQuery);
  const grants = useOwnGrants();
  if (!bastion.data) return null;
  const { ssh_host, ssh_port } = bastion.data;
  const targets = [...new Set(grants.data?.flatMap((grant) => grant.targets) ?? [])].filter((name) => /^[\w.*-]+$/.test(name));
  const config = `Host sallyport\n    HostName ${ssh_host}\n    Port ${ssh_port}\n    User ${me.name}\n\nHost ${targets.length > 0 ? targets.join(" ") : "TARGET"}\n    ProxyJump sallyport\n    User ${grants.data?.[0]?.logins[0] ?? "root"}`;
  return (
    <section>
      <h2>{t.mine.connect}</h2>
      <h3>{t.mine.config}</h3>
      <Command text={config} />
      <h3>{t.mine.known}</h3>
      {known.data ? <Command text={`${known.data.bastion}\n${known.data.authority}`} /> : null}
    </section>
  );
}

function Ask() {
  const { t, span } = useWords();
  const id = useId();
  const toast = useToast();
  const client = useQueryClient();
  const requests = useQuery(requestsQuery(false));
  const me = useMe();
  const [targets, setTargets] = useState("");
  const [lasts, setLasts] = useState("2h");
  const [reason, setReason] = useState("");
  const now = Date.now();
  const window = readWindow(lasts, new Date(now));
  const ask = useMutation({
    mutationFn: (seconds: number) =>
      answer(api.POST("/api/v1/requests", { body: { targets: targets.split(/[\s,]+/).filter(Boolean), lasting_seconds: seconds, reason: reason.trim() } })),
    onSuccess: () => {
      toast(t.mine.asked);
      setReason("");
      void client.invalidateQueries({ queryKey: ["requests"] });
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (window && !ask.isPending) ask.mutate(Math.round((window.until.getTime() - now) / 1000));
  };
  const own = (requests.data?.items ?? []).filter((request) => request.person.name === me.name).slice(0, 8);
  return (
    <section>
      <h2>{t.mine.ask}</h2>
      <form onSubmit={submit}>
        <div className="field">
          <label htmlFor={`${id}-targets`}>{t.mine.askTargets}</label>
          <input id={`${id}-targets`} className="mono" autoCapitalize="off" required value={targets} onChange={(event) => setTargets(event.target.value)} />
        </div>
        <div className="field">
          <label htmlFor={`${id}-for`}>{t.mine.askFor}</label>
          <input id={`${id}-for`} className="mono" required value={lasts} onChange={(event) => setLasts(event.target.value)} aria-invalid={window === null} />
        </div>
        <div className="field">
          <label htmlFor={`${id}-why`}>{t.reason}</label>
          <input id={`${id}-why`} required maxLength={1000} value={reason} onChange={(event) => setReason(event.target.value)} />
        </div>
        <ProblemLine error={ask.error} />
        <span>
          <button type="submit" className="primary" disabled={window === null || ask.isPending}>
            {t.mine.ask}
          </button>
        </span>
      </form>
      {own.length > 0 ? <h3>{t.mine.requests}</h3> : null}
      <ul>
        {own.map((request) => (
          <li key={request.id} className="row wrap">
            <Status is={request.state} />
            <code>{request.targets.join(", ")}</code>
            <span className="muted">
              {span(request.lasting_seconds * 1000)} · <Ago at={request.created_at} />
            </span>
            {request.answer?.reason ? <span>{request.answer.reason}</span> : null}
          </li>
        ))}
      </ul>
    </section>
  );
}

function SecondFactor() {
  const { t } = useWords();
  const id = useId();
  const client = useQueryClient();
  const [code, setCode] = useState("");
  const state = useQuery({ queryKey: ["totp"], queryFn: () => answer(api.GET("/api/v1/me/totp")) });
  const begin = useMutation({ mutationFn: () => answer(api.POST("/api/v1/me/totp")) });
  const confirm = useMutation({
    mutationFn: () => answer(api.POST("/api/v1/me/totp/confirm", { body: { code } })),
    onSuccess: () => void client.invalidateQueries({ queryKey: ["totp"] }),
  });
  return (
    <section>
      <h2>{t.mine.second}</h2>
      <ProblemLine error={state.error ?? begin.error ?? confirm.error} />
      {confirm.data ? (
        <div className="notice ok">
          <p>{t.mine.recovery}</p>
          <pre>{confirm.data.recovery_codes.join("\n")}</pre>
          <CopyButton text={confirm.data.recovery_codes.join("\n")} label={t.copy} />
        </div>
      ) : state.data?.state === "enrolled" ? (
        <p>{t.mine.secondYes(state.data.recovery_codes_left)}</p>
      ) : begin.data ? (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            confirm.mutate();
          }}
        >
          <p>{t.mine.beginHint}</p>
          <Command text={begin.data.secret} />
          <a href={begin.data.uri}>otpauth://</a>
          <div className="field">
            <label htmlFor={id}>{t.signIn.code}</label>
            <input id={id} className="mono" inputMode="numeric" autoComplete="one-time-code" required value={code} onChange={(event) => setCode(event.target.value)} />
          </div>
          <span>
            <button type="submit" className="primary" disabled={confirm.isPending}>
              {t.mine.confirm}
            </button>
          </span>
        </form>
      ) : state.data ? (
        <>
          <p className="muted">{t.mine.secondNone}</p>
          <span>
            <button type="button" onClick={() => begin.mutate()} disabled={begin.isPending}>
              {t.mine.begin} …
            </button>
          </span>
        </>
      ) : null}
    </section>
  );
}
