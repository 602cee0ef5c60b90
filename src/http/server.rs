//! How connections become requests: actix-server's workers, actix-http's HTTP/1, actix-web's routes.
//!
//! It is put together here, and not by actix-web's `HttpServer`, for one hook that the latter hides: a WebSocket upgrade gets
//! the raw stream, so an open WebSocket costs no HTTP dispatcher and none of its buffers.

use std::{
    future::ready,
    io::{self, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use actix_http::{HttpService, error::DispatchError};
use actix_server::{Server, ServerBuilder};
use actix_service::{ServiceFactoryExt as _, fn_service, map_config};
use actix_web::{App, dev::AppConfig, middleware::from_fn};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

use super::{
    connection::{self, Deadlines, Watched},
    cors, held_body,
    proxies::{self, TrustedProxies},
    routes::{self, Shared},
    upgrade::upgrade,
};
use crate::{
    counters::{Counters, Limit},
    slots::{Slot, Slots},
    socket::actor::Services,
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How long an idle HTTP connection is kept: longer than Traefik (90 s) keeps its own, so that a balancer never sends a
/// request into a connection that is just being closed.
const KEEP_ALIVE: Duration = Duration::from_secs(95);

/// How long a finished connection may take to close.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// HTTP connections per worker, upgraded ones not counted; more wait to be accepted.
const MAX_CONNECTIONS_PER_WORKER: usize = 25_000;

/// HTTP connections that one address may have for each of its sessions: a polling client needs two, a browser opens some more.
const HTTP_CONNECTIONS_PER_SESSION: usize = 4;

/// What a connection too many of one address gets, before its end.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: 5\r\n\
    Content-Type: application/json\r\nContent-Length: 102\r\n\r\n\
    {\"error\":\"too_many_connections_of_address\",\"message\":\"This address has too many connections already.\"}";

/// How long requests in flight may take to end when the server stops, in seconds.
const SHUTDOWN_TIMEOUT_SECS: u64 = 2;

/// Binds `host:port`. Port 0 takes a free one.
///
/// # Errors
/// The name does not resolve, or none of its addresses can be bound; the last fault.
pub fn bind(host: &str, port: u16) -> io::Result<std::net::TcpListener> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for addr in std::net::ToSocketAddrs::to_socket_addrs(&(host, port))? {
        match bind_addr(addr) {
            Ok(listener) => return Ok(listener),
            Err(err) => last = err,
        }
    }
    Err(last)
}

fn bind_addr(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Serves `listener` with `workers` workers. The caller drives the server.
///
/// # Errors
/// The listener cannot be used.
pub fn serve(
    listener: std::net::TcpListener,
    workers: usize,
    shared: Shared,
) -> io::Result<Server> {
    let Services {
        config,
        limits,
        counters,
        ..
    } = &*shared.services;
    let per_address = limits.max_connections_per_address;
    let gate = Gate {
        deadlines: Deadlines {
            head: limits.head_timeout,
            body: config.body_timeout,
            write: limits.write_timeout,
        },
        trusted_proxies: limits.trusted_proxies.clone(),
        by_address: Slots::new(per_address, HTTP_CONNECTIONS_PER_SESSION),
        counters: Arc::clone(counters),
    };
    let builder: ServerBuilder = Server::build()
        .workers(workers)
        .max_concurrent_connections(MAX_CONNECTIONS_PER_WORKER)
        .shutdown_timeout(SHUTDOWN_TIMEOUT_SECS)
        .disable_signals();
    // Ends idle keep-alive connections at once when the server stops, as actix-web's own server does.
    let stopping = builder.graceful_shutdown_signal();
    let builder = builder.listen("http", listener, move || {
        let stopping = stopping.clone();
        let routes = shared.clone();
        let app = App::new()
            .configure(|config| routes::configure(config, &routes))
            .wrap(from_fn(cors::apply))
            .wrap(from_fn(connection::note));
        let services = shared.services.clone();
        let origins = shared.origins.clone();
        let http = HttpService::build()
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(gate.deadlines.head)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .h1_write_buffer_size(held_body::PORTION_BYTES)
            // A client that went away must abort its parked poll.
            .h1_allow_half_closed(false)
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .upgrade(fn_service(move |(request, framed)| {
                upgrade(services.clone(), origins.clone(), request, framed)
            }))
            .on_connect_ext(Watched::introduce)
            .h1(map_config(app, |_| AppConfig::default()));
        let gate = gate.clone();
        fn_service(move |io| ready(gate.accepted(io)))
            .and_then(http)
            .map_err(|err| log::debug!("connection: {err}"))
    })?;
    Ok(builder.run())
}

/// What every new connection passes.
#[derive(Clone, Debug)]
struct Gate {
    deadlines: Deadlines,
    trusted_proxies: TrustedProxies,
    /// The HTTP connections that each address has, those of trusted proxies not counted.
    by_address: Arc<Slots>,
    counters: Arc<Counters>,
}

impl Gate {
    /// Makes a connection ready for its first request.
    ///
    /// # Errors
    /// Its address has too many; it was told so.
    fn accepted(&self, io: TcpStream) -> Result<(Watched, Option<SocketAddr>), DispatchError> {
        let peer = io.peer_addr().ok();
        // actix-http's own setting has no effect on a service that is HTTP/1 alone. A stream that refuses is merely slower.
        _ = io.set_nodelay(true);
        let slot = match peer.map(|peer| peer.ip().to_canonical()) {
            Some(address) if !self.trusted_proxies.trusts(address) => {
                self.by_address.take(proxies::counted(address))
            }
            _ => Ok(Slot::default()),
        };
        match slot {
            Ok(slot) => {
                let counters = Arc::clone(&self.counters);
                Ok((Watched::new(io, self.deadlines, counters, slot), peer))
            }
            Err(full) => {
                self.counters.count(Limit::HttpConnectionsPerAddress);
                // It fits the kernel's buffer; if not, there is nothing to wait for. By the stream itself, since the reactor does
                // not know yet that it can be written to.
                if let Ok(mut stream) = io.into_std() {
                    _ = stream.write_all(TOO_MANY);
                }
                Err(DispatchError::Io(io::Error::other(full)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bug: small frames waited for the acknowledgement of those before them, which may take 40 ms.
    #[actix_rt::test]
    async fn small_writes_are_not_held_back() {
        let listener = bind("127.0.0.1", 0).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let addr = listener.local_addr().unwrap();
        let (_client, server) = tokio::join!(TcpStream::connect(addr), listener.accept());
        let gate = Gate {
            deadlines: Deadlines {
                head: Duration::from_secs(1),
                body: Duration::from_secs(1),
                write: Duration::from_secs(1),
            },
            trusted_proxies: TrustedProxies::default(),
            by_address: Slots::new(None, 1),
            counters: Arc::default(),
        };
        let (watched, peer) = gate.accepted(server.unwrap().0).unwrap();
        assert!(watched.into_parts().0.nodelay().unwrap());
        assert!(peer.is_some());
    }
}
