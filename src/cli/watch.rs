//! `sallyport session watch`: a session followed live, from before its start to its end. Whoever follows counts as its watcher as long as
//! they read; giving back the beats in the stream shows that they do.

use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use reqwest::Method;
use sallyport_domain::id::{RecordingId, SessionId, WatchId};
use sallyport_domain::recording::frame::Frame;
use uuid::Uuid;

use super::Global;
use super::client::Client;
use super::failure::{Failure, FailureKind};
use super::frames::{self, FramesError, Reading};
use super::output;
use super::play::{self, LIVE, PlayOptions, Played};
use super::recording::{Found, Subject, tell_end, tell_session_end};
use crate::api::watch::{BEAT, Beat, BeatTaken, CHANNEL, CHANNEL_ENDED};

/// How long giving back a beat may take; the next one is another try.
const ANSWER: Duration = Duration::from_secs(3);

/// What is read of a session.
enum Read {
    Frame(RecordingId, Frame),
    /// From here on it is this channel's turn.
    Channel(RecordingId, u32),
    ChannelEnded(RecordingId),
}

/// A session that is followed.
struct Following<'a> {
    client: &'a Client,
    session: SessionId,
    reading: Reading<BoxStream<'static, Result<Bytes, FramesError>>>,
    /// What is read is of this one.
    current: Option<RecordingId>,
}

impl<'a> Following<'a> {
    async fn open(client: &'a Client, session: SessionId) -> Result<Self, Failure> {
        let request = client.request(Method::GET, &["sessions", &session.to_string(), "watch"]);
        let body = client.send(request).await?.bytes_stream();
        let body = body.map(|chunk| chunk.map_err(|error| FramesError::Broken(error.without_url())));
        Ok(Self { client, session, reading: Reading::new(body.boxed()), current: None })
    }

    /// What is read next; `None` once the session is over. Gives back beats on the way.
    async fn next(&mut self) -> Result<Option<Read>, FramesError> {
        /// The longest mark: two ids.
        const MARK: usize = 4 + 32;
        loop {
            let bytes = &mut self.reading.bytes;
            let kind: Option<[u8; 4]> = bytes.first_chunk().copied();
            match kind {
                Some(BEAT) if bytes.len() >= MARK => {
                    bytes.advance(4);
                    let beat = Beat { watch: WatchId::from_uuid(uuid(bytes)), beat: uuid(bytes) };
                    self.give_back(&beat).await;
                    continue;
                }
                Some(CHANNEL) if bytes.len() >= 4 + 16 + 4 => {
                    bytes.advance(4);
                    let recording = RecordingId::from_uuid(uuid(bytes));
                    self.current = Some(recording);
                    return Ok(Some(Read::Channel(recording, bytes.get_u32())));
                }
                Some(CHANNEL_ENDED) if bytes.len() >= 4 + 16 => {
                    bytes.advance(4);
                    return Ok(Some(Read::ChannelEnded(RecordingId::from_uuid(uuid(bytes)))));
                }
                Some(BEAT | CHANNEL | CHANNEL_ENDED) | None => {}
                Some(_) => {
                    let current = self.current;
                    if let Some(frame) = self.reading.take_frame().await? {
                        let recording = current.ok_or(FramesError::Torn)?; // a frame of no channel
                        return Ok(Some(Read::Frame(recording, frame)));
                    }
                }
            }
            if !self.reading.more().await? {
                return if self.reading.bytes.is_empty() { Ok(None) } else { Err(FramesError::Torn) };
            }
        }
    }

    async fn give_back(&self, beat: &Beat) {
        let path = ["sessions", &self.session.to_string(), "watch"];
        let given = self.client.post::<BeatTaken>(&path, beat);
        if !matches!(tokio::time::timeout(ANSWER, given).await, Ok(Ok(BeatTaken { taken: true }))) {
            tracing::debug!("A beat was not taken.");
        }
    }

    /// Waits for a channel to be shown.
    async fn channel(&mut self, wanted: Option<u32>) -> Result<Option<RecordingId>, FramesError> {
        while let Some(read) = self.next().await? {
            match read {
                Read::Channel(recording, channel) if wanted.is_none_or(|wanted| wanted == channel) => {
                    return Ok(Some(recording));
                }
                // Of a channel that began while another one was shown.
                Read::Frame(recording, _) if wanted.is_none() => return Ok(Some(recording)),
                Read::Channel(..) | Read::Frame(..) | Read::ChannelEnded(_) => {}
            }
        }
        Ok(None)
    }

    /// The frames of one channel until its end; others' are left out.
    fn frames(&mut self, wanted: RecordingId) -> impl Stream<Item = Result<Frame, FramesError>> {
        futures::stream::try_unfold(self, move |following| async move {
            loop {
                match following.next().await? {
                    Some(Read::Frame(recording, frame)) if recording == wanted => return Ok(Some((frame, following))),
                    Some(Read::ChannelEnded(recording)) if recording == wanted => return Ok(None),
                    Some(Read::Frame(..) | Read::Channel(..) | Read::ChannelEnded(_)) => {}
                    None => return Ok(None),
                }
            }
        })
    }
}

fn uuid(bytes: &mut Bytes) -> Uuid {
    Uuid::from_u128(bytes.get_u128())
}

/// Follows `session` until its end, one channel after the other.
pub(crate) async fn watch(session: SessionId, channel: Option<u32>, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let broken = |error: FramesError| frames::failure(anyhow::Error::new(error));
    let mut following = Following::open(&client, session).await.map_err(|failure| match failure.kind {
        FailureKind::Conflict => failure.hint(format!("`sallyport session play {session}`")),
        _ => failure,
    })?;
    output::note(format!("watching {session}; what runs there is shown as soon as it does"));
    while let Some(recording) = following.channel(channel).await.map_err(broken)? {
        let found = Found::new(&client, Subject::Recording(recording), None).await?;
        let options =
            PlayOptions { speed: 1.0, skip_idle: false, start_us: LIVE, leave_at_end: true, input: !global.no_input };
        match play::play(&found.player(), options, following.frames(recording)).await.map_err(frames::failure)? {
            Played::Quit => return Ok(()),
            Played::ToTheEnd => tell_end(&client, recording).await?,
        }
    }
    tell_session_end(&client, session).await
}
