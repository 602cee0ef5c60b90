//! The test page, part of the binary: `static/` as it was built; and pages of the application's own.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::LazyLock,
};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use bytes::Bytes;

use super::{client_bundle::revalidate, held_body};

/// What the page may do: run its own script and the client of whatever hub it is pointed at, and connect there.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self' http: https:; style-src 'self'; \
    img-src 'self' data:; connect-src http: https: ws: wss:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";

struct File {
    path: &'static str,
    content_type: &'static str,
    content: &'static [u8],
}

static FILES: [File; 4] = [
    File {
        path: "/",
        content_type: HTML,
        content: include_bytes!("../../static/index.html"),
    },
    File {
        path: "/page.js",
        content_type: "application/javascript; charset=utf-8",
        content: include_bytes!("../../static/page.js"),
    },
    File {
        path: "/style.css",
        content_type: "text/css; charset=utf-8",
        content: include_bytes!("../../static/style.css"),
    },
    File {
        path: "/favicon.svg",
        content_type: "image/svg+xml",
        content: include_bytes!("../../static/favicon.svg"),
    },
];

/// One for all files, since they change together, with the binary.
static ETAG: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    for file in &FILES {
        file.content.hash(&mut hasher);
    }
    format!("\"{:016x}\"", hasher.finish())
});

/// Adds a route for each file.
pub fn configure(config: &mut web::ServiceConfig) {
    for page in &FILES {
        config.route(
            page.path,
            super::health::get_or_head().to(move |request: HttpRequest| async move {
                let mut response = file(&request, page.content, page.content_type, &ETAG);
                response.headers_mut().insert(
                    header::CONTENT_SECURITY_POLICY,
                    header::HeaderValue::from_static(CONTENT_SECURITY_POLICY),
                );
                response
            }),
        );
    }
}

/// Adds a page of the application's own: HTML, checked again by browsers each time. What it may do is its author's business.
pub(super) fn configure_own(config: &mut web::ServiceConfig, path: &str, html: &Bytes) {
    let mut hasher = DefaultHasher::new();
    html.hash(&mut hasher);
    let etag = format!("\"{:016x}\"", hasher.finish());
    let html = html.clone();
    let answer = move |request: HttpRequest| {
        let response = file(&request, html.clone(), HTML, &etag);
        async move { response }
    };
    config.route(path, super::health::get_or_head().to(answer));
}

/// Answers with a file, or with 304 if the browser has it.
pub(super) fn file(
    request: &HttpRequest,
    content: impl Into<Bytes>,
    content_type: &'static str,
    etag: &str,
) -> HttpResponse {
    let is_known = request
        .headers()
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .split(',')
                .any(|tag| tag.trim().trim_start_matches("W/") == etag)
        });
    let mut response = if is_known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header((header::ETAG, etag))
        .insert_header(revalidate())
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    if is_known {
        response.finish()
    } else {
        response
            .content_type(content_type)
            .body(held_body::shared(content.into()))
    }
}
