//! `sallyport session play`, `watch` and `export`: which recording is meant, and what is done with its frames.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use futures::stream::LocalBoxStream;
use futures::{Stream, StreamExt};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sallyport_domain::cast::Header;
use sallyport_domain::channel::TerminalSize;
use sallyport_domain::id::{RecordingId, SessionId};
use sallyport_domain::recording::frame::{Body, Frame};
use serde::Serialize;

use super::Global;
use super::client::Client;
use super::export::{self, ExportFormat};
use super::failure::{Failure, FailureKind};
use super::frames::{self, FramesError};
use super::output::{self, Format};
use super::play::{self, LIVE, PlayOptions, Played};
use super::watch;
use crate::api::recordings::Recording;
use crate::api::replay::{FramesQuery, Reading};
use crate::api::sessions::{SessionDetail, SessionState};

/// How often one who watches looks whether something has begun or ended.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// A session, or one of its recordings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Session(SessionId),
    Recording(RecordingId),
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(id) = text.parse() {
            return Ok(Subject::Recording(id));
        }
        text.parse().map(Subject::Session).map_err(|error: sallyport_domain::id::IdError| error.to_string())
    }
}

/// What to play.
#[derive(Debug, clap::Args)]
pub(crate) struct PlayArgs {
    /// The session, or one of its recordings
    #[arg(value_name = "SESSION")]
    subject: Subject,
    /// Which of the session's channels, from 1
    #[arg(long, value_name = "N")]
    channel: Option<u32>,
    /// How fast, from 0.1 to 100
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// Go past more than 2 s without a change at once
    #[arg(long)]
    skip_idle: bool,
    /// Private keys (age) of the client's, if the recording is encrypted to them
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Where to start: `1:07:12`, `90s`, `1h7m`
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = moment)]
    from: Duration,
}

/// What to watch.
#[derive(Debug, clap::Args)]
pub(crate) struct WatchArgs {
    /// The session, or one of its recordings
    #[arg(value_name = "SESSION")]
    subject: Subject,
    /// Which of the session's channels, from 1
    #[arg(long, value_name = "N")]
    channel: Option<u32>,
}

/// What to export, and to where.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// The session, or one of its recordings
    #[arg(value_name = "SESSION")]
    subject: Subject,
    #[arg(long, value_enum)]
    format: ExportFormat,
    /// Which of the session's channels, from 1
    #[arg(long, value_name = "N")]
    channel: Option<u32>,
    /// Private keys (age) of the client's, if the recording is encrypted to them
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Write to this file instead of standard output
    #[arg(short = 'o', long, value_name = "FILE")]
    file: Option<PathBuf>,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('x').parse() {
        Ok(speed) if (0.1..=100.0).contains(&speed) => Ok(speed),
        Ok(_) | Err(_) => Err("a speed is from 0.1 to 100".to_owned()),
    }
}

/// Reads a place in a recording.
fn moment(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a place in a recording: write `1:07:12`, `90s` or `1h7m`");
    if let Ok(duration) = humantime::parse_duration(text) {
        return Ok(duration);
    }
    let parts: Vec<&str> = text.split(':').collect();
    let (seconds, larger) = parts.split_last().ok_or_else(wrong)?;
    let mut units = 0_u32;
    for unit in larger {
        units = units.checked_mul(60).and_then(|units| units.checked_add(unit.parse().ok()?)).ok_or_else(wrong)?;
    }
    if larger.len() > 2 || !seconds.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(wrong());
    }
    let seconds = seconds.parse().map_err(|_| wrong())?;
    let seconds = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(units) * 60) + seconds)
}

/// A recording, and the session that it is of.
pub(crate) struct Found {
    session: SessionDetail,
    recording: Recording,
}

impl Found {
    pub(crate) async fn new(client: &Client, subject: Subject, channel: Option<u32>) -> Result<Self, Failure> {
        let session = session_of(client, subject).await?;
        let recording = choose(&session.recordings, subject, channel)?.clone();
        Ok(Self { session, recording })
    }

    fn size(&self) -> Option<TerminalSize> {
        let Recording { cols, rows, .. } = self.recording;
        cols.zip(rows).map(|(cols, rows)| TerminalSize { cols, rows })
    }

