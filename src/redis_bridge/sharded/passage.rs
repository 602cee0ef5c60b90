//! Waits until what a former master has taken on is heard at the one that has its slots now.
//!
//! A master that has handed over to its replica does not send publishers away. It is a replica itself, takes what they publish, and
//! passes it on by the bus of the cluster, which keeps its order; what is published at the new master directly would overtake it. So
//! before anything is, a mark goes the old way:
//!
//! ```text
//! 1, 2, mark ──▶ former master ──bus──▶ new master ──▶ who listens: 1, 2; we: mark
//!          3 ────────────────────────▶ new master ──▶ who listens: 3
//! ```
//! Knows neither who has which slot nor what waits meanwhile: that is `publisher`'s.
//!
//! Source: Redis cluster specification, "Replica election and promotion", "Publish/Subscribe"; seen with Redis 7.0.

use std::{future::poll_fn, iter, time::Duration};

use bytes::Bytes;
use tokio::time;

use super::{
    super::{
        bus::{BusError, Outbound},
        redis_bus::{CONNECT_TIMEOUT, RedisBus, RedisPublisher, within},
    },
    listener::{Event, Listener},
};

/// How long a mark may be under way. One that takes longer was lost, and with it what was before it.
const MARK_TIMEOUT: Duration = Duration::from_secs(1);

/// What became of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It has come out, and all that was before it.
    Arrived,
    /// The one is no replica of the other: nothing is passed on.
    NotTaken,
    /// It was under way for longer than [`MARK_TIMEOUT`].
    Lost,
}

/// Waits until all that `former` has taken is heard at `master`. `mark` is a channel that nobody else uses, of a slot that the one
/// had and the other has.
///
/// # Errors
/// One of them cannot be spoken to.
pub(super) async fn wait(
    former: &mut RedisPublisher,
    master: &RedisBus,
    mark: String,
) -> Result<Mark, BusError> {
    let mut listener = within(CONNECT_TIMEOUT, master.listener()).await?;
    listener.subscribe(mark.clone());
    // Whoever does not have that slot after all says so.
    let Event::Subscribed(_) = next(&mut listener).await? else {
        return Ok(Mark::NotTaken);
    };
    let mark = Outbound {
        channel: mark,
        payload: Bytes::new(),
    };
    let answers = former.send("SPUBLISH", iter::once(&mark)).await?;
    if answers.iter().any(Result::is_err) {
        return Ok(Mark::NotTaken);
    }
    match time::timeout(MARK_TIMEOUT, next(&mut listener)).await {
        Ok(event) => event.map(|_| Mark::Arrived),
        Err(_elapsed) => Ok(Mark::Lost),
    }
}

/// Waits for as long as a mark would have had, because whoever would have had to pass it on is gone.
pub(super) async fn wait_without_mark() {
    time::sleep(MARK_TIMEOUT).await;
}

async fn next(listener: &mut Listener) -> Result<Event, BusError> {
    poll_fn(|cx| listener.poll(cx)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapter::kind::AdapterKind,
        config::{RedisConfig, RedisTls, Secret},
        redis_server::RedisServer,
    };

    fn at(server: &RedisServer) -> RedisBus {
        let config = RedisConfig {
            url: Secret::new(server.url()),
            prefix: String::new(),
            adapter: AdapterKind::default(),
            tls: RedisTls::default(),
        };
        RedisBus::new(&config).unwrap()
    }

    async fn mark_of(former: &RedisBus, master: &RedisBus) -> Result<Mark, BusError> {
        let mut former = former.publisher().await?;
        wait(&mut former, master, "mark".to_owned()).await
    }

    #[actix::test]
    async fn a_mark_is_waited_for_and_one_that_is_lost_not_forever() {
        let (one, two) = (RedisServer::start(), RedisServer::start());
        assert_eq!(mark_of(&at(&one), &at(&one)).await, Ok(Mark::Arrived));
        assert_eq!(mark_of(&at(&one), &at(&two)).await, Ok(Mark::Lost));
    }

    #[actix::test]
    async fn a_mark_that_either_refuses_is_not_waited_for() {
        let without = |command| RedisServer::start_with(&["--rename-command", command, ""]);
        let whole = RedisServer::start();
        let (mute, deaf) = (without("SPUBLISH"), without("SSUBSCRIBE"));
        assert_eq!(mark_of(&at(&mute), &at(&whole)).await, Ok(Mark::NotTaken));
        assert_eq!(mark_of(&at(&whole), &at(&deaf)).await, Ok(Mark::NotTaken));
    }

    #[actix::test]
    async fn a_new_master_that_is_gone_is_told() {
        let (former, mut master) = (RedisServer::start(), RedisServer::start());
        let gone = at(&master);
        master.kill();
        let told = mark_of(&at(&former), &gone).await;
        assert!(matches!(told, Err(BusError::Connect { .. })), "{told:?}");
    }
}
