//! Stock clients × ways to the target × what the grant says, against a real sshd: what each client gets, and what the books and
//! the recordings hold of it. [`TABLE`] is the table; every cell of it is one line in the failure, if it fails.

mod books;
mod calls;

use std::fmt;
use std::panic::AssertUnwindSafe;

use futures::{FutureExt, StreamExt};

use crate::bastion::{Bastion, Settings, Stores};
use crate::support::keys::KeyPair;
use crate::support::sshd::{Settings as SshdSettings, Sshd};
use crate::support::{clients::Workstation, eventually};
use books::Books;
use calls::Stage;

/// Who connects, and by which of its programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Ssh,
    SshTerminal,
    ControlMaster,
    Scp,
    ScpLegacy,
    Sftp,
    Rsync,
    LocalForward,
    Netcat,
    Plink,
    Psftp,
    Pscp,
    PscpLegacy,
    Dbclient,
    Paramiko,
    ParamikoSftp,
    Asyncssh,
    AsyncsshSftp,
    Libssh,
    LibsshSftp,
    Ansible,
    Git,
}

use Client::{
    Ansible, Asyncssh, AsyncsshSftp, ControlMaster, Dbclient, Git, Libssh, LibsshSftp, LocalForward, Netcat, Paramiko,
    ParamikoSftp, Plink, Pscp, PscpLegacy, Psftp, Rsync, Scp, ScpLegacy, Sftp, Ssh, SshTerminal,
};

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Runs a command with input, output, errors and an exit status; twice, if it shares a connection.
    Exec,
    /// Types into a shell on a terminal.
    Shell,
    /// Brings a file there and back.
    Copy,
    /// Speaks to a server that the target reaches.
    Forward,
    /// Clones and pushes; runs a play. Both take several programs.
    Work,
}

/// What a person who is refused hears from the bastion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hears {
    /// The reason and the reference of the event.
    Reference,
    /// The reason; the books have one more event for each operation of SFTP.
    Reason,
    /// Nothing: the protocol has no place for it, or the client does not show it.
    Nothing,
}

use Hears::{Nothing, Reason, Reference};

/// Targets on which everybody's grant is too small, by what it allows instead.
const SMALL: [(&str, &str); 4] =
    [("only-shell", "shell"), ("only-exec", "exec"), ("only-upload", "upload"), ("only-download", "download")];

const EXEC: &str = "the grant does not allow running commands";
const SHELL: &str = "the grant does not allow a shell";
const FILES: &str = "the grant does not allow file transfer";
const UPLOADS: &str = "the grant does not allow uploads";
const DOWNLOADS: &str = "the grant does not allow downloads";
const FORWARD: &str = "no grant for connections to that address";

struct Row {
    client: Client,
    /// The targets on which it is refused because the grant is too small, and why.
    small: &'static [(&'static str, &'static str)],
    /// What it hears there.
    hears: Hears,
    /// What it hears where there is no grant at all, or none any more.
    hears_none: Hears,
}

const fn row(client: Client, small: &'static [(&'static str, &'static str)], hears: Hears, hears_none: Hears) -> Row {
    Row { client, small, hears, hears_none }
}

const NO_EXEC: &[(&str, &str)] = &[("only-shell", EXEC), ("only-upload", EXEC)];
const NO_SHELL: &[(&str, &str)] = &[("only-exec", SHELL)];
const NO_FILES: &[(&str, &str)] = &[("only-download", UPLOADS), ("only-upload", DOWNLOADS), ("only-shell", FILES)];
const NO_FORWARD: &[(&str, &str)] = &[("only-shell", FORWARD), ("only-exec", FORWARD)];

