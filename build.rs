//! Gathers the official client's bundle, if npm has installed it below `static/`, so that it becomes part of the binary.
//!
//! Downloads nothing: `make run` and the image call npm first. Without the bundle the build succeeds all the same and the
//! routes redirect to the public CDN's file of the pinned version.

use std::{env, fmt::Write as _, fs, path::Path};

const FILES: [&str; 8] = [
    "socket.io.js",
    "socket.io.js.map",
    "socket.io.min.js",
    "socket.io.min.js.map",
    "socket.io.esm.min.js",
    "socket.io.esm.min.js.map",
    "socket.io.msgpack.min.js",
    "socket.io.msgpack.min.js.map",
];

fn main() {
    // A directory is watched with all that is below it, so a later `npm ci` is noticed.
    println!("cargo::rerun-if-changed=static");
    println!("cargo::rerun-if-changed=build.rs");
    let root = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let out = env::var_os("OUT_DIR").expect("cargo sets it");
    let manifest = fs::read_to_string(Path::new(&root).join("static/package.json"))
        .expect("static/package.json pins the client's version");
    let manifest: serde_json::Value =
        serde_json::from_str(&manifest).expect("static/package.json is JSON");
    let version = manifest
        .pointer("/dependencies/socket.io-client")
        .and_then(serde_json::Value::as_str)
        .expect("static/package.json depends on socket.io-client");
    let dist = Path::new(&root).join("static/node_modules/socket.io-client/dist");
    let mut files = String::new();
    for name in FILES {
        let path = dist.join(name);
        if path.is_file() {
            writeln!(files, "    ({name:?}, include_bytes!({path:?})),")
                .expect("a string takes every text");
        }
    }
    let code = format!(
        "/// Version of the official client that `static/package.json` pins.\n\
         pub const VERSION: &str = {version:?};\n\
         /// Every name that is served, whether the file was there at build time or is redirected.\n\
         static NAMES: [&str; {}] = {FILES:?};\n\
         /// Name and content of each file that was there at build time.\n\
         static FILES: &[(&str, &[u8])] = &[\n{files}];\n",
        FILES.len(),
    );
    fs::write(Path::new(&out).join("client_bundle.rs"), code).expect("OUT_DIR is writable");
}
