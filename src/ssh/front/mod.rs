//! `ssh person@bastion`, without a target: the bastion's own commands, and a picker where several accounts are open.
//!
//! ```text
//!                      ┌─ one of ours ──► the answer, and the channel ends
//! first program ───────┤            one ──► there, as if it had been in the user name
//!                      └─ else: accounts ┼─ none ──► when the next window opens, how to ask
//!                               several └─ a shell: the picker, or a list; else: say where to go
//! ```
//!
//! Nothing here reaches a target, so nothing is recorded; what changes something is an event of its use case. Whoever chooses
//! an account goes on as if it had been in the user name: the decision, the recording and the dialling are `session`'s and
//! `channel`'s, and asked anew.
//!
//! A connection has one session. The first channel that knows where to go decides; later ones go there too.

mod answers;
mod asking;
mod browse;
mod commands;
mod console;
mod keys;
mod picker;

use bytes::Bytes;
use russh::ChannelReadHalf;
use sallyport_domain::channel::Program;
use sallyport_domain::login_name::Destination;
use sallyport_domain::policy::Denial;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use self::answers::Place;
use self::answers::{Account, Asked, Lines, List, Me, OwnKeys};
use self::commands::{Command, Parsed};
use self::console::{Console, Gone};
use super::Door;
use super::channel::{self, EXIT_REFUSED};
use super::notice;
use super::proxy::{ClientSide, Request, Start};
use super::session::{First, Live};
use crate::app::access::{self, Arrival, Choice, Reach};
use crate::app::authorities::{self, Authority};
use crate::app::requests::{self, RequestError, RequestFilter};
use crate::app::{DbError, known_hosts, people};

/// Requests for access that a list shows.
const MOST_REQUESTS: u32 = 20;

/// What the channels of a login without a target have in common.
pub struct Front {
    arrival: Arrival,
    /// What the session is opened for, once a channel knows.
    first: watch::Sender<Option<First>>,
    /// Asks whoever is here to leave.
    pub leave: CancellationToken,
    /// Whoever is here.
    pub visits: TaskTracker,
}

/// Why a visit ended before its time.
#[derive(Debug, thiserror::Error)]
enum FrontError {
    #[error(transparent)]
    Gone(#[from] Gone),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    People(#[from] people::PeopleError),
    /// What was asked for is not there; the lines say what to do.
    #[error("there is nothing to do")]
    Nothing(Vec<String>),
}

impl From<DbError> for FrontError {
    fn from(error: DbError) -> Self {
        FrontError::Request(error.into())
    }
}

/// How a visit ended.
enum Flow {
    /// The program has ended, with this status.
    Exit(u32),
    /// Go on to this account; what was typed after the choice is the target's.
    Go { choice: Choice, ahead: Bytes },
}

impl Front {
    pub fn new(arrival: Arrival, first: watch::Sender<Option<First>>) -> Self {
        Self { arrival, first, leave: CancellationToken::new(), visits: TaskTracker::new() }
    }

    /// Whether it is known already where this login's session goes.
    fn is_decided(&self) -> bool {
        self.first.borrow().is_some()
    }

    /// Lets the session be opened, to `chosen` if the user name leaves it open. The first one counts.
    fn decide(&self, program: &Program, chosen: Option<&Destination>) {
        self.first.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert_with(|| First { program: program.clone(), chosen: chosen.cloned() });
            is_first
        });
    }

    /// Receives a channel on which a program was asked for. What comes back is to be run on a target: on the one that was
    /// chosen here, or on the one of the login's session. `None` if the channel has had its answer.
    pub async fn receive(
        &self,
        door: &Door,
        client: &ClientSide,
        read: &mut ChannelReadHalf,
        requests: &mut mpsc::Receiver<Request>,
        start: &mut Start,
        gone: &CancellationToken,
    ) -> Option<Option<Destination>> {
        let console = Console { client, read, requests, start, gone, leave: &self.leave };
        let mut visit = Visit { door, front: self, console };
        let flow = self.visits.track_future(visit.run()).await;
        match flow {
            Ok(None) => {
                self.decide(&start.program, None);
                Some(None)
            }
            Ok(Some(Flow::Go { choice, ahead })) => {
                let account = Destination::Account { login: choice.login, target: choice.target };
                start.ahead = ahead;
                self.decide(&start.program, Some(&account));
                Some(Some(account))
            }
            Ok(Some(Flow::Exit(status))) => {
                channel::exit(client, status).await;
                None
            }
            Err(FrontError::Gone(Gone)) => None,
            Err(error) => {
                let lines = match error {
                    FrontError::Nothing(lines) => lines,
                    FrontError::Request(RequestError::Db(error)) => {
                        warn!(%error, "A command of the bastion failed.");
                        vec!["the bastion cannot reach its database; try again in a minute".to_owned()]
                    }
                    other => vec![notice::printable(&other.to_string())],
                };
                channel::tell(client, start.pty.is_some(), &lines).await;
                channel::exit(client, EXIT_REFUSED).await;
                None
            }
        }
    }
}

