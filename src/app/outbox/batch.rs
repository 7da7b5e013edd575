//! What comes next for a destination: the events from its cursor on, with the commands of recordings behind the event of their
//! end, as far as they fit into one batch.

use sallyport_domain::event::{Act, Event};
use sallyport_domain::ledger::entry;
use sallyport_domain::outbox::detail::Detail;
use sallyport_domain::outbox::record::{RanCommand, Record};
use sallyport_domain::outbox::words::{Names, people, sentence};

use super::{Destination, Item, Parcel};
use crate::app::{App, DbError};
use crate::store::db::outbox::Cursor;
use crate::store::db::{Tx, commands, ledger, principals};

/// A batch ends when its records have so many bytes; one that is larger goes alone.
const MOST_BYTES: usize = 1 << 20;

/// As many events are looked at for one batch: those that are not chosen cost little, and no batch looks at all there are.
const MOST_LOOKED_AT: u32 = 2000;

/// What was found.
pub(super) struct Batch {
    pub(super) parcel: Parcel,
    /// Behind the last that was looked at.
    pub(super) end: Cursor,
}

/// Reads from `start` on at most `most` records.
pub(super) async fn read(app: &App, destination: &Destination, start: Cursor, most: usize) -> Result<Batch, DbError> {
    let mut tx = app.db.read().await?;
    let name = ledger::keys(&mut tx).await?.into_iter().next().map(|key| key.name).unwrap_or_default();
    let looked_at = u32::try_from(most).unwrap_or(u32::MAX).clamp(100, MOST_LOOKED_AT);
    let placed = ledger::placed(&mut tx, start.index, looked_at).await?;
    let mut filling =
        Filling { destination, parcel: Parcel { ledger: name, items: Vec::new() }, most, bytes: 0, end: start };
    for event in placed {
        let bytes = event.event.map(|event| event.entry).unwrap_or_default();
        let from = if event.index == start.index { start.part } else { 0 };
        if !filling.event(&mut tx, event.index, &bytes, from).await? {
            break;
        }
    }
    Ok(Batch { parcel: filling.parcel, end: filling.end })
}

struct Filling<'a> {
    destination: &'a Destination,
    parcel: Parcel,
    most: usize,
    bytes: usize,
    end: Cursor,
}

impl Filling<'_> {
    /// Takes what is chosen of an event, from the part `from` on; `false` if the batch is full.
    async fn event(&mut self, tx: &mut Tx, index: u64, bytes: &[u8], from: u32) -> Result<bool, DbError> {
        let event = entry::decode(bytes).ok();
        if from == 0 {
            let mut record = Record::of_event(&self.parcel.ledger, index, bytes, self.destination.paths);
            if self.destination.selection.takes(&record.kind) {
                if let Some(Act::CommandFlagged { recording, number, .. }) = event.as_ref().map(|event| &event.act)
                    && self.destination.commands != Detail::Off
                {
                    let found = commands::of_recording(tx, *recording, *number, 1).await?;
                    let found = found.into_iter().find(|found| found.command.number == *number);
                    if let Some(found) = found {
                        record.add_command(&found.command.text, self.destination.commands);
                    }
                }
                let sentence = self.sentence(tx, event.as_ref()).await?;
                if !self.add(record, sentence) {
                    return Ok(false);
                }
            }
            self.end = Cursor { index, part: 1 };
        }
        if let Some(event) = &event
            && !self.commands(tx, index, event, from.max(1)).await?
        {
            return Ok(false);
        }
        self.end = Cursor { index: index + 1, part: 0 };
        Ok(true)
    }

    /// Takes the commands of a recording that has ended, from the part `from` on: by then they do not change any more, unless its node
    /// was lost and completes it later; then all are told behind its second end. The number of a command is its part less one.
    async fn commands(&mut self, tx: &mut Tx, index: u64, event: &Event, from: u32) -> Result<bool, DbError> {
        /// Each has at most 4 KiB.
        const AT_ONCE: u32 = 256;
        let Act::RecordingEnded { session, recording, .. } = event.act else { return Ok(true) };
        if self.destination.commands == Detail::Off || self.destination.is_for_people {
            return Ok(true);
        }
        let mut part = from;
        loop {
            let found = commands::of_recording(tx, recording, part - 1, AT_ONCE).await?;
            let Some(last) = found.last().map(|last| last.command.number) else { return Ok(true) };
            for found in found {
                let part = found.command.number.saturating_add(1);
                let (at, command, flag) = (found.at, found.command, found.flag);
                let ran = RanCommand { session, recording, at, command, flag };
                let id = event.id.to_string();
                let record = Record::of_command(&self.parcel.ledger, index, part, &id, &ran, self.destination.commands);
                if let Some(record) = record
                    && !self.add(record, String::new())
                {
                    self.end = Cursor { index, part };
                    return Ok(false);
                }
            }
            part = last.saturating_add(2);
        }
    }

    /// Adds a record, unless the batch is full: then nothing more is added.
    fn add(&mut self, record: Record, sentence: String) -> bool {
        let bytes = record.text().len();
        let has_some = !self.parcel.items.is_empty();
        if self.parcel.items.len() >= self.most || (has_some && self.bytes + bytes > MOST_BYTES) {
            return false;
        }
        self.bytes += bytes;
        self.parcel.items.push(Item { record, sentence });
        true
    }

    async fn sentence(&self, tx: &mut Tx, event: Option<&Event>) -> Result<String, DbError> {
        if !self.destination.is_for_people {
            return Ok(String::new());
        }
        let Some(event) = event else { return Ok("something that this version cannot read".to_owned()) };
        let mut names = Names::new();
        for person in people(event) {
            if let Some(found) = principals::find_by_id(tx, person).await? {
                names.insert(person, found.principal.name.to_string());
            }
        }
        Ok(sentence(event, &names))
    }
}
