//! What is under way: requests without a reply, open handles, and what the rules say of each.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::wire::{self, Call, Reader, Unreadable, kind, open, status};
use crate::files::content::{Content, Room};
use crate::files::gate::{Desk, Piece};
use crate::files::path::climbs;
use crate::files::rules::ListedOnly;
use crate::files::{
    Digest, Direction, FileAct, FileDenial, FileOperation, FilePath, FileRequest, FileResult, FileTerms, Moved, Place,
    Spent,
};

/// The most requests that may be without a reply. OpenSSH's client keeps 64.
pub const MOST_REQUESTS: usize = 4096;

/// The most handles that may be open. OpenSSH's server allows fewer than 1024.
pub const MOST_HANDLES: usize = 4096;

/// The most bytes of paths that are kept for requests under way and open handles.
pub const MOST_TRACKED: usize = 4 << 20;

/// How much content may wait to be hashed, over all files.
const MOST_EARLY: usize = 1 << 20;

/// What becomes of a packet.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It passes; its body may be a file's content.
    Pass(Option<Cursor>),
    Drop,
    /// This goes instead; only for packets whose head is all of them.
    Replace(Bytes),
}

/// Where in which file the next content belongs.
#[derive(Debug)]
pub(super) struct Cursor {
    file: u64,
    direction: Direction,
    offset: u64,
}

/// An open file, or one that is being opened.
#[derive(Debug)]
struct File {
    path: FilePath,
    handle: Vec<u8>,
    writes: bool,
    may_read: bool,
    /// The file is new, or was emptied, or cut to what was written.
    replaces: bool,
    appends: bool,
    upload: Content,
    download: Content,
    /// The first refusal of a read or write.
    denial: Option<FileDenial>,
    /// The first failure of a write.
    failed: Option<u32>,
}

impl File {
    fn content(&mut self, direction: Direction) -> &mut Content {
        match direction {
            Direction::Upload => &mut self.upload,
            Direction::Download => &mut self.download,
        }
    }

    fn operation(self, result: FileResult) -> FileOperation {
        let moved = |content: &Content, whole: bool| Moved {
            bytes: content.bytes,
            digest: content.digest(),
            partial: !whole || content.start() != 0,
        };
        let upload = self.writes.then(|| moved(&self.upload, self.replaces));
        let read = !self.writes || (self.may_read && self.download.bytes > 0);
        let download = read.then(|| moved(&self.download, true));
        let result = match (self.denial, self.failed, result) {
            (Some(denial), ..) => FileResult::Denied { denial },
            (None, Some(code), FileResult::Done) => FileResult::Failed { code },
            (None, _, result) => result,
        };
        FileOperation { act: FileAct::Transfer { path: self.path, upload, download }, result }
    }
}

/// What a handle stands for.
#[derive(Debug, Clone, Copy)]
enum Opened {
    File(u64),
    Directory,
}

/// A request without a reply.
#[derive(Debug)]
enum Pending {
    Open(Box<File>),
    OpenDir,
    Close(u64),
    /// A close of an upload that must not stay.
    CloseToUndo(u64),
    /// Our REMOVE after that; the client's close, under this id, is still to be answered.
    Undo {
        id: u32,
        file: Box<File>,
    },
    Read {
        file: u64,
        offset: u64,
    },
    Write {
        file: u64,
    },
    /// FSETSTAT of the size that was written so far.
    CutToSize {
        file: u64,
    },
    /// REALPATH; `of_home`: its answer tells where the home is.
    RealPath {
        of_home: bool,
    },
    /// Our REALPATH; VERSION waits for it.
    AskHome {
        version: Bytes,
    },
    /// Told of when its status is known.
    Act(Box<FileAct>),
    /// A status or this kind of reply.
    Reply(u8),
    /// Any kind of reply.
    Any,
    /// Ours, and nobody waits for it.
    Ours,
}

/// Bytes of paths that are kept for it.
fn weight(pending: &Pending) -> usize {
    match pending {
        Pending::Open(file) | Pending::Undo { file, .. } => file.path.0.len(),
        Pending::Act(act) => match &**act {
            FileAct::Rename { from, to } | FileAct::Copy { from, to, .. } => from.0.len() + to.0.len(),
            FileAct::Symlink { link, target } | FileAct::Hardlink { link, target } => link.0.len() + target.0.len(),
            FileAct::Transfer { path, .. }
            | FileAct::Open { path, .. }
            | FileAct::Look { path }
            | FileAct::Remove { path }
            | FileAct::MakeDirectory { path }
            | FileAct::RemoveDirectory { path }
            | FileAct::SetAttributes { path }
            | FileAct::Unknown { request: path } => path.0.len(),
            FileAct::Sync { .. } => 0,
        },
        _ => 0,
    }
}

