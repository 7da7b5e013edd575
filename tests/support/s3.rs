//! A real S3-protocol server over HTTP with signatures checked, in the test's own process, on a folder that outlives `stop`.

use std::net::SocketAddr;
use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// The one bucket.
pub const BUCKET: &str = "recordings";
pub const ACCESS_KEY: &str = "test-access-key";
pub const SECRET_KEY: &str = "test-secret-key";
pub const REGION: &str = "us-east-1";

/// A server with one bucket. Dropping it ends it.
pub struct S3 {
    address: SocketAddr,
    service: S3Service,
    serving: Option<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

impl S3 {
    /// Starts a server with an empty bucket.
    pub async fn start() -> Self {
        let folder = super::temporary_folder();
        std::fs::create_dir(folder.path().join(BUCKET)).expect("a bucket");
        let files = s3s_fs::FileSystem::new(folder.path()).expect("a folder to serve");
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();

        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let serving = Some(tokio::spawn(serve(listener, service.clone())));
        Self { address, service, serving, folder }
    }

    /// Stops serving: connections are cut, new ones refused. What is stored stays.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            assert!(serving.await.is_err_and(|end| end.is_cancelled()), "the S3 server ended by itself");
        }
    }

    /// Serves again after `stop`, on the same port with the same data.
    pub async fn restart(&mut self) {
        assert!(self.serving.is_none(), "the S3 server is running already");
        let mut listener = None;
        super::eventually("the S3 server's port is free again", async || {
            listener = TcpListener::bind(self.address).await.ok();
            listener.is_some()
        })
        .await;
        let listener = listener.expect("a listener");
        self.serving = Some(tokio::spawn(serve(listener, self.service.clone())));
    }

    /// What clients call the endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The folder of the bucket's objects, for tests that damage them.
    pub fn objects(&self) -> std::path::PathBuf {
        Path::join(self.folder.path(), BUCKET)
    }

    /// A client of the bucket.
    pub fn store(&self) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_region(REGION)
            .with_bucket_name(BUCKET)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .build()
            .expect("an S3 client")
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

/// Accepts until aborted; its connections end with it.
async fn serve(listener: TcpListener, service: S3Service) {
    let mut connections = JoinSet::new();
    let http = Builder::new(TokioExecutor::new());
    loop {
        let (socket, _) = listener.accept().await.expect("a connection");
        let connection = http.serve_connection(TokioIo::new(socket), service.clone()).into_owned();
        // Why a client's connection ended is the client's to say.
        connections.spawn(async move { connection.await.is_ok() });
        while connections.try_join_next().is_some() {}
    }
}
