//! The rule: may this person reach this target, as this login, from here, now?
//!
//! Pure, so that the login, the re-check of live sessions and the tests share it. Its answer is a
//! [`Permit`], and only this file can make one: a door that takes a permit cannot be opened without
//! the rule.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::channel::Program;
use crate::consent::{Consent, Stage};
use crate::files::FileTerms;
use crate::files::gate::{FileGate, Recognised, Transfer, recognise};
use crate::grant::{Approval, Capabilities, Grant, Terms};
use crate::id::{GrantId, PrincipalId, TargetId};
use crate::name::Login;
use crate::principal::Principal;
use crate::target::Target;

/// What is being asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub principal: &'a Principal,
    pub target: &'a Target,
    pub login: &'a Login,
    /// What the person has proved themselves with.
    pub factors: Factors,
    /// Where the person's connection comes from.
    pub source: IpAddr,
    /// How many *other* sessions are open under each grant; a grant that is not listed has none.
    pub open_sessions: &'a HashMap<GrantId, u32>,
    /// What others have said of this session; `None` if nobody was asked yet.
    pub consent: Option<&'a Consent>,
}

/// What a person has proved themselves with: always one thing, and perhaps a second of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Factors {
    pub first: FirstFactor,
    pub second: Option<SecondFactor>,
}

/// What a person proves first (RFC 4252 §7 and §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstFactor {
    /// A key on file. One that lives on a FIDO token is a key like any other: whether it was touched cannot be told.
    PublicKey,
    /// A certificate of a trusted authority.
    Certificate,
    Password,
}

/// What a person proves besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecondFactor {
    /// A code that changes with time (RFC 6238).
    Totp,
    /// A code for the day on which the other one is lost.
    RecoveryCode,
}

impl Factors {
    /// How the login is written down: `publickey`, `password+totp`.
    pub const fn as_str(self) -> &'static str {
        match (self.first, self.second) {
            (FirstFactor::PublicKey, None) => "publickey",
            (FirstFactor::PublicKey, Some(SecondFactor::Totp)) => "publickey+totp",
            (FirstFactor::PublicKey, Some(SecondFactor::RecoveryCode)) => "publickey+recovery_code",
            (FirstFactor::Certificate, None) => "certificate",
            (FirstFactor::Certificate, Some(SecondFactor::Totp)) => "certificate+totp",
            (FirstFactor::Certificate, Some(SecondFactor::RecoveryCode)) => "certificate+recovery_code",
            (FirstFactor::Password, None) => "password",
            (FirstFactor::Password, Some(SecondFactor::Totp)) => "password+totp",
            (FirstFactor::Password, Some(SecondFactor::RecoveryCode)) => "password+recovery_code",
        }
    }
}

/// Proof that [`decide`] allowed one principal to reach one target as one login until `not_after`.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    grant: GrantId,
    principal: PrincipalId,
    target: TargetId,
    login: Login,
    not_after: DateTime<Utc>,
    terms: Terms,
}

impl Permit {
    pub fn grant(&self) -> GrantId {
        self.grant
    }

    pub fn principal(&self) -> PrincipalId {
        self.principal
    }

    pub fn target(&self) -> TargetId {
        self.target
    }

    pub fn login(&self) -> &Login {
        &self.login
    }

    /// The first instant at which the permit no longer holds.
    pub fn not_after(&self) -> DateTime<Utc> {
        self.not_after
    }

    /// The grant's terms as they stood when the permit was given.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether `program` may run under this permit.
    pub fn allows(&self, program: &Program) -> Result<(), Denial> {
        Self::would_allow(self.grant, &self.terms, program)
    }

    /// Whether a permit under `grant` with these `terms` would allow `program`.
    pub fn would_allow(grant: GrantId, terms: &Terms, program: &Program) -> Result<(), Denial> {
        let Capabilities { shell, exec, upload, download, forwards } = &terms.capabilities;
        let rules = &terms.commands;
        let (allowed, capability) = match program {
            // With patterns there is no way to run anything else.
            Program::Shell => (*shell && !rules.is_restricted(), Capability::Shell),
            Program::Exec { command }
                if *exec && !rules.allow(command) && !is_transfer(command, *upload || *download) =>
            {
                (false, Capability::ThisCommand)
            }
            Program::Exec { command } => match recognise(command) {
                // A transfer is no more than its protocol can do, so it needs no leave to run commands. Which way it goes is
                // the gate's question.
                Recognised::Scp(_) | Recognised::Rsync(_) => (*upload || *download || *exec, Capability::Files),
                Recognised::SftpServer => (*upload || *download, Capability::Files),
                Recognised::Unclear(_) | Recognised::Other => (*exec, Capability::Exec),
            },
            // Which way the files go is the file rules' question; here at least one way must be open.
            Program::Subsystem { name } if name == "sftp" => (*upload || *download, Capability::Files),
            Program::Subsystem { .. } => (*exec && !rules.is_restricted(), Capability::Exec),
            Program::Forward { destination } => {
                (forwards.iter().any(|granted| granted.covers(destination)), Capability::Forward)
            }
        };
        if allowed { Ok(()) } else { Err(Denial::NotInGrant { grant, capability }) }
    }

