//! Private keys (age) of the client's. They are read here, on the computer of whoever has them, and go nowhere.

use std::path::Path;

use secrecy::zeroize::Zeroize as _;

use super::failure::{Failure, FailureKind};
use super::prompt;
use crate::app::recordings::encryption::Identities;

/// Reads an identity file. `-` is standard input.
pub(super) fn read(path: &Path) -> Result<Identities, Failure> {
    let mut text = prompt::whole_file(path)?;
    let read = Identities::parse(&text);
    text.zeroize();
    read.map_err(|why| {
        let text = format!("`{}` is no file of private keys of age: {why}", path.display());
        Failure::text(FailureKind::Usage, text).hint("`age-keygen` makes one")
    })
}
