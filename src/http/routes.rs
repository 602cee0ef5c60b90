//! Which request goes where.

use std::{fmt, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode},
    web,
};

use bytes::Bytes;

use super::{
    auth, engine_io,
    error::ApiError,
    health::{self, Health},
    origin::AllowedOrigins,
    page,
};
use crate::{auth::Accounts, socket::actor::Services};

type Configure = Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>;

/// Routes of the application's own.
#[derive(Clone, Default)]
pub struct OwnRoutes(Vec<Configure>);

impl OwnRoutes {
    /// Adds what `configure` adds, once for each worker.
    pub fn add(&mut self, configure: impl Fn(&mut web::ServiceConfig) + Send + Sync + 'static) {
        self.0.push(Arc::new(configure));
    }

    /// Adds a page.
    pub fn add_page(&mut self, path: &str, html: Bytes) {
        let path = path.to_owned();
        self.add(move |config| page::configure_own(config, &path, &html));
    }
}

impl fmt::Debug for OwnRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnRoutes").field(&self.0.len()).finish()
    }
}

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
    /// Routes of the application's own.
    pub own_routes: OwnRoutes,
}

/// Adds every route, and what answers where there is none.
///
/// The first that fits a request is taken. So the application's own come behind what the hub cannot do without, and before the
/// test page, whose place they may take.
pub fn configure(config: &mut web::ServiceConfig, shared: &Shared) {
    config
        .app_data(web::Data::new(Arc::clone(&shared.services)))
        .app_data(web::Data::new(shared.origins.clone()))
        .app_data(shared.health.clone())
        .configure(|config| engine_io::configure(config, &shared.services.endpoints))
        .configure(health::configure)
        .default_service(web::to(nothing_here));
    if let Some(accounts) = &shared.accounts {
        let trusted_proxies = &shared.services.limits.trusted_proxies;
        let counters = &shared.services.counters;
        config.configure(|config| auth::configure(config, accounts, trusted_proxies, counters));
    }
    for own in &shared.own_routes.0 {
        config.configure(|config| own(config));
    }
    config.configure(page::configure);
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