/// Each row is run both ways, [`WAYS`]: once where the grant allows it, once on each of its small targets, and once each where
/// the login, the target or the time is not the grant's.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    //  client         too small a grant  hears there   hears without a grant
    row(Ssh,           NO_EXEC,           Reference,    Reference),
    row(SshTerminal,   NO_SHELL,          Reference,    Reference),
    row(ControlMaster, NO_EXEC,           Reference,    Reference),
    row(Scp,           NO_FILES,          Reason,       Reference),
    row(ScpLegacy,     NO_FILES,          Reference,    Reference),
    row(Sftp,          NO_FILES,          Reason,       Reference),
    row(Rsync,         NO_FILES,          Reference,    Reference),
    row(LocalForward,  NO_FORWARD,        Nothing,      Nothing),
    row(Netcat,        NO_FORWARD,        Nothing,      Nothing),
    row(Plink,         NO_EXEC,           Reference,    Reference),
    row(Psftp,         NO_FILES,          Reason,       Reference),
    row(Pscp,          NO_FILES,          Reason,       Reference),
    row(PscpLegacy,    NO_FILES,          Reference,    Reference),
    row(Dbclient,      NO_EXEC,           Reference,    Reference),
    row(Paramiko,      NO_EXEC,           Reference,    Reference),
    row(ParamikoSftp,  NO_FILES,          Nothing,      Nothing),
    row(Asyncssh,      NO_EXEC,           Reference,    Reference),
    row(AsyncsshSftp,  NO_FILES,          Nothing,      Nothing),
    row(Libssh,        NO_EXEC,           Reference,    Reference),
    row(LibsshSftp,    NO_FILES,          Nothing,      Nothing),
    row(Ansible,       NO_EXEC,           Reference,    Reference),
    row(Git,           NO_EXEC,           Reference,    Reference),
];

impl Client {
    fn deed(self) -> Deed {
        match self {
            Ssh | ControlMaster | Plink | Dbclient | Paramiko | Asyncssh | Libssh => Deed::Exec,
            SshTerminal => Deed::Shell,
            Scp | ScpLegacy | Sftp | Rsync | Psftp | Pscp | PscpLegacy | ParamikoSftp | AsyncsshSftp | LibsshSftp => {
                Deed::Copy
            }
            LocalForward | Netcat => Deed::Forward,
            Ansible | Git => Deed::Work,
        }
    }
}

/// How the client says where to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By the user name.
    Name,
    /// Through the bastion, as through a jump host. Clients without `-J` have their own ways for it (see `calls`).
    Jump,
}

const WAYS: [Way; 2] = [Way::Name, Way::Jump];

/// What the grant says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Allowed,
    TooSmall { target: &'static str, why: &'static str },
    OtherLogin,
    OtherTarget,
    Expired,
}

impl Case {
    fn target(self) -> &'static str {
        match self {
            Case::Allowed | Case::OtherLogin => "web-1",
            Case::TooSmall { target, .. } => target,
            Case::OtherTarget => "foreign",
            Case::Expired => "expired",
        }
    }

    /// Why it is refused, in the words that the person hears.
    fn why(self) -> &'static str {
        match self {
            Case::Allowed => "",
            Case::TooSmall { why, .. } => why,
            Case::OtherLogin | Case::OtherTarget => "no grant for this target",
            Case::Expired => "your access ended at",
        }
    }
}

/// One field of the table.
#[derive(Debug, Clone, Copy)]
struct Cell {
    client: Client,
    way: Way,
    case: Case,
    hears: Hears,
    /// Whose it alone is: a person of its own, by this number.
    number: usize,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by {:?}, {:?}", self.client, self.way, self.case)
    }
}

impl Cell {
    fn person(&self) -> String {
        format!("cell-{}", self.number)
    }

    fn login(&self) -> String {
        if self.case == Case::OtherLogin { "nobody".to_owned() } else { Sshd::login() }
    }

    /// Whether the file is to come out: the rest of a copy's refusals are of one that is to go in.
    fn is_download(&self) -> bool {
        matches!(self.case, Case::TooSmall { why: DOWNLOADS, .. })
    }
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for row in TABLE {
        for way in WAYS {
            let small = row.small.iter().map(|&(target, why)| Case::TooSmall { target, why });
            let cases = std::iter::once(Case::Allowed).chain(small);
            let without = [Case::OtherLogin, Case::OtherTarget, Case::Expired];
            // A run of Ansible takes seconds, and a login that is refused is refused alike.
            let without = if row.client == Ansible { &without[2..] } else { &without[..] };
            for case in cases.chain(without.iter().copied()) {
                // Files that no protocol of theirs begins to carry are refused like a command.
                let hears = match case {
                    Case::TooSmall { why: FILES, .. } | Case::OtherLogin | Case::OtherTarget | Case::Expired => {
                        row.hears_none
                    }
                    Case::Allowed | Case::TooSmall { .. } => row.hears,
                };
                cells.push(Cell { client: row.client, way, case, hears, number: cells.len() });
            }
        }
    }
    cells
}

