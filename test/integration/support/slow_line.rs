//! A [`Line`] on which everything arrives late in both directions, in its order.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::line::{CHUNK_BYTES, Line};

/// Chunks that may be on their way.
const MAX_CHUNKS: usize = 1024;

/// Lays one as [`Line::lay`] does.
pub(crate) fn lay(delay: Duration, find: impl FnOnce() -> u16) -> (Line, u16) {
    Line::lay(find, move |near, far| join(&near, &far, delay))
}

/// Carries bytes between both ends until one of them closes.
fn join(near: &TcpStream, far: &TcpStream, delay: Duration) {
    let clone = |stream: &TcpStream| stream.try_clone().unwrap();
    carry(clone(near), clone(far), delay);
    carry(clone(far), clone(near), delay);
}

fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, chunks) = mpsc::sync_channel::<(Instant, Vec<u8>)>(MAX_CHUNKS);
    thread::spawn(move || {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(len @ 1..) = from.read(&mut chunk) {
            if sender
                .send((Instant::now() + delay, chunk[..len].to_vec()))
                .is_err()
            {
                break;
            }
        }
        _ = from.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        for (due, chunk) in chunks {
            #[allow(
                clippy::disallowed_methods,
                reason = "the line's own thread, and what makes it slow"
            )]
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&chunk).is_err() {
                break;
            }
        }
        _ = to.shutdown(Shutdown::Both);
    });
}
