//! What each limit does to whoever meets it, how it is told, that it is counted, and that others do not notice.
//!
//! Not here: what many clients cost together (`bounded`), and limits of the protocols (`hostile`, `websocket`, `polling`).

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sockhop::{
    config::{Config, DEFAULT_HEAD_TIMEOUT, RecoveryConfig},
    gateways::{Ack, Arg, ConnectRequest, Gateway, Refusal, SocketRef},
    socket::disconnect::DisconnectReason,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::{Semaphore, mpsc, watch},
};

use crate::support::{
    http::{self, Answer, Pending, Poller, request},
    server::TestServer,
    websocket::{Frame, WebSocket, upgrade_request},
    within,
};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

/// Returns how often a limit was met.
pub(crate) async fn num_met(addr: SocketAddr, limit: &str) -> u64 {
    let readyz = http::get(addr, "/readyz").await.json();
    readyz["limits"][limit].as_u64().unwrap()
}

async fn await_met(addr: SocketAddr, limit: &str, expected: u64) {
    within(limit, async {
        while num_met(addr, limit).await < expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(num_met(addr, limit).await, expected, "{limit}");
}

/// Tries to open a session with these headers.
async fn open_polling(addr: SocketAddr, headers: &[&str]) -> Answer {
    http::send(addr, "GET", POLLING, headers, b"").await
}

async fn refused_websocket(addr: SocketAddr) -> Answer {
    let pending = Pending::send(addr, &upgrade_request(WEBSOCKET, &[])).await;
    pending.answer().await
}

/// A gateway that tells why its clients left.
pub(crate) fn telling() -> (Gateway, mpsc::UnboundedReceiver<DisconnectReason>) {
    let (sender, reasons) = mpsc::unbounded_channel();
    let gateway = Gateway::new("/a").on_disconnect(move |_, reason| {
        sender.send(reason).unwrap();
        async {}
    });
    (gateway, reasons)
}

/// Returns how many bytes wait for all clients together.
pub(crate) async fn backlog_bytes(addr: SocketAddr) -> usize {
    let readyz = http::get(addr, "/readyz").await.json();
    readyz["backlog_bytes"].as_u64().unwrap() as usize
}

/// Reads until the server ends the stream.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    within("the end of the stream", async {
        while let Ok(1..) = stream.read_buf(&mut all).await {}
    })
    .await;
    String::from_utf8_lossy(&all).into_owned()
}

// ---- connections --------------------------------------------------------------------------------------------------------

#[actix_rt::test]
async fn an_instance_takes_so_many_clients_and_again_when_one_has_left() {
    let server = TestServer::with(|config| config.limits.max_connections = 2);
    let addr = server.addr;
    let poller = Poller::open(addr).await;
    let websocket = WebSocket::open(addr).await;
    let answer = open_polling(addr, &[]).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (503, &json!("too_many_connections"))
    );
    let answer = refused_websocket(addr).await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("as many clients"), "{answer:?}");
    // Those who are in stay in, and may change their transport.
    let mut upgraded = WebSocket::connect(addr, &poller.upgrade_target()).await;
    upgraded.send("2probe").await;
    assert_eq!(upgraded.text().await, "3probe");
    drop(websocket);
    server.await_connections(1).await;
    WebSocket::open(addr).await;
    assert_eq!(num_met(addr, "connections").await, 2);
}

#[actix_rt::test]
async fn an_address_has_so_many_clients_wherever_its_balancer_is() {
    let server = TestServer::with(|config| {
        config.limits.max_connections_per_address = Some(2);
        config.limits.trusted_proxies = "127.0.0.0/8".parse().unwrap();
    });
    let addr = server.addr;
    let one = ["X-Forwarded-For: 203.0.113.7"];
    let forged = ["X-Forwarded-For: 198.51.100.1, 203.0.113.7"];
    let other = ["X-Forwarded-For: 198.51.100.1"];
    let first = open_polling(addr, &one).await;
    assert_eq!(first.status, 200);
    let mut second = TcpStream::connect(addr).await.unwrap();
    second
        .write_all(&upgrade_request(WEBSOCKET, &one))
        .await
        .unwrap();
    server.await_connections(2).await;
    for headers in [one, forged] {
        let answer = open_polling(addr, &headers).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (429, &json!("too_many_connections_of_address"))
        );
    }
    assert_eq!(open_polling(addr, &other).await.status, 200);
    // The balancer itself is an address like any other.
    assert_eq!(open_polling(addr, &[]).await.status, 200);
    drop(second);
    server.await_connections(3).await;
    assert_eq!(open_polling(addr, &one).await.status, 200);
    assert_eq!(num_met(addr, "connections_per_address").await, 2);
}

