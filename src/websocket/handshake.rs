//! The opening handshake: judges an upgrade request and writes the answer.
//!
//! Pure: headers in, bytes out. Source: RFC 6455, 4.2; the checks of the head are actix-http's.

use actix_http::{
    RequestHead,
    header::{self, HeaderMap},
    ws::hash_key,
};
use actix_web_actors::ws::HandshakeError;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;

/// The versions that Node's server accepts; the frames of both are those of RFC 6455.
const VERSIONS: [&str; 2] = ["13", "8"];

/// Judges the head of an upgrade request and returns the bytes of the 101, `extra` headers included.
///
/// # Errors
/// The request is not a WebSocket handshake; the error's text says which part is missing.
pub fn accept(head: &RequestHead, extra: &HeaderMap) -> Result<Bytes, HandshakeError> {
    actix_http::ws::verify_handshake(head)?;
    let header = |name| {
        head.headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    if !header(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| VERSIONS.contains(&version)) {
        return Err(HandshakeError::UnsupportedVersion);
    }
    let key = header(header::SEC_WEBSOCKET_KEY).ok_or(HandshakeError::BadWebsocketKey)?;
    match STANDARD.decode(key) {
        Ok(nonce) if nonce.len() == 16 => {}
        _ => return Err(HandshakeError::BadWebsocketKey),
    }
    let accept = hash_key(key.as_bytes());
    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: "
        .to_vec();
    answer.extend_from_slice(&accept);
    answer.extend_from_slice(b"\r\n");
    for (name, value) in extra {
        answer.extend_from_slice(name.as_str().as_bytes());
        answer.extend_from_slice(b": ");
        answer.extend_from_slice(value.as_bytes());
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"\r\n");
    Ok(answer.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_http::{Method, Request, header::HeaderValue};

    fn request(change: impl FnOnce(&mut Request)) -> Request {
        let mut request = Request::new();
        request.head_mut().method = Method::GET;
        for (name, value) in [
            (header::UPGRADE, "websocket"),
            (header::CONNECTION, "Upgrade"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            request
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        request
            .head_mut()
            .set_connection_type(actix_http::ConnectionType::Upgrade);
        change(&mut request);
        request
    }

    #[test]
    fn the_sample_of_the_rfc_is_answered_as_it_says() {
        let answer = accept(request(|_| {}).head(), &HeaderMap::new()).unwrap();
        let answer = std::str::from_utf8(&answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(answer.ends_with("\r\n\r\n"));
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        let refused = |change: fn(&mut Request)| {
            accept(request(change).head(), &HeaderMap::new()).expect_err("must be refused")
        };
        assert_eq!(
            refused(|r| r.head_mut().method = Method::POST),
            HandshakeError::GetMethodRequired
        );
        for key in [
            "short",
            "dGhlIHNhbXBsZSBub25jZQ",
            "!!!!!!!!!!!!!!!!!!!!!!==",
        ] {
            let mut bad = request(|_| {});
            bad.headers_mut()
                .insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static(key));
            assert_eq!(
                accept(bad.head(), &HeaderMap::new()),
                Err(HandshakeError::BadWebsocketKey),
                "{key}"
            );
        }
        assert_eq!(
            refused(|r| {
                r.headers_mut().insert(
                    header::SEC_WEBSOCKET_VERSION,
                    HeaderValue::from_static("12"),
                );
            }),
            HandshakeError::UnsupportedVersion
        );
    }
}
