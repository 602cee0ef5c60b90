//! Writing the same, or nearly, to many WebSockets at once: by one system call where the system allows it, else by one for each.
//!
//! As [`write_now`] for each: whole frames before which nothing waits, and no question whether a stream is writable. Knows no socket and no
//! message.

use std::os::fd::AsFd as _;

use many_sends::{MAX_SENDS, ManySends, Send};
use tokio::net::TcpStream;

use super::connection::write_now;

/// Most writes of one call.
pub const MAX_WRITES: usize = MAX_SENDS;

/// From so many on, one system call for all is cheaper.
const MANY: usize = 4;

/// Frames for one WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Where its client reads.
    pub stream: &'a TcpStream,
    /// Whole frames.
    pub frames: &'a [u8],
}

/// Writes to the streams of one thread.
#[derive(Debug)]
pub struct ManyWrites {
    /// None where the system has no such way.
    way: Option<ManySends>,
}

impl ManyWrites {
    /// Finds out what the system allows.
    pub fn open() -> Self {
        let way = ManySends::new().inspect_err(|err| {
            log::debug!("each write is a system call of its own, io_uring is not to be had: {err}");
        });
        Self { way: way.ok() }
    }

    /// Writes each, in order, and notes in `taken`, which is as long, how many bytes the kernel took of it. At most [`MAX_WRITES`].
    pub fn write_each(&mut self, writes: &[Write<'_>], taken: &mut [usize]) {
        taken.fill(0);
        if let Some(way) = self.way.as_mut().filter(|_| writes.len() >= MANY) {
            let sends = writes.iter().map(|Write { stream, frames }| Send {
                socket: stream.as_fd(),
                bytes: frames,
            });
            let sends: Vec<_> = sends.collect();
            let Err(err) = way.send_each(&sends, taken) else {
                return;
            };
            log::warn!("from now on each write is a system call of its own: {err}");
            self.way = None;
        }
        for (taken, Write { stream, frames }) in taken.iter_mut().zip(writes) {
            // What went out before the way ended is not written again.
            if *taken == 0 {
                *taken = write_now(stream, frames);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Returns a stream of ours, and where its client reads.
    fn stream() -> (TcpStream, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        (TcpStream::from_std(server).unwrap(), client)
    }

    /// By one system call for all, if this system allows it, and by one for each.
    fn both() -> [ManyWrites; 2] {
        [ManyWrites::open(), ManyWrites { way: None }]
    }

    #[actix::test]
    async fn few_and_many_get_theirs_in_order_by_either_way() {
        for mut writes in both() {
            for num in [0, 1, MANY - 1, MANY, MAX_WRITES] {
                let streams: Vec<_> = (0..num).map(|_| stream()).collect();
                for text in ["one,", "two,"] {
                    let all: Vec<_> = streams
                        .iter()
                        .map(|(stream, _)| Write {
                            stream,
                            frames: text.as_bytes(),
                        })
                        .collect();
                    let mut taken = vec![usize::MAX; num];
                    writes.write_each(&all, &mut taken);
                    assert_eq!(taken, vec![4; num], "{writes:?}");
                }
                for (stream, mut client) in streams {
                    drop(stream);
                    let mut got = String::new();
                    client.read_to_string(&mut got).unwrap();
                    assert_eq!(got, "one,two,");
                }
            }
        }
    }

    #[actix::test]
    async fn what_the_kernel_does_not_take_is_told_by_either_way() {
        for mut writes in both() {
            let streams: Vec<_> = (0..MANY).map(|_| stream()).collect();
            let much = vec![b'x'; 100_000];
            let all: Vec<_> = streams
                .iter()
                .map(|(stream, _)| Write {
                    stream,
                    frames: &much,
                })
                .collect();
            let mut sums = vec![0; MANY];
            loop {
                let mut taken = vec![usize::MAX; MANY];
                writes.write_each(&all, &mut taken);
                for (sum, taken) in sums.iter_mut().zip(&taken) {
                    *sum += taken;
                }
                if taken.iter().all(|taken| *taken == 0) {
                    break;
                }
            }
            for ((stream, mut client), sum) in streams.into_iter().zip(sums) {
                drop(stream);
                let mut got = Vec::new();
                client.read_to_end(&mut got).unwrap();
                assert_eq!(got.len(), sum, "{writes:?}");
            }
        }
    }
}