/// A bug: a client that had left counted nowhere, though its handlers kept the head of its request for half a minute.
#[actix_rt::test]
async fn clients_that_have_left_count_while_their_handlers_run() {
    for (limit, status) in [("connections", 503), ("connections_per_address", 429)] {
        let (done, is_done) = watch::channel(false);
        let gateway = Gateway::new("/a").on_disconnect(move |_, _| {
            let mut is_done = is_done.clone();
            async move { drop(is_done.wait_for(|is_done| *is_done).await) }
        });
        let server = TestServer::of(
            |config| {
                // Whose HTTP connections do not count.
                config.limits.trusted_proxies = "127.0.0.0/8".parse().unwrap();
                match status {
                    503 => config.limits.max_connections = 2,
                    _ => config.limits.max_connections_per_address = Some(2),
                }
            },
            |app| app.gateway(gateway),
        );
        let addr = server.addr;
        for _ in 0..4 {
            drop(WebSocket::join(addr, "/a", "").await);
            server.await_connections(0).await;
        }
        assert_eq!(open_polling(addr, &[]).await.status, status);
        assert_eq!(num_met(addr, limit).await, 1);
        done.send(true).unwrap();
        within("room for another client", async {
            while open_polling(addr, &[]).await.status != 200 {}
        })
        .await;
    }
}

#[actix_rt::test]
async fn a_header_of_whoever_is_no_balancer_is_not_believed() {
    let server = TestServer::with(|config| config.limits.max_connections_per_address = Some(1));
    let headers = |n: u8| format!("X-Forwarded-For: 203.0.113.{n}");
    assert_eq!(open_polling(server.addr, &[&headers(1)]).await.status, 200);
    assert_eq!(open_polling(server.addr, &[&headers(2)]).await.status, 429);
}

/// A bug: actix-http minds no time while the end of such a body may come, so a connection that went silent was held for ever.
#[actix_rt::test]
async fn a_connection_does_not_wait_for_ever_for_the_end_of_a_body_that_is_answered() {
    let server = TestServer::with(|config| config.limits.head_timeout = Duration::from_secs(1));
    let chunked = |line: &str, headers: &str| {
        format!("{line} HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n{headers}\r\n")
    };
    let session = Poller::open(server.addr).await;
    let heads = [
        chunked("POST /nowhere", ""),
        chunked("POST /nowhere", "Connection: close\r\n"),
        chunked("GET /healthz", ""),
        chunked("GET /page.js", ""),
        chunked(&format!("GET {}", session.target), ""),
    ];
    let mut silent = Vec::new();
    for head in &heads {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    session.ok("40").await;
    for (mut stream, head) in silent.into_iter().zip(&heads) {
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 "), "{head}: {answer}");
    }
    // One whose body has come to its end may go on.
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let whole = format!("{}1\r\na\r\n0\r\n\r\n", heads[0]);
    let last = "GET /healthz HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n";
    let all = whole.repeat(3) + last;
    stream.write_all(all.as_bytes()).await.unwrap();
    let answers = rest(&mut stream).await;
    assert_eq!(answers.matches("HTTP/1.1 404 ").count(), 3, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 1, "{answers}");
}

/// A bug: such a body was taken for a head, so behind the answer came a 431, and the connection was reset.
#[actix_rt::test]
async fn a_body_in_chunks_that_is_answered_before_its_end_is_passed_over() {
    let server = TestServer::with(|config| config.engine.max_payload = 1000);
    let session = Poller::open(server.addr).await;
    let last = request("GET", "/healthz", &["Connection: close"], b"");
    for (target, status) in [("/nowhere", 404), (session.target.as_str(), 413)] {
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n");
        let data = "x\r\n\r\n".repeat(10_000);
        let body = format!("{:x}\r\n{data}\r\n", data.len()).repeat(4) + "0\r\n\r\n";
        let all = [head.as_bytes(), body.as_bytes(), &last].concat();
        let stream = TcpStream::connect(server.addr).await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        let writing =
            actix_rt::spawn(async move { writing.write_all(&all).await.map(|()| writing) });
        let mut answers = String::new();
        within("both answers", reading.read_to_string(&mut answers))
            .await
            .unwrap();
        let statuses: Vec<_> = answers.match_indices("HTTP/1.1 ").collect();
        let statuses: Vec<_> = (statuses.iter())
            .map(|(at, found)| &answers[at + found.len()..][..3])
            .collect();
        assert_eq!(statuses, [status.to_string().as_str(), "200"], "{answers}");
        writing.await.unwrap().unwrap();
    }
}

/// A bug: of a GET's body nothing was handed out, so who waited for it waited for its deadline.
#[actix_rt::test]
async fn a_route_may_read_the_body_of_any_method_and_when_it_likes() {
    use sockhop::actix_web::{Error, web};

    let server = TestServer::of(
        |_| {},
        |app| {
            app.gateway(Gateway::new("/")).routes(|routes| {
                async fn echo(body: web::Payload) -> Result<web::Bytes, Error> {
                    actix_rt::task::yield_now().await;
                    body.to_bytes().await
                }
                routes.route("/echo", web::to(echo));
            })
        },
    );
    let body = [b'x'; 100_000];
    for method in ["GET", "POST", "DELETE"] {
        let request = request(method, "/echo", &[], &body);
        let answer = Pending::send(server.addr, &request).await.answer().await;
        assert_eq!(
            (answer.status, answer.body.len()),
            (200, body.len()),
            "{method}"
        );
    }
}

/// A bug: they counted nowhere any more, while their clients had two seconds to read why.
#[actix_rt::test]
async fn a_refused_upgrade_counts_as_a_connection_until_its_end() {
    let server = TestServer::with(|config| config.limits.max_connections_per_address = Some(1));
    let upgrade = upgrade_request("/nowhere", &[]);
    let mut held = Vec::new();
    within("one too many", async {
        loop {
            let mut stream = TcpStream::connect(server.addr).await.unwrap();
            stream.write_all(&upgrade).await.unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            match &head {
                b"HTTP/1.1 404" => held.push(stream),
                b"HTTP/1.1 429" => break,
                _ => panic!("{}", String::from_utf8_lossy(&head)),
            }
        }
    })
    .await;
    assert!(held.len() >= 4, "{}", held.len());
}

#[actix_rt::test]
async fn an_address_cannot_take_all_http_connections() {
    let server = TestServer::with(|config| config.limits.max_connections_per_address = Some(2));
    let addr = server.addr;
    // What became a WebSocket is none any more.
    let _websockets = [WebSocket::open(addr).await, WebSocket::open(addr).await];
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(TcpStream::connect(addr).await.unwrap());
    }
    let mut ninth = TcpStream::connect(addr).await.unwrap();
    let answer = rest(&mut ninth).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    assert!(
        head.ends_with(&format!("Content-Length: {}", body.len())),
        "{head}"
    );
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["error"], "too_many_connections_of_address");
    held.clear();
    // Each may still be refused until the server has seen that the others are gone.
    let met = within("room for another connection", async {
        loop {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            let get = request("GET", "/readyz", &["Connection: close"], b"");
            _ = stream.write_all(&get).await;
            let answer = rest(&mut stream).await;
            if answer.starts_with("HTTP/1.1 200 ") {
                let json = answer.split("\r\n\r\n").nth(1).unwrap();
                let json: Value = serde_json::from_str(json).unwrap();
                let num = &json["limits"]["http_connections_per_address"];
                break num.as_u64().unwrap();
            }
        }
    })
    .await;
    assert!(met >= 1);
}

