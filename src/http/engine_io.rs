//! Engine.IO over HTTP: the handshake and the polling of a session.
//!
//! Translates requests into messages for the Socket actor and its answers into responses; decides nothing about a session.
//! Source: wire.md 1.1 (checks), 1.4 (answers).

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode, header},
    web,
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::sync::oneshot;

use super::{
    body_deadline, client_bundle,
    connection::claimed_len,
    error::ApiError,
    held_body,
    proxies::{self, TrustedProxies},
    whose::Whose,
};
use crate::{
    config::Limits,
    counters::Limit,
    detached::fitted,
    engine_io::{
        dialect::Revision,
        encoded::PollingBody,
        handshake::{Facts, HandshakeError, Query, TransportName, verify},
        sid::Sid,
    },
    relay::{Answer, Relay},
    slots::Slot,
    socket::{
        actor::{Services, Socket},
        backlogs::{Held, HeldBody, Share},
        endpoint::{Endpoint, Layer},
        handshake::Handshake,
        messages::{Body, Poll, PollAnswer, Post, PostAnswer},
        sessions::Session,
    },
};

/// Largest head of a request that opens a session, which the session keeps: Node's limit.
const MAX_HANDSHAKE_BYTES: usize = 16 * 1024;

/// How long another instance may take to answer a poll beyond the time in which its session would have ended.
const RELAY_GRACE: Duration = Duration::from_secs(5);

/// The content type of binary payloads, which exist in revision 3 alone.
const BINARY: &str = "application/octet-stream";

/// Adds a route for each endpoint: everything below `/socket.io/`, as in Node. `/socket.io` without the slash is not ours.
pub fn configure(config: &mut web::ServiceConfig, endpoints: &[Endpoint]) {
    for Endpoint { path, layer } in endpoints {
        // What clients ask for, by itself: it is found without a regular expression, which a poll would notice.
        for pattern in [path.clone(), format!("{path}{{tail:.+}}")] {
            let layer = layer.clone();
            config.route(
                &pattern,
                web::to(move |services, request, body| {
                    engine_io(services, layer.clone(), request, body)
                }),
            );
        }
    }
}

