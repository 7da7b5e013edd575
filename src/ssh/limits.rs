//! What strangers may take: connections that have proved nobody, and failures by address. Connections are counted by each node
//! for itself, failures over all of them: a node tells the others each half second, and reads whom they have seen too often.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::SshSettings;
use crate::app::App;
use crate::store::db::{DbError, address_failures};

/// How often failures are exchanged with the other nodes.
const EXCHANGE: Duration = Duration::from_millis(500);

/// Addresses whose failures one exchange tells; the others' turn comes later. Strangers must not make the database busy.
const MOST_TOLD: usize = 500;

/// Addresses that are remembered for their failures; when there are more, those whose time is over are forgotten, or else
/// all. A memory bound, not a policy: an attacker with more addresses is limited by the other bounds.
const MOST_REMEMBERED: usize = 100_000;

/// Counts connections and failures. Cheap to clone.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    unauthenticated: u32,
    unauthenticated_per_address: u32,
    connections: u32,
    failures: u32,
    failure_window: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: u32,
    unauthenticated: u32,
    by_address: HashMap<IpAddr, u32>,
    failures: HashMap<IpAddr, Failures>,
    /// Failures that the other nodes have not been told of.
    untold: HashMap<IpAddr, u32>,
    /// Addresses that all nodes together have seen fail too often.
    refused: HashSet<IpAddr>,
}

struct Failures {
    count: u32,
    since: Instant,
}

/// Why a connection is closed before a word is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("too many connections")]
    Connections,
    #[error("too many connections that have not logged in")]
    Unauthenticated,
    #[error("too many connections from this address that have not logged in")]
    Address,
    #[error("too many failed logins from this address")]
    Failures,
}

impl Full {
    /// The word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Full::Connections => "connections",
            Full::Unauthenticated => "unauthenticated",
            Full::Address => "address",
            Full::Failures => "failures",
        }
    }
}

impl Limits {
    pub fn new(settings: &SshSettings) -> Self {
        Self(Arc::new(Inner {
            unauthenticated: settings.max_unauthenticated,
            unauthenticated_per_address: settings.max_unauthenticated_per_address,
            connections: settings.max_connections,
            failures: settings.failures_per_address.limit,
            failure_window: settings.failures_per_address.window,
            state: Mutex::default(),
        }))
    }

    /// A place for a connection from `address`.
    pub fn admit(&self, address: IpAddr, now: Instant) -> Result<Slot, Full> {
        let inner = &self.0;
        let address = household(address);
        let mut state = self.state();
        let failed = state.failures.get(&address);
        let failed = failed.is_some_and(|failed| {
            failed.count >= inner.failures && now.duration_since(failed.since) < inner.failure_window
        });
        if failed || state.refused.contains(&address) {
            return Err(Full::Failures);
        }
        if state.connections >= inner.connections {
            return Err(Full::Connections);
        }
        if state.unauthenticated >= inner.unauthenticated {
            return Err(Full::Unauthenticated);
        }
        if state.by_address.get(&address).is_some_and(|&count| count >= inner.unauthenticated_per_address) {
            return Err(Full::Address);
        }
        state.connections += 1;
        state.unauthenticated += 1;
        *state.by_address.entry(address).or_default() += 1;
        Ok(Slot { limits: self.clone(), address, authenticated: false })
    }

    fn note_failure(&self, address: IpAddr, now: Instant) {
        let window = self.0.failure_window;
        let mut state = self.state();
        if state.failures.len() >= MOST_REMEMBERED {
            state.failures.retain(|_, failed| now.duration_since(failed.since) < window);
            if state.failures.len() >= MOST_REMEMBERED {
                state.failures.clear(); // better to forget than to grow
            }
        }
        let failed = state.failures.entry(address).or_insert(Failures { count: 0, since: now });
        if now.duration_since(failed.since) >= window {
            *failed = Failures { count: 0, since: now };
        }
        failed.count += 1;
        if state.untold.len() < MOST_REMEMBERED {
            *state.untold.entry(address).or_default() += 1;
        }
    }

