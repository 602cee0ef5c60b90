//! The house rules that a machine can check: headers, and who knows what.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every Rust file below these folders, with its path from the root and its text.
fn files(folders: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in folders {
        rust_files(&root.join(folder), &mut paths);
    }
    assert!(!paths.is_empty());
    paths
        .iter()
        .map(|path| {
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// The files below `folders` that say one of `words`, those in `except` left out.
fn offenders(folders: &[&str], words: &[&str], except: &[&str]) -> Vec<String> {
    files(folders)
        .into_iter()
        .filter(|(name, text)| {
            !except.contains(&name.as_str()) && words.iter().any(|word| text.contains(word))
        })
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn every_file_says_what_it_is() {
    for (name, text) in files(&["src", "test", "examples", "bench"]) {
        assert!(text.starts_with("//! "), "{name} must open with what it is");
    }
}

#[test]
fn the_protocols_are_pure() {
    let words = [
        "actix::",
        "actix_web::",
        "actix_rt::",
        "tokio::",
        "redis::",
        "std::net",
        "Instant::now",
    ];
    let none: [String; 0] = [];
    assert_eq!(
        offenders(
            &[
                "src/engine_io",
                "src/socket_io",
                "src/adapter",
                "src/msgpack"
            ],
            &words,
            &[]
        ),
        none
    );
    let pure = ["src/websocket/connection.rs"];
    assert_eq!(
        offenders(
            &["src/websocket"],
            &["actix::", "actix_rt::", "tokio::", "redis::"],
            &pure
        ),
        none
    );
}

#[test]
fn the_settings_have_one_reader() {
    let reads = ["env::var(", "env::var_os(", "env::vars("];
    assert_eq!(
        offenders(&["src"], &reads, &["src/config.rs"]),
        Vec::<String>::new()
    );
}

#[test]
fn redis_has_three_doors_and_one_address() {
    let doors = [
        "src/redis_bridge/redis_bus.rs",
        "src/redis_bridge/sharded_bus.rs",
        "src/auth/store/redis.rs",
        "src/redis_endpoint/mod.rs",
    ];
    let found = offenders(
        &["src"],
        &["use redis::", "redis::Client", "redis::aio", "redis::cmd"],
        &doors,
    );
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn message_pack_has_two_users() {
    let words = ["msgpack::", "rmp::"];
    let users: Vec<_> = offenders(&["src"], &words, &[])
        .into_iter()
        .filter(|name| {
            !["src/msgpack/", "src/adapter/", "src/socket_io/"]
                .iter()
                .any(|room| name.starts_with(room))
        })
        .collect();
    assert_eq!(users, Vec::<String>::new());
}

#[test]
fn only_http_and_the_raw_stream_know_a_web_server() {
    let folders = [
        "src/engine_io",
        "src/socket_io",
        "src/hub",
        "src/gateways",
        "src/redis_bridge",
        "src/adapter",
        "src/msgpack",
        "src/auth",
    ];
    assert_eq!(
        offenders(&folders, &["actix_web::", "actix_http::"], &[]),
        Vec::<String>::new()
    );
}
