//! A stream as the server has it, and its client, for tests of what reads or writes it.

use tokio::net::TcpStream;

/// Returns the server's stream, and its client's.
pub(crate) fn connected() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    (TcpStream::from_std(server).unwrap(), client)
}
