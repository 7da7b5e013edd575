// Who, where, when and by which client: what is known of a session and of the channel that is shown.
import { Link } from "@tanstack/react-router";
import type { Schema } from "../../api/client";
import { useWords } from "../../i18n";
import { Command, CopyButton, When } from "../../parts/small";
import css from "../Session.module.css";
import type { Recording } from "./moments";

export function Details({ session, recording }: { session: Schema<"SessionDetail">; recording: Recording | undefined }) {
  const { t, bytes } = useWords();
  return (
    <div className={css.none}>
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
            {recording.gaps > 0 ? (
              <>
                <dt>{t.session.gaps}</dt>
                <dd className="warn">
                  ⚠ {recording.gaps}: {t.session.gapsHint}
                </dd>
              </>
            ) : null}
            <dt>{t.session.chain}</dt>
            <dd>
              <code className="break">{recording.chain}</code>
            </dd>
          </>
        ) : null}
      </dl>
      {recording ? (
        <>
          <h2>{t.evidence.onHost}</h2>
          <p className="hint">{t.evidence.onHostHint}</p>
          {(["cast", "txt"] as const).map((format) => (
            <Command key={format} text={`sallyport session export ${recording.id} --format ${format} -o ${recording.id}.${format}`} />
          ))}
          {session.ended_at ? <Command text={`sallyport evidence verify --key FINGERPRINT evidence-${session.id}.zip`} /> : null}
        </>
      ) : null}
    </div>
  );
}
