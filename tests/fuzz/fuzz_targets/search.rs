//! What somebody looks for and the lines in which it is: nothing panics, lines are plain and bounded, and a line in which a query is found
//! has all keys of the query. Input: the query up to the first line feed, then what was printed.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use sallyport_domain::search::grams::{fold, of_line};
use sallyport_domain::search::lines::{LONGEST, LineReader};
use sallyport_domain::search::query::Query;

fuzz_target!(|data: &str| {
    let (query, printed) = data.split_once('\n').unwrap_or((data, ""));
    let (mut reader, mut lines) = (LineReader::default(), Vec::new());
    reader.push(0, printed, &mut lines);
    reader.finish(&mut lines);
    let query = query.parse::<Query>().ok();
    for line in lines {
        assert!(!line.text.chars().any(char::is_control) && line.text.chars().count() <= LONGEST);
        if query.as_ref().is_some_and(|query| query.find(&line.text).is_some()) {
            let mut keys = BTreeSet::new();
            of_line(&fold(&line.text), &mut keys);
            assert!(query.as_ref().is_some_and(|query| query.keys().iter().all(|key| keys.contains(key))));
        }
    }
});
