//! Stored segments against what proves them: the manifest of a session that was sealed, the rows and the chain of one that was
//! not.

use sallyport_domain::hash::Hash;
use sallyport_domain::ledger::manifest::{Manifest, RecordingSeal, SegmentSeal};
use sallyport_domain::ledger::verify::{RecordingVerifier, Tally};
use sallyport_domain::recording::segment;

use super::LedgerError;
use super::verify::{Report, chain};
use crate::app::App;
use crate::app::recordings::{is_object_of, object_key};
use crate::store::blob::BlobError;
use crate::store::db::recordings::SegmentRecord;
use crate::store::db::{manifests, recordings};

/// What should be there of what a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Kept,
    /// A tombstone explains that the objects are gone; the books stay.
    Deleted,
    /// A node that was lost is back, and brings what it had not shipped: recordings that ended with a gap change just now, and are
    /// looked at by their rows ([`check_unsealed`]). The others stay as they are.
    BeingCompleted,
}

/// Verifies every segment of a session's recordings, what they hold, and that the books show the same.
pub(super) async fn check(
    app: &App,
    manifest: &Manifest,
    standing: Standing,
    report: &mut Report,
) -> Result<(), LedgerError> {
    let rows = match recordings::of_session(&mut app.db.read().await?, manifest.session).await {
        Ok(rows) => rows,
        Err(error) => {
            report.unreadable(format!("recordings of session {}", manifest.session), error)?;
            Vec::new()
        }
    };
    if let Some(extra) =
        rows.iter().find(|row| manifest.recordings.iter().all(|seal| seal.recording != row.recording.id))
    {
        report.fault(format!("recording {}", extra.recording.id), "its session's manifest does not know it");
    }
    let changes = |seal: &RecordingSeal| standing == Standing::BeingCompleted && !seal.gaps.is_empty();
    for seal in manifest.recordings.iter().filter(|seal| !changes(seal)) {
        let stored = match recordings::segments(&mut app.db.read().await?, seal.recording, 0).await {
            Ok(stored) => stored,
            Err(error) => {
                report.unreadable(format!("rows of recording {}", seal.recording), error)?;
                Vec::new()
            }
        };
        match rows.iter().find(|row| row.recording.id == seal.recording) {
            None => report.fault(format!("recording {}", seal.recording), "its row is gone"),
            Some(row) if row.progress.chain != seal.chain => {
                let what = format!("its chain should be {}, and its row says {}", seal.chain, row.progress.chain);
                report.fault(format!("recording {}", seal.recording), what);
            }
            Some(row) => {
                let found = &row.recording;
                let (duration, segments) = (row.progress.duration_us, row.progress.segments as usize);
                let same = (found.channel, &found.program) == (seal.channel, &seal.program)
                    && (found.started_at, duration) == (seal.started_at, seal.duration_us)
                    && (found.term.is_some(), segments) == (seal.terminal, seal.segments.len())
                    && row.progress.exit.as_deref().and_then(|exit| serde_json::from_str(exit).ok()) == seal.end.exit;
                if !same {
                    report.fault(
                        format!("recording {}", seal.recording),
                        "its row says something else than its manifest",
                    );
                }
                check_rows(seal, &stored, report);
            }
        }
        if standing != Standing::Deleted {
            check_objects(app, seal, &stored, report).await?;
        }
    }
    Ok(())
}

/// The rows by which readers find the segments.
fn check_rows(seal: &RecordingSeal, rows: &[SegmentRecord], report: &mut Report) {
    if rows.len() != seal.segments.len() {
        let what = format!("it has {} segments, and {} have rows", seal.segments.len(), rows.len());
        report.fault(format!("recording {}", seal.recording), what);
        return;
    }
    let mut chain = Hash::ZERO;
    for (number, (row, expected)) in (0_u32..).zip(rows.iter().zip(&seal.segments)) {
        chain = chain.extended_by(expected.sha256);
        let found = (row.number, row.sha256, row.start_us, row.end_us, row.bytes, row.stored_bytes, row.chain);
        let SegmentSeal { sha256, stored_bytes, bytes, start_us, end_us } = *expected;
        let same = found == (number, sha256, start_us, end_us, bytes, stored_bytes, chain);
        if !same || !is_object_of(seal.recording, number, &row.object) {
            let place = format!("row of segment {number} of recording {}", seal.recording);
            report.fault(place, "it says something else than the manifest");
        }
    }
}

