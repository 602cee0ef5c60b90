//! socketioxide with the events of the workloads. No token is checked, which is in its favour.

use axum::Router;
use serde_json::{Value, json};
use socketioxide::{
    SocketIo,
    extract::{AckSender, Data, SocketRef},
};

async fn test_event(io: SocketIo, Data(payload): Data<Value>) {
    // What a full queue refuses is a loss, and the load program sees it.
    if let Some(all) = io.of("/events") {
        _ = all.emit("test-event", &payload).await;
    }
}

async fn echo(Data(payload): Data<Value>, ack: AckSender) {
    _ = ack.send(&payload);
}

async fn join(socket: SocketRef, Data(room): Data<String>, ack: AckSender) {
    socket.join(room);
    _ = ack.send(&json!(null));
}

async fn say(socket: SocketRef, Data((room, payload)): Data<(String, Value)>) {
    _ = socket.within(room).emit("said", &payload).await;
}

async fn connected(socket: SocketRef) {
    socket.on("test-event", test_event);
    socket.on("echo", echo);
    socket.on("join", join);
    socket.on("say", say);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (layer, io) = SocketIo::new_layer();
    io.ns("/events", connected);
    let app = Router::new().layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    // As in Node and in Sockhop: small writes are not held back.
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app).await?;
    Ok(())
}
