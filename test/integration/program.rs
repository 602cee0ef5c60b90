//! The binary: settings, faults at start, SIGTERM, `kill -9`.

use std::{net::TcpListener, process::Stdio};

use futures_util::future::join_all;

use crate::support::{
    http::{Poller, num_connections, post_json},
    program::{Program, command, run},
    websocket::WebSocket,
    within,
};

#[test]
fn every_bad_setting_is_named_in_one_message() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        ("PORT", "99999"),
        ("JWT_SECRET", "short"),
        ("FRONTEND_URL", "nonsense"),
        ("PING_TIMEOUT", "-1"),
    ];
    let (status, text) = run(command(dir.path(), &settings));
    assert!(!status.success());
    assert!(text.contains("4 settings cannot be used"), "{text}");
    for (name, _) in settings {
        assert!(text.contains(name), "{name} is missing: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_broken_dotenv_is_told_without_its_content() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".env"), "PORT=0\nJWT_SECRET 'hunter2\n").unwrap();
    let (status, text) = run(command(dir.path(), &[]));
    assert!(!status.success());
    assert!(
        text.contains(".env cannot be read") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn a_port_in_use_is_told_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (status, text) = run(command(dir.path(), &[("PORT", &port)]));
    assert!(!status.success());
    assert!(
        text.contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{text}"
    );
    assert!(text.contains("set PORT"), "{text}");
}

#[test]
fn a_data_dir_that_cannot_be_used_is_told_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let data = file.join("data");
    let (status, text) = run(command(dir.path(), &[("DATA_DIR", data.to_str().unwrap())]));
    assert!(!status.success());
    assert!(text.contains("DATA_DIR"), "{text}");
}

#[test]
fn a_data_dir_in_use_by_another_instance_is_told_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Program::start(dir.path(), &[]);
    let (status, text) = run(command(dir.path(), &[]));
    assert!(!status.success());
    assert!(
        text.contains("DATA_DIR") && text.contains("REDIS_URL"),
        "{text}"
    );
}

#[test]
fn the_log_says_which_mode_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let single = Program::start(dir.path(), &[]);
    assert!(
        single.log.contains(
            "[EventsGateway] REDIS_URL not configured. Running in single-instance mode\n"
        ),
        "{}",
        single.log
    );
    let cluster = Program::start(dir.path(), &[("REDIS_URL", "redis://127.0.0.1:1")]);
    assert!(
        cluster
            .log
            .contains("[EventsGateway] Redis adapter configured for WebSocket scalability\n"),
        "{}",
        cluster.log
    );
}

/// A bug: whoever floods us flooded the log, too, and each line is written before its thread goes on.
#[actix_rt::test]
async fn what_strangers_can_repeat_does_not_flood_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[("REDIS_URL", "redis://127.0.0.1:1")]);
    let form = r#"{"username":"somebody","password":"correct horse"}"#;
    let logins = (0..100).map(|_| post_json(program.addr, "/auth/login", form));
    for answer in within("the answers", join_all(logins)).await {
        assert_eq!(answer.status, 503);
    }
    program.signal("-TERM");
    let (_, log) = program.wait();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("[Auth]")).collect();
    // Twice as many if it takes more than the ten seconds that are looked at.
    assert!((20..=40).contains(&lines.len()), "{log}");
    let last = lines[19];
    assert!(
        last.ends_with("(20 like it came within 10s: more are left out until then)"),
        "{last}"
    );
}

