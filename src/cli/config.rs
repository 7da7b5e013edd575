//! `sallyport config`: what the configuration says, and whether it can be read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::failure::{Failure, FailureKind};
use super::output::Format;
use super::{Global, output, prompt};
use crate::app::outbox::settings::{DestinationSettings, NotifySettings};
use crate::config::Config;

/// Where the server looks for its configuration. If nothing is there, every setting has its default.
pub(crate) const USUAL_FILE: &str = "/etc/sallyport/sallyport.toml";

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting as it is in force: defaults, the file, the environment
    Show(FileArgs),
    /// Name every fault of the file and of the environment
    Check(FileArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct FileArgs {
    /// The configuration file
    #[arg(long, env = "SALLYPORT_CONFIG", value_name = "FILE", default_value = USUAL_FILE)]
    config: PathBuf,
}

/// Reads the file and the environment. A file that was named must be there.
pub(crate) fn load(file: &Path) -> Result<Config, Failure> {
    let text = if file == Path::new(USUAL_FILE) && !file.exists() { String::new() } else { prompt::whole_file(file)? };
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Config::parse(&text, environment).map_err(|faults| {
        let error = anyhow::Error::new(faults).context(format!("cannot use `{}`", file.display()));
        Failure::new(FailureKind::Failed, error)
    })
}

pub(crate) fn run(command: ConfigCommand, global: &Global) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(args) => {
            load(&args.config)?;
            output::note(format!("`{}` can be used", args.config.display()));
            Ok(())
        }
        ConfigCommand::Show(args) => {
            let settings = settings(&load(&args.config)?);
            match global.format() {
                Format::Table => output::text(&toml::to_string(&settings).map_err(anyhow::Error::from)?),
                other => output::one(other, &settings, &[]),
            }
        }
    }
}

