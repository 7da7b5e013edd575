//! Telling the outside: every event of the ledger, in the ledger's order, to each destination at least once.
//!
//! ```text
//! ledger ──► batch ──► receiver took it ──► cursor in the database
//!              ▲            └──no──► pause, longer each time ──┐
//!              └───────────────────────────────────────────────┘
//! ```
//!
//! - [`settings`]: what is told to whom.
//! - [`worker`]: one task a destination; one node at a time works it, by a turn that it keeps in the database.
//! - [`batch`]: what comes next for a destination.
//! - [`receivers`], [`guance`], [`people`]: how it is delivered; [`http`] is what some of them share.
//!
//! The cursor moves only once the receiver has taken a batch. So a batch comes again if nobody heard of its arrival: the answer
//! was lost, the process died, the turn went to another node. `seq` and `part` of a record tell. No session waits for any of this.

mod batch;
mod guance;
pub(crate) mod http;
mod people;
mod receivers;
pub mod settings;
#[cfg(test)]
mod tests;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sallyport_domain::outbox::detail::Detail;
use sallyport_domain::outbox::record::Record;
use sallyport_domain::outbox::topics::{Selection, UnknownWord};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::guance::Guance;
use self::people::{Chat, Mail};
use self::receivers::Webhook;
use self::settings::{DestinationKind, DestinationSettings, NotifyKind, NotifySettings, Start};
use self::worker::Worker;
use crate::app::syslog::{Syslog, SyslogError};
use crate::app::{App, DbError};
use crate::store::db::outbox::{self, Holder};

pub use crate::store::db::outbox::{OutboxState, Standing};