/// Why a request is not passed on.
struct Refusal {
    code: u32,
    denial: FileDenial,
    /// What is told of it; nothing if it belongs to a transfer that will be.
    act: Option<Box<FileAct>>,
}

impl Refusal {
    fn of(act: FileAct) -> impl FnOnce(FileDenial) -> Self {
        |denial| Self { code: status::PERMISSION_DENIED, denial, act: Some(Box::new(act)) }
    }

    fn silent(denial: FileDenial) -> Self {
        Self { code: status::PERMISSION_DENIED, denial, act: None }
    }
}

/// How far the two ends have come with their greetings (§4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greeting {
    Nothing,
    /// INIT was sent.
    Init,
    /// VERSION came.
    Version,
}

/// What was judged to pass: what waits for the reply, and the content that follows.
type Allowed = (Pending, Option<Cursor>);

#[derive(Debug)]
pub(super) struct Tracker {
    terms: FileTerms,
    spent: Arc<Spent>,
    hash: bool,
    strict: bool,
    greeting: Greeting,
    /// The login's home on the target, absolute and resolved.
    home: Option<Vec<u8>>,
    pending: HashMap<u32, Pending>,
    handles: HashMap<Vec<u8>, Opened>,
    /// Also those whose close is under way.
    files: HashMap<u64, File>,
    next_file: u64,
    next_own: u32,
    tracked: usize,
    room: Room,
}

impl Tracker {
    pub(super) fn new(terms: FileTerms, spent: Arc<Spent>, hash: bool) -> Self {
        Self {
            strict: terms.is_strict(),
            terms,
            spent,
            hash,
            greeting: Greeting::Nothing,
            home: None,
            pending: HashMap::new(),
            handles: HashMap::new(),
            files: HashMap::new(),
            next_file: 0,
            next_own: u32::MAX,
            tracked: 0,
            room: Room::of(MOST_EARLY),
        }
    }

    pub(super) fn is_strict(&self) -> bool {
        self.strict
    }

    /// Judges a request.
    pub(super) fn request(&mut self, head: &[u8], desk: &mut Desk) -> Result<Verdict, Unreadable> {
        if head.get(4) == Some(&kind::INIT) {
            return self.init(head);
        }
        if self.greeting == Greeting::Nothing {
            return Err("a request came before INIT");
        }
        let (id, call) = wire::call(head).map_err(|_| "a request ends before its fields do")?;
        self.check_id(id)?;
        let judged = self.judge(&call, id, desk);
        match judged {
            Ok((pending, content)) => {
                self.expect(id, pending);
                Ok(self.resolved(head, &call).map_or(Verdict::Pass(content), Verdict::Replace))
            }
            Err(refusal) => {
                refuse(id, refusal, desk);
                Ok(Verdict::Drop)
            }
        }
    }

    /// Refuses a request whose head is too long; `head` goes up to its id.
    pub(super) fn oversized(&mut self, head: &[u8], desk: &mut Desk) -> Result<Verdict, Unreadable> {
        if self.greeting == Greeting::Nothing {
            return Err("a request came before INIT");
        }
        let id = Reader(head.get(5..).unwrap_or_default()).u32().map_err(|_| "a request has no id")?;
        self.check_id(id)?;
        refuse(id, Refusal { code: status::FAILURE, denial: FileDenial::TooLong, act: None }, desk);
        Ok(Verdict::Drop)
    }

    fn init(&mut self, head: &[u8]) -> Result<Verdict, Unreadable> {
        if self.greeting != Greeting::Nothing {
            return Err("INIT came twice");
        }
        self.greeting = Greeting::Init;
        match Reader(head.get(5..).unwrap_or_default()).u32() {
            Ok(wire::VERSION) => Ok(Verdict::Pass(None)),
            Ok(version) if version > wire::VERSION => Ok(Verdict::Replace(wire::init())),
            _ => Err("INIT offers no version that is spoken"),
        }
    }

    fn check_id(&self, id: u32) -> Result<(), Unreadable> {
        if self.pending.contains_key(&id) {
            return Err("an id was used for two requests at once");
        }
        if self.pending.len() >= MOST_REQUESTS {
            return Err("too many requests wait for replies");
        }
        Ok(())
    }