/// Every setting under its key, as the file would write it; what is not set is left out. Taken apart field by field, so
/// that a setting that is added here and forgotten there does not compile.
fn settings(config: &Config) -> Value {
    let Config {
        server,
        ssh,
        api,
        sign_in,
        database,
        blobs,
        recording,
        requests,
        consent,
        ledger,
        retention,
        review,
        outbox,
        notify,
        metrics,
        traces,
        master_key,
        log,
    } = config;
    let crate::config::ServerSettings { data_dir, node: _, dead_after, drain_wait, drain_for } = server;
    let crate::config::SshSettings {
        listen,
        proxy_protocol_from,
        public_host,
        public_port,
        user_ca_files,
        login_grace,
        max_unauthenticated,
        max_unauthenticated_per_address,
        max_connections,
        max_channels,
        max_auth_tries,
        failures_per_address,
        keepalive,
        keepalive_max,
        idle_timeout,
        accept_env,
        forward_networks,
        rekey_bytes,
        database_grace,
    } = ssh;
    let crate::app::recordings::RecordingSettings {
        journal_dir,
        durability,
        flush_interval,
        ship_interval,
        segment_bytes,
        segment_time,
        stdin_budget,
        backlog_budget,
        recipients,
        index_lines,
        index_bytes,
    } = recording;
    let crate::app::ledger::anchors::LedgerSettings {
        anchor_every,
        anchor_late_after,
        anchor_blobs,
        anchor_file,
        anchor_syslog,
        anchor_syslog_ca_file,
        anchor_webhook,
        anchor_webhook_token_file,
        verify_every,
    } = ledger;
    let crate::app::retention::rules::RetentionSettings { keep, rules, automatic, every } = retention;
    let crate::app::reviews::ReviewSettings { due, sign_offs, always_from_risk, share, working_hours, utc_offset } =
        review;
    let rule = |rule: &crate::app::retention::rules::RuleSetting| json!({ "targets": rule.targets.to_string(), "keep": span(&rule.keep) });
    let mut all = json!({
        "server": {
            "data_dir": data_dir,
            "node": config.node(),
            "dead_after": span(dead_after),
            "drain_wait": span(drain_wait),
            "drain_for": span(drain_for),
        },
        "ssh": {
            "listen": listen,
            "proxy_protocol_from": proxy_protocol_from,
            "public_host": public_host,
            "public_port": public_port,
            "user_ca_files": user_ca_files,
            "login_grace": span(login_grace),
            "max_unauthenticated": max_unauthenticated,
            "max_unauthenticated_per_address": max_unauthenticated_per_address,
            "max_connections": max_connections,
            "max_channels": max_channels,
            "max_auth_tries": max_auth_tries,
            "failures_per_address": { "limit": failures_per_address.limit, "window": span(&failures_per_address.window) },
            "keepalive": span(keepalive),
            "keepalive_max": keepalive_max,
            "idle_timeout": idle_timeout.as_ref().map(span),
            "accept_env": accept_env,
            "forward_networks": forward_networks,
            "rekey_bytes": rekey_bytes.to_string(),
            "database_grace": span(database_grace),
        },
        "api": {
            "socket": api.socket,
            "https_listen": api.https_listen,
            "proxy_protocol_from": api.proxy_protocol_from,
            "certificate_file": api.certificate_file,
            "key_file": api.key_file,
            "public_url": api.public_url.as_ref().map(ToString::to_string),
            "listen": api.listen,
            "sign_in_idle": span(&api.sign_in_idle),
            "sign_in_longest": span(&api.sign_in_longest),
            "operators": api.operators,
        },
        "sign_in": {
            "oidc": sign_in.oidc.as_ref().map(|oidc| json!({
                "issuer": oidc.issuer,
                "client_id": oidc.client_id,
                "client_secret_file": oidc.client_secret_file,
                "client_secret_env": oidc.client_secret_env,
                "client_secret_credential": oidc.client_secret_credential,
                "ca_file": oidc.ca_file,
                "label": oidc.label,
            })),
        },
        "database": {
            "url": without_password(&database.url),
            "migrate_url": database.migrate_url.as_deref().map(without_password),
            "max_connections": database.max_connections,
            "acquire_timeout": span(&database.acquire_timeout),
        },
        "blobs": {
            "url": blobs.url,
            "endpoint": blobs.endpoint,
            "region": blobs.region,
            "access_key_id": blobs.access_key_id,
            "secret_access_key_file": blobs.secret_access_key_file,
            "allow_http": blobs.allow_http,
        },
        "recording": {
            "journal_dir": journal_dir,
            "durability": format!("{durability:?}").to_ascii_lowercase(),
            "flush_interval": span(flush_interval),
            "ship_interval": span(ship_interval),
            "segment_bytes": segment_bytes.to_string(),
            "segment_time": span(segment_time),
            "stdin_budget": stdin_budget.to_string(),
            "backlog_budget": backlog_budget.to_string(),
            "recipients": recipients.as_slice(),
            "index_lines": index_lines,
            "index_bytes": index_bytes.to_string(),
        },
        "requests": { "expire_after": span(&requests.expire_after), "max_open": requests.max_open },
        "ledger": {
            "anchor_every": span(anchor_every),
            "anchor_late_after": span(anchor_late_after),
            "anchor_blobs": anchor_blobs,
            "anchor_file": anchor_file,
            "anchor_syslog": anchor_syslog,
            "anchor_syslog_ca_file": anchor_syslog_ca_file,
            "anchor_webhook": anchor_webhook.as_deref().map(without_password),
            "anchor_webhook_token_file": anchor_webhook_token_file,
            "verify_every": span(verify_every),
        },
        "retention": {
            "keep": keep.as_ref().map(span),
            "rules": rules.iter().map(rule).collect::<Vec<_>>(),
            "automatic": automatic,
            "every": span(every),
        },
        "review": {
            "due": due.to_string(),
            "sign_offs": sign_offs,
            "always_from_risk": always_from_risk,
            "share": share,
            "working_hours": working_hours.to_string(),
            "utc_offset": utc_offset.to_string(),
        },
        "outbox": outbox.iter().map(destination).collect::<Vec<_>>(),
        "notify": notify.iter().map(notification).collect::<Vec<_>>(),
        "metrics": { "listen": metrics.listen },
        "traces": {
            "otlp_endpoint": traces.otlp_endpoint, "headers_file": traces.headers_file, "ca_file": traces.ca_file, "share": traces.share,
        },
        "consent": { "wait": span(&consent.wait), "unwatched": span(&consent.unwatched) },
        "master_key": {
            "file": master_key.file, "env": master_key.env, "credential": master_key.credential,
            "more_files": master_key.more_files, "more_env": master_key.more_env, "more_credentials": master_key.more_credentials,
        },
        "log": { "level": log.level, "format": format!("{:?}", log.format).to_ascii_lowercase() },
    });
    let sections = all.as_object_mut().into_iter().flat_map(|sections| sections.values_mut());
    let sections = sections.flat_map(|section| match section {
        Value::Array(list) => list.iter_mut().collect(),
        one => vec![one],
    });
    for section in sections.filter_map(Value::as_object_mut) {
        section.retain(|_, value| !value.is_null());
    }
    all
}

