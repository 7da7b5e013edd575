//! The PROXY protocol, versions 1 and 2 (haproxy.org/download/3.0/doc/proxy-protocol.txt): what a load balancer says of the client, ahead
//! of its bytes. Only from addresses that are configured, and from them it must come: whoever may say where they are from may be
//! from anywhere.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A load balancer sends the header at once.
const DEADLINE: Duration = Duration::from_secs(5);

/// The longest header of version 1, its line feed included (§2.1).
const LONGEST_V1: usize = 107;

/// The longest header of version 2 that is read. Addresses take 216 bytes at most, and what else is in it is not needed here; some load
/// balancers add a client's certificate.
const LONGEST_V2: usize = 4096;

/// What version 2 has before the addresses: signature, version and command, family, length (§2.2).
const FIXED_V2: usize = 16;

/// What both versions have before they can be told apart: the signature of version 2 (§2.2).
const SIGNATURE: usize = 12;

/// Why a connection from a load balancer is not taken.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("it broke")]
    Io(#[from] io::Error),
    #[error("no PROXY header came in time")]
    TooLate,
    #[error("it does not begin with a PROXY header")]
    Missing,
    #[error("the PROXY header is longer than {most} bytes")]
    TooLong { most: usize },
    #[error("the PROXY header cannot be read: {0}")]
    Malformed(String),
}

/// Whether `address` is one of `networks`.
pub fn is_from(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// Takes the header off `stream`, not one byte more, and says whom the connection is from: the client, or `peer` itself if the load
/// balancer speaks for itself (a health check).
pub async fn read_header<S: AsyncRead + Unpin>(stream: &mut S, peer: SocketAddr) -> Result<SocketAddr, HeaderError> {
    read_within(DEADLINE, stream, peer).await
}

async fn read_within<S: AsyncRead + Unpin>(
    deadline: Duration,
    stream: &mut S,
    peer: SocketAddr,
) -> Result<SocketAddr, HeaderError> {
    let read = async {
        let mut head = vec![0; SIGNATURE];
        stream.read_exact(&mut head).await?;
        if head == v2::PROTOCOL_PREFIX {
            return read_v2(stream, head, peer).await;
        }
        if head.starts_with(b"PROXY ") {
            return read_v1(stream, head, peer).await;
        }
        Err(HeaderError::Missing)
    };
    tokio::time::timeout(deadline, read).await.unwrap_or(Err(HeaderError::TooLate))
}

/// Byte by byte: where the line ends is known only then, and what follows is somebody else's.
async fn read_v1<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut head: Vec<u8>,
    peer: SocketAddr,
) -> Result<SocketAddr, HeaderError> {
    while head.last() != Some(&b'\n') {
        if head.len() == LONGEST_V1 {
            return Err(HeaderError::TooLong { most: LONGEST_V1 });
        }
        head.push(stream.read_u8().await?);
    }
    let header = v1::Header::try_from(head.as_slice()).map_err(|error| HeaderError::Malformed(error.to_string()))?;
    if header.header.len() != head.len() {
        return Err(HeaderError::Malformed("it ends before its line does".to_owned()));
    }
    Ok(match header.addresses {
        v1::Addresses::Unknown => peer,
        v1::Addresses::Tcp4(from) => SocketAddr::from((from.source_address, from.source_port)),
        v1::Addresses::Tcp6(from) => SocketAddr::from((from.source_address, from.source_port)),
    })
}

