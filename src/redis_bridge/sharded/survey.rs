//! Asks a node what it is, and who has which slot.
//!
//! A single Redis has them all. What of the answer cannot be understood is passed over, and its slots have no owner then.
//!
//! Source: Redis command reference, HELLO, CLUSTER SLOTS; wire.md 4.4.

use std::time::Duration;

use redis::{RedisError, Value};

use super::{
    super::{
        bus::BusError,
        hello::text,
        redis_bus::{RedisBus, RedisPublisher, bus_error, within},
    },
    slots::{self, Node, SlotMap},
};
use crate::{redis_endpoint::pointer, telemetry::with_causes};

/// How long one node may take to tell about the cluster, before others are asked.
const ASK_TIMEOUT: Duration = Duration::from_millis(1200);
/// First version that has sharded channels.
const MIN_VERSION: u32 = 7;

/// Asks a node who has which slot. Returns its name and the connection, too.
pub(super) async fn survey(
    seed: &RedisBus,
    node: Node,
) -> Result<(SlotMap, Node, RedisPublisher), BusError> {
    within(ASK_TIMEOUT, async {
        let mut connection = seed.at(&node)?.publisher().await?;
        let asked = match &node {
            Node::Seed => seed.named(),
            Node::At { .. } => node.clone(),
        };
        let map = slot_map(&mut connection, &asked).await?;
        // In a cluster the seed is known by the name that the cluster gives it.
        let node = match map.owner(0) {
            Some(Node::Seed) | None => Node::Seed,
            Some(Node::At { .. }) => asked,
        };
        Ok((map, node, connection))
    })
    .await
}

/// Asks over a connection to the node at `asked`.
pub(super) async fn slot_map(
    connection: &mut RedisPublisher,
    asked: &Node,
) -> Result<SlotMap, BusError> {
    let hello = match connection.hello().await {
        Ok(hello) => hello,
        // Redis 5 and older.
        Err(err) if is_unknown_command(&err) => return Err(too_old("older than 6")),
        Err(err) => return Err(bus_error(err)),
    };
    if hello.major().is_some_and(|major| major < MIN_VERSION) {
        return Err(too_old(hello.version()));
    }
    if !hello.is_of_cluster() {
        return Ok(SlotMap::single());
    }
    let slots = connection.ask(&["CLUSTER", "SLOTS"]).await;
    Ok(read_slots(&slots.map_err(bus_error)?, asked))
}

/// Reads the answer to `CLUSTER SLOTS`; passes over what it does not understand, whose slots then have no owner.
fn read_slots(answer: &Value, asked: &Node) -> SlotMap {
    let mut map = SlotMap::empty();
    let Value::Array(ranges) = answer else {
        return map;
    };
    for range in ranges {
        let Value::Array(parts) = range else { continue };
        let [
            Value::Int(first),
            Value::Int(last),
            Value::Array(master),
            ..,
        ] = parts.as_slice()
        else {
            continue;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else {
            continue;
        };
        let host = text(host).unwrap_or_default();
        let Ok(port) = u16::try_from(*port) else {
            continue;
        };
        let node = slots::at(pointer::host(&host), port, asked);
        let slot = |slot: &i64| u16::try_from(*slot).unwrap_or(slots::NUM_SLOTS);
        for slot in slot(first)..=slot(last).min(slots::NUM_SLOTS) {
            map.set(slot, &node);
        }
    }
    map
}

pub(super) fn is_unknown_command(err: &RedisError) -> bool {
    with_causes(err).contains("unknown command")
}

pub(super) fn too_old(version: &str) -> BusError {
    BusError::Unsuited {
        reason: format!(
            "this Redis ({version}) has no sharded channels: REDIS_ADAPTER=sharded needs Redis {MIN_VERSION} or newer; upgrade it, or set REDIS_ADAPTER=classic on all instances"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis_bridge::hello::bulk;

    #[test]
    fn the_slots_of_a_cluster_are_read_and_nonsense_passed_over() {
        let range = |first, last, host: Value, port| {
            let master = Value::Array(vec![host, Value::Int(port), bulk("id")]);
            Value::Array(vec![Value::Int(first), Value::Int(last), master])
        };
        let answer = Value::Array(vec![
            range(0, 10, bulk("a"), 7000),
            range(11, 11, Value::Nil, 7001),
            range(12, 99_999, bulk("c"), 7002),
            range(-5, 3, bulk("d"), 7003),
            range(0, 5, bulk("e"), 99_999),
            Value::Array(vec![Value::Int(0)]),
            Value::Nil,
        ]);
        let asked = Node::At {
            host: "seed".into(),
            port: 1,
        };
        let map = read_slots(&answer, &asked);
        let node = |host: &str, port| Node::At {
            host: host.into(),
            port,
        };
        assert_eq!(map.owner(0), Some(&node("a", 7000)));
        assert_eq!(map.owner(11), Some(&node("seed", 7001)));
        assert_eq!(map.owner(16_383), Some(&node("c", 7002)));
        assert_eq!(map.nodes().len(), 3);
    }
}