async fn engine_io(
    services: web::Data<Arc<Services>>,
    layer: Layer,
    request: HttpRequest,
    body: web::Payload,
) -> HttpResponse {
    if matches!(*request.method(), Method::GET | Method::HEAD)
        && matches!(layer, Layer::SocketIo)
        && let Some(tail) = request.match_info().get("tail")
        && let Some(file) = client_bundle::answer(&request, tail)
    {
        return file;
    }
    let query = Query::parse(request.query_string());
    let is_polled = matches!(*request.method(), Method::GET | Method::POST);
    let whose = Whose::find(&services, &query, is_polled);
    if let Err(error) = verify(&facts(&services, &query, &whose, &request, false)) {
        log_refusal(error, &request);
        return refuse(error);
    }
    let revision = query.dialect.revision;
    match (whose, request.method()) {
        (Whose::New, _) => open(&services, layer, &request, &query),
        (Whose::Own(session), &Method::GET) => poll(&services, &session).await,
        (Whose::Own(session), &Method::POST) => post(&services, &session, &request, body).await,
        (Whose::Elsewhere(relay, sid), &Method::GET) => {
            poll_elsewhere(&services, relay, &sid, revision).await
        }
        (Whose::Elsewhere(relay, sid), &Method::POST) => {
            post_elsewhere(&services, relay, &sid, revision, &request, body).await
        }
        // A session on a WebSocket has no answer to it, here or elsewhere.
        (Whose::Moved(_), &Method::GET | &Method::POST) | (Whose::Unknown, _) => {
            refuse(HandshakeError::SessionIdUnknown)
        }
        // As in Node: the session stays.
        (Whose::Own(_) | Whose::Elsewhere(..) | Whose::Moved(_), _) => {
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// Gathers what the rules judge.
pub(super) fn facts(
    services: &Services,
    query: &Query,
    whose: &Whose<'_>,
    request: &impl Head,
    is_upgrade: bool,
) -> Facts {
    Facts {
        transport: query.transport,
        origin_is_legal: request
            .headers()
            .get(header::ORIGIN)
            .is_none_or(|origin| origin.to_str().is_ok()),
        session: whose.fact(query),
        is_upgrade,
        is_get: request.method() == Method::GET,
        revision: query.dialect.revision,
        allow_eio3: services.config.allow_eio3,
    }
}

/// What a request of either kind, plain or upgrade, has in common.
pub(super) trait Head {
    fn method(&self) -> &Method;
    fn headers(&self) -> &header::HeaderMap;
    fn target(&self) -> String;
    fn peer(&self) -> Option<std::net::SocketAddr>;

    /// Returns whose request it is; [`proxies::counted`] says what of it is one address.
    fn client(&self, trusted_proxies: &TrustedProxies) -> Option<IpAddr> {
        let forwarded_for = self.headers().get_all("x-forwarded-for");
        let forwarded_for: Vec<_> = forwarded_for
            .map(|value| value.to_str().unwrap_or_default())
            .collect();
        Some(trusted_proxies.client(self.peer()?, forwarded_for.into_iter()))
    }

    /// Returns what a session keeps of the request that opened it.
    fn handshake(&self, query: &Query) -> Handshake {
        let headers = self
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        Handshake::new(
            self.peer()
                .map(|peer| peer.ip().to_string())
                .unwrap_or_default(),
            self.target(),
            headers,
            query.pairs.clone(),
        )
    }
}

impl Head for HttpRequest {
    fn method(&self) -> &Method {
        HttpRequest::method(self)
    }

    fn headers(&self) -> &header::HeaderMap {
        HttpRequest::headers(self)
    }

    fn target(&self) -> String {
        self.uri().to_string()
    }

    fn peer(&self) -> Option<std::net::SocketAddr> {
        self.peer_addr()
    }
}

impl Head for actix_http::Request {
    fn method(&self) -> &Method {
        &self.head().method
    }

    fn headers(&self) -> &header::HeaderMap {
        &self.head().headers
    }

    fn target(&self) -> String {
        self.head().uri.to_string()
    }

    fn peer(&self) -> Option<std::net::SocketAddr> {
        self.head().peer_addr
    }
}

/// Why this instance takes no new session from a request that is sound.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) status: StatusCode,
    /// For programs.
    code: &'static str,
    /// For people.
    pub(super) text: String,
}

impl Closed {
    fn new(status: StatusCode, code: &'static str, text: impl Into<String>) -> Self {
        Self {
            status,
            code,
            text: text.into(),
        }
    }
}

/// Judges what has nothing to do with the protocol: whether this instance takes a new session from such a request. Returns the
/// session's place among those of its address.
///
/// # Errors
/// The refusal.
pub(super) fn may_open(services: &Services, request: &impl Head) -> Result<Slot, Closed> {
    if services.is_stopping.load(Ordering::Relaxed) {
        return Err(Closed::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "This instance is stopping; connect again.",
        ));
    }
    let headers = request.headers().iter();
    let len: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if len + request.target().len() > MAX_HANDSHAKE_BYTES {
        return Err(Closed::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "head_too_large",
            format!("The request's head exceeds {MAX_HANDSHAKE_BYTES} bytes."),
        ));
    }
    let Limits {
        max_connections,
        trusted_proxies,
        ..
    } = &services.limits;
    if services.sessions.are_full(*max_connections) {
        services.counters.count(Limit::Connections);
        return Err(Closed::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_connections",
            "This instance has as many clients as it takes; connect to another one, or try again later.",
        ));
    }
    let is_counted = services.by_address.is_limited();
    let client = is_counted.then(|| request.client(trusted_proxies));
    let Some(client) = client.flatten() else {
        return Ok(Slot::default());
    };
    services
        .by_address
        .take(proxies::counted(client))
        .map_err(|full| {
            services.counters.count(Limit::ConnectionsPerAddress);
            log::warn!(
                "{client} has {} clients here, and no more are let in: if it is your balancer, name it in TRUSTED_PROXIES; \
                 if not, MAX_CONNECTIONS_PER_ADDRESS says how many may come from one address",
                full.limit
            );
            let text = format!("This address has {} clients here already.", full.limit);
            let code = "too_many_connections_of_address";
            Closed::new(StatusCode::TOO_MANY_REQUESTS, code, text)
        })
}

/// Tells the log of a refusal that whoever runs the hub can do something about.
pub(super) fn log_refusal(error: HandshakeError, request: &impl Head) {
    if let Some(advice) = error.advice() {
        let peer = request.peer().map(|peer| peer.ip().to_string());
        let peer = peer.as_deref().unwrap_or("a client");
        log::debug!("refused {peer}: {error}; {advice}");
    }
}

