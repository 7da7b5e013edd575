//! Recordings at rest: immutable objects in a folder or in an S3-compatible store.
//!
//! A call retries what may pass by itself and gives up after a minute; what to do then (keep the bytes, say so, try
//! again) is the caller's business. Object lock is the bucket's default retention: `object_store` sets no lock headers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::signer::Signer as _;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, RetryConfig};
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

/// Where recordings are kept: `[blobs]` in `sallyport.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlobSettings {
    /// `file:/path`, `s3://bucket/prefix`, or `memory:` for tests. Empty means `blobs` in the data folder.
    pub url: String,
    /// The S3 server's address, if it is not Amazon's.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// Without one, the environment's, a container's or the machine's own credentials are used, as Amazon's tools do.
    pub access_key_id: Option<String>,
    /// A file with the secret that belongs to `access_key_id`.
    pub secret_access_key_file: Option<PathBuf>,
    /// Whether `endpoint` may be plain HTTP.
    pub allow_http: bool,
}

/// What went wrong at the object store.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("the settings in `[blobs]` are not usable: {message}")]
    Settings { message: String },
    #[error("cannot read the secret key for the object store from `{}`", path.display())]
    SecretFile { path: PathBuf, source: std::io::Error },
    #[error("cannot open the object store")]
    Open { source: object_store::Error },
    /// It is not there: it was deleted, or the store is not the one it was written to.
    #[error("object `{key}` is not in the object store")]
    NotFound { key: String },
    #[error("cannot {doing} object `{key}`: the object store did not answer within {} s", DEADLINE.as_secs())]
    TimedOut { doing: &'static str, key: String },
    #[error("cannot {doing} object `{key}`")]
    Failed { doing: &'static str, key: String, source: object_store::Error },
}

/// The longest that one call may take, retries included.
const DEADLINE: Duration = Duration::from_mins(1);
/// The longest that one request may take: a segment is well under a megabyte.
const REQUEST_DEADLINE: Duration = Duration::from_secs(20);

/// What became of an object that must not be written twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    Fresh,
    /// One was there already.
    Existed,
}

/// How long an object cannot be taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lock {
    /// Objects are files.
    Files,
    /// The bucket locks nothing by itself.
    None,
    /// The mode, and until when, in the store's words.
    Until(String),
}

/// The object store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// Where the objects are, if they are files.
    folder: Option<PathBuf>,
    /// What signs requests that `object_store` does not make, and what stands before each key.
    signer: Option<(Arc<AmazonS3>, Path)>,
}

