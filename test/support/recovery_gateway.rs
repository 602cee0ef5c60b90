//! `/r`: a gateway to be cut off from and to come back to. For tests, in Rust and in Node; nobody should run it elsewhere.
//!
//! | event | does |
//! | --- | --- |
//! | `join` room, `leave` room | joins it, leaves it |
//! | `set` value | becomes `data.value` |
//! | `state` | acks `[id, recovered, rooms, data]` |
//! | `here` | acks how many sockets are here |
//! | `me`, `all`, `others`, `red`, `all-volatile` name args… | emits name args… to this client, to all, … |
//! | `ask` | emits `question` to this client, and acks what it acknowledges |
//! | `hold` name args… | emits name args… to this client, but not before `release` |
//! | `kick`, `hang-up` | throws it out of the namespace, or ends its connection |
//!
//! `auth.user` becomes `data.user`; `auth.refuse` is refused; `data.left` tells why it left last.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};
use sockhop::gateways::{
    Ack, Arg, ConnectRequest, Event, Gateway, HandlerError, Refusal, SocketRef,
};
use tokio::sync::Notify;

#[derive(Deserialize)]
struct Auth {
    user: Option<String>,
    #[serde(default)]
    refuse: bool,
}

/// Returns the gateway.
pub(crate) fn gateway() -> Gateway {
    with_events(Gateway::new("/r"))
}

fn admit(request: &ConnectRequest) -> Result<Value, Refusal> {
    let Auth { user, refuse } = request.auth_as()?;
    if refuse {
        return Err(Refusal::new("not you"));
    }
    Ok(json!({ "user": user }))
}

/// Adds the events to a gateway.
pub(crate) fn with_events(gateway: Gateway) -> Gateway {
    let gateway = gateway
        .authorize(|request| admit(&request))
        .on_disconnect(|socket, reason| async move {
            socket.with_data(|data| data["left"] = reason.as_str().into());
        })
        .on(
            "join",
            |socket: SocketRef, Arg(room): Arg<String>| async move { socket.join(room).await },
        )
        .on(
            "leave",
            |socket: SocketRef, Arg(room): Arg<String>| async move { socket.leave(room).await },
        )
        .on(
            "set",
            |socket: SocketRef, Arg(value): Arg<Value>| async move {
                socket.with_data(|data| data["value"] = value);
            },
        )
        .on("state", |socket: SocketRef, (): ()| async move {
            let mut rooms: Vec<_> = socket.rooms().await?.into_iter().collect();
            rooms.sort_unstable();
            let state = json!([socket.id(), socket.recovered(), rooms, socket.data()]);
            Ok::<_, HandlerError>(Ack(state))
        })
        .on("here", |socket: SocketRef, (): ()| async move {
            let sockets = socket.namespace_ref().all().local().fetch_sockets().await;
            Ack(sockets.map_or(0, |sockets| sockets.len()))
        })
        .on("ask", |socket: SocketRef, (): ()| async move {
            let answer = socket
                .emit_with_ack::<Value>("question", "what?", Duration::from_secs(10))
                .await;
            Ack(answer.unwrap_or_default())
        })
        .on("kick", |socket: SocketRef, (): ()| async move {
            socket.disconnect(false)
        })
        .on("hang-up", |socket: SocketRef, (): ()| async move {
            socket.disconnect(true)
        });
    with_held(with_sending(gateway))
}

fn with_sending(gateway: Gateway) -> Gateway {
    gateway
        .on("me", |socket: SocketRef, event: Event| async move {
            socket.emit_args(&event.args().without_name());
        })
        .on("all", |socket: SocketRef, event: Event| async move {
            let all = socket.namespace_ref().all();
            all.emit_args(event.args().without_name()).await
        })
        .on("others", |socket: SocketRef, event: Event| async move {
            let others = socket.broadcast();
            others.emit_args(event.args().without_name()).await
        })
        .on("red", |socket: SocketRef, event: Event| async move {
            let red = socket.namespace_ref().to("red");
            red.emit_args(event.args().without_name()).await
        })
        .on(
            "all-volatile",
            |socket: SocketRef, event: Event| async move {
                let all = socket.namespace_ref().all().volatile();
                all.emit_args(event.args().without_name()).await
            },
        )
}

fn with_held(gateway: Gateway) -> Gateway {
    gateway
        .with_state(Arc::new(Notify::new()))
        .on(
            "hold",
            |release, socket: SocketRef, event: Event| async move {
                release.notified().await;
                socket.emit_args(&event.args().without_name());
            },
        )
        .on("release", |release, _: SocketRef, (): ()| async move {
            release.notify_one();
        })
        .into()
}
