//! `GET /healthz` and `GET /readyz`: for balancers, orchestrators, and people.
//!
//! `healthz` says that the process answers. `readyz` says whether clients should be sent here: not while the instance is
//! stopping, nor before it knows the key that it checks tokens with. An outage of Redis alone does not take an instance
//! out of service, since all instances would go at once; it is told in `redis`, and what was lost in `bridge`.

use std::sync::{Arc, atomic::Ordering};

use actix_web::{HttpResponse, Route, guard, http::header, web};
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    auth::TokenVerifier,
    counters::Counters,
    peers::PeerList,
    redis_bridge::{BridgeStats, BusStatus, StatsSnapshot},
    socket::actor::Services,
};

/// What the two routes report.
#[derive(Debug)]
pub struct Health {
    /// Sessions and instance id.
    pub services: Arc<Services>,
    /// Present in multi-instance mode.
    pub bus: Option<watch::Receiver<BusStatus>>,
    /// Present in multi-instance mode.
    pub bridge: Option<Arc<BridgeStats>>,
    /// Tells whether tokens can be judged; absent without accounts.
    pub verifier: Option<TokenVerifier>,
}

#[derive(Serialize)]
struct Ready<'a> {
    name: &'static str,
    version: &'static str,
    instance: &'a str,
    mode: &'static str,
    /// Which client is needed: the page loads the one that fits.
    parser: &'static str,
    ready: bool,
    /// Why not, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    redis: Option<BusStatus>,
    /// What has crossed to and from other instances, and what was lost, since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge: Option<StatsSnapshot>,
    connections: usize,
    /// Bytes that wait for all clients together, and of them for their handlers.
    backlog_bytes: usize,
    /// How often each limit was met since the start.
    limits: &'a Counters,
    /// The other instances that live, as they tell of themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    peers: Option<PeerList>,
}

/// Returns a route for GET, and for HEAD, which is GET without a body.
pub(super) fn get_or_head() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/healthz", get_or_head().to(healthz))
        .route("/readyz", get_or_head().to(readyz));
}

async fn healthz() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(serde_json::json!({ "status": "ok" }))
}

async fn readyz(health: web::Data<Health>) -> HttpResponse {
    let reason = if health.services.is_stopping.load(Ordering::Relaxed) {
        Some("the instance is stopping")
    } else if health
        .verifier
        .as_ref()
        .is_some_and(|verifier| !verifier.has_key())
    {
        Some("the token key is in Redis, which has not answered yet")
    } else {
        None
    };
    let redis = health.bus.as_ref().map(|bus| bus.borrow().clone());
    let mut response = match reason {
        None => HttpResponse::Ok(),
        Some(_) => HttpResponse::ServiceUnavailable(),
    };
    response
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(Ready {
            name: "sockhop",
            version: env!("CARGO_PKG_VERSION"),
            instance: health.services.instance.as_str(),
            mode: if redis.is_some() { "cluster" } else { "single" },
            parser: health.services.parser.as_str(),
            ready: reason.is_none(),
            reason,
            redis,
            bridge: health.bridge.as_ref().map(|stats| stats.snapshot()),
            connections: health.services.sessions.len(),
            backlog_bytes: health.services.backlogs.taken(),
            limits: &health.services.counters,
            peers: health
                .services
                .relay
                .as_ref()
                .map(|relay| relay.peers().list()),
        })
}
