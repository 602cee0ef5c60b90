//! Every way in which Redis may be reached: TLS, Unix sockets, ACL users; bridge and accounts over each.
//!
//! Each way is proved by an event that crosses and an account that is made. Source: the README, "When Redis fails".

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sockhop::{
    adapter::{
        kind::AdapterKind::{self, Classic, Sharded},
        sharded_channel::SubscriptionMode::Dynamic,
    },
    config::{Config, RedisConfig, RedisTls, Secret},
    redis_endpoint::fault::{ACL_RULE, SHARDED_ACL_RULE},
};

use crate::{
    cluster::await_redis,
    support::{
        http, redis_cluster::RedisCluster, redis_server::RedisServer, server::TestServer,
        websocket::WebSocket,
    },
};

fn on(adapter: AdapterKind, url: &str, tls: &RedisTls) -> TestServer {
    let redis = RedisConfig {
        url: Secret::new(url),
        prefix: "socket.io".to_owned(),
        adapter,
        tls: tls.clone(),
    };
    TestServer::with(|config: &mut Config| config.redis = Some(redis))
}

async fn assert_everything_works(url: &str, tls: &RedisTls) {
    assert_everything_works_by(Classic, [url, url], tls).await;
}

async fn assert_everything_works_by(adapter: AdapterKind, urls: [&str; 2], tls: &RedisTls) {
    let [one, two] = urls.map(|url| on(adapter, url, tls));
    await_redis(&one, "up").await;
    await_redis(&two, "up").await;
    let token = one.token().await;
    let mut a = WebSocket::join_events(one.addr, &token).await;
    let mut b = WebSocket::join_events(two.addr, &token).await;
    let event = r#"42/events,["test-event",1]"#;
    a.send(event).await;
    assert_eq!(b.text().await, event);
    b.send(event).await;
    assert_eq!([a.text().await, a.text().await], [event, event]);
}

async fn assert_down(url: &str, tls: &RedisTls, reason: &str, advice: &str) {
    assert_down_by(Classic, url, tls, reason, advice).await;
}

async fn assert_down_by(
    adapter: AdapterKind,
    url: &str,
    tls: &RedisTls,
    reason: &str,
    advice: &str,
) {
    let server = on(adapter, url, tls);
    await_redis(&server, "down").await;
    let redis = &http::get(server.addr, "/readyz").await.json()["redis"];
    assert!(
        redis["reason"].as_str().unwrap().contains(reason),
        "{redis}"
    );
    assert!(
        redis["advice"].as_str().unwrap().contains(advice),
        "{redis}"
    );
}

/// Writes an authority's certificate, and one that it signed for `name`, with its key.
fn write_certificates(dir: &Path, name: &str, issuer: &CertifiedIssuer<'_, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let cert = params.signed_by(&key, issuer).unwrap();
    std::fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[actix_rt::test]
async fn tls_is_spoken_with_whom_our_authority_signed() {
    let (ours, strangers) = (authority("ours"), authority("strangers"));
    let dir = tempfile::tempdir().unwrap();
    write_certificates(dir.path(), "localhost", &ours);
    let (_redis, port) = RedisServer::start_tls(dir.path());
    let root = |name: &str, issuer: &CertifiedIssuer<'_, KeyPair>| {
        let path = dir.path().join(name);
        std::fs::write(&path, issuer.pem()).unwrap();
        RedisTls {
            ca_file: Some(path),
            ..RedisTls::default()
        }
    };
    let trusting = root("ours.pem", &ours);
    let url = format!("rediss://localhost:{port}");
    assert_everything_works(&url, &trusting).await;

    let strange = root("strangers.pem", &strangers);
    assert_down(&url, &strange, "UnknownIssuer", "REDIS_CA_FILE").await;
    let by_address = format!("rediss://127.0.0.1:{port}");
    assert_down(
        &by_address,
        &trusting,
        "certificate not valid for name",
        "the host in REDIS_URL",
    )
    .await;
    let plain = format!("redis://localhost:{port}");
    assert_down(&plain, &RedisTls::default(), "lost", "rediss://").await;
}

