//! Who asks, and who may. A handler takes a [`May`] of the class it belongs to as its first argument, so that a request
//! is judged before anything else of it is read; a handler without one answers everybody, and the table in the tests
//! finds it.
//!
//! | class          | engineer | reviewer | auditor | admin | operator |
//! |----------------|----------|----------|---------|-------|----------|
//! | [`Known`]      | yes      | yes      | yes     | yes   | yes      |
//! | [`Look`]       |          | yes      | yes     | yes   | yes      |
//! | [`Replay`]     |          | yes      | yes     |       | yes      |
//! | [`Administer`] |          |          |         | yes   | yes      |
//! | [`Dispose`]    |          | yes      |         | yes   | yes      |
//! | [`Judge`]      |          | yes      |         |       | (nobody) |
//! | [`Operate`]    |          |          |         |       | yes      |

use std::marker::PhantomData;
use std::net::SocketAddr;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use sallyport_domain::event::Actor;
use sallyport_domain::id::WebSessionId;
use sallyport_domain::principal::{Principal, Role};
use sallyport_domain::secret::ApiToken;

use super::error::ApiError;
use super::{ApiState, sign_in};
use crate::app::tokens;

const FOR_OPERATORS: &str = "this is for the operator, on the node's own host";

/// The other end of a connection, as the listener knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on this host, by the uid that the kernel tells (`SO_PEERCRED`). Never taken from the request.
    Local { uid: u32, is_operator: bool },
    /// Somebody over TCP.
    Remote { address: SocketAddr },
}

/// The connection is encrypted by us.
#[derive(Debug, Clone, Copy)]
pub(super) struct OverTls;

/// Who was proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    Operator { uid: u32 },
    Person(Principal),
}

impl Caller {
    /// By whose hand, for the event.
    pub fn actor(&self) -> Actor {
        match self {
            Caller::Operator { uid } => Actor::Operator { uid: *uid },
            Caller::Person(principal) => Actor::Principal { id: principal.id, name: principal.name.clone() },
        }
    }

    /// Whether the caller may do what belongs to the class `C`.
    pub fn may<C: Class>(&self) -> bool {
        self.has_role(C::ROLES)
    }

    fn has_role(&self, roles: &[Role]) -> bool {
        match self {
            Caller::Operator { .. } => true,
            Caller::Person(principal) => roles.iter().any(|role| principal.has_role(*role)),
        }
    }
}

/// A class of operations.
pub trait Class: Send + Sync + 'static {
    /// The roles that may; the operator always may.
    const ROLES: &'static [Role];
}

/// What everybody who is known may do: ask who they are, where to connect, and for access.
pub struct Known;
/// Reading lists and details: people, targets, grants, sessions, the audit log.
pub struct Look;
/// Reading what was typed and printed. An admin, who gives access, does not read it.
pub struct Replay;
/// Changing people, targets, grants; cutting sessions.
pub struct Administer;

/// Saying what a session was, and what one has seen of it. A person's act: the operator may ask, and is nobody.
pub struct Judge;

/// Having a hand in legal holds and deletions. A deletion takes two of them, people both.
pub struct Dispose;

/// What takes being on the node's own host: the database may be away, and with it everybody's roles.
pub struct Operate;

impl Class for Operate {
    const ROLES: &'static [Role] = &[];
}
impl Class for Known {
    const ROLES: &'static [Role] = &Role::ALL;
}
impl Class for Look {
    const ROLES: &'static [Role] = &[Role::Admin, Role::Reviewer, Role::Auditor];
}
impl Class for Replay {
    const ROLES: &'static [Role] = &[Role::Reviewer, Role::Auditor];
}
impl Class for Administer {
    const ROLES: &'static [Role] = &[Role::Admin];
}
impl Class for Judge {
    const ROLES: &'static [Role] = &[Role::Reviewer];
}
impl Class for Dispose {
    const ROLES: &'static [Role] = &[Role::Admin, Role::Reviewer];
}

/// A caller, and by which browser, if by one.
pub(super) struct Proved {
    pub(super) caller: Caller,
    web_session: Option<WebSessionId>,
}