fn destination(settings: &DestinationSettings) -> Value {
    let DestinationSettings {
        name,
        kind,
        path,
        address,
        url,
        ca_file,
        secret_file,
        token_file,
        measurement,
        tags,
        events,
        commands,
        paths,
        start,
        batch,
        timeout,
        retry_most,
        late_after,
    } = settings;
    json!({
        "name": name,
        "kind": kind,
        "path": path,
        "address": address,
        "url": url,
        "ca_file": ca_file,
        "secret_file": secret_file,
        "token_file": token_file,
        "measurement": measurement,
        "tags": tags,
        "events": events,
        "commands": commands,
        "paths": paths,
        "start": start,
        "batch": batch,
        "timeout": span(timeout),
        "retry_most": span(retry_most),
        "late_after": span(late_after),
    })
}

fn notification(settings: &NotifySettings) -> Value {
    let NotifySettings {
        name,
        kind,
        events,
        url_file,
        secret_file,
        server,
        from,
        to,
        username,
        password_file,
        ca_file,
        timeout,
        retry_most,
        late_after,
    } = settings;
    json!({
        "name": name,
        "kind": kind,
        "events": events,
        "url_file": url_file,
        "secret_file": secret_file,
        "server": server,
        "from": from,
        "to": to,
        "username": username,
        "password_file": password_file,
        "ca_file": ca_file,
        "timeout": span(timeout),
        "retry_most": span(retry_most),
        "late_after": span(late_after),
    })
}

fn span(duration: &Duration) -> String {
    humantime::format_duration(*duration).to_string()
}

/// The database's address may hold a password; it is shown as `…`.
fn without_password(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => match parsed.set_password(Some("…")) {
            Ok(()) => parsed.to_string(),
            Err(()) => "…".to_owned(),
        },
        Ok(_) | Err(_) => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back_as_the_same_configuration() {
        let config = Config::parse(
            "[server]\nnode = 'n1'\n[ssh]\nidle_timeout = '1h'\n[api]\nhttps_listen = '[::]:8443'\nproxy_protocol_from = ['10.0.0.0/8']\n\
             sign_in_idle = '5m'\n\
             [[outbox]]\nname = 'siem'\nkind = 'file'\npath = '/x'\ntags = { client = 'acme' }\n\
             [[notify]]\nname = 'ops'\nkind = 'slack'\nurl_file = '/y'",
            [],
        )
        .unwrap();

        let shown = toml::to_string(&settings(&config)).unwrap();

        assert_eq!(Config::parse(&shown, []), Ok(config));
    }

    #[test]
    fn a_password_in_the_databases_address_is_not_shown() {
        let shown = without_password("postgres://sally:hunter2@db/sally");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
