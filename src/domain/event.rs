//! Audit events: what happened, to what, by whose hand. An event is a row in the transaction of the
//! change it tells of; if it cannot be written, the change does not happen.
//!
//! An event names ids, never secrets, and never what was typed.

use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::files::FileOperation;
use crate::grant::{Terms, Window};
use crate::hash::Hash;
use crate::id::{
    DeletionId, EnvelopeId, EventId, GrantId, HoldId, InviteId, PasskeyId, PrincipalId, RecordingId, RequestId,
    SessionId, TargetId, TokenId, WatchId,
};
use crate::name::{Login, PrincipalName, TargetName, TemplateName};
use crate::policy::Denial;
use crate::principal::Role;
use crate::request::Wish;
use crate::retention::HoldSubject;
use crate::review::risk::{Moment, Reason};
use crate::review::seen::Coverage;
use crate::review::{Choice, Verdict};
use crate::template::Template;

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub id: EventId,
    /// Whole microseconds.
    pub at: DateTime<Utc>,
    pub actor: Actor,
    pub act: Act,
}

/// By whose hand.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Actor {
    /// The bastion itself: a window that ended, a recovery after a crash.
    Bastion,
    /// Somebody with this uid on the bastion's own host, through the admin socket.
    Operator { uid: u32 },
    /// A person who was proved.
    Principal { id: PrincipalId, name: PrincipalName },
    /// A peer that nobody was proved to be.
    Stranger { address: SocketAddr },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    PersonAdded {
        person: PrincipalId,
        name: PrincipalName,
        roles: Vec<Role>,
    },
    PersonChanged {
        person: PrincipalId,
        name: PrincipalName,
        change: String,
    },
    PersonDisabled {
        person: PrincipalId,
        name: PrincipalName,
    },
    PersonEnabled {
        person: PrincipalId,
        name: PrincipalName,
    },
    KeyAdded {
        person: PrincipalId,
        fingerprint: String,
    },
    KeyRemoved {
        person: PrincipalId,
        fingerprint: String,
    },
    /// A person can sign in to the web app with a passkey of that name.
    PasskeyAdded {
        person: PrincipalId,
        passkey: PasskeyId,
        name: String,
    },
    PasskeyRemoved {
        person: PrincipalId,
        passkey: PasskeyId,
        name: String,
    },
    /// Whoever has its link may give this person one key, or make them one passkey, until then.
    InviteMade {
        invite: InviteId,
        person: PrincipalId,
        not_after: DateTime<Utc>,
    },
    /// It was done, from there: `added` is the key's fingerprint or the passkey's id. Nothing else proved who did it.
    InviteUsed {
        invite: InviteId,
        person: PrincipalId,
        address: SocketAddr,
        added: String,
    },
    /// It opens nothing any more: taken back, replaced by another one, or its person was disabled.
    InviteRevoked {
        invite: InviteId,
        person: PrincipalId,
    },
    /// A person is this subject of that identity provider from now on.
    IdentityBound {
        person: PrincipalId,
        issuer: String,
        subject: String,
    },
    IdentityUnbound {
        person: PrincipalId,
        issuer: String,
        subject: String,
    },
    /// A second factor was confirmed by a code and counts from now on.
    SecondFactorEnrolled {
        person: PrincipalId,
    },
    /// The second factor and its recovery codes were taken away.
    SecondFactorReset {
        person: PrincipalId,
    },
    /// Too many wrong codes: none is taken until then.
    SecondFactorLocked {
        person: PrincipalId,
        until: DateTime<Utc>,
    },
    /// One of the recovery codes was used up; `left` are left.
    RecoveryCodeUsed {
        person: PrincipalId,
        left: u32,
    },
    TargetAdded {
        target: TargetId,
        name: TargetName,
        address: String,
        host_keys: Vec<String>,
    },
    TargetChanged {
        target: TargetId,
        name: TargetName,
        change: String,
    },
    /// A step of replacing the key that the bastion logs in with: `begun`, `installed`, `proved`, `switched`, `removed`, `dead`; done, or
    /// failed with `error`. `key` is the new one's fingerprint.
    CredentialRotation {
        target: TargetId,
        login: Login,
        key: String,
        step: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    TargetDisabled {
        target: TargetId,
        name: TargetName,
    },
    TargetEnabled {
        target: TargetId,
        name: TargetName,
    },
    GrantMade {
        grant: GrantId,
        people: Vec<PrincipalId>,
        terms: Terms,
        window: Window,
        reason: String,
        /// The template that the terms were taken from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        template: Option<TemplateName>,
    },
    /// There is a template for grants, as it stands here.
    TemplateMade {
        template: Template,
    },
    /// It says something else from now on. Grants that were made from it stay what they are.
    TemplateChanged {
        template: Template,
    },
    TemplateRemoved {
        template: TemplateName,
    },
    GrantExtended {
        grant: GrantId,
        not_after: DateTime<Utc>,
        reason: String,
    },
    GrantRevoked {
        grant: GrantId,
        reason: String,
    },
    /// A sealed envelope was made: opened on that node before `not_after`, it is a grant for the person. `document` is the SHA-256 of
    /// its file.
    BreakGlassMade {
        envelope: EnvelopeId,
        document: Hash,
        person: PrincipalId,
        node: String,
        terms: Terms,
        lasting_seconds: u32,
        not_after: DateTime<Utc>,
        reason: String,
    },
    /// It was opened, which is once, and became the grant. While the database was away, the event was written when it was back.
    BreakGlassOpened {
        envelope: EnvelopeId,
        document: Hash,
        grant: GrantId,
        person: PrincipalId,
        node: String,
        reason: String,
    },
    /// Somebody wanted to open a file that opens nothing there.
    BreakGlassRefused {
        document: Hash,
        node: String,
        why: String,
    },
    BreakGlassRevoked {
        envelope: EnvelopeId,
        reason: String,
    },
    RequestMade {
        request: RequestId,
        person: PrincipalId,
        wish: Wish,
        reason: String,
    },
    /// What came of it is the grant's own event.
    RequestApproved {
        request: RequestId,
        grant: GrantId,
        /// The grant is not what was asked for.
        changed: bool,
    },
    RequestDenied {
        request: RequestId,
        reason: String,
    },
    RequestWithdrawn {
        request: RequestId,
    },
    /// Nobody answered in time.
    RequestExpired {
        request: RequestId,
    },
    /// The bastion made itself a key: `purpose` is host_key, user_ca, host_ca, target_keys or break_glass.
    BastionKeyMade {
        purpose: String,
        public_key: String,
    },
    /// The next key of an authority (`user_ca`, `host_ca`) is to be trusted from now on; it signs nothing yet.
    BastionKeyStaged {
        purpose: String,
        public_key: String,
    },
    /// It signs from now on; the one before it is still to be trusted.
    BastionKeyActivated {
        purpose: String,
        public_key: String,
    },
    /// A key that signs no more is not to be trusted any more either.
    BastionKeyRetired {
        purpose: String,
        public_key: String,
    },
    /// Another key signs the ledger from here on. `change` is the old key's signed word for it (see
    /// [`crate::ledger::key_change`]).
    LedgerKeyRotated {
        change: String,
    },
    /// Another master key seals from here on, by their ids.
    MasterKeyRotated {
        from: String,
        to: String,
    },
    /// A master key that was replaced opens nothing any more: so many stored secrets were looked at.
    MasterKeyRetired {
        key: String,
        secrets: u64,
    },
    TokenMade {
        token: TokenId,
        person: PrincipalId,
    },
    TokenRevoked {
        token: TokenId,
        person: PrincipalId,
    },
    LoggedIn {
        person: PrincipalId,
        address: SocketAddr,
        method: String,
    },
    /// A person signed out of the web app in so many browsers.
    SignedOut {
        person: PrincipalId,
        browsers: u64,
    },
    /// A login that proved nobody; `claimed` is what the peer called itself, made printable and short.
    LoginRefused {
        address: SocketAddr,
        claimed: String,
        method: String,
    },
    /// A proved person was refused.
    Denied {
        person: PrincipalId,
        address: SocketAddr,
        wanted: String,
        denial: Denial,
    },
    SessionOpened {
        session: SessionId,
        grant: GrantId,
        target: TargetId,
        login: Login,
        address: SocketAddr,
    },
    /// An admin wants a session ended, on whichever node it is.
    CutRequested {
        session: SessionId,
        reason: String,
    },
    /// Somebody follows a session live, or one that waits for its start. Whether they count as its watcher is the rule's question.
    WatchStarted {
        session: SessionId,
        watch: WatchId,
    },
    WatchEnded {
        session: SessionId,
        watch: WatchId,
    },
    /// A session stands still: nobody watches it, though its grant takes a watcher.
    SessionFrozen {
        session: SessionId,
    },
    /// It goes on.
    SessionThawed {
        session: SessionId,
    },
    /// An admin wants a session to stand still, on whichever node it is.
    SessionHeld {
        session: SessionId,
        reason: String,
    },
    SessionReleased {
        session: SessionId,
    },
    /// An admin says something to whoever is at the session's terminals.
    MessageSent {
        session: SessionId,
        text: String,
    },
    /// The bastion ended a session.
    SessionCut {
        session: SessionId,
        reason: CutReason,
    },
    SessionEnded {
        session: SessionId,
        end: SessionEnd,
    },
    RecordingStarted {
        session: SessionId,
        recording: RecordingId,
        program: String,
    },
    /// `chain` is the head of the recording's hash chain, in hex.
    RecordingEnded {
        session: SessionId,
        recording: RecordingId,
        segments: u32,
        chain: String,
        gaps: u32,
    },
    /// Everything about the session is at rest; its manifest has this SHA-256 (see [`crate::ledger::manifest`]). Where more came to
    /// light later, as when a lost node returned, a session is sealed once more: the last one counts.
    SessionSealed {
        session: SessionId,
        manifest: Hash,
        recordings: u32,
        segments: u64,
        /// The manifest that counted before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        supersedes: Option<Hash>,
    },
    RequestRefused {
        session: SessionId,
        request: String,
        reason: String,
    },
    /// Something was done to a file on the target, or asked for and refused.
    FileOperation {
        session: SessionId,
        recording: RecordingId,
        operation: FileOperation,
    },
    /// What a channel carries cannot be followed any more. The grant has no rules to enforce, so it goes on; its files are not told of
    /// from here on.
    FilesUnreadable {
        session: SessionId,
        recording: RecordingId,
        reason: String,
    },
    /// The wall clock was set, by more than clocks drift: it showed `before`, and then `after`. The node goes by the later.
    ClockStepped {
        node: String,
        before: DateTime<Utc>,
        after: DateTime<Utc>,
    },
    /// Checkpoints do not get to an anchor.
    AnchorLate {
        node: String,
        anchor: String,
        since: DateTime<Utc>,
        error: String,
    },
    /// They get there again.
    AnchorRecovered {
        node: String,
        anchor: String,
    },
    /// Events do not get to a destination of the outbox.
    OutboxLate {
        destination: String,
        since: DateTime<Utc>,
        error: String,
    },
    /// They get there again.
    OutboxRecovered {
        destination: String,
    },
    /// A destination refused records for good; they were given up. `first` and `last` are events by their places in the ledger.
    /// Told once until it takes something again.
    OutboxDropped {
        destination: String,
        first: u64,
        last: u64,
        records: u64,
        error: String,
    },
    /// What the ledger or a recording holds is not what was written; `sallyport verify` tells all of it.
    LedgerAlarm {
        place: String,
        what: String,
    },
    /// A database of `found` signed events was taken on, though an anchor had seen `anchored`.
    RollbackAccepted {
        found: u64,
        anchored: u64,
    },
    /// A command that the session's grant flags was seen. `number` counts the recording's commands from 0.
    CommandFlagged {
        session: SessionId,
        recording: RecordingId,
        number: u32,
        pattern: String,
    },
    /// Recordings that start on this node from now on are encrypted to other public keys of the client's; to none where there are none.
    RecipientsChanged {
        node: String,
        before: Vec<String>,
        after: Vec<String>,
    },
    RecordingViewed {
        recording: RecordingId,
    },
    RecordingExported {
        recording: RecordingId,
        format: String,
    },
    /// Somebody looked for something in all that was shown and run; `words` as they wrote it.
    SessionsSearched {
        words: String,
    },
    /// What was recorded there is held back from deletion, whoever asks and whichever rule says so.
    HoldSet {
        hold: HoldId,
        subject: HoldSubject,
        reason: String,
    },
    HoldReleased {
        hold: HoldId,
        subject: HoldSubject,
        reason: String,
    },
    /// Somebody, or a rule, wants to delete what was recorded in a session. One deletion may be about several.
    DeletionAsked {
        deletion: DeletionId,
        session: SessionId,
        /// The retention rule that makes it due, in words; none if a person asks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
        reason: String,
    },
    /// It stays.
    DeletionRefused {
        deletion: DeletionId,
        session: SessionId,
        reason: String,
    },
    /// The tombstone: what was recorded in the session goes from now on. Who said yes is the event's actor.
    RecordingsDeleted {
        deletion: DeletionId,
        session: SessionId,
        /// The SHA-256 of the session's manifest, which stays.
        manifest: Hash,
        asked_by: Actor,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
        reason: String,
    },
    /// It is gone: so many objects.
    DeletionDone {
        deletion: DeletionId,
        session: SessionId,
        objects: u64,
    },
    /// A session is at rest, and it is decided whether it is to be reviewed: if `due_at` is there, by so many people before then.
    ReviewDecided {
        session: SessionId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        due_at: Option<DateTime<Utc>>,
        sign_offs: u32,
        /// 0 to 100, and what speaks for it.
        risk: u32,
        reasons: Vec<Reason>,
        choice: Choice,
    },
    /// It was not reviewed in time. Told once.
    ReviewOverdue {
        session: SessionId,
        due_at: DateTime<Utc>,
    },
    /// A reviewer points at a moment, or at the session as a whole.
    SessionFlagged {
        session: SessionId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        moment: Option<Moment>,
        words: String,
    },
    ReviewNoted {
        session: SessionId,
        note: String,
    },
    /// A reviewer's verdict, and how much of the session they had seen by then.
    SessionReviewed {
        session: SessionId,
        verdict: Verdict,
        note: String,
        coverage: Coverage,
        /// What was recorded had been deleted before.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        was_deleted: bool,
    },
    /// Everything about a grant, or one session under it, was put into a bundle for somebody outside; `contents` is the SHA-256 of
    /// its list of contents (see [`crate::ledger::bundle`]).
    EvidenceMade {
        grant: GrantId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
        contents: Hash,
    },
}