    /// Who, where, and what if it was more than a shell.
    fn title(&self) -> String {
        let session = &self.session.session;
        let place = format!("{} → {}@{}", session.person.name, session.login, session.target.name);
        match self.recording.kind.as_str() {
            "shell" => place,
            _ => format!("{place}: {}", self.recording.program_text),
        }
    }

    pub(crate) fn player(&self) -> play::Recording {
        play::Recording {
            size: self.size(),
            title: self.title(),
            duration_us: self.recording.ended_at.map(|_| self.recording.duration_us),
        }
    }
}

async fn session_of(client: &Client, subject: Subject) -> Result<SessionDetail, Failure> {
    let session = match subject {
        Subject::Session(id) => id,
        Subject::Recording(id) => {
            let recording: Recording = client.get(&["recordings", &id.to_string()], &()).await?;
            recording.session_id
        }
    };
    client.get(&["sessions", &session.to_string()], &()).await
}

/// The recording that is meant: the one that was named, the only one, or the first with a terminal.
fn choose(all: &[Recording], subject: Subject, channel: Option<u32>) -> Result<&Recording, Failure> {
    if let Subject::Recording(id) = subject {
        let found = all.iter().find(|recording| recording.id == id);
        return found.ok_or_else(|| Failure::text(FailureKind::NotFound, format!("there is no recording {id}")));
    }
    let list = || {
        let line = |recording: &Recording| format!("  {}  {}", recording.channel, recording.program_text);
        all.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    if let Some(channel) = channel {
        let found = all.iter().find(|recording| recording.channel == channel);
        return found.ok_or_else(|| {
            let error = format!("the session has no channel {channel}; it has\n{}", list());
            Failure::text(FailureKind::NotFound, error)
        });
    }
    match all {
        [] => Err(Failure::text(FailureKind::NotFound, "nothing was run in this session")),
        [only] => Ok(only),
        several => {
            let first = several.iter().find(|recording| recording.term.is_some());
            let first = first.ok_or_else(|| {
                let error = format!("the session has several channels, none with a terminal:\n{}", list());
                Failure::usage(error).hint("choose one with `--channel`")
            })?;
            let (number, count) = (first.channel, several.len());
            output::note(format!("channel {number} of {count}; others with `--channel`:\n{}", list()));
            Ok(first)
        }
    }
}

/// A recording's frames, as the bastion reads them, or as who has the client's keys does.
async fn open(
    client: &Client,
    id: RecordingId,
    query: &FramesQuery,
    identity: Option<&Path>,
) -> Result<LocalBoxStream<'static, Result<Frame, FramesError>>, Failure> {
    match identity {
        None => Ok(frames::open(client, id, query).await?.boxed_local()),
        Some(path) => {
            let keys = super::identity::read(path)?;
            Ok(frames::open_stored(client, id, query, keys).await?.boxed_local())
        }
    }
}

/// What plays in time has no other form than the one for people.
fn refuse_formats(global: &Global, verb: &str) -> Result<(), Failure> {
    match global.format() {
        Format::Table => Ok(()),
        Format::Json | Format::Jsonl | Format::Csv => {
            let error = format!("`session {verb}` plays for people, and has no form for programs");
            Err(Failure::usage(error).hint(
                "`sallyport session export SESSION --format cast` gives asciicast, a line of JSON for each event",
            ))
        }
    }
}

pub(crate) async fn play(args: PlayArgs, global: &Global) -> Result<(), Failure> {
    refuse_formats(global, "play")?;
    let client = global.client()?;
    let found = Found::new(&client, args.subject, args.channel).await?;
    let frames = open(&client, found.recording.id, &FramesQuery::default(), args.identity.as_deref()).await?;
    let options = PlayOptions {
        speed: args.speed,
        skip_idle: args.skip_idle,
        start_us: u64::try_from(args.from.as_micros()).unwrap_or(LIVE),
        leave_at_end: false,
        input: !global.no_input,
    };
    play::play(&found.player(), options, frames).await.map_err(frames::failure)?;
    if found.recording.ended_at.is_none() {
        output::note(format!("it goes on; follow it with `sallyport session watch {}`", found.session.session.id));
    }
    Ok(())
}