/// An error in the form of Engine.IO, with a key more where there is something to advise.
#[derive(Serialize)]
struct Refusal {
    code: u8,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

fn refuse(error: HandshakeError) -> HttpResponse {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    HttpResponse::build(status).json(Refusal {
        code: error.code(),
        message: error.to_string(),
        advice: error.advice(),
    })
}

/// Answers a POST whose body did not arrive in time. What it still sends is not looked at; of a body in chunks actix-http reads it until
/// `HEAD_TIMEOUT` nevertheless.
fn late() -> HttpResponse {
    HttpResponse::RequestTimeout().force_close().finish()
}

/// Answers a POST whose body is more than is left for all clients. What it still sends is not looked at, as in [`late`].
fn crowded() -> HttpResponse {
    HttpResponse::ServiceUnavailable().force_close().finish()
}

fn empty_400() -> HttpResponse {
    HttpResponse::BadRequest().finish()
}

fn payload(services: &Services, payload: HeldBody) -> HttpResponse {
    let content_type = if payload.body.is_binary {
        BINARY
    } else {
        "text/plain; charset=UTF-8"
    };
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(held_body::portions(payload, &services.counters))
}

fn open(
    services: &Arc<Services>,
    layer: Layer,
    request: &HttpRequest,
    query: &Query,
) -> HttpResponse {
    let slot = match may_open(services, request) {
        Ok(slot) => slot,
        Err(Closed { status, code, text }) => {
            return HttpResponse::from_error(ApiError::new(status, code, text));
        }
    };
    debug_assert_eq!(
        query.transport,
        Some(TransportName::Polling),
        "verified before"
    );
    let handshake = request.handshake(query);
    match Socket::open_polling(services, layer, handshake, query.dialect, slot) {
        Ok(open) => payload(services, open.into()),
        Err(err) => {
            log::error!("a session cannot be opened: {err}");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// If the client goes away, actix drops this future and with it the receiver, which tells the actor.
async fn poll(services: &Services, session: &Session) -> HttpResponse {
    let (reply, answer) = oneshot::channel();
    session.addr.do_send(Poll { reply });
    match answer.await {
        Ok(PollAnswer::Payload(body)) => payload(services, body),
        Ok(PollAnswer::Refused) => empty_400(),
        Err(_) => refuse(HandshakeError::SessionIdUnknown),
    }
}

/// Passes a GET on to the instance that has the session. If the client goes away, the call is dropped, which tells the owner.
async fn poll_elsewhere(
    services: &Services,
    relay: &Arc<Relay>,
    sid: &Sid,
    revision: Revision,
) -> HttpResponse {
    let Some(mut call) = relay.poll(sid, revision) else {
        return busy();
    };
    match tokio::time::timeout(relay_limit(services), call.answer()).await {
        Ok(answer) => relayed(services, answer),
        Err(_) => refuse(HandshakeError::SessionIdUnknown),
    }
}

/// Passes a POST on: its head at once, so that two of a session are seen to be two wherever they land.
async fn post_elsewhere(
    services: &Services,
    relay: &Arc<Relay>,
    sid: &Sid,
    revision: Revision,
    request: &HttpRequest,
    body: web::Payload,
) -> HttpResponse {
    let Some(mut call) = relay.post(sid, revision) else {
        return busy();
    };
    let is_binary = is_binary(request);
    if is_binary && revision == Revision::V4 {
        call.send_wrong_type();
    } else {
        let read = tokio::select! {
            answer = call.answer() => return relayed(services, answer),
            read = read(services, request, body) => read,
        };
        match read {
            Ok((bytes, _)) => {
                if call.send_body(bytes, is_binary).is_err() {
                    services.counters.count(Limit::BridgeBehind);
                    return crowded();
                }
            }
            Err(BodyError::TooLarge) => {
                call.send_too_large();
                return HttpResponse::PayloadTooLarge().finish();
            }
            Err(BodyError::Late) => return late(),
            Err(BodyError::Crowded) => return crowded(),
            Err(BodyError::Broken) => return empty_400(),
        }
    }
    match tokio::time::timeout(relay_limit(services), call.answer()).await {
        Ok(answer) => relayed(services, answer),
        Err(_) => refuse(HandshakeError::SessionIdUnknown),
    }
}

/// Returns how long the owner of a session may take to answer: a GET gets a ping at the latest, and a POST is answered when its
/// packets were taken, or its session has ended.
fn relay_limit(services: &Services) -> Duration {
    let config = &services.config;
    config.ping_interval + config.ping_timeout + RELAY_GRACE
}

fn busy() -> HttpResponse {
    HttpResponse::ServiceUnavailable()
        .body("Too many requests for sessions of other instances are under way.")
}

/// Answers as the owner of the session would have.
fn relayed(services: &Services, answer: Answer) -> HttpResponse {
    match answer {
        Answer::Payload(body) => {
            let held = Held::bytes(&services.backlogs, body.bytes.len());
            let body = PollingBody {
                bytes: body.bytes,
                is_binary: body.is_binary,
            };
            payload(services, HeldBody { body, held })
        }
        Answer::Ok => post_answer(Some(PostAnswer::Ok)),
        Answer::Refused => empty_400(),
        Answer::Crowded => crowded(),
        Answer::Error { code } => {
            refuse(HandshakeError::from_code(code).unwrap_or(HandshakeError::SessionIdUnknown))
        }
        // Said about sessions that move, and to nobody who polls.
        Answer::Ready { .. }
        | Answer::Again { .. }
        | Answer::End
        | Answer::State(_)
        | Answer::Done { .. }
        | Answer::More { .. }
        | Answer::Data { .. }
        | Answer::Over
        | Answer::Lost => refuse(HandshakeError::SessionIdUnknown),
    }
}

async fn post(
    services: &Services,
    session: &Session,
    request: &HttpRequest,
    body: web::Payload,
) -> HttpResponse {
    let (body_sender, body_receiver) = oneshot::channel();
    let (reply, mut answer) = oneshot::channel();
    session.addr.do_send(Post {
        body: body_receiver,
        reply,
    });
    let is_binary = is_binary(request);
    if is_binary && session.revision == Revision::V4 {
        _ = body_sender.send(Body::Binary);
    } else {
        let read = tokio::select! {
            // Refused while its body was still on the way: a second POST ended the session.
            answer = &mut answer => return post_answer(answer.ok()),
            read = read(services, request, body) => read,
        };
        match read {
            Ok((bytes, held)) => {
                _ = body_sender.send(match is_binary {
                    true => Body::WholeBinary(bytes, held),
                    false => Body::Whole(bytes, held),
                });
            }
            Err(BodyError::TooLarge) => {
                _ = body_sender.send(Body::TooLarge);
                return HttpResponse::PayloadTooLarge().finish();
            }
            Err(BodyError::Broken) => {
                drop(body_sender);
                return empty_400();
            }
            Err(BodyError::Late) => {
                drop(body_sender);
                return late();
            }
            Err(BodyError::Crowded) => {
                drop(body_sender);
                return crowded();
            }
        }
    }
    post_answer(answer.await.ok())
}

fn post_answer(answer: Option<PostAnswer>) -> HttpResponse {
    match answer {
        Some(PostAnswer::Ok) => HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "text/html"))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .body("ok"),
        Some(PostAnswer::Refused) => empty_400(),
        None => refuse(HandshakeError::SessionIdUnknown),
    }
}

fn is_binary(request: &HttpRequest) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(BINARY.as_bytes()))
}

enum BodyError {
    TooLarge,
    /// It did not arrive in time.
    Late,
    Broken,
    /// It is more than is left for all clients.
    Crowded,
}

/// Reads a body, and stops at a limit before anything beyond it is kept. It is counted as long as the second is kept.
async fn read(
    services: &Services,
    request: &HttpRequest,
    mut body: web::Payload,
) -> Result<(Bytes, Held), BodyError> {
    let limit = services.config.max_payload;
    let claimed = claimed_len(request.headers());
    if claimed.is_some_and(|len| len > limit as u64) {
        return Err(BodyError::TooLarge);
    }
    let mut bytes = BytesMut::new();
    let mut inbound = Share::new(&services.backlogs);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|err| match body_deadline::is_late(&err) {
            true => BodyError::Late,
            false => BodyError::Broken,
        })?;
        if bytes.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge);
        }
        if inbound.is_too_much(bytes.len() + chunk.len()) {
            services.counters.count(Limit::TotalBacklog);
            return Err(BodyError::Crowded);
        }
        bytes.extend_from_slice(&chunk);
        inbound.set(bytes.len());
    }
    let held = Held::bytes(&services.backlogs, bytes.len());
    Ok((fitted(bytes), held))
}