/// Whether a session goes to this account.
pub fn is_to(live: &Live, account: &Destination) -> bool {
    match account {
        Destination::Account { login, target } => live.open.target.name == *target && live.open.permit.login() == login,
        Destination::Target(_) | Destination::Unsaid => false,
    }
}

/// One channel at the front.
struct Visit<'a> {
    door: &'a Door,
    front: &'a Front,
    console: Console<'a>,
}

impl Visit<'_> {
    /// `None` if the program is for the target of the login's session, which is opened if need be.
    async fn run(&mut self) -> Result<Option<Flow>, FrontError> {
        let program = self.console.start.program.clone();
        if let Program::Exec { command } = &program {
            match commands::parse(command) {
                Parsed::Ours { command, json } => {
                    info!(principal = %self.front.arrival.principal.name, "A command of the bastion runs.");
                    return self.command(command, json).await.map(Some);
                }
                Parsed::Help(text) => {
                    self.console.print(&text).await?;
                    return Ok(Some(Flow::Exit(0)));
                }
                Parsed::Wrong(text) => {
                    let mut lines: Vec<String> = text.lines().map(notice::printable).collect();
                    lines.retain(|line| !line.trim().is_empty());
                    lines.push(format!("a target's command takes the target: {}", self.line("+LOGIN@TARGET")));
                    return Err(FrontError::Nothing(lines));
                }
                Parsed::Foreign => {}
            }
        }
        if self.front.is_decided() {
            return Ok(None);
        }
        let reach = match self.reach().await {
            Ok(reach) => reach,
            // Opening the session will fail likewise, and says so as it always does.
            Err(_) => return Ok(None),
        };
        match (reach.choices.as_slice(), &program) {
            ([], _) => Err(FrontError::Nothing(self.nothing_open(&reach).await?)),
            ([only], _) => Ok(Some(Flow::Go { choice: only.clone(), ahead: Bytes::new() })),
            (_, Program::Shell) if self.console.has_pty() => self.pick(browse::Scope::All).await.map(Some),
            (_, Program::Shell) => {
                let list = List { accounts: self.accounts(&reach), upcoming: Vec::new(), requests: Vec::new() };
                self.console.print(&list.text()).await?;
                self.console.say(&[format!("to go on: {}", self.line("+LOGIN@TARGET"))]).await;
                Ok(Some(Flow::Exit(0)))
            }
            (choices, Program::Exec { .. } | Program::Subsystem { .. } | Program::Forward { .. }) => {
                Err(FrontError::Nothing(self.unclear(choices)))
            }
        }
    }

    async fn reach(&self) -> Result<Reach, DbError> {
        access::reach(&self.door.app, &self.front.arrival).await
    }

    fn person(&self) -> &str {
        self.front.arrival.principal.name.as_str()
    }

    /// The command line that goes to the bastion as this person, with more in the user name or behind it.
    fn line(&self, more: &str) -> String {
        match more.strip_prefix(' ') {
            Some(command) => format!("{} {command}", self.door.place.line(self.person())),
            None => self.door.place.line(&format!("{}{more}", self.person())),
        }
    }

    fn accounts(&self, reach: &Reach) -> Vec<Account> {
        let now = self.door.app.clock.now();
        reach.choices.iter().map(|choice| Account::new(choice, self.person(), now)).collect()
    }

    async fn command(&mut self, command: Command, json: bool) -> Result<Flow, FrontError> {
        let text = match command {
            Command::Help { .. } => {
                let all = commands::all();
                let all = all.iter().map(|(name, about)| serde_json::json!({ "name": name, "about": about }));
                answers::json(&serde_json::json!({ "commands": all.collect::<Vec<_>>() }))
            }
            Command::Ls => {
                let reach = self.reach().await?;
                let person = Some(self.front.arrival.principal.id);
                let filter = RequestFilter { person, state: Some("open"), before: None };
                let asked = requests::list(&self.door.app, &filter, MOST_REQUESTS).await?;
                let list = List {
                    accounts: self.accounts(&reach),
                    upcoming: reach.upcoming.iter().map(Into::into).collect(),
                    requests: asked.iter().map(Asked::from).collect(),
                };
                if json { answers::json(&list) } else { list.text() }
            }
            Command::Whoami => {
                let me = Me::new(&self.front.arrival, &self.door.place);
                if json { answers::json(&me) } else { me.text() }
            }
            Command::Request(args) => return self.request(args, json).await,
            Command::Extend(args) => return self.extend(args, json).await,
            Command::Config => {
                let reach = self.reach().await?;
                self.lines(answers::config(self.person(), &self.door.place, &reach.choices, &reach.targets), json)
            }
            Command::KnownHosts { plain } => {
                let Place { host, port } = &self.door.place;
                let mut lines = vec![known_hosts::bastion(host, *port, &self.door.host_key_line)];
                if plain {
                    let reach = self.reach().await?;
                    let keys = &self.door.target_keys;
                    lines.extend(reach.targets.iter().filter_map(|target| known_hosts::target(target, keys)));
                } else {
                    let trusted = authorities::trusted(&self.door.app, Authority::Host).await?;
                    lines.extend(trusted.iter().map(|key| known_hosts::authority("*", key)));
                }
                self.lines(Lines { lines }, json)
            }
            Command::Keys => {
                let person = people::find(&self.door.app, &self.front.arrival.principal.name).await?;
                let keys = OwnKeys::new(person.keys);
                if json { answers::json(&keys) } else { keys.text() }
            }
        };
        self.console.print(&text).await?;
        Ok(Flow::Exit(0))
    }

    fn lines(&self, lines: Lines, json: bool) -> String {
        if json { answers::json(&lines) } else { lines.text() }
    }

    /// What somebody is told to whom nothing is open: when it will be, and how to ask. That it was refused is an event.
    async fn nothing_open(&self, reach: &Reach) -> Result<Vec<String>, FrontError> {
        let denial = Denial::NoGrant;
        let reference = access::note_denial(&self.door.app, &self.front.arrival, String::new(), denial).await?;
        let mut lines = vec!["access denied: nothing is open to you now".to_owned()];
        if let Some(window) = reach.upcoming.first() {
            let (at, place) = (notice::date_time(window.opens_at), window.targets.join(", "));
            lines.push(format!("your next window opens at {at}: {}", notice::printable(&place)));
        }
        lines.push(format!("to ask for access: {}", self.line(" request TARGET --for 2h --reason WHY")));
        lines.push(format!("reference {reference}"));
        Ok(lines)
    }

    /// What is said to a command that could be meant for several accounts, in four lines.
    fn unclear(&self, choices: &[Choice]) -> Vec<String> {
        let shown = choices.iter().take(2).map(|choice| {
            let left = notice::date_time(choice.not_after);
            format!("  {}+{}@{}   until {left}", self.person(), choice.login, choice.target)
        });
        let head = match choices.len().saturating_sub(2) {
            0 => "say where to go in the user name; you may go to:".to_owned(),
            more => format!("say where to go in the user name; you may go to these and {more} more:"),
        };
        let more = format!("for all of them: {}; for what else there is: help", self.line(" ls"));
        std::iter::once(head).chain(shown).chain([more]).collect()
    }
}
