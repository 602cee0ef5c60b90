//! `sockhop healthcheck`: asks a running server over HTTP whether it answers, for images that hold no other client.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use crate::config::Config;

/// How long each step may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks `GET /healthz` of the server that these settings describe, on this machine.
///
/// # Errors
/// Nothing listens there, or it does not answer 200 in time.
pub fn run(config: &Config) -> io::Result<()> {
    // A server that listens on every interface is reached on the loopback one.
    let host = match config.host.as_str() {
        "0.0.0.0" => "127.0.0.1",
        "::" | "[::]" => "::1",
        host => host.trim_start_matches('[').trim_end_matches(']'),
    };
    let addr = (host, config.port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "HOST has no address"))?;
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET /healthz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
    )?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    if status == *b"HTTP/1.1 200" {
        Ok(())
    } else {
        Err(io::Error::other("the server does not answer 200"))
    }
}
