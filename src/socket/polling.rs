//! The polling transport of one session: at most one parked GET and one POST in flight.
//!
//! Only keeps and polls them; what a packet or an abort means is the actor's. Source: wire.md 1.4.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::{
    backlogs::{HeldBody, Watch},
    messages::{Body, PollAnswer, PostAnswer},
};
use crate::engine_io::{dialect::Revision, packet::Packet, payload::Payload, payload_v3};

/// A POST between its head and its answer.
#[derive(Debug)]
struct InFlight {
    stage: Stage,
    reply: oneshot::Sender<PostAnswer>,
}

#[derive(Debug)]
enum Stage {
    /// Its body is on the way.
    Receiving(oneshot::Receiver<Body>),
    /// Its packets are being dispatched.
    Dispatching(Packets),
}

/// The packets of a body, in the session's revision.
#[derive(Debug)]
enum Packets {
    V4(Payload),
    V3(payload_v3::Payload),
}

impl Packets {
    fn held_bytes(&self) -> usize {
        match self {
            Self::V4(payload) => payload.held_bytes(),
            Self::V3(payload) => payload.held_bytes(),
        }
    }

    fn next(&mut self) -> Option<FromPost> {
        let packet = match self {
            Self::V4(payload) => payload.next()?.ok(),
            Self::V3(payload) => payload.next()?.ok(),
        };
        Some(packet.map_or(FromPost::BadPacket, FromPost::Packet))
    }
}

/// What a POST brought forth.
#[derive(Debug)]
pub(super) enum FromPost {
    /// The next packet.
    Packet(Packet),
    /// What is none.
    BadPacket,
    /// The body was over the limit; the POST is over.
    TooLarge,
    /// The body was binary.
    Binary,
    /// The body broke off.
    Aborted,
}

/// The transport.
#[derive(Debug, Default)]
pub(super) struct Polling {
    revision: Revision,
    parked: Option<oneshot::Sender<PollAnswer>>,
    /// Of the answer to the last GET, which may still be on its way.
    answered: Watch,
    post: Option<InFlight>,
}

impl Polling {
    pub(super) fn new(revision: Revision) -> Self {
        Self {
            revision,
            ..Self::default()
        }
    }

    /// Returns whether a GET waits, so that something can be written now.
    pub(super) fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// Returns how many bytes are held of packets that [`Self::poll_post`] did not return yet.
    pub(super) fn unseen_bytes(&self) -> usize {
        match &self.post {
            Some(InFlight {
                stage: Stage::Dispatching(packets),
                ..
            }) => packets.held_bytes(),
            Some(_) | None => 0,
        }
    }

    /// Parks a GET.
    ///
    /// # Errors
    /// One is parked already, or has not got all of its answer; the new one is handed back.
    pub(super) fn park(
        &mut self,
        reply: oneshot::Sender<PollAnswer>,
    ) -> Result<(), oneshot::Sender<PollAnswer>> {
        if self.parked.is_some() || self.answered.is_held() {
            return Err(reply);
        }
        self.parked = Some(reply);
        Ok(())
    }

    /// Answers the parked GET.
    ///
    /// # Errors
    /// There is none that still listens; the payload is handed back.
    pub(super) fn answer(&mut self, payload: impl Into<HeldBody>) -> Result<(), HeldBody> {
        let payload = payload.into();
        let Some(parked) = self.parked.take() else {
            return Err(payload);
        };
        self.answered = payload.held.watch();
        match parked.send(PollAnswer::Payload(payload)) {
            Err(PollAnswer::Payload(payload)) => Err(payload),
            Ok(()) | Err(PollAnswer::Refused) => Ok(()),
        }
    }

    /// Returns whether the client gave up its parked GET.
    pub(super) fn poll_abort(&mut self, cx: &mut Context<'_>) -> bool {
        self.parked
            .as_mut()
            .is_some_and(|parked| parked.poll_closed(cx).is_ready())
    }

