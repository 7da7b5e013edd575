//! InfluxDB's line protocol, in the form that DataKit and DataWay take for logs:
//!
//! ```text
//! measurement,tag=value,tag=value field="text",field=42i,field=T 1795306000000000000
//! ```
//!
//! Source: InfluxDB 1.x "Line protocol reference", DataKit's documentation of `/v1/write/:category`. A measurement has `,` and
//! blank escaped; keys and values of tags and keys of fields `,`, `=` and blank; text in a field `"` and `\`. Readers differ in
//! what a backslash before anything else means in a tag, and a line feed ends a line there: both are replaced.
//!
//! DataKit's limits: a key has at most 256 bytes, a value of a tag 1024; one key is a tag or a field, not both; a `.` in a key
//! becomes `_`, here already.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

/// The longest key, and the longest value of a tag, in bytes.
const MOST_KEY: usize = 256;
const MOST_TAG: usize = 1024;

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    Text(String),
    Integer(i64),
    Truth(bool),
}

/// One point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub measurement: String,
    /// One that is empty is left out: the protocol has no such tag.
    pub tags: BTreeMap<String, String>,
    /// At least one. One whose key is a tag's is left out, and so is a second one of a key.
    pub fields: Vec<(String, Field)>,
    /// Written in nanoseconds.
    pub at: DateTime<Utc>,
}

impl Line {
    /// Writes the point and its line feed to the end of `text`.
    pub fn write_to(&self, text: &mut String) {
        escape(text, &plain(&self.measurement, MOST_TAG), ", ");
        let mut keys = BTreeSet::new();
        for (key, value) in &self.tags {
            let (key, value) = (self::key(key), plain(value, MOST_TAG));
            if value.is_empty() || !keys.insert(key.clone()) {
                continue;
            }
            text.push(',');
            escape(text, &key, ",= ");
            text.push('=');
            escape(text, &value, ",= ");
        }
        let mut separator = ' ';
        for (key, value) in &self.fields {
            let key = self::key(key);
            if !keys.insert(key.clone()) {
                continue;
            }
            text.push(std::mem::replace(&mut separator, ','));
            escape(text, &key, ",= ");
            text.push('=');
            match value {
                Field::Text(value) => {
                    text.push('"');
                    escape(text, value, "\"\\");
                    text.push('"');
                }
                Field::Integer(value) => text.push_str(&format!("{value}i")),
                Field::Truth(value) => text.push(if *value { 'T' } else { 'F' }),
            }
        }
        // Years up to 2262 have nanoseconds; what is beyond is written as the last of them.
        let nanoseconds = self.at.timestamp_nanos_opt().unwrap_or(i64::MAX);
        text.push_str(&format!(" {nanoseconds}\n"));
    }
}

/// A key as the protocol can hold it.
fn key(key: &str) -> String {
    let key = plain(key, MOST_KEY).replace('.', "_");
    if key.is_empty() { "_".to_owned() } else { key }
}

/// Without what ends a line or may escape what follows, and short enough.
fn plain(text: &str, most_bytes: usize) -> String {
    let mut plain = String::new();
    for character in text.chars() {
        let character = match character {
            '\\' => '/',
            control if control.is_control() => ' ',
            other => other,
        };
        if plain.len() + character.len_utf8() > most_bytes {
            break;
        }
        plain.push(character);
    }
    plain
}