impl Blobs {
    /// Opens the store that the settings name. A folder is created; a bucket is not asked whether it exists.
    pub fn open(settings: &BlobSettings) -> Result<Self, BlobError> {
        let fault = |message: &str| BlobError::Settings { message: message.to_owned() };
        let url = settings.url.as_str();
        if let Some(path) = url.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return Err(fault("a folder needs its whole path, as in `file:/var/lib/sallyport/blobs`"));
            }
            return Self::open_folder(path.as_ref());
        }
        if let Some(rest) = url.strip_prefix("s3://") {
            return Self::open_s3(settings, rest);
        }
        if url == "memory:" || url == "memory://" {
            return Ok(Self { store: Arc::new(InMemory::new()), folder: None, signer: None });
        }
        Err(fault("`url` must be `file:/path` or `s3://bucket/prefix`"))
    }

    /// Wraps any store; for tests that make it fail.
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, folder: None, signer: None }
    }

    fn open_folder(path: &std::path::Path) -> Result<Self, BlobError> {
        use std::os::unix::fs::DirBuilderExt;
        let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        created.map_err(|error| BlobError::Settings {
            message: format!("the folder `{}` cannot be created: {error}", path.display()),
        })?;
        // fsync: what is confirmed here leaves the journal and the database.
        let store = LocalFileSystem::new_with_prefix(path).map_err(|source| BlobError::Open { source })?;
        Ok(Self { store: Arc::new(store.with_fsync(true)), folder: Some(path.to_owned()), signer: None })
    }

    fn open_s3(settings: &BlobSettings, place: &str) -> Result<Self, BlobError> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return Err(BlobError::Settings { message: "`url` names no bucket".to_owned() });
        }
        let client = ClientOptions::new()
            .with_timeout(REQUEST_DEADLINE)
            .with_connect_timeout(Duration::from_secs(5))
            .with_allow_http(settings.allow_http);
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(5),
                base: 2.,
            },
            max_retries: 8,
            retry_timeout: DEADLINE,
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_client_options(client)
            .with_retry(retry)
            // Amazon's refuses what comes to a bucket with a default retention without one.
            .with_checksum_algorithm(Checksum::SHA256);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &settings.region {
            builder = builder.with_region(region);
        }
        match (&settings.access_key_id, &settings.secret_access_key_file) {
            (None, None) => {}
            (Some(id), Some(path)) => {
                let secret = std::fs::read_to_string(path)
                    .map_err(|source| BlobError::SecretFile { path: path.clone(), source })?;
                let secret = Zeroizing::new(secret);
                builder = builder.with_access_key_id(id).with_secret_access_key(secret.trim_ascii());
            }
            (Some(_), None) | (None, Some(_)) => {
                let message = "`access_key_id` and `secret_access_key_file` belong together".to_owned();
                return Err(BlobError::Settings { message });
            }
        }
        let store = Arc::new(builder.build().map_err(|source| BlobError::Open { source })?);
        let prefix = Path::parse(prefix.trim_matches('/'))
            .map_err(|error| BlobError::Settings { message: error.to_string() })?;
        let signer = Some((store.clone(), prefix.clone()));
        if prefix.is_root() {
            return Ok(Self { store, folder: None, signer });
        }
        Ok(Self { store: Arc::new(PrefixStore::new(store, prefix)), folder: None, signer })
    }

    /// Stores `bytes` under `key`, whole or not at all. When it returns they are safe.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), BlobError> {
        let path = parse("store", key)?;
        within("store", key, self.store.put(&path, bytes.into())).await?;
        if let Some(folder) = &self.folder {
            let file = folder.join(key);
            // Nothing depends on it.
            let _ = tokio::task::spawn_blocking(move || forget_pages(&file)).await;
        }
        Ok(())
    }

    /// Stores `bytes` under `key` if nothing is there yet; what is there is left as it is.
    pub async fn create(&self, key: &str, bytes: Bytes) -> Result<Created, BlobError> {
        let path = parse("store", key)?;
        let put = async {
            match self.store.put_opts(&path, bytes.into(), PutMode::Create.into()).await {
                Ok(_) => Ok(Created::Fresh),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    Ok(Created::Existed)
                }
                Err(error) => Err(error),
            }
        };
        within("store", key, put).await
    }

    /// The first `most` keys, in their order, of those in the folder `folder` that start with `prefix`.
    pub async fn first_keys(&self, folder: &str, prefix: &str, most: usize) -> Result<Vec<String>, BlobError> {
        let path = parse("list", folder.trim_end_matches('/'))?;
        // S3 lists in the order of keys; a folder does not, so all of it is looked at.
        let sorted = self.folder.is_none();
        let list = async {
            let mut keys = Vec::new();
            let mut found = self.store.list(Some(&path));
            while let Some(object) = found.next().await {
                let key = object?.location.to_string();
                if key.starts_with(prefix) {
                    keys.push(key);
                } else if sorted && key.as_str() > prefix {
                    break;
                }
                if sorted && keys.len() >= most {
                    break;
                }
            }
            keys.sort_unstable();
            keys.truncate(most);
            Ok(keys)
        };
        within("list", folder, list).await
    }

    /// The whole object under `key`.
    pub async fn get(&self, key: &str) -> Result<Bytes, BlobError> {
        let path = parse("read", key)?;
        within("read", key, async { self.store.get(&path).await?.bytes().await }).await
    }

    /// How long the object under `key` cannot be taken away. A store that is no S3 locks nothing.
    pub async fn lock(&self, key: &str) -> Result<Lock, BlobError> {
        const DOING: &str = "ask for the lock of";
        let Some((store, prefix)) = &self.signer else {
            return Ok(if self.folder.is_some() { Lock::Files } else { Lock::None });
        };
        let path = prefix.parts().chain(parse(DOING, key)?.parts()).collect();
        let ask = async {
            let url = store.signed_url(reqwest::Method::HEAD, &path, DEADLINE).await?;
            let failed = |error: reqwest::Error| object_store::Error::Generic {
                store: "S3",
                source: Box::new(error.without_url()), // its signature is as good as a key, for a minute
            };
            let client = reqwest::Client::builder().timeout(REQUEST_DEADLINE).build().map_err(failed)?;
            let answer = client.head(url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
            let header =
                |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            Ok(match (header("x-amz-object-lock-mode"), header("x-amz-object-lock-retain-until-date")) {
                (Some(mode), Some(until)) => Lock::Until(format!("{mode} until {until}")),
                _ => Lock::None,
            })
        };
        within(DOING, key, ask).await
    }

    /// Removes the object under `key`; it is no error if there is none.
    pub async fn delete(&self, key: &str) -> Result<(), BlobError> {
        let path = parse("delete", key)?;
        match within("delete", key, self.store.delete(&path)).await {
            Ok(()) | Err(BlobError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Gives a stored file's pages back to the system: it is seldom read soon, and writing into pages that were in use a moment
/// ago costs a third of writing into fresh ones.
fn forget_pages(file: &std::path::Path) -> std::io::Result<()> {
    let file = std::fs::File::open(file)?;
    Ok(posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

fn parse(doing: &'static str, key: &str) -> Result<Path, BlobError> {
    Path::parse(key).map_err(|error| BlobError::Failed { doing, key: key.to_owned(), source: error.into() })
}

async fn within<T>(
    doing: &'static str,
    key: &str,
    call: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, BlobError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(object_store::Error::NotFound { .. })) => Err(BlobError::NotFound { key: key.to_owned() }),
        Ok(Err(source)) => Err(BlobError::Failed { doing, key: key.to_owned(), source }),
        Err(_elapsed) => Err(BlobError::TimedOut { doing, key: key.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> BlobSettings {
        BlobSettings { url: url.to_owned(), ..BlobSettings::default() }
    }

    #[tokio::test]
    async fn an_object_reads_back_from_a_folder_and_from_memory_until_it_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        for url in [format!("file:{}/deep/blobs", folder.path().display()), "memory:".to_owned()] {
            let blobs = Blobs::open(&settings(&url)).unwrap();

            blobs.put("r-1/000000.zst", Bytes::from_static(b"frames")).await.unwrap();

            assert_eq!(blobs.get("r-1/000000.zst").await.unwrap(), "frames");
            blobs.delete("r-1/000000.zst").await.unwrap();
            blobs.delete("r-1/000000.zst").await.unwrap();
            assert!(matches!(blobs.get("r-1/000000.zst").await, Err(BlobError::NotFound { .. })), "{url}");
        }
    }

    #[tokio::test]
    async fn a_key_cannot_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&settings(&format!("file:{}", folder.path().display()))).unwrap();
        for key in ["../outside", "/../outside", "a/../../outside", "a//b"] {
            assert!(blobs.put(key, Bytes::from_static(b"x")).await.is_err(), "{key}");
        }
    }

    #[test]
    fn settings_that_name_no_store_are_refused_with_what_to_write() {
        for url in ["", "blobs", "file:relative", "s3://", "http://bucket"] {
            assert!(matches!(Blobs::open(&settings(url)), Err(BlobError::Settings { .. })), "{url:?}");
        }
        let half = BlobSettings { access_key_id: Some("id".to_owned()), ..settings("s3://bucket/prefix") };
        let message = Blobs::open(&half).unwrap_err().to_string();
        assert!(message.contains("belong together"), "{message}");
    }
}
