//! What the use cases say when they say no, as answers of the API. The only place that turns one into the other, so
//! that each of their reasons has its status, and none of our own troubles leaks.

use super::error::{ApiError, chain};
use crate::app::DbError;
use crate::app::authorities::AuthorityError;
use crate::app::break_glass::BreakGlassError;
use crate::app::credential_rotation::RotationError;
use crate::app::evidence::EvidenceError;
use crate::app::grants::GrantError;
use crate::app::invites::InviteError;
use crate::app::key_ring::RotateError;
use crate::app::keys::KeyError;
use crate::app::ledger::LedgerError;
use crate::app::passwords::PasswordError;
use crate::app::people::PeopleError;
use crate::app::recordings::read::ReadError;
use crate::app::requests::RequestError;
use crate::app::retention::RetentionError;
use crate::app::reviews::ReviewError;
use crate::app::second_factor::SecondFactorError;
use crate::app::sessions::SessionError;
use crate::app::sign_in::identities::IdentityError;
use crate::app::sign_in::{OidcError, PasskeyError, SignInError};
use crate::app::targets::TargetError;
use crate::app::templates::TemplateError;
use crate::app::tokens::TokenError;
use crate::app::watching::WatchError;
use crate::store::blob::BlobError;

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unreachable { .. } => {
                tracing::warn!(%error, "The database cannot be reached");
                ApiError::Unavailable("the bastion cannot reach its database now; try again in a moment".to_owned())
            }
            // What can clash by a caller's hand is found and named by the use case; what is left is a race.
            DbError::Conflict { .. } => {
                ApiError::Conflict("somebody changed this at the same time; try again".to_owned())
            }
            DbError::Corrupt { .. } | DbError::Address { .. } | DbError::Other { .. } => ApiError::internal(error),
        }
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        let text = error.to_string();
        match error {
            LedgerError::UnknownEvent(_) | LedgerError::NoCheckpoint(_) | LedgerError::NoKey => {
                ApiError::NotFound(text)
            }
            LedgerError::Proof(_) => ApiError::BadRequest(text),
            LedgerError::Broken(_) | LedgerError::Checkpoint { .. } | LedgerError::Tile(_) => ApiError::Damaged(text),
            LedgerError::Sealed(_) | LedgerError::NoRandomness | LedgerError::Key(_) | LedgerError::Sign { .. } => {
                ApiError::internal(error)
            }
            LedgerError::Blob(_) | LedgerError::Busy | LedgerError::Stopped => ApiError::Unavailable(text),
            LedgerError::Db(error) => error.into(),
        }
    }
}

impl From<PeopleError> for ApiError {
    fn from(error: PeopleError) -> Self {
        let text = error.to_string();
        match error {
            PeopleError::Unknown { .. } | PeopleError::UnknownKey { .. } => ApiError::NotFound(text),
            PeopleError::NameTaken { .. }
            | PeopleError::KeyTaken { .. }
            | PeopleError::TooManyKeys
            | PeopleError::DisabledAlready { .. }
            | PeopleError::NotDisabled { .. } => ApiError::Conflict(text),
            PeopleError::Changed { .. } => ApiError::PreconditionFailed(text),
            PeopleError::NoRole | PeopleError::Text(_) => ApiError::BadRequest(text),
            PeopleError::Password(PasswordError::TooShort | PasswordError::TooLong) => ApiError::BadRequest(text),
            PeopleError::Password(PasswordError::Busy) => ApiError::Unavailable(text),
            PeopleError::Password(PasswordError::Hashing) => ApiError::internal(error),
            PeopleError::Db(error) => error.into(),
        }
    }
}

