//! A recording's frames as they come from the API, and what may go wrong with them on the way.

use std::borrow::Cow;
use std::pin::Pin;

use bytes::{Buf as _, Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt as _};
use reqwest::Method;
use sallyport_domain::id::RecordingId;
use sallyport_domain::recording::frame::{Frame, FrameError};
use sallyport_domain::recording::segment::{self, SegmentError};

use super::client::Client;
use super::failure::{Failure, FailureKind};
use crate::api::error::Problem;
use crate::api::replay::{BROKEN_OFF, FramesQuery};
use crate::app::recordings::decompress;
use crate::app::recordings::encryption::{self, DecryptError, Identities};

/// Why a recording cannot be read further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FramesError {
    #[error("the connection to the bastion broke")]
    Broken(#[source] reqwest::Error),
    #[error("what the bastion sent is not a recording")]
    Frame(#[from] FrameError),
    #[error("the recording came to its end in the middle of a frame")]
    Torn,
    #[error("the recording cannot be decrypted")]
    Encrypted(#[from] DecryptError),
    #[error("a segment cannot be decompressed")]
    Compression(#[source] std::io::Error),
    #[error("a segment cannot be read")]
    Segment(#[from] SegmentError),
    /// The bastion says why it cannot go on.
    #[error("{}", .0.detail)]
    Refused(Problem),
}

/// Opens a recording. The bastion writes down that it was.
pub(crate) async fn open(
    client: &Client,
    id: RecordingId,
    query: &FramesQuery,
) -> Result<impl Stream<Item = Result<Frame, FramesError>> + use<>, Failure> {
    let request = client.request(Method::GET, &["recordings", &id.to_string(), "frames"]).query(query);
    let body = client.send(request).await?.bytes_stream();
    Ok(decode(body.map(|chunk| chunk.map_err(|error| FramesError::Broken(error.without_url())))))
}

/// Opens a recording as it is stored, and decrypts what is encrypted of it. The bastion writes down that it was.
pub(crate) async fn open_stored(
    client: &Client,
    id: RecordingId,
    query: &FramesQuery,
    identities: Identities,
) -> Result<impl Stream<Item = Result<Frame, FramesError>> + use<>, Failure> {
    let request = client.request(Method::GET, &["recordings", &id.to_string(), "stored"]).query(query);
    let body = client.send(request).await?.bytes_stream();
    let reading = Reading::new(body.map(|chunk| chunk.map_err(|error| FramesError::Broken(error.without_url()))));
    let segments = futures::stream::try_unfold((reading, identities), async |(mut reading, identities)| {
        loop {
            if reading.bytes.starts_with(&BROKEN_OFF) {
                return Err(refused(&mut reading).await);
            }
            if let Some(stored) = reading.take_segment()? {
                let frames = frames_of(&stored, &identities)?;
                return Ok(Some((futures::stream::iter(frames.into_iter().map(Ok)), (reading, identities))));
            }
            if !reading.more().await? {
                return if reading.bytes.is_empty() { Ok(None) } else { Err(FramesError::Torn) };
            }
        }
    });
    Ok(segments.try_flatten())
}

/// The frames of a stored segment.
fn frames_of(stored: &[u8], identities: &Identities) -> Result<Vec<Frame>, FramesError> {
    /// Segments are cut at 256 KiB, or at what one second brings.
    const MOST: usize = 256 << 20;
    let opened = if encryption::is_encrypted(stored) {
        Cow::Owned(identities.decrypt(stored, stored.len())?)
    } else {
        Cow::Borrowed(stored)
    };
    let bytes = decompress(&opened, MOST).map_err(FramesError::Compression)?;
    Ok(segment::parse(bytes.into())?.1)
}

/// An answer's body as it comes in.
pub(crate) struct Reading<S> {
    body: Pin<Box<S>>,
    pub(crate) bytes: Bytes,
}

/// Frames from the pieces of an answer's body, however they are cut.
fn decode<S>(body: S) -> impl Stream<Item = Result<Frame, FramesError>>
where
    S: Stream<Item = Result<Bytes, FramesError>>,
{
    futures::stream::try_unfold(Reading::new(body), async |mut reading: Reading<S>| {
        loop {
            if let Some(frame) = reading.take_frame().await? {
                return Ok(Some((frame, reading)));
            }
            if !reading.more().await? {
                return if reading.bytes.is_empty() { Ok(None) } else { Err(FramesError::Torn) };
            }
        }
    })
}

impl<S: Stream<Item = Result<Bytes, FramesError>>> Reading<S> {
    pub(crate) fn new(body: S) -> Self {
        Self { body: Box::pin(body), bytes: Bytes::new() }
    }

    /// The next frame, if all of it is there.
    pub(crate) async fn take_frame(&mut self) -> Result<Option<Frame>, FramesError> {
        if self.bytes.starts_with(&BROKEN_OFF) {
            return Err(refused(self).await);
        }
        Ok(Frame::take(&mut self.bytes)?)
    }

    /// The next stored segment, if all of it is there.
    fn take_segment(&mut self) -> Result<Option<Bytes>, FramesError> {
        /// No segment is as long as that.
        const MOST: usize = 512 << 20;
        let Some(length) = self.bytes.first_chunk().map(|length| u32::from_be_bytes(*length) as usize) else {
            return Ok(None);
        };
        if length > MOST {
            return Err(FramesError::Torn);
        }
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        self.bytes.advance(4);
        Ok(Some(self.bytes.split_to(length)))
    }

    /// Takes the next piece; false at the end. Cancel safe.
    pub(crate) async fn more(&mut self) -> Result<bool, FramesError> {
        match self.body.next().await {
            Some(more) => {
                self.take(&more?);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn take(&mut self, more: &Bytes) {
        if self.bytes.is_empty() {
            self.bytes = more.clone();
        } else {
            let mut joined = BytesMut::with_capacity(self.bytes.len() + more.len());
            joined.extend_from_slice(&self.bytes);
            joined.extend_from_slice(more);
            self.bytes = joined.freeze();
        }
    }
}

async fn refused<S: Stream<Item = Result<Bytes, FramesError>>>(reading: &mut Reading<S>) -> FramesError {
    /// A problem is a few sentences.
    const MOST: usize = 64 << 10;
    while let Some(more) = reading.body.next().await {
        match more {
            Ok(more) if reading.bytes.len() < MOST => reading.take(&more),
            Ok(_) => break,
            Err(error) => return error,
        }
    }
    let text = reading.bytes.get(BROKEN_OFF.len()..).unwrap_or_default();
    serde_json::from_slice(text).map_or(FramesError::Torn, FramesError::Refused)
}

/// The failure that `error` is, if one of these is among its causes.
pub(crate) fn failure(error: anyhow::Error) -> Failure {
    let cause = error.chain().find_map(|cause| cause.downcast_ref::<FramesError>());
    let (kind, hint) = match cause {
        Some(FramesError::Refused(problem)) if problem.kind == "urn:sallyport:damaged" => (FailureKind::Proof, None),
        Some(FramesError::Refused(problem)) if problem.kind == "urn:sallyport:encrypted" => {
            (FailureKind::Conflict, None)
        }
        Some(FramesError::Refused(problem)) => {
            (FailureKind::Unreachable, Some(format!("look for {} in the bastion's log", problem.reference)))
        }
        Some(FramesError::Broken(_)) => (FailureKind::Unreachable, None),
        Some(
            FramesError::Frame(_)
            | FramesError::Torn
            | FramesError::Encrypted(_)
            | FramesError::Compression(_)
            | FramesError::Segment(_),
        )
        | None => (FailureKind::Failed, None),
    };
    let failure = Failure::new(kind, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use proptest::prelude::*;
    use sallyport_domain::recording::frame::Body;

    use super::*;

    async fn decoded(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, FramesError> {
        let pieces = bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece)));
        decode(futures::stream::iter(pieces)).try_collect().await
    }

    fn two_frames() -> (Vec<Frame>, Vec<u8>) {
        let frames = vec![
            Frame { at: 1, body: Body::Output(Bytes::from_static(b"hello")) },
            Frame { at: 2, body: Body::ExitStatus(3) },
        ];
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        (frames, bytes)
    }

    proptest! {
        #[test]
        fn frames_read_back_however_the_answer_is_cut(piece in 1_usize..50) {
            let (frames, bytes) = two_frames();
            let read = futures::executor::block_on(decoded(&bytes, piece)).unwrap();
            prop_assert_eq!(read, frames);
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_short_is_told_from_one_that_ends() {
        let (_, bytes) = two_frames();
        let torn = decoded(&bytes[..bytes.len() - 1], 7).await;
        assert!(matches!(torn, Err(FramesError::Torn)));
    }

    #[tokio::test]
    async fn why_a_stream_cannot_go_on_is_in_the_stream() {
        let problem = Problem {
            kind: "urn:sallyport:damaged".to_owned(),
            title: String::new(),
            status: 500,
            detail: "segment 7 is not what was stored".to_owned(),
            reference: String::new(),
        };
        let mut bytes = two_frames().1;
        bytes.extend(BROKEN_OFF);
        bytes.extend(serde_json::to_vec(&problem).unwrap());

        let error = decoded(&bytes, 3).await.unwrap_err();

        assert_eq!(error.to_string(), "segment 7 is not what was stored");
        assert_eq!(failure(anyhow::Error::new(error)).kind, FailureKind::Proof);
    }
}
