//! Stored segments against what proves them: the manifest of a session that was sealed, the rows and the chain of one that was
//! not.

use sallyport_domain::hash::Hash;
use sallyport_domain::ledger::manifest::{Manifest, RecordingSeal};
use sallyport_domain::ledger::verify::{RecordingVerifier, Tally};
use sallyport_domain::recording::segment;

use super::LedgerError;
use super::verify::{Report, chain};
use crate::app::App;
use crate::app::recordings::{is_object_of, object_key};
use crate::store::blob::BlobError;
use crate::store::db::{manifests, recordings};

/// Verifies every segment of a session's recordings, what they hold, and that the books show the same.
pub(super) async fn check(app: &App, manifest: &Manifest, report: &mut Report) -> Result<(), LedgerError> {
    let rows = recordings::of_session(&mut app.db.read().await?, manifest.session).await?;
    if let Some(extra) =
        rows.iter().find(|row| manifest.recordings.iter().all(|seal| seal.recording != row.recording.id))
    {
        report.fault(format!("recording {}", extra.recording.id), "its session's manifest does not know it");
    }
    for seal in &manifest.recordings {
        match rows.iter().find(|row| row.recording.id == seal.recording) {
            None => report.fault(format!("recording {}", seal.recording), "its row is gone"),
            Some(row) if row.progress.chain != seal.chain => {
                let what = format!("its chain should be {}, and its row says {}", seal.chain, row.progress.chain);
                report.fault(format!("recording {}", seal.recording), what);
            }
            Some(_) => check_rows(app, seal, report).await?,
        }
        let rows = recordings::segments(&mut app.db.read().await?, seal.recording, 0).await?;
        check_objects(app, seal, &rows, report).await?;
    }
    Ok(())
}

/// The rows by which readers find the segments.
async fn check_rows(app: &App, seal: &RecordingSeal, report: &mut Report) -> Result<(), LedgerError> {
    let rows = recordings::segments(&mut app.db.read().await?, seal.recording, 0).await?;
    if rows.len() != seal.segments.len() {
        let what = format!("it has {} segments, and {} have rows", seal.segments.len(), rows.len());
        report.fault(format!("recording {}", seal.recording), what);
        return Ok(());
    }
    for (row, expected) in rows.iter().zip(&seal.segments) {
        let same = row.sha256 == expected.sha256 && (row.start_us, row.end_us) == (expected.start_us, expected.end_us);
        if !same || !is_object_of(seal.recording, row.number, &row.object) {
            let place = format!("row of segment {} of recording {}", row.number, seal.recording);
            report.fault(place, "it says something else than the manifest");
        }
    }
    Ok(())
}

async fn check_objects(
    app: &App,
    seal: &RecordingSeal,
    rows: &[recordings::SegmentRecord],
    report: &mut Report,
) -> Result<(), LedgerError> {
    let mut verifier = RecordingVerifier::new(seal);
    let mut tally = Some(Tally::default());
    for (number, expected) in (0_u32..).zip(&seal.segments) {
        let place = format!("segment {number} of recording {}", seal.recording);
        // Without its row it is looked for where it would be, had nobody taken the recording over.
        let row = rows.iter().find(|row| row.number == number);
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
        report.bytes += stored.len() as u64;
        report.segments += 1;
        let most = usize::try_from(expected.bytes).unwrap_or(usize::MAX);
        let counted = tokio::task::spawn_blocking(move || (Hash::of(&stored), count(&stored, most))).await;
        let (found, counted) = counted.unwrap_or((Hash::ZERO, Err("it could not be counted".to_owned())));
        if let Err(fault) = verifier.segment(found) {
            report.fault(place, fault.to_string());
            tally = None;
            continue;
        }
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
