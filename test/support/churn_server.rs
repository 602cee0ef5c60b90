//! The server that is measured while clients misbehave: a process of its own, so that its memory is nobody else's.
//!
//! ```text
//! PORT=3000 cargo run --example churn
//! ```
//! Settings are read from the environment, as for every instance. Only for tests: its clients may ask it for anything. `/` has:
//!
//! | event | arguments | what happens |
//! | --- | --- | --- |
//! | `echo` | any | the ack has the same arguments |
//! | `join`, `leave` | room | acked once it is done |
//! | `join-many` | prefix, number | joins that many rooms; acked once it is done |
//! | `say` | room, text | `said` with the text, to everyone in the room; acked once it is on its way |
//! | `flood` | room, number, bytes | that many `flood` events, numbered, to everyone in the room; acked once they are on their way |
//! | `volatile-flood` | room, number, bytes | the same, volatile |
//! | `ask` | | asks the client `question` and waits for a second |
//! | `slow` | any | acked after 50 ms |
//! | `never` | any | its handler does not end |
//! | `panic`, `fail`, `fail-too` | | its handler panics, or fails in an internal way |
//! | `kick`, `kick-all` | | the server ends this membership, or the whole connection |
//! | `count` | | the ack has the numbers of sockets and of rooms, those that ids name included |
//!
//! `/dynamic-{id}` are as many namespaces as clients name. It takes 50 ms to be let in, and as long to be done with one that left. They
//! have `echo` and `join`.

use std::time::Duration;

use sockhop::{
    app::App,
    config::Config,
    gateways::{Ack, AllArgs, Arg, Event, Gateway, HandlerError, Refusal, Reply, SocketRef},
    open_files, telemetry,
};

/// How long a client may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long takes what is slow.
const SLOW: Duration = Duration::from_millis(50);

async fn join_many(
    socket: SocketRef,
    AllArgs((prefix, num)): AllArgs<(String, u32)>,
) -> Result<(), HandlerError> {
    for n in 0..num {
        socket.join(format!("{prefix}{n}")).await?;
    }
    Ok(())
}

async fn say(
    socket: SocketRef,
    AllArgs((room, text)): AllArgs<(String, String)>,
) -> Result<(), HandlerError> {
    socket.namespace_ref().to(room).emit("said", &text).await
}

async fn flood(
    socket: SocketRef,
    room: String,
    num: u32,
    bytes: usize,
    is_volatile: bool,
) -> Result<(), HandlerError> {
    let text = "x".repeat(bytes);
    for n in 0..num {
        let members = socket.namespace_ref().to(room.as_str());
        let members = if is_volatile {
            members.volatile()
        } else {
            members
        };
        members.emit("flood", (n, &text)).await?;
    }
    Ok(())
}

async fn count(socket: SocketRef, (): ()) -> Result<Ack<(usize, usize)>, HandlerError> {
    let namespace = socket.namespace_ref();
    let num_sockets = namespace.all().socket_ids().await?.len();
    Ok(Ack((num_sockets, namespace.all_rooms().await?.len())))
}

async fn panic(_: SocketRef, (): ()) {
    panic!("a test wants this");
}

async fn fail(_: SocketRef, event: Event) -> Result<(), HandlerError> {
    let name = event.name();
    Err(HandlerError::internal(format!("{name} was asked for")))
}

fn gateway() -> Gateway {
    Gateway::new("/")
        .on("echo", |_, event: Event| async move {
            Reply::args(event.payload())
        })
        .on(
            "join",
            |socket: SocketRef, Arg(room): Arg<String>| async move { socket.join(room).await },
        )
        .on(
            "leave",
            |socket: SocketRef, Arg(room): Arg<String>| async move { socket.leave(room).await },
        )
        .on("join-many", join_many)
        .on("say", say)
        .on(
            "flood",
            |socket: SocketRef, AllArgs((room, num, bytes)): AllArgs<(String, u32, usize)>| {
                flood(socket, room, num, bytes, false)
            },
        )
        .on(
            "volatile-flood",
            |socket: SocketRef, AllArgs((room, num, bytes)): AllArgs<(String, u32, usize)>| {
                flood(socket, room, num, bytes, true)
            },
        )
        .on("ask", |socket: SocketRef, (): ()| async move {
            let answer = socket
                .emit_with_ack::<()>("question", (), ANSWER_TIMEOUT)
                .await;
            answer.map_err(HandlerError::from)
        })
        .on("slow", |_, event: Event| async move {
            tokio::time::sleep(SLOW).await;
            Reply::args(event.payload())
        })
        .on("never", |_, _: Event| std::future::pending::<()>())
        .on("panic", panic)
        .on("fail", fail)
        .on("fail-too", fail)
        .on("kick", |socket: SocketRef, (): ()| async move {
            socket.disconnect(false);
        })
        .on("kick-all", |socket: SocketRef, (): ()| async move {
            socket.disconnect(true);
        })
        .on("count", count)
}

fn dynamic_gateway() -> Gateway {
    Gateway::matching("/dynamic-{id}")
        .authorize(|_| async {
            tokio::time::sleep(SLOW).await;
            Ok::<_, Refusal>(())
        })
        .on("echo", |_, event: Event| async move {
            Reply::args(event.payload())
        })
        .on(
            "join",
            |socket: SocketRef, Arg(room): Arg<String>| async move { socket.join(room).await },
        )
        .on_disconnect(|_, _| tokio::time::sleep(SLOW))
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_env()?;
    telemetry::init(&config.log_filter);
    open_files::take_all(config.limits.max_connections);
    let app = App::new(config)
        .gateway(gateway())
        .gateway(dynamic_gateway());
    let running = app.start().await?;
    log::info!("listening on {} for those who misbehave", running.url());
    running.run_until_signal().await?;
    Ok(())
}
