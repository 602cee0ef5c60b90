//! The bus that the settings ask for.
//!
//! Nothing but a choice between `redis_bus` and `sharded`, made once.

use super::{
    bus::{Bus, BusError, Heard, Names, Outbound, Published, Publisher, Subscriber},
    redis_bus::{RedisBus, RedisPublisher, RedisSubscriber},
    sharded::{ShardedBus, ShardedPublisher, ShardedSubscriber},
};
use crate::{adapter::kind::AdapterKind, config::RedisConfig};

/// A bus for one of the adapters.
#[derive(Debug)]
pub enum AnyBus {
    /// For the classic one.
    Classic(RedisBus),
    /// For the sharded one.
    Sharded(ShardedBus),
}

impl AnyBus {
    /// Returns the bus of `config`; connects to nothing.
    ///
    /// # Errors
    /// [`BusError::Address`].
    pub fn new(config: &RedisConfig) -> Result<Self, BusError> {
        Ok(match config.adapter {
            AdapterKind::Classic => Self::Classic(RedisBus::new(config)?),
            AdapterKind::Sharded(_) => Self::Sharded(ShardedBus::new(config)?),
        })
    }
}

impl Bus for AnyBus {
    type Publisher = AnyPublisher;
    type Subscriber = AnySubscriber;

    fn place(&self) -> String {
        match self {
            Self::Classic(bus) => bus.place(),
            Self::Sharded(bus) => bus.place(),
        }
    }

    async fn connect(&self) -> Result<(AnyPublisher, AnySubscriber), BusError> {
        Ok(match self {
            Self::Classic(bus) => {
                let (publisher, subscriber) = bus.connect().await?;
                (
                    AnyPublisher::Classic(publisher),
                    AnySubscriber::Classic(subscriber),
                )
            }
            Self::Sharded(bus) => {
                let (publisher, subscriber) = bus.connect().await?;
                let subscriber = Box::new(subscriber);
                (
                    AnyPublisher::Sharded(publisher),
                    AnySubscriber::Sharded(subscriber),
                )
            }
        })
    }
}

/// The half of a link that publishes.
#[derive(Debug)]
pub enum AnyPublisher {
    /// Plain channels.
    Classic(RedisPublisher),
    /// Sharded channels.
    Sharded(ShardedPublisher),
}

impl Publisher for AnyPublisher {
    async fn publish(&mut self, batch: &[Outbound]) -> Result<Published, BusError> {
        match self {
            Self::Classic(publisher) => publisher.publish(batch).await,
            Self::Sharded(publisher) => publisher.publish(batch).await,
        }
    }

    async fn num_subscribers(&mut self, channels: &[String]) -> Result<Vec<usize>, BusError> {
        match self {
            Self::Classic(publisher) => publisher.num_subscribers(channels).await,
            Self::Sharded(publisher) => publisher.num_subscribers(channels).await,
        }
    }

    async fn probe(&mut self, channel: &str) -> Result<(), BusError> {
        match self {
            Self::Classic(publisher) => publisher.probe(channel).await,
            Self::Sharded(publisher) => publisher.probe(channel).await,
        }
    }

    async fn ping(&mut self) -> Result<(), BusError> {
        match self {
            Self::Classic(publisher) => publisher.ping().await,
            Self::Sharded(publisher) => publisher.ping().await,
        }
    }
}

/// The half that listens.
pub enum AnySubscriber {
    /// Plain channels.
    Classic(RedisSubscriber),
    /// Sharded channels.
    Sharded(Box<ShardedSubscriber>),
}

impl Subscriber for AnySubscriber {
    fn change(&mut self, add: Names, remove: Names) {
        match self {
            Self::Classic(subscriber) => subscriber.change(add, remove),
            Self::Sharded(subscriber) => subscriber.change(add, remove),
        }
    }

    async fn next(&mut self) -> Result<Heard, BusError> {
        match self {
            Self::Classic(subscriber) => subscriber.next().await,
            Self::Sharded(subscriber) => subscriber.next().await,
        }
    }
}
