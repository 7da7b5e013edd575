//! A session's part of its grant's budgets.
//!
//! A budget is for all of a grant's sessions, on all nodes, and a row in the database says how much of it was given out. A session
//! reserves a portion there before the bytes go and spends of it in memory, so packets wait for the database only where a portion
//! has run out and the next one, asked for well before, has not come. What is idle and what is left at the end goes back. What a crash
//! leaves reserved stays taken: a budget may end early by that, and never late.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sallyport_domain::files::{FileTerms, Spent, Way};
use sallyport_domain::id::{GrantId, SessionId};
use sallyport_domain::sftp;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::App;
use crate::store::db::{self, DbError, budgets};

/// The most that a session has reserved of one budget and not spent: as much as a crash may lose. A session at full speed asks
/// the database some tens of times a second.
pub const PORTION: u64 = 16 << 20;

/// What is asked for beyond what is about to go: the content of a packet whose head is in it may still be on its way.
const AHEAD: u64 = sftp::MOST_PACKET as u64;

/// What is reserved at least, if it is there, so that the end of a budget does not ask the database for each packet.
const LEAST: u64 = 4 * AHEAD;

/// What nobody has touched for so long, and not for twice as long, is given back.
const IDLE: Duration = Duration::from_secs(1);

/// How long other sessions may take to give back what they do not need, before a budget counts as spent.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often the books are asked meanwhile, and how long a budget that was found spent counts as that.
const AGAIN: Duration = Duration::from_millis(100);
const SPENT_FOR: Duration = Duration::from_secs(1);

/// One session's reservations.
pub struct Purse {
    grant: GrantId,
    session: SessionId,
    terms: FileTerms,
    spent: Arc<Spent>,
    state: Mutex<[Pocket; Way::ALL.len()]>,
    /// Somebody wants something.
    wanted: Notify,
    /// A look at the books is over.
    looked: Notify,
}

/// One way's reservation.
#[derive(Debug, Clone, Copy, Default)]
struct Pocket {
    wish: Option<Wish>,
    /// Something went since the last round.
    in_use: bool,
    /// Below this, more is asked for.
    low: u64,
    /// The books have no more; while there is enough here, they are not asked again before this instant.
    last_until: Option<Instant>,
    /// Nor had the others; nobody is asked before this instant.
    spent_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Wish {
    bytes: u64,
    since: Instant,
}

/// What the books gave.
struct Given {
    /// Left in the books.
    left: u64,
    /// It was not enough, and other sessions of the grant may give something back.
    has_others: bool,
}

impl Purse {
    /// A purse for `session` under `terms` of `grant`, with nothing in it. See [`Purse::keep`].
    pub fn new(grant: GrantId, session: SessionId, terms: FileTerms) -> Self {
        let spent = Arc::new(Spent::reserving(|way| terms.budget(way).is_some()));
        let (state, wanted, looked) = (Mutex::default(), Notify::new(), Notify::new());
        Self { grant, session, terms, spent, state, wanted, looked }
    }

    /// What was spent, for the rules.
    pub fn spent(&self) -> &Arc<Spent> {
        &self.spent
    }

    /// Waits until `bytes` more can be paid for, or the books have no more: then the rules say so when they are spent. Spend them
    /// soon after. Cancel safe.
    pub async fn room(&self, way: Way, bytes: usize) {
        if self.terms.budget(way).is_none() {
            return;
        }
        let bytes = bytes as u64;
        loop {
            // Registered before the look, so that a change in between is not missed.
            let looked = self.looked.notified();
            {
                let mut pockets = self.pockets();
                let pocket = pocket(&mut pockets, way);
                pocket.in_use = true;
                let available = self.spent.available(way);
                let is_before = |until: Option<Instant>| until.is_some_and(|until| Instant::now() < until);
                // What is here will do for now, or nothing will.
                let is_last = is_before(pocket.last_until) && available >= bytes;
                let settled = is_last || is_before(pocket.spent_until);
                let covered = available >= bytes.saturating_add(AHEAD);
                if (!covered || available < pocket.low) && !settled {
                    let since = pocket.wish.map_or_else(Instant::now, |wish| wish.since);
                    pocket.wish = Some(Wish { bytes, since });
                    self.wanted.notify_one();
                }
                if covered || settled {
                    return;
                }
            }
            looked.await;
        }
    }

