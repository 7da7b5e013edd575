//! What is told to the outside: which events, how much of them, in which form. Pure; who delivers it, and when, is for others.
//!
//! - [`record`]: what is sent of an event or a command.
//! - [`detail`]: how much of a command or a path is told.
//! - [`topics`]: which events are chosen.
//! - [`line`]: InfluxDB's line protocol, as DataKit and DataWay take it.
//! - [`words`]: an event in one sentence, for people.
//!
//! What was printed in a session is in none of them: an event does not hold it.

pub mod detail;
pub mod line;
pub mod record;
pub mod topics;
pub mod words;
