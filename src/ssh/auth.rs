//! Who is at the other end (RFC 4252): one state machine a connection, which alone decides who gets in. What our library
//! offers as methods it does not enforce, so every request meets the state here.
//!
//! ```text
//!            key, certificate, password; of somebody without a second factor
//! Nobody ──────────────────────────────────────────────────────────────────► Proved
//!   ▲  └─ the same, of somebody with one ──► Half ──── the code is right ───────▲
//!   └──────────── another user name ──────────┘ └─ wrong: Half, a failure more
//! ```
//!
//! Until a first factor is proved, every answer is the same for every name, in words and in work: a stranger cannot tell who
//! exists, nor who has a second factor. `keyboard-interactive` (RFC 4256) asks for the password while nobody is proved, for
//! clients that know no other way, and for the code after that.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, HashAlg};
use russh::server::{Auth, PublicKeyOffer, Response, VerifiedPublicKey};
use russh::{MethodKind, MethodSet};
use sallyport_domain::login_name::LoginName;
use sallyport_domain::policy::{Factors, FirstFactor, SecondFactor};
use sallyport_domain::principal::Principal;
use sallyport_domain::secret::{PrincipalPassword, VerificationCode};
use tracing::{Instrument, info, warn};

use super::Door;
use super::limits::Slot;
use super::notice;
use crate::app::logins::{self, CodeAnswer, LoginError};
use crate::spans::Spanned;

/// What is asked for the password, by clients that have it asked.
const PASSWORD_PROMPT: &str = "Password: ";
/// What is asked for the second factor: a code, or a recovery code.
const CODE_PROMPT: &str = "Verification code: ";

/// How far the login of one connection has come.
pub struct Authentication {
    door: Arc<Door>,
    peer: SocketAddr,
    slot: Slot,
    state: State,
    /// What the last request for information asked for (RFC 4256 §3.2); every other request takes it back.
    asked: Option<Asked>,
    /// What the peer called itself last, at most 256 characters of it.
    claimed: String,
    /// Requests that failed, those for the methods left out.
    tries: usize,
    /// First factors that were right and went on to the second. Our library does not count these as tries.
    halves: usize,
    /// Until it is over.
    span: Option<Spanned>,
}

enum State {
    /// Nobody is proved. `offered` is the last key that was found good for a name, so that the signature that follows does
    /// not take a second look.
    Nobody {
        offered: Option<Offered>,
    },
    /// The first factor is proved, for this user name only; the second is missing. `said` tells what was wrong with the
    /// last code.
    Half {
        user: String,
        proof: Proof,
        said: Cow<'static, str>,
    },
    Proved(Proved),
}

/// A first factor that was right.
#[derive(Clone)]
struct Proof {
    name: LoginName,
    principal: Principal,
    first: FirstFactor,
    /// Of the key, where it was one on file.
    fingerprint: Option<String>,
}

/// Somebody who was proved with everything that is asked of them.
#[derive(Clone)]
pub struct Proved {
    pub name: LoginName,
    pub principal: Principal,
    pub factors: Factors,
    /// Of the key, where it was one on file.
    pub fingerprint: Option<String>,
}

struct Offered {
    user: String,
    fingerprint: String,
    principal: Principal,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Password,
    Code,
}

impl Authentication {
    pub fn new(door: Arc<Door>, peer: SocketAddr, slot: Slot, span: Spanned) -> Self {
        let state = State::Nobody { offered: None };
        Self { door, peer, slot, state, asked: None, claimed: String::new(), tries: 0, halves: 0, span: Some(span) }
    }

    /// The door through which somebody was, or is to be, proved: another one than at first if an envelope is open.
    pub fn door(&self) -> Arc<Door> {
        self.door.clone()
    }

    /// Who was proved, if anybody was. They no longer count among strangers.
    pub fn admit(&mut self) -> Option<Proved> {
        let State::Proved(proved) = &self.state else { return None };
        self.slot.authenticated();
        Some(proved.clone())
    }

