//! Search over every session: what was run, what screens showed, which files were touched. To search is an event.
//!
//! The newest lines are found first and no more is looked at than a page takes: what is everywhere is found in the newest stretch of the
//! index, what is rare in few blocks. A search has a deadline; where it ends, the page says so and leads on.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::{RecordingId, SessionId};
use sallyport_domain::search::Kind;
use sallyport_domain::search::lines::Line;
use sallyport_domain::search::query::{Place, Query};

use crate::app::{App, audit};
use crate::store::db::search::{self, FoundBlock, Kinds};
use crate::store::db::sessions::{self, SessionRecord};
use crate::store::db::{DbError, Tx};

pub use crate::store::db::search::Indexed;

/// Hits of one session on a page; that there are more is said.
pub const MOST_OF_SESSION: usize = 5;

/// Lines before and behind a hit that are shown with it.
const AROUND: usize = 2;

/// Blocks that are fetched at once.
const AT_ONCE: u32 = 100;

/// Blocks that are looked at for one page.
const MOST_BLOCKS: usize = 5000;

/// A page is given out by then, with what was found.
const DEADLINE: Duration = Duration::from_secs(4);

/// Each stretch of the index that is looked at is so many times as long as the one before, up to the longest.
const GROWTH: i64 = 4;
const FIRST_STRETCH: i64 = 2 * search::STRETCH;
const LONGEST_STRETCH: i64 = 64 * search::STRETCH;

/// Why nothing was searched.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error("this takes the database too long; look for something longer or less common")]
    TooLong,
    #[error(transparent)]
    Db(DbError),
}

impl From<DbError> for SearchError {
    fn from(error: DbError) -> Self {
        if error.is_too_slow() { SearchError::TooLong } else { SearchError::Db(error) }
    }
}

/// What somebody wants to find.
#[derive(Debug, Clone)]
pub struct Wish {
    pub query: Query,
    /// As it was written, for the audit log.
    pub words: String,
    /// Whoever may not see screens finds commands and files.
    pub may_see_screens: bool,
    /// `next` of the page before.
    pub before: Option<i64>,
    /// At most so many hits.
    pub limit: usize,
}

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    pub kind: Kind,
    pub recording: RecordingId,
    pub channel: u32,
    /// When the recording began, and in microseconds from then when the line was as it reads.
    pub started_at: DateTime<Utc>,
    pub at: u64,
    pub line: String,
    pub place: Place,
    /// The lines before and behind it, the nearest next to it.
    pub before: Vec<String>,
    pub after: Vec<String>,
}

/// What was found in one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSession {
    pub session: SessionRecord,
    /// The newest first.
    pub hits: Vec<Hit>,
    /// There are more in this session.
    pub has_more: bool,
    pub indexed: Indexed,
}

/// A page of what was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundPage {
    /// The session with the newest hit first.
    pub sessions: Vec<FoundSession>,
    /// Leads to what is older; `None` if everything was looked at.
    pub next: Option<i64>,
    /// The page is not full, but it was looked at enough: `next` goes on looking.
    pub is_partial: bool,
}

/// Looks for `wish`; the first page of a search is an event, written before anything is given out.
pub async fn find(app: &App, actor: &Actor, wish: &Wish) -> Result<FoundPage, SearchError> {
    if wish.before.is_none() {
        audit::record(app, actor, Act::SessionsSearched { words: wish.words.clone() }).await?;
    }
    let mut tx = app.db.read().await?;
    search::prepare(&mut tx).await?;
    let kinds = match (wish.query.kind(), wish.may_see_screens) {
        (Some(Kind::Screen), false) => return Ok(FoundPage::default()),
        (Some(kind), _) => Kinds::One(kind),
        (None, true) => Kinds::All,
        (None, false) => Kinds::Lists,
    };
    let (collected, next, is_partial) = collect(&mut tx, wish, kinds).await?;
    let mut page = FoundPage { sessions: Vec::with_capacity(collected.len()), next, is_partial };
    for Collected { session, hits, has_more } in collected {
        let Some(record) = sessions::find(&mut tx, session).await? else { continue };
        let mut shown = Vec::with_capacity(hits.len());
        for (block, number, place) in hits {
            shown.extend(hit(&mut tx, &block, number, place).await?);
        }
        let indexed = search::state(&mut tx, session, None).await?;
        page.sessions.push(FoundSession { session: record, hits: shown, has_more, indexed });
    }
    Ok(page)
}