impl From<TargetError> for ApiError {
    fn from(error: TargetError) -> Self {
        let text = error.to_string();
        match error {
            TargetError::Unknown { .. } | TargetError::UnknownId { .. } => ApiError::NotFound(text),
            TargetError::NameTaken { .. } | TargetError::DisabledAlready { .. } | TargetError::NotDisabled { .. } => {
                ApiError::Conflict(text)
            }
            TargetError::Changed { .. } => ApiError::PreconditionFailed(text),
            TargetError::HostKey { source } => ApiError::BadRequest(format!("{text}: {source}")),
            TargetError::UnknownJump { .. }
            | TargetError::TooManyJumps
            | TargetError::Way { .. }
            | TargetError::NothingToKeep { .. }
            | TargetError::NoLogin
            | TargetError::LoginTwice { .. }
            | TargetError::NoHostKey
            | TargetError::PrivateKey { .. }
            | TargetError::Password { .. }
            | TargetError::TooMany { .. }
            | TargetError::Label { .. }
            | TargetError::NoChange => ApiError::BadRequest(text),
            TargetError::Sealed { .. } | TargetError::SecretMissing { .. } => ApiError::internal(error),
            TargetError::Db(error) => error.into(),
        }
    }
}

impl From<GrantError> for ApiError {
    fn from(error: GrantError) -> Self {
        let text = error.to_string();
        match error {
            GrantError::Unknown { .. } | GrantError::UnknownPerson { .. } | GrantError::UnknownTarget { .. } => {
                ApiError::NotFound(text)
            }
            GrantError::Ended { .. } | GrantError::Revoked { .. } => ApiError::Conflict(text),
            GrantError::Changed { .. } => ApiError::PreconditionFailed(text),
            GrantError::Missing { .. }
            | GrantError::TooMany { .. }
            | GrantError::NothingAllowed
            | GrantError::NoSessions
            | GrantError::PatternsAndShell
            | GrantError::Destination
            | GrantError::SocketOfBastion
            | GrantError::NotInFuture { .. }
            | GrantError::EmptyWindow(_)
            | GrantError::Text(_) => ApiError::BadRequest(text),
            GrantError::Db(error) => error.into(),
        }
    }
}

impl From<BreakGlassError> for ApiError {
    fn from(error: BreakGlassError) -> Self {
        let text = error.to_string();
        match error {
            BreakGlassError::Unknown { .. }
            | BreakGlassError::UnknownPerson { .. }
            | BreakGlassError::UnknownTarget { .. }
            | BreakGlassError::UnknownNode { .. } => ApiError::NotFound(text),
            BreakGlassError::Over { .. } | BreakGlassError::Refused(_) | BreakGlassError::AnotherOpen { .. } => {
                ApiError::Conflict(text)
            }
            BreakGlassError::Lasting
            | BreakGlassError::NoEnvelope(_)
            | BreakGlassError::Unreadable(_)
            | BreakGlassError::Sealed { .. }
            | BreakGlassError::Key { .. }
            | BreakGlassError::Window(_)
            | BreakGlassError::Text(_) => ApiError::BadRequest(text),
            BreakGlassError::Terms(error) => error.into(),
            // The operator is on the host, and is told what is wrong with its disk.
            BreakGlassError::Disk(_) => ApiError::Unavailable(text),
            BreakGlassError::Kept(error) => ApiError::Unavailable(chain(&error)),
            BreakGlassError::BastionKey(KeyError::Db(error)) | BreakGlassError::Db(error) => error.into(),
            BreakGlassError::BastionKey(error) => ApiError::internal(error),
        }
    }
}

