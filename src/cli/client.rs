//! The commands' way to the API: over the bastion's Unix socket, or by URL with a token.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ETAG, HeaderValue, IF_MATCH, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use sallyport_domain::secret::ApiToken;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::failure::{Failure, FailureKind};
use crate::api::error::Problem;
use crate::api::page::Page;

/// A handler has 30 s; what takes longer than this is not coming.
const DEADLINE: Duration = Duration::from_secs(40);

/// Waits before a change is asked for again whose answer did not come: a bastion that starts anew is back by then.
const REPEATS: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_millis(750),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// Where the API is.
#[derive(Debug)]
pub(crate) enum Door {
    /// On this host.
    Socket(PathBuf),
    /// Anywhere, with a token.
    Url { url: Url, token: ApiToken },
}

/// A client of the API.
pub(crate) struct Client {
    door: Door,
    http: reqwest::Client,
    base: Url,
}

impl Client {
    /// A client that goes through `door`. Nothing is sent yet.
    pub(crate) fn new(door: Door) -> Result<Self, Failure> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("sallyport/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10));
        let (builder, base) = match &door {
            Door::Socket(path) => {
                let base = Url::parse("http://bastion/api/v1").map_err(anyhow::Error::from)?;
                (builder.unix_socket(path.as_path()), base)
            }
            Door::Url { url, .. } => {
                refuse_bare_http(url)?;
                let mut base = url.clone();
                base.path_segments_mut()
                    .map_err(|()| Failure::usage(format!("`{url}` is not the URL of a bastion")))?
                    .pop_if_empty()
                    .extend(["api", "v1"]);
                (builder, base)
            }
        };
        let http = builder.build().map_err(anyhow::Error::from)?;
        Ok(Self { door, http, base })
    }

    /// The URL of a path; each part is encoded, so that a fingerprint's `/` does not become a separator.
    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path); // `new` proved that this URL has segments
        }
        url
    }

    /// Where the web app shows something: its whole address, or on this host, where that is not known, what stands behind the bastion's name.
    pub(crate) fn web_link(&self, path: &[&str], query: &[(&str, &str)]) -> String {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop().pop().extend(path); // `new` put `api/v1` there
        }
        url.query_pairs_mut().extend_pairs(query);
        match &self.door {
            Door::Url { .. } => url.into(),
            Door::Socket(_) => url.as_str().trim_start_matches("http://bastion").to_owned(),
        }
    }

    /// Starts a request; for streams, whose answer may go on for ever.
    pub(crate) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let request = self.http.request(method, self.url(path));
        match &self.door {
            Door::Socket(_) => request,
            Door::Url { token, .. } => request.bearer_auth(token.expose()),
        }
    }

    /// Sends a request and looks at its status; what the API refused becomes a failure in its words.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|error| self.unreachable(error))?;
        Err(refused(status, &body))
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        Answer::to(request.timeout(DEADLINE)).await.map_err(|error| self.unreachable(error))?.read()
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &impl Serialize) -> Result<T, Failure> {
        self.read(self.request(Method::GET, path).query(query)).await
    }

    /// Asks for a change. It is done once, though it may be asked for again.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, Failure> {
        self.once(self.request(Method::POST, path).json(body)).await
    }

    /// A POST that is never sent again by itself: it changes nothing, or takes no idempotency key.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, Failure> {
        self.read(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn put<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, Failure> {
        self.read(self.request(Method::PUT, path).json(body)).await
    }

    /// One thing, and the tag of its state, for [`Client::put_over`].
    pub(crate) async fn get_tagged<T: DeserializeOwned>(
        &self,
        path: &[&str],
    ) -> Result<(T, Option<HeaderValue>), Failure> {
        let response = self.send(self.request(Method::GET, path).timeout(DEADLINE)).await?;
        let tag = response.headers().get(ETAG).cloned();
        let (status, is_passing) = (response.status(), false);
        let body = response.bytes().await.map_err(|error| self.unreachable(error))?;
        Ok((Answer { status, body, is_passing }.read()?, tag))
    }

    /// Puts this in the place of what was read with that tag; refused if it is another by now.
    pub(crate) async fn put_over<T: DeserializeOwned>(
        &self,
        path: &[&str],
        tag: Option<HeaderValue>,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let request = self.request(Method::PUT, path).json(body);
        // A bastion of an earlier version gives no tags.
        self.read(tag.into_iter().fold(request, |request, tag| request.header(IF_MATCH, tag))).await
    }

    pub(crate) async fn patch<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, Failure> {
        self.read(self.request(Method::PATCH, path).json(body)).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Failure> {
        self.read(self.request(Method::DELETE, path)).await
    }

    /// Asks for a change that says all in its path.
    pub(crate) async fn act<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Failure> {
        self.once(self.request(Method::POST, path)).await
    }

    /// Asks for a change until there is an answer, each time by the same name, so that it is done once.
    async fn once<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let key = Uuid::new_v4();
        let request = request.header("Idempotency-Key", format!("\"{key}\"")).timeout(DEADLINE);
        let mut is_lost = false;
        for wait in REPEATS {
            // Our bodies are in memory, so that each request can be sent twice.
            let Some(attempt) = request.try_clone() else { break };
            match Answer::to(attempt).await {
                Ok(answer) if !answer.is_passing => return answer.read(),
                Ok(_) => {}
                Err(error) if error.is_connect() && !is_lost => return Err(self.unreachable(error)), // nothing was sent
                Err(_) => is_lost = true,
            }
            tokio::time::sleep(wait).await;
        }
        let unknown = "whether it was done is not known: look before you ask for it again";
        let answer = Answer::to(request).await.map_err(|error| self.unreachable(error).hint(unknown))?;
        answer.read()
    }

    /// The first `most` items of a list, page after page. `next` of the answer tells whether there are more.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        most: usize,
    ) -> Result<Page<T>, Failure> {
        let mut all = Page { items: Vec::new(), next: None };
        loop {
            let mut query = query.to_vec();
            query.push(("limit", (most - all.items.len()).min(1000).to_string()));
            query.extend(all.next.take().map(|cursor| ("cursor", cursor)));
            let page: Page<T> = self.get(path, &query).await?;
            let got = page.items.len();
            all.items.extend(page.items);
            all.next = page.next;
            if all.next.is_none() || got == 0 || all.items.len() >= most {
                return Ok(all);
            }
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> Failure {
        let error = error.without_url(); // the sentence says where to
        match &self.door {
            Door::Socket(path) => {
                let hint = socket_hint(path);
                let context =
                    anyhow::Error::new(error).context(format!("cannot reach the bastion at `{}`", path.display()));
                Failure::new(FailureKind::Unreachable, context).hint(hint)
            }
            Door::Url { url, .. } => {
                let context = anyhow::Error::new(error).context(format!("cannot reach the bastion at `{url}`"));
                Failure::new(FailureKind::Unreachable, context)
            }
        }
    }
}

/// An answer, the whole of it.
struct Answer {
    status: StatusCode,
    body: Bytes,
    /// It says no for now: the request is in work, or the database is away.
    is_passing: bool,
}

impl Answer {
    async fn to(request: RequestBuilder) -> Result<Self, reqwest::Error> {
        let response = request.send().await?;
        let status = response.status();
        let is_in_work = status == StatusCode::CONFLICT && response.headers().contains_key(RETRY_AFTER);
        let is_passing = is_in_work || status == StatusCode::SERVICE_UNAVAILABLE;
        Ok(Self { status, body: response.bytes().await?, is_passing })
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        if !self.status.is_success() {
            return Err(refused(self.status, &self.body));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            let context = anyhow::Error::new(error).context("the bastion's answer cannot be read");
            Failure::from(context).hint("check that the server and this program are of the same version")
        })
    }
}

