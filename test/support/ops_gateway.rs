//! `/ops`: a gateway whose clients may call every operation of the server API. For tests, in Rust and in Node; nobody should
//! run it elsewhere.
//!
//! | event | does |
//! | --- | --- |
//! | `join` room | joins it |
//! | `data` value | becomes the socket's `data` |
//! | `op` order | see [`Order`]; acks `{"ok": …}` or `{"error": …, "arrived": …}` |
//!
//! Servers may send it `server-ping` x, which replies `{"pong": x}`, and `server-tell` x, which emits `told` x to the clients
//! of this instance.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use sockhop::gateways::{
    Ack, Arg, AskError, Broadcaster, Gateway, HandlerError, NamespaceRef, RemoteSocket, SocketRef,
};

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
    Emit { event: String, args: Value },
    Ask { event: String, args: Value, ms: u64 },
    AskOne { event: String, args: Value, ms: u64 },
    Fetch,
    Ids,
    Rooms,
    Join { rooms: Vec<String> },
    Leave { rooms: Vec<String> },
    Disconnect { close: bool },
    ServerEmit { event: String, args: Value },
    ServerAsk { event: String, args: Value, ms: u64 },
}

/// Returns the gateway.
pub(crate) fn gateway() -> Gateway {
    Gateway::new("/ops")
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

async fn obey(ops: &NamespaceRef, order: Order) -> Result<Value, HandlerError> {
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
            let asked = selection.emit_with_ack::<Value>(&event, &args, ms(time));
            told(asked.await, |acks| json!(acks))
        }
        What::AskOne {
            event,
            args,
            ms: time,
        } => {
            let found = selection.fetch_sockets().await?;
            let [socket] = found.as_slice() else {
                return Err(HandlerError::new("not_one", found.len().to_string()));
            };
            let asked = socket.emit_with_ack::<Value>(&event, &args, ms(time));
            match asked.await {
                Ok(ack) => json!({ "ok": ack }),
                Err(err) => json!({ "error": err.to_string() }),
            }
        }
        What::Fetch => told(selection.fetch_sockets().await, |sockets| {
            sockets.iter().map(described).collect()
        }),
        What::Ids => told(selection.socket_ids().await, |ids| json!(ids)),
        What::Rooms => told(ops.all_rooms().await, |rooms| json!(rooms)),
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
            told(asked.await, |replies| json!(replies))
        }
    })
}

fn done((): ()) -> Value {
    json!({ "ok": null })
}

fn told<T>(answer: Result<T, AskError<T>>, show: impl Fn(&T) -> Value) -> Value {
    match answer {
        Ok(all) => json!({ "ok": show(&all) }),
        Err(err) => {
            let error = err.to_string();
            json!({ "error": error, "arrived": err.into_arrived().as_ref().map(show) })
        }
    }
}

fn described(socket: &RemoteSocket) -> Value {
    json!({
        "id": socket.id(),
        "rooms": socket.rooms(),
        "data": socket.data_as::<Value>().ok(),
        "query": socket.handshake().query.get("transport"),
    })
}