async fn read_v2<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut head: Vec<u8>,
    peer: SocketAddr,
) -> Result<SocketAddr, HeaderError> {
    head.resize(FIXED_V2, 0);
    stream.read_exact(head.get_mut(SIGNATURE..).unwrap_or_default()).await?;
    let length = match head.as_slice() {
        [.., high, low] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    if FIXED_V2 + length > LONGEST_V2 {
        return Err(HeaderError::TooLong { most: LONGEST_V2 });
    }
    head.resize(FIXED_V2 + length, 0);
    stream.read_exact(head.get_mut(FIXED_V2..).unwrap_or_default()).await?;
    let header = v2::Header::try_from(head.as_slice()).map_err(|error| HeaderError::Malformed(error.to_string()))?;
    if header.command == v2::Command::Local {
        return Ok(peer);
    }
    match (header.protocol, header.addresses) {
        (v2::Protocol::Stream, v2::Addresses::IPv4(from)) => {
            Ok(SocketAddr::from((from.source_address, from.source_port)))
        }
        (v2::Protocol::Stream, v2::Addresses::IPv6(from)) => {
            Ok(SocketAddr::from((from.source_address, from.source_port)))
        }
        // "The receiver should ignore address information" (§2.2) of what it does not know.
        (v2::Protocol::Unspecified, _) | (_, v2::Addresses::Unspecified) => Ok(peer),
        (protocol, addresses) => Err(HeaderError::Malformed(format!("it is of {protocol:?} and {addresses:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "10.0.0.1:5000";

    /// Reads a header that comes in pieces of `piece` bytes; gives back what it says, and what is behind it.
    async fn read(bytes: &[u8], piece: usize) -> (Result<SocketAddr, HeaderError>, Vec<u8>) {
        let mut stream = tokio_util::io::StreamReader::new(futures::stream::iter(
            bytes.chunks(piece).map(|chunk| Ok::<_, io::Error>(bytes::Bytes::copy_from_slice(chunk))),
        ));
        let said = read_header(&mut stream, PEER.parse().unwrap()).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        (said, rest)
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
    }

    /// The header for a client, as a load balancer writes it.
    fn header(version: u8, from: SocketAddr, to: SocketAddr, more: &[u8]) -> Vec<u8> {
        if version == 1 {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            return format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes();
        }
        let command = v2::Version::Two | v2::Command::Proxy;
        let builder = v2::Builder::with_addresses(command, v2::Protocol::Stream, (from, to));
        builder.write_tlv(v2::Type::Authority, more).unwrap().build().unwrap()
    }

    fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        prop_oneof![
            any::<([u8; 4], u16, [u8; 4], u16)>().prop_map(|(a, b, c, d)| ((a, b).into(), (c, d).into())),
            any::<([u16; 8], u16, [u16; 8], u16)>().prop_map(|(a, b, c, d)| ((a, b).into(), (c, d).into())),
        ]
    }

    proptest! {
        #[test]
        fn what_a_load_balancer_says_is_read_and_nothing_behind_it(
            version in 1_u8..3, (from, to) in addresses(), more in prop::collection::vec(any::<u8>(), 0..200),
            behind in prop::collection::vec(any::<u8>(), 0..50), piece in 1_usize..300,
        ) {
            let bytes = [header(version, from, to, &more), behind.clone()].concat();
            let (said, rest) = run(read(&bytes, piece));
            prop_assert_eq!((said.unwrap(), rest), (from, behind));
        }

        #[test]
        fn whatever_comes_is_read_to_a_bound_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..6000), kind in 0..3) {
            let start: &[u8] = [b"PROXY TCP4 " as &[u8], v2::PROTOCOL_PREFIX, b""][kind as usize];
            let bytes = [start, &bytes].concat();
            let (said, rest) = run(read(&bytes, 1000));
            if said.is_ok() {
                prop_assert!(bytes.len() - rest.len() <= LONGEST_V2);
            }
        }
    }

    #[test]
    fn a_load_balancer_may_speak_for_itself() {
        let local = [v2::PROTOCOL_PREFIX, &[0x20, 0, 0, 0]].concat();
        for (bytes, behind) in [(b"PROXY UNKNOWN\r\nSSH".to_vec(), "SSH"), ([&local, b"x" as &[u8]].concat(), "x")] {
            let (said, rest) = run(read(&bytes, 100));
            assert_eq!((said.unwrap().to_string(), rest), (PEER.to_owned(), behind.as_bytes().to_vec()));
        }
    }

    #[test]
    fn what_is_no_header_or_too_long_or_never_comes_is_refused() {
        let long = [b"PROXY TCP4 " as &[u8], &[b'1'; 200]].concat();
        assert!(matches!(run(read(&long, 1000)).0, Err(HeaderError::TooLong { most: LONGEST_V1 })));
        let long = [v2::PROTOCOL_PREFIX, &[0x21, 0x11, 0xff, 0xff], &[0; 70_000]].concat();
        assert!(matches!(run(read(&long, 1000)).0, Err(HeaderError::TooLong { most: LONGEST_V2 })));
        assert!(matches!(run(read(b"SSH-2.0-OpenSSH_9.2\r\n", 1000)).0, Err(HeaderError::Missing)));
        assert!(matches!(run(read(b"PROXY TCP4 1.2.3.4 nowhere 1 2\r\n", 1000)).0, Err(HeaderError::Malformed(_))));
        let datagram = [v2::PROTOCOL_PREFIX, &[0x21, 0x12, 0, 12], &[1; 12]].concat();
        assert!(matches!(run(read(&datagram, 1000)).0, Err(HeaderError::Malformed(_))));
        let silent = run(async {
            let (_ours, mut theirs) = tokio::io::duplex(10);
            read_within(Duration::from_millis(1), &mut theirs, PEER.parse().unwrap()).await
        });
        assert!(matches!(silent, Err(HeaderError::TooLate)));
    }

    #[test]
    fn an_ipv4_address_is_the_same_in_ipv6s_clothes() {
        let networks = ["10.0.0.0/8".parse().unwrap()];
        assert!(is_from(&networks, "::ffff:10.1.2.3".parse().unwrap()));
        assert!(!is_from(&networks, "11.0.0.1".parse().unwrap()));
        assert!(!is_from(&[], "10.0.0.1".parse().unwrap()));
    }
}
