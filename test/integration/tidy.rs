//! The house rules that a machine can check: headers, and who knows what.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sockhop::config::env;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

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
    let root = root();
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
    for (name, text) in files(&["src", "many-sends", "test", "examples", "bench"]) {
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
    // Those that read and write a stream.
    let not_pure = [
        "src/websocket/connection.rs",
        "src/websocket/many_writes.rs",
        "src/websocket/testing.rs",
    ];
    assert_eq!(
        offenders(
            &["src/websocket"],
            &["actix::", "actix_rt::", "tokio::", "redis::"],
            &not_pure
        ),
        none
    );
}

#[test]
fn unsafe_code_has_one_place() {
    let words = ["unsafe {", "unsafe fn", "unsafe impl"];
    assert_eq!(
        offenders(&["src", "many-sends", "examples"], &words, &[]),
        ["many-sends/src/ring/mod.rs"]
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
        "src/redis_bridge/hello.rs",
        "src/redis_bridge/sharded/mod.rs",
        "src/redis_bridge/sharded/publisher.rs",
        "src/redis_bridge/sharded/survey.rs",
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
fn only_http_and_what_meets_it_know_a_web_server() {
    // Who judges a request for a WebSocket, and who puts all together.
    let doors = ["src/websocket/handshake.rs", "src/app.rs"];
    let mut found = offenders(&["src"], &["actix_web::", "actix_http::"], &doors);
    found.retain(|name| !name.starts_with("src/http/"));
    assert_eq!(found, Vec::<String>::new());
}

/// The codes in the first column of the table below `heading`: what stands there in backquotes.
fn codes_of_table(file: &str, heading: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let (_, table) = text.split_once(heading).expect("the table has its heading");
    table
        .lines()
        .map(|line| line.trim_start_matches("/// "))
        .skip_while(|line| !line.starts_with("| `"))
        .take_while(|line| line.starts_with("| `"))
        .flat_map(|line| {
            line.split('|')
                .nth(1)
                .unwrap()
                .split('`')
                .skip(1)
                .step_by(2)
        })
        .map(str::to_owned)
        .collect()
}

/// The codes that the library gives its `HandlerError`s: those that it is made with, and the words in quotes where another error is
/// turned into it.
fn codes_in_the_sources() -> BTreeSet<String> {
    let is_code = |text: &&str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let mut codes = BTreeSet::new();
    for (_, text) in files(&["src"]) {
        let (text, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        let code: Vec<_> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        let code = code.join("\n");
        let bodies = |start: &str| -> Vec<_> {
            let rest = code.split(start).skip(1);
            rest.map(|rest| rest.split_once("\n}").unwrap().0.to_owned())
                .collect()
        };
        let first_args = |text: &str, call: &str| -> Vec<_> {
            let rest = text.split(call).skip(1);
            rest.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
                .filter(is_code)
                .map(str::to_owned)
                .collect()
        };
        codes.extend(first_args(&code, "HandlerError::new("));
        for body in bodies("impl HandlerError {") {
            codes.extend(first_args(&body, "Self::new("));
        }
        for body in bodies(" for HandlerError {") {
            let quoted = body.split('"').skip(1).step_by(2);
            codes.extend(quoted.filter(is_code).map(str::to_owned));
        }
    }
    codes
}

#[test]
fn the_codes_of_handler_errors_are_listed() {
    let codes = codes_in_the_sources();
    for code in [
        "internal",
        "unavailable",
        "gone",
        "bad_ack",
        "reserved_event",
    ] {
        assert!(
            codes.contains(code),
            "{code} is not seen any more: {codes:?}"
        );
    }
    let documented = codes_of_table("src/gateways/reply.rs", "Codes of the library's own:");
    assert_eq!(documented, codes);
    let documented = codes_of_table("docs/from-node.md", "The library's own codes:");
    assert_eq!(documented, codes);
}

#[test]
fn every_setting_is_documented_and_passed_on() {
    let settings: BTreeSet<String> = env::ALL.iter().map(|&name| name.to_owned()).collect();
    let documented = codes_of_table("README.md", "## Settings");
    // The second column holds defaults, the first nothing but names.
    assert_eq!(documented, settings);
    let compose = fs::read_to_string(root().join("docker-compose.yml")).unwrap();
    let passed_on: BTreeSet<String> = compose
        .lines()
        .filter_map(|line| line.trim().split_once(": ${"))
        .filter(|(name, value)| *value == format!("{name}:-}}"))
        .map(|(name, _)| name.to_owned())
        .collect();
    // Where its instances listen, and where they keep what; its Redis is one beside them, without TLS.
    let its_own = [
        env::HOST,
        env::PORT,
        env::DATA_DIR,
        env::REDIS_URL,
        env::REDIS_CA_FILE,
        env::REDIS_CERT_FILE,
        env::REDIS_KEY_FILE,
    ]
    .map(str::to_owned);
    assert_eq!(passed_on, &settings - &BTreeSet::from(its_own));
}

#[test]
fn every_fuzz_target_is_built_documented_and_has_seeds() {
    let targets: BTreeSet<String> = files(&["fuzz/fuzz_targets"])
        .iter()
        .map(|(path, _)| Path::new(path).file_stem().unwrap())
        .map(|name| name.to_str().unwrap().to_owned())
        .collect();
    let documented = codes_of_table("fuzz/README.md", "# Fuzz targets");
    assert_eq!(documented, targets);
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let built: BTreeSet<String> = manifest
        .lines()
        .filter_map(|line| {
            line.strip_prefix("path = \"fuzz_targets/")?
                .strip_suffix(".rs\"")
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(built, targets);
    for target in targets {
        let seeds = fs::read_dir(root().join("fuzz/corpus").join(&target));
        assert!(
            seeds.is_ok_and(|mut seeds| seeds.next().is_some()),
            "{target}"
        );
    }
}

/// The names of the files that git keeps. An archive of the sources has nothing else in it, and no list: none then.
fn tracked() -> Vec<String> {
    let root = root();
    if !root.join(".git").exists() {
        return Vec::new();
    }
    let listed = Command::new("git")
        // Whoever builds need not be who checked it out.
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(root)
        .output()
        .expect("git is there where a checkout is");
    assert!(listed.status.success(), "{listed:?}");
    let names = String::from_utf8(listed.stdout).unwrap();
    names
        .split_terminator('\0')
        // What was removed and is not committed yet is on the list.
        .filter(|name| root.join(name).exists())
        .map(str::to_owned)
        .collect()
}

#[test]
fn nothing_that_a_build_makes_is_kept() {
    let folders = ["target", "node_modules", "__pycache__"];
    let endings = ["rlib", "rmeta", "o", "so", "pyc", "log"];
    let made: Vec<_> = tracked()
        .into_iter()
        .filter(|name| {
            name.split('/').any(|part| folders.contains(&part))
                || name
                    .rsplit_once('.')
                    .is_some_and(|(_, ending)| endings.contains(&ending))
        })
        .collect();
    assert_eq!(made, Vec::<String>::new());
}

#[test]
fn no_file_names_a_place_on_somebodys_machine() {
    // Put together here, so that this file names none either.
    let places = ["work", "root", "home"].map(|top| format!("/{top}/"));
    let root = root();
    let found: Vec<_> = tracked()
        .into_iter()
        .filter(|name| {
            let bytes = fs::read(root.join(name)).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            places.iter().any(|place| text.contains(place))
        })
        .collect();
    assert_eq!(found, Vec::<String>::new());
}
