//! The web app, as `build.rs` built it into this program: its files by their paths, and `index.html` for every page of it, since
//! the pages are told apart in the browser.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::compress::accepts;
use super::error::ApiError;

/// A file of the web app. Those whose names hold a hash never change.
struct Asset {
    path: &'static str,
    kind: &'static str,
    is_hashed: bool,
    plain: &'static [u8],
    /// The same, compressed, where that is worth it. Brotli rather than zstd: Node.js 20, which builds them, has no zstd.
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The file at this path, or the page for it.
pub(super) async fn serve(request: Request) -> Response {
    let path = request.uri().path();
    if path == "/api" || path.starts_with("/api/") {
        return ApiError::NotFound("there is nothing at this path".to_owned()).into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ApiError::MethodNotAllowed { method: request.method().to_string() }.into_response();
    }
    let wanted = path.trim_start_matches('/');
    let asset = ASSETS.iter().find(|asset| asset.path == wanted);
    // Names of people and targets have dots: what is not below `assets/` is a page, but for what browsers ask for unbidden.
    let is_page = !wanted.starts_with("assets/") && !matches!(wanted, "favicon.ico" | "robots.txt");
    let index = || ASSETS.iter().find(|asset| asset.path == "index.html").filter(|_| is_page);
    match asset.or_else(index) {
        Some(asset) => answer(asset, request.headers()),
        None => ApiError::NotFound("there is nothing at this path".to_owned()).into_response(),
    }
}

fn answer(asset: &Asset, asked: &HeaderMap) -> Response {
    let forms = [("br", asset.brotli), ("gzip", asset.gzip)];
    let compressed = forms.into_iter().find_map(|(name, bytes)| Some((name, bytes.filter(|_| accepts(asked, name))?)));
    let (encoding, bytes) = compressed.map_or((None, asset.plain), |(name, bytes)| (Some(name), bytes));
    let mut response = (StatusCode::OK, Body::from(bytes)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    headers.insert(header::CACHE_CONTROL, if asset.is_hashed { IMMUTABLE } else { NO_STORE });
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}