// ---- time -------------------------------------------------------------------------------------------------------------

/// Sends `before`, then a byte at a time until the server has had enough; returns what it said.
async fn dribble(addr: SocketAddr, before: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(before).await.unwrap();
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let mut answer = Vec::new();
    within("the end of the dribble", async {
        loop {
            tokio::select! {
                _ = pace.tick() => drop(stream.write_all(b"x").await),
                read = stream.read_buf(&mut answer) => if read.unwrap_or(0) == 0 { break },
            }
        }
    })
    .await;
    String::from_utf8(answer).unwrap()
}

#[actix_rt::test]
async fn a_head_that_dribbles_is_cut_off_when_the_setting_says() {
    let server = TestServer::with(|config| config.limits.head_timeout = Duration::from_secs(1));
    let began = Instant::now();
    let answer = dribble(server.addr, b"GET /healthz HTTP/1.1\r\nx: ").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(num_met(server.addr, "head_timeout").await, 1);
    let first = request("GET", "/healthz", &[], b"");
    let second = [&first, &b"GET /healthz HTTP/1.1\r\nx: "[..]].concat();
    let answer = dribble(server.addr, &second).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(num_met(server.addr, "head_timeout").await, 2);
    // Far more than two seconds: without the setting the first head alone would take as long.
    let default = Duration::from_millis(DEFAULT_HEAD_TIMEOUT);
    assert!(began.elapsed() < default, "{:?}", began.elapsed());
}