impl From<TemplateError> for ApiError {
    fn from(error: TemplateError) -> Self {
        let text = error.to_string();
        match error {
            TemplateError::Unknown { .. } => ApiError::NotFound(text),
            TemplateError::NameTaken { .. } => ApiError::Conflict(text),
            TemplateError::Changed { .. } => ApiError::PreconditionFailed(text),
            TemplateError::Lasting
            | TemplateError::NoEnd { .. }
            | TemplateError::NoReason { .. }
            | TemplateError::Outside(_)
            | TemplateError::Text(_) => ApiError::BadRequest(text),
            TemplateError::Grant(error) => error.into(),
            TemplateError::Db(error) => error.into(),
        }
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        let text = error.to_string();
        match error {
            RequestError::Unknown { .. } => ApiError::NotFound(text),
            RequestError::TooManyOpen { .. }
            | RequestError::TooManyToday { .. }
            | RequestError::Answered { .. }
            | RequestError::NoTarget { .. } => ApiError::Conflict(text),
            RequestError::Changed { .. } => ApiError::PreconditionFailed(text),
            RequestError::Own | RequestError::UnderGrant => ApiError::Forbidden(text),
            RequestError::TakesWatcher { .. } => ApiError::Conflict(text),
            RequestError::Lasting
            | RequestError::OnlyYes
            | RequestError::ByLogin
            | RequestError::WhichLogin { .. }
            | RequestError::OnlyTheEnd
            | RequestError::Text(_) => ApiError::BadRequest(text),
            RequestError::Grant(error) => error.into(),
            RequestError::Db(error) => error.into(),
        }
    }
}

impl From<RetentionError> for ApiError {
    fn from(error: RetentionError) -> Self {
        let text = error.to_string();
        match error {
            RetentionError::NoSession(_)
            | RetentionError::NoGrant(_)
            | RetentionError::NoTarget(_)
            | RetentionError::NoHold(_)
            | RetentionError::NoDeletion(_) => ApiError::NotFound(text),
            RetentionError::Released(_)
            | RetentionError::Answered(_)
            | RetentionError::Held { .. }
            | RetentionError::NotSealed(_)
            | RetentionError::AskedAlready { .. }
            | RetentionError::Gone { .. } => ApiError::Conflict(text),
            RetentionError::Changed(_) => ApiError::PreconditionFailed(text),
            RetentionError::SamePerson | RetentionError::OwnSession(_) => ApiError::Forbidden(text),
            RetentionError::Text(_) => ApiError::BadRequest(text),
            RetentionError::Db(error) => error.into(),
        }
    }
}

impl From<ReviewError> for ApiError {
    fn from(error: ReviewError) -> Self {
        let text = error.to_string();
        match error {
            ReviewError::NoSession(_) | ReviewError::NoRecording { .. } => ApiError::NotFound(text),
            ReviewError::NotAtRest(_) | ReviewError::SignedBefore(_) | ReviewError::TooMany { .. } => {
                ApiError::Conflict(text)
            }
            ReviewError::NoJudge(_) => ApiError::Forbidden(text),
            ReviewError::NoteMissing
            | ReviewError::NoMoment { .. }
            | ReviewError::Parts { .. }
            | ReviewError::Text(_) => ApiError::BadRequest(text),
            ReviewError::Db(error) => error.into(),
        }
    }
}

impl From<SecondFactorError> for ApiError {
    fn from(error: SecondFactorError) -> Self {
        let text = error.to_string();
        match error {
            SecondFactorError::Unknown { .. } => ApiError::NotFound(text),
            SecondFactorError::EnrolledAlready { .. }
            | SecondFactorError::NotBegun { .. }
            | SecondFactorError::None { .. } => ApiError::Conflict(text),
            SecondFactorError::WrongCode => ApiError::BadRequest(text),
            SecondFactorError::NoRandomness | SecondFactorError::Sealed(_) | SecondFactorError::Secret => {
                ApiError::internal(error)
            }
            SecondFactorError::Db(error) => error.into(),
        }
    }
}

impl From<RotateError> for ApiError {
    fn from(error: RotateError) -> Self {
        let text = error.to_string();
        match error {
            RotateError::NoOther
            | RotateError::WhichOne { .. }
            | RotateError::NotEverywhere { .. }
            | RotateError::UnderWay { .. }
            | RotateError::Raced => ApiError::Conflict(text),
            RotateError::Unknown { .. } => ApiError::NotFound(text),
            RotateError::Db(error) => error.into(),
        }
    }
}

