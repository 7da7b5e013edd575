//! A socket that can be cut from outside.
//!
//! SSH's own goodbye queues behind data, so a peer that stopped reading never gets it and stays. [`Sever`] wraps the
//! socket: once [`Blade::cut`] was called, each read and write fails, the connection's tasks end, and the kernel throws
//! away what it had not delivered (RST instead of FIN), so that nothing reaches the peer any more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What [`Sever`] can wrap.
pub trait Severable: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the coming close throw away what was not delivered, where the transport can.
    fn discard_undelivered(&self);
}

impl Severable for TcpStream {
    fn discard_undelivered(&self) {
        // A socket that is already gone has nothing to discard.
        let _ = self.set_zero_linger();
    }
}

/// Cuts one [`Sever`]. Cheap to clone; cutting twice is cutting once.
#[derive(Clone, Default)]
pub struct Blade(Arc<State>);

#[derive(Default)]
struct State {
    cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Blade {
    /// From now on every read and write fails, also those that wait.
    pub fn cut(&self) {
        self.0.cut.store(true, Ordering::Release);
        self.0.reader.wake();
        self.0.writer.wake();
    }

    /// Whether it was cut.
    pub fn is_cut(&self) -> bool {
        self.0.cut.load(Ordering::Acquire)
    }
}

/// A stream that a [`Blade`] can cut.
pub struct Sever<S> {
    stream: S,
    blade: Blade,
    /// The first byte has not come, and must be that of SSH.
    is_fresh: bool,
}

impl<S: Severable> Sever<S> {
    /// Wraps `stream`; `blade` cuts it.
    pub fn new(stream: S, blade: Blade) -> Self {
        Self { stream, blade, is_fresh: false }
    }

    /// The same for a client's, which begins with its identification string (RFC 4253 §4.2): only servers may send lines before it. So
    /// a PROXY header (`crate::proxy_protocol`) from somebody who may not say where they are from is refused, not skipped.
    pub fn of_client(stream: S, blade: Blade) -> Self {
        Self { stream, blade, is_fresh: true }
    }

    fn severed<T>(&self) -> Poll<io::Result<T>> {
        self.stream.discard_undelivered();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was cut")))
    }
}

impl<S: Severable> AsyncRead for Sever<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.blade.is_cut() {
            return self.severed();
        }
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending => {
                self.blade.0.reader.register(cx.waker());
                // A cut between the first look and the registration would have woken nobody.
                if self.blade.is_cut() { self.severed() } else { Poll::Pending }
            }
            ready => {
                if self.is_fresh && matches!(ready, Poll::Ready(Ok(()))) {
                    self.is_fresh = false;
                    // Nothing at all is the end of the stream.
                    if buf.filled().first().is_some_and(|first| *first != b'S') {
                        let told = "a client that does not begin with its SSH identification string";
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, told)));
                    }
                }
                ready
            }
        }
    }
}

impl<S: Severable> Sever<S> {
    fn poll_writing<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.blade.is_cut() {
            return self.severed();
        }
        match poll(Pin::new(&mut self.stream), cx) {
            Poll::Pending => {
                self.blade.0.writer.register(cx.waker());
                if self.blade.is_cut() { self.severed() } else { Poll::Pending }
            }
            ready => ready,
        }
    }
}

impl<S: Severable> AsyncWrite for Sever<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_writing(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_writing(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Sever<TcpStream>, Blade, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (there, _) = listener.accept().await.unwrap();
        let blade = Blade::default();
        (Sever::new(here, blade.clone()), blade, there)
    }

    #[tokio::test]
    async fn a_cut_wakes_a_reader_and_the_peer_sees_a_reset() {
        let (mut here, blade, mut there) = pair().await;
        let reader = tokio::spawn(async move { here.read(&mut [0; 8]).await.map_err(|error| error.kind()) });
        tokio::task::yield_now().await;
        blade.cut();
        assert_eq!(reader.await.unwrap(), Err(io::ErrorKind::ConnectionAborted));
        assert_eq!(there.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_cut_wakes_a_writer_whose_peer_does_not_read_and_delivers_nothing_more() {
        let (mut here, blade, mut there) = pair().await;
        let writer = tokio::spawn(async move {
            loop {
                if let Err(error) = here.write_all(&[b'x'; 65536]).await {
                    return error.kind();
                }
            }
        });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await; // until the buffers are full
        blade.cut();
        assert_eq!(writer.await.unwrap(), io::ErrorKind::ConnectionAborted);
        let error = loop {
            if let Err(error) = there.read(&mut [0; 65536]).await {
                break error.kind();
            }
        };
        assert_eq!(error, io::ErrorKind::ConnectionReset);
    }
}
