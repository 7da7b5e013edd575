//! What happens, as it happens, for pages that show it: which sessions, requests, grants changed, and where the ledger stands ill.
//! Nothing of what is shown is in it; whoever hears of a change asks for what they may see.
//!
//! The ledger's order is the order, so whoever was away goes on where they were, at whichever node. Each node looks every quarter of
//! a second how long the ledger is, while anybody listens; each listener then reads what it has not told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sallyport_domain::ledger::entry;
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::store::db::{DbError, ledger};

const LOOK: Duration = Duration::from_millis(250);
/// Listeners on this node, and of one person.
const MOST_LISTENERS: usize = 200;
const MOST_OF_ONE: usize = 10;
/// As many events are read at once.
const PAGE: u32 = 500;
/// Whoever missed more is told to begin anew.
const MOST_MISSED: u64 = 2000;
/// The end, in place of the ledger's length.
const OVER: u64 = u64::MAX;

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    Sessions,
    Requests,
    Grants,
    People,
    Targets,
    Ledger,
}

impl Topic {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Topic::Sessions => "sessions",
            Topic::Requests => "requests",
            Topic::Grants => "grants",
            Topic::People => "people",
            Topic::Targets => "targets",
            Topic::Ledger => "ledger",
        }
    }

    /// Files and commands come by the thousand and have lists of their own; what only looks changes nothing.
    fn of(kind: &str) -> Option<Self> {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| kind.starts_with(prefix));
        match kind {
            "cut_requested" | "recording_started" | "recording_ended" => Some(Topic::Sessions),
            "request_refused" => None,
            "ledger_alarm" | "rollback_accepted" => Some(Topic::Ledger),
            _ if begins(&["session_", "watch_"]) => Some(Topic::Sessions),
            _ if begins(&["request_"]) => Some(Topic::Requests),
            _ if begins(&["grant_"]) => Some(Topic::Grants),
            _ if begins(&["person_", "key_", "passkey_", "identity_", "invite_", "second_factor_"]) => {
                Some(Topic::People)
            }
            _ if begins(&["target_", "credential_"]) => Some(Topic::Targets),
            _ if begins(&["anchor_"]) => Some(Topic::Ledger),
            _ => None,
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    /// The act's name: `session_opened`.
    pub kind: String,
    pub topic: Topic,
    /// Of what: ids by what they are ids of, and nothing else of the act.
    pub ids: Map<String, Value>,
}

impl News {
    fn of(bytes: &[u8]) -> Option<Self> {
        let event = entry::decode(bytes).ok()?;
        let act = serde_json::to_value(&event.act).ok()?;
        let kind = act.get("act")?.as_str()?.to_owned();
        let topic = Topic::of(&kind)?;
        let id = |name: &str| Some((name.to_owned(), act.get(name)?.clone()));
        let ids = ["session", "request", "grant", "person", "target", "recording"].into_iter().filter_map(id).collect();
        Some(Self { kind, topic, ids })
    }
}

/// What happened from one place in the ledger on.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub news: Vec<News>,
    /// The first place that was not looked at.
    pub next: u64,
    /// There is more already.
    pub is_full: bool,
}

/// Wakes those who listen. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    length: watch::Sender<u64>,
    wanted: Notify,
    seats: Mutex<HashMap<String, usize>>,
}

impl Default for Feed {
    fn default() -> Self {
        let length = watch::Sender::new(0);
        Self(Arc::new(Inner { length, wanted: Notify::new(), seats: Mutex::default() }))
    }
}

/// One that listens; its seat is free again when it is dropped.
#[derive(Debug)]
pub struct Listener {
    feed: Feed,
    who: String,
    length: watch::Receiver<u64>,
}

impl Feed {
    /// Lets `who` listen; `None` if too many do.
    pub fn listen(&self, who: &str) -> Option<Listener> {
        let mut seats = self.0.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = seats.get(who).copied().unwrap_or(0);
        if taken >= MOST_OF_ONE || seats.values().sum::<usize>() >= MOST_LISTENERS {
            return None;
        }
        seats.insert(who.to_owned(), taken + 1);
        let listener = Listener { feed: self.clone(), who: who.to_owned(), length: self.0.length.subscribe() };
        self.0.wanted.notify_one();
        Some(listener)
    }

