//! `POST /auth/register` and `POST /auth/login`: a JSON form in, a [`Grant`] out.
//!
//! Reads the form and gives each outcome its status, code and sentence; the deciding is done in [`crate::auth`].
//! Origins are judged in front of these routes.
//!
//! Limits: [`MAX_BODY_BYTES`] within [`FORM_TIMEOUT`], counted while the body arrives.

use std::{net::IpAddr, sync::Arc, time::Duration};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    error::PayloadError,
    http::{StatusCode, header},
    web,
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use serde_json::Value;

use super::{
    body_deadline,
    engine_io::Head as _,
    error::ApiError,
    proxies::{self, TrustedProxies},
};
use crate::{
    auth::{Accounts, AuthError, FieldErrors, FieldFault, Grant, store::StoreKind},
    counters::{Counters, Limit},
    telemetry,
};

/// Largest accepted body. The largest sound form has about 700 bytes, or six times that in `\u` escapes.
pub const MAX_BODY_BYTES: usize = 4096;
/// How long a body may take to arrive. `BODY_TIMEOUT`, which every body has, may be shorter.
pub const FORM_TIMEOUT: Duration = Duration::from_secs(10);

/// Adds the routes to `accounts`. Whose request it is `trusted_proxies` say; who has made too many accounts is counted in `counters`.
pub fn configure(
    config: &mut web::ServiceConfig,
    accounts: &Accounts,
    trusted_proxies: &TrustedProxies,
    counters: &Arc<Counters>,
) {
    config
        .app_data(web::Data::from(Arc::clone(counters)))
        .app_data(web::Data::new(accounts.clone()))
        .app_data(web::Data::new(trusted_proxies.clone()))
        .service(
            web::resource("/auth/register")
                .route(web::post().to(register))
                .default_service(web::to(method_not_allowed)),
        )
        .service(
            web::resource("/auth/login")
                .route(web::post().to(login))
                .default_service(web::to(method_not_allowed)),
        );
}

async fn register(
    accounts: web::Data<Accounts>,
    trusted_proxies: web::Data<TrustedProxies>,
    counters: web::Data<Counters>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let form = read_form(&request, payload).await?;
    let address = address(&request, &trusted_proxies);
    let outcome = accounts.register(&form.username, &form.password, address);
    outcome
        .await
        .map(|grant| answer(StatusCode::CREATED, &grant))
        .map_err(|err| {
            if matches!(err, AuthError::TooManyRegistrations { .. }) {
                counters.count(Limit::Registrations);
            }
            refusal(&err)
        })
}

async fn login(
    accounts: web::Data<Accounts>,
    trusted_proxies: web::Data<TrustedProxies>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let form = read_form(&request, payload).await?;
    let address = address(&request, &trusted_proxies);
    let outcome = accounts.login(&form.username, &form.password, address);
    outcome
        .await
        .map(|grant| answer(StatusCode::OK, &grant))
        .map_err(|err| refusal(&err))
}

/// Returns what counts as the address of whoever sent a request.
fn address(request: &HttpRequest, trusted_proxies: &TrustedProxies) -> Option<IpAddr> {
    request.client(trusted_proxies).map(proxies::counted)
}

async fn method_not_allowed() -> Result<HttpResponse, ApiError> {
    Err(ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "Send this request with the method POST.",
    )
    .with_allow("POST"))
}

fn answer(status: StatusCode, grant: &Grant) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(grant)
}

