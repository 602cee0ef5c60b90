//! The body of a polling answer, handed out in portions.
//!
//! A body in one piece is copied whole into the buffer of its connection, however slowly the client reads. In portions it stays
//! where it is, perhaps shared with others, and stays counted with what waits for clients.
//!
//! Source: actix-http 3, `MessageBody`.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use bytes::Bytes;

use crate::socket::backlogs::{Held, HeldBody};

/// Bytes handed out at a time. A body that is no longer goes in one piece, and is counted no more.
const PORTION_BYTES: usize = 32 << 10;

#[derive(Debug)]
struct Portions {
    rest: Bytes,
    _held: Held,
}

/// Returns a body for HTTP.
pub(super) fn portions(HeldBody { body, held }: HeldBody) -> BoxBody {
    if body.bytes.len() <= PORTION_BYTES {
        return BoxBody::new(body.bytes);
    }
    BoxBody::new(Portions {
        rest: body.bytes,
        _held: held,
    })
}

impl MessageBody for Portions {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let len = self.rest.len().min(PORTION_BYTES);
        Poll::Ready((len > 0).then(|| Ok(self.rest.split_to(len))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix_web::body::to_bytes;

    use super::*;
    use crate::{
        engine_io::encoded::Encoded,
        socket::{backlogs::Backlogs, outbox::Outbox},
    };

    /// Returns the body for a client for which so many bytes wait, and where they are counted.
    fn body_of(len: usize) -> (BoxBody, Arc<Backlogs>) {
        let backlogs = Arc::new(Backlogs::new(1 << 20));
        let mut outbox = Outbox::new(1 << 20).among(&backlogs);
        outbox.push(Encoded::new(&"x".repeat(len), &[])).unwrap();
        outbox.wait();
        (portions(outbox.take_payload()), backlogs)
    }

    #[actix::test]
    async fn a_body_arrives_whole_and_is_counted_until_it_has() {
        for len in [1, PORTION_BYTES, PORTION_BYTES + 1, 5 * PORTION_BYTES] {
            let (body, backlogs) = body_of(len);
            assert_eq!(body.size(), BodySize::Sized(len as u64));
            assert_eq!(backlogs.taken() > len, len > PORTION_BYTES, "{len}");
            assert_eq!(to_bytes(body).await.unwrap(), "x".repeat(len));
            assert_eq!(backlogs.taken(), 0, "{len}");
        }
    }
}
