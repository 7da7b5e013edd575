// A session: what it was, what its channels did, and the recording of each, at the moment that the address names.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { lazy, Suspense, useState } from "react";
import { answer, api, type Schema } from "../api/client";
import { filesQuery, sessionQuery } from "../api/queries";
import { useWords } from "../i18n";
import { clockTime } from "../player/recording";
import { ReasonDialog } from "../parts/Dialog";
import { Duration } from "../parts/Duration";
import { CopyButton, Status, useToast, When } from "../parts/small";
import { Empty, Loading, ProblemLine, ProblemView } from "../parts/states";
import { sessionRoute } from "../router";
import css from "./Session.module.css";
import { has, useMe } from "./Shell";
import { short } from "./short";

const Replay = lazy(() => import("../player/Replay"));
const Output = lazy(() => import("../player/Output"));

type Detail = Schema<"SessionDetail">;
type Recording = Schema<"Recording">;

export function Session() {
  const { id } = sessionRoute.useParams();
  const session = useQuery(sessionQuery(id));
  if (session.data) return <Shown session={session.data} />;
  return session.error ? <ProblemView error={session.error} retry={() => void session.refetch()} /> : <Loading />;
}

function Shown({ session }: { session: Detail }) {
  const { t } = useWords();
  const me = useMe();
  const search = sessionRoute.useSearch();
  const navigate = useNavigate();
  const client = useQueryClient();
  const toast = useToast();
  const [cutting, setCutting] = useState(false);
  const mayLook = has(me, "reviewer", "auditor");
  const recording = session.recordings.find((one) => one.channel === search.ch) ?? session.recordings.find((one) => one.term) ?? session.recordings[0];
  const isLive = session.state !== "ended";
  const who = `${session.login}@${session.target.name}`;

  const cut = useMutation({
    mutationFn: (reason: string) => answer(api.POST("/api/v1/sessions/{id}/cut", { params: { path: { id: session.id } }, body: { reason } })),
    onSuccess: () => {
      setCutting(false);
      toast(t.session.cutDone);
      void client.invalidateQueries({ queryKey: ["session", session.id] });
    },
  });
  const go = (change: { ch?: number; tab?: "channels" | "files" | "details"; t?: number; live?: boolean }) =>
    void navigate({ to: "/sessions/$id", params: { id: session.id }, search: (before) => ({ ...before, tab: before.tab ?? "channels", ...change }), replace: true });

  return (
    <div className={css.page}>
      <div className="bar">
        <h1 className="mono">{who}</h1>
        <Status is={session.state} pulse={session.state === "live"} />
        <span>
          {session.person.name} ·{" "}
          <Link to="/grants/$id" params={{ id: session.grant_id }} className="mono" title={session.grant_id}>
            {short(session.grant_id)}
          </Link>
        </span>
        <span className="muted mono">
          <Duration session={session} />
        </span>
        <span className="grow" />
        {isLive && has(me, "admin") ? (
          <button type="button" className="danger" onClick={() => setCutting(true)} disabled={session.state === "ending"}>
            {t.session.cut} …
          </button>
        ) : null}
      </div>
      <div className={css.split}>
        <section className={css.stageSide} aria-label={t.sessions}>
          {recording === undefined ? (
            <Empty title={t.session.noChannels}>
              <p className="muted">{t.session.noChannelsHint}</p>
              {session.ending_text ? <p>{session.ending_text}</p> : null}
            </Empty>
          ) : !mayLook ? (
            <Empty title={t.session.notYou}>
              <p className="muted">{t.session.notYouHint}</p>
            </Empty>
          ) : (
            <Suspense fallback={<Loading />}>
              {recording.cols ? (
                <Replay
                  key={recording.id}
                  recording={recording}
                  who={session.person.name}
                  at={search.t}
                  live={search.live === true}
                  onMoment={(moment) => go({ ch: recording.channel, t: moment })}
                  onLive={(live) => go({ ch: recording.channel, live })}
                />
              ) : recording.kind === "subsystem" ? (
                <div className={css.carried}>
                  <p className="muted">{t.session.sftp}</p>
                  <Files session={session} of={recording.id} onMoment={(one, at) => go({ ch: one.channel, t: at, live: false })} />
                </div>
              ) : (
                <Output key={recording.id} recording={recording} />
              )}
            </Suspense>
          )}
        </section>
        <aside className={css.side}>
          <div className={css.tabs}>
            <span className="segmented" role="tablist" aria-label={t.session.details}>
              {(["channels", "files", "details"] as const).map((tab) => (
                <button key={tab} type="button" role="tab" id={`tab-${tab}`} aria-selected={search.tab === tab} aria-controls="tab-panel" onClick={() => go({ tab })}>
                  {t.session[tab]}
                  {tab === "channels" && session.recordings.length > 1 ? ` ${session.recordings.length}` : ""}
                </button>
              ))}
            </span>
          </div>
          <div className={css.panel} role="tabpanel" id="tab-panel" aria-labelledby={`tab-${search.tab}`} tabIndex={0}>
            {search.tab === "channels" ? <Channels session={session} chosen={recording} onChoose={(one) => go({ ch: one.channel, t: 0, live: false })} /> : null}
            {search.tab === "files" ? <Files session={session} onMoment={(one, at) => go({ ch: one.channel, t: at, live: false })} /> : null}
            {search.tab === "details" ? <Details session={session} recording={recording} /> : null}
          </div>
        </aside>
      </div>
      {cutting ? (
        <ReasonDialog
          title={t.session.cutTitle(session.person.name)}
          hint={t.session.cutHint(session.person.name, session.target.name)}
          action={t.session.cut}
          presets={t.session.cutReasons}
          busy={cut.isPending}
          problem={<ProblemLine error={cut.error} />}
          onClose={() => setCutting(false)}
          onReason={(reason) => cut.mutate(reason)}
        />
      ) : null}
    </div>
  );
}