/// Gives each error its status, code and sentence, and its place in the log: the peer's faults are debug, ours error.
fn refusal(err: &AuthError) -> ApiError {
    match err {
        AuthError::Fields(_) | AuthError::Taken | AuthError::InvalidCredentials => {
            log::debug!("[Auth] refused: {err}");
        }
        // A line of its own: whoever floods us must not hide that the store is away.
        AuthError::Busy { .. } => log::warn!("[Auth] refused: {err}"),
        AuthError::TooManyRegistrations { .. } => log::warn!("[Auth] refused: {err}"),
        AuthError::Unavailable { .. } => log::warn!("[Auth] {}", telemetry::with_causes(err)),
        AuthError::Corrupt(_) | AuthError::Hash(_) | AuthError::Sign(_) | AuthError::Random(_) => {
            log::error!("[Auth] {}", telemetry::with_causes(err))
        }
    }
    match err {
        AuthError::Fields(fields) => invalid_fields(fields.clone()),
        AuthError::Taken => ApiError::new(
            StatusCode::CONFLICT,
            "username_taken",
            "Someone has this username already: choose another one, or log in if it is yours.",
        ),
        AuthError::InvalidCredentials => ApiError::new(
            StatusCode::UNAUTHORIZED,
            "invalid_credentials",
            "The username or the password is wrong: check both, or register first.",
        ),
        AuthError::Busy { retry_after } => ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "busy",
            "Too many people are registering or logging in right now: try again in a few seconds.",
        )
        .with_retry_after(*retry_after),
        AuthError::TooManyRegistrations { limit, retry_after, .. } => ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_registrations",
            format!("No more than {limit} accounts can be registered from one address in an hour: log in if you have one, or come back later."),
        )
        .with_retry_after(*retry_after),
        AuthError::Unavailable { store, retry_after, .. } => ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "accounts_unavailable",
            match store {
                StoreKind::Redis => {
                    "Accounts are unreachable while Redis is down: try again in a few seconds."
                }
                StoreKind::File => {
                    "The accounts file cannot be read or written: try again in a few seconds. If this stays, the operator should look at the server's log and at the space left in DATA_DIR."
                }
            },
        )
        .with_retry_after(*retry_after),
        AuthError::Corrupt(_)
        | AuthError::Hash(_)
        | AuthError::Sign(_)
        | AuthError::Random(_) => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "The server failed at this: its log says why. Ask its operator if trying again does not help.",
        ),
    }
}

struct Form {
    username: String,
    password: String,
}

async fn read_form(request: &HttpRequest, payload: web::Payload) -> Result<Form, ApiError> {
    if !request
        .content_type()
        .eq_ignore_ascii_case("application/json")
        || request.headers().contains_key(header::CONTENT_ENCODING)
    {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "Send the body as JSON, uncompressed, with the header \"Content-Type: application/json\".",
        ));
    }
    parse_form(&read_body(payload, FORM_TIMEOUT).await?)
}

async fn read_body(
    payload: impl Stream<Item = Result<Bytes, PayloadError>>,
    time_out: Duration,
) -> Result<BytesMut, ApiError> {
    let mut payload = std::pin::pin!(payload);
    let reading = async {
        let mut body = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|err| match body_deadline::is_late(&err) {
                true => late("Send the whole body at once: it took too long.".to_owned()),
                false => {
                    log::debug!("[Auth] body broke off: {err}");
                    ApiError::new(
                        StatusCode::BAD_REQUEST,
                        "incomplete_body",
                        "The body broke off: send it whole.",
                    )
                }
            })?;
            if body.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(ApiError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "body_too_large",
                    format!(
                        "Send at most {MAX_BODY_BYTES} bytes: a username and a password fit in it."
                    ),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    };
    match tokio::time::timeout(time_out, reading).await {
        Ok(body) => body,
        Err(_elapsed) => {
            let seconds = time_out.as_secs();
            Err(late(format!(
                "Send the whole body within {seconds} seconds."
            )))
        }
    }
}

fn late(message: String) -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
}

fn parse_form(body: &[u8]) -> Result<Form, ApiError> {
    let value: Value = serde_json::from_slice(body).map_err(|err| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_json",
            format!(
                "The body is not JSON ({err}): send {{\"username\": \"…\", \"password\": \"…\"}}."
            ),
        )
    })?;
    // By hand rather than by derive, so that every faulty field is named and not only the first.
    match (text(&value, "username"), text(&value, "password")) {
        (Ok(username), Ok(password)) => Ok(Form { username, password }),
        (username, password) => Err(invalid_fields(FieldErrors {
            username: username.err(),
            password: password.err(),
        })),
    }
}

