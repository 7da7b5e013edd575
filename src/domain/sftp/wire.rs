//! Heads of SFTP packets: what has to be seen of a packet before it may pass.
//!
//! ```text
//! packet = length:u32 type:u8 body      (big-endian; length counts what follows it; draft-ietf-secsh-filexfer-02 §3)
//! ```
//!
//! The head of WRITE and DATA ends where the content begins, that of other requests with the packet, and that of other
//! replies as soon as they can be matched.

use bytes::{BufMut, Bytes, BytesMut};

/// The longest packet that is accepted, as its length field says: OpenSSH's limit.
pub const MOST_PACKET: u32 = 256 << 10;

/// The longest head that is gathered, in bytes: two paths of `PATH_MAX`, and attributes.
pub const MOST_HEAD: usize = 16 << 10;

/// The longest handle, in bytes (§6.3).
pub const MOST_HANDLE: usize = 256;

/// The version that is spoken.
pub(crate) const VERSION: u32 = 3;

/// Packet types (§3).
pub(crate) mod kind {
    pub(crate) const INIT: u8 = 1;
    pub(crate) const VERSION: u8 = 2;
    pub(crate) const OPEN: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const READ: u8 = 5;
    pub(crate) const WRITE: u8 = 6;
    pub(crate) const LSTAT: u8 = 7;
    pub(crate) const FSTAT: u8 = 8;
    pub(crate) const SETSTAT: u8 = 9;
    pub(crate) const FSETSTAT: u8 = 10;
    pub(crate) const OPENDIR: u8 = 11;
    pub(crate) const READDIR: u8 = 12;
    pub(crate) const REMOVE: u8 = 13;
    pub(crate) const MKDIR: u8 = 14;
    pub(crate) const RMDIR: u8 = 15;
    pub(crate) const REALPATH: u8 = 16;
    pub(crate) const STAT: u8 = 17;
    pub(crate) const RENAME: u8 = 18;
    pub(crate) const READLINK: u8 = 19;
    pub(crate) const SYMLINK: u8 = 20;
    pub(crate) const STATUS: u8 = 101;
    pub(crate) const HANDLE: u8 = 102;
    pub(crate) const DATA: u8 = 103;
    pub(crate) const NAME: u8 = 104;
    pub(crate) const ATTRS: u8 = 105;
    pub(crate) const EXTENDED: u8 = 200;
    pub(crate) const EXTENDED_REPLY: u8 = 201;
}

/// Status codes (§7).
pub(crate) mod status {
    pub(crate) const OK: u32 = 0;
    pub(crate) const EOF: u32 = 1;
    pub(crate) const PERMISSION_DENIED: u32 = 3;
    pub(crate) const FAILURE: u32 = 4;
    pub(crate) const OP_UNSUPPORTED: u32 = 8;
}

/// Flags of OPEN (§6.3).
pub(crate) mod open {
    pub(crate) const READ: u32 = 1;
    pub(crate) const WRITE: u32 = 2;
    pub(crate) const APPEND: u32 = 4;
    pub(crate) const CREAT: u32 = 8;
    pub(crate) const TRUNC: u32 = 16;
    pub(crate) const EXCL: u32 = 32;
}

/// The flag of attributes that hold a size (§5).
const ATTR_SIZE: u32 = 1;

/// Reads fields off the front of a packet.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

/// The packet ends before the field does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short;

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8, Short> {
        let (byte, rest) = self.0.split_first().ok_or(Short)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Short> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Short)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Short> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Short)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*bytes))
    }

    pub(crate) fn string(&mut self) -> Result<&'a [u8], Short> {
        let length = self.u32()? as usize;
        let (string, rest) = self.0.split_at_checked(length).ok_or(Short)?;
        self.0 = rest;
        Ok(string)
    }

    /// Whether attributes (§5) set a size. Absent attributes set nothing.
    fn sets_size(&mut self) -> bool {
        self.u32().is_ok_and(|flags| flags & ATTR_SIZE != 0)
    }

    /// The size that attributes set; `u64::MAX` if they set more, or are cut off.
    fn new_size(&mut self) -> Option<u64> {
        let flags = self.u32().ok().filter(|flags| flags & ATTR_SIZE != 0)?;
        let size = self.u64().unwrap_or(u64::MAX);
        Some(if flags == ATTR_SIZE { size } else { u64::MAX })
    }
}