pub(crate) async fn watch(args: WatchArgs, global: &Global) -> Result<(), Failure> {
    refuse_formats(global, "watch")?;
    let id = match args.subject {
        Subject::Session(id) => return watch::watch(id, args.channel, global).await,
        Subject::Recording(id) => id,
    };
    let client = global.client()?;
    let found = live(&client, id).await?;
    let query = FramesQuery { follow: true, ..FramesQuery::default() };
    let frames = frames::open(&client, id, &query).await?;
    let options =
        PlayOptions { speed: 1.0, skip_idle: false, start_us: LIVE, leave_at_end: true, input: !global.no_input };
    match play::play(&found.player(), options, frames).await.map_err(frames::failure)? {
        Played::Quit => Ok(()),
        Played::ToTheEnd => {
            tell_end(&client, id).await?;
            tell_session_end(&client, found.session.session.id).await
        }
    }
}

/// A recording that goes on.
async fn live(client: &Client, id: RecordingId) -> Result<Found, Failure> {
    let found = Found::new(client, Subject::Recording(id), None).await?;
    if found.recording.ended_at.is_none() {
        return Ok(found);
    }
    let why = found.session.session.ending_text.map(|why| format!(": {}", output::printable(&why)));
    let error = format!("nothing goes on there any more{}", why.unwrap_or_default());
    Err(Failure::text(FailureKind::Conflict, error).hint(format!("`sallyport session play {id}`")))
}

/// Says how the program ended.
pub(crate) async fn tell_end(client: &Client, id: RecordingId) -> Result<(), Failure> {
    let recording: Recording = client.get(&["recordings", &id.to_string()], &()).await?;
    if let Some(exit) = recording.exit_text {
        output::note(format!("the program ended: {exit}"));
    }
    Ok(())
}

/// Says how the session ended, if it did.
pub(crate) async fn tell_session_end(client: &Client, id: SessionId) -> Result<(), Failure> {
    // The session ends a moment after its last channel.
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let session = match session_of(client, Subject::Session(id)).await {
            Ok(session) => session.session,
            Err(failure) if failure.kind == FailureKind::NotFound => {
                output::note("the session did not start");
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        let ended = session.state == SessionState::Ended;
        if !ended && Instant::now() < deadline {
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        }
        output::note(match session.ending_text {
            Some(why) => format!("the session ended: {why}"),
            None => "the session goes on".to_owned(),
        });
        return Ok(());
    }
}

/// What an export to a file tells a script.
#[derive(Serialize)]
struct Exported<'a> {
    recording: RecordingId,
    format: &'a str,
    file: &'a Path,
    bytes: u64,
}

pub(crate) async fn export(args: ExportArgs, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let (format, name) = match args.format {
        ExportFormat::Cast => (args.format, "cast"),
        ExportFormat::Cast2 => (args.format, "cast2"),
        ExportFormat::Txt => (args.format, "txt"),
    };
    if args.file.is_none() && name != "txt" && io::stdout().is_terminal() {
        // What a target printed is in there, as it was.
        return Err(Failure::usage("a cast is not for a terminal to show").hint("use `-o FILE`, or a pipe"));
    }
    let found = Found::new(&client, args.subject, args.channel).await?;
    let header = header(&found);
    let query = FramesQuery { purpose: Reading::Export, format: Some(name.to_owned()), ..FramesQuery::default() };
    let frames = open(&client, found.recording.id, &query, args.identity.as_deref()).await?;
    let work = async {
        match &args.file {
            None => {
                let out = BufWriter::new(io::stdout().lock());
                export::export(format, &header, frames, out).await.map_err(frames::failure).map(drop)
            }
            Some(file) => {
                let bytes = to_file(file, format, &header, &found.recording, frames).await?;
                let exported = Exported { recording: found.recording.id, format: name, file, bytes };
                match global.format() {
                    Format::Table => {
                        output::note(format!("{bytes} bytes in {}", file.display()));
                        Ok(())
                    }
                    form => output::one(form, &exported, &[]),
                }
            }
        }
    };
    tokio::select! {
        done = work => done?,
        // What was begun is given up, and with it its temporary file.
        _ = tokio::signal::ctrl_c() => return Err(Failure::text(FailureKind::Interrupted, "interrupted")),
    }
    if found.recording.ended_at.is_none() {
        output::note("it goes on: this is what there was until now");
    }
    Ok(())
}