/// A bastion, one sshd under the names of all targets, and a person for each cell.
async fn set_up(cells: &[Cell]) -> Stage {
    let ssh = vec!["public_host = \"127.0.0.1\"".to_owned()];
    let bastion = Bastion::start(Stores::Small, Settings { ssh, ..Settings::default() }).await;
    let sshd = Sshd::start(&SshdSettings::default());
    let server = calls::shouting_server().await;
    sshd.trust_user_ca(&bastion.admin(&["ca", "user"]).await);
    for target in ["web-1", "foreign", "expired"].into_iter().chain(SMALL.map(|(target, _)| target)) {
        bastion.add_target_with(target, &sshd, &[]).await;
    }
    let ca = bastion.admin(&["known-hosts"]).await;
    let authority = ca.lines().last().unwrap().to_owned();
    let plain = bastion.admin(&["known-hosts", "--plain"]).await;
    let add = cells.iter().map(|cell| {
        let bastion = &bastion;
        async move {
            let key = KeyPair::ed25519();
            bastion.add_person(&cell.person(), &key).await;
            let desk = Workstation::new(&key);
            desk.trust(bastion.address(), bastion.host_key());
            (key, desk)
        }
    });
    let desks: Vec<(KeyPair, Workstation)> = futures::stream::iter(add).buffered(4).collect().await;
    let people = |is_meant: &dyn Fn(&Cell) -> bool| {
        let names: Vec<String> = cells.iter().filter(|cell| is_meant(cell)).map(Cell::person).collect();
        names.join(",")
    };
    let grant = async |people: String, target: &str, lasting: &str, allow: &str| {
        let new = ["grant", "new", &people, target, "--for", lasting, "--reason", "table", "--allow", allow];
        bastion.admin(&new).await;
    };
    grant(people(&|cell| cell.case == Case::Expired), "expired", "1s", "shell,exec,upload,download").await;
    let all = format!("shell,exec,upload,download,forward={server}");
    grant(people(&|cell| matches!(cell.case, Case::Allowed | Case::OtherLogin)), "web-1", "2h", &all).await;
    for (target, allow) in SMALL {
        grant(people(&|cell| cell.case.target() == target), target, "2h", allow).await;
    }
    eventually("the short grant has ended", async || {
        let ended = bastion.ask(&["grant", "ls", "--state", "ended"]).await;
        ended["items"].as_array().is_some_and(|grants| grants.len() == 1)
    })
    .await;
    Stage::new(bastion, sshd, server, desks, &authority, &plain)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_works_both_ways_is_recorded_and_is_refused_in_its_own_words() {
    let cells = cells();
    let stage = set_up(&cells).await;

    // One that panics is that cell's failure.
    let runs = cells.iter().map(|cell| {
        let run = AssertUnwindSafe(calls::run(&stage, *cell)).catch_unwind();
        async move { (*cell, run.await) }
    });
    let ran: Vec<_> = futures::stream::iter(runs).buffer_unordered(6).collect().await;
    let books = Books::read(&stage.bastion).await;

    let mut failures = Vec::new();
    for (cell, seen) in ran {
        let verdict = match seen {
            Ok(seen) => books::check(&books, &stage, &cell, &seen).await,
            Err(panic) => Err(panic.downcast::<String>().map_or_else(|_| "it panicked".to_owned(), |text| *text)),
        };
        failures.extend(verdict.err().map(|why| format!("{cell} ({}): {why}", cell.person())));
    }
    assert!(failures.is_empty(), "{} of {} cells:\n{}", failures.len(), cells.len(), failures.join("\n"));
}
