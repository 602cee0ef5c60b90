//! `sockhop emit` and its like: tells servers and their clients something from a shell or a cron job.
//!
//! What Node's `@socket.io/redis-emitter` is for programs. Publishes one message on Redis and ends; is no instance, hears nothing,
//! and is answered by nobody. Instances of Sockhop and Node's servers with the classic Redis adapter obey it.

use clap::{Args as ClapArgs, Subcommand};
use serde_json::value::RawValue;

use crate::{
    adapter::{EncodeError, emitter, kind::AdapterKind},
    config::Config,
    hub::{
        broadcast::{Broadcast, Flags, Target},
        command::Command,
    },
    redis_bridge::{
        RedisBus,
        bus::{BusError, Outbound},
    },
    socket_io::{
        args::Args,
        ids::{Namespace, Room},
    },
};

/// What to publish.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Order {
    /// Send an event to clients, over Redis: to all of a namespace, or to some.
    ///
    /// Every server of REDIS_URL and REDIS_PREFIX passes it on, Node's included. Values are JSON; bytes cannot be sent from here.
    /// Exit code: 0 published, 1 not published, 2 wrong usage.
    ///
    /// Example: sockhop emit --namespace /chat --to room1 --except x news '"a text"' '{"n": 1}' 5
    Emit {
        /// Which clients.
        #[command(flatten)]
        selection: Selection,
        /// Let clients that cannot take it at once go without it.
        #[arg(long)]
        volatile: bool,
        /// Ask Node's servers not to compress it.
        #[arg(long)]
        no_compress: bool,
        /// What is sent.
        #[command(flatten)]
        event: EventArgs,
    },
    /// Put clients into rooms, on all servers. Exit codes as `emit`.
    SocketsJoin {
        /// Which clients.
        #[command(flatten)]
        selection: Selection,
        /// The rooms.
        #[arg(required = true, value_name = "ROOM")]
        rooms: Vec<String>,
    },
    /// Take clients out of rooms, on all servers. Exit codes as `emit`.
    SocketsLeave {
        /// Which clients.
        #[command(flatten)]
        selection: Selection,
        /// The rooms.
        #[arg(required = true, value_name = "ROOM")]
        rooms: Vec<String>,
    },
    /// Take clients out of a namespace, on all servers; without --to and --except, all clients. Exit codes as `emit`.
    DisconnectSockets {
        /// Which clients.
        #[command(flatten)]
        selection: Selection,
        /// End their whole connections.
        #[arg(long)]
        close: bool,
    },
    /// Send an event to the servers themselves, not to clients. Exit codes as `emit`.
    ServerSideEmit {
        /// The namespace whose servers' handlers run.
        #[arg(short, long, default_value = "/")]
        namespace: String,
        /// What is sent.
        #[command(flatten)]
        event: EventArgs,
    },
}

/// Which clients.
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct Selection {
    /// The namespace.
    #[arg(short, long, default_value = "/")]
    namespace: String,
    /// Only who is in this room, or has this id; may be repeated, and who is in any of them is selected.
    #[arg(long, value_name = "ROOM")]
    to: Vec<String>,
    /// Nobody who is in this room, or has this id; may be repeated.
    #[arg(long, value_name = "ROOM")]
    except: Vec<String>,
}

