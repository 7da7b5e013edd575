//! An S3-protocol server that keeps versions and locks objects: `moto`'s, from PyPI, in a process of its own. It holds what it has in
//! memory, and believes every signature.
//!
//! It takes nothing without a checksum, and refuses to remove a locked version, by single and by multiple deletion, also where the caller asks to bypass governance. It does
//! not refuse to shorten a retention in compliance mode, which Amazon's does; nothing here may rest on that.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Client, Method, Response, StatusCode};
use sha2::{Digest as _, Sha256};

use super::process::{Ending, Guarded};
use super::s3::{ACCESS_KEY, BUCKET, REGION};

/// A server with one bucket, which locks what is put there for a day. Dropping it ends it.
pub struct LockedS3 {
    _server: Guarded,
    _folder: tempfile::TempDir,
    endpoint: String,
    http: Client,
}

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub key: String,
    pub id: String,
}

impl LockedS3 {
    pub async fn start() -> Self {
        let folder = super::temporary_folder();
        let log = folder.path().join("log");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("target/test-venv/bin/python");
        assert!(python.exists(), "{} is not there; scripts/install-test-deps installs it", python.display());
        let ending = Ending { signal: "TERM", remove: None };
        let script = root.join("tests/support/locked_s3.py");
        let server = Guarded::spawn(python.as_os_str(), &[script.as_os_str()], &log, &ending);
        let mut endpoint = None;
        super::eventually("the S3 server listens", async || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(server.is_running(), "the S3 server does not start: {said}");
            endpoint =
                said.split_once("Running on ").and_then(|(_, rest)| Some(rest.lines().next()?.trim().to_owned()));
            endpoint.is_some()
        })
        .await;
        let endpoint = endpoint.expect("an address");
        let mut headers = HeaderMap::new();
        let somebody = format!(
            "AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20000101/{REGION}/s3/aws4_request, SignedHeaders=host, Signature=0"
        );
        headers.insert(AUTHORIZATION, somebody.parse().expect("a header"));
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(20)).default_headers(headers);
        let http = http.build().expect("a client");
        let s3 = Self { _server: server, _folder: folder, endpoint, http };
        s3.make_bucket().await;
        s3
    }

    async fn make_bucket(&self) {
        const RULE: &str = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
                            <Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
        let bucket = self.http.put(format!("{}/{BUCKET}", self.endpoint));
        let made = bucket.header("x-amz-bucket-object-lock-enabled", "true").send().await.expect("an answer");
        assert_eq!(made.status(), StatusCode::OK);
        let rule = self.http.put(format!("{}/{BUCKET}?object-lock", self.endpoint)).body(RULE).send().await;
        assert_eq!(rule.expect("an answer").status(), StatusCode::OK);
    }

    /// What clients call the endpoint.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Every version of every object; what hides one is none.
    pub async fn versions(&self) -> Vec<Version> {
        let list = self.request(Method::GET, "?versions&max-keys=1000").await.text().await.expect("a list");
        assert!(list.contains("<IsTruncated>false</IsTruncated>"), "{list}");
        let inside = |part: &str, tag: &str| -> String {
            let (_, rest) = part.split_once(&format!("<{tag}>")).expect("a tag");
            rest.split_once("</").expect("its end").0.to_owned()
        };
        let parts = list.split("<Version>").skip(1);
        parts.map(|part| Version { key: inside(part, "Key"), id: inside(part, "VersionId") }).collect()
    }

    /// The bytes of a version, whatever hides it.
    pub async fn read(&self, version: &Version) -> Vec<u8> {
        let Version { key, id } = version;
        let answer = self.request(Method::GET, &format!("{key}?versionId={id}")).await;
        answer.error_for_status().expect("a version").bytes().await.expect("bytes").to_vec()
    }

    /// What is answered to a wish to remove a version for good.
    pub async fn remove(&self, version: &Version) -> StatusCode {
        let Version { key, id } = version;
        let url = format!("{}/{BUCKET}/{key}?versionId={id}", self.endpoint);
        let asked = self.http.delete(url).header("x-amz-bypass-governance-retention", "true");
        asked.send().await.expect("an answer").status()
    }

    /// Hides an object as a client does that knows of no versions; gives what takes that back.
    pub async fn hide(&self, key: &str) -> Version {
        let answer = self.request(Method::DELETE, key).await.error_for_status().expect("a marker");
        let id = answer.headers()["x-amz-version-id"].to_str().expect("a version").to_owned();
        Version { key: key.to_owned(), id }
    }

    /// Writes over an object.
    pub async fn put(&self, key: &str, bytes: Vec<u8>) {
        let checksum = STANDARD.encode(Sha256::digest(&bytes));
        let request = self.http.put(format!("{}/{BUCKET}/{key}", self.endpoint)).body(bytes);
        let answer = request.header("x-amz-checksum-sha256", checksum).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
    }

    async fn request(&self, method: Method, rest: &str) -> Response {
        let url = format!("{}/{BUCKET}/{rest}", self.endpoint).replace("/?", "?");
        self.http.request(method, url).send().await.expect("an answer")
    }
}
