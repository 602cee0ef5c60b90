//! Which pages may use the hub, over HTTP and WebSocket. Source: README, "Settings" (`FRONTEND_URL`), wire.md 1.9.

use tokio::io::AsyncReadExt as _;

use crate::support::{
    http::{self, Pending},
    server::TestServer,
    websocket::upgrade_request,
    within,
};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

fn with_list(list: &str) -> TestServer {
    TestServer::with(|config| config.allowed_origins = list.parse().unwrap())
}

async fn upgrade_status(server: &TestServer, origin: &str) -> String {
    let origin = format!("Origin: {origin}");
    let request = upgrade_request("/socket.io/?EIO=4&transport=websocket", &[&origin]);
    let mut pending = Pending::send(server.addr, &request).await;
    let mut got = vec![0; 2048];
    let len = within("an answer", pending.stream.read(&mut got))
        .await
        .unwrap();
    String::from_utf8_lossy(&got[..len]).into_owned()
}

#[actix_rt::test]
async fn the_hubs_own_origin_is_allowed_without_a_list() {
    let server = with_list("");
    let answer = http::send(server.addr, "GET", POLLING, &["Origin: http://hub"], b"").await;
    assert_eq!(answer.status, 200);
    assert!(
        upgrade_status(&server, "http://hub")
            .await
            .starts_with("HTTP/1.1 101")
    );
}

#[actix_rt::test]
async fn a_listed_origin_is_allowed_and_told_so() {
    let server = with_list("http://page.example:5500");
    let origin = "Origin: http://page.example:5500";
    let answer = http::send(server.addr, "GET", POLLING, &[origin], b"").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("http://page.example:5500")
    );
    assert_eq!(
        answer.header("access-control-allow-credentials"),
        Some("true")
    );
    assert_eq!(
        answer.header("access-control-expose-headers"),
        Some("Retry-After")
    );
    assert_eq!(answer.header("vary"), Some("Origin"));
    let error = http::send(server.addr, "GET", "/socket.io/?EIO=4", &[origin], b"").await;
    assert_eq!(error.status, 400);
    assert!(
        error.header("access-control-allow-origin").is_some(),
        "errors can be read too"
    );
    let upgraded = upgrade_status(&server, "http://page.example:5500").await;
    assert!(upgraded.starts_with("HTTP/1.1 101"), "{upgraded}");
    assert!(
        upgraded.contains("access-control-allow-origin: http://page.example:5500\r\n"),
        "{upgraded}"
    );
}

#[actix_rt::test]
async fn any_other_origin_is_refused_over_http_and_websocket() {
    let server = with_list("https://example.com");
    for origin in [
        "https://evil-example.com",
        "https://example.com.evil.com",
        "null",
        "http://hub:81",
    ] {
        let header = format!("Origin: {origin}");
        let answer = http::send(server.addr, "GET", POLLING, &[&header], b"").await;
        assert_eq!(answer.status, 403, "{origin}");
        let json = answer.json();
        assert_eq!(json["code"], 4);
        let message = json["message"].as_str().unwrap();
        assert!(
            message.contains(origin) && message.contains("FRONTEND_URL"),
            "{message}"
        );
        assert_eq!(answer.header("access-control-allow-origin"), None);
        let answer = http::send(server.addr, "POST", "/auth/login", &[&header], b"{}").await;
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (403, &"origin_refused".into())
        );
        let upgrade = upgrade_status(&server, origin).await;
        assert!(
            upgrade.starts_with("HTTP/1.1 403 Forbidden\r\n"),
            "{origin}: {upgrade}"
        );
        assert!(upgrade.contains("FRONTEND_URL"), "{upgrade}");
    }
}

#[actix_rt::test]
async fn a_preflight_is_answered_for_allowed_origins_only() {
    let server = with_list("http://page.example");
    let ask = |origin: &str| {
        let origin = format!("Origin: {origin}");
        let addr = server.addr;
        async move {
            let headers = [
                origin.as_str(),
                "Access-Control-Request-Method: POST",
                "Access-Control-Request-Headers: content-type",
            ];
            http::send(addr, "OPTIONS", "/auth/login", &headers, b"").await
        }
    };
    let allowed = ask("http://page.example").await;
    assert_eq!(allowed.status, 204);
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        Some("http://page.example")
    );
    assert_eq!(
        allowed.header("access-control-allow-methods"),
        Some("GET,HEAD,PUT,PATCH,POST,DELETE")
    );
    assert_eq!(
        allowed.header("access-control-allow-headers"),
        Some("content-type")
    );
    assert_eq!(ask("http://other.example").await.status, 403);
}

#[actix_rt::test]
async fn a_star_allows_everyone_but_no_credentials() {
    let server = with_list("*");
    let answer = http::send(
        server.addr,
        "GET",
        POLLING,
        &["Origin: https://any.example"],
        b"",
    )
    .await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert!(
        upgrade_status(&server, "https://any.example")
            .await
            .starts_with("HTTP/1.1 101")
    );
}

#[actix_rt::test]
async fn the_page_itself_may_be_read_from_anywhere() {
    let server = with_list("");
    for path in ["/", "/healthz", "/readyz"] {
        let answer = http::send(server.addr, "GET", path, &["Origin: http://other"], b"").await;
        assert_eq!(answer.status, 200, "{path}");
    }
}

#[actix_rt::test]
async fn an_encoded_path_does_not_get_around_the_policy() {
    let server = with_list("");
    let origin = "Origin: http://evil.example";
    for path in [
        "/%73ocket.io/?EIO=4&transport=polling",
        "/socket%2eio/?EIO=4&transport=polling",
    ] {
        let answer = http::send(server.addr, "GET", path, &[origin], b"").await;
        assert!(matches!(answer.status, 403 | 404), "{path}: {answer:?}");
    }
    let answer = http::send(server.addr, "POST", "/%61uth/login", &[origin], b"{}").await;
    assert!(matches!(answer.status, 403 | 404), "{answer:?}");
}
