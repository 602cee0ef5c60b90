//! The server that the matrix of real clients connects to: one handler for each thing that they try.
//!
//! ```text
//! PORT=3000 cargo run --example matrix
//! ```
//! Tests of `test/client` and `test/python` start it. Settings are read from the environment, as for every instance. Both
//! namespaces, `/` and `/matrix`, have the same events:
//!
//! | event | arguments | what happens |
//! | --- | --- | --- |
//! | `echo` | any | the ack has the same arguments |
//! | `echo-event` | any | the same event comes back, arguments and all |
//! | `ask-me` | value | asks the client `question` with it, and acks with what the client answers |
//! | `ask-me-binary` | bytes | the same with bytes, which must be bytes in the answer, too |
//! | `who-am-i` | | the ack has the id and what the client brought as `auth` |
//! | `join`, `leave` | room | acked once it is done |
//! | `say` | room, text | `said` with the text, to everyone else in the room; acked once it is on its way |
//! | `watch` | | from then on `left` tells this client who left the namespace (id) and why (reason) |
//! | `kick` | | the server ends this membership |
//! | `kick-all` | | the server ends the whole connection |
//!
//! `/matrix` refuses who brings `refuse` in `auth` or in the query of the handshake (clients 2.x have no `auth`).

use std::time::Duration;

use serde_json::{Value, json};
use sockhop::{
    app::App,
    config::Config,
    gateways::{
        Ack, AllArgs, Arg, Binary, ConnectRequest, Event, Gateway, HandlerError, Refusal, Reply,
        SocketRef,
    },
    socket::disconnect::DisconnectReason,
    telemetry,
};

/// How long a client may take to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Who wants to be told of those who leave. No client can choose this name: see [`room`].
const WATCHERS: &str = "watchers";

/// A room's name at the server. With a prefix, because each socket is in a room named by its own id.
fn room(name: &str) -> String {
    format!("room:{name}")
}

fn gateway(namespace: &str) -> Gateway {
    Gateway::new(namespace)
        .authorize(admit)
        .on("echo", |_, event: Event| async move {
            Reply::args(event.payload())
        })
        .on("echo-event", |socket: SocketRef, event: Event| async move {
            socket.emit_args(event.args());
        })
        .on("ask-me", ask_me)
        .on("ask-me-binary", ask_me_binary)
        .on("who-am-i", |socket: SocketRef, ()| async move {
            json!({ "id": socket.id().as_str(), "auth": socket.data() })
        })
        .on("join", |socket: SocketRef, Arg(name): Arg<String>| async move {
            socket.join(room(&name)).await
        })
        .on("leave", |socket: SocketRef, Arg(name): Arg<String>| async move {
            socket.leave(room(&name)).await
        })
        .on("say", say)
        .on("watch", |socket: SocketRef, ()| async move {
            socket.join(WATCHERS).await
        })
        .on("kick", |socket: SocketRef, ()| async move {
            socket.disconnect(false);
        })
        .on("kick-all", |socket: SocketRef, ()| async move {
            socket.disconnect(true);
        })
        .on_disconnect(tell_watchers)
}

async fn admit(request: ConnectRequest) -> Result<Value, Refusal> {
    let auth: Value = request
        .auth_as()
        .map_err(|err| Refusal::new(err.to_string()))?;
    let wants_refusal = auth.get("refuse").is_some() || request.handshake.query("refuse").is_some();
    if wants_refusal && request.namespace.as_str() == "/matrix" {
        return Err(Refusal::new("No entry").with_data(json!({ "code": "refused", "wish": true })));
    }
    Ok(auth)
}

async fn ask_me(socket: SocketRef, Arg(value): Arg<Value>) -> Result<Ack<Value>, HandlerError> {
    let (answer,) = socket
        .emit_with_ack::<(Value,)>("question", &value, ANSWER_TIMEOUT)
        .await?;
    Ok(Ack(answer))
}

async fn ask_me_binary(
    socket: SocketRef,
    Arg(bytes): Arg<Binary>,
) -> Result<Ack<Binary>, HandlerError> {
    let (answer,) = socket
        .emit_with_ack::<(Binary,)>("question", &bytes, ANSWER_TIMEOUT)
        .await?;
    Ok(Ack(answer))
}

async fn say(
    socket: SocketRef,
    AllArgs((name, text)): AllArgs<(String, String)>,
) -> Result<(), HandlerError> {
    socket.to(room(&name)).emit("said", &text).await
}

async fn tell_watchers(socket: SocketRef, reason: DisconnectReason) {
    let left = (socket.id().as_str(), reason.as_str());
    if let Err(err) = socket.to(WATCHERS).emit("left", left).await {
        log::info!("nobody is told who left: {err}");
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_env()?;
    telemetry::init(&config.log_filter);
    let app = App::new(config)
        .gateway(gateway("/"))
        .gateway(gateway("/matrix"));
    let running = app.start().await?;
    log::info!("listening on {} for the matrix of clients", running.url());
    running.run_until_signal().await?;
    Ok(())
}