/// Why the bastion ended a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum CutReason {
    /// The rule says no by now: the window ended, or the grant was revoked, or the person disabled, …
    #[error("{denial}")]
    Denied { denial: Denial },
    /// An admin pressed the button.
    #[error("cut by {by}: {reason}")]
    Admin { by: String, reason: String },
    /// No record, no session.
    #[error("the recording failed: {message}")]
    RecordingFailed { message: String },
    /// The database could not be asked for longer than the configured grace.
    #[error("the bastion could not reach its database for {seconds} s")]
    CannotDecide { seconds: u64 },
    /// What the target has not accepted outgrew its budget on disk.
    #[error("the target did not take {bytes} bytes that were sent to it")]
    TargetStalled { bytes: u64 },
    /// Nothing moved for the configured time.
    #[error("nothing was sent either way for {seconds} s")]
    Idle { seconds: u64 },
    #[error("the bastion is shutting down")]
    ShuttingDown,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum SessionEnd {
    /// The client closed the connection, or it broke.
    ClientClosed,
    /// The target closed the connection, or it broke.
    TargetClosed,
    /// The target could not be reached or did not prove itself.
    TargetUnreachable { message: String },
    /// We ended it.
    Cut { reason: CutReason },
    /// The bastion died; its journals were recovered later.
    Crashed,
}

impl SessionEnd {
    /// The word that is stored, and shown in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            SessionEnd::ClientClosed => "client_closed",
            SessionEnd::TargetClosed => "target_closed",
            SessionEnd::TargetUnreachable { .. } => "target_unreachable",
            SessionEnd::Cut { .. } => "cut",
            SessionEnd::Crashed => "crashed",
        }
    }
}
