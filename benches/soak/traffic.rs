//! What goes over the wire: both ends compute it, so that every byte is compared and none is kept.

/// A line of a flood, its end included.
const LINE: usize = 80;

/// Bytes `from..from + count` of the endless flood: lines that begin with their number.
pub(crate) fn flood(from: u64, count: usize) -> Vec<u8> {
    let line = LINE as u64;
    let (first, skipped) = (from / line, (from % line) as usize);
    let lines = first..first + (skipped + count).div_ceil(LINE) as u64;
    let text: String =
        lines.map(|number| format!("{number:010} {}\r\n", "flood ".repeat(12).get(..67).unwrap())).collect();
    text.as_bytes()[skipped..skipped + count].to_vec()
}

/// The content of the `file`th file that session `number` uploads.
pub(crate) fn content(number: usize, file: usize, bytes: usize) -> Vec<u8> {
    let head = format!("{number:06} {file:06} ");
    head.as_bytes().iter().copied().cycle().take(bytes).collect()
}

/// What that file is called.
pub(crate) fn file_name(number: usize, file: usize) -> String {
    format!("soak-{number}-{file}")
}

/// The session and file of a name.
pub(crate) fn parse_file_name(name: &str) -> Option<(usize, usize)> {
    let (number, file) = name.strip_prefix("soak-")?.split_once('-')?;
    Some((number.parse().ok()?, file.parse().ok()?))
}