/// How much of a packet must be there before it is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// At least so many bytes more.
    Need(usize),
    /// The head is so many bytes long, the packet `whole`, and all of the head is there.
    Head { head: usize, whole: usize },
    /// The packet's head would be longer than [`MOST_HEAD`]; all up to the id is there.
    Oversized { whole: usize },
}

/// A packet cannot be what it says.
pub(crate) type Unreadable = &'static str;

/// Bytes of length, type and id.
pub(crate) const ID_END: usize = 9;

/// Looks at the front of a stream of requests.
pub(crate) fn request_extent(bytes: &[u8]) -> Result<Extent, Unreadable> {
    let (kind, whole) = match start(bytes)? {
        Ok(start) => start,
        Err(need) => return Ok(need),
    };
    if kind != kind::WRITE {
        return whole_extent(bytes, kind, whole);
    }
    // id, handle, offset, length of the content
    let handle_at = ID_END + 4;
    let Some(handle) = bytes.get(ID_END..).and_then(|rest| rest.first_chunk()) else {
        return need_of(bytes, handle_at, whole);
    };
    let handle = u32::from_be_bytes(*handle) as usize;
    if handle > MOST_HANDLE {
        return Err("a handle is longer than the protocol allows");
    }
    let head = handle_at + handle + 8 + 4;
    let Some(content) = bytes.get(head - 4..).and_then(|rest| rest.first_chunk()) else {
        return need_of(bytes, head, whole);
    };
    if head + u32::from_be_bytes(*content) as usize != whole {
        return Err("a write's content does not fill its packet");
    }
    Ok(Extent::Head { head, whole })
}

/// Looks at the front of a stream of replies. `wants_whole` says whether the reply of this kind to this request must be seen whole.
pub(crate) fn reply_extent(bytes: &[u8], wants_whole: impl Fn(u8, u32) -> bool) -> Result<Extent, Unreadable> {
    let (kind, whole) = match start(bytes)? {
        Ok(start) => start,
        Err(need) => return Ok(need),
    };
    let Some(id) = bytes.get(5..).and_then(|rest| rest.first_chunk()) else {
        return need_of(bytes, ID_END, whole);
    };
    let id = u32::from_be_bytes(*id);
    match kind {
        kind::HANDLE => whole_extent(bytes, kind, whole),
        _ if wants_whole(kind, id) => whole_extent(bytes, kind, whole),
        kind::STATUS | kind::DATA => {
            // id, and code or length of the content
            let head = ID_END + 4;
            let Some(content) = bytes.get(ID_END..).and_then(|rest| rest.first_chunk()) else {
                return need_of(bytes, head, whole);
            };
            if kind == kind::DATA && head + u32::from_be_bytes(*content) as usize != whole {
                return Err("a read's content does not fill its packet");
            }
            Ok(Extent::Head { head, whole })
        }
        _ => Ok(Extent::Head { head: ID_END, whole }),
    }
}

/// Type and whole length of the packet at the front, or what is needed to know them.
fn start(bytes: &[u8]) -> Result<Result<(u8, usize), Extent>, Unreadable> {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Ok(Err(Extent::Need(5 - bytes.len())));
    };
    let length = u32::from_be_bytes(*length);
    if length == 0 || length > MOST_PACKET {
        return Err("a packet is empty or longer than 256 KiB");
    }
    Ok(rest.first().map(|&kind| (kind, 4 + length as usize)).ok_or(Extent::Need(1)))
}

fn need_of(bytes: &[u8], end: usize, whole: usize) -> Result<Extent, Unreadable> {
    if end > whole { Err("a packet ends before its fields do") } else { Ok(Extent::Need(end - bytes.len())) }
}

fn whole_extent(bytes: &[u8], kind: u8, whole: usize) -> Result<Extent, Unreadable> {
    if whole > MOST_HEAD {
        if matches!(kind, kind::INIT | kind::VERSION | kind::HANDLE) {
            return Err("a packet is longer than its kind needs");
        }
        return if bytes.len() < ID_END { need_of(bytes, ID_END, whole) } else { Ok(Extent::Oversized { whole }) };
    }
    if bytes.len() < whole { need_of(bytes, whole, whole) } else { Ok(Extent::Head { head: whole, whole }) }
}