fn socket_hint(path: &Path) -> String {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            "is it running? start it with `sallyport serve`, or say where it is with `--socket` or `--url`".to_owned()
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            "run this as root or as the bastion's user".to_owned()
        }
        Err(_) | Ok(_) => "run this as root, as the bastion's user, or as one of `[api] operators`".to_owned(),
    }
}

/// A token is as good as a password: it does not travel in clear.
fn refuse_bare_http(url: &Url) -> Result<(), Failure> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_local => Ok(()),
        "http" => Err(Failure::usage(format!("`{url}` would carry the token in clear")).hint("use https")),
        other => Err(Failure::usage(format!("`{other}` is not a scheme of the API: use https"))),
    }
}

fn refused(status: StatusCode, body: &[u8]) -> Failure {
    let kind = match status {
        StatusCode::NOT_FOUND => FailureKind::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FailureKind::NotAllowed,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => FailureKind::Conflict,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            FailureKind::Unreachable
        }
        _ => FailureKind::Failed,
    };
    match serde_json::from_slice::<Problem>(body).ok() {
        Some(problem) if status.is_server_error() => {
            Failure::text(kind, problem.detail).hint(format!("look for {} in the bastion's log", problem.reference))
        }
        Some(problem) => Failure::text(kind, problem.detail),
        None => Failure::text(kind, format!("the answer was {status}, and not in the bastion's words"))
            .hint("check that `--url` leads to a bastion"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Result<Client, Failure> {
        let door = Door::Url { url: Url::parse(url).unwrap(), token: ApiToken::new("t") };
        Client::new(door)
    }

    #[test]
    fn a_part_of_a_path_stays_one_part() {
        let client = client("https://bastion.example/sally/").unwrap();
        let url = client.url(&["people", "li.wei", "keys", "SHA256:a/b+c"]);
        assert_eq!(url.as_str(), "https://bastion.example/sally/api/v1/people/li.wei/keys/SHA256:a%2Fb+c");
    }

    #[test]
    fn a_page_of_the_web_app_has_an_address() {
        let client = client("https://bastion.example/sally/").unwrap();
        let link = client.web_link(&["sessions", "s-1"], &[("find", "a b&c")]);
        assert_eq!(link, "https://bastion.example/sally/sessions/s-1?find=a+b%26c");
    }

    #[test]
    fn a_token_does_not_travel_in_clear() {
        assert!(client("http://bastion.example").is_err());
        assert!(client("http://127.0.0.1:8080").is_ok());
        assert!(client("http://[::1]:8080").is_ok());
    }
}
