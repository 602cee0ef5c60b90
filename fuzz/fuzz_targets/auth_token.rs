//! Tokens: none that we did not sign is taken, and none that is signed but odd harms anybody.
#![no_main]

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sha2::Sha256;
use sockhop::{
    auth::{Accounts, TokenVerifier},
    config::{Config, Secret},
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

static VERIFIER: LazyLock<TokenVerifier> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = Config {
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    config.jwt.secret = Some(Secret::new(SECRET));
    let verifier = Accounts::open(&config).expect("accounts").verifier();
    assert!(verifier.has_key());
    verifier
});

fuzz_target!(|input: (&str, &[u8], &[u8])| {
    let (token, header, claims) = input;
    assert!(VERIFIER.verify(token).is_err(), "a forged token");
    // The same with a sound signature, which only we can make: so whatever is odd in it would be our own oddity.
    let body = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(body.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    if VERIFIER.verify(&format!("{body}.{signature}")).is_ok() {
        let header: Value = serde_json::from_slice(header).expect("a JSON header");
        assert_eq!(header["alg"], "HS256");
        let claims: Value = serde_json::from_slice(claims).expect("JSON claims");
        assert!(claims["exp"].is_number());
    }
});
