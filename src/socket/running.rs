//! The handlers of one membership that run: one after the other by default, many at a time where a gateway gave the order up.
//!
//! The first is polled whenever the socket is, which costs nothing more; of the others those alone that have been woken. Runs them, and
//! knows nothing of what comes of it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{
    future::LocalBoxFuture,
    stream::{FuturesUnordered, Stream as _},
};

use crate::{
    gateways::{HandlerError, Reply},
    socket_io::decoder::AckId,
};

/// Most handlers of one client that run at a time in one namespace, however many the gateway allows.
pub(super) const MAX_RUNNING: usize = 1024;

/// A handler that was called.
pub(super) struct Running {
    /// By which its end is told where the session has moved to.
    pub(super) number: u32,
    /// What it handles.
    pub(super) call: LocalBoxFuture<'static, Result<Reply, HandlerError>>,
    /// The ack that it owes.
    pub(super) ack: Option<AckId>,
    /// How many bytes its event takes.
    pub(super) held_bytes: usize,
    /// Whether it has ever waited for something: then what it sent may be on its way, although it was noted in another turn.
    pub(super) has_waited: bool,
}

/// A handler that came to its end.
pub(super) struct Ended {
    /// By which that is told where the session has moved to.
    pub(super) number: u32,
    /// The ack that it owes.
    pub(super) ack: Option<AckId>,
    /// How many bytes its event took.
    held_bytes: usize,
    /// Whether it has ever waited.
    pub(super) has_waited: bool,
    /// What came of it.
    pub(super) outcome: Result<Reply, HandlerError>,
}

impl Future for Running {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(outcome) = self.call.as_mut().poll(cx) else {
            self.has_waited = true;
            return Poll::Pending;
        };
        Poll::Ready(Ended {
            number: self.number,
            ack: self.ack,
            held_bytes: self.held_bytes,
            has_waited: self.has_waited,
            outcome,
        })
    }
}

/// All that run.
#[derive(Default)]
pub(super) struct Runners {
    /// One of them; the only one by default.
    first: Option<Running>,
    /// Most gateways never have one.
    others: Option<Box<FuturesUnordered<Running>>>,
    /// Bytes of the events of the others.
    others_bytes: usize,
}

impl Runners {
    /// Returns how many run.
    pub(super) fn len(&self) -> usize {
        let num_others = self.others.as_ref().map_or(0, |others| others.len());
        usize::from(self.first.is_some()) + num_others
    }

    /// Returns whether none runs.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many bytes the events take of all but the first, which is nothing that the client should wait for.
    pub(super) fn others_bytes(&self) -> usize {
        self.others_bytes
    }

    /// Returns how many bytes the events of all take.
    pub(super) fn held_bytes(&self) -> usize {
        self.first.as_ref().map_or(0, |first| first.held_bytes) + self.others_bytes
    }

    /// Adds one.
    pub(super) fn push(&mut self, running: Running) {
        if self.first.is_none() {
            self.first = Some(running);
        } else {
            self.others_bytes += running.held_bytes;
            self.others.get_or_insert_default().push(running);
        }
    }

    /// Runs them until one comes to its end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if let Some(first) = &mut self.first
            && let Poll::Ready(ended) = Pin::new(first).poll(cx)
        {
            self.first = None;
            return Poll::Ready(ended);
        }
        let Some(others) = &mut self.others else {
            return Poll::Pending;
        };
        match Pin::new(&mut **others).poll_next(cx) {
            Poll::Ready(Some(ended)) => {
                self.others_bytes -= ended.held_bytes;
                Poll::Ready(ended)
            }
            Poll::Ready(None) => {
                self.others = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Returns all, to be told apart.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Running> {
        let others = self.others.iter_mut().flat_map(|others| others.iter_mut());
        self.first.iter_mut().chain(others)
    }

    /// Returns all, to be run to their end elsewhere.
    pub(super) fn into_calls(
        self,
    ) -> impl Iterator<Item = LocalBoxFuture<'static, Result<Reply, HandlerError>>> {
        let others = self.others.into_iter().flat_map(|others| *others);
        let all = self.first.into_iter().chain(others);
        all.map(|running| running.call)
    }
}

impl FromIterator<Running> for Runners {
    fn from_iter<I: IntoIterator<Item = Running>>(running: I) -> Self {
        let mut runners = Self::default();
        running
            .into_iter()
            .for_each(|running| runners.push(running));
        runners
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        rc::Rc,
        task::Waker,
    };

    use futures_util::{FutureExt as _, future::poll_fn, task::noop_waker_ref};

    use super::*;

    /// Handlers, each of which ends when it is told to, and counts how often it was polled.
    struct Told {
        may_end: Cell<bool>,
        num_polls: Cell<usize>,
        waker: RefCell<Option<Waker>>,
    }

    fn told(number: u32) -> (Rc<Told>, Running) {
        let told = Rc::new(Told {
            may_end: Cell::new(false),
            num_polls: Cell::new(0),
            waker: RefCell::new(None),
        });
        let own = Rc::clone(&told);
        let call = poll_fn(move |cx| {
            own.num_polls.set(own.num_polls.get() + 1);
            *own.waker.borrow_mut() = Some(cx.waker().clone());
            match own.may_end.get() {
                true => Poll::Ready(Ok(Reply::empty())),
                false => Poll::Pending,
            }
        });
        let running = Running {
            number,
            call: call.boxed_local(),
            ack: None,
            held_bytes: 100,
            has_waited: false,
        };
        (told, running)
    }

    /// A bug: each wake polled all that ran, so that a thousand that waited made a million polls.
    #[test]
    fn only_those_that_were_woken_are_polled() {
        let mut cx = Context::from_waker(noop_waker_ref());
        let mut runners = Runners::default();
        let handlers: Vec<_> = (0..100)
            .map(|number| {
                let (told, running) = told(number);
                runners.push(running);
                told
            })
            .collect();
        assert_eq!((runners.len(), runners.others_bytes()), (100, 9900));
        assert_eq!(runners.held_bytes(), 10_000);
        for _ in 0..100 {
            assert!(runners.poll_next(&mut cx).is_pending());
        }
        let num_polls = |at: usize| handlers[at].num_polls.get();
        assert_eq!((num_polls(0), num_polls(1), num_polls(99)), (100, 1, 1));
        handlers[70].may_end.set(true);
        handlers[70].waker.take().unwrap().wake();
        let Poll::Ready(ended) = runners.poll_next(&mut cx) else {
            panic!("it was woken");
        };
        assert!(ended.number == 70 && ended.has_waited);
        assert_eq!((num_polls(70), num_polls(71)), (2, 1));
        assert_eq!((runners.len(), runners.others_bytes()), (99, 9800));
        let mut numbers: Vec<_> = runners.iter_mut().map(|running| running.number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers.len(), 99);
        assert_eq!(runners.into_calls().count(), 99);
    }

    #[test]
    fn one_that_runs_alone_takes_nothing_beside() {
        let mut cx = Context::from_waker(noop_waker_ref());
        let mut runners = Runners::default();
        for number in 0..3 {
            let (told, running) = told(number);
            runners.push(running);
            assert!(runners.poll_next(&mut cx).is_pending());
            told.may_end.set(true);
            assert!(runners.poll_next(&mut cx).is_ready());
            assert!(runners.is_empty() && runners.others.is_none());
            assert_eq!(runners.held_bytes(), 0);
        }
    }
}