fn escape(text: &mut String, what: &str, special: &str) {
    for character in what.chars() {
        if special.contains(character) {
            text.push('\\');
        }
        text.push(character);
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    /// What [`read`] gives back of one point.
    #[derive(Debug, PartialEq)]
    struct Read {
        measurement: String,
        tags: Vec<(String, String)>,
        fields: Vec<(String, Field)>,
        nanoseconds: i64,
    }

    /// Takes characters up to one of `ends` that is not escaped; `\` escapes what is in `special`, and is itself before
    /// anything else.
    fn word(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, special: &str, ends: &str) -> String {
        let mut word = String::new();
        while let Some(&character) = rest.peek() {
            if ends.contains(character) {
                break;
            }
            rest.next();
            match (character, rest.peek()) {
                ('\\', Some(&next)) if special.contains(next) => word.push(rest.next().unwrap()),
                _ => word.push(character),
            }
        }
        word
    }

    /// A reader of its own, after the reference's text and not after the writer above.
    fn read(line: &str) -> Read {
        let mut rest = line.chars().peekable();
        let measurement = word(&mut rest, ", ", ", ");
        let mut tags = Vec::new();
        while rest.next_if_eq(&',').is_some() {
            let key = word(&mut rest, ",= ", ",= ");
            assert_eq!(rest.next(), Some('='), "{line:?}");
            tags.push((key, word(&mut rest, ",= ", ",= ")));
        }
        assert_eq!(rest.next(), Some(' '), "{line:?}");
        let mut fields = Vec::new();
        loop {
            let key = word(&mut rest, ",= ", ",= ");
            assert_eq!(rest.next(), Some('='), "{line:?}");
            let value = if rest.next_if_eq(&'"').is_some() {
                let text = word(&mut rest, "\"\\", "\"");
                assert_eq!(rest.next(), Some('"'), "{line:?}");
                Field::Text(text)
            } else {
                match word(&mut rest, "", ", ").as_str() {
                    "T" => Field::Truth(true),
                    "F" => Field::Truth(false),
                    number => Field::Integer(number.strip_suffix('i').unwrap().parse().unwrap()),
                }
            };
            fields.push((key, value));
            if rest.next_if_eq(&',').is_none() {
                break;
            }
        }
        assert_eq!(rest.next(), Some(' '), "{line:?}");
        let end: String = rest.collect();
        let nanoseconds = end.strip_suffix('\n').unwrap().parse().unwrap();
        Read { measurement, tags, fields, nanoseconds }
    }

    fn any_field() -> impl Strategy<Value = Field> {
        prop_oneof![
            any::<String>().prop_map(Field::Text),
            r#"["\\, =\n\r]{0,8}"#.prop_map(Field::Text),
            any::<i64>().prop_map(Field::Integer),
            any::<bool>().prop_map(Field::Truth),
        ]
    }

    fn any_word() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), r#"[a-z"\\, =\n.]{1,12}"#]
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_one_line_that_an_independent_reader_reads_as_it_was(
            measurement in "[a-z ,=\"]{1,20}",
            tags in prop::collection::btree_map("[a-z ,=\"]{1,9}", "[a-z界 ,=\"]{1,20}", 0..4),
            field in any_field(),
            name in "[A-Z][A-Z, =\"]{0,8}",
            micros in 0..4_000_000_000_000_000_i64,
        ) {
            let at = DateTime::UNIX_EPOCH + TimeDelta::microseconds(micros);
            let fields = vec![(name, field)];
            let line = Line { measurement: measurement.clone(), tags: tags.clone(), fields: fields.clone(), at };

            let mut text = String::new();
            line.write_to(&mut text);

            let expected = Read { measurement, tags: tags.into_iter().collect(), fields, nanoseconds: micros * 1000 };
            prop_assert_eq!(read(&text), expected);
        }

        #[test]
        fn hostile_keys_and_tags_never_end_the_line_or_reach_into_another_part(
            tags in prop::collection::btree_map(any_word(), any_word(), 0..4),
            fields in prop::collection::vec((any_word(), any_field()), 0..4),
        ) {
            let mut fields = fields;
            fields.insert(0, ("MESSAGE".to_owned(), Field::Integer(1)));
            let line = Line { measurement: "m".to_owned(), tags, fields, at: DateTime::UNIX_EPOCH };

            let mut text = String::new();
            line.write_to(&mut text);

            let read = read(&text);
            let in_text = |field: &(String, Field)| matches!(&field.1, Field::Text(text) if text.contains('\n'));
            prop_assert!(read.fields.iter().any(in_text) || text.lines().count() == 1);
            prop_assert_eq!(read.nanoseconds, 0);
            let mut keys: Vec<&String> = read.tags.iter().map(|(key, _)| key).collect();
            keys.extend(read.fields.iter().map(|(key, _)| key));
            let all = keys.len();
            keys.sort();
            keys.dedup();
            prop_assert_eq!(keys.len(), all, "a key is there once");
            prop_assert!(keys.iter().all(|key| key.len() <= 256 && !key.is_empty() && !key.contains('.')));
        }
    }

    #[test]
    fn a_point_looks_as_datakit_documents_it() {
        let line = Line {
            measurement: "bastion_audit".to_owned(),
            tags: [("event".to_owned(), "command".to_owned()), ("client".to_owned(), "a, b=c".to_owned())].into(),
            fields: vec![
                ("status".to_owned(), Field::Text("info".to_owned())),
                ("seq".to_owned(), Field::Integer(1843)),
                ("allowed".to_owned(), Field::Truth(true)),
                ("message".to_owned(), Field::Text("say \"hi\" \\o/".to_owned())),
                ("event".to_owned(), Field::Text("a tag has this key".to_owned())),
            ],
            at: DateTime::UNIX_EPOCH + TimeDelta::nanoseconds(1_795_370_541_233_000_000),
        };
        let mut text = String::new();
        line.write_to(&mut text);
        assert_eq!(
            text,
            "bastion_audit,client=a\\,\\ b\\=c,event=command status=\"info\",seq=1843i,allowed=T,message=\"say \\\"hi\\\" \\\\o/\" 1795370541233000000\n"
        );
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(plain(&"界".repeat(400), MOST_TAG).len(), 1023);
    }
}
