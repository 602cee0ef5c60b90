//! WebSocket upgrades: takes the raw stream over from actix-http and hands it to a session.
//!
//! Comes before actix-web's routes, so it judges path and origin itself, by the same rules. A refusal is plain HTTP with
//! the reason as its text, and then the end of the stream: wire.md 1.1.

use std::{convert::Infallible, sync::Arc};

use actix_codec::Framed;
use actix_http::{Request, h1};
use actix_web::http::{StatusCode, header::HeaderMap};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    connection::Watched,
    cors,
    engine_io::{Head as _, facts, log_refusal, may_open},
    origin::AllowedOrigins,
    whose::Whose,
};
use crate::{
    engine_io::handshake::{HandshakeError, Query, TransportName, verify},
    relay::adopt::{Ready, Unready},
    slots::Slot,
    socket::{
        actor::{Services, Socket},
        endpoint::{Endpoint, Layer, SOCKET_IO_PATH},
        messages::Upgrade,
        outbox::Outbox,
        sessions::{Expected, Session},
    },
    websocket::{
        close::CloseFrame,
        connection::{Connection, Linger},
        handshake,
    },
};

/// Handles one upgrade request.
///
/// # Errors
/// None: what is wrong with the request is told to the client. If the system fails, the log says so, and the stream just ends.
pub async fn upgrade(
    services: Arc<Services>,
    policy: AllowedOrigins,
    request: Request,
    framed: Framed<Watched, h1::Codec>,
) -> Result<(), Infallible> {
    let parts = framed.into_parts();
    let (mut stream, behind, http_slot) = parts.io.into_parts();
    let mut read_buf = parts.read_buf;
    read_buf.extend_from_slice(&behind);
    let Accepted {
        layer,
        query,
        aim,
        answer,
    } = match judge(&services, &policy, &request).await {
        Ok(accepted) => accepted,
        Err((status, text)) => {
            // In a task of its own, so that the connection's HTTP state is not kept for it. The server counts it no more: this does.
            actix_rt::spawn(async move {
                let linger = Linger::refused();
                _ = tokio::time::timeout(linger.limit(), refuse(&mut stream, status, &text)).await;
                drop((linger, http_slot));
            });
            return Ok(());
        }
    };
    let connection = Connection::new(stream, read_buf, services.config.max_payload);
    match (aim, query.transport) {
        (Aim::Own(session), Some(TransportName::WebSocket)) => match connection.hand_over() {
            Ok(handover) => session.addr.do_send(Upgrade {
                handover,
                dialect: query.dialect,
                answer,
            }),
            Err(err) => log::warn!("a stream cannot leave its worker: {err}"),
        },
        (Aim::Others(ready, slot, expected), Some(TransportName::WebSocket)) => {
            let adopting = ready.adopt(services, layer, query.dialect, connection, answer, slot);
            actix_rt::spawn(async move {
                adopting.await;
                drop((expected, http_slot));
            });
            return Ok(());
        }
        (Aim::New(slot), Some(TransportName::WebSocket)) => {
            let handshake = request.handshake(&query);
            let opened = Socket::open_websocket(
                &services,
                layer,
                handshake,
                query.dialect,
                connection,
                answer,
                slot,
            );
            if let Err(err) = opened {
                log::error!("a session cannot be opened: {err}");
            }
        }
        // Polling has no use for an upgrade, nor a session for a second one: Node answers 101 and closes.
        (_, _) => {
            let outbox = Outbox::with_answer(answer.len(), answer);
            connection.turn_away(outbox, &CloseFrame::BARE, http_slot);
            return Ok(());
        }
    }
    // A WebSocket counts as a session, and no more as a connection.
    drop(http_slot);
    Ok(())
}

/// A request that may become a WebSocket.
struct Accepted {
    /// What stands above Engine.IO at its path.
    layer: Layer,
    query: Query,
    /// What for, as it was judged: a session that ends meanwhile does not turn the request into a new one.
    aim: Aim,
    /// The 101.
    answer: Bytes,
}