/// A bug: Rust wrote each panic of a handler by itself, past the log, and a client may repeat one as fast as it sends.
#[actix_rt::test]
async fn handlers_that_panic_do_not_flood_the_log() {
    let dir = tempfile::tempdir().unwrap();
    // A filter that knows nothing of panics keeps none back: the program might die of one.
    for settings in [&[][..], &[("RUST_LOG", "churn=info")]] {
        let program = Program::start_example("churn", dir.path(), settings);
        let (mut client, _) = WebSocket::join(program.addr, "/", "{}").await;
        for id in 0..1000 {
            client.send(&format!(r#"42{id}["panic"]"#)).await;
            let ack = client.message().await;
            assert!(ack.starts_with(&format!(r#"43{id}[{{"error":"#)), "{ack}");
        }
        program.signal("-TERM");
        let (_, log) = program.wait();
        let where_it_was = "panicked at test/support/churn_server.rs:";
        let lines: Vec<_> = log
            .lines()
            .filter(|line| line.contains(where_it_was))
            .collect();
        // Twice as many if it takes more than the ten seconds that are looked at.
        assert!((20..=40).contains(&lines.len()), "{settings:?}: {log}");
        assert!(log.lines().count() <= 100, "{settings:?}: {log}");
        assert!(lines[0].ends_with(": a test wants this"), "{}", lines[0]);
        assert!(lines[19].contains("more are left out"), "{}", lines[19]);
    }
}

/// A bug: whatever went wrong in one handler kept the log from telling what went wrong in others, since all tell it at one line of ours.
#[actix_rt::test]
async fn a_handler_that_fails_often_does_not_silence_others() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start_example("churn", dir.path(), &[]);
    let (mut client, _) = WebSocket::join(program.addr, "/", "{}").await;
    for (id, event) in (0..).zip([&["fail"; 100][..], &["fail-too"]].concat()) {
        client.send(&format!(r#"42{id}["{event}"]"#)).await;
        let ack = client.message().await;
        assert!(ack.starts_with(&format!(r#"43{id}[{{"error":"#)), "{ack}");
    }
    program.signal("-TERM");
    let (_, log) = program.wait();
    let told = |event: &str| {
        let text = format!(" a handler failed: {event} was asked for");
        log.lines().filter(|line| line.contains(&text)).count()
    };
    assert!((20..=40).contains(&told("fail")), "{log}");
    assert_eq!(told("fail-too"), 1, "{log}");
}

#[actix_rt::test]
async fn sigterm_tells_the_clients_and_ends_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    // With one worker the poll is parked before the signal is handled.
    let program = Program::start(dir.path(), &[("WORKERS", "1")]);
    let mut websocket = WebSocket::open(program.addr).await;
    let poller = Poller::open(program.addr).await;
    let parked = poller.begin_get().await;
    program.signal("-TERM");
    websocket.assert_closed().await;
    assert_eq!(parked.answer().await.text(), "1");
    let (status, log) = program.wait();
    assert!(status.success(), "{status}: {log}");
    assert!(
        log.contains("SIGTERM") && log.contains("2 clients were told"),
        "{log}"
    );
}

#[actix_rt::test]
async fn accounts_and_tokens_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[]);
    let body = r#"{"username":"ada","password":"correct horse"}"#;
    let answer = post_json(program.addr, "/auth/register", body).await;
    assert_eq!(answer.status, 201);
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    program.signal("-KILL");
    program.wait();
    let program = Program::start(dir.path(), &[]);
    assert_eq!(
        post_json(program.addr, "/auth/login", body).await.status,
        200
    );
    WebSocket::join_events(program.addr, &token).await;
}

#[actix_rt::test]
async fn it_takes_as_many_open_files_as_it_may_have() {
    let dir = tempfile::tempdir().unwrap();
    // A shell that gives little and forbids no more.
    let mut few = command(dir.path(), &[]);
    let binary = few.get_program().to_owned();
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", "ulimit -Sn 64 && exec \"$0\""])
        .arg(binary)
        .current_dir(dir.path())
        .env_clear()
        .envs(
            few.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    few = shell;
    let program = Program::spawn(few);
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(WebSocket::open(program.addr).await);
    }
    assert_eq!(num_connections(program.addr).await, 100);
}

#[test]
fn the_healthcheck_follows_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[]);
    let port = program.addr.port().to_string();
    let check = || {
        let mut command = command(dir.path(), &[("PORT", &port)]);
        command.arg("healthcheck");
        run(command)
    };
    let (status, text) = check();
    assert!(status.success(), "{text}");
    drop(program);
    let (status, text) = check();
    assert!(!status.success() && text.contains("sockhop: "), "{text}");
}
