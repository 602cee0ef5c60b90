//! What the kernel holds of a connection and nobody has read: `/proc/net/tcp`. Linux and IPv4 only.
//!
//! Of both ends, because both are on this machine. What a server was to send and the kernel does not hold waits in the server.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

const ESTABLISHED: &str = "01";

/// One end of a connection.
struct End {
    is_established: bool,
    /// Bytes that were written here and that the other end has not acknowledged.
    unacknowledged: u64,
    /// Bytes that have come and that nobody has read.
    unread: u64,
}

/// What is on its way to a client.
pub(crate) struct Holding {
    unacknowledged: u64,
    unread: u64,
}

impl Holding {
    /// Returns how many bytes the kernel holds: exact while nothing moves.
    pub(crate) fn bytes(&self) -> u64 {
        self.unacknowledged + self.unread
    }
}

/// Every connection of this machine, by the addresses of its ends: the own first.
pub(crate) struct Table(HashMap<(SocketAddr, SocketAddr), End>);

/// Reads the kernel's table.
pub(crate) fn read() -> io::Result<Table> {
    Ok(Table::parse(&fs::read_to_string("/proc/net/tcp")?))
}

impl Table {
    fn parse(text: &str) -> Self {
        Self(text.lines().skip(1).filter_map(line).collect())
    }

    /// Returns what is held for the client at `client`, or nothing if the server at `server` has ended that connection.
    pub(crate) fn holding(&self, server: SocketAddr, client: SocketAddr) -> Option<Holding> {
        let sending = self.0.get(&(server, client))?;
        let unread = self.0.get(&(client, server)).map_or(0, |end| end.unread);
        sending.is_established.then_some(Holding {
            unacknowledged: sending.unacknowledged,
            unread,
        })
    }
}

fn line(line: &str) -> Option<((SocketAddr, SocketAddr), End)> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let ends = (address(words.next()?)?, address(words.next()?)?);
    let is_established = words.next()? == ESTABLISHED;
    let (unacknowledged, unread) = words.next()?.split_once(':')?;
    let end = End {
        is_established,
        unacknowledged: u64::from_str_radix(unacknowledged, 16).ok()?,
        unread: u64::from_str_radix(unread, 16).ok()?,
    };
    Some((ends, end))
}

/// Reads `0100007F:0BB8`: four bytes as this machine reads them as a number, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddr::new(IpAddr::V4(ip), port))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn what_was_written_and_not_read_is_held_until_the_server_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let ends = (listener.local_addr().unwrap(), client.local_addr().unwrap());
        stream.write_all(&[0; 1000]).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let held = || {
            assert!(Instant::now() < deadline);
            let holding = read().unwrap().holding(ends.0, ends.1);
            holding.as_ref().map(Holding::bytes)
        };
        // Until it is acknowledged it is at both ends.
        while held() != Some(1000) {}
        drop(stream);
        while held().is_some() {}
    }

    #[test]
    fn a_line_that_is_none_is_left_out() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue\n   0: nonsense\n";
        assert!(Table::parse(text).0.is_empty());
    }
}