    /// Exchanges failures with the other nodes until `stop`. While the database is away, this node's own count.
    pub async fn exchange(&self, app: &App, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EXCHANGE) => {}
                () = stop.cancelled() => return,
            }
            let told: Vec<(IpAddr, u32)> = {
                let mut state = self.state();
                let addresses: Vec<IpAddr> = state.untold.keys().take(MOST_TOLD).copied().collect();
                let told = |address| state.untold.remove_entry(&address);
                addresses.into_iter().filter_map(told).collect()
            };
            if let Err(error) = self.tell(app, &told).await {
                debug!(%error, "Failed logins could not be told to the other nodes.");
                let mut state = self.state();
                for (address, count) in told {
                    *state.untold.entry(address).or_default() += count;
                }
            }
        }
    }

    async fn tell(&self, app: &App, told: &[(IpAddr, u32)]) -> Result<(), DbError> {
        let now = app.clock.now();
        let since = now - TimeDelta::from_std(self.0.failure_window).unwrap_or(TimeDelta::days(1));
        if !told.is_empty() {
            let mut tx = app.db.write().await?;
            address_failures::forget(&mut tx, since).await?;
            let mut told = told.to_vec();
            told.sort_unstable(); // two nodes lock the rows in one order
            for (address, count) in told {
                address_failures::add(&mut tx, &address.to_string(), count, now, since).await?;
            }
            tx.commit().await?;
        }
        let most = u32::try_from(MOST_REMEMBERED).unwrap_or(u32::MAX);
        let refused = address_failures::refused(&mut app.db.read().await?, self.0.failures, since, most).await?;
        self.state().refused = refused.iter().filter_map(|address| address.parse().ok()).collect();
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place; given back when dropped.
pub struct Slot {
    limits: Limits,
    address: IpAddr,
    authenticated: bool,
}

impl Slot {
    /// Somebody was proved: the connection no longer counts among strangers. Failures stay on the address, or whoever can
    /// log in could guess colleagues' passwords without end.
    pub fn authenticated(&mut self) {
        if !self.authenticated {
            self.authenticated = true;
            let mut state = self.limits.state();
            leave_strangers(&mut state, self.address);
        }
    }

    /// The connection tried to prove somebody and failed.
    pub fn failed(&self, now: Instant) {
        self.limits.note_failure(self.address, now);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.limits.state();
        state.connections -= 1;
        if !self.authenticated {
            leave_strangers(&mut state, self.address);
        }
    }
}

/// What counts as one address: an IPv4 address, or an IPv6 network of 64 bits, which one customer has to himself.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::from(std::net::Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

fn leave_strangers(state: &mut State, address: IpAddr) {
    state.unauthenticated -= 1;
    if let Some(count) = state.by_address.get_mut(&address) {
        *count -= 1;
        if *count == 0 {
            state.by_address.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::clock::Clock;
    use crate::ssh::Failures;
    use crate::store::db::testing::{app_on, on_both};

    fn limits() -> Limits {
        Limits::new(&SshSettings {
            max_unauthenticated: 3,
            max_unauthenticated_per_address: 2,
            max_connections: 4,
            failures_per_address: Failures { limit: 2, window: Duration::from_secs(60) },
            ..SshSettings::default()
        })
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    #[test]
    fn strangers_are_bounded_in_all_and_by_address_until_they_log_in() {
        let (limits, now) = (limits(), Instant::now());
        let mut first = limits.admit(ip(1), now).unwrap();
        let _second = limits.admit(ip(1), now).unwrap();
        assert_eq!(limits.admit(ip(1), now).err(), Some(Full::Address));
        let _third = limits.admit(ip(2), now).unwrap();
        assert_eq!(limits.admit(ip(3), now).err(), Some(Full::Unauthenticated));
        first.authenticated();
        let _fourth = limits.admit(ip(1), now).unwrap();
        assert_eq!(limits.admit(ip(4), now).err(), Some(Full::Connections));
        drop(first);
        assert_eq!(limits.admit(ip(4), now).err(), Some(Full::Unauthenticated));
    }

    #[test]
    fn an_address_that_fails_too_often_waits_and_a_login_does_not_forgive() {
        let (limits, now) = (limits(), Instant::now());
        for _ in 0..2 {
            limits.admit(ip(1), now).unwrap().failed(now);
        }
        assert_eq!(limits.admit(ip(1), now).err(), Some(Full::Failures));
        assert!(limits.admit(ip(2), now).is_ok());
        assert!(limits.admit(ip(1), now + Duration::from_secs(61)).is_ok());
        limits.admit(ip(2), now).unwrap().failed(now);
        limits.admit(ip(2), now).unwrap().authenticated();
        limits.admit(ip(2), now).unwrap().failed(now);
        assert_eq!(limits.admit(ip(2), now).err(), Some(Full::Failures));
    }

    #[tokio::test]
    async fn failures_count_over_all_nodes_until_their_time_is_over() {
        on_both(|db| async {
            let (mut app, now) = (app_on(db), Instant::now());
            app.clock = Clock::manual(app.clock.now());
            let (one, other, third) = (limits(), limits(), limits());
            for node in [&one, &other] {
                node.admit(ip(1), now).unwrap().failed(now);
                let told: Vec<(IpAddr, u32)> = node.state().untold.drain().collect();
                node.tell(&app, &told).await.unwrap();
            }
            assert!(one.admit(ip(1), now).is_ok(), "it has not heard yet");
            for node in [&one, &third] {
                node.tell(&app, &[]).await.unwrap();
                assert_eq!(node.admit(ip(1), now).err(), Some(Full::Failures));
                assert!(node.admit(ip(2), now).is_ok());
            }

            app.clock.advance(Duration::from_secs(60));

            third.tell(&app, &[]).await.unwrap();
            assert!(third.admit(ip(1), now).is_ok());
            third.tell(&app, &[(ip(1), 1)]).await.unwrap();
            assert!(third.admit(ip(1), now).is_ok(), "counting began anew");
        })
        .await;
    }

    #[test]
    fn nothing_is_left_when_every_connection_is_gone() {
        let (limits, now) = (limits(), Instant::now());
        let mut slots: Vec<Slot> = (1..4).map(|last| limits.admit(ip(last), now).unwrap()).collect();
        slots[0].authenticated();
        drop(slots);
        let state = limits.state();
        assert_eq!((state.connections, state.unauthenticated, state.by_address.len()), (0, 0, 0));
    }
}