    fn judge(&mut self, call: &Call<'_>, id: u32, desk: &mut Desk) -> Result<Allowed, Refusal> {
        // Two paths of a request, and what is kept of a home beside them.
        if self.tracked > MOST_TRACKED && !matches!(call, Call::Close { .. }) {
            return Err(Refusal { code: status::FAILURE, denial: FileDenial::TooMany, act: None });
        }
        let plain = |pending| Ok((pending, None));
        match *call {
            Call::Open { path, flags } => self.judge_open(path, flags),
            Call::Close { handle } => self.judge_close(handle, id, desk),
            Call::Read { handle, offset } => self.judge_read(handle, offset),
            Call::Write { handle, offset, length } => self.judge_write(handle, offset, length),
            Call::Look { path, reply } => {
                self.ask(&FileRequest::Look { path }, || FileAct::Look { path: self.shown(path) })?;
                plain(Pending::Reply(reply))
            }
            Call::OpenDir { path } => {
                self.ask(&FileRequest::List { path }, || FileAct::Look { path: self.shown(path) })?;
                self.check_handles()?;
                plain(Pending::OpenDir)
            }
            Call::LookAt { handle, reply } => match self.handles.get(handle) {
                None if self.strict => Err(Refusal::silent(FileDenial::Handle)),
                Some(_) | None => plain(Pending::Reply(reply)),
            },
            Call::SetStat { path, resizes } => {
                let request = if resizes { FileRequest::Resize { path } } else { FileRequest::Alter { path } };
                self.act(&request, FileAct::SetAttributes { path: self.shown(path) })
            }
            Call::FsetStat { handle, size } => self.judge_fsetstat(handle, size),
            Call::Remove { path } => self.act(&FileRequest::Alter { path }, FileAct::Remove { path: self.shown(path) }),
            Call::MkDir { path } => {
                self.act(&FileRequest::Alter { path }, FileAct::MakeDirectory { path: self.shown(path) })
            }
            Call::RmDir { path } => {
                self.act(&FileRequest::Alter { path }, FileAct::RemoveDirectory { path: self.shown(path) })
            }
            Call::Rename { from, to } => {
                let act = FileAct::Rename { from: self.shown(from), to: self.shown(to) };
                if self.terms.has_list() && self.is_uploading_below(from) {
                    return Err(Refusal::of(act)(FileDenial::ListedOnly { what: ListedOnly::Busy }));
                }
                self.act(&FileRequest::Rename { from, to }, act)
            }
            Call::Symlink { target, link } => {
                // A target is not resolved: it is what the link will say.
                let act = FileAct::Symlink { link: self.shown(link), target: target.into() };
                self.act(&FileRequest::Symlink { target, link }, act)
            }
            Call::Hardlink { target, link } => {
                let act = FileAct::Hardlink { link: self.shown(link), target: self.shown(target) };
                self.act(&FileRequest::Hardlink { target, link }, act)
            }
            Call::Copy { from, to, bytes } => self.judge_copy(from, to, bytes),
            Call::RealPath { path } => {
                let of_home = matches!(Place::of(path, None), Ok(Place::InHome(path)) if path.is_empty());
                plain(Pending::RealPath { of_home })
            }
            Call::Ask { reply } => plain(Pending::Reply(reply)),
            Call::Unknown { .. } if !self.strict => plain(Pending::Any),
            Call::Unknown { name } => Err(Refusal {
                code: status::OP_UNSUPPORTED,
                denial: FileDenial::UnknownRequest,
                // The name is up to a head long; this is enough to know it by.
                act: Some(Box::new(FileAct::Unknown { request: name.get(..64).unwrap_or(name).into() })),
            }),
        }
    }

    fn ask(&self, request: &FileRequest<'_>, act: impl FnOnce() -> FileAct) -> Result<(), Refusal> {
        if !self.strict {
            return Ok(());
        }
        self.terms.judge(request, self.home.as_deref()).map_err(|denial| Refusal::of(act())(denial))
    }

    fn act(&self, request: &FileRequest<'_>, act: FileAct) -> Result<Allowed, Refusal> {
        if self.strict
            && let Err(denial) = self.terms.judge(request, self.home.as_deref())
        {
            return Err(Refusal::of(act)(denial));
        }
        Ok((Pending::Act(Box::new(act)), None))
    }

