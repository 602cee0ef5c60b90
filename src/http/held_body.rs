//! The body of a polling answer or a file, handed out in portions.
//!
//! A body in one piece is copied whole into the buffer of its connection, however slowly the client reads. In portions it stays
//! where it is, perhaps shared with others, and stays counted with what waits for clients.
//!
//! Source: actix-http 3, `MessageBody`.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use bytes::Bytes;

use crate::{
    counters::{Counters, Limit},
    socket::backlogs::{Held, HeldBody},
};

/// Bytes handed out at a time, and those that may lie with a connection before no more are. A body that is no longer goes in one piece,
/// and is counted no more. A connection keeps what it once had of this, so it is little.
pub(super) const PORTION_BYTES: usize = 8 << 10;

/// The client reads too slowly for how little is left for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rest of the answer is more than is left for all clients")]
struct Crowded;

#[derive(Debug)]
struct Portions {
    rest: Bytes,
    /// Until the last portion is on its way: the client may poll again as soon as it has that.
    held: Option<(Held, Arc<Counters>)>,
}

/// Returns a body for HTTP. It breaks off if it is more than the client may have waiting by then; `counters` are told.
pub(super) fn portions(HeldBody { body, held }: HeldBody, counters: &Arc<Counters>) -> BoxBody {
    if body.bytes.len() <= PORTION_BYTES {
        return BoxBody::new(body.bytes);
    }
    BoxBody::new(Portions {
        rest: body.bytes,
        held: Some((held, Arc::clone(counters))),
    })
}

/// Returns a body for HTTP that all who ask for it share.
pub(super) fn shared(bytes: Bytes) -> BoxBody {
    BoxBody::new(Portions {
        rest: bytes,
        held: None,
    })
}

impl MessageBody for Portions {
    type Error = Crowded;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Crowded>>> {
        if let Some((held, counters)) = &self.held
            && held.is_too_much()
        {
            counters.count(Limit::TotalBacklog);
            return Poll::Ready(Some(Err(Crowded)));
        }
        let len = self.rest.len().min(PORTION_BYTES);
        if len == self.rest.len() {
            self.held = None;
        }
        Poll::Ready((len > 0).then(|| Ok(self.rest.split_to(len))))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc};

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
        let body = portions(outbox.take_payload(), &Arc::default());
        (body, backlogs)
    }

    #[actix::test]
    async fn what_many_ask_for_is_handed_out_in_portions() {
        let len = 3 * PORTION_BYTES + 1;
        let mut body = shared("x".repeat(len).into());
        assert_eq!(body.size(), BodySize::Sized(len as u64));
        let mut lens = Vec::new();
        while let Some(portion) = poll_fn(|cx| Pin::new(&mut body).poll_next(cx)).await {
            lens.push(portion.unwrap().len());
        }
        assert_eq!(lens, [PORTION_BYTES, PORTION_BYTES, PORTION_BYTES, 1]);
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