fn header(found: &Found) -> Header {
    let recording = &found.recording;
    Header {
        size: found.size(),
        term: recording.term.clone(),
        timestamp: u64::try_from(recording.started_at.timestamp()).ok(),
        title: Some(found.title()),
        command: (recording.kind == "exec").then(|| recording.program_text.clone()),
        env: std::collections::BTreeMap::new(),
    }
}

/// The file appears under its name once it is whole, and only its owner may read it.
async fn to_file(
    file: &Path,
    format: ExportFormat,
    header: &Header,
    recording: &Recording,
    frames: impl Stream<Item = Result<Frame, FramesError>>,
) -> Result<u64, Failure> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = |error: io::Error| {
        Failure::new(
            FailureKind::Failed,
            anyhow::Error::new(error).context(format!("cannot write `{}`", file.display())),
        )
    };
    let mut whole = tempfile::NamedTempFile::new_in(folder).map_err(cannot)?;
    let progress = Progress::new(recording.bytes_in + recording.bytes_out);
    let counted = frames.inspect(|frame| progress.frame(frame));
    let written = export::export(format, header, counted, BufWriter::new(&mut whole)).await;
    progress.bar.finish_and_clear();
    let bytes = written.map_err(frames::failure)?;
    whole.as_file_mut().flush().map_err(cannot)?;
    whole.persist(file).map_err(|error| cannot(error.error))?;
    Ok(bytes)
}

/// A bar on standard error, once it has taken long enough for one to wonder.
struct Progress {
    bar: ProgressBar,
    began: Instant,
}

impl Progress {
    const PATIENCE: Duration = Duration::from_millis(500);

    fn new(bytes: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
        let look = ProgressStyle::with_template("{bar:32} {bytes} of {total_bytes}, {eta} left");
        if let Ok(look) = look {
            bar.set_style(look);
        }
        Self { bar, began: Instant::now() }
    }

    fn frame(&self, frame: &Result<Frame, FramesError>) {
        let Ok(Frame { body: Body::Output(bytes) | Body::ErrorOutput(bytes) | Body::Input(bytes), .. }) = frame else {
            return;
        };
        if self.bar.is_hidden() && self.began.elapsed() > Self::PATIENCE && io::stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(bytes.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_the_player_shows_it_or_as_a_duration() {
        let seconds = |text: &str| moment(text).map(|place| place.as_secs_f64()).ok();
        assert_eq!(seconds("1:07:12"), Some(4032.0));
        assert_eq!(seconds("07:12.5"), Some(432.5));
        assert_eq!(seconds("12"), Some(12.0));
        assert_eq!(seconds("1h7m"), Some(4020.0));
        assert_eq!([seconds(""), seconds("1:2:3:4"), seconds("-1"), seconds("1:-2"), seconds("x")], [None; 5]);
    }

    fn recording(channel: u32, term: Option<&str>) -> Recording {
        let (id, session) = (RecordingId::from_uuid(uuid::Uuid::from_u128(channel.into())), uuid::Uuid::nil());
        Recording {
            id,
            session_id: SessionId::from_uuid(session),
            channel,
            kind: "exec".to_owned(),
            program_text: "true".to_owned(),
            term: term.map(str::to_owned),
            cols: None,
            rows: None,
            started_at: chrono::DateTime::UNIX_EPOCH,
            ended_at: None,
            duration_us: 0,
            segments: 0,
            chain: String::new(),
            bytes_in: 0,
            bytes_out: 0,
            gaps: 0,
            exit: None,
            exit_text: None,
        }
    }

    #[test]
    fn the_only_channel_or_the_first_with_a_terminal_is_meant() {
        let session = Subject::Session(SessionId::from_uuid(uuid::Uuid::nil()));
        let all = [recording(1, None), recording(2, Some("xterm")), recording(3, Some("xterm"))];
        let chosen = |all: &[Recording], channel| choose(all, session, channel).map(|found| found.channel).ok();

        assert_eq!((chosen(&all, None), chosen(&all, Some(3)), chosen(&all, Some(4))), (Some(2), Some(3), None));
        assert_eq!((chosen(&all[..1], None), chosen(&[], None)), (Some(1), None));
        let without = [recording(1, None), recording(2, None)];
        assert_eq!(choose(&without, session, None).unwrap_err().kind, FailureKind::Usage);
        assert_eq!(choose(&all, Subject::Recording(all[2].id), None).unwrap().channel, 3);
    }
}
