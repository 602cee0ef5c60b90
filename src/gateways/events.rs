//! EventsGateway: the built-in namespace `/events`.
//!
//! Admits whoever brings a valid token, as `{"token": …}` in the CONNECT payload or as `Authorization: Bearer` of the
//! handshake.
//!
//! | event | from | does |
//! | --- | --- | --- |
//! | `test-event` | client | goes to all clients of `/events` on all instances, sender included, its arguments unchanged; acks `{"ok":true}` |
//! | `echo` | client | acks its own arguments |
//! | `instance` | hub | `{"id": …}`, once after each connect, and after each move to another: which instance serves this client |

use serde::Deserialize;
use serde_json::json;

use super::{Ack, ConnectRequest, Event, Gateway, HandlerError, Refusal, Reply, SocketRef};
use crate::auth::{TokenError, TokenVerifier};

/// The namespace.
pub const NAMESPACE: &str = "/events";

/// Returns the gateway.
pub fn gateway(verifier: TokenVerifier) -> Gateway {
    Gateway::new(NAMESPACE)
        .authorize(move |request| admit(&verifier, &request))
        .on_connect(|socket| async move { tell_instance(&socket) })
        .on_move(|socket| async move { tell_instance(&socket) })
        .on("test-event", |socket: SocketRef, event: Event| async move {
            socket
                .namespace_ref()
                .all()
                .emit_args(event.args().clone())
                .await?;
            Ok::<_, HandlerError>(Ack(json!({ "ok": true })))
        })
        .on("echo", |_, event: Event| async move {
            Reply::args(event.payload())
        })
}

fn tell_instance(socket: &SocketRef) -> Result<(), HandlerError> {
    socket.emit("instance", json!({ "id": socket.instance().as_str() }))
}

#[derive(Deserialize)]
struct Auth {
    token: Option<String>,
}

/// Returns the token that the client brought; the payload's wins over the header's.
fn token(request: &ConnectRequest) -> Option<String> {
    let auth = request
        .auth
        .as_ref()
        .and_then(|auth| serde_json::from_str::<Auth>(auth).ok());
    auth.and_then(|auth| auth.token)
        .filter(|token| !token.is_empty())
        .or_else(|| {
            let header = request.handshake.header("authorization")?;
            let (scheme, token) = header.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then(|| token.trim().to_owned())
        })
}

fn admit(verifier: &TokenVerifier, request: &ConnectRequest) -> Result<serde_json::Value, Refusal> {
    let token = token(request).ok_or_else(|| unauthorized("token_missing"))?;
    let identity = verifier.verify(&token).map_err(|err| {
        unauthorized(match err {
            TokenError::Invalid => "token_invalid",
            TokenError::Expired => "token_expired",
            TokenError::KeyUnavailable => "auth_unavailable",
        })
    })?;
    Ok(json!({ "user": { "id": identity.user_id, "username": identity.username } }))
}

fn unauthorized(code: &str) -> Refusal {
    Refusal::new("Unauthorized").with_data(json!({ "code": code }))
}
