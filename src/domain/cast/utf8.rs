//! UTF-8 that comes in packets: a character cut by a packet's end waits for the next packet of its stream.

use std::borrow::Cow;

/// What is held of one stream: at most three bytes, the start of a character.
#[derive(Debug, Clone, Default)]
pub struct Utf8 {
    held: Vec<u8>,
}

/// A piece of a stream as text.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The bytes as they came, whatever was held before them included.
    pub bytes: Cow<'a, [u8]>,
    /// Them as text, with U+FFFD for what is not UTF-8.
    pub text: Cow<'a, str>,
    /// Whether `text` is `bytes`, or lost some.
    pub is_exact: bool,
}

impl<'a> Piece<'a> {
    fn new(bytes: Cow<'a, [u8]>) -> Self {
        let is_exact = std::str::from_utf8(&bytes).is_ok();
        let text = match &bytes {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(bytes).into_owned()),
        };
        Self { bytes, text, is_exact }
    }
}

impl Utf8 {
    /// Takes the next packet; `None` if there is nothing to show yet.
    pub fn push<'a>(&mut self, packet: &'a [u8]) -> Option<Piece<'a>> {
        let mut bytes = Cow::Borrowed(packet);
        if !self.held.is_empty() {
            let mut joined = std::mem::take(&mut self.held);
            joined.extend_from_slice(packet);
            bytes = Cow::Owned(joined);
        }
        let whole = bytes.len() - incomplete_tail(&bytes).len();
        self.held = bytes[whole..].to_vec();
        let bytes = match bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[..whole]),
            Cow::Owned(mut bytes) => {
                bytes.truncate(whole);
                Cow::Owned(bytes)
            }
        };
        (!bytes.is_empty()).then(|| Piece::new(bytes))
    }

    /// The stream ended: what is held will not become a character.
    pub fn finish(&mut self) -> Option<Piece<'static>> {
        (!self.held.is_empty()).then(|| Piece::new(Cow::Owned(std::mem::take(&mut self.held))))
    }
}

/// The start of a character at the end of `bytes`, which may yet become whole; at most three bytes.
pub fn incomplete_tail(bytes: &[u8]) -> &[u8] {
    for length in (1..=3.min(bytes.len())).rev() {
        let (_, tail) = bytes.split_at(bytes.len() - length);
        if let Err(error) = std::str::from_utf8(tail)
            && error.valid_up_to() == 0
            && error.error_len().is_none()
        {
            return tail;
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_character_cut_in_two_waits_for_its_rest() {
        let mut stream = Utf8::default();
        assert_eq!(
            stream.push("a界".as_bytes().split_at(2).0).map(|piece| piece.text.into_owned()),
            Some("a".to_owned())
        );
        assert_eq!(stream.push(&"a界".as_bytes()[2..3]), None);
        assert_eq!(stream.push(&"a界b".as_bytes()[3..]).map(|piece| piece.text.into_owned()), Some("界b".to_owned()));
        assert_eq!(stream.finish(), None);
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_its_bytes_stay_and_its_text_is_the_same(
            text in "\\PC{0,20}", noise in prop::collection::vec(any::<u8>(), 0..6), cuts in prop::collection::vec(0_usize..60, 0..6),
        ) {
            let bytes = [text.as_bytes(), &noise, text.as_bytes()].concat();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let (mut stream, mut found, mut shown) = (Utf8::default(), Vec::new(), String::new());
            for cut in cuts.windows(2) {
                if let Some(piece) = stream.push(&bytes[cut[0]..cut[1]]) {
                    prop_assert_eq!(piece.is_exact, piece.text.as_bytes() == piece.bytes.as_ref());
                    found.extend_from_slice(&piece.bytes);
                    shown.push_str(&piece.text);
                }
            }
            if let Some(piece) = stream.finish() {
                found.extend_from_slice(&piece.bytes);
                shown.push_str(&piece.text);
            }
            prop_assert_eq!(shown, String::from_utf8_lossy(&bytes));
            prop_assert_eq!(found, bytes);
        }
    }
}
