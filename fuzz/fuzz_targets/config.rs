//! Settings: any environment gives a configuration or a list of faults, and no fault tells a secret.
#![no_main]

use std::{collections::HashMap, ffi::OsString, os::unix::ffi::OsStringExt as _};

use libfuzzer_sys::fuzz_target;
use sockhop::config::{Config, MIN_JWT_SECRET_BYTES, env};

fuzz_target!(|vars: Vec<(u8, Vec<u8>)>| {
    let vars: HashMap<&str, Vec<u8>> = vars
        .into_iter()
        .map(|(at, value)| (env::ALL[usize::from(at) % env::ALL.len()], value))
        .collect();
    let looked_up = Config::from_lookup(|name| vars.get(name).cloned().map(OsString::from_vec));
    match looked_up {
        Ok(config) => {
            assert!(config.workers >= 1 && config.engine.max_payload >= 1);
            assert!(!config.engine.ping_interval.is_zero());
            if let Some(secret) = &config.jwt.secret {
                assert!(secret.expose().len() >= MIN_JWT_SECRET_BYTES);
                assert!(!format!("{config:?}").contains(secret.expose()));
            }
            if let Some(redis) = &config.redis {
                assert!(!redis.prefix.is_empty() && !redis.prefix.contains(['*', '#', '?']));
            }
        }
        Err(error) => {
            assert!(!error.faults.is_empty());
            _ = error.to_string();
        }
    }
});