    /// How well a permit under `grant` with these `terms` would suit `program`, as far as its command line tells: which way scp
    /// and rsync go, and where to.
    pub fn would_suit(grant: GrantId, terms: &Terms, program: &Program) -> Suits {
        let Capabilities { upload, download, .. } = &terms.capabilities;
        if Self::would_allow(grant, terms, program).is_err() {
            return Suits::Not;
        }
        let files = FileTerms::new(&terms.capabilities, terms.files.clone());
        match FileGate::for_program(program, &files, &Arc::default(), false) {
            Err(_) => Suits::Not,
            // Which way files will go is not known before the first is opened.
            Ok(Transfer::Gated(FileGate::Sftp(_))) if !(*upload && *download) => Suits::InPart,
            Ok(Transfer::Gated(_) | Transfer::Other) => Suits::Well,
        }
    }
}

/// How well a grant suits a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suits {
    /// It does not allow it.
    Not,
    /// It allows SFTP, but files only one way.
    InPart,
    Well,
}

/// Whether the command carries files by a protocol that is followed, and files may go at all.
fn is_transfer(command: &[u8], files: bool) -> bool {
    files && matches!(recognise(command), Recognised::Scp(_) | Recognised::Rsync(_) | Recognised::SftpServer)
}

/// Something that a grant may or may not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    Shell,
    Exec,
    /// The grant allows some commands, and not this one.
    ThisCommand,
    Files,
    Forward,
}

impl Capability {
    /// How the engineer is told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Capability::Shell => "a shell",
            Capability::Exec => "running commands",
            Capability::ThisCommand => "this command",
            Capability::Files => "file transfer",
            Capability::Forward => "forwarding to there",
        }
    }
}

/// Why the answer is no. Ordered from the one nearest to a yes: of several grants that all say no, the person is
/// told the reason of the one that came nearest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "denial", rename_all = "snake_case")]
pub enum Denial {
    #[error("the grant does not allow {}", capability.as_str())]
    NotInGrant { grant: GrantId, capability: Capability },
    #[error("the grant allows {most} sessions at once, and they are open")]
    TooManySessions { grant: GrantId, most: u32 },
    #[error("the grant does not allow connections from {source_address}")]
    SourceNotAllowed { grant: GrantId, source_address: IpAddr },
    #[error(
        "the grant takes a second factor: an admin enrols you with `sallyport person totp enrol`, then log in again"
    )]
    SecondFactorMissing { grant: GrantId },
    /// Nobody said yes to this session; `approval` is whose yes the grant takes.
    #[error("the grant takes somebody's approval of each session, and there was none")]
    NotApproved { grant: GrantId, approval: Approval },
    /// The session stood still for as long as it may.
    #[error("nobody has watched the session since {since}, and the grant takes a watcher")]
    Unwatched { grant: GrantId, since: DateTime<Utc> },
    #[error("the grant's window opens at {opens_at}")]
    NotYet { grant: GrantId, opens_at: DateTime<Utc> },
    #[error("the grant was revoked at {at}")]
    Revoked { grant: GrantId, at: DateTime<Utc> },
    #[error("the grant ended at {at}")]
    Expired { grant: GrantId, at: DateTime<Utc> },
    #[error("no grant for this login on this target")]
    LoginNotGranted,
    #[error("no grant for this target")]
    NoGrant,
    #[error("no grant for connections to that address")]
    DestinationNotGranted,
    /// Not asked of the rule: the agent, the display, a listener at the bastion are refused whatever the grant says.
    #[error("no grant can allow this")]
    NeverGranted,
    #[error("no such target")]
    UnknownTarget,
    #[error("the target has no account of that name")]
    UnknownLogin,
    #[error("the target is disabled")]
    TargetDisabled,
    #[error("the person is disabled")]
    PrincipalDisabled,
}

impl Denial {
    /// Lower is nearer to a yes.
    fn distance(&self) -> u8 {
        match self {
            Denial::NotInGrant { .. } => 0,
            Denial::NotApproved { .. } | Denial::Unwatched { .. } => 1,
            Denial::TooManySessions { .. } => 2,
            Denial::SecondFactorMissing { .. } => 3,
            Denial::SourceNotAllowed { .. } => 4,
            Denial::NotYet { .. } => 5,
            Denial::Revoked { .. } => 6,
            Denial::Expired { .. } => 7,
            Denial::LoginNotGranted => 8,
            Denial::NoGrant => 9,
            Denial::DestinationNotGranted => 10,
            Denial::NeverGranted => 11,
            Denial::UnknownTarget => 12,
            Denial::UnknownLogin => 13,
            Denial::TargetDisabled => 14,
            Denial::PrincipalDisabled => 15,
        }
    }

