//! Registering and logging in over HTTP, under load too. The rules of names and passwords are tested beside the code.

use crate::support::{
    http::{self, post_json},
    server::TestServer,
    websocket::WebSocket,
    within,
};

#[actix_rt::test]
async fn a_registered_user_logs_in() {
    let server = TestServer::start_wide();
    let body = r#"{"username":"Ada","password":"correct horse"}"#;
    let answer = post_json(server.addr, "/auth/register", body).await;
    assert_eq!(answer.status, 201);
    let json = answer.json();
    assert_eq!(json["token_type"], "Bearer");
    assert_eq!(json["expires_in"], 3600);
    assert_eq!(json["user"]["username"], "Ada");
    let id = json["user"]["id"].as_str().unwrap().to_owned();
    let answer = post_json(server.addr, "/auth/login", &body.replace("Ada", "ada")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["user"]["id"], id);
    WebSocket::join_events(server.addr, answer.json()["access_token"].as_str().unwrap()).await;
    let again = post_json(server.addr, "/auth/register", body).await;
    assert_eq!(
        (again.status, &again.json()["error"]),
        (409, &"username_taken".into())
    );
}

#[actix_rt::test]
async fn unknown_user_and_wrong_password_get_the_same_answer() {
    let server = TestServer::start_wide();
    let body = r#"{"username":"ada","password":"correct horse"}"#;
    post_json(server.addr, "/auth/register", body).await;
    let wrong = post_json(
        server.addr,
        "/auth/login",
        r#"{"username":"ada","password":"wrong horse"}"#,
    )
    .await;
    let unknown = post_json(
        server.addr,
        "/auth/login",
        r#"{"username":"bob","password":"wrong horse"}"#,
    )
    .await;
    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(wrong.body, unknown.body);
}

#[actix_rt::test]
async fn bad_input_is_answered_with_what_to_do() {
    let server = TestServer::start_wide();
    let long = "x".repeat(600);
    for (body, status, error) in [
        ("{", 400, "invalid_json"),
        ("[]", 400, "invalid_fields"),
        ("{}", 400, "invalid_fields"),
        (r#"{"username":"ada"}"#, 400, "invalid_fields"),
        (
            r#"{"username":7,"password":"correct horse"}"#,
            400,
            "invalid_fields",
        ),
        (
            r#"{"username":"a","password":"correct horse"}"#,
            400,
            "invalid_fields",
        ),
        (
            r#"{"username":"аda","password":"correct horse"}"#,
            400,
            "invalid_fields",
        ),
        (
            r#"{"username":"ada","password":"short"}"#,
            400,
            "invalid_fields",
        ),
        (
            &format!(r#"{{"username":"ada","password":"{long}"}}"#),
            400,
            "invalid_fields",
        ),
        (&"x".repeat(100_000), 413, "body_too_large"),
    ] {
        let answer = post_json(server.addr, "/auth/register", body).await;
        let json = answer.json();
        let shown = &body[..body.len().min(60)];
        assert_eq!(
            (answer.status, json["error"].as_str()),
            (status, Some(error)),
            "{shown}"
        );
        assert!(json["message"].as_str().unwrap().len() > 10, "{json}");
        if error == "invalid_fields" {
            assert!(!json["fields"].as_object().unwrap().is_empty(), "{json}");
        }
    }
    let answer = http::get(server.addr, "/auth/login").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let answer = http::post(server.addr, "/auth/login", b"{}").await;
    assert_eq!(answer.status, 415);
}

#[actix_rt::test]
async fn a_flood_of_registrations_is_bounded_and_does_not_stop_events() {
    let server = TestServer::start_wide();
    let token = server.token().await;
    let mut client = WebSocket::join_events(server.addr, &token).await;
    let flood: Vec<_> = (0..200)
        .map(|n| {
            let addr = server.addr;
            actix_rt::spawn(async move {
                let body = format!(r#"{{"username":"flood{n}","password":"correct horse"}}"#);
                post_json(addr, "/auth/register", &body).await
            })
        })
        .collect();
    let mut num_echoes = 0;
    let events = async {
        loop {
            client.send(r#"42/events,1["echo",1]"#).await;
            assert_eq!(client.text().await, "43/events,1[1]");
            num_echoes += 1;
        }
    };
    let answers = async {
        let mut counts = std::collections::BTreeMap::new();
        for answer in flood {
            let answer = answer.await.unwrap();
            if answer.status == 429 {
                let after: u32 = answer.header("retry-after").unwrap().parse().unwrap();
                assert!(after >= 1);
                assert_eq!(answer.json()["error"], "busy");
            }
            *counts.entry(answer.status).or_insert(0) += 1;
        }
        counts
    };
    let counts = within("all answers", async {
        tokio::select! {
            counts = answers => counts,
            () = events => unreachable!("it never ends"),
        }
    })
    .await;
    assert!(
        counts.contains_key(&201) && counts.contains_key(&429),
        "{counts:?}"
    );
    assert_eq!(counts.len(), 2, "{counts:?}");
    assert!(num_echoes > 10, "events must flow meanwhile: {num_echoes}");
}