/// One request, its id apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call<'a> {
    Open {
        path: &'a [u8],
        flags: u32,
    },
    Close {
        handle: &'a [u8],
    },
    Read {
        handle: &'a [u8],
        offset: u64,
    },
    /// `length` of the content, in bytes.
    Write {
        handle: &'a [u8],
        offset: u64,
        length: u32,
    },
    /// STAT, LSTAT, READLINK; `reply` is the packet that answers it.
    Look {
        path: &'a [u8],
        reply: u8,
    },
    /// FSTAT, READDIR, fsync, fstatvfs.
    LookAt {
        handle: &'a [u8],
        reply: u8,
    },
    /// Also lsetstat.
    SetStat {
        path: &'a [u8],
        resizes: bool,
    },
    /// `size`: the one that is set, and nothing else; greater than any file's if more is set.
    FsetStat {
        handle: &'a [u8],
        size: Option<u64>,
    },
    OpenDir {
        path: &'a [u8],
    },
    Remove {
        path: &'a [u8],
    },
    MkDir {
        path: &'a [u8],
    },
    RmDir {
        path: &'a [u8],
    },
    /// Also expand-path.
    RealPath {
        path: &'a [u8],
    },
    /// Also posix-rename.
    Rename {
        from: &'a [u8],
        to: &'a [u8],
    },
    Symlink {
        target: &'a [u8],
        link: &'a [u8],
    },
    Hardlink {
        target: &'a [u8],
        link: &'a [u8],
    },
    /// `bytes`: 0 means to the end.
    Copy {
        from: &'a [u8],
        to: &'a [u8],
        bytes: u64,
    },
    /// Asks for nothing that belongs to a file: limits, home-directory, users-groups-by-id.
    Ask {
        reply: u8,
    },
    /// Of a type or extension that is not known.
    Unknown {
        name: &'a [u8],
    },
}

/// Reads a request other than INIT from its head, `type` and id included.
pub(crate) fn call(head: &[u8]) -> Result<(u32, Call<'_>), Short> {
    let mut fields = Reader(head.get(4..).ok_or(Short)?);
    let kind = fields.byte()?;
    let id = fields.u32()?;
    let call = match kind {
        kind::OPEN => Call::Open { path: fields.string()?, flags: fields.u32()? },
        kind::CLOSE => Call::Close { handle: fields.string()? },
        kind::READ => Call::Read { handle: fields.string()?, offset: fields.u64()? },
        kind::WRITE => Call::Write { handle: fields.string()?, offset: fields.u64()?, length: fields.u32()? },
        kind::LSTAT | kind::STAT => Call::Look { path: fields.string()?, reply: kind::ATTRS },
        kind::READLINK => Call::Look { path: fields.string()?, reply: kind::NAME },
        kind::FSTAT => Call::LookAt { handle: fields.string()?, reply: kind::ATTRS },
        kind::READDIR => Call::LookAt { handle: fields.string()?, reply: kind::NAME },
        kind::SETSTAT => Call::SetStat { path: fields.string()?, resizes: fields.sets_size() },
        kind::FSETSTAT => Call::FsetStat { handle: fields.string()?, size: fields.new_size() },
        kind::OPENDIR => Call::OpenDir { path: fields.string()? },
        kind::REMOVE => Call::Remove { path: fields.string()? },
        kind::MKDIR => Call::MkDir { path: fields.string()? },
        kind::RMDIR => Call::RmDir { path: fields.string()? },
        kind::REALPATH => Call::RealPath { path: fields.string()? },
        kind::RENAME => Call::Rename { from: fields.string()?, to: fields.string()? },
        // OpenSSH's order, which is not the draft's (PROTOCOL §4.1).
        kind::SYMLINK => Call::Symlink { target: fields.string()?, link: fields.string()? },
        kind::EXTENDED => extension(fields.string()?, &mut fields)?,
        _ => Call::Unknown { name: b"" },
    };
    Ok((id, call))
}