    /// Begins a POST.
    ///
    /// # Errors
    /// One is in flight already; the new one's reply is handed back.
    pub(super) fn begin_post(
        &mut self,
        body: oneshot::Receiver<Body>,
        reply: oneshot::Sender<PostAnswer>,
    ) -> Result<(), oneshot::Sender<PostAnswer>> {
        self.drop_too_large();
        if self.post.is_some() {
            return Err(reply);
        }
        self.post = Some(InFlight {
            stage: Stage::Receiving(body),
            reply,
        });
        Ok(())
    }

    /// Forgets a POST that is over, because its body was too large, and that nobody has looked at since: its client has its
    /// answer, and may send the next.
    fn drop_too_large(&mut self) {
        let Some(InFlight {
            stage: Stage::Receiving(body),
            ..
        }) = &mut self.post
        else {
            return;
        };
        match body.try_recv() {
            Ok(Body::TooLarge) => self.post = None,
            // Put back, for `poll_post` to find.
            Ok(other) => {
                let (sender, receiver) = oneshot::channel();
                _ = sender.send(other);
                *body = receiver;
            }
            Err(_) => {}
        }
    }

    /// Goes on with the POST in flight: one packet at a time, `ok` behind the last.
    pub(super) fn poll_post(&mut self, cx: &mut Context<'_>) -> Poll<FromPost> {
        loop {
            let Some(post) = &mut self.post else {
                return Poll::Pending;
            };
            match &mut post.stage {
                Stage::Receiving(body) => match Pin::new(body).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    // Counted as unseen from here on.
                    Poll::Ready(Ok(Body::Whole(bytes, _))) => {
                        post.stage = Stage::Dispatching(match self.revision {
                            Revision::V4 => Packets::V4(Payload::new(bytes)),
                            Revision::V3 => Packets::V3(payload_v3::Payload::text(bytes)),
                        });
                    }
                    Poll::Ready(Ok(Body::WholeBinary(bytes, _))) => {
                        let payload = payload_v3::Payload::binary(bytes);
                        post.stage = Stage::Dispatching(Packets::V3(payload));
                    }
                    Poll::Ready(Ok(Body::TooLarge)) => {
                        self.post = None;
                        return Poll::Ready(FromPost::TooLarge);
                    }
                    Poll::Ready(Ok(Body::Binary)) => {
                        self.refuse_post();
                        return Poll::Ready(FromPost::Binary);
                    }
                    Poll::Ready(Err(_)) => {
                        self.post = None;
                        return Poll::Ready(FromPost::Aborted);
                    }
                },
                Stage::Dispatching(payload) => match payload.next() {
                    Some(packet) => return Poll::Ready(packet),
                    None => self.finish_post(),
                },
            }
        }
    }

    /// Answers the POST in flight with `ok`: its packets were taken, whatever they led to.
    pub(super) fn finish_post(&mut self) {
        if let Some(InFlight {
            stage: Stage::Dispatching(_),
            reply,
        }) = self.post.take()
        {
            // The client may be gone; then nobody needs the answer.
            _ = reply.send(PostAnswer::Ok);
        }
    }

    /// Answers the POST in flight with a refusal.
    pub(super) fn refuse_post(&mut self) {
        if let Some(post) = self.post.take() {
            _ = post.reply.send(PostAnswer::Refused);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::backlogs::Held;
    use bytes::Bytes;

    fn begin(polling: &mut Polling) -> Option<oneshot::Sender<Body>> {
        let (body, receiver) = oneshot::channel();
        let (reply, _) = oneshot::channel();
        polling.begin_post(receiver, reply).is_ok().then_some(body)
    }

    #[test]
    fn a_post_that_was_too_large_is_over_at_once() {
        let mut polling = Polling::default();
        let first = begin(&mut polling).unwrap();
        assert!(begin(&mut polling).is_none(), "its body is on the way");
        first.send(Body::TooLarge).unwrap();
        let second = begin(&mut polling).unwrap();
        let body = Bytes::from_static(b"4x");
        second.send(Body::Whole(body, Held::default())).unwrap();
        assert!(begin(&mut polling).is_none(), "its packets are to be taken");
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let packet = polling.poll_post(&mut cx);
        assert!(
            matches!(packet, Poll::Ready(FromPost::Packet(_))),
            "{packet:?}"
        );
    }
}