    fn judge_open(&self, path: &[u8], flags: u32) -> Result<Allowed, Refusal> {
        // As OpenSSH's server takes them: what does not ask to write can read, and O_RDONLY with O_TRUNC empties a file.
        let reads = flags & open::READ != 0 || flags & open::WRITE == 0;
        let writes = flags & (open::WRITE | open::APPEND | open::CREAT | open::TRUNC | open::EXCL) != 0;
        let appends = flags & open::APPEND != 0;
        let new = open::CREAT | open::EXCL;
        let replaces = flags & open::TRUNC != 0 || flags & new == new;
        let shown = self.shown(path);
        let direction = if writes { Direction::Upload } else { Direction::Download };
        let act = || FileAct::Open { path: shown.clone(), direction };
        let mut may_read = reads;
        if writes {
            self.ask(&FileRequest::Write { path, replaces: replaces && !appends }, act)?;
            may_read = reads && self.ask(&FileRequest::Read { path }, act).is_ok();
            if self.terms.has_list() && self.is_uploading(&shown) {
                return Err(Refusal::of(act())(FileDenial::ListedOnly { what: ListedOnly::Busy }));
            }
        } else {
            self.ask(&FileRequest::Read { path }, act)?;
        }
        self.check_handles()?;
        let file = File {
            path: shown,
            handle: Vec::new(),
            writes,
            may_read,
            replaces,
            appends,
            upload: Content::new(writes && (self.hash || self.terms.has_list())),
            download: Content::new(may_read && self.hash),
            denial: None,
            failed: None,
        };
        Ok((Pending::Open(Box::new(file)), None))
    }

    fn check_handles(&self) -> Result<(), Refusal> {
        // Those that are being opened are bounded as requests.
        if self.handles.len() < MOST_HANDLES {
            return Ok(());
        }
        Err(Refusal { code: status::FAILURE, denial: FileDenial::TooMany, act: None })
    }

    /// Whether `path` is open for writing, or will be.
    fn is_uploading(&self, path: &FilePath) -> bool {
        let opening = self.pending.values().filter_map(|pending| match pending {
            Pending::Open(file) => Some(&**file),
            _ => None,
        });
        self.files.values().chain(opening).any(|file| file.writes && file.path == *path)
    }

    fn is_uploading_below(&self, path: &[u8]) -> bool {
        let home = self.home.as_deref();
        let Ok(above) = Place::of(path, home) else {
            return true;
        };
        let opening = self.pending.values().filter_map(|pending| match pending {
            Pending::Open(file) => Some(&**file),
            _ => None,
        });
        let mut files = self.files.values().chain(opening).filter(|file| file.writes);
        files.any(|file| Place::of(&file.path.0, home).is_ok_and(|place| above.holds(&place)))
    }

    fn judge_close(&mut self, handle: &[u8], id: u32, desk: &mut Desk) -> Result<Allowed, Refusal> {
        let number = match self.handles.remove(handle) {
            Some(Opened::File(number)) => number,
            Some(Opened::Directory) => return Ok((Pending::Reply(kind::STATUS), None)),
            None if self.strict => return Err(Refusal::silent(FileDenial::Handle)),
            None => return Ok((Pending::Reply(kind::STATUS), None)),
        };
        match self.condemned(number) {
            Some(denial) => {
                let own = self.own_id(&[id]);
                desk.to_target.inject_later(Piece::Injected(wire::empty(own, handle)));
                self.expect(own, Pending::Ours);
                if let Some(file) = self.files.get_mut(&number) {
                    file.denial = Some(denial);
                }
                Ok((Pending::CloseToUndo(number), None))
            }
            None => Ok((Pending::Close(number), None)),
        }
    }

    /// Why the upload must not stay, if so.
    fn condemned(&self, number: u64) -> Option<FileDenial> {
        let file = self.files.get(&number).filter(|file| file.writes && self.terms.has_list())?;
        let whole = file.upload.start() == 0 && file.replaces && !file.appends;
        let digest = if whole { file.upload.digest() } else { Digest::NotSequential };
        self.terms.judge_content(&file.path, digest).err()
    }

    fn file(&self, handle: &[u8]) -> Option<u64> {
        match self.handles.get(handle) {
            Some(Opened::File(number)) => Some(*number),
            Some(Opened::Directory) | None => None,
        }
    }

    fn judge_read(&mut self, handle: &[u8], offset: u64) -> Result<Allowed, Refusal> {
        let number = self.file(handle);
        let Some((number, file)) = number.and_then(|number| Some((number, self.files.get_mut(&number)?))) else {
            return if self.strict { Err(Refusal::silent(FileDenial::Handle)) } else { Ok((Pending::Any, None)) };
        };
        if self.strict && !file.may_read {
            let request = FileRequest::Read { path: &file.path.0 };
            let denial = self.terms.judge(&request, self.home.as_deref()).err().unwrap_or(FileDenial::Handle);
            file.denial.get_or_insert_with(|| denial.clone());
            return Err(Refusal::silent(denial));
        }
        file.download.asked(offset);
        Ok((Pending::Read { file: number, offset }, None))
    }

