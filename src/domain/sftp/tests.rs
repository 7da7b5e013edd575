//! What a gate does, told by packets.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::files::{Digest, Direction, FileAct, FileDenial, FileOperation, FilePath, FileResult, FileRules};
use crate::grant::Capabilities;
use crate::recording::segment::Hash;

fn terms(upload: bool, download: bool, rules: &str) -> FileTerms {
    let capabilities = Capabilities { upload, download, ..Capabilities::default() };
    FileTerms::new(&capabilities, serde_json::from_str::<FileRules>(rules).unwrap())
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn packet(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
    let body = fields.concat();
    [&(body.len() as u32 + 1).to_be_bytes(), [kind].as_slice(), &body].concat()
}

fn request(kind: u8, id: u32, fields: &[&[u8]]) -> Vec<u8> {
    packet(kind, &[id.to_be_bytes().as_slice(), &fields.concat()])
}

fn open_file(id: u32, path: &str, flags: u32) -> Vec<u8> {
    request(3, id, &[&string(path.as_bytes()), &flags.to_be_bytes(), &[0; 4]])
}

fn write(id: u32, handle: &[u8], offset: u64, content: &[u8]) -> Vec<u8> {
    request(6, id, &[&string(handle), &offset.to_be_bytes(), &string(content)])
}

fn read(id: u32, handle: &[u8], offset: u64, length: u32) -> Vec<u8> {
    request(5, id, &[&string(handle), &offset.to_be_bytes(), &length.to_be_bytes()])
}

fn close(id: u32, handle: &[u8]) -> Vec<u8> {
    request(4, id, &[&string(handle)])
}

fn on_path(kind: u8, id: u32, path: &str) -> Vec<u8> {
    request(kind, id, &[&string(path.as_bytes())])
}

fn extended(id: u32, name: &str, fields: &[&[u8]]) -> Vec<u8> {
    request(200, id, &[&string(name.as_bytes()), &fields.concat()])
}

fn status(id: u32, code: u32) -> Vec<u8> {
    request(101, id, &[&code.to_be_bytes(), &string(b""), &string(b"")])
}

fn handle(id: u32, handle: &[u8]) -> Vec<u8> {
    request(102, id, &[&string(handle)])
}

fn data(id: u32, content: &[u8]) -> Vec<u8> {
    request(103, id, &[&string(content)])
}

fn name(id: u32, path: &str) -> Vec<u8> {
    request(104, id, &[&1u32.to_be_bytes(), &string(path.as_bytes()), &string(b""), &[0; 4]])
}

const READ: u32 = 1;
const WRITE: u32 = 2;
const PUT: u32 = 2 | 8 | 16;

fn init() -> Vec<u8> {
    packet(1, &[&3u32.to_be_bytes()])
}

fn version() -> Vec<u8> {
    packet(2, &[&3u32.to_be_bytes()])
}

/// A gate and what came out of it.
struct Bench {
    gate: Gate,
    to_target: Vec<u8>,
    to_client: Vec<u8>,
    operations: Vec<FileOperation>,
    most_held: usize,
}

impl Bench {
    fn new(terms: FileTerms) -> Self {
        let gate = Gate::new(terms, Arc::default(), true);
        Self { gate, to_target: vec![], to_client: vec![], operations: vec![], most_held: 0 }
    }

    /// After the greetings.
    fn greeted(terms: FileTerms) -> Self {
        let asks = terms.needs_home();
        let mut bench = Self::new(terms);
        bench.client(init());
        bench.target(version());
        if asks {
            bench.target(name(u32::MAX, "/home/ann"));
        }
        bench.to_target.clear();
        bench.to_client.clear();
        bench
    }

    fn client(&mut self, bytes: impl Into<Bytes>) {
        self.gate.client_sent(bytes.into());
        self.collect();
    }

    fn target(&mut self, bytes: impl Into<Bytes>) {
        self.gate.target_sent(bytes.into());
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(piece) = self.gate.desk.to_target.pop() {
            self.to_target.extend_from_slice(piece.bytes());
        }
        while let Some(piece) = self.gate.desk.to_client.pop() {
            self.to_client.extend_from_slice(piece.bytes());
        }
        self.operations.extend(std::iter::from_fn(|| self.gate.desk.operations.pop_front()));
        self.most_held = self.most_held.max(self.gate.held_bytes());
    }

    /// Sends a request that must pass unchanged.
    fn passes(&mut self, bytes: Vec<u8>) {
        self.to_target.clear();
        self.client(bytes.clone());
        assert_eq!(self.to_target, bytes);
    }

    /// Sends a request that must be answered by the gate with this code, and returns the text.
    fn refused(&mut self, bytes: Vec<u8>, code: u32) -> String {
        self.to_target.clear();
        self.to_client.clear();
        self.client(bytes);
        assert!(self.to_target.is_empty(), "it was forwarded");
        let reply = std::mem::take(&mut self.to_client);
        assert_eq!((reply[4], &reply[9..13]), (101, code.to_be_bytes().as_slice()), "{reply:?}");
        let length = u32::from_be_bytes(reply[13..17].try_into().unwrap()) as usize;
        String::from_utf8(reply[17..17 + length].to_vec()).unwrap()
    }

    /// Opens a file that may be opened.
    fn open(&mut self, path: &str, flags: u32, as_handle: &[u8]) {
        self.passes(open_file(1000, path, flags));
        self.target(handle(1000, as_handle));
    }
}

#[test]
fn an_upload_and_a_download_pass_untouched_and_are_told_of() {
    let mut bench = Bench::greeted(terms(true, true, "{}"));
    bench.open("up", PUT, b"A");
    bench.passes(write(2, b"A", 0, b"hello "));
    bench.passes(write(3, b"A", 6, b"world"));
    bench.target([status(2, 0), status(3, 0)].concat());
    bench.passes(close(4, b"A"));
    bench.target(status(4, 0));
    bench.open("/down", READ, b"B");
    bench.passes(read(5, b"B", 0, 100));
    bench.target(data(5, b"content"));
    bench.passes(close(6, b"B"));
    bench.target(status(6, 0));

    let moved = |content: &[u8]| {
        let digest = Digest::Sha256(Hash::of(content));
        Some(crate::files::Moved { bytes: content.len() as u64, digest, partial: false })
    };
    let transfer = |path: &str, upload, download| FileOperation {
        act: FileAct::Transfer { path: FilePath(path.into()), upload, download },
        result: FileResult::Done,
    };
    assert_eq!(bench.operations[0], transfer("up", moved(b"hello world"), None));
    assert_eq!(bench.operations[1], transfer("/down", None, moved(b"content")));
    assert_eq!(bench.gate.desk.condition, Condition::Following);
}

#[test]
fn content_passes_as_slices_of_what_came() {
    let mut bench = Bench::greeted(terms(true, false, "{}"));
    bench.open("up", PUT, b"A");
    let sent = Bytes::from([write(2, b"A", 0, &[7; 32 << 10]), write(3, b"A", 32 << 10, &[8; 100])].concat());
    bench.gate.client_sent(sent.clone());
    let piece = bench.gate.desk.to_target.pop().unwrap();
    assert_eq!(piece, Piece::Forward(sent.clone()));
    assert_eq!(piece.bytes().as_ptr(), sent.as_ptr());
    assert_eq!(bench.gate.desk.to_target.pop(), None);
}

#[test]
fn who_may_only_download_can_alter_nothing() {
    let mut bench = Bench::greeted(terms(false, true, "{}"));
    for flags in [PUT, WRITE, READ | WRITE, READ | 16, READ | 8, READ | 4, 4, 8, 16, READ | 32] {
        bench.refused(open_file(2, "x", flags), 3);
    }
    for kind in [13, 15, 9, 14] {
        bench.refused(request(kind, 3, &[&string(b"x"), &[0; 4]]), 3);
    }
    for kind in [18, 20] {
        bench.refused(request(kind, 3, &[&string(b"x"), &string(b"y")]), 3);
    }
    for name in ["posix-rename@openssh.com", "hardlink@openssh.com"] {
        bench.refused(extended(3, name, &[&string(b"x"), &string(b"y")]), 3);
    }
    bench.refused(extended(3, "lsetstat@openssh.com", &[&string(b"x"), &[0; 4]]), 3);
    bench.refused(extended(3, "md5-hash@example.com", &[&string(b"x")]), 8);
    bench.refused(request(99, 3, &[&string(b"x")]), 8);
    bench.open("x", READ, b"A");
    bench.refused(write(4, b"A", 0, b"evil"), 3);
    bench.refused(request(10, 4, &[&string(b"A"), &[0; 4]]), 3);
    bench.refused(write(4, b"guessed", 0, b"evil"), 3);
    bench.passes(read(5, b"A", 0, 10));
    assert!(bench.operations.iter().all(|told| matches!(told.result, FileResult::Denied { .. })));
}

#[test]
fn who_may_only_upload_reads_nothing_back() {
    let mut bench = Bench::greeted(terms(true, false, "{}"));
    for flags in [READ, 0] {
        let text = bench.refused(open_file(2, "x", flags), 3);
        assert_eq!(text, "the grant does not allow downloads");
    }
    bench.open("x", PUT | READ, b"A");
    bench.passes(write(3, b"A", 0, b"sent"));
    bench.target(status(3, 0));
    bench.refused(read(4, b"A", 0, 10), 3);
    bench.refused(read(4, b"B", 0, 10), 3);
    let copy: &[&[u8]] = &[&string(b"A"), &[0; 16], &string(b"A"), &[0; 8]];
    bench.refused(extended(4, "copy-data", copy), 3);
    bench.passes(on_path(17, 5, "x"));
    bench.target(request(105, 5, &[&[0; 4]]));
    bench.passes(close(6, b"A"));
    bench.target(status(6, 0));
    let told = bench.operations.last().unwrap();
    assert!(matches!(&told.act, FileAct::Transfer { upload: Some(_), download: None, .. }));
    assert_eq!(told.result, FileResult::Denied { denial: FileDenial::Direction { direction: Direction::Download } });
}

#[test]
fn content_that_answers_no_read_ends_the_channel_under_rules() {
    let mut bench = Bench::greeted(terms(true, false, "{}"));
    bench.passes(on_path(17, 5, "x"));
    bench.target(data(5, b"secret"));
    assert!(bench.gate.desk.condition.ended().is_some() && bench.to_client.is_empty());
}

const PATHS: &str = r#"{"upload":{"paths":["/srv/app/**","~/in/*"]},"download":{"paths":["/var/log/**"]}}"#;

#[test]
fn the_home_is_asked_for_before_the_client_is_greeted() {
    let mut bench = Bench::new(terms(true, true, PATHS));
    bench.client(init());
    bench.to_target.clear();
    bench.target(version());
    assert_eq!(bench.to_target, on_path(16, u32::MAX, "."));
    assert!(bench.to_client.is_empty());
    bench.target(name(u32::MAX, "/home/ann"));
    assert_eq!(bench.to_client, version());
    bench.passes(open_file(1, "in/x", PUT));
    bench.passes(open_file(2, "/home/ann/in/x", PUT));
    let text = bench.refused(open_file(3, "x", PUT), 3);
    assert_eq!(text, "the grant does not allow uploads here: `/home/ann/x`");
}

#[test]
fn a_target_that_does_not_tell_the_home_leaves_relative_paths_closed() {
    let mut bench = Bench::new(terms(true, true, r#"{"upload":{"paths":["/home/ann/**"]}}"#));
    bench.client(init());
    bench.target(version());
    bench.target(status(u32::MAX, 4));
    assert_eq!(bench.to_client, version());
    bench.refused(open_file(3, "x", PUT), 3);
    bench.passes(open_file(3, "/home/ann/x", PUT));
}

#[test]
fn a_path_that_climbs_is_resolved_before_the_target_sees_it() {
    let mut bench = Bench::greeted(terms(true, true, PATHS));
    bench.client(open_file(1, "/srv/app/link/../x", PUT));
    assert_eq!(bench.to_target, open_file(1, "/srv/app/x", PUT));
    bench.to_target.clear();
    bench.client(request(18, 2, &[&string(b"/srv/app/a"), &string(b"/srv/app/b/../c")]));
    assert!(bench.to_target.is_empty(), "what is renamed would have to be readable");
    bench.refused(open_file(3, "/srv/app/../../etc/passwd", PUT), 3);
    bench.refused(open_file(3, "/var/log/../../etc/shadow", READ), 3);
    bench.refused(open_file(3, "/srv/app/ok\0", PUT), 3);
    bench.refused(open_file(3, "/srv//app/x", READ), 3);
    bench.passes(open_file(3, "/var//log/./x", READ));
}

#[test]
fn no_link_may_lead_out() {
    let mut bench = Bench::greeted(terms(true, false, r#"{"upload":{"paths":["/srv/app/**"]}}"#));
    for (target, link) in [("/etc/shadow", "/srv/app/l"), ("../../etc", "/srv/app/l"), ("x", "/srv/app/l")] {
        bench.refused(request(20, 2, &[&string(target.as_bytes()), &string(link.as_bytes())]), 3);
        bench.refused(request(20, 2, &[&string(link.as_bytes()), &string(target.as_bytes())]), 3);
    }
    bench.refused(extended(2, "hardlink@openssh.com", &[&string(b"/etc/shadow"), &string(b"/srv/app/l")]), 3);
    bench.passes(request(20, 2, &[&string(b"/srv/app/x"), &string(b"/srv/app/l")]));
}

#[test]
fn names_may_be_looked_at_only_on_the_way() {
    let mut bench = Bench::greeted(terms(true, true, PATHS));
    bench.passes(on_path(17, 2, "/srv"));
    bench.passes(on_path(7, 3, "."));
    bench.passes(on_path(11, 4, "/var/log"));
    bench.passes(on_path(16, 5, "/etc"));
    bench.refused(on_path(17, 6, "/etc/passwd"), 3);
    bench.refused(on_path(11, 6, "/etc"), 3);
    bench.refused(on_path(19, 6, "/etc/mtab"), 3);
    assert!(bench.operations.iter().all(|told| matches!(told.act, FileAct::Look { .. })));
}

#[test]
fn a_budget_refuses_what_goes_beyond_it_both_ways() {
    let rules = r#"{"upload":{"file_bytes":10},"download":{"total_bytes":10}}"#;
    let mut bench = Bench::greeted(terms(true, true, rules));
    bench.open("up", PUT, b"A");
    bench.passes(write(2, b"A", 0, b"0123456789"));
    let text = bench.refused(write(3, b"A", 10, b"x"), 3);
    assert_eq!(text, "the grant allows uploads of at most 10 bytes a file");
    bench.open("down", READ, b"B");
    for id in [4, 5] {
        bench.passes(read(id, b"B", 0, 8));
    }
    bench.to_client.clear();
    bench.target(data(4, b"12345678"));
    assert_eq!(bench.to_client, data(4, b"12345678"));
    bench.to_client.clear();
    bench.target([data(5, b"12345678"), status(2, 0)].concat());
    assert_eq!((bench.to_client[4], &bench.to_client[5..9]), (101, [0, 0, 0, 5].as_slice()));
    assert!(bench.to_client.ends_with(&status(2, 0)));
    assert!(!bench.to_client.windows(8).any(|window| window == b"12345678"));
}

#[test]
fn after_a_write_that_was_refused_no_smaller_one_fills_the_file_behind_the_hole() {
    let mut bench = Bench::greeted(terms(true, true, r#"{"upload":{"file_bytes":10}}"#));
    bench.open("x", PUT, b"A");
    bench.passes(write(2, b"A", 0, b"12345678"));
    bench.refused(write(3, b"A", 8, b"12345678"), 3);
    bench.refused(write(4, b"A", 16, b"1"), 3);
    bench.target(status(2, 0));
    bench.to_client.clear();
    bench.passes(close(5, b"A"));
    bench.target(status(5, 0));
    assert_eq!((bench.to_client[4], &bench.to_client[5..13]), (101, [0, 0, 0, 5, 0, 0, 0, 3].as_slice()));
}

#[test]
fn a_file_that_is_cut_to_what_was_written_is_told_as_whole() {
    let cut = |id, size: u64| request(10, id, &[&string(b"A"), &1u32.to_be_bytes(), &size.to_be_bytes()]);
    for (size, whole) in [(4, true), (3, false), (5, false)] {
        let mut bench = Bench::greeted(terms(true, true, "{}"));
        bench.open("x", WRITE | 8, b"A");
        bench.passes(write(2, b"A", 0, b"good"));
        bench.passes(cut(3, size));
        bench.target([status(2, 0), status(3, 0)].concat());
        bench.passes(close(4, b"A"));
        bench.target(status(4, 0));
        let FileAct::Transfer { upload: Some(moved), .. } = &bench.operations.last().unwrap().act else {
            panic!("{:?}", bench.operations);
        };
        assert_eq!((moved.digest == crate::files::Digest::Sha256(Hash::of(b"good")), !moved.partial), (whole, whole));
    }
}

fn listed(content: &[u8]) -> FileTerms {
    terms(true, true, &format!(r#"{{"upload_sha256":["{}"]}}"#, Hash::of(content)))
}

#[test]
fn a_listed_upload_stays() {
    let mut bench = Bench::greeted(listed(b"good"));
    bench.open("x", PUT, b"A");
    bench.passes(write(2, b"A", 0, b"go"));
    bench.passes(write(3, b"A", 2, b"od"));
    bench.target([status(2, 0), status(3, 0)].concat());
    bench.passes(close(4, b"A"));
    bench.target(status(4, 0));
    assert_eq!(bench.operations[0].result, FileResult::Done);
}

#[test]
fn an_upload_that_is_not_listed_is_emptied_and_removed_before_the_client_hears() {
    let mut bench = Bench::greeted(listed(b"good"));
    bench.open("x", PUT, b"A");
    bench.passes(write(2, b"A", 0, b"evil"));
    bench.target(status(2, 0));
    bench.to_target.clear();
    bench.to_client.clear();
    bench.client(close(4, b"A"));
    let emptied = request(10, u32::MAX - 1, &[&string(b"A"), &1u32.to_be_bytes(), &[0; 8]]);
    assert_eq!(bench.to_target, [emptied, close(4, b"A")].concat());
    bench.to_target.clear();
    bench.target([status(u32::MAX - 1, 0), status(4, 0)].concat());
    assert_eq!(bench.to_target, on_path(13, u32::MAX - 2, "/home/ann/x"));
    assert!(bench.to_client.is_empty());
    bench.target(status(u32::MAX - 2, 0));
    assert_eq!((bench.to_client[4], &bench.to_client[5..13]), (101, [0, 0, 0, 4, 0, 0, 0, 3].as_slice()));
    assert!(matches!(&bench.operations[0].result, FileResult::Denied { denial: FileDenial::NotListed { .. } }));
}

#[test]
fn no_way_around_the_list_passes() {
    let mut bench = Bench::greeted(listed(b"good"));
    bench.refused(open_file(2, "x", WRITE | 8), 3);
    bench.refused(open_file(2, "x", PUT | 4), 3);
    bench.refused(request(9, 2, &[&string(b"x"), &1u32.to_be_bytes(), &[0; 8]]), 3);
    bench.open("x", PUT, b"A");
    bench.refused(open_file(2, "x", PUT), 3);
    bench.refused(open_file(2, "./y/../x", PUT), 3);
    bench.refused(request(18, 2, &[&string(b"x"), &string(b"y")]), 3);
    bench.refused(request(10, 2, &[&string(b"A"), &1u32.to_be_bytes(), &[0; 8]]), 3);
    bench.open("from", READ, b"B");
    bench.refused(extended(2, "copy-data", &[&string(b"B"), &[0; 16], &string(b"A"), &[0; 8]]), 3);
    bench.passes(write(3, b"A", 0, b"good"));
    bench.passes(write(4, b"A", 0, b"evil"));
    bench.to_target.clear();
    bench.client(close(5, b"A"));
    assert_eq!(bench.to_target[4], 10, "overwritten content is emptied");
    bench.open("z", PUT, b"C");
    bench.passes(write(6, b"C", 4, b"good"));
    bench.to_target.clear();
    bench.client(close(7, b"C"));
    assert_eq!(bench.to_target[4], 10, "content behind a hole is emptied");
}

#[test]
fn a_client_that_goes_in_the_middle_of_an_upload_leaves_nothing() {
    let mut bench = Bench::greeted(listed(b"good"));
    bench.open("x", PUT, b"A");
    let sent = write(2, b"A", 0, &[b'e'; 40_000]);
    bench.to_target.clear();
    bench.client(sent[..30_000].to_vec());
    assert_eq!(bench.to_target, sent[..30_000]);
    bench.gate.client_ended();
    bench.collect();
    assert!(bench.to_target[30_000..sent.len()].iter().all(|&byte| byte == 0));
    let kinds: Vec<u8> = packets(&bench.to_target[sent.len()..]).iter().map(|packet| packet[4]).collect();
    assert_eq!(kinds, [10, 4, 13]);
    assert!(matches!(bench.operations[0].result, FileResult::Denied { .. }));
}

#[test]
fn what_was_judged_before_the_thread_was_lost_is_sent_whole() {
    let mut bench = Bench::greeted(listed(b"good"));
    bench.open("x", PUT, b"A");
    let sent = write(2, b"A", 0, &[b'e'; 1000]);
    bench.to_target.clear();
    bench.client(sent[..500].to_vec());
    bench.client([&sent[500..], &close(2, b"A")].concat());
    assert!(bench.gate.desk.condition.ended().is_some(), "an id is used twice");
    assert_eq!(bench.to_target[..sent.len()], sent);
    let kinds: Vec<u8> = packets(&bench.to_target[sent.len()..]).iter().map(|packet| packet[4]).collect();
    assert_eq!(kinds, [10, 4, 13]);
}

fn packets(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut packets = vec![];
    while !bytes.is_empty() {
        let whole = 4 + u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        packets.push(&bytes[..whole]);
        bytes = &bytes[whole..];
    }
    packets
}

#[test]
fn an_injected_reply_waits_for_the_end_of_a_packet() {
    let mut bench = Bench::greeted(terms(false, true, "{}"));
    bench.open("x", READ, b"A");
    bench.passes(read(2, b"A", 0, 100));
    let reply = data(2, &[9; 100]);
    bench.to_client.clear();
    bench.target(reply[..50].to_vec());
    bench.client(open_file(3, "y", PUT));
    assert_eq!(bench.to_client, reply[..50]);
    bench.target(reply[50..].to_vec());
    assert_eq!(bench.to_client[..reply.len()], reply);
    assert_eq!(bench.to_client[reply.len() + 4..reply.len() + 9], [101, 0, 0, 0, 3]);
}

#[test]
fn what_cannot_be_read_ends_the_channel_under_rules_and_passes_without() {
    for bad in [
        vec![0, 0, 0, 0],
        vec![0xff, 0xff, 0xff, 0xff, 3],
        packet(5, &[&[0; 4], &string(b"A")]),
        request(6, 9, &[&string(b"A"), &[0; 8], &100u32.to_be_bytes(), b"short"]),
        request(6, 9, &[&1000u32.to_be_bytes(), &[0; 2000]]),
        init(),
    ] {
        let mut bench = Bench::greeted(terms(true, false, "{}"));
        bench.client(bad.clone());
        assert!(matches!(bench.gate.desk.condition, Condition::Ended(Fault::Unreadable { from: Side::Client, .. })));
        bench.client(b"more".to_vec());
        assert!(bench.to_target.is_empty());
        let mut bench = Bench::greeted(terms(true, true, "{}"));
        bench.client(bad.clone());
        bench.client(b"more".to_vec());
        bench.target(b"anything".to_vec());
        assert!(matches!(bench.gate.desk.condition, Condition::Opaque(_)));
        assert_eq!(bench.to_target, [bad.as_slice(), b"more"].concat());
        assert_eq!(bench.to_client, b"anything");
    }
}

#[test]
fn a_later_version_is_brought_down_to_three() {
    let mut bench = Bench::new(terms(true, true, "{}"));
    bench.client(packet(1, &[&6u32.to_be_bytes(), &string(b"x"), &string(b"y")]));
    assert_eq!(bench.to_target, init());
}

#[test]
fn a_request_that_is_too_long_is_refused_and_the_next_one_passes() {
    let mut bench = Bench::greeted(terms(true, true, "{}"));
    bench.refused(on_path(13, 2, &"x".repeat(100_000)), 4);
    bench.passes(on_path(13, 3, "x"));
    assert!(bench.most_held <= MOST_HEAD);
}

#[test]
fn too_many_requests_and_too_many_paths_are_bounded() {
    let mut bench = Bench::greeted(terms(true, true, "{}"));
    for id in 0..=MOST_REQUESTS as u32 {
        bench.client(on_path(17, id, "x"));
    }
    assert!(matches!(bench.gate.desk.condition, Condition::Opaque(_)));
    let mut bench = Bench::greeted(terms(true, true, "{}"));
    for id in 0..MOST_REQUESTS as u32 {
        bench.client(on_path(13, id, &"x".repeat(15_000)));
    }
    assert_eq!(bench.to_target.len() / 15_013, MOST_TRACKED.div_ceil(15_000));
}

#[test]
fn what_was_under_way_is_told_of_as_interrupted() {
    let mut bench = Bench::greeted(terms(true, true, "{}"));
    bench.open("up", PUT, b"A");
    bench.passes(write(2, b"A", 0, b"half"));
    bench.passes(on_path(13, 3, "old"));
    bench.gate.target_ended();
    bench.gate.target_ended();
    bench.collect();
    assert_eq!(bench.operations.len(), 2);
    assert!(bench.operations.iter().all(|told| told.result == FileResult::Interrupted));
}

#[test]
fn a_write_that_the_target_did_not_take_has_no_digest() {
    let mut bench = Bench::greeted(terms(true, true, "{}"));
    bench.open("up", PUT, b"A");
    bench.passes(write(2, b"A", 0, b"half"));
    bench.target(status(2, 4));
    bench.passes(close(3, b"A"));
    bench.target(status(3, 0));
    let FileAct::Transfer { upload: Some(moved), .. } = &bench.operations[0].act else { panic!() };
    assert_eq!(moved.digest, Digest::NotSequential);
    assert_eq!(bench.operations[0].result, FileResult::Failed { code: 4 });
}

/// One step of a made-up session.
#[derive(Debug, Clone)]
enum Step {
    Open { path: u8, flags: u32 },
    Write { handle: u8, offset: u16, length: u16 },
    Read { handle: u8, offset: u16 },
    Close { handle: u8 },
    Path { kind: u8, path: u8 },
    TwoPaths { kind: u8, from: u8, to: u8 },
    Extended { which: u8, path: u8, handle: u8 },
    Fsetstat { handle: u8, flags: u32 },
    Hostile(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..6, 0u32..64).prop_map(|(path, flags)| Step::Open { path, flags }),
        4 => (0u8..6, 0u16..200, 0u16..300).prop_map(|(handle, offset, length)| Step::Write { handle, offset, length }),
        4 => (0u8..6, 0u16..200).prop_map(|(handle, offset)| Step::Read { handle, offset }),
        2 => (0u8..6).prop_map(|handle| Step::Close { handle }),
        2 => (prop::sample::select(vec![7u8, 9, 11, 13, 14, 15, 16, 17, 19]), 0u8..6)
            .prop_map(|(kind, path)| Step::Path { kind, path }),
        1 => (prop::sample::select(vec![18u8, 20]), 0u8..6, 0u8..6)
            .prop_map(|(kind, from, to)| Step::TwoPaths { kind, from, to }),
        1 => (0u8..8, 0u8..6, 0u8..6).prop_map(|(which, path, handle)| Step::Extended { which, path, handle }),
        1 => (0u8..6, 0u32..2).prop_map(|(handle, flags)| Step::Fsetstat { handle, flags }),
    ]
}

const PLACES: [&str; 6] = ["/a", "b", "/srv/app/x", "/srv/app/../../etc/x", "/srv/app/y", "."];

fn bytes_of(step: &Step, id: u32) -> Vec<u8> {
    let place = |place: u8| string(PLACES[usize::from(place)].as_bytes());
    match step {
        Step::Open { path, flags } => open_file(id, PLACES[usize::from(*path)], *flags),
        Step::Write { handle, offset, length } => {
            write(id, &[*handle], u64::from(*offset), &vec![*handle; usize::from(*length)])
        }
        Step::Read { handle, offset } => read(id, &[*handle], u64::from(*offset), 100),
        Step::Close { handle } => close(id, &[*handle]),
        Step::Path { kind, path } => request(*kind, id, &[&place(*path), &[0; 4]]),
        Step::TwoPaths { kind, from, to } => request(*kind, id, &[&place(*from), &place(*to)]),
        Step::Extended { which, path, handle } => {
            let handle = string(&[*handle]);
            match which {
                0 => extended(id, "posix-rename@openssh.com", &[&place(*path), &place(0)]),
                1 => extended(id, "hardlink@openssh.com", &[&place(*path), &place(0)]),
                2 => extended(id, "copy-data", &[&handle, &[0; 16], &string(&[0]), &[0; 8]]),
                3 => extended(id, "fsync@openssh.com", &[&handle]),
                4 => extended(id, "statvfs@openssh.com", &[&place(*path)]),
                5 => extended(id, "lsetstat@openssh.com", &[&place(*path), &[0; 4]]),
                6 => extended(id, "limits@openssh.com", &[]),
                _ => extended(id, "unheard-of", &[&handle]),
            }
        }
        Step::Fsetstat { handle, flags } => request(10, id, &[&string(&[*handle]), &flags.to_be_bytes(), &[0; 8]]),
        Step::Hostile(bytes) => bytes.clone(),
    }
}

/// A target that grants everything, answers in order, and has one content for all that is read.
#[derive(Default)]
struct Target {
    buffer: Vec<u8>,
    open: [bool; 6],
    /// What it was asked to do.
    seen: Vec<Vec<u8>>,
}

impl Target {
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.buffer.extend_from_slice(bytes);
        let mut replies = vec![];
        while self.buffer.len() >= 4 {
            let whole = 4 + u32::from_be_bytes(self.buffer[..4].try_into().unwrap()) as usize;
            if self.buffer.len() < whole {
                break;
            }
            let packet: Vec<u8> = self.buffer.drain(..whole).collect();
            replies.extend(self.answer(&packet));
            self.seen.push(packet);
        }
        replies
    }

    fn answer(&mut self, packet: &[u8]) -> Vec<u8> {
        if packet[4] == 1 {
            return version();
        }
        let id = u32::from_be_bytes(packet[5..9].try_into().unwrap());
        let by_name = |name: &[u8]| packet.get(13..13 + name.len()) == Some(name);
        match packet[4] {
            3 | 11 => match self.open.iter().position(|open| !open) {
                Some(free) => {
                    self.open[free] = true;
                    handle(id, &[free as u8])
                }
                None => status(id, 4),
            },
            4 => {
                if let Some(open) = self.open.get_mut(usize::from(packet[13])) {
                    *open = false;
                }
                status(id, 0)
            }
            5 => data(id, b"SECRET CONTENT"),
            7 | 8 | 17 => request(105, id, &[&[0; 4]]),
            12 | 19 => name(id, "x"),
            16 => name(id, "/home/ann"),
            200 if by_name(b"statvfs") || by_name(b"limits") => request(201, id, &[&[0; 8]]),
            _ => status(id, 0),
        }
    }
}

/// Runs a session, with the client's and the target's bytes cut at `cuts` bytes; returns what came out.
fn run(terms: FileTerms, steps: &[Step], cuts: usize) -> (Bench, Target) {
    let (mut bench, mut target) = (Bench::new(terms), Target::default());
    let mut from_client: VecDeque<Vec<u8>> = VecDeque::from([init()]);
    from_client.extend(steps.iter().zip(1..).map(|(step, id)| bytes_of(step, id)));
    for request in from_client {
        for part in request.chunks(cuts) {
            let mut next = bench.to_target.len();
            bench.client(part.to_vec());
            while next < bench.to_target.len() {
                let replies = target.take(&bench.to_target.clone()[next..]);
                next = bench.to_target.len();
                for part in replies.chunks(cuts) {
                    bench.target(part.to_vec());
                }
            }
        }
    }
    bench.gate.client_ended();
    bench.collect();
    bench.gate.target_ended();
    bench.collect();
    (bench, target)
}

proptest! {
    #[test]
    fn any_cut_gives_the_same(
        mut steps in prop::collection::vec(step(), 0..40),
        hostile in prop::collection::vec(any::<u8>(), 0..60),
        cuts in 1usize..60,
        kind in 0usize..5,
    ) {
        steps.push(Step::Hostile(hostile));
        let list = format!(r#"{{"upload_sha256":["{}"]}}"#, Hash::of(b""));
        let terms = [
            terms(true, true, "{}"),
            terms(true, false, "{}"),
            terms(false, true, "{}"),
            terms(true, true, r#"{"upload":{"paths":["/srv/app/**"],"total_bytes":500}}"#),
            terms(true, true, &list),
        ][kind].clone();
        let (whole, _) = run(terms.clone(), &steps, usize::MAX);
        let (cut, _) = run(terms, &steps, cuts);
        prop_assert_eq!(whole.operations, cut.operations);
        prop_assert_eq!(whole.to_target, cut.to_target);
        prop_assert_eq!(whole.to_client, cut.to_client);
        prop_assert!(cut.most_held <= 2 * MOST_HEAD);
    }

    #[test]
    fn without_rules_every_byte_passes_unchanged(steps in prop::collection::vec(step(), 0..40), cuts in 1usize..60) {
        let (bench, mut target) = run(terms(true, true, "{}"), &steps, cuts);
        let sent: Vec<u8> =
            init().into_iter().chain(steps.iter().zip(1..).flat_map(|(step, id)| bytes_of(step, id))).collect();
        prop_assert_eq!(&bench.to_target, &sent);
        target.open = [false; 6];
        target.buffer.clear();
        prop_assert_eq!(bench.to_client, target.take(&sent));
    }

    #[test]
    fn under_upload_only_no_content_ever_leaves(steps in prop::collection::vec(step(), 0..60), cuts in 1usize..60) {
        let (bench, target) = run(terms(true, false, "{}"), &steps, cuts);
        prop_assert!(!bench.to_client.windows(6).any(|window| window == b"SECRET"));
        prop_assert!(target.seen.iter().all(|packet| packet[4] != 5));
    }

    #[test]
    fn under_download_only_nothing_is_ever_altered(steps in prop::collection::vec(step(), 0..60), cuts in 1usize..60) {
        let (_, target) = run(terms(false, true, "{}"), &steps, cuts);
        for packet in &target.seen {
            prop_assert!(!matches!(packet[4], 6 | 9 | 10 | 13 | 14 | 15 | 18 | 20), "{:?}", packet);
            if packet[4] == 3 {
                let path = u32::from_be_bytes(packet[9..13].try_into().unwrap()) as usize;
                let flags = u32::from_be_bytes(packet[13 + path..17 + path].try_into().unwrap());
                prop_assert_eq!(flags & !READ, 0);
            }
            if packet[4] == 200 {
                for name in ["posix-rename", "hardlink", "copy-data", "lsetstat", "unheard-of"] {
                    prop_assert!(packet.get(13..13 + name.len()) != Some(name.as_bytes()), "{}", name);
                }
            }
        }
    }

    #[test]
    fn hostile_bytes_never_panic_nor_pile_up(
        parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..40),
        steps in prop::collection::vec(step(), 0..10),
        strict in any::<bool>(),
    ) {
        let mut bench = Bench::greeted(if strict { terms(true, false, PATHS) } else { terms(true, true, "{}") });
        let mut target = Target::default();
        for (step, id) in steps.iter().zip(1..) {
            let seen = bench.to_target.len();
            bench.client(bytes_of(step, id));
            let replies = target.take(&bench.to_target.clone()[seen..]);
            bench.target(replies);
        }
        for (of_client, part) in parts {
            // Lengths that are believed, or every stream would end at once.
            let mut part = part;
            if part.len() > 4 {
                part[..3].copy_from_slice(&[0, 0, 0]);
            }
            if of_client { bench.client(part) } else { bench.target(part) }
        }
        bench.gate.client_ended();
        bench.gate.target_ended();
        bench.collect();
        prop_assert!(bench.most_held <= 2 * MOST_HEAD);
    }

    #[test]
    fn hostile_steps_amid_good_ones_never_panic(
        mut steps in prop::collection::vec(step(), 0..20),
        hostile in prop::collection::vec(any::<u8>(), 0..60),
        cuts in 1usize..60,
    ) {
        steps.push(Step::Hostile(hostile));
        let list = format!(r#"{{"upload_sha256":["{}"]}}"#, Hash::of(b""));
        for terms in [terms(true, true, "{}"), terms(true, false, PATHS), terms(true, true, &list)] {
            run(terms, &steps, cuts);
        }
    }
}