/// An event and what it carries.
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct EventArgs {
    /// The event's name.
    event: String,
    /// Its arguments, each one JSON value; a text has quotes: '"text"'.
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    args: Vec<String>,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// There is no Redis to publish on.
    #[error(
        "REDIS_URL is not set: it must name the Redis of the servers, for example redis://localhost:6379"
    )]
    NoRedis,
    /// The servers would not hear it.
    #[error(
        "REDIS_ADAPTER=sharded: servers with the sharded adapter hear no emitter; send from within a server, or use the classic adapter on all of them"
    )]
    Sharded,
    /// An argument is not JSON.
    #[error("argument {number} ({text}) is not JSON; a text needs quotes of its own: '\"text\"'")]
    NotJson {
        /// Which, from 1.
        number: usize,
        /// What stood there.
        text: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The event cannot be put on the wire.
    #[error("the event cannot be sent")]
    Encode(#[from] EncodeError),
    /// Redis did not take it.
    #[error("Redis did not take it (check REDIS_URL)")]
    Bus(#[from] BusError),
}

/// Publishes an order on the Redis of these settings.
///
/// # Errors
/// See [`EmitError`].
pub async fn run(config: &Config, order: Order) -> Result<(), EmitError> {
    let command = order.into_command()?;
    let redis = config.redis.as_ref().ok_or(EmitError::NoRedis)?;
    if redis.adapter != AdapterKind::Classic {
        return Err(EmitError::Sharded);
    }
    let (channel, payload) = emitter::encode(&redis.prefix, &command)?;
    let message = Outbound { channel, payload };
    let num_subscriptions = RedisBus::new(redis)?.publish_once(&message).await?;
    if num_subscriptions == 0 {
        log::warn!(
            "published, but no server listens on {:?}: is one running with this namespace, REDIS_URL and REDIS_PREFIX?",
            message.channel
        );
    }
    Ok(())
}

impl Order {
    fn into_command(self) -> Result<Command, EmitError> {
        Ok(match self {
            Self::Emit {
                selection,
                volatile,
                no_compress,
                event,
            } => {
                let (namespace, target) = selection.resolve();
                let flags = Flags {
                    volatile,
                    compress: no_compress.then_some(false),
                };
                let args = event.into_args()?;
                Command::Broadcast(Broadcast {
                    namespace,
                    target,
                    flags,
                    args,
                })
            }
            Self::SocketsJoin { selection, rooms } => {
                let (namespace, target) = selection.resolve();
                let rooms = named(rooms);
                Command::Join {
                    namespace,
                    target,
                    rooms,
                }
            }
            Self::SocketsLeave { selection, rooms } => {
                let (namespace, target) = selection.resolve();
                let rooms = named(rooms);
                Command::Leave {
                    namespace,
                    target,
                    rooms,
                }
            }
            Self::DisconnectSockets { selection, close } => {
                let (namespace, target) = selection.resolve();
                Command::Disconnect {
                    namespace,
                    target,
                    whole_connection: close,
                }
            }
            Self::ServerSideEmit { namespace, event } => Command::ServerEvent {
                namespace: with_slash(namespace),
                args: event.into_args()?,
            },
        })
    }
}

impl Selection {
    fn resolve(self) -> (Namespace, Target) {
        let target = Target {
            rooms: named(self.to),
            except: named(self.except),
        };
        (with_slash(self.namespace), target)
    }
}

/// Each room once, as in Node's emitter: the channel depends on how many there are.
fn named(rooms: Vec<String>) -> Vec<Room> {
    let mut named: Vec<Room> = Vec::with_capacity(rooms.len());
    for room in rooms {
        let room = Room::from(room);
        if !named.contains(&room) {
            named.push(room);
        }
    }
    named
}

fn with_slash(namespace: String) -> Namespace {
    match namespace.starts_with('/') {
        true => Namespace::from(namespace),
        false => Namespace::from(format!("/{namespace}")),
    }
}

impl EventArgs {
    /// Puts the texts together as they stand.
    fn into_args(self) -> Result<Args, EmitError> {
        let mut json = format!("[{}", serde_json::Value::from(self.event));
        for (at, text) in self.args.into_iter().enumerate() {
            if let Err(source) = serde_json::from_str::<&RawValue>(&text) {
                let number = at + 1;
                return Err(EmitError::NotJson {
                    number,
                    text,
                    source,
                });
            }
            json.push(',');
            json.push_str(&text);
        }
        json.push(']');
        Ok(Args::from_parts(json.into(), Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(subcommand)]
        order: Order,
    }

    fn command(line: &[&str]) -> Result<Command, EmitError> {
        let words = std::iter::once("sockhop").chain(line.iter().copied());
        let program = Program::try_parse_from(words).unwrap_or_else(|err| panic!("{err}"));
        program.order.into_command()
    }

    #[test]
    fn a_line_becomes_a_broadcast() {
        let line = [
            "emit",
            "--namespace",
            "chat",
            "--to",
            "a",
            "--to",
            "a",
            "--to",
            "b",
            "--except",
            "x",
            "--volatile",
            "news",
            "-5",
            r#"{"n": 1.0}"#,
            "null",
        ];
        let Command::Broadcast(broadcast) = command(&line).unwrap() else {
            panic!("no broadcast");
        };
        assert_eq!(broadcast.namespace.as_str(), "/chat");
        let target = Target {
            rooms: vec!["a".into(), "b".into()],
            except: vec!["x".into()],
        };
        assert_eq!(broadcast.target, target);
        assert!(broadcast.flags.volatile);
        assert_eq!(broadcast.args.json(), r#"["news",-5,{"n": 1.0},null]"#);
    }

    #[test]
    fn what_is_not_json_is_told_with_the_way_out() {
        for text in ["text", "{", "", "1 2", "'a'"] {
            let err = command(&["emit", "e", "1", text]).unwrap_err();
            let said = err.to_string();
            assert!(
                said.contains("argument 2") && said.contains("quotes"),
                "{said}"
            );
        }
        // What would end the array that it stands in is no value either.
        assert!(command(&["emit", "e", "1],[2"]).is_err());
    }

    #[test]
    fn what_is_missing_is_wrong_usage() {
        for line in [
            vec!["emit"],
            vec!["sockets-join", "--to", "a"],
            vec!["server-side-emit"],
        ] {
            let words = std::iter::once("sockhop").chain(line.iter().copied());
            let err = Program::try_parse_from(words).unwrap_err();
            assert_eq!(err.exit_code(), 2, "{line:?}");
        }
    }
}
