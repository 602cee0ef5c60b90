//! The test page, the client bundle, health, and addresses where nothing is.

use sockhop::actix_web::{HttpResponse, web};

use crate::support::{http, server::TestServer};

#[actix_rt::test]
async fn the_page_and_its_parts_are_served() {
    let server = TestServer::start();
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.js", "application/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/favicon.svg", "image/svg+xml"),
    ] {
        let answer = http::get(server.addr, path).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(content_type))
        );
        assert!(answer.header("content-security-policy").is_some());
        let etag = format!("If-None-Match: {}", answer.header("etag").unwrap());
        let again = http::send(server.addr, "GET", path, &[&etag], b"").await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
}

#[actix_rt::test]
async fn the_client_is_served_or_redirected_to_the_pinned_version() {
    let server = TestServer::start();
    let version = sockhop::http::client_bundle::VERSION;
    for name in [
        "socket.io.js",
        "socket.io.min.js",
        "socket.io.esm.min.js",
        "socket.io.msgpack.min.js",
    ] {
        let answer = http::get(server.addr, &format!("/socket.io/{name}")).await;
        if sockhop::http::client_bundle::is_built_in() {
            assert_eq!(answer.status, 200, "{name}");
            assert_eq!(
                answer.header("etag"),
                Some(format!("\"{version}\"").as_str())
            );
            assert!(answer.text().contains("Socket.IO v4"), "{name}");
        } else {
            assert_eq!(answer.status, 302);
            let expected = format!("https://cdn.socket.io/{version}/{name}");
            assert_eq!(answer.header("location"), Some(expected.as_str()));
        }
    }
}

#[actix_rt::test]
async fn health_is_told() {
    let server = TestServer::start();
    assert_eq!(
        http::get(server.addr, "/healthz").await.json()["status"],
        "ok"
    );
    let ready = http::get(server.addr, "/readyz").await;
    assert_eq!(ready.status, 200);
    let ready = ready.json();
    assert_eq!(ready["name"], "sockhop");
    assert_eq!(
        (&ready["mode"], &ready["ready"]),
        (&"single".into(), &true.into())
    );
    assert_eq!(ready["instance"].as_str().unwrap().len(), 8);
    assert_eq!(ready["connections"], 0);
}

#[actix_rt::test]
async fn where_nothing_is_the_answer_says_what_there_is() {
    let server = TestServer::start();
    let answer = http::get(server.addr, "/nothing").await;
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (404, &"not_found".into())
    );
    assert!(
        answer.json()["message"]
            .as_str()
            .unwrap()
            .contains("/socket.io/")
    );
    let answer = http::send(server.addr, "DELETE", "/readyz", &[], b"").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")));
    for path in [
        "/../Cargo.toml",
        "/static/index.html",
        "/node_modules/",
        "/.env",
    ] {
        assert_eq!(http::get(server.addr, path).await.status, 404, "{path}");
    }
}

#[actix_rt::test]
async fn an_application_has_pages_and_routes_of_its_own_beside_the_hubs() {
    const PAGE: &str = "<!doctype html><title>Own</title>";
    let greeting = web::Data::new("Hello".to_owned());
    let server = TestServer::of(
        |config| config.workers = 2,
        move |app| {
            app.page("/", PAGE).routes(move |routes| {
                async fn greet(greeting: web::Data<String>, name: web::Path<String>) -> String {
                    format!("{}, {name}!", **greeting)
                }
                routes
                    .app_data(greeting.clone())
                    .route("/greet/{name}", web::get().to(greet))
                    .route("/healthz", web::get().to(HttpResponse::ImATeapot));
            })
        },
    );
    let page = http::get(server.addr, "/").await;
    assert_eq!((page.status, page.text()), (200, PAGE));
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let etag = format!("If-None-Match: {}", page.header("etag").unwrap());
    let again = http::send(server.addr, "GET", "/", &[&etag], b"").await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    let greeting = http::get(server.addr, "/greet/Ada").await;
    assert_eq!((greeting.status, greeting.text()), (200, "Hello, Ada!"));
    assert_eq!(
        http::get(server.addr, "/healthz").await.status,
        200,
        "the hub's own addresses come first"
    );
    assert_eq!(http::get(server.addr, "/nothing").await.status, 404);
    let open = http::get(server.addr, "/socket.io/?EIO=4&transport=polling").await;
    assert_eq!(open.status, 200);
}

#[actix_rt::test]
async fn an_application_may_answer_where_nothing_is() {
    let server = TestServer::of(
        |_| {},
        |app| {
            app.routes(|routes| {
                routes.default_service(web::to(HttpResponse::ImATeapot));
            })
        },
    );
    assert_eq!(http::get(server.addr, "/nothing").await.status, 418);
    assert_eq!(http::get(server.addr, "/page.js").await.status, 200);
}
