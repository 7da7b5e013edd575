//! Secrets: values that must not show in logs, debug output or an API answer.
//!
//! Each is its own type around [`SecretString`] or [`SecretSlice`]: no `Clone`, no `Serialize`, and a
//! `Debug` that tells nothing. Reading one takes a call to `expose`, which a reviewer can search for.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

macro_rules! secrets {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        pub struct $name(SecretString);

        impl $name {
            /// Takes the secret's text; the memory is cleared when the value is dropped.
            pub fn new(text: impl Into<String>) -> Self {
                Self(SecretString::from(text.into()))
            }

            /// The secret itself. Keep the borrow short and never format it.
            pub fn expose(&self) -> &str {
                self.0.expose_secret()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}

secrets! {
    /// What a person types to log in; stored as an argon2id hash only.
    PrincipalPassword;
    /// What the bastion logs in to a target with; stored sealed.
    TargetPassword;
    /// A private key in OpenSSH's text form; stored sealed.
    PrivateKeyText;
    /// A bearer token of the API; stored as a SHA-256 hash only.
    ApiToken;
    /// What the cookie of the web app holds; stored as a SHA-256 hash only.
    WebToken;
    /// What an invite's link holds; stored as a SHA-256 hash only.
    InviteToken;
    /// What a person types as a second factor: a code of RFC 6238, or a recovery code.
    VerificationCode;
    /// The secret of RFC 6238 that an authenticator shares with us, in base 32; stored sealed.
    TotpSecret;
    /// Opens the second factor once, in place of a code; stored as a SHA-256 hash only.
    RecoveryCode;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_shows_itself_in_debug_output() {
        let secret = TargetPassword::new("hunter2");
        assert_eq!(format!("{secret:?}"), "TargetPassword(…)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