impl From<AuthorityError> for ApiError {
    fn from(error: AuthorityError) -> Self {
        let text = error.to_string();
        match error {
            AuthorityError::StagedAlready { .. }
            | AuthorityError::StillPublished { .. }
            | AuthorityError::NotStaged { .. }
            | AuthorityError::NothingToRetire { .. } => ApiError::Conflict(text),
            AuthorityError::Key(error) => ApiError::internal(error),
            AuthorityError::Db(error) => error.into(),
        }
    }
}

impl From<RotationError> for ApiError {
    fn from(error: RotationError) -> Self {
        let text = error.to_string();
        match error {
            RotationError::Unknown { .. } | RotationError::NoLogin { .. } | RotationError::NoSchedule { .. } => {
                ApiError::NotFound(text)
            }
            RotationError::Certificate { .. }
            | RotationError::Password { .. }
            | RotationError::Busy { .. }
            | RotationError::Overtaken { .. }
            | RotationError::NoWay { .. } => ApiError::Conflict(text),
            RotationError::File { .. } | RotationError::Interval => ApiError::BadRequest(text),
            RotationError::Sealed { .. } | RotationError::Unusable { .. } | RotationError::NoRandomness => {
                ApiError::internal(error)
            }
            RotationError::Db(error) => error.into(),
        }
    }
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        let text = error.to_string();
        match error {
            SessionError::Unknown { .. } => ApiError::NotFound(text),
            SessionError::Ended { .. } | SessionError::NotHeld { .. } | SessionError::TooManyMessages { .. } => {
                ApiError::Conflict(text)
            }
            SessionError::Text(_) => ApiError::BadRequest(text),
            SessionError::Db(error) => error.into(),
        }
    }
}

impl From<WatchError> for ApiError {
    fn from(error: WatchError) -> Self {
        let text = error.to_string();
        match error {
            WatchError::Unknown { .. } => ApiError::NotFound(text),
            WatchError::Ended { .. } => ApiError::Conflict(text),
            WatchError::UnderGrant => ApiError::Forbidden(text),
            WatchError::Db(error) => error.into(),
        }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let text = error.to_string();
        match error {
            TokenError::UnknownPerson { .. } | TokenError::Unknown { .. } => ApiError::NotFound(text),
            TokenError::NotInFuture { .. } | TokenError::Text(_) => ApiError::BadRequest(text),
            TokenError::NoRandomness => ApiError::internal(error),
            TokenError::Db(error) => error.into(),
        }
    }
}

impl From<SignInError> for ApiError {
    fn from(error: SignInError) -> Self {
        let detail = error.to_string();
        let sign_in = |slug, title| ApiError::SignIn { slug, title, detail: detail.clone() };
        match error {
            SignInError::Refused => sign_in("refused", "Not signed in"),
            SignInError::CodeNeeded => sign_in("code_needed", "A code is needed"),
            SignInError::WrongCode | SignInError::UsedBefore => sign_in("wrong_code", "Not signed in"),
            SignInError::Locked { .. } => sign_in("locked", "Codes are locked"),
            SignInError::TooMany { wait } => ApiError::TooMany { wait, detail },
            SignInError::Busy => ApiError::Unavailable(detail),
            SignInError::Passkey(error) => error.into(),
            SignInError::Oidc(error) => error.into(),
            SignInError::Invite(error) => error.into(),
            SignInError::NoRandomness | SignInError::Password(_) => ApiError::internal(error),
            SignInError::SecondFactor(error) => error.into(),
            SignInError::Db(error) => error.into(),
        }
    }
}

impl From<PasskeyError> for ApiError {
    fn from(error: PasskeyError) -> Self {
        let text = error.to_string();
        match error {
            PasskeyError::NotSetUp | PasskeyError::Unknown { .. } | PasskeyError::UnknownPerson { .. } => {
                ApiError::NotFound(text)
            }
            PasskeyError::Refused => ApiError::SignIn { slug: "refused", title: "Not signed in", detail: text },
            PasskeyError::NotBegun | PasskeyError::Taken | PasskeyError::TooMany => ApiError::Conflict(text),
            PasskeyError::Malformed { .. }
            | PasskeyError::NotProved(_)
            | PasskeyError::NoBrowser
            | PasskeyError::Text(_) => ApiError::BadRequest(text),
            PasskeyError::State { .. } => ApiError::internal(error),
            PasskeyError::Db(error) => error.into(),
        }
    }
}

