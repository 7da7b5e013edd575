//! Traces by OTLP (HTTP, protobuf): from the spans of `crate::spans` to a collector. Off unless an endpoint is named.
//!
//! ```text
//! a span ends ──► queue, bounded ──► a thread of its own: batches ──► POST …/v1/traces
//! ```
//!
//! Nothing waits for a collector. What does not fit into the queue while it is away is dropped, and so is what is left when
//! the flush at the end has had its time: a trace is for looking, and proves nothing.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::registry::LookupSpan;

use crate::app::ledger::verify::chain;
use crate::app::outbox;
use crate::spans;

/// Spans that wait for the collector; what is more is dropped. One takes about a kilobyte.
const MOST_WAITING: usize = 4096;

/// Spans that are sent at once.
const BATCH: usize = 512;

/// How long a span waits for others to go with it.
const GATHER: Duration = Duration::from_secs(1);

/// How long the collector may take for a batch, tries after the first one included.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long the end of the program waits for what is left.
const FLUSH: Duration = Duration::from_secs(3);

/// As much of the collector's answer is read.
const MOST_ANSWER: usize = 16 << 10;

/// `[traces]` in `sallyport.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSettings {
    /// The collector, as `http://127.0.0.1:4318`; left out, nothing is traced. `/v1/traces` is added.
    pub otlp_endpoint: Option<String>,
    /// A file with headers for it, one in a line as in `Authorization: Bearer …`, which may be secret.
    pub headers_file: Option<PathBuf>,
    /// The authorities, in PEM, of which one has certified it; left out, those of the machine.
    pub ca_file: Option<PathBuf>,
    /// Of a hundred connections, requests and batches so many are traced, by chance.
    pub share: u8,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self { otlp_endpoint: None, headers_file: None, ca_file: None, share: 100 }
    }
}

impl TraceSettings {
    /// What a type cannot say, each with its key.
    pub(crate) fn faults(&self) -> Vec<(&'static str, &'static str)> {
        let mut faults = Vec::new();
        if self.share > 100 {
            faults.push(("share", "must be 0 to 100"));
        }
        match self.otlp_endpoint.as_deref().map(endpoint) {
            Some(None) => faults.push((
                "otlp_endpoint",
                "must be `http://host:port` or `https://host:port`, with nothing behind it but a path",
            )),
            Some(Some(url)) if self.headers_file.is_some() && url.scheme() == "http" && !is_loopback(&url) => {
                faults.push(("headers_file", "goes over `https` only, or to this machine: headers may be secret"));
            }
            Some(Some(_)) => {}
            None if self.headers_file.is_some() || self.ca_file.is_some() => {
                faults.push(("otlp_endpoint", "is missing beside `headers_file` or `ca_file`"));
            }
            None => {}
        }
        faults
    }
}

