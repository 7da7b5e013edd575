//! An HTTP server that takes what is posted to it, and can be told to fail: to answer anything, to stall, to break off, to be away
//! and come back. It remembers every request with what it answered.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// What it does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    Answer(u16),
    /// The same with a header `Retry-After`.
    AnswerAfter(u16, u32),
    /// 200 with this text.
    Say(String),
    /// Takes it and never answers.
    Stall,
    /// Takes it and breaks the connection.
    Break,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Request {
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub reaction: Reaction,
}

impl Request {
    /// Whether the sender heard that it was taken.
    pub fn was_confirmed(&self) -> bool {
        matches!(self.reaction, Reaction::Answer(200..300) | Reaction::Say(_))
    }

    /// A header's text; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

#[derive(Default)]
struct Book {
    script: VecDeque<Reaction>,
    requests: Vec<Request>,
}

/// The server. Dropping it ends it.
pub struct Receiver {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
    usual: Reaction,
    serving: Option<JoinHandle<()>>,
}

impl Receiver {
    /// A server that answers 200 unless it is told otherwise.
    pub async fn start() -> Self {
        Self::that(Reaction::Answer(200)).await
    }

    /// A server that reacts so unless it is told otherwise.
    pub async fn that(usual: Reaction) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let mut receiver = Self { address, book: Arc::default(), usual, serving: None };
        receiver.serve(listener);
        receiver
    }

    fn serve(&mut self, listener: TcpListener) {
        let state = (self.book.clone(), self.usual.clone());
        let app = Router::new().fallback(take).with_state(state);
        // Its connections end with it, as those of a process that dies.
        self.serving = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                let service = TowerToHyperService::new(app.clone());
                let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                connections.spawn(async move { connection.await.is_ok() });
                while connections.try_join_next().is_some() {}
            }
        }));
    }

    /// The reactions to the next requests, one each.
    pub fn then(&self, reactions: impl IntoIterator<Item = Reaction>) {
        self.book().script.extend(reactions);
    }

    /// Cuts its connections, and takes none until `come_back`.
    pub async fn go_away(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            assert!(serving.await.is_err_and(|end| end.is_cancelled()), "the receiver ended by itself");
        }
    }

    /// Serves again, on the same port.
    pub async fn come_back(&mut self) {
        let mut listener = None;
        super::eventually("the receiver's port is free again", async || {
            listener = TcpListener::bind(self.address).await.ok();
            listener.is_some()
        })
        .await;
        self.serve(listener.expect("a listener"));
    }

    /// A URL on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.book().requests.clone()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

async fn take(
    State((book, usual)): State<(Arc<Mutex<Book>>, Reaction)>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reaction = {
        let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
        let reaction = book.script.pop_front().unwrap_or(usual);
        book.requests.push(Request { uri, headers, body, reaction: reaction.clone() });
        reaction
    };
    let status = |code: u16| StatusCode::from_u16(code).expect("a status code");
    match reaction {
        Reaction::Answer(code) => status(code).into_response(),
        Reaction::AnswerAfter(code, seconds) => (status(code), [("Retry-After", seconds.to_string())]).into_response(),
        Reaction::Say(text) => text.into_response(),
        Reaction::Stall => std::future::pending().await,
        // What hyper cannot finish it breaks off.
        Reaction::Break => {
            let body = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("broken off")) });
            let mut response = axum::body::Body::from_stream(body).into_response();
            response.headers_mut().insert("Content-Length", 100.into());
            response
        }
    }
}
