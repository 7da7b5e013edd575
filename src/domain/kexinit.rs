//! What an SSH client says before anything is agreed: its identification string (RFC 4253 §4.2), then the algorithms that it
//! speaks (`SSH_MSG_KEXINIT`, §7.1), in the clear (§6). Only what is needed to answer it: which ciphers it proposes.

/// The longest identification string, its line feed included (§4.2).
pub const MOST_IDENTIFICATION: usize = 255;
/// The longest packet that is read, without its length (§6.1).
const MOST_PACKET: usize = 35_000;
const KEXINIT: u8 = 20;
const COOKIE: usize = 16;

/// A client's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening<'a> {
    /// More must come before it can be told.
    Partial,
    /// It proposes these algorithms.
    Proposal(Proposal<'a>),
    /// Whatever it is, it does not begin as a client should.
    Other,
}

/// The ciphers that a client proposes, as comma-separated lists with the most preferred first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal<'a> {
    to_server: &'a [u8],
    to_client: &'a [u8],
}

impl Proposal<'_> {
    /// Whether one of `names` is proposed for each direction.
    pub fn speaks_any(&self, names: &[&str]) -> bool {
        [self.to_server, self.to_client].iter().all(|list| {
            list.split(|byte| *byte == b',').any(|proposed| names.iter().any(|name| name.as_bytes() == proposed))
        })
    }
}

/// Reads what has come of a client's first bytes. It never takes more than 35,259 bytes to tell.
pub fn read(bytes: &[u8]) -> Opening<'_> {
    let Some(end) = bytes.iter().take(MOST_IDENTIFICATION).position(|byte| *byte == b'\n') else {
        return if bytes.len() < MOST_IDENTIFICATION { Opening::Partial } else { Opening::Other };
    };
    let Some((length, rest)) = bytes.get(end + 1..).unwrap_or_default().split_first_chunk() else {
        return Opening::Partial;
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > MOST_PACKET {
        return Opening::Other;
    }
    match rest.get(..length) {
        None => Opening::Partial,
        Some(packet) => proposal(packet).map_or(Opening::Other, Opening::Proposal),
    }
}

/// The proposal in a packet (§6) that is not encrypted.
fn proposal(packet: &[u8]) -> Option<Proposal<'_>> {
    let (padding, rest) = packet.split_first()?;
    let payload = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
    let (_key_exchange, rest) = string(payload.strip_prefix(&[KEXINIT])?.get(COOKIE..)?)?;
    let (_host_key, rest) = string(rest)?;
    let (to_server, rest) = string(rest)?;
    let (to_client, _) = string(rest)?;
    Some(Proposal { to_server, to_client })
}

/// A "string" (RFC 4251 §5), and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(names: &str) -> Vec<u8> {
        [&u32::try_from(names.len()).unwrap().to_be_bytes(), names.as_bytes()].concat()
    }

    fn opening(to_server: &str, to_client: &str) -> Vec<u8> {
        let lists =
            ["curve25519-sha256", "ssh-ed25519", to_server, to_client, "hmac-sha2-256", "", "none", "none", "", ""];
        let payload = [vec![KEXINIT], vec![7; COOKIE], lists.into_iter().flat_map(list).collect(), vec![0; 5]].concat();
        let length = u32::try_from(1 + payload.len() + 6).unwrap();
        [b"SSH-2.0-OpenSSH_9.2\r\n".as_slice(), &length.to_be_bytes(), &[6], &payload, &[0; 6]].concat()
    }

    fn speaks_gcm(bytes: &[u8]) -> bool {
        let Opening::Proposal(proposal) = read(bytes) else { panic!("{:?}", read(bytes)) };
        proposal.speaks_any(&["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"])
    }

    #[test]
    fn a_cipher_counts_if_it_is_proposed_both_ways_whole() {
        assert!(speaks_gcm(&opening("aes128-ctr,aes256-gcm@openssh.com", "aes128-gcm@openssh.com")));
        assert!(!speaks_gcm(&opening("aes128-gcm@openssh.com", "aes128-ctr")));
        assert!(!speaks_gcm(&opening("aes128-gcm@openssh.co", "aes128-gcm@openssh.com,")));
        assert!(!speaks_gcm(&opening("", "")));
    }

    #[test]
    fn real_clients_are_read() {
        assert!(speaks_gcm(include_bytes!("../../tests/fuzz/corpus/kexinit/openssh")));
        assert!(speaks_gcm(include_bytes!("../../tests/fuzz/corpus/kexinit/plink")));
        assert!(speaks_gcm(include_bytes!("../../tests/fuzz/corpus/kexinit/paramiko")));
        assert!(!speaks_gcm(include_bytes!("../../tests/fuzz/corpus/kexinit/dropbear")));
    }

    #[test]
    fn what_is_no_opening_is_not_waited_for() {
        for bytes in [
            vec![b'x'; MOST_IDENTIFICATION],
            b"SSH-2.0-x\r\n\x00\x00\x88\xb9".to_vec(),
            b"SSH-2.0-x\r\n\x00\x00\x00\x00".to_vec(),
            b"SSH-2.0-x\r\n\x00\x00\x00\x02\x01\x14".to_vec(),
            b"SSH-2.0-x\r\n\x00\x00\x00\x06\x04\x02aaaa".to_vec(),
        ] {
            assert_eq!(read(&bytes), Opening::Other, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn an_opening_is_partial_until_it_is_whole_and_what_follows_changes_nothing(cut in 0_usize..300, more: Vec<u8>) {
            let whole = opening("aes128-gcm@openssh.com", "aes128-gcm@openssh.com");
            let cut = cut.min(whole.len() - 1);
            prop_assert_eq!(read(&whole[..cut]), Opening::Partial);
            prop_assert!(speaks_gcm(&[whole, more].concat()));
        }

        #[test]
        fn any_bytes_are_told_at_the_latest_when_the_longest_packet_is_there(mut bytes: Vec<u8>, fill: u8) {
            bytes.resize(MOST_IDENTIFICATION + 4 + MOST_PACKET, fill);
            prop_assert_ne!(read(&bytes), Opening::Partial);
        }
    }
}
