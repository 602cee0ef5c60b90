//! An application that speaks MessagePack: its clients use `socket.io-msgpack-parser`, and its code is as ever.
//!
//! ```text
//! cargo run --example msgpack
//! ```
//! ```js
//! import { io } from "socket.io-client";
//! import parser from "socket.io-msgpack-parser";
//! const socket = io("http://localhost:3000", { parser, auth: { name: "Ada" } });   // without a name it is refused
//! ```
//! | event | from | arguments | does |
//! | --- | --- | --- | --- |
//! | `hello` | server | what the client brought as `auth` | |
//! | `echo` | client | any | acks them |
//! | `share` | client | any | sends them to all clients as `shared`, and acks |
//! | `ask-me` | client | any | asks the client the same back as `question`, and acks its two answers as one list |
//! | `kick` | client | whether the whole connection goes | disconnects the client |

use std::time::Duration;

use serde_json::{Value, json};
use sockhop::{
    app::App,
    config::Config,
    gateways::{
        Ack, AllArgs, Arg, Binary, ConnectRequest, Event, Gateway, HandlerError, Refusal, Reply,
        SocketRef,
    },
    socket_io::{args::Args, parser::Parser},
    telemetry,
};

/// How long a client may take to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

async fn admit(request: ConnectRequest) -> Result<Value, Refusal> {
    let auth: Option<Value> = request
        .auth
        .as_deref()
        .and_then(|auth| serde_json::from_str(auth).ok());
    match auth {
        Some(auth) if auth.get("name").is_some() => Ok(auth),
        _ => Err(Refusal::new("Who are you?").with_data(json!({ "code": "name_missing" }))),
    }
}

async fn share(socket: SocketRef, event: Event) -> Result<Ack<bool>, HandlerError> {
    // The same arguments under another name, binary ones and all.
    let json = event.args().json().replacen("share", "shared", 1);
    let attachments = event.args().attachments().to_vec();
    let shared = Args::from_parts(json.into(), attachments);
    socket.namespace_ref().all().emit_args(shared).await?;
    Ok(Ack(true))
}

async fn ask(
    socket: SocketRef,
    AllArgs((text, bytes)): AllArgs<(String, Binary)>,
) -> Result<Ack<(Value, Binary)>, HandlerError> {
    let answer = socket
        .emit_with_ack("question", (text, bytes), ANSWER_TIMEOUT)
        .await?;
    Ok(Ack(answer))
}

fn gateway() -> Gateway {
    Gateway::new("/")
        .authorize(admit)
        .on_connect(|socket: SocketRef| async move {
            if let Err(err) = socket.emit("hello", socket.data()) {
                log::error!("hello: {err}");
            }
        })
        .on("echo", |_, event: Event| async move {
            Reply::args(event.payload())
        })
        .on("share", share)
        .on("ask-me", ask)
        .on(
            "kick",
            |socket: SocketRef, Arg(whole): Arg<bool>| async move {
                socket.disconnect(whole);
            },
        )
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_env()?;
    telemetry::init(&config.log_filter);
    let app = App::new(config)
        .parser(Parser::MessagePack)
        .gateway(gateway());
    let running = app.start().await?;
    log::info!("msgpack: listening on {}", running.url());
    running.run_until_signal().await?;
    Ok(())
}