    fn judge_write(&mut self, handle: &[u8], offset: u64, length: u32) -> Result<Allowed, Refusal> {
        let number = self.file(handle);
        let Some((number, file)) = number.and_then(|number| Some((number, self.files.get_mut(&number)?))) else {
            return if self.strict { Err(Refusal::silent(FileDenial::Handle)) } else { Ok((Pending::Any, None)) };
        };
        if !file.writes && self.strict {
            file.denial.get_or_insert(FileDenial::Handle);
            return Err(Refusal::silent(FileDenial::Handle));
        }
        // What comes after a hole is not taken: a client that looks at its last answer only would think that all went well.
        if let Some(denial @ (FileDenial::FileBytes { .. } | FileDenial::TotalBytes { .. })) = &file.denial {
            return Err(Refusal::silent(denial.clone()));
        }
        let length = u64::from(length);
        if let Err(denial) = self.terms.spend(Direction::Upload, file.upload.bytes, length, &self.spent) {
            file.denial.get_or_insert_with(|| denial.clone());
            file.upload.spoil(&mut self.room);
            return Err(Refusal::silent(denial));
        }
        if file.appends {
            // The target appends wherever the file ends.
            file.upload.spoil(&mut self.room);
        }
        file.upload.asked(offset);
        Ok((Pending::Write { file: number }, Some(Cursor { file: number, direction: Direction::Upload, offset })))
    }

    fn judge_fsetstat(&mut self, handle: &[u8], size: Option<u64>) -> Result<Allowed, Refusal> {
        let resizes = size.is_some();
        let number = self.file(handle);
        let Some(file) = number.and_then(|number| self.files.get_mut(&number)) else {
            return if self.strict { Err(Refusal::silent(FileDenial::Handle)) } else { Ok((Pending::Any, None)) };
        };
        let path = file.path.clone();
        let request =
            if resizes { FileRequest::Resize { path: &path.0 } } else { FileRequest::Alter { path: &path.0 } };
        let allowed = self.act(&request, FileAct::SetAttributes { path: path.clone() })?;
        if resizes && let Some((number, file)) = number.and_then(|number| Some((number, self.files.get_mut(&number)?)))
        {
            // OpenSSH's scp writes into the file that there is, from its beginning, and cuts off what is left of it.
            if size.is_some() && size == file.upload.end_of_whole() {
                return Ok((Pending::CutToSize { file: number }, None));
            }
            file.upload.spoil(&mut self.room);
        }
        Ok(allowed)
    }

    fn judge_copy(&mut self, from: &[u8], to: &[u8], bytes: u64) -> Result<Allowed, Refusal> {
        let number = self.file(to);
        let from = self.file(from).and_then(|number| self.files.get(&number));
        let to = number.and_then(|number| self.files.get(&number));
        let (Some(from), Some(to)) = (from, to) else {
            return if self.strict { Err(Refusal::silent(FileDenial::Handle)) } else { Ok((Pending::Any, None)) };
        };
        let act = FileAct::Copy { from: from.path.clone(), to: to.path.clone(), bytes: (bytes != 0).then_some(bytes) };
        if self.strict && !(from.may_read && to.writes) {
            return Err(Refusal::of(act)(FileDenial::Handle));
        }
        if self.terms.has_list() {
            return Err(Refusal::of(act)(FileDenial::ListedOnly { what: ListedOnly::Copy }));
        }
        if let Some(file) = number.and_then(|number| self.files.get_mut(&number)) {
            file.upload.spoil(&mut self.room);
        }
        Ok((Pending::Act(Box::new(act)), None))
    }