    /// Fills the purse as it is wanted, and gives back what is idle, until `done`. One caller at a time.
    pub async fn keep(&self, app: &App, done: CancellationToken) {
        let bounded: Vec<Way> = Way::ALL.into_iter().filter(|&way| self.terms.budget(way).is_some()).collect();
        if bounded.is_empty() {
            return;
        }
        let mut round = Instant::now() + IDLE;
        loop {
            let waiting = self.pockets().iter().any(|pocket| pocket.wish.is_some());
            tokio::select! {
                () = done.cancelled() => return,
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(AGAIN), if waiting => {}
                () = tokio::time::sleep_until(round) => {
                    for &way in &bounded {
                        self.give_back_idle(app, way).await;
                    }
                    round = Instant::now() + IDLE;
                }
            }
            for &way in &bounded {
                self.grant_wish(app, way).await;
            }
            self.looked.notify_waiters();
        }
    }

    /// What is reserved and not spent, for [`super::access::close`]. Nothing may be spent any more.
    pub fn rest(&self) -> Vec<(Way, u64)> {
        let bounded = Way::ALL.into_iter().filter(|&way| self.terms.budget(way).is_some());
        bounded.map(|way| (way, self.spent.release(way))).filter(|&(_, bytes)| bytes > 0).collect()
    }

    async fn grant_wish(&self, app: &App, way: Way) {
        let Some(wish) = pocket(&mut self.pockets(), way).wish else {
            return;
        };
        match self.take(app, way, wish.bytes).await {
            Ok(Given { left, has_others }) => {
                let mut pockets = self.pockets();
                let pocket = pocket(&mut pockets, way);
                if has_others && wish.since.elapsed() < PATIENCE {
                    return; // asked again
                }
                pocket.wish = None;
                let later = Some(Instant::now() + SPENT_FOR);
                pocket.last_until = later.filter(|_| left == 0);
                pocket.spent_until = later.filter(|_| self.spent.available(way) < wish.bytes);
            }
            // Asked again, until the session is cut for it.
            Err(error) if error.is_unreachable() => {}
            Err(error) => {
                error!(%error, grant = %self.grant, "A grant's budget could not be asked for; it counts as spent.");
                let mut pockets = self.pockets();
                let pocket = pocket(&mut pockets, way);
                pocket.wish = None;
                pocket.spent_until = Some(Instant::now() + SPENT_FOR);
            }
        }
    }

    /// Reserves so much that `bytes` and some packets are available, and a portion where there is enough for everybody.
    async fn take(&self, app: &App, way: Way, bytes: u64) -> Result<Given, DbError> {
        let most = self.terms.budget(way).unwrap_or(0);
        let mut tx = app.db.write().await?;
        let left = most.saturating_sub(budgets::hold(&mut tx, self.grant, way).await?);
        let available = self.spent.available(way);
        // Towards its end a budget is given out in ever smaller portions, so that one session does not keep it from the others.
        let goal = (left.saturating_add(available) / 4).min(PORTION).max(bytes.saturating_add(LEAST));
        let more = left.min(goal.saturating_sub(available));
        let has_others =
            available + more < bytes && db::sessions::has_others(&mut tx, self.grant, self.session).await?;
        budgets::take(&mut tx, self.grant, way, more).await?;
        tx.commit().await?;
        self.spent.reserve(way, more, left - more);
        pocket(&mut self.pockets(), way).low = goal / 2;
        Ok(Given { left: left - more, has_others })
    }

    async fn give_back_idle(&self, app: &App, way: Way) {
        let unspent = {
            let mut pockets = self.pockets();
            let pocket = pocket(&mut pockets, way);
            let idle = !std::mem::take(&mut pocket.in_use) && pocket.wish.is_none();
            if idle { self.spent.release(way) } else { 0 }
        };
        if unspent == 0 {
            return;
        }
        let given = async {
            let mut tx = app.db.write().await?;
            budgets::give_back(&mut tx, self.grant, way, unspent).await?;
            tx.commit().await
        };
        let given: Result<(), DbError> = given.await;
        if let Err(error) = given {
            // It may be there or not, and must not be there twice.
            error!(%error, grant = %self.grant, bytes = unspent, "A part of a grant's budget may not have been given back.");
        }
    }

    fn pockets(&self) -> MutexGuard<'_, [Pocket; Way::ALL.len()]> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pocket(pockets: &mut [Pocket; Way::ALL.len()], way: Way) -> &mut Pocket {
    let [upload, download, terminal] = pockets;
    match way {
        Way::Files(sallyport_domain::files::Direction::Upload) => upload,
        Way::Files(sallyport_domain::files::Direction::Download) => download,
        Way::Terminal => terminal,
    }
}

#[cfg(test)]
mod tests {
    use sallyport_domain::files::{Direction, FileDenial, FileRules};
    use sallyport_domain::grant::Capabilities;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::store::db::testing::{app_on, on_both};
    use crate::store::db::tests::furnish_sessions;