#[actix_rt::test]
async fn a_certificate_of_our_own_is_shown_to_a_redis_that_wants_it() {
    let ours = authority("ours");
    let dir = tempfile::tempdir().unwrap();
    write_certificates(dir.path(), "localhost", &ours);
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, ours.pem()).unwrap();
    let (_redis, port) = RedisServer::start_tls(dir.path());
    let url = format!("rediss://localhost:{port}");
    let known = RedisTls {
        ca_file: Some(ca_file),
        cert_file: Some(dir.path().join("cert.pem")),
        key_file: Some(dir.path().join("key.pem")),
    };
    assert_everything_works(&url, &known).await;
    let unknown = RedisTls {
        cert_file: None,
        key_file: None,
        ..known
    };
    assert_down(&url, &unknown, "", "REDIS_CERT_FILE").await;
}

#[actix_rt::test]
async fn tls_leads_to_every_node_of_a_cluster() {
    let (ours, strangers) = (authority("ours"), authority("strangers"));
    let dir = tempfile::tempdir().unwrap();
    // Nodes are called by the addresses that the cluster announces.
    write_certificates(dir.path(), "127.0.0.1", &ours);
    let path = |name: &str| Some(dir.path().join(name));
    std::fs::write(dir.path().join("ca.pem"), ours.pem()).unwrap();
    std::fs::write(dir.path().join("strangers.pem"), strangers.pem()).unwrap();
    let known = RedisTls {
        ca_file: path("ca.pem"),
        cert_file: path("cert.pem"),
        key_file: path("key.pem"),
    };
    let cluster = RedisCluster::start_tls(dir.path());
    // Main channel, private channels, account and key live on any of three nodes.
    for (one, two) in [(0, 1), (1, 2), (2, 0)] {
        let urls = [cluster.tls_url_of(one), cluster.tls_url_of(two)];
        let urls = [&*urls[0], &*urls[1]];
        assert_everything_works_by(Sharded(Dynamic), urls, &known).await;
    }
    let trusting_strangers = RedisTls {
        ca_file: path("strangers.pem"),
        ..known
    };
    let (url, advice) = (cluster.tls_url_of(0), "REDIS_CA_FILE");
    let adapter = Sharded(Dynamic);
    assert_down_by(adapter, &url, &trusting_strangers, "UnknownIssuer", advice).await;
}

#[actix_rt::test]
async fn the_documented_rights_are_enough_for_the_sharded_adapter() {
    let rule: Vec<&str> = SHARDED_ACL_RULE.split_whitespace().collect();
    let redis = RedisServer::start_with(&[&["--user", "sockhop", "on", ">pw"][..], &rule].concat());
    let url = format!("redis://sockhop:pw@127.0.0.1:{}", redis.port());
    let none = RedisTls::default();
    assert_everything_works_by(Sharded(Dynamic), [&url, &url], &none).await;
    let log = redis.command(&[b"ACL", b"LOG"]);
    assert_eq!(log, b"*0\r\n", "{}", String::from_utf8_lossy(&log));
    redis.command(&[b"ACL", b"SETUSER", b"sockhop", b"-ssubscribe"]);
    let advice = "the ACL rule is in the README";
    assert_down_by(Sharded(Dynamic), &url, &none, "ssubscribe", advice).await;
}

#[actix_rt::test]
async fn a_unix_socket_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.sock");
    let path = path.to_str().unwrap();
    let _redis = RedisServer::start_with(&["--unixsocket", path]);
    assert_everything_works(&format!("unix://{path}?db=1"), &RedisTls::default()).await;
}

#[actix_rt::test]
async fn the_documented_rights_are_enough() {
    let rule: Vec<&str> = ACL_RULE.split_whitespace().collect();
    let redis = RedisServer::start_with(&[&["--user", "sockhop", "on", ">pw"][..], &rule].concat());
    let url = format!("redis://sockhop:pw@127.0.0.1:{}", redis.port());
    assert_everything_works(&url, &RedisTls::default()).await;
    let log = redis.command(&[b"ACL", b"LOG"]);
    assert_eq!(log, b"*0\r\n", "{}", String::from_utf8_lossy(&log));
    let wrong = format!("redis://sockhop:wrong@127.0.0.1:{}", redis.port());
    let none = RedisTls::default();
    assert_down(&wrong, &none, "assword", "correct user and password").await;
    redis.command(&[b"ACL", b"SETUSER", b"sockhop", b"-psubscribe"]);
    assert_down(&url, &none, "psubscribe", "the ACL rule is in the README").await;
}