    /// The grant that said no, where one did.
    pub fn grant(&self) -> Option<GrantId> {
        match self {
            Denial::NotInGrant { grant, .. }
            | Denial::NotApproved { grant, .. }
            | Denial::Unwatched { grant, .. }
            | Denial::TooManySessions { grant, .. }
            | Denial::SecondFactorMissing { grant }
            | Denial::SourceNotAllowed { grant, .. }
            | Denial::NotYet { grant, .. }
            | Denial::Revoked { grant, .. }
            | Denial::Expired { grant, .. } => Some(*grant),
            Denial::LoginNotGranted
            | Denial::NoGrant
            | Denial::DestinationNotGranted
            | Denial::NeverGranted
            | Denial::UnknownTarget
            | Denial::UnknownLogin
            | Denial::TargetDisabled
            | Denial::PrincipalDisabled => None,
        }
    }
}

/// Decides `question` at `now`, given every grant that names the person. The grant that lasts longest wins; of two that
/// end at once, the one with the smaller id, so that the answer does not depend on the order of `grants`.
pub fn decide(question: &Question<'_>, grants: &[Grant], now: DateTime<Utc>) -> Result<Permit, Denial> {
    if question.principal.disabled_at.is_some_and(|at| at <= now) {
        return Err(Denial::PrincipalDisabled);
    }
    if question.target.disabled_at.is_some_and(|at| at <= now) {
        return Err(Denial::TargetDisabled);
    }
    if question.target.login(question.login).is_none() {
        return Err(Denial::UnknownLogin);
    }
    let mut best: Option<&Grant> = None;
    // Of grants that lack somebody's consent only, the one that would win is the one to ask it for.
    let mut awaited: Option<&Grant> = None;
    let mut nearest = Denial::NoGrant;
    for grant in grants {
        let longer = |best: &Grant| (grant.window.not_after(), best.id) > (best.window.not_after(), grant.id);
        match judge(question, grant, now) {
            Ok(()) => {
                if best.is_none_or(longer) {
                    best = Some(grant);
                }
            }
            Err(denial @ Denial::NotApproved { .. }) => {
                if awaited.is_none_or(longer) {
                    awaited = Some(grant);
                    nearest = denial;
                }
            }
            Err(denial) => {
                if is_nearer(&denial, &nearest) {
                    nearest = denial;
                }
            }
        }
    }
    let grant = best.ok_or(nearest)?;
    Ok(Permit {
        grant: grant.id,
        principal: question.principal.id,
        target: question.target.id,
        login: question.login.clone(),
        not_after: grant.window.not_after(),
        terms: grant.terms.clone(),
    })
}

/// Whether one grant answers the question with yes, and if not, why.
fn judge(question: &Question<'_>, grant: &Grant, now: DateTime<Utc>) -> Result<(), Denial> {
    if !grant.people.contains(&question.principal.id) || !grant.terms.covers(question.target) {
        return Err(Denial::NoGrant);
    }
    if !grant.terms.logins.contains(question.login) {
        return Err(Denial::LoginNotGranted);
    }
    if grant.window.not_after() <= now {
        return Err(Denial::Expired { grant: grant.id, at: grant.window.not_after() });
    }
    if let Some(revocation) = grant.revoked.as_ref().filter(|revocation| revocation.at <= now) {
        return Err(Denial::Revoked { grant: grant.id, at: revocation.at });
    }
    if now < grant.window.not_before() {
        return Err(Denial::NotYet { grant: grant.id, opens_at: grant.window.not_before() });
    }
    if !grant.terms.admits(question.source) {
        return Err(Denial::SourceNotAllowed { grant: grant.id, source_address: question.source });
    }
    if grant.terms.second_factor && question.factors.second.is_none() {
        return Err(Denial::SecondFactorMissing { grant: grant.id });
    }
    if let Some(most) = grant.terms.max_sessions
        && question.open_sessions.get(&grant.id).copied().unwrap_or(0) >= most
    {
        return Err(Denial::TooManySessions { grant: grant.id, most });
    }
    judge_consent(question.consent, grant, now)
}

/// Whether others have consented as far as the grant takes it. A session that lost its watcher stands still (see
/// [`Consent::watched_until`]) and is over only when its patience is.
fn judge_consent(consent: Option<&Consent>, grant: &Grant, now: DateTime<Utc>) -> Result<(), Denial> {
    let approval = grant.terms.approval;
    let has_it = match approval {
        Approval::None => true,
        Approval::PerSession => consent.is_some_and(|consent| consent.is_approved(grant, now)),
        Approval::Watcher => match consent {
            None => false,
            Some(consent) if consent.watched_until(grant, now).is_some() => true,
            Some(Consent { stage: Stage::Asked, .. }) => false,
            Some(Consent { stage: Stage::Live { last_watched, patience }, .. }) => {
                if now.signed_duration_since(last_watched) >= *patience {
                    return Err(Denial::Unwatched { grant: grant.id, since: *last_watched });
                }
                true
            }
        },
    };
    if has_it { Ok(()) } else { Err(Denial::NotApproved { grant: grant.id, approval }) }
}

