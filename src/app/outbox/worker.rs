//! Works one destination: takes the turn, reads what comes next, delivers it, and notes that in the database.
//!
//! The turn is a row's, until an instant. A process delivers only while its turn lasts for longer than a delivery may take; so two
//! deliver the same only if their clocks differ by more than [`MARGIN`], and then only one of them moves the cursor.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::event::{Act, Actor};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, info, info_span, warn};

use super::batch::{self, Batch};
use super::settings::Start;
use super::{DeliveryError, Destination};
use crate::app::metrics::timed;
use crate::app::{App, DbError, audit};
use crate::spans;
use crate::store::db::ledger;
use crate::store::db::outbox::{self, Cursor, Holder, OutboxState};

/// How much clocks of nodes may differ.
const MARGIN: Duration = Duration::from_secs(15);

/// How often it is looked for new events, and for a turn that another process has.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_FOR_TURN: Duration = Duration::from_secs(2);

/// The first pause after a try that failed; each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How long the database is asked to note what was taken, before the batch is left to come again.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest reason of a failure that is kept, in characters.
const MOST_ERROR: usize = 500;

pub(super) struct Worker {
    app: App,
    destination: Arc<Destination>,
    holder: Holder,
    /// Until when the turn is this process's.
    turn: Option<DateTime<Utc>>,
    /// Tries that failed, one after the other.
    failures: u32,
    /// Records at once; less after a receiver found them too many.
    most: usize,
    /// That records are refused was told, and nothing was taken since.
    told_drop: bool,
}

impl Worker {
    pub(super) fn new(app: App, destination: Arc<Destination>, holder: Holder) -> Self {
        let most = destination.batch as usize;
        Self { app, destination, holder, turn: None, failures: 0, most, told_drop: false }
    }

    /// Works until `stop`; a delivery that is under way then may end.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        /// A delivery that takes longer comes again after the next start.
        const LAST: Duration = Duration::from_secs(5);
        let span = info_span!("outbox", destination = %self.destination.name);
        let work = async {
            loop {
                let mut turn = std::pin::pin!(self.turn());
                let pause = tokio::select! {
                    pause = &mut turn => pause,
                    () = stop.cancelled() => {
                        if tokio::time::timeout(LAST, turn).await.is_err() {
                            debug!("A delivery was given up; it comes again after the next start.");
                        }
                        break;
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => break,
                }
            }
            if self.turn.is_some()
                && let Err(error) = self.give_back().await
            {
                debug!(%error, "The turn at a destination could not be given back; it ends by itself.");
            }
        };
        work.instrument(span).await;
    }

    /// One round; gives how long to wait before the next.
    pub(super) async fn turn(&mut self) -> Duration {
        match self.try_turn().await {
            Ok(pause) => pause,
            Err(error) => {
                debug!(%error, "A destination waits for the database.");
                LOOK_FOR_TURN
            }
        }
    }

    async fn try_turn(&mut self) -> Result<Duration, DbError> {
        let Some(state) = self.take_turn().await? else { return Ok(LOOK_FOR_TURN) };
        let start = state.next;
        let Batch { parcel, end } = batch::read(&self.app, &self.destination, start, self.most).await?;
        if parcel.items.is_empty() {
            if end == start {
                return Ok(LOOK);
            }
            let mut tx = self.app.db.write().await?;
            let passed = outbox::pass_over(&mut tx, (&self.destination.name, &self.holder), (start, end)).await?;
            tx.commit().await?;
            if !passed {
                self.turn = None; // it is another's by now
            }
            return Ok(Duration::ZERO);
        }
        let metrics = &self.app.metrics;
        let span = spans::outbox_batch(&self.destination.name, parcel.items.len());
        let delivering = self.destination.deliver(&self.app, &self.holder.node, &parcel);
        let delivering =
            timed(&metrics.outbox_delivery_seconds, tokio::time::timeout(self.destination.timeout, delivering));
        let delivered = delivering.await.unwrap_or_else(|_elapsed| {
            let message = format!("it did not answer within {} s", self.destination.timeout.as_secs());
            Err(DeliveryError::Later { message, after: None })
        });
        match &delivered {
            Ok(()) => span.outcome("taken"),
            Err(DeliveryError::TooLarge { .. }) => span.outcome("too_large"),
            Err(DeliveryError::Refused { .. }) => span.failure("refused"),
            Err(DeliveryError::Later { .. }) => span.failure("later"),
        }
        drop(span);
        let label = [("destination", self.destination.name.clone())];
        let records = parcel.items.len();
        match delivered {
            Ok(()) => {
                self.failures = 0;
                self.told_drop = false;
                self.most = (self.most * 2).min(self.destination.batch as usize);
                metrics.outbox_sent.get_or_create(&label).inc_by(records as u64);
                self.note_taken(&state, end, records as u64).await?;
                Ok(self.destination.pause)
            }
            Err(DeliveryError::TooLarge { message }) => {
                debug!(records, reason = %message, "A batch is too large for its receiver; half of it goes first.");
                self.most = (records / 2).max(1);
                Ok(Duration::ZERO)
            }
            Err(DeliveryError::Refused { message }) => {
                metrics.outbox_dropped.get_or_create(&label).inc_by(records as u64);
                let first = parcel.items.first().map_or(start.index, |item| item.record.seq);
                let last = parcel.items.last().map_or(first, |item| item.record.seq);
                self.give_up(&state, end, Lost { first, last, records: records as u64, message }).await?;
                // Slowly: what is refused once is often refused always.
                Ok(self.next_pause(None))
            }
            Err(DeliveryError::Later { message, after }) => {
                metrics.outbox_failures.get_or_create(&label).inc();
                let pause = self.next_pause(after);
                self.note_failure(&state, &message, pause).await?;
                Ok(pause)
            }
        }
    }

