//! The open packet, which answers a handshake.
//!
//! Pure. Source: Engine.IO protocol v4, "Handshake": exactly five keys, times in milliseconds.

use serde::Serialize;

use super::sid::Sid;
use crate::config::EngineConfig;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Open<'a> {
    sid: &'a str,
    upgrades: &'a [&'a str],
    ping_interval: u128,
    ping_timeout: u128,
    max_payload: usize,
}

/// Returns the text of an open packet, its `0` included. `upgradable` is true for polling.
pub fn encode(sid: &Sid, config: &EngineConfig, upgradable: bool) -> String {
    let open = Open {
        sid: sid.as_str(),
        upgrades: if upgradable { &["websocket"] } else { &[] },
        ping_interval: config.ping_interval.as_millis(),
        ping_timeout: config.ping_timeout.as_millis(),
        max_payload: config.max_payload,
    };
    let json = serde_json::to_string(&open).expect("text keys and numbers always serialise");
    format!("0{json}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_io::sid::InstanceId;

    #[test]
    fn the_open_packet_has_exactly_the_five_keys_in_nodes_order() {
        let sid = Sid::random(InstanceId::random().unwrap()).unwrap();
        let id = sid.as_str();
        assert_eq!(
            encode(&sid, &EngineConfig::default(), true),
            format!(
                r#"0{{"sid":"{id}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
            )
        );
        assert!(encode(&sid, &EngineConfig::default(), false).contains(r#""upgrades":[],"#));
    }
}
