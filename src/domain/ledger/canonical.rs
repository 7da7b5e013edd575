//! Canonical bytes: what is hashed and signed has exactly one spelling, and anybody can write it again.
//!
//! ```text
//! bytes = prefix JSON          prefix: what it is, the version and a line feed: "sallyport-event-v1\n"
//! ```
//!
//! The JSON is that of RFC 8785 (JCS): no white space, members sorted by name, strings escaped as little as can be. It
//! has integers only, written out in full; floating-point numbers, which are the difficult part of RFC 8785, do not
//! occur. In Python: `json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)`.
//!
//! The prefix keeps kinds apart: bytes of one kind are never bytes of another.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Number, Value};

/// A kind of canonical bytes.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// What its bytes start with.
    pub prefix: &'static str,
    /// The most bytes that are read or written, the prefix included: read as JSON they take some 30 times the memory.
    pub most_bytes: usize,
}

/// Why bytes are not canonical, or a value has no canonical bytes.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    #[error("the bytes do not start with `{}`", expected.trim_end())]
    Prefix { expected: &'static str },
    #[error("{bytes} bytes are more than the {most} that are read")]
    TooLong { bytes: usize, most: usize },
    #[error("the JSON cannot be read")]
    Json(#[source] serde_json::Error),
    #[error("the number {number} is not an integer of 64 bits")]
    Number { number: Number },
    /// Other white space, another order, another spelling of the same value, or a member that is not known here.
    #[error("the bytes are not the canonical ones of what they say; the first difference is at byte {at}")]
    Spelling { at: usize },
}

impl Kind {
    fn check_length(self, bytes: &[u8]) -> Result<(), CanonicalError> {
        let (bytes, most) = (bytes.len(), self.most_bytes);
        if bytes > most { Err(CanonicalError::TooLong { bytes, most }) } else { Ok(()) }
    }
}

/// The canonical bytes of `value`. An error means that its type has a number or a key that JSON has not.
pub fn encode<T: Serialize>(kind: Kind, value: &T) -> Result<Vec<u8>, CanonicalError> {
    let value = serde_json::to_value(value).map_err(CanonicalError::Json)?;
    let mut bytes = kind.prefix.as_bytes().to_vec();
    write(&value, &mut bytes)?;
    kind.check_length(&bytes)?;
    Ok(bytes)
}

/// Reads canonical bytes as a value, whatever its type: the check that a reader can make who does not know all members.
pub fn check(kind: Kind, bytes: &[u8]) -> Result<Value, CanonicalError> {
    let value: Value = parse(kind, bytes)?;
    same(bytes, &encode(kind, &value)?)?;
    Ok(value)
}

/// Reads canonical bytes. What is accepted encodes to the very same bytes: so members that `T` does not know are
/// refused, as are defaults that are written out where `T` leaves them out.
pub fn decode<T: Serialize + DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, CanonicalError> {
    let value: T = parse(kind, bytes)?;
    same(bytes, &encode(kind, &value)?)?;
    Ok(value)
}

fn parse<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, CanonicalError> {
    kind.check_length(bytes)?;
    let expected = kind.prefix;
    let json = bytes.strip_prefix(expected.as_bytes()).ok_or(CanonicalError::Prefix { expected })?;
    serde_json::from_slice(json).map_err(CanonicalError::Json)
}

fn same(given: &[u8], canonical: &[u8]) -> Result<(), CanonicalError> {
    if given == canonical {
        return Ok(());
    }
    let at = given.iter().zip(canonical).take_while(|(given, canonical)| given == canonical).count();
    Err(CanonicalError::Spelling { at })
}

/// RFC 8785 §3.2. The depth is bounded: values are parsed, or made from types of ours.
fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(truth) => out.extend_from_slice(if *truth { b"true" } else { b"false" }),
        Value::Number(number) if number.is_u64() || number.is_i64() => {
            out.extend_from_slice(number.to_string().as_bytes());
        }
        Value::Number(number) => return Err(CanonicalError::Number { number: number.clone() }),
        Value::String(text) => write_string(text, out)?,
        Value::Array(values) => {
            out.push(b'[');
            for (place, value) in values.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write(value, out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            // serde_json sorts by UTF-8, or not at all, depending on features that other packages may switch on.
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push(b'{');
            for (place, (name, value)) in members.into_iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write_string(name, out)?;
                out.push(b':');
                write(value, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// `serde_json` escapes exactly what RFC 8785 §3.2.2.2 wants, and as it wants it; a test holds it to that.
fn write_string(text: &str, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    serde_json::to_writer(out, text).map_err(CanonicalError::Json)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const TEST: Kind = kind("test-v1\n");
    const BARE: Kind = kind("");

    const fn kind(prefix: &'static str) -> Kind {
        Kind { prefix, most_bytes: 1 << 20 }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn written(value: &Value) -> String {
        String::from_utf8(encode(BARE, value).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn every_value_reads_back_from_its_canonical_bytes(value in any_value()) {
            let bytes = encode(TEST, &value).unwrap();
            prop_assert_eq!(check(TEST, &bytes).unwrap(), value);
        }

        #[test]
        fn whatever_is_accepted_is_spelt_in_the_one_way(
            value in any_value(), place: prop::sample::Index, byte: u8, insert: bool,
        ) {
            let mut bytes = encode(TEST, &value).unwrap();
            let place = place.index(bytes.len());
            if insert { bytes.insert(place, byte) } else { bytes[place] = byte }
            if let Ok(value) = check(TEST, &bytes) {
                prop_assert_eq!(encode(TEST, &value).unwrap(), bytes);
            }
        }

        #[test]
        fn hostile_bytes_give_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(BARE, &bytes);
        }
    }

    #[test]
    fn the_example_of_the_rfc_comes_out_as_there() {
        // RFC 8785 §3.2.2 and §3.2.3, without the numbers that are not integers.
        let value = json!({ "string": "€$\u{f}\nA'B\"\\\\\"/", "literals": [null, true, false], "numbers": [0, -5] });
        let expected = r#"{"literals":[null,true,false],"numbers":[0,-5],"string":"€$\u000f\nA'B\"\\\\\"/"}"#;
        assert_eq!(written(&value), expected);

        let value = json!({ "€": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "😀": 5, "\u{80}": 6, "ö": 7 });
        assert_eq!(written(&value), "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\u{fb33}\":3}");
    }

    #[test]
    fn control_characters_are_escaped_as_the_rfc_wants_it_and_nothing_else_is() {
        let value = json!("\u{0}\u{8}\t\n\u{b}\u{c}\r\u{1f}\u{7f}\u{2028}</é");
        assert_eq!(written(&value), "\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\u{7f}\u{2028}</é\"");
    }

    #[test]
    fn other_spellings_of_the_same_value_are_refused() {
        for (text, at) in [
            (r#"{"a":1,"b":2} "#, 13),
            (r#"{"a":1, "b":2}"#, 7),
            (r#"{"b":2,"a":1}"#, 2),
            (r#"{"a":1,"a":1}"#, 6),
            (r#""\u0061""#, 1),
            (r#""\/""#, 1),
        ] {
            let error = check(BARE, text.as_bytes()).unwrap_err();
            assert!(matches!(error, CanonicalError::Spelling { at: found } if found == at), "{text}: {error:?}");
        }
        for text in ["1.0", "-0", "1e3", "18446744073709551616", "0.5"] {
            assert!(matches!(check(BARE, text.as_bytes()), Err(CanonicalError::Number { .. })), "{text}");
        }
        assert!(matches!(check(BARE, b"01"), Err(CanonicalError::Json(_))));
    }

    #[test]
    fn bytes_of_one_kind_are_not_bytes_of_another() {
        let bytes = encode(kind("sallyport-a-v1\n"), &json!(1)).unwrap();
        let error = check(kind("sallyport-b-v1\n"), &bytes).unwrap_err();
        assert_eq!(error.to_string(), "the bytes do not start with `sallyport-b-v1`");
    }

    #[test]
    fn what_is_too_long_is_neither_written_nor_read() {
        let small = Kind { prefix: "", most_bytes: 4 };
        assert!(encode(small, &json!("ab")).is_ok());
        assert!(matches!(encode(small, &json!("abc")), Err(CanonicalError::TooLong { bytes: 5, most: 4 })));
        assert!(matches!(check(small, b"\"abc\""), Err(CanonicalError::TooLong { bytes: 5, most: 4 })));
    }
}
