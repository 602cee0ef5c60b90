//! Which request goes where.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode},
    web,
};

use super::{
    auth, engine_io,
    error::ApiError,
    health::{self, Health},
    origin::AllowedOrigins,
    page,
};
use crate::{auth::Accounts, socket::actor::Services};

/// What the routes need. Cheap to clone, one clone for each worker.
#[derive(Clone)]
pub struct Shared {
    /// Sessions.
    pub services: Arc<Services>,
    /// Accounts.
    pub accounts: Accounts,
    /// Health.
    pub health: web::Data<Health>,
    /// The origin policy.
    pub origins: AllowedOrigins,
}

/// Adds every route, and what answers where there is none.
pub fn configure(config: &mut web::ServiceConfig, shared: &Shared) {
    config
        .app_data(web::Data::new(Arc::clone(&shared.services)))
        .app_data(web::Data::new(shared.accounts.clone()))
        .app_data(web::Data::new(shared.origins.clone()))
        .app_data(shared.health.clone())
        .configure(engine_io::configure)
        .configure(auth::configure)
        .configure(health::configure)
        .configure(page::configure)
        .default_service(web::to(nothing_here));
}

async fn nothing_here(request: HttpRequest) -> HttpResponse {
    const READ_ONLY: [&str; 6] = [
        "/",
        "/page.js",
        "/style.css",
        "/favicon.svg",
        "/healthz",
        "/readyz",
    ];
    let error = if READ_ONLY.contains(&request.path()) && request.method() != Method::GET {
        ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "Use GET for this address.",
        )
        .with_allow("GET")
    } else {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "Nothing is here. Clients connect to /socket.io/, accounts are at /auth/register and \
             /auth/login, and the test page is at /.",
        )
    };
    HttpResponse::from_error(error)
}