impl From<InviteError> for ApiError {
    fn from(error: InviteError) -> Self {
        let text = error.to_string();
        match error {
            InviteError::UnknownPerson { .. } | InviteError::NotOpen { .. } | InviteError::Refused { .. } => {
                ApiError::NotFound(text)
            }
            InviteError::Disabled { .. } => ApiError::Conflict(text),
            InviteError::Lasting => ApiError::BadRequest(text),
            InviteError::NoRandomness => ApiError::internal(error),
            InviteError::People(error) => error.into(),
            InviteError::Db(error) => error.into(),
        }
    }
}

impl From<OidcError> for ApiError {
    fn from(error: OidcError) -> Self {
        let text = error.to_string();
        match error {
            OidcError::NotSetUp | OidcError::NoPublicUrl => ApiError::NotFound(text),
            OidcError::NotBegun => ApiError::Conflict(text),
            OidcError::Away { .. } => ApiError::BadGateway(text),
            OidcError::Refused => ApiError::SignIn { slug: "refused", title: "Not signed in", detail: text },
            OidcError::Secret { .. } | OidcError::Authority { .. } | OidcError::Client(_) => ApiError::internal(error),
        }
    }
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        let text = error.to_string();
        match error {
            IdentityError::UnknownPerson { .. } | IdentityError::NotBound { .. } => ApiError::NotFound(text),
            IdentityError::Taken { .. } => ApiError::Conflict(text),
            IdentityError::Text(_) => ApiError::BadRequest(text),
            IdentityError::Db(error) => error.into(),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        let text = match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        match error {
            ReadError::Unknown => ApiError::NotFound(text),
            ReadError::Deleted => ApiError::Gone(text),
            ReadError::Encrypted { .. } => ApiError::Encrypted(text),
            ReadError::Reopened => ApiError::Unavailable(text),
            ReadError::MissingObject { .. }
            | ReadError::Altered { .. }
            | ReadError::BrokenChain { .. }
            | ReadError::MissingSegment { .. }
            | ReadError::Compression { .. }
            | ReadError::Decryption { .. }
            | ReadError::EncryptedTail(_)
            | ReadError::Segment { .. }
            | ReadError::Tail(_) => ApiError::Damaged(text),
            ReadError::Fetch { number, source } => {
                tracing::warn!(error = %source, "The object store cannot be read");
                ApiError::Unavailable(format!("segment {number} cannot be fetched from the object store now"))
            }
            ReadError::Db(error) => error.into(),
        }
    }
}

impl From<EvidenceError> for ApiError {
    fn from(error: EvidenceError) -> Self {
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        match error {
            EvidenceError::NoGrant(_) | EvidenceError::NoSession(_) => ApiError::NotFound(text),
            EvidenceError::NotSealed(_) | EvidenceError::TooLarge(_) => ApiError::Conflict(text),
            EvidenceError::Recording { .. } => ApiError::Damaged(text),
            EvidenceError::Fetch { source, .. } if matches!(*source, BlobError::NotFound { .. }) => {
                ApiError::Damaged(text)
            }
            EvidenceError::Fetch { recording, number, source } => {
                tracing::warn!(error = %source, "The object store cannot be read");
                ApiError::Unavailable(format!(
                    "segment {number} of recording {recording} cannot be fetched from the object store now"
                ))
            }
            EvidenceError::NotSequenced | EvidenceError::KeyChanged => ApiError::Unavailable(text),
            EvidenceError::Ledger(error) => error.into(),
            EvidenceError::Spool(_) | EvidenceError::Internal(_) => ApiError::internal(error),
            EvidenceError::Db(error) => error.into(),
        }
    }
}