    /// The request with its paths resolved, if it matters where they lead and one has a `..` that the target could take otherwise.
    fn resolved(&self, head: &[u8], call: &Call<'_>) -> Option<Bytes> {
        if !self.terms.needs_home() {
            return None;
        }
        let resolved = |path: &[u8]| Place::of(path, self.home.as_deref()).ok().map(|place| place.to_path());
        let (first, second) = match *call {
            Call::Open { path, .. }
            | Call::Look { path, .. }
            | Call::SetStat { path, .. }
            | Call::OpenDir { path }
            | Call::Remove { path }
            | Call::MkDir { path }
            | Call::RmDir { path } => (path, None),
            Call::Rename { from, to } => (from, Some(to)),
            Call::Symlink { target, link } | Call::Hardlink { target, link } => (target, Some(link)),
            Call::Close { .. }
            | Call::Read { .. }
            | Call::Write { .. }
            | Call::LookAt { .. }
            | Call::FsetStat { .. }
            | Call::RealPath { .. }
            | Call::Copy { .. }
            | Call::Ask { .. }
            | Call::Unknown { .. } => return None,
        };
        if !climbs(first) && !second.is_some_and(climbs) {
            return None;
        }
        let new_first = resolved(first)?;
        match second {
            None => wire::with_paths(head, &[(first, &new_first)]),
            Some(second) => wire::with_paths(head, &[(first, &new_first), (second, &resolved(second)?)]),
        }
    }

    /// How `path` is told of: resolved, and absolute if it can be.
    fn shown(&self, path: &[u8]) -> FilePath {
        match Place::of(path, self.home.as_deref()) {
            Ok(place) => FilePath(place.to_path()),
            Err(_) => path.into(),
        }
    }

    fn expect(&mut self, id: u32, pending: Pending) {
        self.tracked += weight(&pending);
        self.pending.insert(id, pending);
    }

    /// An id that is neither under way nor among `others`.
    fn own_id(&mut self, others: &[u32]) -> u32 {
        loop {
            let id = self.next_own;
            self.next_own = self.next_own.wrapping_sub(1);
            if !self.pending.contains_key(&id) && !others.contains(&id) {
                return id;
            }
        }
    }

    /// Whether the reply of `kind` to the request `id` must be seen whole.
    pub(super) fn wants_whole(&self, kind: u8, id: u32) -> bool {
        match kind {
            kind::VERSION => self.terms.needs_home(),
            kind::NAME => {
                matches!(self.pending.get(&id), Some(Pending::RealPath { of_home: true } | Pending::AskHome { .. }))
            }
            _ => false,
        }
    }

    /// Judges a reply.
    pub(super) fn reply(&mut self, head: &[u8], desk: &mut Desk) -> Result<Verdict, Unreadable> {
        let short = |_| "a reply ends before its fields do";
        let mut fields = Reader(head.get(4..).unwrap_or_default());
        let (kind, id) = (fields.byte().map_err(short)?, fields.u32().map_err(short)?);
        if kind == kind::VERSION {
            return self.version(head, id, desk);
        }
        let Some(pending) = self.pending.remove(&id) else {
            return Err("a reply answers no request");
        };
        self.tracked -= weight(&pending);
        let pass = Ok(Verdict::Pass(None));
        let code = if kind == kind::STATUS { Some(fields.u32().map_err(short)?) } else { None };
        match (pending, kind) {
            (Pending::AskHome { version }, _) => {
                self.learn_home(kind, &mut fields);
                self.greeting = Greeting::Version;
                desk.to_client.inject_later(Piece::Forward(version));
                Ok(Verdict::Drop)
            }
            (Pending::Ours, _) => Ok(Verdict::Drop),
            (Pending::Undo { id, file }, _) => {
                if let Some(denial) = &file.denial {
                    let told = wire::status(id, status::PERMISSION_DENIED, &denial.to_string());
                    desk.to_client.inject_later(Piece::Injected(told));
                }
                desk.operations.push_back(file.operation(FileResult::Done));
                Ok(Verdict::Drop)
            }
            (Pending::Open(file), kind::HANDLE) => {
                let handle = fields.string().map_err(short)?;
                self.opened(handle, Some(file))?;
                pass
            }
            (Pending::OpenDir, kind::HANDLE) => {
                let handle = fields.string().map_err(short)?;
                self.opened(handle, None)?;
                pass
            }
            (Pending::Open(file), kind::STATUS) => {
                let direction = if file.writes { Direction::Upload } else { Direction::Download };
                let act = FileAct::Open { path: file.path, direction };
                let code = code.unwrap_or(status::FAILURE);
                desk.operations.push_back(FileOperation { act, result: FileResult::Failed { code } });
                pass
            }
            (Pending::Close(number), kind::STATUS) => {
                let Some(file) = self.forget(number) else {
                    return pass;
                };
                // Refusals overtake the target's answers to what was sent before them, and OpenSSH's sftp goes by the answer that
                // came last: only the close makes it see that the upload is not whole.
                let short =
                    file.denial.as_ref().filter(|_| file.writes).map(|denial| {
                        Verdict::Replace(wire::status(id, status::PERMISSION_DENIED, &denial.to_string()))
                    });
                desk.operations.push_back(file.operation(result(code)));
                short.map_or(pass, Ok)
            }
            (Pending::CloseToUndo(number), kind::STATUS) => {
                let Some(file) = self.forget(number) else {
                    return pass;
                };
                let own = self.own_id(&[id]);
                desk.to_target.inject(Piece::Injected(wire::path_request(kind::REMOVE, own, &file.path.0)));
                self.expect(own, Pending::Undo { id, file: Box::new(file) });
                Ok(Verdict::Drop)
            }
            (Pending::Read { file, offset }, kind::DATA) => {
                let length = fields.u32().map_err(short)?;
                self.judge_data(id, file, offset, length, desk)
            }
            (Pending::Write { file }, kind::STATUS) => {
                if code != Some(status::OK)
                    && let Some(file) = self.files.get_mut(&file)
                {
                    file.failed = file.failed.or(code);
                    file.upload.spoil(&mut self.room);
                }
                pass
            }
            (Pending::CutToSize { file }, kind::STATUS) => {
                if let Some(file) = self.files.get_mut(&file) {
                    match code {
                        Some(status::OK) => file.replaces = true,
                        code => file.failed = file.failed.or(code),
                    }
                }
                pass
            }
            (Pending::Act(act), kind::STATUS) => {
                desk.operations.push_back(FileOperation { act: *act, result: result(code) });
                pass
            }
            (Pending::RealPath { of_home }, kind::NAME) => {
                if of_home {
                    self.learn_home(kind, &mut fields);
                }
                pass
            }
            (Pending::Any, _)
            | (Pending::OpenDir | Pending::Read { .. } | Pending::RealPath { .. } | Pending::Reply(_), kind::STATUS) => {
                pass
            }
            (Pending::Reply(wanted), kind) if wanted == kind => pass,
            _ => Err("a reply is of a kind that does not answer its request"),
        }
    }