    /// "none" (RFC 4252 §5.2) asks which methods there are, and proves nobody.
    pub fn none(&mut self, user: &str) -> Auth {
        self.turn_to(user);
        self.refusal()
    }

    /// A key that would be used, without proof yet (RFC 4252 §7).
    pub async fn key_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Auth {
        self.turn_to(user);
        if self.is_half() || !is_strong(offer.algorithm) {
            return self.reject();
        }
        let fingerprint = offer.public_key.fingerprint(HashAlg::Sha256).to_string();
        if let Some(principal) = self.find_by_key(user, &fingerprint).await {
            self.state = State::Nobody { offered: Some(Offered { user: user.to_owned(), fingerprint, principal }) };
            return Auth::Accept;
        }
        // A certificate looks like its bare key here. Where a CA is trusted every key may go on to its proof, which
        // `certificate` or `key` then judges.
        if self.door.trusted_cas.is_empty() { self.reject() } else { Auth::Accept }
    }

    /// A key whose private half the peer has proved to hold.
    pub async fn key(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Auth {
        self.turn_to(user);
        if self.is_half() || !is_strong(key.algorithm) {
            return self.reject();
        }
        let fingerprint = key.public_key.fingerprint(HashAlg::Sha256).to_string();
        let offered = match &mut self.state {
            State::Nobody { offered } => offered.take(),
            State::Half { .. } | State::Proved(_) => None,
        };
        let offered = offered.filter(|offered| offered.user == user && offered.fingerprint == fingerprint);
        let principal = match offered {
            Some(offered) => Some(offered.principal),
            None => self.find_by_key(user, &fingerprint).await,
        };
        self.proved_first(user, principal, FirstFactor::PublicKey, Some(fingerprint)).await
    }

    /// A user certificate, whose signature and time our library has checked, and the proof of its key.
    pub async fn certificate(&mut self, user: &str, certificate: &Certificate) -> Auth {
        self.turn_to(user);
        if self.is_half() {
            return self.reject();
        }
        let principal = self.find_by_certificate(user, certificate).await;
        self.proved_first(user, principal, FirstFactor::Certificate, None).await
    }

    /// A password (RFC 4252 §8).
    pub async fn password(&mut self, user: &str, password: &str) -> Auth {
        self.turn_to(user);
        if self.is_half() {
            return self.reject();
        }
        self.judge_password(user, PrincipalPassword::new(password)).await
    }

    /// The beginning of a conversation (RFC 4256 §3.1). What is asked depends on what is proved, never on the name, and
    /// costs no look-up.
    pub fn converse(&mut self, user: &str) -> Auth {
        self.turn_to(user);
        match &self.state {
            State::Nobody { .. } => self.ask(Asked::Password, Cow::Borrowed("")),
            State::Half { said, .. } => {
                let said = said.clone();
                self.ask(Asked::Code, said)
            }
            State::Proved(_) => self.reject(),
        }
    }

    /// The answers to what was asked (RFC 4256 §3.4): exactly one.
    pub async fn answered(&mut self, user: &str, mut answers: Response<'_>) -> Auth {
        let asked = self.asked;
        self.turn_to(user);
        let (answer, more) = (answers.next(), answers.next());
        let answer = answer.filter(|_| more.is_none());
        let text = answer.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        match (asked, self.is_half()) {
            (Some(Asked::Password), false) => {
                let judged = self.judge_password(user, PrincipalPassword::new(text)).await;
                // Half-way the conversation goes on to the code, for clients count each conversation as a try.
                if self.is_half() { self.ask(Asked::Code, Cow::Borrowed("")) } else { judged }
            }
            (Some(Asked::Code), true) => self.judge_code(VerificationCode::new(text)).await,
            (None | Some(Asked::Password | Asked::Code), _) => self.reject(),
        }
    }

    /// Takes note of whom the request is for. A proof counts for its own user name only (RFC 4252 §5).
    fn turn_to(&mut self, user: &str) {
        self.asked = None;
        self.claimed = user.chars().take(256).collect();
        if matches!(&self.state, State::Half { user: proved, .. } if proved != user) {
            self.state = State::Nobody { offered: None };
        }
    }

    fn is_half(&self) -> bool {
        matches!(self.state, State::Half { .. })
    }

    fn ask(&mut self, what: Asked, instructions: Cow<'static, str>) -> Auth {
        self.asked = Some(what);
        let prompt = match what {
            Asked::Password => PASSWORD_PROMPT,
            Asked::Code => CODE_PROMPT,
        };
        let prompts = Cow::Owned(vec![(Cow::Borrowed(prompt), false)]);
        Auth::Partial { name: Cow::Borrowed(""), instructions, prompts }
    }

    /// The answer to whatever did not prove anybody: always the same.
    fn reject(&mut self) -> Auth {
        self.tries += 1;
        self.refusal()
    }

    fn refusal(&self) -> Auth {
        Auth::Reject { proceed_with_methods: Some(self.methods()), partial_success: false }
    }

    /// The methods that can go on (RFC 4252 §5.1).
    fn methods(&self) -> MethodSet {
        let all = [MethodKind::PublicKey, MethodKind::Password, MethodKind::KeyboardInteractive];
        let code = [MethodKind::KeyboardInteractive];
        MethodSet::from(if self.is_half() { code.as_slice() } else { all.as_slice() })
    }

    async fn judge_password(&mut self, user: &str, password: PrincipalPassword) -> Auth {
        let name = user.parse::<LoginName>().ok().map(|name| name.principal);
        let found = logins::by_password(&self.door.app, name.as_ref(), password).await;
        let principal = unless_failed(found);
        if principal.is_none() {
            // Each guess counts; of keys a client may hold several, so they count once a connection.
            self.slot.failed(Instant::now());
            return self.reject();
        }
        self.proved_first(user, principal, FirstFactor::Password, None).await
    }

    async fn judge_code(&mut self, code: VerificationCode) -> Auth {
        let State::Half { proof, said, .. } = &mut self.state else {
            return self.reject();
        };
        let app = &self.door.app;
        let answer = match logins::by_totp(app, proof.principal.id, &code, app.clock.now()).await {
            Ok(answer) => answer,
            Err(error) => {
                warn!(%error, "A verification code could not be checked.");
                CodeAnswer::Wrong
            }
        };
        // Whoever reads these has proved to be the person, but for this code.
        *said = match answer {
            CodeAnswer::Right(second) => {
                let proof = proof.clone();
                return self.accept(proof, Some(second));
            }
            CodeAnswer::Wrong => Cow::Borrowed("That code is not right."),
            CodeAnswer::UsedBefore => Cow::Borrowed("That code was used before. Wait for the next one."),
            CodeAnswer::Locked { until } => {
                Cow::Owned(format!("Too many wrong codes. None is taken until {}.", notice::clock_time(until)))
            }
        };
        self.slot.failed(Instant::now());
        self.reject()
    }

    /// What follows a first factor: in, on to the second, or out if it was none.
    async fn proved_first(
        &mut self,
        user: &str,
        principal: Option<Principal>,
        first: FirstFactor,
        fingerprint: Option<String>,
    ) -> Auth {
        let name = user.parse::<LoginName>().ok();
        let (Some(principal), Some(name)) = (principal, name) else {
            return self.reject();
        };
        if name.principal != principal.name {
            return self.reject();
        }
        let asks_for_more = match logins::has_second_factor(&self.door.app, principal.id).await {
            Ok(asks_for_more) => asks_for_more,
            Err(error) => {
                warn!(%error, "It could not be found out whether a person has a second factor, so they are refused.");
                return self.reject();
            }
        };
        let proof = Proof { name, principal, first, fingerprint };
        if !asks_for_more {
            return self.accept(proof, None);
        }
        self.halves += 1;
        if self.halves > self.door.settings.max_auth_tries as usize {
            return self.reject(); // who proves the first factor over and over does not want to get in
        }
        self.state = State::Half { user: user.to_owned(), proof, said: Cow::Borrowed("") };
        Auth::Reject { proceed_with_methods: Some(self.methods()), partial_success: true }
    }

    fn accept(&mut self, proof: Proof, second: Option<SecondFactor>) -> Auth {
        let Proof { name, principal, first, fingerprint } = proof;
        let factors = Factors { first, second };
        if let Some(span) = self.span.take() {
            span.method(factors.as_str());
            span.outcome("accepted");
        }
        self.state = State::Proved(Proved { name, principal, factors, fingerprint });
        Auth::Accept
    }

    async fn find_by_key(&mut self, user: &str, fingerprint: &str) -> Option<Principal> {
        if let Some(door) = self.door.behind_glass().await {
            self.door = door;
        }
        let name = user.parse::<LoginName>().ok()?;
        unless_failed(logins::by_key(&self.door.app, &name.principal, fingerprint).await)
    }

    /// Whether a certificate, whose signature and time our library has checked, proves the person it is shown for.
    async fn find_by_certificate(&self, user: &str, certificate: &Certificate) -> Option<Principal> {
        let name = user.parse::<LoginName>().ok()?;
        let trusted = self.door.trusted_cas.iter().any(|ca| ca.key_data() == certificate.signature_key());
        let named = certificate.valid_principals().iter().any(|principal| principal == name.principal.as_str());
        let welcome = certificate.critical_options().iter().all(|(option, value)| {
            // Options that we do not know must be refused (PROTOCOL.certkeys). "force-command" is one of them.
            option == "source-address" && admits(value, self.peer)
        });
        if !(trusted && named && welcome && certificate.cert_type() == CertType::User) {
            return None;
        }
        unless_failed(logins::by_authority(&self.door.app, &name.principal).await)
    }
}

/// Turns a failure to look somebody up into a rejection: who cannot be checked does not get in.
fn unless_failed(found: Result<Option<Principal>, LoginError>) -> Option<Principal> {
    found.unwrap_or_else(|error| {
        warn!(%error, "A login could not be checked.");
        None
    })
}

/// Whether a certificate's "source-address" list names the peer's address.
fn admits(list: &str, peer: SocketAddr) -> bool {
    let address = peer.ip().to_canonical();
    list.split(',').any(|network| match network.trim().parse::<IpNet>() {
        Ok(network) => network.contains(&address),
        Err(_) => network.trim().parse() == Ok(address),
    })
}

/// Whether keys may prove somebody by this signature algorithm: RSA with SHA-1 may not.
fn is_strong(algorithm: &Algorithm) -> bool {
    !matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa)
}

impl Drop for Authentication {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            span.outcome(match &self.state {
                State::Nobody { .. } if self.tries == 0 => "not_tried",
                State::Nobody { .. } => "refused",
                State::Half { .. } => "second_factor_missing",
                State::Proved(_) => "accepted",
            });
        }
        let method = match &self.state {
            // A port scan, or a client that only looked.
            State::Nobody { .. } if self.tries == 0 => return,
            State::Proved(_) => return,
            State::Nobody { .. } => "ssh".to_owned(),
            // Worth a note even without a try: somebody has the person's first factor.
            State::Half { proof, .. } => {
                let first = Factors { first: proof.first, second: None };
                format!("{} without the second factor", first.as_str())
            }
        };
        if self.tries > 0 {
            self.slot.failed(Instant::now());
        }
        let (door, peer, claimed, tries) =
            (self.door.clone(), self.peer, std::mem::take(&mut self.claimed), self.tries);
        info!(tries, "A connection ended without anybody being proved.");
        let note = async move {
            if let Err(error) = logins::note_refusal(&door.app, peer, &claimed, &method).await {
                warn!(%error, "A refused login could not be written down.");
            }
        };
        self.door.connections.spawn(note.in_current_span());
    }
}
