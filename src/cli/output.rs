//! What commands print: data on standard output as a table, JSON, JSON lines or CSV; talk on standard error.
//!
//! JSON is the API's JSON, so that what a script learned from one holds for the other. Tables and talk are for people:
//! control characters in them, which may come from a hostile peer, are shown and never sent to the terminal.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::failure::Failure;
use crate::api::page::Page;

/// The forms of output. Its arms have no doc comments: clap would make paragraphs of them, and spread every command's
/// help over pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    // Aligned columns for people.
    #[default]
    Table,
    // The API's JSON, indented.
    Json,
    // One JSON object on each line.
    Jsonl,
    // Comma-separated values with a header (RFC 4180).
    Csv,
}

/// A column of a list: its title, and its text for an item.
pub(crate) struct Column<T> {
    title: &'static str,
    text: fn(&T) -> String,
}

/// A column of a list.
pub(crate) const fn column<T>(title: &'static str, text: fn(&T) -> String) -> Column<T> {
    Column { title, text }
}

/// Prints a list.
pub(crate) fn list<T: Serialize>(format: Format, page: &Page<T>, columns: &[Column<T>]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match format {
        Format::Table => {
            if page.items.is_empty() {
                note("nothing to show");
                return Ok(());
            }
            out.write_all(table(&page.items, columns).as_bytes())?;
        }
        Format::Json => json(&mut out, page)?,
        Format::Jsonl => {
            for item in &page.items {
                json_line(&mut out, item)?;
            }
        }
        Format::Csv => {
            let titles = columns.iter().map(|column| column.title.to_ascii_lowercase().replace(' ', "_"));
            csv_line(&mut out, titles)?;
            for item in &page.items {
                csv_line(&mut out, columns.iter().map(|column| (column.text)(item)))?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// Prints one thing: for people as the lines of `rows` (a title and a text each).
pub(crate) fn one<T: Serialize>(format: Format, item: &T, rows: &[(&str, String)]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match format {
        Format::Table => {
            let width = rows.iter().map(|(title, _)| title.len()).max().unwrap_or(0);
            for (title, text) in rows {
                for (number, line) in text.split('\n').enumerate() {
                    let title = if number == 0 { *title } else { "" };
                    writeln!(out, "{title:width$}  {}", printable(line))?;
                }
            }
        }
        Format::Json => json(&mut out, item)?,
        Format::Jsonl => json_line(&mut out, item)?,
        Format::Csv => {
            csv_line(&mut out, rows.iter().map(|(title, _)| title.to_ascii_lowercase().replace(' ', "_")))?;
            csv_line(&mut out, rows.iter().map(|(_, text)| text.clone()))?;
        }
    }
    out.flush()?;
    Ok(())
}

/// Prints text that is data: a key, a script.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// Prints one line of data for people; control characters are shown, never sent.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    self::text(&printable(text))
}

/// Tells a person something, on standard error. That nobody reads it is no failure.
pub(crate) fn note(text: impl AsRef<str>) {
    let mut error = io::stderr().lock();
    for line in text.as_ref().split('\n') {
        if writeln!(error, "{}", printable(line)).is_err() {
            return;
        }
    }
}

fn table<T>(items: &[T], columns: &[Column<T>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // On a terminal long cells wrap at its width; in a file or a pipe each item keeps to its line.
    let arrangement =
        if io::stdout().is_terminal() { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement);
    table.set_header(columns.iter().map(|column| column.title.to_uppercase()));
    for item in items {
        table.add_row(columns.iter().map(|column| {
            let text = printable(&(column.text)(item));
            if text.is_empty() { "-".to_owned() } else { text }
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn json<T: Serialize>(out: &mut impl Write, value: &T) -> Result<(), Failure> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

fn json_line<T: Serialize>(out: &mut impl Write, value: &T) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

fn csv_line(out: &mut impl Write, fields: impl Iterator<Item = String>) -> Result<(), Failure> {
    let line: Vec<String> = fields.map(|field| csv_field(&field)).collect();
    out.write_all(line.join(",").as_bytes())?;
    out.write_all(b"\r\n")?; // RFC 4180 §2
    Ok(())
}

fn csv_field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// The text with what would steer a terminal, or turn the order of reading, shown instead of sent.
pub(crate) fn printable(text: &str) -> String {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if steers(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_the_terminal_is_shown_instead() {
        assert_eq!(printable("a\x1b[2Jb\r\nc\u{202e}d"), "a\\u{1b}[2Jb\\r\\nc\\u{202e}d");
        assert_eq!(printable("größe 中文"), "größe 中文");
    }

    #[test]
    fn a_field_of_csv_is_quoted_when_it_must_be() {
        assert_eq!(csv_field("plain"), "plain");
        assert_eq!(csv_field("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
    }

    #[test]
    fn a_table_has_aligned_columns_and_no_boxes() {
        let columns = [column("Name", |n: &u32| format!("n{n}")), column("Twice", |n: &u32| (n * 2).to_string())];

        let text = table(&[1, 100], &columns);

        assert_eq!(text, "NAME  TWICE\nn1    2\nn100  200\n");
    }
}