    fn version(&mut self, head: &[u8], version: u32, desk: &mut Desk) -> Result<Verdict, Unreadable> {
        if self.greeting != Greeting::Init || self.pending.values().any(|p| matches!(p, Pending::AskHome { .. })) {
            return Err("VERSION came unasked");
        }
        if version != wire::VERSION {
            return Err("the target speaks another version than 3");
        }
        if !self.terms.needs_home() {
            self.greeting = Greeting::Version;
            return Ok(Verdict::Pass(None));
        }
        let own = self.own_id(&[]);
        desk.to_target.inject(Piece::Injected(wire::path_request(kind::REALPATH, own, b".")));
        self.expect(own, Pending::AskHome { version: Bytes::copy_from_slice(head) });
        Ok(Verdict::Drop)
    }

    /// The first answer counts: the home does not move.
    fn learn_home(&mut self, kind: u8, fields: &mut Reader<'_>) {
        if kind != kind::NAME || self.home.is_some() || fields.u32() != Ok(1) {
            return;
        }
        if let Ok(path) = fields.string()
            && let Ok(Place::Absolute(home)) = Place::of(path, None)
        {
            self.home = Some(home);
        }
    }

    fn opened(&mut self, handle: &[u8], file: Option<Box<File>>) -> Result<(), Unreadable> {
        if handle.len() > wire::MOST_HANDLE {
            return Err("a handle is longer than the protocol allows");
        }
        if self.handles.contains_key(handle) {
            return Err("a handle was given out twice");
        }
        let opened = match file {
            None => Opened::Directory,
            Some(mut file) => {
                let number = self.next_file;
                self.next_file += 1;
                file.handle = handle.to_vec();
                self.tracked += file.path.0.len();
                self.files.insert(number, *file);
                Opened::File(number)
            }
        };
        self.handles.insert(handle.to_vec(), opened);
        Ok(())
    }

    fn forget(&mut self, number: u64) -> Option<File> {
        let file = self.files.remove(&number)?;
        self.tracked -= file.path.0.len();
        Some(file)
    }

