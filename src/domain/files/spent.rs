//! What was spent of a grant's budgets.
//!
//! A grant's budgets are for all of its sessions, on all nodes. The books hold how much of them was given out; a session
//! reserves a portion before the bytes go, spends of it, and gives the rest back. So what is spent is never more than what the
//! books know of, and no packet waits for them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Direction;

/// A way by which bytes go that a budget may bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    Files(Direction),
    /// Out through terminals and the output of commands.
    Terminal,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::Files(Direction::Upload), Way::Files(Direction::Download), Way::Terminal];

    /// The word used in the books.
    pub const fn as_str(self) -> &'static str {
        match self {
            Way::Files(Direction::Upload) => "upload",
            Way::Files(Direction::Download) => "download",
            Way::Terminal => "terminal",
        }
    }
}

/// Bytes that went, counted over all channels of a session, which share one of these.
///
/// The default has everything reserved: as for a session that is its grant's only one.
#[derive(Debug, Default)]
pub struct Spent {
    upload: Mutex<Account>,
    download: Mutex<Account>,
    terminal: Mutex<Account>,
}

/// One way's bytes.
#[derive(Debug, Clone, Copy)]
struct Account {
    spent: u64,
    /// Never less than `spent`.
    reserved: u64,
    /// What the books had left when they were last asked.
    beyond: u64,
}

impl Default for Account {
    fn default() -> Self {
        Self { spent: 0, reserved: u64::MAX, beyond: 0 }
    }
}

impl Spent {
    /// Nothing is spent, and of the ways that `bounded` names nothing is reserved yet.
    pub fn reserving(bounded: impl Fn(Way) -> bool) -> Self {
        let spent = Self::default();
        for way in Way::ALL.into_iter().filter(|&way| bounded(way)) {
            *spent.account(way) = Account { spent: 0, reserved: 0, beyond: 0 };
        }
        spent
    }

    /// Bytes that went so far.
    pub fn bytes(&self, way: Way) -> u64 {
        self.account(way).spent
    }

    /// Bytes that are reserved and not spent.
    pub fn available(&self, way: Way) -> u64 {
        let Account { spent, reserved, .. } = *self.account(way);
        reserved - spent
    }

    /// The books gave `bytes` more, and have `beyond` left.
    pub fn reserve(&self, way: Way, bytes: u64, beyond: u64) {
        let mut account = self.account(way);
        account.reserved = account.reserved.saturating_add(bytes);
        account.beyond = beyond;
    }

    /// Takes back what is reserved and not spent, for the books.
    pub fn release(&self, way: Way) -> u64 {
        let mut account = self.account(way);
        let unspent = account.reserved - account.spent;
        account.reserved = account.spent;
        account.beyond = account.beyond.saturating_add(unspent);
        unspent
    }

    /// Spends all of `bytes`, or nothing and returns the limit. `most` is the grant's budget.
    pub(super) fn spend(&self, way: Way, bytes: u64, most: Option<u64>) -> Result<(), u64> {
        let most = most.unwrap_or(u64::MAX);
        let mut account = self.account(way);
        let then = account.spent.checked_add(bytes).filter(|&then| then <= most.min(account.reserved)).ok_or(most)?;
        account.spent = then;
        Ok(())
    }

    /// Whether `bytes` could be spent by what is known now, if nobody else spent any; if not, returns the limit.
    pub(super) fn has(&self, way: Way, bytes: u64, most: Option<u64>) -> Result<(), u64> {
        let most = most.unwrap_or(u64::MAX);
        let Account { spent, reserved, beyond } = *self.account(way);
        let there = most.min(reserved.saturating_add(beyond));
        spent.checked_add(bytes).filter(|&then| then <= there).map(drop).ok_or(most)
    }

    fn account(&self, way: Way) -> MutexGuard<'_, Account> {
        let account = match way {
            Way::Files(Direction::Upload) => &self.upload,
            Way::Files(Direction::Download) => &self.download,
            Way::Terminal => &self.terminal,
        };
        account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WAY: Way = Way::Terminal;

    #[test]
    fn what_is_not_reserved_is_not_spent() {
        let spent = Spent::reserving(|way| way == WAY);
        assert_eq!(spent.spend(WAY, 1, Some(10)), Err(10));
        assert_eq!(spent.spend(Way::Files(Direction::Upload), 1, Some(10)), Ok(()));
        spent.reserve(WAY, 4, 6);
        assert_eq!(spent.spend(WAY, 4, Some(10)), Ok(()));
        assert_eq!((spent.spend(WAY, 1, Some(10)), spent.has(WAY, 6, Some(10))), (Err(10), Ok(())));
        assert_eq!(spent.has(WAY, 7, Some(10)), Err(10));
    }

    proptest! {
        /// Two sessions and the books: whatever they do, no more is spent than the budget, and what is given back is there again.
        #[test]
        fn sessions_together_never_spend_more_than_the_budget(
            budget in 0u64..1000,
            acts in prop::collection::vec((0usize..2, 0u8..3, 0u64..300), 0..60),
        ) {
            let sessions = [Spent::reserving(|_| true), Spent::reserving(|_| true)];
            let mut taken = 0;
            for (who, act, bytes) in acts {
                let session = &sessions[who];
                match act {
                    0 => {
                        let given = bytes.min(budget - taken);
                        taken += given;
                        session.reserve(WAY, given, budget - taken);
                    }
                    1 => taken -= session.release(WAY),
                    _ => {
                        let available = session.available(WAY);
                        let paid = session.spend(WAY, bytes, Some(budget));
                        prop_assert_eq!(paid.is_ok(), bytes <= available);
                    }
                }
                let spent: u64 = sessions.iter().map(|session| session.bytes(WAY)).sum();
                let held: u64 = sessions.iter().map(|session| session.available(WAY)).sum();
                prop_assert_eq!(spent + held, taken);
                prop_assert!(taken <= budget);
            }
        }
    }
}