/// Where spans are posted.
fn endpoint(text: &str) -> Option<Url> {
    let mut url: Url = text.parse().ok()?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    let is_ours = matches!(url.scheme(), "http" | "https") && url.fragment().is_none() && is_plain;
    url.path_segments_mut().ok()?.pop_if_empty().extend(["v1", "traces"]);
    is_ours.then_some(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Why there can be no traces. No text of it holds a header's value.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("`traces.otlp_endpoint` is not usable")]
    Endpoint,
    #[error("cannot use `{}` (`traces.headers_file`)", path.display())]
    Headers { path: PathBuf, source: std::io::Error },
    #[error("cannot prepare HTTP for `traces.otlp_endpoint`")]
    Http(#[from] outbox::OpenError),
    #[error("cannot prepare traces")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// The collector.
struct Collector {
    http: Client,
    url: Url,
    headers: HeaderMap,
    runtime: Handle,
    /// It did not take the last batch, and that was said.
    is_away: AtomicBool,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector") // its headers may be secret
    }
}

impl Collector {
    /// `None` where none is set.
    fn open(settings: &TraceSettings) -> Result<Option<Self>, TraceError> {
        let Some(text) = &settings.otlp_endpoint else { return Ok(None) };
        let url = endpoint(text).ok_or(TraceError::Endpoint)?;
        let headers = match &settings.headers_file {
            None => HeaderMap::new(),
            Some(path) => {
                let failed = |source| TraceError::Headers { path: path.clone(), source };
                let text = std::fs::read_to_string(path).map_err(failed)?;
                headers(&text).map_err(|message| failed(std::io::Error::other(message)))?
            }
        };
        let http = outbox::http::client(settings.ca_file.as_deref())?;
        Ok(Some(Self { http, url, headers, runtime: Handle::current(), is_away: AtomicBool::new(false) }))
    }

    /// Posts spans in protobuf.
    async fn post(&self, spans: Bytes) -> Result<(StatusCode, Bytes), reqwest::Error> {
        let request = self.http.post(self.url.clone()).headers(self.headers.clone());
        let request = request.header(CONTENT_TYPE, "application/x-protobuf").timeout(DEADLINE).body(spans);
        let mut answer = request.send().await.map_err(reqwest::Error::without_url)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
            if body.len() + chunk.len() > MOST_ANSWER {
                break; // the status says what counts
            }
            body.extend_from_slice(&chunk);
        }
        Ok((answer.status(), body.into()))
    }

    /// Says once that the collector takes nothing, and once that it does again.
    fn note(&self, fault: Option<&str>) {
        let was_away = self.is_away.swap(fault.is_some(), Ordering::AcqRel);
        match fault {
            Some(fault) if !was_away => {
                warn!(fault, "The collector takes no traces; they are dropped until it does. Nothing else is touched.");
            }
            None if was_away => info!("The collector takes traces again."),
            Some(_) | None => {}
        }
    }
}

/// Headers, one in a line. Empty lines and those that begin with `#` are left out.
fn headers(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = line.split_once(':').and_then(|(name, value)| {
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((name.trim().parse::<HeaderName>().ok()?, value))
        });
        let (name, value) = parsed.ok_or_else(|| format!("line {number} is no `Name: value`"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// What the exporter sends goes to the collector as it is configured here: not where variables of the environment point, nor with
/// the headers that they name.
#[derive(Debug)]
struct Post(Arc<Collector>);

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Box<dyn Error + Send + Sync>> {
        let collector = self.0.clone();
        // The exporter's thread is none of the runtime's, and HTTP is driven by the runtime.
        let posting = self.0.runtime.spawn(async move { collector.post(request.into_body()).await });
        match posting.await? {
            Ok((status, body)) => {
                let fault = (!status.is_success()).then(|| format!("it answered {}", status.as_u16()));
                self.0.note(fault.as_deref());
                Ok(Response::builder().status(status.as_u16()).body(body)?)
            }
            Err(error) => {
                self.0.note(Some(&chain(&error)));
                Err(error.into())
            }
        }
    }
}

/// Traces that are on.
#[derive(Debug)]
pub(super) struct Traces {
    collector: Arc<Collector>,
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// `None` where no endpoint is set. Needs the runtime.
    pub(super) fn open(settings: &TraceSettings, node: &str) -> Result<Option<Self>, TraceError> {
        let Some(collector) = Collector::open(settings)? else { return Ok(None) };
        let (url, collector) = (collector.url.to_string(), Arc::new(collector));
        let exporter = SpanExporter::builder().with_http().with_http_client(Post(collector.clone()));
        let exporter =
            exporter.with_protocol(Protocol::HttpBinary).with_endpoint(url).with_timeout(DEADLINE).build()?;
        let queue = BatchConfigBuilder::default()
            .with_max_queue_size(MOST_WAITING)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(GATHER)
            .build();
        let attributes = [
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node.to_owned()),
        ];
        let resource = Resource::builder().with_service_name("sallyport").with_attributes(attributes).build();
        let share = Sampler::TraceIdRatioBased(f64::from(settings.share) / 100.0);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(queue).build())
            .with_sampler(Sampler::ParentBased(Box::new(share)))
            .with_resource(resource)
            .build();
        Ok(Some(Self { collector, tracer: provider.tracer("sallyport"), provider }))
    }

    /// What takes our spans from the log's library: these alone, and none of the log's messages, which may name people and would
    /// pile up in the span of a long session.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.tracer.clone())
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(filter_fn(|it| it.is_span() && it.target() == spans::TARGET).and(LevelFilter::INFO))
    }

    /// Sends what is left, for a while.
    pub(super) async fn finish(self) {
        let (done, flushed) = tokio::sync::oneshot::channel();
        // A thread of its own: the runtime's end would wait for one of its threads that does not come back.
        let provider = self.provider;
        std::thread::spawn(move || done.send(provider.shutdown_with_timeout(FLUSH)));
        let in_time = matches!(tokio::time::timeout(FLUSH, flushed).await, Ok(Ok(Ok(()))));
        // That a batch was refused or not delivered is no error of the exporter's.
        if !in_time || self.collector.is_away.load(Ordering::Acquire) {
            info!("The last traces did not get to the collector, and are dropped.");
        }
    }
}