function Channels({ session, chosen, onChoose }: { session: Detail; chosen: Recording | undefined; onChoose: (recording: Recording) => void }) {
  const { t, bytes } = useWords();
  if (session.recordings.length === 0) return <p className="muted">{t.session.noChannels}</p>;
  return (
    <ul className={css.channels}>
      {session.recordings.map((one) => (
        <li key={one.id}>
          <button type="button" className={css.channel} aria-current={one.id === chosen?.id ? "true" : undefined} onClick={() => onChoose(one)}>
            <span className="row">
              <span className="tag">{one.kind}</span>
              <span className="grow" />
              <span className="muted mono">{one.ended_at ? clockTime(one.duration_us / 1e6) : t.states.live}</span>
            </span>
            <code className="break">{one.program_text}</code>
            <span className="row muted">
              <span>{one.exit_text ?? ""}</span>
              <span className="grow" />
              <span>
                ↑ {bytes(one.bytes_in)} ↓ {bytes(one.bytes_out)}
              </span>
            </span>
            {one.gaps > 0 ? (
              <span className="warn" title={t.session.gapsHint}>
                ⚠ {t.session.gaps}: {one.gaps}
              </span>
            ) : null}
          </button>
        </li>
      ))}
    </ul>
  );
}

const ARROWS = { upload: "↑", download: "↓" } as const;

function Files({ session, of, onMoment }: { session: Detail; of?: string; onMoment: (recording: Recording, at: number) => void }) {
  const { t, bytes } = useWords();
  const files = useQuery(filesQuery(session.id, session.state !== "ended"));
  if (files.error) return <ProblemView error={files.error} retry={() => void files.refetch()} />;
  if (!files.data) return <Loading />;
  const items = files.data.items.filter((file) => of === undefined || file.recording === of);
  if (items.length === 0) {
    return (
      <div className={css.none}>
        <h2>{t.session.noFiles}</h2>
        <p className="muted">{t.session.noFilesHint}</p>
      </div>
    );
  }
  return (
    <ul className={css.files}>
      {items.map((file) => {
        const recording = session.recordings.find((one) => one.id === file.recording);
        return (
          <li key={file.seq}>
            <span className="row">
              <span aria-hidden="true">{file.direction ? ARROWS[file.direction] : "·"}</span>
              <span className="tag">{t.session.acts[file.direction ?? file.what]}</span>
              <span className={file.result === "done" ? "ok" : "bad"}>{t.session.outcomes[file.result]}</span>
              <span className="grow" />
              {file.bytes != null ? <span className="muted">{bytes(file.bytes)}</span> : null}
            </span>
            <code className="break">
              {file.path}
              {file.other_path ? ` → ${file.other_path}` : ""}
            </code>
            {file.reason ? <span className="bad break">{file.reason}</span> : null}
            {file.sha256 ? <code className={`faint ${css.hash}`}>{file.sha256}</code> : null}
            <span className="row">
              <When at={file.at} exact />
              {recording?.cols ? (
                <button type="button" className="quiet" onClick={() => onMoment(recording, Math.max(0, (Date.parse(file.at) - Date.parse(recording.started_at)) / 1000))}>
                  {clockTime((Date.parse(file.at) - Date.parse(recording.started_at)) / 1000)}
                </button>
              ) : null}
            </span>
          </li>
        );
      })}
    </ul>
  );
}

function Details({ session, recording }: { session: Detail; recording: Recording | undefined }) {
  const { t, bytes } = useWords();
  return (
    <dl className="facts">
      <dt>{t.session.person}</dt>
      <dd>{session.person.name}</dd>
      <dt>{t.session.target}</dt>
      <dd className="mono">
        {session.login}@{session.target.name}
      </dd>
      <dt>{t.session.grant}</dt>
      <dd>
        <Link to="/grants/$id" params={{ id: session.grant_id }} className="mono break">
          {session.grant_id}
        </Link>
      </dd>
      <dt>{t.session.started}</dt>
      <dd>
        <When at={session.started_at} exact />
      </dd>
      {session.ended_at ? (
        <>
          <dt>{t.states.ended}</dt>
          <dd>
            <When at={session.ended_at} exact />
          </dd>
          <dt>{t.session.ending}</dt>
          <dd className="break">{session.ending_text}</dd>
        </>
      ) : null}
      <dt>{t.session.address}</dt>
      <dd className="mono">{session.client_address}</dd>
      <dt title={t.session.clientHint}>{t.session.client}</dt>
      <dd className="mono break">{session.client_version}</dd>
      <dt>{t.session.node}</dt>
      <dd className="mono">{session.node}</dd>
      <dt>Id</dt>
      <dd className="row">
        <code className="break">{session.id}</code>
        <CopyButton text={session.id} />
      </dd>
      {recording ? (
        <>
          <dt>{t.session.bytesIn}</dt>
          <dd>{bytes(recording.bytes_in)}</dd>
          <dt>{t.session.bytesOut}</dt>
          <dd>{bytes(recording.bytes_out)}</dd>
          {recording.exit_text ? (
            <>
              <dt>{t.session.exit}</dt>
              <dd>{recording.exit_text}</dd>
            </>
          ) : null}
          <dt>{t.session.chain}</dt>
          <dd>
            <code className="break">{recording.chain}</code>
          </dd>
        </>
      ) : null}
    </dl>
  );
}
