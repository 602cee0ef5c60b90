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
    /// Accounts, if the application has them.
    pub accounts: Option<Accounts>,
    /// Health.
    pub health: web::Data<Health>,
    /// The origin policy.
    pub origins: AllowedOrigins,
}

/// Adds every route, and what answers where there is none.
pub fn configure(config: &mut web::ServiceConfig, shared: &Shared) {
    config
        .app_data(web::Data::new(Arc::clone(&shared.services)))
        .app_data(web::Data::new(shared.origins.clone()))
        .app_data(shared.health.clone())
        .configure(|config| engine_io::configure(config, &shared.services.endpoints))
        .configure(health::configure)
        .configure(page::configure)
        .default_service(web::to(nothing_here));
    if let Some(accounts) = &shared.accounts {
        config
            .app_data(web::Data::new(accounts.clone()))
            .configure(auth::configure);
    }
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
