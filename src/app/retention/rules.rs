//! Retention rules: what is older than its rule says is asked for, in batches that somebody approves; or, if the operator has decided
//! so, it goes without.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::event::Actor;
use sallyport_domain::grant::TargetSelector;
use sallyport_domain::id::{DeletionId, SessionId};
use sallyport_domain::retention::{Rule, Rules};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::{RetentionError, deletions, turn};
use crate::app::App;
use crate::store::db::deletions as store;
use crate::store::db::targets;

/// How long recordings are kept: `[retention]` in `sallyport.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    /// For targets that no rule means; left out, for ever.
    #[serde(with = "crate::store::duration::optional")]
    pub keep: Option<Duration>,
    /// By target: a name, a pattern, a label. Of those that mean a target the longest counts.
    pub rules: Vec<RuleSetting>,
    /// What is due goes without anybody's yes.
    pub automatic: bool,
    /// How often it is looked for what is due.
    #[serde(with = "crate::store::duration")]
    pub every: Duration,
}

/// One of the rules.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSetting {
    pub targets: TargetSelector,
    #[serde(with = "crate::store::duration")]
    pub keep: Duration,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self { keep: None, rules: Vec::new(), automatic: false, every: Duration::from_hours(1) }
    }
}

impl RetentionSettings {
    /// The rules alone.
    pub fn rules(&self) -> Rules {
        let rule = |rule: &RuleSetting| Rule { targets: rule.targets.clone(), keep: rule.keep };
        Rules { keep: self.keep, rules: self.rules.iter().map(rule).collect() }
    }
}

/// Sessions in one batch: somebody has to look through it.
pub const MOST_IN_BATCH: usize = 500;

/// Sessions that are read at once.
const AT_ONCE: u32 = 500;

/// What somebody wanted kept is not asked for again so soon.
const ASK_AGAIN: TimeDelta = TimeDelta::days(30);

/// Looks for what is due every so often, first at once, until `stop`.
pub async fn run(app: App, settings: RetentionSettings, stop: CancellationToken) {
    if settings.rules().shortest().is_none() {
        return;
    }
    loop {
        let asked = tokio::select! {
            asked = sweep(&app, &settings) => asked,
            () = stop.cancelled() => return,
        };
        match asked {
            Ok(asked) if asked.is_empty() => {}
            Ok(asked) => {
                info!(batches = asked.len(), automatic = settings.automatic, "Recordings are due for deletion.")
            }
            Err(RetentionError::Db(error)) if error.is_unreachable() => {
                debug!(%error, "What is due for deletion waits: the database does not answer.");
            }
            Err(error) => error!(%error, "It could not be looked for what is due for deletion."),
        }
        tokio::select! {
            () = tokio::time::sleep(settings.every) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Asks for everything that is due now and nobody has asked for. If the settings say so it is approved, too.
pub async fn sweep(app: &App, settings: &RetentionSettings) -> Result<Vec<DeletionId>, RetentionError> {
    let rules = settings.rules();
    let now = app.clock.now();
    let earliest = rules.shortest().and_then(|shortest| TimeDelta::from_std(shortest).ok());
    let Some(ended) = earliest.and_then(|shortest| now.checked_sub_signed(shortest)) else { return Ok(Vec::new()) };
    let (mut batches, mut due, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let mut tx = app.db.read().await?;
        let found = store::candidates(&mut tx, ended, now - ASK_AGAIN, after, AT_ONCE).await?;
        let known: HashMap<_, _> =
            targets::list(&mut tx).await?.into_iter().map(|target| (target.id, target)).collect();
        drop(tx);
        for candidate in &found {
            let target = known.get(&candidate.target);
            if let Some(due_by) = target.and_then(|target| rules.due(target, candidate.ended_at))
                && due_by.at <= now
            {
                due.push((candidate.session, Some(due_by.rule)));
            }
        }
        let is_last = found.len() < AT_ONCE as usize;
        while due.len() >= MOST_IN_BATCH || (is_last && !due.is_empty()) {
            let rest = due.split_off(due.len().min(MOST_IN_BATCH));
            batches.extend(ask(app, now, std::mem::replace(&mut due, rest), settings.automatic).await?);
        }
        after = found.last().copied();
        if is_last {
            return Ok(batches);
        }
    }
}

/// Asks for a batch, in one transaction; `None` if another node has asked for all of it meanwhile.
async fn ask(
    app: &App,
    now: DateTime<Utc>,
    mut batch: Vec<(SessionId, Option<String>)>,
    automatic: bool,
) -> Result<Option<DeletionId>, RetentionError> {
    let mut tx = app.db.write().await?;
    turn(&mut tx).await?;
    let mut free = Vec::new();
    for (session, rule) in batch.drain(..) {
        let is_free = store::of_session(&mut tx, session).await?.is_none();
        if is_free && crate::store::db::holds::of_session(&mut tx, session).await?.is_none() {
            free.push((session, rule));
        }
    }
    if free.is_empty() {
        return Ok(None);
    }
    let id =
        deletions::ask_in(&mut tx, now, &Actor::Bastion, "it is older than its retention rule says", &free).await?;
    if automatic && let Some(deletion) = store::find(&mut tx, id).await? {
        deletions::approve_in(&mut tx, now, &Actor::Bastion, &deletion).await?;
    }
    tx.commit().await?;
    Ok(Some(id))
}