    const UPLOAD: Way = Way::Files(Direction::Upload);

    fn terms(total: u64) -> FileTerms {
        let capabilities = Capabilities { upload: true, ..Capabilities::default() };
        let rules: FileRules = serde_json::from_str(&format!(r#"{{"upload":{{"total_bytes":{total}}}}}"#)).unwrap();
        FileTerms::new(&capabilities, rules)
    }

    struct Kept {
        purse: Arc<Purse>,
        terms: FileTerms,
        done: CancellationToken,
        keeper: JoinHandle<()>,
    }

    impl Kept {
        fn open(app: &App, grant: GrantId, session: SessionId, total: u64) -> Self {
            let purse = Arc::new(Purse::new(grant, session, terms(total)));
            let done = CancellationToken::new();
            let keeper = {
                let (app, purse, done) = (app.clone(), purse.clone(), done.clone());
                tokio::spawn(async move { purse.keep(&app, done).await })
            };
            Self { purse, terms: terms(total), done, keeper }
        }

        async fn spend(&self, bytes: usize) -> Result<(), FileDenial> {
            self.purse.room(UPLOAD, bytes).await;
            self.terms.spend(Direction::Upload, 0, bytes as u64, self.purse.spent())
        }

        async fn close(self) -> Vec<(Way, u64)> {
            self.done.cancel();
            self.keeper.await.unwrap();
            self.purse.rest()
        }
    }

    async fn taken(app: &App, grant: GrantId) -> u64 {
        let taken = budgets::taken(&mut app.db.read().await.unwrap(), grant).await.unwrap();
        taken.iter().find(|(way, _)| way == "upload").map_or(0, |&(_, bytes)| bytes)
    }

    #[tokio::test]
    async fn sessions_that_spend_at_once_never_get_more_than_the_budget_and_no_less() {
        on_both(|db| async move {
            const BUDGET: u64 = 5_000_000;
            const PIECE: usize = 32_768;
            let (grant, sessions) = furnish_sessions(&db, 3).await;
            // Two nodes have an App each.
            let apps = [app_on(db.clone()), app_on(db.clone())];
            let open = sessions.iter().enumerate().map(|(n, id)| Kept::open(&apps[n % 2], grant, *id, BUDGET));
            let open: Vec<Kept> = open.collect();
            let spend = open.iter().map(|kept| async move {
                let mut spent = 0;
                while kept.spend(PIECE).await.is_ok() {
                    spent += PIECE as u64;
                }
                spent
            });

            let spent: u64 = futures::future::join_all(spend).await.into_iter().sum();

            assert!(spent <= BUDGET, "{spent}");
            assert!(spent > BUDGET - 3 * PIECE as u64, "{spent}: no session keeps more from the others than a piece");
            let mut rest = 0;
            for kept in open {
                rest += kept.close().await.iter().map(|(_, bytes)| bytes).sum::<u64>();
            }
            assert_eq!(taken(&apps[0], grant).await, spent + rest);
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_idle_goes_back_and_what_a_crash_leaves_stays_taken() {
        on_both(|db| async {
            let (grant, sessions) = furnish_sessions(&db, 2).await;
            let app = app_on(db);
            let idle = Kept::open(&app, grant, sessions[0], 1_000_000);
            idle.spend(10).await.unwrap();
            assert!(taken(&app, grant).await > 10, "more is reserved");

            let other = Kept::open(&app, grant, sessions[1], 1_000_000);
            other.spend(999_990).await.unwrap();
            assert!(idle.spend(1).await.is_err(), "the books have no more");

            assert_eq!(taken(&app, grant).await, 1_000_000);
            drop(other); // it crashed: what it had reserved and not spent is lost
            assert_eq!(idle.close().await, [] as [(Way, u64); 0]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_large_budget_is_reserved_in_portions() {
        on_both(|db| async {
            let (grant, sessions) = furnish_sessions(&db, 1).await;
            let app = app_on(db);
            let kept = Kept::open(&app, grant, sessions[0], u64::MAX);
            for _ in 0..100 {
                kept.spend(1 << 20).await.unwrap();
                assert!(taken(&app, grant).await <= 100 * (1 << 20) + PORTION);
            }
            let rest = kept.close().await;
            let unspent: u64 = rest.iter().map(|(_, bytes)| bytes).sum();
            assert_eq!(taken(&app, grant).await, (100 << 20) + unspent);
        })
        .await;
    }
}