/// Hits of one session: the block, the line's number in it, and the place in the line.
struct Collected {
    session: SessionId,
    hits: Vec<(FoundBlock, usize, Place)>,
    has_more: bool,
}

async fn collect(tx: &mut Tx, wish: &Wish, kinds: Kinds) -> Result<(Vec<Collected>, Option<i64>, bool), SearchError> {
    let keys = wish.query.keys();
    let begun = Instant::now();
    let mut found: Vec<Collected> = Vec::new();
    let mut places: HashMap<SessionId, usize> = HashMap::new();
    let (mut hits, mut looked_at) = (0, 0);
    let mut before = search::last(tx).await? + 1;
    before = wish.before.map_or(before, |asked| asked.clamp(0, before));
    let mut stretch = FIRST_STRETCH;
    while before > 0 {
        if looked_at >= MOST_BLOCKS || begun.elapsed() >= DEADLINE {
            return Ok((found, Some(before), true));
        }
        let from = (before - stretch).max(0);
        let blocks = search::find(tx, kinds, &keys, from, before, AT_ONCE).await?;
        looked_at += blocks.len();
        let is_all = blocks.len() < AT_ONCE as usize;
        for block in blocks {
            before = block.id;
            if block.is_gone {
                continue;
            }
            let in_block: Vec<(usize, Place)> = block
                .block
                .lines
                .iter()
                .enumerate()
                .filter_map(|(n, line)| Some((n, wish.query.find(&line.text)?)))
                .collect();
            if in_block.is_empty() {
                continue;
            }
            let place = *places.entry(block.session).or_insert_with(|| {
                found.push(Collected { session: block.session, hits: Vec::new(), has_more: false });
                found.len() - 1
            });
            let Some(of_session) = found.get_mut(place) else { continue };
            // The newest first, as the blocks are.
            for (number, place) in in_block.into_iter().rev() {
                if of_session.hits.len() >= MOST_OF_SESSION {
                    of_session.has_more = true;
                    break;
                }
                of_session.hits.push((block.clone(), number, place));
                hits += 1;
            }
            if hits >= wish.limit {
                return Ok((found, (before > 0).then_some(before), false));
            }
        }
        if is_all {
            before = from;
            stretch = (stretch * GROWTH).min(LONGEST_STRETCH);
        }
    }
    Ok((found, None, false))
}

/// A hit with what surrounds it, which may be in the blocks before and behind.
async fn hit(tx: &mut Tx, found: &FoundBlock, number: usize, place: Place) -> Result<Option<Hit>, DbError> {
    let block = &found.block;
    let Some(line) = block.lines.get(number) else { return Ok(None) };
    let texts = |lines: &[Line]| lines.iter().map(|line| line.text.clone()).collect::<Vec<_>>();
    let (mut before, mut after) = (Vec::new(), Vec::new());
    // Commands have none around them that say more than they do.
    if block.kind != Kind::Command {
        before = texts(block.lines.get(number.saturating_sub(AROUND)..number).unwrap_or_default());
        let behind = block.lines.len().min(number + 1 + AROUND);
        after = texts(block.lines.get(number + 1..behind).unwrap_or_default());
        if before.len() < AROUND && block.number > 0 {
            let more = search::lines(tx, found.recording, block.kind, block.number - 1).await?;
            let skip = more.len().saturating_sub(AROUND - before.len());
            let own = std::mem::replace(&mut before, texts(more.get(skip..).unwrap_or_default()));
            before.extend(own);
        }
        if after.len() < AROUND {
            let more = search::lines(tx, found.recording, block.kind, block.number + 1).await?;
            after.extend(more.into_iter().take(AROUND - after.len()).map(|line| line.text));
        }
    }
    Ok(Some(Hit {
        kind: block.kind,
        recording: found.recording,
        channel: found.channel,
        started_at: found.started_at,
        at: line.at,
        line: line.text.clone(),
        place,
        before,
        after,
    }))
}

#[cfg(test)]
mod tests;
