//! Looking at a recording: what the web player loads, and the frames themselves. Looking is an event, written before the
//! first byte is given out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::cast::player::{Index, Segment, Timeline};
use sallyport_domain::channel::TerminalSize;
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::RecordingId;
use sallyport_domain::recording::segment::Snapshot;

use crate::app::recordings::read::{self, ReadError, Reader, Sight};
use crate::app::{App, audit};
use crate::store::db::recordings::{RecordingRecord, SegmentRecord};

/// What a recording is read for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    View,
    /// To be kept, in this format.
    Export {
        format: String,
    },
}

/// The player's index, and until when the recording reaches in it.
pub struct Opened {
    pub index: Index,
    /// A live recording's sealed part, in microseconds; its segments must be asked for with this. `None` once it has ended.
    pub until: Option<u64>,
}

/// One of the player's segments.
pub struct OpenedSegment {
    pub segment: Segment,
    /// It will always be the same.
    pub is_final: bool,
}

/// Who opened which recording's index lately, so that its segments are not an event each. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Looks(Arc<Mutex<LastLooks>>);

type LastLooks = HashMap<(Actor, RecordingId), DateTime<Utc>>;

/// An opened recording is looked at for so long; then a segment is an event again.
const LOOK: Duration = Duration::from_hours(1);

/// The most looks that are remembered; one that is forgotten costs another event.
const MOST_LOOKS: usize = 4096;

impl Looks {
    /// Whether `actor` is known to look at `recording` at `now`.
    fn has(&self, actor: &Actor, recording: RecordingId, now: DateTime<Utc>) -> bool {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.get(&(actor.clone(), recording)).is_some_and(|since| is_fresh(*since, now))
    }

    fn note(&self, actor: &Actor, recording: RecordingId, now: DateTime<Utc>) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() >= MOST_LOOKS {
            looks.retain(|_, since| is_fresh(*since, now));
            if looks.len() >= MOST_LOOKS {
                looks.clear();
            }
        }
        looks.insert((actor.clone(), recording), now);
    }
}

fn is_fresh(since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    now - since < TimeDelta::from_std(LOOK).unwrap_or(TimeDelta::MAX)
}

/// Opens a recording for the player: always an event. Of a live one it shows what is sealed.
pub async fn index(app: &App, looks: &Looks, actor: &Actor, id: RecordingId) -> Result<Opened, ReadError> {
    let (record, rows) = rows(app, id).await?;
    Sight::find(app, &record).await?;
    let until = live_until(&record, &rows, None);
    let timeline = timeline(&record, &rows, until);
    view(app, looks, actor, id).await?;
    Ok(Opened { index: timeline.index(first_size(&record)), until })
}

/// Opens one of the player's segments; `None` if there is none of this number. `until` is what the index said of a live
/// recording, so that a segment fits the index that it was found in though the recording has grown.
pub async fn segment(
    app: &App,
    looks: &Looks,
    actor: &Actor,
    id: RecordingId,
    number: u32,
    until: Option<u64>,
) -> Result<Option<OpenedSegment>, ReadError> {
    let (record, rows) = rows(app, id).await?;
    let until = live_until(&record, &rows, until);
    let timeline = timeline(&record, &rows, until);
    if !looks.has(actor, id, app.clock.now()) {
        view(app, looks, actor, id).await?;
    }
    let wanted = usize::try_from(number).unwrap_or(usize::MAX);
    let Some(row) = rows.get(wanted) else {
        // A recording without a segment has an empty one.
        let empty = Snapshot { size: first_size(&record), init: String::new() };
        let segment = timeline.segment(wanted, &empty, &[]).filter(|_| rows.is_empty());
        return Ok(segment.map(|segment| OpenedSegment { segment, is_final: false }));
    };
    let (snapshot, frames) = read::open_segment(app, &Sight::find(app, &record).await?, row).await?;
    let segment = timeline.segment(wanted, &snapshot, &frames);
    Ok(segment
        .map(|segment| OpenedSegment { segment, is_final: record.progress.ended_at.is_some() || until.is_some() }))
}

/// A reader of a recording's frames from the start; always an event. With `follow` it stays with a live recording.
pub async fn frames(
    app: &App,
    actor: &Actor,
    id: RecordingId,
    purpose: Purpose,
    follow: bool,
) -> Result<Reader, ReadError> {
    let reader = Reader::open(app.clone(), id, follow).await?;
    audit::record(app, actor, act(id, purpose)).await?;
    Ok(reader)
}

/// The segments of a recording that are at rest, to be fetched as they are stored, encrypted or not; always an event.
pub async fn stored(
    app: &App,
    actor: &Actor,
    id: RecordingId,
    purpose: Purpose,
) -> Result<VecDeque<SegmentRecord>, ReadError> {
    let (_, rows) = rows(app, id).await?;
    audit::record(app, actor, act(id, purpose)).await?;
    Ok(rows.into())
}

fn act(recording: RecordingId, purpose: Purpose) -> Act {
    match purpose {
        Purpose::View => Act::RecordingViewed { recording },
        Purpose::Export { format } => Act::RecordingExported { recording, format },
    }
}

/// A live recording from about now on: how its terminal stood at the last cut, and a reader of everything since. Always an
/// event.
pub async fn live(app: &App, actor: &Actor, id: RecordingId) -> Result<(Snapshot, Reader), ReadError> {
    let opened = Reader::near_end(app.clone(), id).await?;
    audit::record(app, actor, Act::RecordingViewed { recording: id }).await?;
    Ok(opened)
}

async fn view(app: &App, looks: &Looks, actor: &Actor, id: RecordingId) -> Result<(), ReadError> {
    audit::record(app, actor, Act::RecordingViewed { recording: id }).await?;
    looks.note(actor, id, app.clock.now());
    Ok(())
}

async fn rows(app: &App, id: RecordingId) -> Result<(RecordingRecord, Vec<SegmentRecord>), ReadError> {
    let record = read::find(app, id).await?;
    let mut rows = read::segments(app, id, 0).await?;
    // Segments that were sealed between the two looks are in neither.
    rows.truncate(usize::try_from(record.progress.segments).unwrap_or(usize::MAX));
    Ok((record, rows))
}

/// Until when a live recording is shown: as asked, or up to its last sealed segment.
fn live_until(record: &RecordingRecord, rows: &[SegmentRecord], asked: Option<u64>) -> Option<u64> {
    let sealed = || rows.last().map_or(0, |row| row.end_us);
    asked.or_else(|| record.progress.ended_at.is_none().then(sealed))
}

fn timeline(record: &RecordingRecord, rows: &[SegmentRecord], until: Option<u64>) -> Timeline {
    let shown = rows.iter().filter(|row| until.is_none_or(|until| row.end_us <= until));
    Timeline::new(shown.map(|row| row.start_us), until.unwrap_or(record.progress.duration_us))
}

/// The terminal's size at the start, if there was a terminal.
fn first_size(record: &RecordingRecord) -> Option<TerminalSize> {
    let recording = &record.recording;
    recording.cols.zip(recording.rows).map(|(cols, rows)| TerminalSize { cols, rows })
}
