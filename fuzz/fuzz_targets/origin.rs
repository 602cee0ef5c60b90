//! `FRONTEND_URL` and what it says of requests: exact comparison, and nobody else without a star.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockhop::http::origin::{AllowedOrigins, Verdict};

fuzz_target!(|input: (&str, Option<&[u8]>, Option<&[u8]>)| {
    let (list, origin, host) = input;
    let Ok(allowed) = list.parse::<AllowedOrigins>() else {
        return;
    };
    let verdict = allowed.judge(origin, host);
    let has_star = list.split(',').any(|entry| entry.trim() == "*");
    match origin {
        None => assert_eq!(verdict, Verdict::NoOrigin),
        Some(origin) => {
            assert_ne!(verdict, Verdict::NoOrigin);
            assert!(has_star || verdict != Verdict::AllowedToAny);
            // Without a list, only the authority that the client addressed is let in.
            if verdict == Verdict::Allowed && !list.contains(|c: char| c.is_alphanumeric()) {
                let origin = std::str::from_utf8(origin).expect("text").to_lowercase();
                let rest = origin.trim_start_matches("http").trim_start_matches('s');
                assert!(
                    origin.starts_with("http") && rest.starts_with(':'),
                    "{origin}"
                );
                assert!(host.is_some_and(|host| !host.is_empty()));
            }
            if origin == b"null" {
                assert_ne!(verdict, Verdict::Allowed);
            }
        }
    }
    for entry in list.split(',').map(str::trim) {
        if entry.is_ascii() && entry.starts_with("https://") && !entry.ends_with('/') {
            // Browsers send origins in lower case and without the default port, which is what the list is brought to.
            _ = allowed.judge(Some(entry.to_lowercase().as_bytes()), None);
        }
    }
});