/// Asks the collector whether it takes traces, with none in it. The error says what is wrong.
pub(crate) async fn ask(settings: &TraceSettings) -> Result<(), String> {
    let collector = Collector::open(settings).map_err(|error| chain(&error))?;
    let Some(collector) = collector else { return Ok(()) };
    match collector.post(Bytes::new()).await {
        Ok((status, _)) if status.is_success() => Ok(()),
        Ok((status, _)) => Err(format!("it answered {}", status.as_u16())),
        Err(error) => Err(chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(settings: &TraceSettings) -> Vec<&'static str> {
        settings.faults().into_iter().map(|(key, _)| key).collect()
    }

    fn at(endpoint: &str) -> TraceSettings {
        TraceSettings { otlp_endpoint: Some(endpoint.to_owned()), ..TraceSettings::default() }
    }

    #[test]
    fn an_endpoint_is_a_place_without_secrets_and_gets_its_path() {
        let url = |text| endpoint(text).map(String::from);
        assert_eq!(url("http://127.0.0.1:4318").as_deref(), Some("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(url("https://otel.example/in/").as_deref(), Some("https://otel.example/in/v1/traces"));
        for text in
            ["", "127.0.0.1:4318", "grpc://a:4317", "http://u:p@a", "https://a?token=1", "https://a#b", "mailto:a"]
        {
            assert_eq!(url(text), None, "{text}");
            assert_eq!(faults(&at(text)), ["otlp_endpoint"], "{text}");
        }
    }

    #[test]
    fn headers_go_to_nobody_who_listens_on_the_way() {
        let with_headers = |endpoint| TraceSettings { headers_file: Some("/h".into()), ..at(endpoint) };
        for endpoint in ["https://otel.example", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost"] {
            assert!(faults(&with_headers(endpoint)).is_empty(), "{endpoint}");
        }
        assert_eq!(faults(&with_headers("http://otel.example")), ["headers_file"]);
        assert_eq!(faults(&with_headers("http://127.0.0.1.example")), ["headers_file"]);
        let alone = TraceSettings { otlp_endpoint: None, ..with_headers("") };
        assert_eq!(faults(&alone), ["otlp_endpoint"]);
        assert_eq!(faults(&TraceSettings { share: 101, ..TraceSettings::default() }), ["share"]);
    }

    #[test]
    fn a_line_is_a_header_and_no_message_repeats_it() {
        let read = headers("# for the collector\n\nAuthorization: Bearer a:b \nx-scope:ops\n").unwrap();
        assert_eq!((read.len(), read["authorization"].to_str().unwrap()), (2, "Bearer a:b"));
        assert!(read.values().all(HeaderValue::is_sensitive));
        for text in ["hunter2", "Bad Name: hunter2", ": hunter2", "a: hunter2\u{0}"] {
            assert_eq!(headers(&format!("ok: 1\n{text}")).unwrap_err(), "line 2 is no `Name: value`");
        }
    }
}
