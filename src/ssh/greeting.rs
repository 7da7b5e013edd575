//! The first words: the bastion says who it is, hears what the client speaks, and only then says what it speaks itself.
//!
//! Of the ciphers that both sides know, the client's favourite is taken (RFC 4253 §7.1), so the bastion chooses by what it
//! offers; russh sends its offer as soon as it knows who is there. So the identification strings are exchanged here,
//! and russh is shown what was read, and spared what was said. A login takes one round trip more for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use sallyport_domain::kexinit::{self, Opening};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::algorithms::Ciphers;

/// The bastion's identification string (RFC 4253 §4.2), with the end of its line. No version: it would tell attackers more than
/// engineers.
pub const IDENTIFICATION: &str = "SSH-2.0-Sallyport\r\n";

/// How long a client may wait for our algorithms before it says its own. None that is known does, but both sides may (§7.1).
const PATIENCE: Duration = Duration::from_secs(1);

/// A connection whose first words are said.
pub struct Greeted<S> {
    stream: S,
    /// What was read ahead.
    unread: BytesMut,
    /// What has been said, and will be said once more.
    said: &'static [u8],
}

/// Exchanges the first words on a client's new connection. Who does not begin as a client should is offered all ciphers, and
/// what they said is left to the protocol.
pub async fn greet<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<(Greeted<S>, Ciphers)> {
    stream.write_all(IDENTIFICATION.as_bytes()).await?;
    stream.flush().await?;
    let mut unread = BytesMut::new();
    let ciphers = match tokio::time::timeout(PATIENCE, hear(&mut stream, &mut unread)).await {
        Ok(heard) => heard?,
        Err(_elapsed) => Ciphers::All,
    };
    Ok((Greeted { stream, unread, said: IDENTIFICATION.as_bytes() }, ciphers))
}

/// Reads until the client's proposal is there, or cannot come any more.
async fn hear<S: AsyncRead + Unpin>(stream: &mut S, unread: &mut BytesMut) -> io::Result<Ciphers> {
    loop {
        match kexinit::read(unread) {
            Opening::Proposal(proposal) => return Ok(Ciphers::for_client(&proposal)),
            Opening::Other => return Ok(Ciphers::All),
            Opening::Partial => {}
        }
        if stream.read_buf(unread).await? == 0 {
            return Ok(Ciphers::All); // it has gone; the protocol finds out
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S> Greeted<S> {
    /// How much of `buf` has been said already.
    fn skip(&mut self, buf: &[u8]) -> io::Result<usize> {
        let length = self.said.len().min(buf.len());
        let (again, rest) = self.said.split_at(length);
        if !buf.starts_with(again) {
            return Err(io::Error::other("another identification string was sent than the one that was said"));
        }
        self.said = rest;
        Ok(length)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.said.is_empty() {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        }
        Poll::Ready(self.skip(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.said.is_empty() {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        }
        Poll::Ready(bufs.iter().find(|buf| !buf.is_empty()).map_or(Ok(0), |buf| self.skip(buf)))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::super::algorithms::has_aes;
    use super::*;

    const OPENSSH: &[u8] = include_bytes!("../../tests/fuzz/corpus/kexinit/openssh");
    const DROPBEAR: &[u8] = include_bytes!("../../tests/fuzz/corpus/kexinit/dropbear");

    /// Greets a client that says `opening` and waits; gives the connection and what the client has heard.
    async fn greeted(opening: &[u8]) -> (Greeted<tokio::io::DuplexStream>, Ciphers, tokio::io::DuplexStream) {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        client.write_all(opening).await.unwrap();
        let (greeted, ciphers) = greet(server).await.unwrap();
        (greeted, ciphers, client)
    }

    #[tokio::test]
    async fn who_speaks_gcm_is_offered_nothing_else_and_who_does_not_is_offered_the_others() {
        assert_eq!(greeted(OPENSSH).await.1, if has_aes() { Ciphers::Gcm } else { Ciphers::All });
        assert_eq!(greeted(DROPBEAR).await.1, Ciphers::All);
        assert_eq!(greeted(&[b'x'; 4096]).await.1, Ciphers::All);
    }

    #[tokio::test]
    async fn who_waits_for_our_algorithms_gets_all_of_them() {
        let line = OPENSSH.split_inclusive(|byte| *byte == b'\n').next().unwrap();
        assert_eq!(greeted(line).await.1, Ciphers::All);
    }

    #[tokio::test]
    async fn what_was_read_is_read_again_and_what_was_said_is_not_said_twice() {
        let (mut greeted, _, mut client) = greeted(&[OPENSSH, b"more"].concat()).await;
        greeted.write_all(IDENTIFICATION.as_bytes()).await.unwrap();
        greeted.write_all(b"algorithms").await.unwrap();
        let mut heard = vec![0; IDENTIFICATION.len() + 10];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, [IDENTIFICATION.as_bytes(), b"algorithms"].concat());

        client.write_all(b" and more").await.unwrap();
        drop(client);
        let mut read = Vec::new();
        greeted.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, [OPENSSH, b"more and more"].concat());
    }

    #[tokio::test]
    async fn another_identification_than_the_one_that_was_said_ends_the_connection() {
        let (mut greeted, ..) = greeted(OPENSSH).await;
        assert!(greeted.write_all(b"SSH-2.0-Another\r\n").await.is_err());
    }
}
