//! Schemas of words that the domain defines, so that the `OpenAPI` document lists them. The domain knows no `OpenAPI`.

use sallyport_domain::grant::{Approval, ForwardFrom};
use sallyport_domain::principal::Role;
use sallyport_domain::review::Verdict;
use sallyport_domain::review::risk::Sign;
use sallyport_domain::target::{CredentialKind, HostKeyTrust};
use utoipa::openapi::schema::{Array, Object, ObjectBuilder, Type};

fn words<'a>(description: &str, words: impl IntoIterator<Item = &'a str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description)).enum_values(Some(words)).build()
}

pub(super) fn roles() -> Array {
    Array::new(words("the part a person plays", Role::ALL.map(Role::as_str)))
}

pub(super) fn approval() -> Object {
    words("whose yes each session takes besides the grant's", Approval::ALL.map(Approval::as_str))
}

pub(super) fn forward_from() -> Object {
    words("who dials a forward's destination", ForwardFrom::ALL.map(ForwardFrom::as_str))
}

pub(super) fn verdict() -> Object {
    words("what a reviewer says of a session, the gravest last", Verdict::ALL.map(Verdict::as_str))
}

pub(super) fn sign() -> Object {
    words("what speaks for a longer look", Sign::ALL.map(Sign::as_str))
}

pub(super) fn credential() -> Object {
    let kinds = [CredentialKind::Certificate, CredentialKind::Key, CredentialKind::Password];
    words("what the bastion proves itself with at the target", kinds.map(CredentialKind::as_str))
}

pub(super) fn host_key_trust() -> Object {
    let word = |trust: HostKeyTrust| match trust {
        HostKeyTrust::Host => "host",
        HostKeyTrust::Authority => "authority",
    };
    words(
        "the host's own key, or an authority's that signs it",
        [HostKeyTrust::Host, HostKeyTrust::Authority].map(word),
    )
}
