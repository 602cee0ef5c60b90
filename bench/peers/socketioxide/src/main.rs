//! socketioxide with the events of the workloads. No token is checked, which is in its favour.

use axum::Router;
use serde_json::{Value, json};
use socketioxide::{
    SocketIo,
    extract::{AckSender, Data, SocketRef},
};

async fn connected(socket: SocketRef) {
    socket.on(
        "test-event",
        async |socket: SocketRef, Data(payload): Data<Value>| {
            // What a full queue refuses is a loss, and the load program sees it.
            _ = socket.within(NO_ROOMS).emit("test-event", &payload).await;
        },
    );
    socket.on(
        "echo",
        async |Data(payload): Data<Value>, ack: AckSender| {
            _ = ack.send(&payload);
        },
    );
    socket.on(
        "join",
        async |socket: SocketRef, Data(room): Data<String>, ack: AckSender| {
            socket.join(room);
            _ = ack.send(&json!([]));
        },
    );
    socket.on(
        "say",
        async |socket: SocketRef, Data((room, payload)): Data<(String, Value)>| {
            _ = socket.within(room).emit("said", &payload).await;
        },
    );
}

/// All sockets of the namespace.
const NO_ROOMS: [&str; 0] = [];

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
