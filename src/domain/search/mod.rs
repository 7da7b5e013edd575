//! Search over what sessions showed: what is looked for ([`query`]), the lines in which it is ([`lines`]), and the keys under which
//! an index finds those lines ([`grams`]). Pure; where lines are kept is the store's.

pub mod grams;
pub mod lines;
pub mod query;

/// What a line is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// What was run.
    Command,
    /// What a program printed.
    Screen,
    /// What was done to a file.
    File,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Command, Kind::Screen, Kind::File];

    /// The word in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Command => "command",
            Kind::Screen => "screen",
            Kind::File => "file",
        }
    }
}