/// Why a destination cannot be worked.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Setting(&'static str),
    #[error(transparent)]
    Events(#[from] UnknownWord),
    #[error("cannot use the file `{}`", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// It may hold a secret, and is not repeated.
    #[error("the URL is none that begins with `https://` or `http://`")]
    Url,
    #[error("cannot prepare HTTP")]
    Http(#[source] reqwest::Error),
    #[error("cannot prepare mail: {0}")]
    Mail(String),
    #[error(transparent)]
    Syslog(#[from] SyslogError),
}

/// A destination that cannot be worked, by its name.
#[derive(Debug, thiserror::Error)]
#[error("the destination `{name}` cannot be used")]
pub struct UnusableDestination {
    pub name: String,
    pub source: OpenError,
}

/// Why a batch was not taken. No text of it holds a URL, a token or what the receiver said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum DeliveryError {
    /// The same again later, and not before `after` if the receiver asked for that.
    #[error("{message}")]
    Later { message: String, after: Option<Duration> },
    /// Less at once may do.
    #[error("{message}")]
    TooLarge { message: String },
    /// Never; it must not come again.
    #[error("{message}")]
    Refused { message: String },
}

/// A record on its way, with the sentence for people where it is for people.
#[derive(Debug, Clone, PartialEq)]
struct Item {
    record: Record,
    sentence: String,
}

/// What is delivered at once: at least one record.
#[derive(Debug, Clone, PartialEq)]
struct Parcel {
    /// The ledger's name.
    ledger: String,
    items: Vec<Item>,
}

impl Parcel {
    /// From which record to which; the same for the same records.
    fn id(&self) -> String {
        let name = |item: Option<&Item>| item.map(|Item { record, .. }| format!("{}.{}", record.seq, record.part));
        let (first, last) = (name(self.items.first()), name(self.items.last()));
        format!("{}-{}", first.unwrap_or_default(), last.unwrap_or_default())
    }
}

/// Where it goes.
enum Receiver {
    File(PathBuf),
    Syslog(Syslog),
    Webhook(Webhook),
    Guance(Guance),
    Mail(Box<Mail>),
    Chat(Chat),
}

/// A destination, ready to be worked.
struct Destination {
    name: String,
    /// The word for its kind.
    kind: &'static str,
    receiver: Receiver,
    selection: Selection,
    commands: Detail,
    paths: Detail,
    /// It is told in sentences.
    is_for_people: bool,
    start: Start,
    batch: u32,
    /// Between deliveries.
    pause: Duration,
    timeout: Duration,
    retry_most: Duration,
    late_after: Duration,
}

/// The destinations of this node.
pub struct Outbox {
    destinations: Vec<Arc<Destination>>,
    holder: Holder,
}

impl Outbox {
    /// Prepares every destination; reaches none of them yet.
    pub fn open(
        destinations: &[DestinationSettings],
        notify: &[NotifySettings],
        node: &str,
    ) -> Result<Self, UnusableDestination> {
        let mut all = Vec::new();
        for settings in destinations {
            let opened = Destination::open(settings);
            let destination = opened.map_err(|source| UnusableDestination { name: settings.name.clone(), source })?;
            all.push(Arc::new(destination));
        }
        for settings in notify {
            let opened = Destination::open_for_people(settings);
            let destination = opened.map_err(|source| UnusableDestination { name: settings.name.clone(), source })?;
            all.push(Arc::new(destination));
        }
        let holder = Holder { node: node.to_owned(), process: format!("{node}/{}", Uuid::now_v7().simple()) };
        Ok(Self { destinations: all, holder })
    }

    /// Starts one task for each destination; they end after `stop`, with the delivery that is under way.
    pub fn start(self, app: &App, tasks: &TaskTracker, stop: &CancellationToken) {
        for destination in self.destinations {
            let worker = Worker::new(app.clone(), destination, self.holder.clone());
            tasks.spawn(worker.run(stop.clone()));
        }
    }
}

impl Destination {
    fn open(settings: &DestinationSettings) -> Result<Self, OpenError> {
        let needed = |what: &'static str| move || OpenError::Setting(what);
        let kind = settings.kind.ok_or_else(needed("`kind` is needed"))?;
        let url = || settings.url.as_deref().ok_or_else(needed("`url` is needed"));
        let ca_file = settings.ca_file.as_deref();
        let guance = |token_file| Guance::new(url()?, token_file, ca_file, &settings.measurement, &settings.tags);
        let (word, receiver) = match kind {
            DestinationKind::File => {
                let path = settings.path.clone().ok_or_else(needed("`path` is needed"))?;
                ("file", Receiver::File(path))
            }
            DestinationKind::Syslog => {
                let address = settings.address.as_deref().ok_or_else(needed("`address` is needed"))?;
                ("syslog", Receiver::Syslog(Syslog::new(address, ca_file)?))
            }
            DestinationKind::Webhook => {
                let secret_file = settings.secret_file.as_deref().ok_or_else(needed("`secret_file` is needed"))?;
                ("webhook", Receiver::Webhook(Webhook::new(url()?, secret_file, ca_file)?))
            }
            DestinationKind::Datakit => ("datakit", Receiver::Guance(guance(None)?)),
            DestinationKind::Dataway => {
                let token_file = settings.token_file.as_deref().ok_or_else(needed("`token_file` is needed"))?;
                ("dataway", Receiver::Guance(guance(Some(token_file))?))
            }
        };
        Ok(Self {
            name: settings.name.clone(),
            kind: word,
            receiver,
            selection: Selection::parse(&settings.events)?,
            commands: settings.commands,
            paths: settings.paths,
            is_for_people: false,
            start: settings.start,
            batch: settings.batch,
            pause: Duration::ZERO,
            timeout: settings.timeout,
            retry_most: settings.retry_most,
            late_after: settings.late_after,
        })
    }

    fn open_for_people(settings: &NotifySettings) -> Result<Self, OpenError> {
        /// One message names a few and counts the rest.
        const BATCH: u32 = 1000;
        let kind = settings.kind.ok_or(OpenError::Setting("`kind` is needed"))?;
        let word = match kind {
            NotifyKind::Mail => "mail",
            NotifyKind::Slack => "slack",
            NotifyKind::Feishu => "feishu",
            NotifyKind::Dingtalk => "dingtalk",
            NotifyKind::Wecom => "wecom",
        };
        let receiver = match kind {
            NotifyKind::Mail => Receiver::Mail(Box::new(Mail::new(settings)?)),
            chat => Receiver::Chat(Chat::new(chat, settings)?),
        };
        Ok(Self {
            name: settings.name.clone(),
            kind: word,
            receiver,
            selection: Selection::parse(&settings.events)?,
            commands: Detail::Off,
            paths: Detail::Off,
            is_for_people: true,
            // Nobody wants to be told what happened last year.
            start: Start::Now,
            batch: BATCH,
            pause: people::PAUSE,
            timeout: settings.timeout,
            retry_most: settings.retry_most,
            late_after: settings.late_after,
        })
    }

    async fn deliver(&self, app: &App, node: &str, parcel: &Parcel) -> Result<(), DeliveryError> {
        match &self.receiver {
            Receiver::File(path) => receivers::append(path, parcel).await,
            Receiver::Syslog(syslog) => receivers::log(syslog, node, parcel).await,
            Receiver::Webhook(webhook) => webhook.post(parcel, app.clock.now()).await,
            Receiver::Guance(guance) => guance.write(parcel).await,
            Receiver::Mail(mail) => mail.send(parcel).await,
            Receiver::Chat(chat) => chat.post(parcel, app.clock.now()).await,
        }
    }
}

/// How every destination stands, by name; those too that are not configured any more.
pub async fn standings(app: &App) -> Result<Vec<Standing>, DbError> {
    outbox::standings(&mut app.db.read().await?).await
}