/// OpenSSH's extensions (PROTOCOL §4).
fn extension<'a>(name: &'a [u8], fields: &mut Reader<'a>) -> Result<Call<'a>, Short> {
    Ok(match name {
        b"posix-rename@openssh.com" => Call::Rename { from: fields.string()?, to: fields.string()? },
        b"statvfs@openssh.com" => Call::Look { path: fields.string()?, reply: kind::EXTENDED_REPLY },
        b"fstatvfs@openssh.com" => Call::LookAt { handle: fields.string()?, reply: kind::EXTENDED_REPLY },
        b"hardlink@openssh.com" => Call::Hardlink { target: fields.string()?, link: fields.string()? },
        b"fsync@openssh.com" => Call::LookAt { handle: fields.string()?, reply: kind::STATUS },
        b"lsetstat@openssh.com" => Call::SetStat { path: fields.string()?, resizes: fields.sets_size() },
        b"limits@openssh.com" => Call::Ask { reply: kind::EXTENDED_REPLY },
        b"expand-path@openssh.com" => Call::RealPath { path: fields.string()? },
        b"copy-data" => {
            let (from, _offset, bytes) = (fields.string()?, fields.u64()?, fields.u64()?);
            Call::Copy { from, bytes, to: fields.string()? }
        }
        b"home-directory" => Call::Ask { reply: kind::NAME },
        b"users-groups-by-id@openssh.com" => Call::Ask { reply: kind::EXTENDED_REPLY },
        _ => Call::Unknown { name },
    })
}

/// A packet of `kind` about `id`.
fn packet(kind: u8, id: u32, fields: &[&[u8]]) -> Bytes {
    let body: usize = fields.iter().map(|field| field.len()).sum();
    let mut bytes = BytesMut::with_capacity(ID_END + body);
    // At most a path and a message long, far below 4 GiB.
    bytes.put_u32((ID_END - 4 + body) as u32);
    bytes.put_u8(kind);
    bytes.put_u32(id);
    fields.iter().for_each(|field| bytes.put_slice(field));
    bytes.freeze()
}

fn length_of(string: &[u8]) -> [u8; 4] {
    // As above.
    (string.len() as u32).to_be_bytes()
}

/// STATUS (§7).
pub(crate) fn status(id: u32, code: u32, message: &str) -> Bytes {
    let message = message.as_bytes();
    packet(kind::STATUS, id, &[&code.to_be_bytes(), &length_of(message), message, &length_of(b"en"), b"en"])
}

/// REMOVE, REALPATH or another request that is nothing but a path.
pub(crate) fn path_request(kind: u8, id: u32, path: &[u8]) -> Bytes {
    packet(kind, id, &[&length_of(path), path])
}

/// CLOSE.
pub(crate) fn close(id: u32, handle: &[u8]) -> Bytes {
    packet(kind::CLOSE, id, &[&length_of(handle), handle])
}

/// FSETSTAT that makes a file empty.
pub(crate) fn empty(id: u32, handle: &[u8]) -> Bytes {
    packet(kind::FSETSTAT, id, &[&length_of(handle), handle, &ATTR_SIZE.to_be_bytes(), &0u64.to_be_bytes()])
}

/// INIT without extensions.
pub(crate) fn init() -> Bytes {
    let mut bytes = BytesMut::with_capacity(9);
    bytes.put_u32(5);
    bytes.put_u8(kind::INIT);
    bytes.put_u32(VERSION);
    bytes.freeze()
}

/// The packet `head` with each of `paths`, slices of it and in their order, replaced.
pub(crate) fn with_paths(head: &[u8], paths: &[(&[u8], &[u8])]) -> Option<Bytes> {
    let mut bytes = BytesMut::with_capacity(head.len() + paths.iter().map(|(_, new)| new.len()).sum::<usize>());
    let mut copied = 0;
    for (old, new) in paths {
        let at = (old.as_ptr() as usize).checked_sub(head.as_ptr() as usize)?;
        bytes.put_slice(head.get(copied..at.checked_sub(4)?)?);
        bytes.put_slice(&length_of(new));
        bytes.put_slice(new);
        copied = at.checked_add(old.len())?;
    }
    bytes.put_slice(head.get(copied..)?);
    let length = u32::try_from(bytes.len().checked_sub(4)?).ok()?;
    bytes.get_mut(..4)?.copy_from_slice(&length.to_be_bytes());
    Some(bytes.freeze())
}