/// Takes a field of `value`. A `value` that is no object has none.
fn text(value: &Value, name: &str) -> Result<String, FieldFault> {
    match value.get(name) {
        None => Err(FieldFault::Missing),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(FieldFault::NotAString),
    }
}

fn invalid_fields(fields: FieldErrors) -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        "invalid_fields",
        format!("Correct these fields: {fields}."),
    )
    .with_fields(fields)
}

#[cfg(test)]
mod tests {
    use std::io;

    use actix_web::{
        App,
        body::to_bytes,
        dev::ServiceResponse,
        http::Method,
        test::{TestRequest, call_service, init_service},
    };
    use serde_json::json;

    use super::*;
    use crate::{
        config::{Config, RedisConfig, Secret},
        redis_server::RedisServer,
    };

    /// What came back.
    struct Answer {
        status: u16,
        headers: header::HeaderMap,
        body: Value,
    }

    impl Answer {
        async fn of(response: ServiceResponse) -> Self {
            let status = response.status().as_u16();
            let headers = response.headers().clone();
            let body = to_bytes(response.into_body()).await.unwrap();
            Self {
                status,
                headers,
                body: serde_json::from_slice(&body).unwrap(),
            }
        }

        fn header(&self, name: header::HeaderName) -> Option<&str> {
            self.headers.get(name).map(|value| value.to_str().unwrap())
        }

        /// Asserts the form that every error has.
        #[track_caller]
        fn assert_error(&self, status: u16, code: &str) {
            assert_eq!(
                (self.status, &self.body["error"]),
                (status, &json!(code)),
                "{}",
                self.body
            );
            let message = self.body["message"].as_str().unwrap();
            assert!(message.ends_with('.') && message.len() > 20, "{message}");
            assert_eq!(self.header(header::CACHE_CONTROL), Some("no-store"));
        }
    }

    fn accounts(dir: &tempfile::TempDir) -> Accounts {
        Accounts::open(&Config {
            data_dir: dir.path().to_owned(),
            ..Config::default()
        })
        .unwrap()
    }

    /// Behind a proxy at 9.9.9.9.
    fn routes(accounts: &Accounts) -> impl Fn(&mut web::ServiceConfig) {
        let trusted_proxies = "9.9.9.9".parse().unwrap();
        let counters = Arc::default();
        move |config| configure(config, accounts, &trusted_proxies, &counters)
    }

    async fn send(accounts: &Accounts, request: TestRequest) -> Answer {
        let app = init_service(App::new().configure(routes(accounts))).await;
        Answer::of(call_service(&app, request.to_request()).await).await
    }

    async fn post(accounts: &Accounts, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = TestRequest::post()
            .uri(path)
            .insert_header((header::CONTENT_TYPE, "application/json"))
            .set_payload(body);
        send(accounts, request).await
    }

    fn form(username: &str, password: &str) -> String {
        json!({"username": username, "password": password}).to_string()
    }

