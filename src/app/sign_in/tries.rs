//! Tries at signing in that did not succeed, on this node.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};

/// Tries are counted for so long.
pub(super) const WINDOW: Duration = Duration::from_mins(15);
/// Tries for one name from one address, for one name from anywhere, and for any name from one address. The second is
/// large, so that a stranger cannot easily lock somebody out.
pub(super) const MOST_FOR_NAME_AT_ADDRESS: u32 = 10;
const MOST_FOR_NAME: u32 = 200;
const MOST_AT_ADDRESS: u32 = 60;
/// Counters that are kept; beyond that those whose time is over are forgotten, or else all.
const MOST_COUNTERS: usize = 100_000;

/// What tries are counted for. A name is counted by its hash: what is typed as one may be a password.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    NameAtAddress([u8; 32], IpAddr),
    Name([u8; 32]),
    Address(IpAddr),
    /// Beginnings with a passkey or at a provider: each is a row.
    Begun(IpAddr),
}

impl Key {
    const fn most(&self) -> u32 {
        match self {
            Key::NameAtAddress(..) => MOST_FOR_NAME_AT_ADDRESS,
            Key::Name(_) => MOST_FOR_NAME,
            Key::Address(_) | Key::Begun(_) => MOST_AT_ADDRESS,
        }
    }
}

pub(super) fn keys(name: &str, address: IpAddr) -> Vec<Key> {
    let name: [u8; 32] = Sha256::digest(name.trim().as_bytes()).into();
    let address = household(address);
    let mut keys = vec![Key::NameAtAddress(name, address), Key::Name(name)];
    // Behind a proxy on this host everybody has its address.
    if !address.is_loopback() {
        keys.push(Key::Address(address));
    }
    keys
}

/// What a beginning from this address is counted for.
pub(super) fn begun_keys(address: IpAddr) -> Vec<Key> {
    let address = household(address);
    if address.is_loopback() { Vec::new() } else { vec![Key::Begun(address)] }
}

/// Whoever has one address of IPv6 usually has all 2⁶⁴ of its network.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        other => other,
    }
}

/// Tries that did not succeed, on this node.
#[derive(Debug, Default)]
pub(super) struct Tries(HashMap<Key, Counter>);

#[derive(Debug)]
struct Counter {
    tries: u32,
    since: DateTime<Utc>,
}

impl Counter {
    /// For how long it still counts at `now`.
    fn rest(&self, now: DateTime<Utc>) -> Option<Duration> {
        let window = TimeDelta::from_std(WINDOW).unwrap_or(TimeDelta::MAX);
        (self.since + window - now).to_std().ok().filter(|rest| !rest.is_zero())
    }
}

impl Tries {
    /// Counts a try, or says how long to wait. A try that is not let through does not count.
    pub(super) fn count(&mut self, keys: &[Key], now: DateTime<Utc>) -> Result<(), Duration> {
        let full = |key: &Key| {
            let counter = self.0.get(key).filter(|counter| counter.tries >= key.most())?;
            counter.rest(now)
        };
        if let Some(wait) = keys.iter().filter_map(full).max() {
            return Err(wait);
        }
        if self.0.len() + keys.len() > MOST_COUNTERS {
            self.0.retain(|_, counter| counter.rest(now).is_some());
            if self.0.len() + keys.len() > MOST_COUNTERS {
                self.0.clear(); // better to forget than to grow
            }
        }
        for key in keys {
            let counter = self.0.entry(key.clone()).or_insert(Counter { tries: 0, since: now });
            if counter.rest(now).is_none() {
                *counter = Counter { tries: 0, since: now };
            }
            counter.tries += 1;
        }
        Ok(())
    }

    /// The try was none after all.
    pub(super) fn forgive(&mut self, keys: &[Key]) {
        for key in keys {
            if let Some(counter) = self.0.get_mut(key) {
                counter.tries = counter.tries.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_from_one_network_are_counted_together_and_counters_are_bounded() {
        let now = DateTime::UNIX_EPOCH;
        let mut tries = Tries::default();
        for host in 0..MOST_AT_ADDRESS {
            let address = format!("2001:db8::{host:x}").parse().unwrap();
            assert_eq!(tries.count(&keys(&format!("name-{host}"), address), now), Ok(()));
        }
        let another = "2001:db8::ffff".parse().unwrap();
        assert_eq!(tries.count(&keys("x", another), now), Err(WINDOW));
        for name in 0..MOST_COUNTERS {
            let _counted = tries.count(&keys(&name.to_string(), "127.0.0.1".parse().unwrap()), now);
        }
        assert!(tries.0.len() <= MOST_COUNTERS);
    }
}