    fn judge_data(
        &mut self,
        id: u32,
        number: u64,
        offset: u64,
        length: u32,
        desk: &mut Desk,
    ) -> Result<Verdict, Unreadable> {
        let Some(file) = self.files.get_mut(&number) else {
            return if self.strict { Err("content came after its file was closed") } else { Ok(Verdict::Pass(None)) };
        };
        let spent = self.terms.spend(Direction::Download, file.download.bytes, length.into(), &self.spent);
        if let Err(denial) = spent {
            let told = wire::status(id, status::PERMISSION_DENIED, &denial.to_string());
            desk.to_client.inject_later(Piece::Injected(told));
            file.download.spoil(&mut self.room);
            file.denial.get_or_insert(denial);
            return Ok(Verdict::Drop);
        }
        Ok(Verdict::Pass(Some(Cursor { file: number, direction: Direction::Download, offset })))
    }

    /// Takes a piece of a file's content.
    pub(super) fn content(&mut self, cursor: &mut Cursor, piece: &[u8]) {
        if let Some(file) = self.files.get_mut(&cursor.file) {
            file.content(cursor.direction).take(cursor.offset, piece, &mut self.room);
        }
        cursor.offset = cursor.offset.saturating_add(piece.len() as u64);
    }

    /// The rest of a piece of content will not come as the client meant it.
    pub(super) fn spoil(&mut self, cursor: &Cursor) {
        if let Some(file) = self.files.get_mut(&cursor.file) {
            file.content(cursor.direction).spoil(&mut self.room);
        }
    }

    pub(super) fn has_uploads_to_undo(&self) -> bool {
        self.terms.has_list()
            && self.handles.values().any(|opened| match opened {
                Opened::File(number) => self.files.get(number).is_some_and(|file| file.writes),
                Opened::Directory => false,
            })
    }

    /// Whether something that must not stay is on its way out, and the target has not answered yet.
    pub(super) fn is_undoing(&self) -> bool {
        let undoes =
            |pending: &Pending| matches!(pending, Pending::CloseToUndo(_) | Pending::Undo { .. } | Pending::Ours);
        self.pending.values().any(undoes)
    }

    /// Empties, closes and removes what was not closed and must not stay.
    pub(super) fn undo_uploads(&mut self, desk: &mut Desk) {
        let mut open: Vec<u64> = self.files.keys().copied().collect();
        open.sort_unstable();
        for number in open {
            let Some(file) = self.files.get(&number) else { continue };
            // Not those whose close is under way.
            if !self.handles.contains_key(&file.handle) {
                continue;
            }
            let Some(denial) = self.condemned(number) else { continue };
            let Some(mut file) = self.forget(number) else { continue };
            self.handles.remove(&file.handle);
            file.denial = Some(denial);
            let ids = [(); 3].map(|()| {
                let id = self.own_id(&[]);
                self.expect(id, Pending::Ours);
                id
            });
            for packet in [
                wire::empty(ids[0], &file.handle),
                wire::close(ids[1], &file.handle),
                wire::path_request(kind::REMOVE, ids[2], &file.path.0),
            ] {
                desk.to_target.inject(Piece::Injected(packet));
            }
            desk.operations.push_back(file.operation(FileResult::Done));
        }
    }

    /// Tells of all that is under way as interrupted.
    pub(super) fn finish(&mut self, desk: &mut Desk) {
        let mut pending: Vec<_> = self.pending.drain().collect();
        pending.sort_unstable_by_key(|&(id, _)| id);
        let mut files: Vec<_> = self.files.drain().collect();
        files.sort_unstable_by_key(|&(number, _)| number);
        self.handles.clear();
        self.tracked = 0;
        for (_, file) in files {
            desk.operations.push_back(file.operation(FileResult::Interrupted));
        }
        for (_, pending) in pending {
            let act = match pending {
                Pending::Open(file) => {
                    let direction = if file.writes { Direction::Upload } else { Direction::Download };
                    FileAct::Open { path: file.path, direction }
                }
                Pending::Undo { file, .. } => {
                    desk.operations.push_back(file.operation(FileResult::Interrupted));
                    continue;
                }
                Pending::Act(act) => *act,
                _ => continue,
            };
            desk.operations.push_back(FileOperation { act, result: FileResult::Interrupted });
        }
    }
}

fn result(code: Option<u32>) -> FileResult {
    match code {
        Some(status::OK | status::EOF) => FileResult::Done,
        Some(code) => FileResult::Failed { code },
        None => FileResult::Interrupted,
    }
}

/// Answers a request in the target's place.
fn refuse(id: u32, refusal: Refusal, desk: &mut Desk) {
    let Refusal { code, denial, act } = refusal;
    desk.to_client.inject(Piece::Injected(wire::status(id, code, &denial.to_string())));
    if let Some(act) = act {
        desk.operations.push_back(FileOperation { act: *act, result: FileResult::Denied { denial } });
    }
}