    /// Looks until `stop` how long the ledger is, while anybody listens; then ends the listeners.
    pub async fn run(self, app: App, stop: CancellationToken) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let looking = async {
            loop {
                if self.0.length.receiver_count() == 0 {
                    self.0.wanted.notified().await;
                }
                ticks.tick().await;
                match length(&app).await {
                    Ok(now) => {
                        self.0.length.send_if_modified(|length| std::mem::replace(length, now) != now);
                    }
                    Err(error) => tracing::debug!(%error, "Those who listen hear nothing while the database is away."),
                }
            }
        };
        tokio::select! {
            never = looking => never,
            () = stop.cancelled() => {}
        }
        self.0.length.send_replace(OVER);
    }
}

impl Listener {
    /// Returns when the ledger has grown since; `false` if nothing will be told any more. Cancel safe.
    pub async fn grown(&mut self) -> bool {
        self.length.changed().await.is_ok() && *self.length.borrow() != OVER
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut seats = self.feed.0.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = seats.get_mut(&self.who) {
            *taken -= 1;
            if *taken == 0 {
                seats.remove(&self.who);
            }
        }
    }
}

async fn length(app: &App) -> Result<u64, DbError> {
    ledger::size(&mut app.db.read().await?).await
}

/// Where to go on for somebody who was told of everything before `next`; with `false` if they must begin anew.
pub async fn resume(app: &App, next: Option<u64>) -> Result<(u64, bool), DbError> {
    let length = length(app).await?;
    let known = next.filter(|next| *next <= length && length - next <= MOST_MISSED);
    Ok((known.unwrap_or(length), known.is_some()))
}

/// What happened from the place `next` on.
pub async fn read(app: &App, next: u64) -> Result<Told, DbError> {
    let placed = ledger::placed(&mut app.db.read().await?, next, PAGE).await?;
    let is_full = placed.len() >= PAGE as usize;
    let end = placed.last().map_or(next, |last| last.index + 1);
    let news = placed.iter().filter_map(|placed| News::of(&placed.event.as_ref()?.entry)).collect();
    Ok(Told { news, next: end, is_full })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::ledger::sequencer::Sequencer;
    use crate::app::people;
    use crate::app::people::tests::{OPERATOR, named};
    use crate::store::db::testing::{app_on, on_both};

    #[tokio::test]
    async fn what_has_its_place_is_told_in_order_once_and_without_what_it_says() {
        on_both(|db| async {
            let app = app_on(db);
            crate::app::ledger::keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
            let mut sequencer = Sequencer::new(app.clone());
            sequencer.catch_up().await.unwrap();
            let (begin, is_known) = resume(&app, None).await.unwrap();
            assert!(!is_known);

            let alice = people::add(&app, &OPERATOR, named("alice")).await.unwrap().principal;
            people::disable(&app, &OPERATOR, &alice.name, None).await.unwrap();
            assert_eq!(read(&app, begin).await.unwrap().news, [], "they have no places yet");
            sequencer.catch_up().await.unwrap();
            let told = read(&app, begin).await.unwrap();

            let kinds: Vec<_> = told.news.iter().map(|news| (news.kind.as_str(), news.topic)).collect();
            assert_eq!(kinds, [("person_added", Topic::People), ("person_disabled", Topic::People)]);
            assert_eq!(told.news[0].ids.keys().collect::<Vec<_>>(), ["person"], "no name, no roles");
            assert_eq!((told.next, told.is_full), (begin + 2, false));
            assert_eq!(resume(&app, Some(begin + 1)).await.unwrap(), (begin + 1, true));
            assert_eq!(resume(&app, Some(begin + 9)).await.unwrap(), (begin + 2, false), "of another ledger");
        })
        .await;
    }

    #[tokio::test]
    async fn listeners_are_woken_counted_and_ended() {
        let folder = tempfile::tempdir().unwrap();
        let app = app_on(crate::store::db::testing::open(format!("sqlite:{}/t.db", folder.path().display())).await);
        crate::app::ledger::keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
        let feed = Feed::default();
        let stop = CancellationToken::new();
        let running = tokio::spawn(feed.clone().run(app.clone(), stop.clone()));

        let mut one = feed.listen("alice").unwrap();
        let others: Vec<_> = (1..MOST_OF_ONE).map(|_| feed.listen("alice").unwrap()).collect();
        assert!(feed.listen("alice").is_none());
        assert!(feed.listen("bob").is_some());
        drop(others);
        assert!(feed.listen("alice").is_some());

        people::add(&app, &OPERATOR, named("alice")).await.unwrap();
        Sequencer::new(app.clone()).catch_up().await.unwrap();
        assert!(one.grown().await);
        stop.cancel();
        running.await.unwrap();
        assert!(!one.grown().await);
    }
}