    #[actix_web::test]
    async fn registering_is_201_and_logging_in_is_200_with_one_form_of_answer() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = accounts(&dir);
        let mut ids = Vec::new();
        for (path, status) in [("/auth/register", 201), ("/auth/login", 200)] {
            let answer = post(&accounts, path, form("Alice", "correct horse")).await;
            assert_eq!(answer.status, status, "{}", answer.body);
            assert_eq!(answer.header(header::CACHE_CONTROL), Some("no-store"));
            let token = answer.body["access_token"].as_str().unwrap();
            let identity = accounts.verifier().verify(token).unwrap();
            assert_eq!(
                answer.body,
                json!({
                    "access_token": token,
                    "token_type": "Bearer",
                    "expires_in": 3600,
                    "user": {"id": identity.user_id, "username": "Alice"},
                })
            );
            ids.push(identity.user_id);
        }
        assert_eq!(ids[0], ids[1]);
    }

    #[actix_web::test]
    async fn a_taken_name_is_409() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = accounts(&dir);
        post(&accounts, "/auth/register", form("alice", "correct horse")).await;
        let answer = post(&accounts, "/auth/register", form("ALICE", "another horse")).await;
        answer.assert_error(409, "username_taken");
    }

    #[actix_web::test]
    async fn an_unknown_user_and_a_wrong_password_are_one_401() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = accounts(&dir);
        post(&accounts, "/auth/register", form("alice", "correct horse")).await;
        let wrong = post(&accounts, "/auth/login", form("alice", "wrong horse")).await;
        let unknown = post(&accounts, "/auth/login", form("bob", "correct horse")).await;
        wrong.assert_error(401, "invalid_credentials");
        assert_eq!(wrong.header(header::WWW_AUTHENTICATE), Some("Bearer"));
        assert_eq!(wrong.body, unknown.body);
        assert_eq!(wrong.headers.len(), unknown.headers.len());
    }

    #[actix_web::test]
    async fn each_faulty_field_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = accounts(&dir);
        for (body, username, password) in [
            (json!({}), json!("is missing"), json!("is missing")),
            (json!([]), json!("is missing"), json!("is missing")),
            (json!(null), json!("is missing"), json!("is missing")),
            (json!("text"), json!("is missing"), json!("is missing")),
            (
                json!({"username": 1, "password": ["x"]}),
                json!("must be a string"),
                json!("must be a string"),
            ),
            (
                json!({"username": "", "password": null}),
                json!(null),
                json!("must be a string"),
            ),
            (
                json!({"username": "bob", "password": "x".repeat(129)}),
                json!(null),
                json!("must have at most 128 characters"),
            ),
        ] {
            for path in ["/auth/register", "/auth/login"] {
                let answer = post(&accounts, path, body.to_string()).await;
                answer.assert_error(400, "invalid_fields");
                let fields = &answer.body["fields"];
                assert_eq!(
                    (&fields["username"], &fields["password"]),
                    (&username, &password),
                    "{path} {body}"
                );
            }
        }
        let answer = post(&accounts, "/auth/register", form("a b", "short")).await;
        answer.assert_error(400, "invalid_fields");
        assert!(
            answer.body["fields"]["username"]
                .as_str()
                .unwrap()
                .contains("A-Z")
        );
        assert!(
            answer.body["fields"]["password"]
                .as_str()
                .unwrap()
                .contains("at least 8")
        );
    }

    #[actix_web::test]
    async fn what_is_no_json_is_400_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = accounts(&dir);
        let bodies: [&[u8]; 6] = [
            b"",
            b"{",
            b"username=bob&password=x",
            b"{\"username\": \"\\ud800\"}",
            b"{\"username\": \"\xff\"}",
            &[b'['; MAX_BODY_BYTES],
        ];
        for body in bodies {
            let answer = post(&accounts, "/auth/login", body.to_vec()).await;
            answer.assert_error(400, "invalid_json");
            assert!(
                answer.body["message"]
                    .as_str()
                    .unwrap()
                    .contains("line 1 column")
            );
        }
    }

    #[actix_web::test]
    async fn a_body_over_the_limit_is_413() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = accounts(&dir);
        let answer = post(&accounts, "/auth/login", vec![b' '; MAX_BODY_BYTES + 1]).await;
        answer.assert_error(413, "body_too_large");
    }

    #[actix_web::test]
    async fn a_body_that_stops_arriving_is_408_and_one_that_breaks_off_400() {
        let stalled = futures_util::stream::pending();
        let err = read_body(stalled, Duration::from_millis(1))
            .await
            .unwrap_err();
        assert_eq!(err.to_string(), "408 body_timeout");
        // A bug: what every body is given was over first, and counted as broken off.
        let late =
            futures_util::stream::iter([Err(PayloadError::Io(io::ErrorKind::TimedOut.into()))]);
        let err = read_body(late, FORM_TIMEOUT).await.unwrap_err();
        assert_eq!(err.to_string(), "408 body_timeout");
        let broken = futures_util::stream::iter([
            Ok(Bytes::from_static(b"{")),
            Err(PayloadError::Incomplete(None)),
        ]);
        let err = read_body(broken, FORM_TIMEOUT).await.unwrap_err();
        assert_eq!(err.to_string(), "400 incomplete_body");
    }

    #[actix_web::test]
    async fn a_body_without_end_is_read_to_the_limit_only() {
        let mut num_read = 0;
        let endless = futures_util::stream::repeat_with(|| {
            num_read += 1;
            Ok(Bytes::from_static(&[b' '; 1024]))
        });
        let err = read_body(endless, FORM_TIMEOUT).await.unwrap_err();
        assert_eq!(err.to_string(), "413 body_too_large");
        assert_eq!(num_read, 5);
    }

    #[actix_web::test]
    async fn another_media_type_is_415() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = accounts(&dir);
        let body = form("alice", "correct horse");
        for media_type in [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
        ] {
            let request = TestRequest::post()
                .uri("/auth/register")
                .insert_header((header::CONTENT_TYPE, media_type))
                .set_payload(body.clone());
            send(&accounts, request)
                .await
                .assert_error(415, "unsupported_media_type");
        }
        let request = TestRequest::post()
            .uri("/auth/register")
            .insert_header((header::CONTENT_TYPE, "application/json"))
            .insert_header((header::CONTENT_ENCODING, "gzip"))
            .set_payload(body.clone());
        send(&accounts, request)
            .await
            .assert_error(415, "unsupported_media_type");
        let request = TestRequest::post()
            .uri("/auth/register")
            .insert_header((header::CONTENT_TYPE, "Application/JSON; charset=utf-8"))
            .set_payload(body);
        assert_eq!(send(&accounts, request).await.status, 201);
    }

    #[actix_web::test]
    async fn another_method_is_405_and_told_which() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = accounts(&dir);
        for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
            for path in ["/auth/register", "/auth/login"] {
                let request = TestRequest::with_uri(path).method(method.clone());
                let answer = send(&accounts, request).await;
                answer.assert_error(405, "method_not_allowed");
                assert_eq!(answer.header(header::ALLOW), Some("POST"));
            }
        }
    }

    #[actix_web::test]
    async fn redis_down_is_503_with_a_time_to_come_back() {
        let mut server = RedisServer::start();
        server.kill();
        let redis = RedisConfig {
            url: Secret::new(server.url()),
            prefix: "socket.io".to_owned(),
            adapter: Default::default(),
            tls: crate::config::RedisTls::default(),
        };
        let accounts = Accounts::open(&Config {
            redis: Some(redis),
            ..Config::default()
        })
        .unwrap();
        for path in ["/auth/register", "/auth/login"] {
            let answer = post(&accounts, path, form("alice", "correct horse")).await;
            answer.assert_error(503, "accounts_unavailable");
            assert_eq!(answer.header(header::RETRY_AFTER), Some("2"));
            assert!(
                answer.body["message"]
                    .as_str()
                    .unwrap()
                    .contains("while Redis is down")
            );
        }
    }

    #[actix_web::test]
    async fn a_flood_is_429_with_a_time_to_come_back_and_passes() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = accounts(&dir);
        let app = init_service(App::new().configure(routes(&accounts))).await;
        let num_at_once = 200;
        let calls = (0..num_at_once).map(|n| {
            let request = TestRequest::post()
                .uri("/auth/register")
                .insert_header((header::CONTENT_TYPE, "application/json"))
                .set_payload(form(&format!("user{n}"), "correct horse"));
            let call = call_service(&app, request.to_request());
            async { Answer::of(call.await).await }
        });
        let mut num_busy = 0;
        for answer in futures_util::future::join_all(calls).await {
            match answer.status {
                201 => {}
                _ => {
                    answer.assert_error(429, "busy");
                    assert_eq!(answer.header(header::RETRY_AFTER), Some("2"));
                    num_busy += 1;
                }
            }
        }
        assert!(
            (1..num_at_once).contains(&num_busy),
            "{num_busy} of {num_at_once} were refused"
        );
        let answer = post(&accounts, "/auth/register", form("later", "correct horse")).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
    }

    /// A bug: a single address kept all others from logging in.
    #[actix_web::test]
    async fn a_flood_of_one_address_leaves_others_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = accounts(&dir);
        let app = init_service(App::new().configure(routes(&accounts))).await;
        let call = |n: u32, client: &str| {
            let request = TestRequest::post()
                .uri("/auth/register")
                .peer_addr("9.9.9.9:1".parse().unwrap())
                .insert_header(("x-forwarded-for", client))
                .insert_header((header::CONTENT_TYPE, "application/json"))
                .set_payload(form(&format!("user{n}"), "correct horse"));
            let call = call_service(&app, request.to_request());
            async { Answer::of(call.await).await }
        };
        let flood = (0..100).map(|n| call(n, &format!("2001:db8::{n}")));
        let flood = futures_util::future::join_all(flood);
        let (flood, other) = tokio::join!(flood, call(100, "1.2.3.4"));
        assert_eq!(other.status, 201, "{}", other.body);
        let mut num_busy = 0;
        for answer in flood.iter().filter(|answer| answer.status != 201) {
            answer.assert_error(429, "busy");
            assert_eq!(answer.header(header::RETRY_AFTER), Some("2"));
            num_busy += 1;
        }
        assert!((50..100).contains(&num_busy), "{num_busy}");
    }

    #[actix_web::test]
    async fn who_registers_too_many_is_told_when_to_come_back_and_can_log_in() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            data_dir: dir.path().to_owned(),
            ..Config::default()
        };
        config.limits.max_registrations_per_address = Some(2);
        let accounts = Accounts::open(&config).unwrap();
        let (trusted, counters) = (TrustedProxies::default(), Arc::default());
        let routes = |routes: &mut _| configure(routes, &accounts, &trusted, &counters);
        let app = init_service(App::new().configure(routes)).await;
        let call = async |path: &str, name: &str, peer: &str| {
            let request = TestRequest::post()
                .uri(path)
                .peer_addr(peer.parse().unwrap())
                .insert_header((header::CONTENT_TYPE, "application/json"))
                .set_payload(form(name, "correct horse"));
            Answer::of(call_service(&app, request.to_request()).await).await
        };
        let (one, other) = ("10.0.0.1:1", "10.0.0.2:1");
        // Faults of the form are no registrations, names that are taken are: they cost a hash, too.
        let answer = call("/auth/register", "a", one).await;
        answer.assert_error(400, "invalid_fields");
        assert_eq!(call("/auth/register", "alice", one).await.status, 201);
        assert_eq!(call("/auth/register", "alice", one).await.status, 409);
        for num_counted in 1..=2 {
            let answer = call("/auth/register", "bob", one).await;
            answer.assert_error(429, "too_many_registrations");
            let retry_after = answer.header(header::RETRY_AFTER).unwrap();
            let retry_after: u64 = retry_after.parse().unwrap();
            assert!((1700..=1800).contains(&retry_after), "{retry_after}");
            assert_eq!(counters.get(Limit::Registrations), num_counted);
        }
        assert_eq!(call("/auth/login", "alice", one).await.status, 200);
        assert_eq!(call("/auth/register", "bob", other).await.status, 201);
    }

    #[test]
    fn our_own_faults_tell_the_peer_nothing() {
        let err = AuthError::Corrupt(crate::auth::store::StoreError::Corrupt {
            what: crate::auth::store::Item::Account,
            source: "inner detail".into(),
        });
        let refusal = refusal(&err);
        assert_eq!(refusal.to_string(), "500 internal_error");
        assert!(!format!("{refusal:?}").contains("inner detail"));
    }
}
