//! What clients show to get their state back: the claim in a CONNECT payload, and offsets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sockhop::socket_io::{
    ids::Pid,
    recovery::{Claim, Epoch},
};

fuzz_target!(|input: (&str, &str)| {
    let (auth, offset) = input;
    if let Some(claim) = Claim::read(auth) {
        assert_eq!(Pid::parse(claim.pid.expose()), Some(claim.pid.clone()));
        assert!(
            !format!("{:?}", claim.pid).contains(claim.pid.expose()),
            "it must not reach a log"
        );
        // serde_json's tree keeps the last of equal keys, too; texts that it refuses as a whole are no claim to compare.
        if let Ok(tree) = serde_json::from_str::<Value>(auth) {
            assert_eq!(tree["pid"], claim.pid.expose());
            assert_eq!(
                tree.get("offset").and_then(Value::as_str),
                claim.offset.as_deref()
            );
        }
    }
    // A part of an epoch that was given out, so that numbers behind it are reached.
    let epoch: Epoch = serde_json::from_str(r#""k3J9x_-a""#).expect("it is one");
    for text in [offset.to_owned(), format!("{epoch}{offset}")] {
        if let Some(position) = epoch.read(&text) {
            assert_eq!(epoch.offset(position), text, "one form for each place");
        }
    }
});