/// Proof that the caller may do what belongs to the class `C`. Only the judgement of a request makes one.
pub struct May<C> {
    proved: Proved,
    class: PhantomData<C>,
}

impl<C> May<C> {
    pub fn caller(&self) -> &Caller {
        &self.proved.caller
    }

    /// The browser in which the caller is signed in, if that is how they were proved.
    pub fn web_session(&self) -> Option<WebSessionId> {
        self.proved.web_session
    }

    /// By whose hand, for the event.
    pub fn actor(&self) -> Actor {
        self.caller().actor()
    }

    /// The operator's uid; a person is none.
    pub fn uid(&self) -> Result<u32, ApiError> {
        match self.caller() {
            Caller::Operator { uid } => Ok(*uid),
            Caller::Person(_) => Err(ApiError::Forbidden(FOR_OPERATORS.to_owned())),
        }
    }

    /// The person who asks; an operator of the host is none.
    pub fn person(&self) -> Result<&Principal, ApiError> {
        match self.caller() {
            Caller::Person(principal) => Ok(principal),
            Caller::Operator { .. } => Err(ApiError::BadRequest(
                "this is for a person who is signed in or has a token; the operator of the host is nobody here"
                    .to_owned(),
            )),
        }
    }
}

impl<C: Class> FromRequestParts<ApiState> for May<C> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let proved = prove(parts, state).await?;
        if proved.caller.may::<C>() {
            Ok(Self { proved, class: PhantomData })
        } else {
            if C::ROLES.is_empty() {
                return Err(ApiError::Forbidden(FOR_OPERATORS.to_owned()));
            }
            let roles: Vec<&str> = C::ROLES.iter().map(|role| role.as_str()).collect();
            Err(ApiError::Forbidden(format!("this takes one of the roles {}", roles.join(", "))))
        }
    }
}

/// Who asks: by the kernel's word on a local socket, by a token, or by the cookie of a browser that is signed in.
pub(super) async fn prove(parts: &Parts, state: &ApiState) -> Result<Proved, ApiError> {
    let known = |caller| Ok(Proved { caller, web_session: None });
    match parts.extensions.get::<Peer>() {
        Some(Peer::Local { uid, is_operator: true }) => known(Caller::Operator { uid: *uid }),
        Some(Peer::Local { uid, is_operator: false }) => Err(ApiError::Forbidden(format!(
            "uid {uid} is not an operator of this bastion: be root, or be listed in `[api] operators`"
        ))),
        Some(Peer::Remote { .. }) if parts.headers.contains_key(header::AUTHORIZATION) => {
            let token = bearer(parts).ok_or(ApiError::Unauthenticated)?;
            let principal = tokens::verify(&state.app, &token).await?.ok_or(ApiError::Unauthenticated)?;
            known(Caller::Person(principal))
        }
        Some(Peer::Remote { .. }) => {
            let token = sign_in::token(&parts.headers).ok_or(ApiError::Unauthenticated)?;
            sign_in::is_our_page(parts)?;
            let signed_in = state.sign_ins.verify(&state.app, &token).await?.ok_or(ApiError::Unauthenticated)?;
            Ok(Proved { caller: Caller::Person(signed_in.principal), web_session: Some(signed_in.session.id) })
        }
        // No listener of ours hands over a request without its peer.
        None => Err(ApiError::internal("a request came without its peer")),
    }
}

/// Whether whoever was proved may still do what belongs to the class. Asking is no use of the sign-in: a page that is only open does not
/// keep somebody signed in.
pub(super) async fn still<C: Class>(may: &May<C>, parts: &Parts, state: &ApiState) -> bool {
    let caller = match may.web_session() {
        Some(session) => state.sign_ins.still(&state.app, session).await.ok().flatten().map(Caller::Person),
        None => prove(parts, state).await.ok().map(|proved| proved.caller),
    };
    caller.is_some_and(|caller| caller.may::<C>())
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1); the word counts in any case (RFC 9110 §11.1).
fn bearer(parts: &Parts) -> Option<ApiToken> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| ApiToken::new(token))
}
