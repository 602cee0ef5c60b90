//! The official client's bundle, under the names at which Node's server has it.
//!
//! The files are part of the binary if npm had installed them when it was built; else the routes redirect to the public
//! CDN's file of the pinned version. Source: wire.md 1.1 (names, `ETag` is the quoted version).

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, CacheControl, CacheDirective},
};

include!(concat!(env!("OUT_DIR"), "/client_bundle.rs"));

/// Returns whether the binary holds the bundle.
pub fn is_built_in() -> bool {
    !FILES.is_empty()
}

/// Answers a GET for one of the files. `None` if `name` is none of them.
pub fn answer(request: &HttpRequest, name: &str) -> Option<HttpResponse> {
    let name = NAMES.iter().find(|known| **known == name)?;
    let Some((_, content)) = FILES.iter().find(|(file, _)| file == name) else {
        return Some(
            HttpResponse::Found()
                .insert_header((
                    header::LOCATION,
                    format!("https://cdn.socket.io/{VERSION}/{name}"),
                ))
                .finish(),
        );
    };
    let content_type = if name.ends_with(".map") {
        "application/json; charset=utf-8"
    } else {
        "application/javascript; charset=utf-8"
    };
    Some(super::page::file(
        request,
        *content,
        content_type,
        &format!("\"{VERSION}\""),
    ))
}

/// Lets a browser keep a file, but ask each time whether it is still the one.
pub(super) fn revalidate() -> CacheControl {
    CacheControl(vec![CacheDirective::Public, CacheDirective::MaxAge(0)])
}
