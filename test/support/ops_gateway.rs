//! `/ops`: a gateway whose clients may call every operation of the server API. For tests, in Rust and in Node; nobody should
//! run it elsewhere.
//!
//! | event | does |
//! | --- | --- |
//! | `join` room | joins it |
//! | `data` value | becomes the socket's `data` |
//! | `op` order | see [`Order`]; acks `{"ok": …}` or `{"error": …, "arrived": …}` |
//!
//! Arguments and acks may hold bytes anywhere, see [`Any`].
//!
//! Servers may send it `server-ping` x, which replies `{"pong": x}`, and `server-tell` x, which emits `told` x to the clients
//! of this instance.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sockhop::gateways::{
    Ack, Arg, AskError, Binary, Broadcaster, Gateway, HandlerError, NamespaceRef, RemoteSocket,
    SocketRef,
};

/// Any JSON that may hold bytes. (In a bare [`Value`] they would be the placeholder that stands for them.)
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Any {
    Bytes(Binary),
    List(Vec<Any>),
    Map(BTreeMap<String, Any>),
    Plain(Value),
}

impl Any {
    fn map<const N: usize>(entries: [(&str, Self); N]) -> Self {
        let entries = entries.map(|(key, value)| (key.to_owned(), value));
        Self::Map(entries.into())
    }
}

/// What a client wants the server to do.
#[derive(Deserialize)]
struct Order {
    #[serde(default)]
    to: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
    #[serde(default)]
    local: bool,
    #[serde(default)]
    volatile: bool,
    #[serde(flatten)]
    what: What,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
enum What {
    Emit {
        event: String,
        args: Any,
    },
    Ask {
        event: String,
        args: Any,
        ms: u64,
    },
    AskOne {
        event: String,
        args: Any,
        ms: u64,
    },
    /// The next four fetch the one socket that is selected, and act upon what was fetched.
    EmitOne {
        event: String,
        args: Any,
    },
    JoinOne {
        rooms: Vec<String>,
    },
    LeaveOne {
        rooms: Vec<String>,
    },
    DisconnectOne {
        close: bool,
    },
    Fetch,
    Ids,
    Rooms,
    Join {
        rooms: Vec<String>,
    },
    Leave {
        rooms: Vec<String>,
    },
    Disconnect {
        close: bool,
    },
    ServerEmit {
        event: String,
        args: Value,
    },
    ServerAsk {
        event: String,
        args: Value,
        ms: u64,
    },
}

/// Returns the gateway.
pub(crate) fn gateway() -> Gateway {
    with_ops(Gateway::new("/ops"))
}

/// Adds the events to a gateway.
pub(crate) fn with_ops(gateway: Gateway) -> Gateway {
    gateway
        .on("join", |socket: SocketRef, Arg(room): Arg<String>| async move {
            socket.join(room).await
        })
        .on("data", |socket: SocketRef, Arg(value): Arg<Value>| async move {
            socket.set_data(&value)
        })
        .on("op", |socket: SocketRef, Arg(order): Arg<Order>| async move {
            obey(&socket.namespace_ref(), order).await.map(Ack)
        })
        .on_server("server-ping", |_, Arg(x): Arg<Value>| async move {
            Ack(json!({ "pong": x }))
        })
        .on_server("server-tell", |ops: NamespaceRef, Arg(x): Arg<Value>| async move {
            ops.local().emit("told", &x).await
        })
}

async fn one_of(selection: Broadcaster) -> Result<RemoteSocket, HandlerError> {
    let mut found = selection.fetch_sockets().await?;
    match (found.pop(), found.len()) {
        (Some(socket), 0) => Ok(socket),
        _ => Err(HandlerError::new("not_one", "not exactly one socket")),
    }
}

async fn obey(ops: &NamespaceRef, order: Order) -> Result<Any, HandlerError> {
    let Order {
        to,
        except,
        local,
        volatile,
        what,
    } = order;
    let mut selection: Broadcaster = ops.all();
    for room in to {
        selection = selection.to(room);
    }
    for room in except {
        selection = selection.except(room);
    }
    if local {
        selection = selection.local();
    }
    if volatile {
        selection = selection.volatile();
    }
    let ms = Duration::from_millis;
    Ok(match what {
        What::Emit { event, args } => done(selection.emit(&event, &args).await?),
        What::Ask {
            event,
            args,
            ms: time,
        } => {
            let asked = selection.emit_with_ack::<Any>(&event, &args, ms(time));
            told(asked.await, |acks| Any::List(acks.clone()))
        }
        What::AskOne {
            event,
            args,
            ms: time,
        } => {
            let socket = one_of(selection).await?;
            let asked = socket.emit_with_ack::<Any>(&event, &args, ms(time));
            match asked.await {
                Ok(ack) => Any::map([("ok", ack)]),
                Err(err) => Any::Plain(json!({ "error": err.to_string() })),
            }
        }
        What::EmitOne { event, args } => done(one_of(selection).await?.emit(&event, &args).await?),
        What::JoinOne { rooms } => done(one_of(selection).await?.join(rooms).await?),
        What::LeaveOne { rooms } => done(one_of(selection).await?.leave(rooms).await?),
        What::DisconnectOne { close } => done(one_of(selection).await?.disconnect(close).await?),
        What::Fetch => told(selection.fetch_sockets().await, |sockets| {
            Any::List(sockets.iter().map(described).collect())
        }),
        What::Ids => told(selection.socket_ids().await, |ids| Any::Plain(json!(ids))),
        What::Rooms => told(ops.all_rooms().await, |rooms| Any::Plain(json!(rooms))),
        What::Join { rooms } => done(selection.sockets_join(rooms).await?),
        What::Leave { rooms } => done(selection.sockets_leave(rooms).await?),
        What::Disconnect { close } => done(selection.disconnect_sockets(close).await?),
        What::ServerEmit { event, args } => done(ops.server_side_emit(&event, &args).await?),
        What::ServerAsk {
            event,
            args,
            ms: time,
        } => {
            let asked = ops.server_side_emit_with_ack::<Value>(&event, &args, ms(time));
            told(asked.await, |replies| Any::Plain(json!(replies)))
        }
    })
}

fn done((): ()) -> Any {
    Any::Plain(json!({ "ok": null }))
}

fn told<T>(answer: Result<T, AskError<T>>, show: impl Fn(&T) -> Any) -> Any {
    match answer {
        Ok(all) => Any::map([("ok", show(&all))]),
        Err(err) => {
            let error = Any::Plain(err.to_string().into());
            let arrived = err
                .into_arrived()
                .as_ref()
                .map_or(Any::Plain(Value::Null), show);
            Any::map([("error", error), ("arrived", arrived)])
        }
    }
}

fn described(socket: &RemoteSocket) -> Any {
    Any::Plain(json!({
        "id": socket.id(),
        "rooms": socket.rooms(),
        "data": socket.data_as::<Value>().ok(),
        "query": socket.handshake().query.get("transport"),
    }))
}