async fn check_objects(
    app: &App,
    seal: &RecordingSeal,
    rows: &[SegmentRecord],
    report: &mut Report,
) -> Result<(), LedgerError> {
    let mut verifier = RecordingVerifier::new(seal);
    let mut tally = Some(Tally::default());
    for (number, expected) in (0_u32..).zip(&seal.segments) {
        let place = format!("segment {number} of recording {}", seal.recording);
        // Without its row it is looked for where it would be, had nobody taken the recording over.
        let row = rows.iter().find(|row| row.number == number && is_object_of(seal.recording, number, &row.object));
        let object = row.map_or_else(|| object_key(seal.recording, number, 0), |row| row.object.clone());
        let stored = match app.blobs.get(&object).await {
            Ok(stored) => stored,
            Err(BlobError::NotFound { .. }) => {
                report.fault(place, verifier.missing().to_string());
                tally = None;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = stored.len() as u64;
        let most = usize::try_from(expected.bytes).unwrap_or(usize::MAX);
        let counted = tokio::task::spawn_blocking(move || (Hash::of(&stored), count(&stored, most))).await;
        let (found, counted) = counted.unwrap_or((Hash::ZERO, Err("it could not be counted".to_owned())));
        if let Err(fault) = verifier.segment(found) {
            report.fault(place, fault.to_string());
            tally = None;
            continue;
        }
        report.bytes += bytes;
        report.segments += 1;
        match counted {
            Ok(counted) => tally = tally.map(|tally| sum(tally, counted)),
            Err(what) => {
                report.fault(place, what);
                tally = None;
            }
        }
    }
    if let Some(Err(fault)) = tally.map(|tally| tally.check(seal)) {
        report.fault(format!("recording {}", seal.recording), fault.to_string());
    }
    Ok(())
}

/// What a stored segment holds.
fn count(stored: &[u8], most: usize) -> Result<Tally, String> {
    let bytes = crate::app::recordings::decompress(stored, most)
        .map_err(|error| format!("it is as it was stored, but cannot be decompressed: {error}"))?;
    let (_, frames) = segment::parse(bytes.into()).map_err(|error| format!("it cannot be read: {}", chain(&error)))?;
    let mut tally = Tally::default();
    frames.iter().for_each(|frame| tally.add(frame));
    Ok(tally)
}

fn sum(a: Tally, b: Tally) -> Tally {
    Tally {
        input: a.input + b.input,
        masked: a.masked + b.masked,
        output: a.output + b.output,
        error_output: a.error_output + b.error_output,
        gaps: a.gaps + b.gaps,
    }
}

/// Recordings of sessions without a manifest, which live or end just now: their objects against their rows and the chain.
pub(super) async fn check_unsealed(app: &App, report: &mut Report) -> Result<(), LedgerError> {
    let mut tx = app.db.read().await?;
    let recordings = manifests::unsealed_recordings(&mut tx).await?;
    drop(tx);
    for recording in recordings {
        let rows = recordings::segments(&mut app.db.read().await?, recording, 0).await?;
        let mut chain = Hash::ZERO;
        for (number, row) in (0_u32..).zip(&rows) {
            let place = format!("segment {number} of recording {recording}, which is not sealed yet");
            chain = chain.extended_by(row.sha256);
            if row.number != number || row.chain != chain {
                report.fault(place, format!("the chain should be {}, and is {chain}", row.chain));
                break;
            }
            match app.blobs.get(&row.object).await.map(|stored| (stored.len(), Hash::of(&stored))) {
                Ok((bytes, found)) if found == row.sha256 => {
                    report.bytes += bytes as u64;
                    report.segments += 1;
                }
                Ok((_, found)) => {
                    report.fault(place, format!("its SHA-256 should be {}, and is {found}", row.sha256));
                }
                Err(error @ BlobError::NotFound { .. }) => report.fault(place, error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
