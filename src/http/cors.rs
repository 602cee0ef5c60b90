//! Applies the origin policy to HTTP: refuses foreign origins where it matters, and tells browsers of allowed ones.
//!
//! WebSockets do not come through here; `upgrade` applies the same policy to them. Only the routes that do something for a
//! client are guarded; whoever may read the page may come from anywhere.
//!
//! Headers as the `cors` module of Node writes them: wire.md 1.9.

use std::sync::Arc;

use actix_web::{
    Error, HttpResponse,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{self, HeaderMap, HeaderValue},
    },
    middleware::Next,
    web,
};

use super::{
    error::ApiError,
    origin::{AllowedOrigins, Verdict},
};
use crate::{
    engine_io::handshake::HandshakeError,
    socket::{actor::Services, endpoint::Endpoint},
};

/// Guarded besides the paths that speak Engine.IO.
const ACCOUNTS_PATH: &str = "/auth/";

const METHODS: HeaderValue = HeaderValue::from_static("GET,HEAD,PUT,PATCH,POST,DELETE");

/// The middleware.
///
/// # Errors
/// Only those of the inner services.
pub async fn apply<B: MessageBody>(
    policy: web::Data<AllowedOrigins>,
    services: web::Data<Arc<Services>>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let host = request.headers().get(header::HOST);
    let verdict = policy.judge(
        origin.as_ref().map(HeaderValue::as_bytes),
        host.map(HeaderValue::as_bytes),
    );
    // The path as the routes match it: decoded, or `/%73ocket.io/` would go by unseen.
    let path = request.match_info().as_str();
    let is_engine_io = Endpoint::find(&services.endpoints, path).is_some();
    let is_guarded = is_engine_io || path.starts_with(ACCOUNTS_PATH);
    if is_guarded && !verdict.is_allowed() {
        let response = refusal(is_engine_io, origin.as_ref());
        let mut response = request.into_response(response).map_into_right_body();
        add_headers(response.headers_mut(), verdict, origin.as_ref());
        return Ok(response);
    }
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight && verdict.is_allowed() && verdict != Verdict::NoOrigin {
        let response = preflight(request.headers());
        request.into_response(response).map_into_right_body()
    } else {
        next.call(request).await?.map_into_left_body()
    };
    add_headers(response.headers_mut(), verdict, origin.as_ref());
    Ok(response)
}

/// Adds what lets a page of an allowed origin read the answer.
pub(super) fn add_headers(headers: &mut HeaderMap, verdict: Verdict, origin: Option<&HeaderValue>) {
    match (verdict, origin) {
        (Verdict::Allowed, Some(origin)) => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        (Verdict::AllowedToAny, _) => {
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_ORIGIN,
                HeaderValue::from_static("*"),
            );
        }
        (Verdict::Allowed | Verdict::NoOrigin | Verdict::Refused, _) => {}
    }
    if matches!(verdict, Verdict::Allowed | Verdict::AllowedToAny) {
        // Browsers hide it from pages of other origins otherwise; the test page tells when to try again.
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("Retry-After"),
        );
    }
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

fn preflight(request: &HeaderMap) -> HttpResponse {
    let mut response = HttpResponse::NoContent();
    response
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, "600"))
        .append_header((header::VARY, "Access-Control-Request-Headers"));
    if let Some(headers) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        response.insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone()));
    }
    response.finish()
}

/// Returns the sentence that tells whoever runs the page what to change.
pub(super) fn refusal_text(origin: Option<&HeaderValue>) -> String {
    let origin = origin.map(|origin| String::from_utf8_lossy(origin.as_bytes()));
    format!(
        "Origin {} is not allowed here; add it to the server's FRONTEND_URL.",
        origin.as_deref().unwrap_or("null")
    )
}

fn refusal(is_engine_io: bool, origin: Option<&HeaderValue>) -> HttpResponse {
    let text = refusal_text(origin);
    if is_engine_io {
        let code = HandshakeError::Forbidden.code();
        return HttpResponse::Forbidden()
            .json(serde_json::json!({ "code": code, "message": text }));
    }
    HttpResponse::from_error(ApiError::new(StatusCode::FORBIDDEN, "origin_refused", text))
}
