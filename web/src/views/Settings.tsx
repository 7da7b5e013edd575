// How the bastion is, and what it proves itself with.
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { bastionQuery, healthQuery } from "../api/queries";
import { useWords } from "../i18n";
import { Command, Status } from "../parts/small";
import { Loading, ProblemView } from "../parts/states";
import css from "./Lists.module.css";

export function Settings() {
  const { t } = useWords();
  const health = useQuery(healthQuery);
  const bastion = useQuery(bastionQuery);
  if (bastion.error) return <ProblemView error={bastion.error} retry={() => void bastion.refetch()} />;
  if (!bastion.data) return <Loading />;
  const { version, ssh_host, ssh_port, host_key, user_ca, host_ca } = bastion.data;
  return (
    <>
      <div className="bar">
        <h1>{t.settings}</h1>
      </div>
      <div className={css.sheet}>
        <section>
          <h2>{t.health.title}</h2>
          <dl className="facts">
            <dt>{t.health.bastion}</dt>
            <dd>
              <Status is={health.data?.status ?? (health.error ? "away" : "ok")} />
            </dd>
            <dt>{t.health.database}</dt>
            <dd>
              <Status is={health.data?.database ?? (health.error ? "away" : "ok")} />
            </dd>
            <dt>{t.health.anchors}</dt>
            <dd>
              <Status is={health.data?.anchors ?? (health.error ? "away" : "ok")} />
            </dd>
            <dt>{t.health.version}</dt>
            <dd className="mono">{version}</dd>
            <dt>{t.health.ssh}</dt>
            <dd className="mono break">
              {ssh_host}:{ssh_port}
            </dd>
          </dl>
          <p className="muted">{t.health.doctor}</p>
        </section>
        <section>
          <h2>{t.template.manage}</h2>
          <p className="muted">{t.template.manageHint}</p>
          <span>
            <Link to="/settings/templates" className="button">
              {t.template.list}
            </Link>
          </span>
        </section>
        <section>
          <h2>{t.health.hostKey}</h2>
          <Command text={host_key} />
          <h2>{t.health.userCa}</h2>
          <Command text={user_ca} />
          <h2>{t.health.hostCa}</h2>
          <Command text={host_ca} />
        </section>
      </div>
    </>
  );
}