/// Orders denials for telling the person: the kind first, then the instant that helps most.
fn is_nearer(new: &Denial, old: &Denial) -> bool {
    match (new, old) {
        (Denial::NotYet { opens_at: new, .. }, Denial::NotYet { opens_at: old, .. }) => new < old,
        (Denial::Expired { at: new, .. }, Denial::Expired { at: old, .. }) => new > old,
        (Denial::Revoked { at: new, .. }, Denial::Revoked { at: old, .. }) => new > old,
        _ => new.distance() < old.distance(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::TimeDelta;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::commands::rules::CommandRules;
    use crate::consent::{Approved, Hand, Watching};
    use crate::files::FileRules;
    use crate::grant::{Revocation, Window};
    use crate::id::SessionId;
    use crate::principal::Role;
    use crate::target::{CredentialKind, HostKey, HostKeyTrust, TargetLogin};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn alice() -> Principal {
        Principal {
            id: PrincipalId::from_uuid(Uuid::from_u128(1)),
            name: "alice".parse().unwrap(),
            organisation: None,
            roles: vec![Role::Engineer],
            created_at: at(0),
            disabled_at: None,
        }
    }

    fn web_1() -> Target {
        Target {
            id: TargetId::from_uuid(Uuid::from_u128(2)),
            name: "web-1".parse().unwrap(),
            aliases: vec!["www".parse().unwrap()],
            address: "127.0.0.1:22".parse().unwrap(),
            jump: None,
            logins: ["root", "deploy"]
                .map(|login| TargetLogin { login: login.parse().unwrap(), credential: CredentialKind::Certificate })
                .to_vec(),
            labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
            host_keys: vec![HostKey { trust: HostKeyTrust::Host, public_key: "ssh-ed25519 AAAA".to_owned() }],
            created_at: at(0),
            disabled_at: None,
        }
    }

    fn grant(id: u128, from: i64, until: i64) -> Grant {
        Grant {
            id: GrantId::from_uuid(Uuid::from_u128(id)),
            people: vec![alice().id],
            terms: Terms {
                targets: vec!["web-*".parse().unwrap()],
                logins: vec!["root".parse().unwrap()],
                capabilities: Capabilities { shell: true, ..Capabilities::default() },
                source_networks: vec![],
                max_sessions: None,
                second_factor: false,
                approval: Approval::None,
                files: FileRules::default(),
                commands: CommandRules::default(),
                forwarding: crate::grant::Forwarding::default(),
                review: None,
            },
            window: Window::new(at(from), at(until)).unwrap(),
            reason: "INC-7".to_owned(),
            ticket: None,
            template: None,
            created_by: None,
            created_at: at(0),
            revoked: None,
        }
    }

    #[test]
    fn with_patterns_only_what_matches_runs_and_files_keep_their_own_rules() {
        let grant = |capabilities: Capabilities, patterns: &[&str]| {
            let mut grant = grant(1, 0, 100);
            grant.terms.capabilities = capabilities;
            grant.terms.commands.exec = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
            ask(&[grant], 5).unwrap()
        };
        let exec = |command: &str| Program::Exec { command: command.as_bytes().to_vec() };
        let subsystem = |name: &str| Program::Subsystem { name: name.to_owned() };

        // The grant's own word does not bring a shell back.
        let permit =
            grant(Capabilities { shell: true, exec: true, ..Capabilities::default() }, &["ls *", "scp -f /srv/*"]);
        for program in [exec("ls a"), exec("scp -f /srv/a")] {
            assert_eq!(permit.allows(&program), Ok(()));
        }
        for program in [exec("ls a;id"), exec("id"), exec("scp -t /srv/a"), exec("rsync --server . /"), exec("")] {
            let denial = permit.allows(&program).unwrap_err();
            assert!(matches!(denial, Denial::NotInGrant { capability: Capability::ThisCommand, .. }), "{program:?}");
        }
        for program in [Program::Shell, subsystem("sftp"), subsystem("netconf"), exec("/usr/lib/openssh/sftp-server")] {
            assert!(permit.allows(&program).is_err(), "{program:?}");
        }
        let permit = grant(Capabilities { exec: true, upload: true, ..Capabilities::default() }, &["ls *"]);
        for program in [exec("ls a"), exec("scp -t /srv/a"), subsystem("sftp")] {
            assert_eq!(permit.allows(&program), Ok(()));
        }
        for program in [exec("id"), exec("scp -t /srv/a; id"), subsystem("netconf"), Program::Shell] {
            assert!(permit.allows(&program).is_err(), "{program:?}");
        }
        // Patterns give nothing to whom the grant gives no commands.
        assert!(
            grant(Capabilities { upload: true, ..Capabilities::default() }, &["ls *"]).allows(&exec("ls a")).is_err()
        );
    }

    fn ask(grants: &[Grant], now: i64) -> Result<Permit, Denial> {
        ask_as("root", &HashMap::new(), grants, now)
    }

    fn ask_as(login: &str, open: &HashMap<GrantId, u32>, grants: &[Grant], now: i64) -> Result<Permit, Denial> {
        ask_with(None, login, open, grants, now)
    }

    fn ask_with(
        second: Option<SecondFactor>,
        login: &str,
        open: &HashMap<GrantId, u32>,
        grants: &[Grant],
        now: i64,
    ) -> Result<Permit, Denial> {
        ask_consented(None, second, login, open, grants, now)
    }

    fn ask_consented(
        consent: Option<&Consent>,
        second: Option<SecondFactor>,
        login: &str,
        open_sessions: &HashMap<GrantId, u32>,
        grants: &[Grant],
        now: i64,
    ) -> Result<Permit, Denial> {
        let (principal, target, login) = (alice(), web_1(), login.parse().unwrap());
        let factors = Factors { first: FirstFactor::PublicKey, second };
        let source = "203.0.113.9".parse().unwrap();
        let (principal, target, login) = (&principal, &target, &login);
        let question = Question { principal, target, login, factors, source, open_sessions, consent };
        decide(&question, grants, at(now))
    }

    fn somebody(id: u128, role: Role) -> Principal {
        Principal { id: PrincipalId::from_uuid(Uuid::from_u128(id)), roles: vec![role], ..alice() }
    }

    fn session(id: u128) -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(id))
    }

    /// Nobody has said anything of session 1.
    fn silence() -> Consent {
        Consent { session: session(1), stage: Stage::Asked, approval: None, watchers: vec![] }
    }

    fn approved_by(by: Hand, grant: &Grant) -> Consent {
        let approval = Approved { session: session(1), grant: grant.id, until: at(60), by };
        Consent { approval: Some(approval), ..silence() }
    }

    fn watched_by(by: Hand) -> Consent {
        Consent { watchers: vec![Watching { session: session(1), until: at(60), by }], ..silence() }
    }

    fn taking(approval: Approval) -> Grant {
        let mut grant = grant(7, 0, 90);
        grant.terms.approval = approval;
        grant
    }

    fn ask_of(consent: &Consent, grant: &Grant, now: i64) -> Result<Permit, Denial> {
        ask_consented(Some(consent), None, "root", &HashMap::new(), std::slice::from_ref(grant), now)
    }

    #[test]
    fn an_approval_opens_its_own_session_only_and_in_time_only() {
        let strict = taking(Approval::PerSession);
        let no = Err(Denial::NotApproved { grant: strict.id, approval: Approval::PerSession });
        let yes = approved_by(Hand::Operator, &strict);
        let another_session = Consent { session: session(2), ..yes.clone() };

        assert_eq!(ask(std::slice::from_ref(&strict), 20), no);
        assert_eq!(ask_of(&silence(), &strict, 20), no);
        assert!(ask_of(&yes, &strict, 59).is_ok());
        assert_eq!(ask_of(&yes, &strict, 60), no);
        assert_eq!(ask_of(&another_session, &strict, 20), no);
        assert_eq!(ask_of(&approved_by(Hand::Operator, &grant(8, 0, 90)), &strict, 20), no);
        assert_eq!(ask_of(&watched_by(Hand::Operator), &strict, 20), no);
    }

    #[test]
    fn consent_is_given_by_who_may_at_that_moment_and_never_by_who_is_under_the_grant() {
        let (mut approve, mut watch) = (taking(Approval::PerSession), taking(Approval::Watcher));
        let (admin, reviewer, auditor) =
            (somebody(8, Role::Admin), somebody(9, Role::Reviewer), somebody(10, Role::Auditor));
        let mut gone = admin.clone();
        gone.disabled_at = Some(at(20));
        let approves = |person: &Principal, grant: &Grant, now| {
            ask_of(&approved_by(Hand::Person(person.clone()), grant), grant, now).is_ok()
        };
        let watches =
            |person: &Principal, grant: &Grant| ask_of(&watched_by(Hand::Person(person.clone())), grant, 20).is_ok();

        assert!(approves(&admin, &approve, 20) && !approves(&reviewer, &approve, 20));
        assert!(approves(&gone, &approve, 19) && !approves(&gone, &approve, 20));
        assert!(watches(&reviewer, &watch) && !watches(&admin, &watch) && !watches(&auditor, &watch));
        approve.people.push(admin.id);
        watch.people.push(reviewer.id);
        assert!(!approves(&admin, &approve, 20) && !watches(&reviewer, &watch));
        let alone = Principal { roles: Role::ALL.to_vec(), ..alice() };
        assert!(!approves(&alone, &approve, 20) && !watches(&alone, &watch));
    }

    #[test]
    fn a_live_session_outlasts_its_approvals_time_and_its_watcher_by_its_patience() {
        let (approve, watch) = (taking(Approval::PerSession), taking(Approval::Watcher));
        let stage = Stage::Live { last_watched: at(20), patience: TimeDelta::seconds(10) };
        let live = |consent: Consent| Consent { stage, ..consent };
        let admin = Hand::Person(somebody(8, Role::Engineer)); // no admin any more

        assert!(ask_of(&live(approved_by(admin, &approve)), &approve, 80).is_ok());
        assert!(ask_of(&live(silence()), &approve, 20).is_err());
        assert!(ask_of(&live(silence()), &watch, 29).is_ok());
        assert_eq!(ask_of(&live(silence()), &watch, 30), Err(Denial::Unwatched { grant: watch.id, since: at(20) }));
        assert!(ask_of(&live(watched_by(Hand::Operator)), &watch, 59).is_ok());
        assert_eq!(live(silence()).watched_until(&watch, at(21)), None);
    }

    #[test]
    fn a_grant_that_takes_no_consent_comes_first_and_else_the_one_that_lasts_longest_is_asked_for() {
        let (mut long, mut longer, easy) = (grant(7, 0, 50), grant(8, 0, 60), grant(9, 0, 30));
        (long.terms.approval, longer.terms.approval) = (Approval::PerSession, Approval::Watcher);
        assert_eq!(ask(&[long.clone(), easy.clone(), longer.clone()], 20).map(|permit| permit.grant()), Ok(easy.id));
        for grants in [[long.clone(), longer.clone()], [longer.clone(), long.clone()]] {
            let denial = Denial::NotApproved { grant: longer.id, approval: Approval::Watcher };
            assert_eq!(ask(&grants, 20), Err(denial));
        }
    }

    #[test]
    fn the_window_is_half_open() {
        let grants = [grant(7, 10, 20)];
        assert!(matches!(ask(&grants, 9), Err(Denial::NotYet { .. })));
        assert_eq!(ask(&grants, 10).map(|permit| permit.not_after()), Ok(at(20)));
        assert!(ask(&grants, 19).is_ok());
        assert!(matches!(ask(&grants, 20), Err(Denial::Expired { .. })));
    }

    #[test]
    fn a_grant_suits_a_transfer_that_goes_its_way() {
        let permit = |upload, download, rules: &str| {
            let mut grant = grant(7, 0, 20);
            grant.terms.capabilities = Capabilities { upload, download, exec: true, ..Capabilities::default() };
            grant.terms.files = serde_json::from_str(rules).unwrap();
            ask(&[grant], 5).unwrap()
        };
        let suits = |permit: &Permit, program: &Program| Permit::would_suit(permit.grant, &permit.terms, program);
        let (inward, outward, both) = (permit(true, false, "{}"), permit(false, true, "{}"), permit(true, true, "{}"));
        let exec = |line: &str| Program::Exec { command: line.as_bytes().to_vec() };
        for (upload, download) in [
            ("scp -t /srv", "scp -f /srv/a"),
            ("rsync --server -vlogDtpre.iLsfxCIvu . /srv/", "rsync --server --sender -vlogDtpre.iLsfxCIvu . /srv/a"),
        ] {
            let (upload, download) = (exec(upload), exec(download));
            assert_eq!((suits(&inward, &upload), suits(&inward, &download)), (Suits::Well, Suits::Not));
            assert_eq!((suits(&outward, &upload), suits(&outward, &download)), (Suits::Not, Suits::Well));
            assert_eq!((suits(&both, &upload), suits(&both, &download)), (Suits::Well, Suits::Well));
        }
        let sftp = Program::Subsystem { name: "sftp".to_owned() };
        assert_eq!((suits(&inward, &sftp), suits(&both, &sftp)), (Suits::InPart, Suits::Well));
        let elsewhere = permit(true, true, r#"{"download":{"paths":["/var/log/**"]}}"#);
        assert_eq!(suits(&elsewhere, &exec("scp -f /srv/a")), Suits::Not);
        assert_eq!(suits(&elsewhere, &exec("scp -f /var/log/a")), Suits::Well);
        assert_eq!((suits(&both, &Program::Shell), suits(&both, &exec("uptime"))), (Suits::Not, Suits::Well));
    }

    #[test]
    fn the_grant_that_lasts_longest_wins() {
        let grants = [grant(7, 0, 20), grant(8, 0, 30), grant(9, 0, 25)];
        assert_eq!(ask(&grants, 5).map(|permit| permit.grant()), Ok(grants[1].id));
    }

    #[test]
    fn a_revoked_grant_is_no_grant_but_another_still_counts() {
        let mut first = grant(7, 0, 30);
        first.revoked = Some(Revocation { at: at(5), by: None, reason: "done".to_owned() });
        assert!(ask(&[first.clone()], 4).is_ok());
        assert_eq!(ask(&[first.clone()], 5), Err(Denial::Revoked { grant: first.id, at: at(5) }));
        assert!(ask(&[first, grant(8, 0, 20)], 5).is_ok());
    }

    #[test]
    fn the_person_is_told_the_denial_nearest_to_a_yes() {
        let (past, coming) = (grant(7, 0, 10), grant(8, 40, 50));
        assert!(
            matches!(ask(&[past, coming, grant(9, 30, 35)], 20), Err(Denial::NotYet { opens_at, .. }) if opens_at == at(30))
        );
        assert_eq!(ask_as("deploy", &HashMap::new(), &[grant(7, 0, 90)], 20), Err(Denial::LoginNotGranted));
        assert_eq!(ask_as("nobody", &HashMap::new(), &[grant(7, 0, 90)], 20), Err(Denial::UnknownLogin));
        assert_eq!(ask(&[], 20), Err(Denial::NoGrant));
    }

    #[test]
    fn a_full_grant_denies_one_session_more() {
        let mut limited = grant(7, 0, 90);
        limited.terms.max_sessions = Some(2);
        let open = |count| HashMap::from([(limited.id, count)]);
        assert!(ask_as("root", &open(1), &[limited.clone()], 20).is_ok());
        assert_eq!(
            ask_as("root", &open(2), &[limited.clone()], 20),
            Err(Denial::TooManySessions { grant: limited.id, most: 2 })
        );
    }

    #[test]
    fn a_grant_that_takes_two_factors_denies_one_and_another_grant_may_do_with_it() {
        let mut strict = grant(7, 0, 90);
        strict.terms.second_factor = true;
        let with = |second, grants: &[Grant]| ask_with(second, "root", &HashMap::new(), grants, 20);

        assert_eq!(with(None, &[strict.clone()]), Err(Denial::SecondFactorMissing { grant: strict.id }));
        for second in [SecondFactor::Totp, SecondFactor::RecoveryCode] {
            assert_eq!(with(Some(second), &[strict.clone()]).map(|permit| permit.grant()), Ok(strict.id));
        }
        let lenient = grant(8, 0, 30);
        let both = [strict.clone(), lenient.clone()];
        assert_eq!(with(None, &both).map(|permit| permit.grant()), Ok(lenient.id));
        assert_eq!(with(Some(SecondFactor::Totp), &both).map(|permit| permit.grant()), Ok(strict.id));
    }

    #[test]
    fn of_denials_the_missing_factor_is_told_before_the_closed_window() {
        let (mut strict, coming) = (grant(7, 0, 90), grant(8, 40, 50));
        strict.terms.second_factor = true;
        assert!(matches!(ask(&[coming, strict], 20), Err(Denial::SecondFactorMissing { .. })));
    }

    #[test]
    fn a_permit_allows_the_programs_of_its_grant_only() {
        let permit = ask(&[grant(7, 0, 90)], 20).unwrap();
        assert!(permit.allows(&Program::Shell).is_ok());
        let exec = Program::Exec { command: b"id".to_vec() };
        assert!(matches!(permit.allows(&exec), Err(Denial::NotInGrant { capability: Capability::Exec, .. })));
        let sftp = Program::Subsystem { name: "sftp".to_owned() };
        assert!(matches!(permit.allows(&sftp), Err(Denial::NotInGrant { capability: Capability::Files, .. })));
    }

    #[test]
    fn a_transfer_by_exec_takes_upload_or_download_and_no_leave_to_run_commands() {
        let exec = |command: &str| Program::Exec { command: command.as_bytes().to_vec() };
        let mut files = grant(7, 0, 90);
        files.terms.capabilities = Capabilities { upload: true, ..Capabilities::default() };
        let permit = ask(&[files], 20).unwrap();
        for command in
            ["scp -t /tmp", "scp -f /tmp/x", "rsync --server -e.LsfxC . /tmp", "/usr/lib/openssh/sftp-server"]
        {
            assert!(permit.allows(&exec(command)).is_ok(), "{command}");
        }
        for command in ["id", "scp -t $(id)", "scp -t /tmp; id", "/tmp/scp -t x"] {
            assert!(permit.allows(&exec(command)).is_err(), "{command}");
        }
    }

    prop_compose! {
        fn any_grant()(
            id in 1_u128..50, from in 0_i64..100, length in 1_i64..100,
            revoked in prop::option::of(0_i64..200), mine: bool, covers: bool, root: bool,
            network in prop::sample::select(vec![None, Some("203.0.113.0/24"), Some("198.51.100.0/24")]),
            most in prop::option::of(0_u32..3), second_factor: bool, approval in prop::sample::select(&Approval::ALL[..]),
        ) -> Grant {
            let mut grant = grant(id, from, from + length);
            grant.revoked = revoked.map(|seconds| Revocation { at: at(seconds), by: None, reason: String::new() });
            if !mine { grant.people = vec![PrincipalId::from_uuid(Uuid::from_u128(99))]; }
            if !covers { grant.terms.targets = vec!["db-*".parse().unwrap()]; }
            if !root { grant.terms.logins = vec!["deploy".parse().unwrap()]; }
            grant.terms.source_networks = network.map(|text| text.parse().unwrap()).into_iter().collect();
            grant.terms.max_sessions = most;
            grant.terms.second_factor = second_factor;
            grant.terms.approval = approval;
            grant
        }
    }

    fn any_hand() -> impl Strategy<Value = Hand> {
        let person = (1_u128..12, prop::sample::select(&Role::ALL[..]), prop::option::of(0_i64..220)).prop_map(
            |(id, role, disabled)| Hand::Person(Principal { disabled_at: disabled.map(at), ..somebody(id, role) }),
        );
        prop_oneof![Just(Hand::Operator), person]
    }

    prop_compose! {
        fn any_consent()(
            approval in prop::option::of((1_u128..3, 1_u128..50, 0_i64..220, any_hand())),
            watchers in prop::collection::vec((1_u128..3, 0_i64..220, any_hand()), 0..3),
            live in prop::option::of((0_i64..220, 0_i64..50)),
        ) -> Consent {
            let approved = |(id, grant, until, by)| {
                Approved { session: session(id), grant: GrantId::from_uuid(Uuid::from_u128(grant)), until: at(until), by }
            };
            let watching = |(id, until, by)| Watching { session: session(id), until: at(until), by };
            let stage = live.map_or(Stage::Asked, |(last, patience)| {
                Stage::Live { last_watched: at(last), patience: TimeDelta::seconds(patience) }
            });
            let (approval, watchers) = (approval.map(approved), watchers.into_iter().map(watching).collect());
            Consent { session: session(1), stage, approval, watchers }
        }
    }

    proptest! {
        #[test]
        fn without_the_consent_that_its_grant_takes_there_is_no_permit(
            grants in prop::collection::vec(any_grant(), 0..8), now in 0_i64..220,
            consent in prop::option::of(any_consent()), second in prop::option::of(Just(SecondFactor::Totp)),
        ) {
            let may = |hand: &Hand, role, grant: &Grant| match hand {
                Hand::Operator => true,
                Hand::Person(person) => person.roles.contains(&role) && !grant.people.contains(&person.id)
                    && person.disabled_at.is_none_or(|disabled| disabled > at(now)),
            };
            let asked = ask_consented(consent.as_ref(), second, "root", &HashMap::new(), &grants, now);
            if let (Ok(permit), Some(Consent { session: asked_of, stage: Stage::Asked, approval, watchers })) = (&asked, &consent) {
                let has_it = |grant: &Grant| match grant.terms.approval {
                    Approval::None => true,
                    Approval::PerSession => approval.as_ref().is_some_and(|yes| yes.session == *asked_of
                        && yes.grant == grant.id && yes.until > at(now) && may(&yes.by, Role::Admin, grant)),
                    Approval::Watcher => watchers.iter().any(|watching| watching.session == *asked_of
                        && watching.until > at(now) && may(&watching.by, Role::Reviewer, grant)),
                };
                let found = grants.iter().any(|grant| grant.id == permit.grant() && has_it(grant));
                prop_assert!(found);
            }
            if let (Ok(permit), None) = (&asked, &consent) {
                prop_assert_eq!(permit.terms().approval, Approval::None);
            }
        }

        #[test]
        fn a_permit_always_rests_on_a_grant_that_holds_now(
            grants in prop::collection::vec(any_grant(), 0..8), now in 0_i64..220, open in 0_u32..3,
            second in prop::option::of(Just(SecondFactor::Totp)),
        ) {
            let open: HashMap<_, _> = grants.iter().map(|grant| (grant.id, open)).collect();
            if let Ok(permit) = ask_with(second, "root", &open, &grants, now) {
                prop_assert!(grants.iter().any(|grant| grant.id == permit.grant()
                    && grant.window.not_after() == permit.not_after()
                    && grant.window.contains(at(now))
                    && grant.people.contains(&permit.principal())
                    && grant.terms.logins.contains(permit.login())
                    && grant.terms.covers(&web_1())
                    && (second.is_some() || !grant.terms.second_factor)
                    && grant.revoked.as_ref().is_none_or(|revocation| revocation.at > at(now))));
            }
        }

        #[test]
        fn the_order_of_the_grants_does_not_matter(
            grants in prop::collection::vec(any_grant(), 0..8), now in 0_i64..220, seed in any::<prop::sample::Index>(),
        ) {
            let mut unique = grants;
            unique.sort_by_key(|grant| grant.id);
            unique.dedup_by_key(|grant| grant.id);
            let mut turned = unique.clone();
            if !turned.is_empty() { let middle = seed.index(turned.len()); turned.rotate_left(middle); }
            let told = |answer: Result<Permit, Denial>| answer.map_err(|denial| denial.distance());
            prop_assert_eq!(told(ask(&unique, now)), told(ask(&turned, now)));
        }

        #[test]
        fn time_alone_never_turns_an_ended_grant_back_on(grant in any_grant(), now in 0_i64..220, later in 1_i64..100) {
            let grants = [grant];
            if matches!(ask(&grants, now), Err(Denial::Expired { .. } | Denial::Revoked { .. })) {
                prop_assert!(ask(&grants, now + later).is_err());
            }
        }

        #[test]
        fn a_factor_more_never_turns_a_yes_into_a_no(
            grants in prop::collection::vec(any_grant(), 0..8), now in 0_i64..220,
        ) {
            if ask(&grants, now).is_ok() {
                let more = ask_with(Some(SecondFactor::Totp), "root", &HashMap::new(), &grants, now);
                prop_assert!(more.is_ok());
            }
        }

        #[test]
        fn the_permit_ends_when_its_grant_does(until in 1_i64..100) {
            let permit = ask(&[grant(7, 0, until)], 0).unwrap();
            prop_assert_eq!(permit.not_after() - at(0), TimeDelta::seconds(until));
        }
    }
}