/// What a WebSocket is to become the transport of.
enum Aim {
    /// A session that it opens, which has this place among those of its address.
    New(Slot),
    /// One of this instance.
    Own(Arc<Session>),
    /// One of another instance, which lets it come here, to this place among those of its address and this one among all.
    Others(Box<Ready>, Slot, Expected),
    /// The session that it names wants no further one, or stays at the instance where it is.
    Nothing,
}

/// Judges a request.
async fn judge(
    services: &Arc<Services>,
    policy: &AllowedOrigins,
    request: &Request,
) -> Result<Accepted, (StatusCode, String)> {
    let Some(endpoint) = Endpoint::find(&services.endpoints, request.path()) else {
        let text = format!("WebSockets are served below {SOCKET_IO_PATH}");
        return Err((StatusCode::NOT_FOUND, text));
    };
    let origin = request.headers().get(actix_web::http::header::ORIGIN);
    let host = request.headers().get(actix_web::http::header::HOST);
    let verdict = policy.judge(origin.map(|o| o.as_bytes()), host.map(|h| h.as_bytes()));
    if !verdict.is_allowed() {
        return Err((StatusCode::FORBIDDEN, cors::refusal_text(origin)));
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    // What it comes for is a session that could move here.
    let is_websocket = query.transport == Some(TransportName::WebSocket);
    let can_move = services
        .relay
        .as_ref()
        .is_some_and(|relay| relay.can_move());
    let whose = Whose::find(services, &query, is_websocket && can_move);
    let facts = facts(services, &query, &whose, request, true);
    let refuse = |error| {
        log_refusal(error, request);
        refusal(error)
    };
    verify(&facts).map_err(refuse)?;
    let may_open = || may_open(services, request).map_err(|closed| (closed.status, closed.text));
    let aim = match whose {
        Whose::New => Aim::New(may_open()?),
        Whose::Own(session) => Aim::Own(session),
        Whose::Moved(_) => Aim::Nothing,
        Whose::Unknown => return Err(refuse(HandshakeError::SessionIdUnknown)),
        Whose::Elsewhere(relay, sid) => {
            // What comes here counts here; if there is no room, its client stays on polling where it is.
            let slot = may_open()?;
            let expected = services.sessions.expect_one();
            match relay.ask_for(services, &sid, query.dialect).await {
                Ok(ready) => Aim::Others(Box::new(ready), slot, expected),
                Err(Unready::Taken | Unready::NoRoom) => Aim::Nothing,
                Err(Unready::Error(error)) => return Err(refuse(error)),
            }
        }
    };
    let mut extra = HeaderMap::new();
    cors::add_headers(&mut extra, verdict, origin);
    match handshake::accept(request.head(), &extra) {
        Ok(answer) => Ok(Accepted {
            layer: endpoint.layer.clone(),
            query,
            aim,
            answer,
        }),
        Err(error) => Err((StatusCode::BAD_REQUEST, error.to_string())),
    }
}

fn refusal(error: HandshakeError) -> (StatusCode, String) {
    let text = match error.advice() {
        Some(advice) => format!("{error}: {advice}"),
        None => error.to_string(),
    };
    (StatusCode::BAD_REQUEST, text)
}

/// Writes the refusal and waits for the client to end the stream; unread input would reset it.
async fn refuse(stream: &mut TcpStream, status: StatusCode, text: &str) {
    let answer = format!(
        "HTTP/1.1 {} {}\r\nConnection: close\r\nContent-type: text/html\r\nContent-Length: {}\r\n\r\n{text}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        text.len()
    );
    if stream.write_all(answer.as_bytes()).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    let mut scratch = [0; 1024];
    while stream.read(&mut scratch).await.is_ok_and(|len| len > 0) {}
}