#[actix_rt::test]
async fn a_body_that_dribbles_is_told_so_and_ends_its_session_whoever_reads_it() {
    use sockhop::actix_web::{HttpResponse, web};

    let server = TestServer::of(
        |config| config.engine.body_timeout = Duration::from_millis(300),
        |app| {
            let app = app.with_accounts().unwrap().gateway(Gateway::new("/"));
            app.routes(|routes| {
                async fn upload(body: web::Bytes) -> HttpResponse {
                    HttpResponse::Ok().body(body)
                }
                routes.route("/upload", web::post().to(upload));
            })
        },
    );
    let head = |target: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: hub\r\nContent-Length: 9999\r\n\r\n")
    };
    let poller = Poller::open(server.addr).await;
    let answer = dribble(server.addr, head(&poller.target).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    poller.assert_gone().await;
    let answer = dribble(server.addr, head("/upload").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    let form = "Host: hub\r\nContent-Type: application/json";
    let form = head("/auth/login").replace("Host: hub", form);
    let answer = dribble(server.addr, form.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains(r#""error":"body_timeout""#), "{answer}");
    // Nobody reads this one, and its connection ends with its answer.
    let answer = dribble(server.addr, head("/nowhere").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert_eq!(num_met(server.addr, "body_timeout").await, 3);
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let gateway = Gateway::new("/a").on("fill", |socket: SocketRef, (): ()| async move {
        // More than the kernel takes for a client that reads nothing.
        socket.emit("x", "y".repeat(30_000_000))
    });
    let change = |config: &mut Config| config.limits.write_timeout = Duration::from_millis(300);
    let server = TestServer::of(change, |app| app.gateway(gateway));
    let poller = Poller::open(server.addr).await;
    poller.ok("40/a,").await;
    poller.payload().await;
    poller.ok(r#"42/a,["fill"]"#).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.addr).await.unwrap();
    stream
        .write_all(&request("GET", &poller.target, &[], b""))
        .await
        .unwrap();
    await_met(server.addr, "write_timeout", 1).await;
    let answer = rest(&mut stream).await;
    assert!(answer.len() < 30_000_000, "{}", answer.len());
    poller.ok("1").await;
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn attachments_that_do_not_come_end_the_session_however_it_pongs() {
    let (gateway, mut reasons) = telling();
    let change = |config: &mut Config| config.engine.body_timeout = Duration::from_millis(400);
    let server = TestServer::of(change, |app| app.gateway(gateway));
    let header =
        r#"452-/a,["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    // In time: nothing of it remains.
    websocket.send(header).await;
    websocket.send_binary(&[1]).await;
    websocket.send_binary(&[2]).await;
    websocket.send(header).await;
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let closed = within("the end", async {
        loop {
            tokio::select! {
                _ = pace.tick() => websocket.send("3").await,
                closed = websocket.next() => break closed,
            }
        }
    })
    .await;
    let text = "attachments did not come within 400ms".to_owned();
    assert_eq!(closed, Frame::Close(Some(1008), text));
    assert_eq!(reasons.recv().await.unwrap().as_str(), "forced close");
    assert_eq!(num_met(server.addr, "body_timeout").await, 1);
}

// ---- events -------------------------------------------------------------------------------------------------------------

#[actix_rt::test]
async fn who_sends_more_events_than_it_may_is_told_and_who_goes_on_is_disconnected() {
    let (gateway, mut reasons) = telling();
    let gateway = gateway.on("echo", |_, Arg(n): Arg<u32>| async move { n });
    // Slow enough that none comes back while this runs.
    let change = |config: &mut Config| config.engine.max_event_rate = 1;
    let server = TestServer::of(change, |app| app.gateway(gateway));
    let (mut websocket, reply) = WebSocket::join(server.addr, "/a", "").await;
    assert!(reply.starts_with("40/a,"), "the wish to join is the first");
    websocket.send(r#"42/a,1["echo",7]"#).await;
    assert_eq!(websocket.text().await, "43/a,1[7]");
    websocket.send(r#"42/a,2["echo",7]"#).await;
    let text = "No more than 1 events per second: slow down, or be disconnected.";
    let error = json!([{ "error": { "code": "rate_limited", "message": text } }]);
    assert_eq!(websocket.text().await, format!("43/a,2{error}"));
    // Leaving and acks are free.
    websocket.send("41/a,").await;
    websocket.send("40/a,").await;
    let error = json!({ "message": text, "data": { "code": "rate_limited" } });
    let refused = websocket.text().await;
    let refused = refused.strip_prefix("44/a,").unwrap();
    assert_eq!(serde_json::from_str::<Value>(refused).unwrap(), error);
    assert_eq!(
        reasons.recv().await.unwrap().as_str(),
        "client namespace disconnect"
    );
    websocket.send("40/a,").await;
    let text = "more than 1 events per second".to_owned();
    assert_eq!(websocket.closed().await, (Some(1008), text));
    server.await_connections(0).await;
    assert_eq!(num_met(server.addr, "event_rate").await, 3);
    assert_eq!(num_met(server.addr, "rate_limited").await, 1);
}

#[actix_rt::test]
async fn the_rate_is_a_clients_own_on_either_transport() {
    let (gateway, mut reasons) = telling();
    let gateway = gateway.on("echo", |_, Arg(n): Arg<u32>| async move { n });
    let change = |config: &mut Config| config.engine.max_event_rate = 2;
    let server = TestServer::of(change, |app| app.gateway(gateway));
    let poller = Poller::open(server.addr).await;
    let events = [r#"42/a,["echo",7]"#; 8].join("\u{1e}");
    poller.ok("40/a,").await;
    assert!(poller.payload().await.starts_with("40/a,"));
    poller.ok(&events).await;
    assert_eq!(poller.payload().await, "6\u{1e}1");
    assert_eq!(reasons.recv().await.unwrap().as_str(), "rate limited");
    // Others have their own.
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    websocket.send(r#"42/a,1["echo",7]"#).await;
    assert_eq!(websocket.text().await, "43/a,1[7]");
    assert_eq!(num_met(server.addr, "rate_limited").await, 1);
}

#[actix_rt::test]
async fn a_socket_is_in_so_many_rooms() {
    let gateway = Gateway::new("/a").on(
        "join",
        |socket: SocketRef, Arg(room): Arg<String>| async move { socket.join(room).await },
    );
    let change = |config: &mut Config| config.limits.max_rooms_per_socket = 2;
    let server = TestServer::of(change, |app| app.gateway(gateway));
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    for (id, room) in ["r1", "r2", "r1"].iter().enumerate() {
        websocket
            .send(&format!(r#"42/a,{id}["join","{room}"]"#))
            .await;
        assert_eq!(websocket.text().await, format!("43/a,{id}[]"));
    }
    websocket.send(r#"42/a,9["join","r3"]"#).await;
    let error = json!({ "code": "too_many_rooms", "message": "socket is in 2 rooms already" });
    assert_eq!(
        websocket.text().await,
        format!("43/a,9{}", json!([{ "error": error }]))
    );
    assert_eq!(num_met(server.addr, "rooms").await, 1);
}

/// Returns what a client is told that may not join a namespace because so many are in use.
fn too_many_dynamic(namespace: &str, limit: usize) -> String {
    let message = format!(
        "Too many dynamic namespaces: {limit} are in use. Join one of them, or try again later"
    );
    let code = r#"{"code":"too_many_namespaces"}"#;
    format!(r#"44{namespace},{{"message":"{message}","data":{code}}}"#)
}

#[actix_rt::test]
async fn clients_name_so_many_namespaces_and_those_that_are_spelled_out_do_not_count() {
    let change = |config: &mut Config| config.limits.max_dynamic_namespaces = 2;
    let server = TestServer::of(change, |app| {
        app.gateway(Gateway::matching("/orders/{id}"))
            .gateway(Gateway::new("/admin"))
    });
    let (mut one, _) = WebSocket::join(server.addr, "/orders/1", "").await;
    let (mut other, _) = WebSocket::join(server.addr, "/orders/1", "").await;
    for namespace in ["/orders/2", "/admin"] {
        other.send(&format!("40{namespace},")).await;
        let answer = other.text().await;
        assert!(
            answer.starts_with(&format!("40{namespace},{{\"sid\"")),
            "{answer}"
        );
    }
    one.send("40/orders/3,").await;
    assert_eq!(one.text().await, too_many_dynamic("/orders/3", 2));
    assert_eq!(num_met(server.addr, "namespaces").await, 1);
    // It is free as soon as the last has left, and the one that was refused is told nothing more.
    other.send("41/orders/2,").await;
    other.send("40/orders/3,").await;
    let answer = other.text().await;
    assert!(answer.starts_with("40/orders/3,{\"sid\""), "{answer}");
}

#[actix_rt::test]
async fn a_namespace_that_a_client_waits_to_be_let_into_counts_until_it_waits_no_more() {
    let (asking, mut asked) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let is_let_in = Arc::clone(&gate);
    let gateway = Gateway::matching("/orders/{id}").authorize(move |request: ConnectRequest| {
        asking.send(request.namespace.to_string()).unwrap();
        let gate = Arc::clone(&is_let_in);
        async move {
            gate.acquire().await.unwrap().forget();
            Err::<(), _>(Refusal::new("Not you"))
        }
    });
    let change = |config: &mut Config| config.limits.max_dynamic_namespaces = 1;
    let server = TestServer::of(change, |app| app.gateway(gateway));
    let mut one = WebSocket::open(server.addr).await;
    let mut other = WebSocket::open(server.addr).await;
    one.send("40/orders/1,").await;
    assert_eq!(asked.recv().await.unwrap(), "/orders/1");
    other.send("40/orders/2,").await;
    assert_eq!(other.text().await, too_many_dynamic("/orders/2", 1));
    // Who is refused gives the place back.
    gate.add_permits(1);
    assert_eq!(one.text().await, r#"44/orders/1,{"message":"Not you"}"#);
    other.send("40/orders/2,").await;
    assert_eq!(asked.recv().await.unwrap(), "/orders/2");
    one.send("40/orders/1,").await;
    assert_eq!(one.text().await, too_many_dynamic("/orders/1", 1));
    // And so does who waits no more.
    drop(other);
    server.await_connections(1).await;
    one.send("40/orders/1,").await;
    assert_eq!(asked.recv().await.unwrap(), "/orders/1");
    assert_eq!(num_met(server.addr, "namespaces").await, 2);
}

/// A bug: its clients were away and could come back, for which it was listened to, and others took its place.
#[actix_rt::test]
async fn a_namespace_that_a_client_may_come_back_to_counts() {
    let change = |config: &mut Config| {
        config.limits.max_dynamic_namespaces = 1;
        config.recovery = Some(RecoveryConfig {
            max_sessions: 1,
            ..RecoveryConfig::default()
        });
    };
    let server = TestServer::of(change, |app| {
        app.gateway(Gateway::matching("/orders/{id}"))
            .gateway(Gateway::new("/admin"))
    });
    let (one, _) = WebSocket::join(server.addr, "/orders/1", "").await;
    let mut other = WebSocket::open(server.addr).await;
    drop(one);
    server.await_connections(1).await;
    other.send("40/orders/2,").await;
    assert_eq!(other.text().await, too_many_dynamic("/orders/2", 1));
    // It can be joined, and who leaves it by his own will may not come back.
    other.send("40/orders/1,").await;
    assert!(other.text().await.starts_with("40/orders/1,{"));
    other.send("41/orders/1,").await;
    other.send("40/orders/2,").await;
    assert_eq!(other.text().await, too_many_dynamic("/orders/2", 1));
    // Whoever left first is forgotten first.
    let (last, _) = WebSocket::join(server.addr, "/admin", "").await;
    drop(last);
    within("the room", async {
        loop {
            other.send("40/orders/2,").await;
            let answer = other.text().await;
            if answer.starts_with("40/orders/2,{") {
                break;
            }
            assert_eq!(answer, too_many_dynamic("/orders/2", 1));
        }
    })
    .await;
}

// ---- clients that are not read from -------------------------------------------------------------------------------------

/// A gateway that answers.
fn echoing() -> Gateway {
    Gateway::new("/b").on("echo", |_, Arg(n): Arg<u32>| async move { Ack(n) })
}

/// Does so much with the server that anything that a client of it has sent before is done, if it is read.
async fn let_all_be_done(addr: SocketAddr) {
    let (mut websocket, _) = WebSocket::join(addr, "/b", "").await;
    for n in 0..100 {
        websocket.send(&format!(r#"42/b,{n}["echo",{n}]"#)).await;
        assert_eq!(websocket.text().await, format!("43/b,{n}[{n}]"));
    }
}

#[actix_rt::test]
async fn a_client_that_waits_to_be_let_into_sixteen_namespaces_is_not_read_from() {
    let (asking, mut asked) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let is_let_in = Arc::clone(&gate);
    let gateway = Gateway::matching("/orders/{id}").authorize(move |_| {
        asking.send(()).unwrap();
        let gate = Arc::clone(&is_let_in);
        async move {
            gate.acquire().await.unwrap().forget();
            Err::<(), _>(Refusal::new("Not you"))
        }
    });
    let server = TestServer::of(|_| {}, |app| app.gateway(gateway).gateway(echoing()));
    let (mut websocket, _) = WebSocket::join(server.addr, "/b", "").await;
    for n in 1..16 {
        websocket.send(&format!("40/orders/{n},")).await;
        asked.recv().await.unwrap();
    }
    websocket.send(r#"42/b,1["echo",1]"#).await;
    assert_eq!(websocket.text().await, "43/b,1[1]", "one more may wait");
    websocket.send("40/orders/16,").await;
    asked.recv().await.unwrap();
    websocket.send(r#"42/b,2["echo",2]"#).await;
    websocket.send("40/orders/17,").await;
    let_all_be_done(server.addr).await;
    assert!(asked.try_recv().is_err(), "it was read from");
    gate.add_permits(1);
    let refused = websocket.text().await;
    assert!(refused.starts_with("44/orders/"), "{refused}");
    assert_eq!(websocket.text().await, "43/b,2[2]");
    asked.recv().await.unwrap();
}

#[actix_rt::test]
async fn a_client_of_which_sixty_four_events_wait_in_a_namespace_is_not_read_from() {
    let (starting, mut started) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let may_end = Arc::clone(&gate);
    let gateway = Gateway::new("/a").on("stand", move |_, Arg(n): Arg<u32>| {
        starting.send(n).unwrap();
        let gate = Arc::clone(&may_end);
        async move {
            gate.acquire().await.unwrap().forget();
            Ack(n)
        }
    });
    let server = TestServer::of(|_| {}, |app| app.gateway(gateway).gateway(echoing()));
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    websocket.send("40/b,").await;
    websocket.text().await;
    websocket.send(r#"42/a,0["stand",0]"#).await;
    assert_eq!(started.recv().await, Some(0));
    for n in 1..64 {
        websocket.send(&format!(r#"42/a,{n}["stand",{n}]"#)).await;
    }
    websocket.send(r#"42/b,1["echo",1]"#).await;
    assert_eq!(websocket.text().await, "43/b,1[1]", "one more may wait");
    websocket.send(r#"42/a,64["stand",64]"#).await;
    websocket.send(r#"42/b,2["echo",2]"#).await;
    let_all_be_done(server.addr).await;
    gate.add_permits(1);
    assert_eq!(websocket.text().await, "43/a,0[0]", "it was read from");
    assert_eq!(websocket.text().await, "43/b,2[2]");
    gate.add_permits(64);
    for n in 1..=64 {
        assert_eq!(websocket.text().await, format!("43/a,{n}[{n}]"));
    }
}

// ---- clients that have left ---------------------------------------------------------------------------------------------

/// Tells its end.
struct Telling(&'static str, mpsc::UnboundedSender<(&'static str, Instant)>);

impl Telling {
    fn begin(what: &'static str, all: &mpsc::UnboundedSender<(&'static str, Instant)>) -> Self {
        all.send((what, Instant::now())).unwrap();
        Self(what, all.clone())
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        _ = self.1.send((self.0, Instant::now()));
    }
}

#[actix_rt::test]
async fn on_disconnect_has_as_long_as_handlers_had_and_is_cut_off_then() {
    const TIMEOUT: Duration = Duration::from_millis(400);
    let (telling, mut told) = mpsc::unbounded_channel();
    let of_end = telling.clone();
    let gateway = Gateway::new("/a")
        .on("stand", move |_, (): ()| {
            let telling = Telling::begin("handler", &telling);
            async move {
                std::future::pending::<()>().await;
                drop(telling);
            }
        })
        .on_disconnect(move |_, _| {
            let of_end = of_end.clone();
            async move {
                let _telling = Telling::begin("on_disconnect", &of_end);
                std::future::pending::<()>().await;
            }
        });
    let change = |config: &mut Config| config.limits.wind_down_timeout = TIMEOUT;
    let server = TestServer::of(change, |app| app.gateway(gateway));
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    websocket.send(r#"42/a,["stand"]"#).await;
    assert_eq!(told.recv().await.unwrap().0, "handler");
    let left = Instant::now();
    websocket.send("41/a,").await;
    let mut next = async || within("what comes next", told.recv()).await.unwrap();
    let (what, cut_off) = next().await;
    assert_eq!(what, "handler");
    assert!(cut_off - left >= TIMEOUT, "{:?}", cut_off - left);
    let (what, begun) = next().await;
    assert_eq!(what, "on_disconnect");
    let (what, ended) = next().await;
    assert_eq!(what, "on_disconnect");
    // Its time runs from just before it begins.
    let had = ended - begun;
    assert!(had + Duration::from_millis(10) >= TIMEOUT, "{had:?}");
}

// ---- backlog ------------------------------------------------------------------------------------------------------------

/// A gateway that sends what it is asked for; `flood` and `volatile-flood` take a number of events of 100,000 bytes.
pub(crate) fn flooding(gateway: Gateway) -> Gateway {
    gateway
        .on(
            "flood",
            |socket: SocketRef, Arg(num): Arg<u32>| async move {
                for n in 0..num {
                    socket.emit("x", (n, "y".repeat(100_000)))?;
                    tokio::task::yield_now().await;
                }
                Ok::<_, sockhop::gateways::HandlerError>(())
            },
        )
        .on(
            "volatile-flood",
            |socket: SocketRef, Arg(num): Arg<u32>| async move {
                let namespace = socket.namespace_ref();
                for n in 0..num {
                    let all = namespace.all().volatile();
                    all.emit("v", (n, "y".repeat(100_000))).await?;
                }
                Ok::<_, sockhop::gateways::HandlerError>(())
            },
        )
}

/// Has a client flooded that reads nothing, until it is thrown out as a slow reader; returns what its close frame says.
pub(crate) async fn flood(
    websocket: &mut WebSocket,
    reasons: &mut mpsc::UnboundedReceiver<DisconnectReason>,
) -> String {
    websocket.send(r#"42/a,["flood",400]"#).await;
    let reason = within("the end", reasons.recv()).await.unwrap();
    assert_eq!(reason.as_str(), "slow reader");
    let (code, text) = websocket.closed().await;
    assert_eq!(code, Some(1008));
    text
}

#[actix_rt::test]
async fn a_slow_reader_is_disconnected_by_a_reason_of_its_own() {
    let (gateway, mut reasons) = telling();
    let change = |config: &mut Config| config.engine.max_backlog = Some(1_000_000);
    let server = TestServer::of(change, |app| app.gateway(flooding(gateway)));
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    let text = flood(&mut websocket, &mut reasons).await;
    let len = text
        .strip_prefix("backlog of ")
        .and_then(|rest| rest.strip_suffix(" bytes exceeds the limit of 1000000 bytes"));
    let len: usize = len.expect(&text).parse().unwrap();
    assert!(len > 1_000_000, "{text}");
    assert_eq!(num_met(server.addr, "slow_reader").await, 1);
    server.await_connections(0).await;
    // The same by polling: it posts, and never polls.
    let poller = Poller::open(server.addr).await;
    poller.ok("40/a,").await;
    poller.payload().await;
    poller.ok(r#"42/a,["flood",400]"#).await;
    let reason = within("the end", reasons.recv()).await.unwrap();
    assert_eq!(reason.as_str(), "slow reader");
    assert_eq!(num_met(server.addr, "slow_reader").await, 2);
    server.await_connections(0).await;
}

/// A client that answers pings without having read them held its backlog for as long as it liked.
#[actix_rt::test]
async fn pongs_do_not_keep_a_client_that_reads_nothing() {
    let (gateway, mut reasons) = telling();
    let change = |config: &mut Config| {
        config.engine.ping_interval = Duration::from_millis(300);
        config.engine.ping_timeout = Duration::from_millis(200);
        config.limits.write_timeout = Duration::from_millis(600);
        config.engine.max_backlog = Some(100_000_000);
    };
    let server = TestServer::of(change, |app| app.gateway(flooding(gateway)));
    let poller = Poller::open(server.addr).await;
    poller.ok("40/a,").await;
    poller.payload().await;
    poller.ok(r#"42/a,["flood",1]"#).await;
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    // Far below the limit of the backlog, above what the kernel takes.
    websocket.send(r#"42/a,["flood",300]"#).await;
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let both = within("both ends", async {
        let mut both = Vec::new();
        while both.len() < 2 {
            tokio::select! {
                reason = reasons.recv() => both.push(reason.unwrap().as_str()),
                _ = pace.tick() => {
                    _ = poller.post("3").await;
                    websocket.try_send("3").await;
                }
            }
        }
        both
    })
    .await;
    assert_eq!(both, ["slow reader"; 2]);
    assert_eq!(num_met(server.addr, "write_timeout").await, 2);
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn volatile_events_are_dropped_before_anything_else_happens_to_a_client_that_is_behind() {
    let (gateway, mut reasons) = telling();
    let change = |config: &mut Config| config.engine.max_backlog = Some(1_000_000);
    let server = TestServer::of(change, |app| app.gateway(flooding(gateway)));
    let (mut behind, _) = WebSocket::join(server.addr, "/a", "").await;
    let (mut asking, _) = WebSocket::join(server.addr, "/a", "").await;
    // 40 MB, forty times the backlog, and neither reads.
    asking.send(r#"42/a,1["volatile-flood",400]"#).await;
    let (mut seen, mut last) = (0, None);
    loop {
        match asking.text().await {
            text if text == "43/a,1[]" => break,
            text => {
                let n: u32 = text
                    .strip_prefix(r#"42/a,["v","#)
                    .and_then(|rest| rest.split(',').next()?.parse().ok())
                    .unwrap_or_else(|| panic!("{text:.100}"));
                assert!(last < Some(n), "in order");
                (seen, last) = (seen + 1, Some(n));
            }
        }
    }
    let dropped = num_met(server.addr, "volatile_dropped").await;
    assert!(
        dropped > 300,
        "{dropped} of 400 for the one that does not read"
    );
    assert!(seen > 0);
    // Who was behind is still there, and gets what is not volatile.
    behind.send(r#"42/a,2["flood",1]"#).await;
    while !behind.text().await.starts_with(r#"42/a,["x",0,"#) {}
    assert_eq!(server.num_connections().await, 2);
    assert_eq!(num_met(server.addr, "slow_reader").await, 0);
    assert!(reasons.try_recv().is_err());
}

/// A client that read all the time, but had more than half of its limit waiting for the length of a heartbeat, was taken for gone: its
/// pong lay unread. One that reads less than what stood before the ping is let go all the same.
#[actix_rt::test]
async fn whoever_reads_and_is_never_done_is_not_taken_for_gone() {
    const EVENT: usize = 100_000;
    const PING_INTERVAL: Duration = Duration::from_secs(1);
    const PING_TIMEOUT: Duration = Duration::from_secs(3);
    const ENOUGH: usize = 88 * EVENT;
    let (gateway, mut reasons) = telling();
    let gateway = gateway.on("tell", |socket: SocketRef, (): ()| async move {
        socket.broadcast().emit("x", ("y".repeat(EVENT),)).await
    });
    let change = |config: &mut Config| {
        config.engine.ping_interval = PING_INTERVAL;
        config.engine.ping_timeout = PING_TIMEOUT;
        config.engine.max_backlog = Some(100 * EVENT);
    };
    let server = TestServer::of(change, |app| app.gateway(gateway));
    let (mut sender, _) = WebSocket::join(server.addr, "/a", "").await;
    // Its kernel takes little, or it would take all at once now and then.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    let stream = socket.connect(server.addr).await.unwrap();
    let target = "/socket.io/?EIO=4&transport=websocket";
    let mut reader = WebSocket::connect_by(stream, target).await;
    reader.send("40/a,").await;
    assert!(reader.text().await.starts_with("0{"));
    assert!(reader.text().await.starts_with("40/a,"));
    let begun = Instant::now();
    while begun.elapsed() < 2 * (PING_INTERVAL + PING_TIMEOUT) {
        while backlog_bytes(server.addr).await < ENOUGH {
            for _ in 0..5 {
                sender.send(r#"42/a,1["tell"]"#).await;
                assert_eq!(sender.message().await, "43/a,1[]");
            }
            assert!(reasons.try_recv().is_err());
        }
        for _ in 0..5 {
            if reader.text().await == "2" {
                reader.send("3").await;
            }
        }
        let waiting = backlog_bytes(server.addr).await;
        assert!(waiting > 100 * EVENT / 2, "it is never done");
    }
    // Now it reads no more.
    let reason = within("the end", reasons.recv()).await.unwrap();
    assert_eq!(reason.as_str(), "ping timeout");
}