    /// Takes the turn or keeps it, for long enough for a delivery. `None` if another process has it.
    async fn take_turn(&mut self) -> Result<Option<OutboxState>, DbError> {
        let Destination { name, kind, start, timeout, .. } = &*self.destination;
        let now = self.app.clock.now();
        let needed = TimeDelta::from_std(*timeout + MARGIN).unwrap_or(TimeDelta::MAX / 4);
        if self.turn.is_none_or(|until| until - now < needed) {
            self.turn = None;
            // A destination whose node died is taken over after this.
            let until = now + needed * 2;
            let mut tx = self.app.db.write().await?;
            let first = match start {
                Start::First => 0,
                Start::Now => ledger::size(&mut tx).await?,
            };
            outbox::add(&mut tx, name, kind, first).await?;
            let taken = outbox::take(&mut tx, (name, kind), &self.holder, now, until).await?;
            tx.commit().await?;
            if !taken {
                return Ok(None);
            }
            self.turn = Some(until);
        }
        outbox::find(&mut self.app.db.read().await?, name).await
    }

    async fn give_back(&self) -> Result<(), DbError> {
        let mut tx = self.app.db.write().await?;
        outbox::give_back(&mut tx, &self.destination.name, &self.holder).await?;
        tx.commit().await
    }

    /// Notes that the receiver has taken everything up to `end`. The database is asked again and again for a while: if it
    /// cannot be told, the batch comes again.
    async fn note_taken(&mut self, state: &OutboxState, end: Cursor, records: u64) -> Result<(), DbError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match self.try_note_taken(state, end, records).await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    warn!("A batch was delivered after the turn had gone to another process; it may have come twice.");
                    self.turn = None;
                    return Ok(());
                }
                Err(error) if error.is_unreachable() && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => {
                    warn!(%error, "It could not be noted what a destination has taken; it comes again.");
                    return Err(error);
                }
            }
        }
    }

    async fn try_note_taken(&self, state: &OutboxState, end: Cursor, records: u64) -> Result<bool, DbError> {
        let now = self.app.clock.now();
        let destination = self.destination.name.clone();
        let mut tx = self.app.db.write().await?;
        let noted = outbox::advance(&mut tx, (&destination, &self.holder), (state.next, end), records, now).await?;
        if noted && state.late {
            info!("Events get to the destination again.");
            audit::append(&mut tx, now, &Actor::Bastion, Act::OutboxRecovered { destination }).await?;
        } else if noted && state.error.is_some() {
            info!("The destination takes events again.");
        }
        tx.commit().await?;
        Ok(noted)
    }

    async fn note_failure(&self, before: &OutboxState, message: &str, pause: Duration) -> Result<(), DbError> {
        let now = self.app.clock.now();
        let text: String = message.chars().take(MOST_ERROR).collect();
        let mut state = before.clone();
        let since = *state.failing_since.get_or_insert(now);
        if before.error.as_ref() != Some(&text) {
            warn!(error = %text, "A destination did not take events; it is tried again.");
        }
        let mut act = None;
        let patience = TimeDelta::from_std(self.destination.late_after).unwrap_or(TimeDelta::MAX);
        if !before.late && now - since >= patience {
            error!(%since, error = %text, "Events do not get to a destination.");
            state.late = true;
            let (destination, error) = (self.destination.name.clone(), text.clone());
            act = Some(Act::OutboxLate { destination, since, error });
        }
        state.retry_at = TimeDelta::from_std(pause).ok().map(|pause| now + pause);
        state.error = Some(text);
        let mut tx = self.app.db.write().await?;
        outbox::fail(&mut tx, &self.holder, &state).await?;
        if let Some(act) = act {
            audit::append(&mut tx, now, &Actor::Bastion, act).await?;
        }
        tx.commit().await
    }

    /// Goes on behind what was refused for good, and tells: in the destination's row and the log each time, as an event once until
    /// something is taken again. Else each event of it would be refused in its turn, and tell of itself, without end.
    async fn give_up(&mut self, state: &OutboxState, end: Cursor, lost: Lost) -> Result<(), DbError> {
        let now = self.app.clock.now();
        let Lost { first, last, records, message } = lost;
        let destination = self.destination.name.clone();
        let why: String = format!("{records} records of the events {first} to {last}, at {now}: {message}");
        error!(first, last, records, reason = %message, "A destination refuses records for good; they are given up.");
        let mut tx = self.app.db.write().await?;
        let noted = outbox::give_up(&mut tx, (&destination, &self.holder), (state.next, end), records, &why).await?;
        if noted && !self.told_drop {
            let act = Act::OutboxDropped { destination, first, last, records, error: message };
            audit::append(&mut tx, now, &Actor::Bastion, act).await?;
        }
        tx.commit().await?;
        self.told_drop |= noted;
        if !noted {
            self.turn = None;
        }
        Ok(())
    }

    /// The pause after one more failure: twice the one before, up to the most, less up to a half by chance, so that many do
    /// not come back at once; and not less than the receiver asked for.
    fn next_pause(&mut self, asked_for: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let doubled = FIRST_PAUSE.saturating_mul(1 << (self.failures - 1).min(20));
        let longest = doubled.min(self.destination.retry_most);
        let jittered = longest.mul_f64(rand::random_range(0.5..=1.0));
        jittered.max(asked_for.unwrap_or_default())
    }
}

/// What was refused for good.
struct Lost {
    first: u64,
    last: u64,
    records: u64,
    message: String,
}
