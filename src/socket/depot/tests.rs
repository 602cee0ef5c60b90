//! What becomes of what an arbiter's sockets are sent: probes that stand for sockets tell what reached them, and clients what they read.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
};

use bytes::Bytes;
use socket2::SockRef;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use super::*;
use crate::{
    engine_io::dialect::Dialect,
    socket::{
        inbox::FanOut,
        messages::{DeliverWithAck, What},
        record::JoinId,
    },
    socket_io::decoder::AckId,
    websocket::testing::connected,
};

fn plain() -> Shared {
    Shared::Plain {
        message: Encoded::new("4x", &[]),
        volatile: false,
    }
}

fn mark(join: u32) -> ForSocket {
    ForSocket {
        join: JoinId(join),
        what: What::Mark,
    }
}

fn send_to_all<'a>(probes: impl IntoIterator<Item = &'a Probe>) {
    let mut all = FanOut::default();
    for probe in probes {
        all.add(&probe.address(), JoinId(1));
    }
    all.send(&plain(), None);
}

#[actix::test]
async fn each_socket_has_its_say_once_for_all_that_came_at_once() {
    let probes: Vec<_> = (0..3 * MAX_SAYS).map(|_| Probe::open()).collect();
    for _ in 0..3 {
        send_to_all(&probes);
    }
    probes[0].address().do_send(mark(2));
    let reached = probes[0].inbox.mark();
    assert!(!probes[0].inbox.has_reached(reached));
    for (at, probe) in probes.iter().enumerate() {
        for _ in 0..3 {
            assert_eq!(probe.next().await.join, JoinId(1));
        }
        if at == 0 {
            assert_eq!(probe.next().await.join, JoinId(2));
        }
        assert!(probe.is_empty());
        while probe.received.num_says.get() == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(probes[0].inbox.has_reached(reached));
    let num_says = probes.iter().map(|probe| probe.received.num_says.get());
    assert_eq!(num_says.sum::<usize>(), probes.len());
}

#[actix::test]
async fn a_message_that_comes_alone_has_reached_all_before_the_next_does() {
    let test = async {
        let probes: Vec<_> = (0..3 * MAX_SAYS).map(|_| Probe::open()).collect();
        send_to_all(probes.iter().rev());
        let reached = probes[0].inbox.mark();
        let (first, last) = (&probes[0], &probes[3 * MAX_SAYS - 1]);
        assert_eq!(first.next().await.join, JoinId(1));
        assert!(last.is_empty(), "other tasks get their turn");
        assert!(!first.inbox.has_reached(reached));
        last.address().do_send(mark(2));
        assert_eq!(last.next().await.join, JoinId(1));
        assert!(first.inbox.has_reached(reached));
        assert_eq!(last.next().await.join, JoinId(2));
    };
    // A task beside the depot's.
    actix_rt::spawn(test).await.unwrap();
}

#[actix::test]
async fn what_arrives_meanwhile_is_not_kept_waiting_for_the_end_of_it() {
    let test = async {
        let (mut arriving, stream) = std::os::unix::net::UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = tokio::net::UnixStream::from_std(stream).unwrap();
        let probes: Vec<_> = (0..16 * MAX_SAYS).map(|_| Probe::open()).collect();
        // By either way of handing out.
        for num in 1..=2 {
            for _ in 0..num {
                send_to_all(&probes);
            }
            arriving.write_all(b"x").unwrap();
            stream.read_u8().await.unwrap();
            let has_all = |probe: &&Probe| {
                let received = &probe.received;
                received.messages.borrow().len() == num && received.num_says.get() > 0
            };
            let num_served = probes.iter().filter(has_all).count();
            assert!(
                num_served < probes.len(),
                "{num_served} had their say before"
            );
            for probe in &probes {
                for _ in 0..num {
                    probe.next().await;
                }
            }
            while probes
                .iter()
                .any(|probe| probe.received.num_says.take() == 0)
            {
                tokio::task::yield_now().await;
            }
        }
    };
    actix_rt::spawn(test).await.unwrap();
}

#[actix::test]
async fn other_tasks_get_their_turn_while_a_lot_is_handed_out() {
    let test = async {
        let probe = Probe::open();
        for _ in 0..3 * MAX_PUTS {
            probe.address().do_send(mark(1));
        }
        let reached = probe.inbox.mark();
        while probe.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!probe.inbox.has_reached(reached));
        assert_eq!(
            probe.received.num_says.get(),
            0,
            "it has its say when it has all"
        );
        while probe.received.num_says.get() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(probe.inbox.has_reached(reached));
        assert_eq!(probe.received.num_says.get(), 1);
    };
    actix_rt::spawn(test).await.unwrap();
}

#[actix::test]
async fn what_is_sent_to_one_that_ended_reaches_nobody_who_came_after_it() {
    let first = Probe::open();
    let to_first = first.address();
    to_first.do_send(mark(1));
    drop(first);
    let second = Probe::open();
    assert_eq!(second.address().place.index, to_first.place.index);
    to_first.do_send(mark(2));
    second.address().do_send(mark(3));
    assert_eq!(second.next().await.join, JoinId(3));
}

#[test]
fn an_arbiter_that_ends_takes_what_waits_with_it() {
    let room = Arc::new(crate::hub::ahead::Ahead::default());
    let to_gone = actix_rt::System::new().block_on(async {
        let probe = Probe::open();
        let mut all = FanOut::default();
        all.add(&probe.address(), JoinId(1));
        let permit = room.permit(usize::MAX).await;
        all.send(&plain(), Some(permit));
        probe.address()
    });
    actix_rt::System::new().block_on(async {
        room.permit(usize::MAX).await;
        to_gone.do_send(mark(1));
        let probe = Probe::open();
        probe.address().do_send(mark(2));
        assert_eq!(probe.next().await.join, JoinId(2));
    });
}

/// A probe that lent its lane, which serves the memberships 1 and 2.
struct Laned {
    probe: Probe,
    stream: Rc<TcpStream>,
    client: std::net::TcpStream,
}

const DIALECT: Dialect = Dialect::V4;

impl Laned {
    fn open(io_uring: bool) -> Self {
        let (stream, client) = connected();
        let laned = Self {
            probe: Probe::open_with(io_uring),
            stream: Rc::new(stream),
            client,
        };
        laned.probe.inbox.lend(Some(LaneRef {
            stream: &laned.stream,
            dialect: DIALECT,
            joins: [JoinId(1), JoinId(2)].into_iter().collect(),
        }));
        laned
    }

    fn received(&self) -> &Received {
        &self.probe.received
    }

    /// Returns what its client reads until the end.
    fn read_all(self) -> Vec<u8> {
        let Self {
            probe,
            stream,
            mut client,
        } = self;
        drop((probe, stream));
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        got
    }
}

fn message(len: usize, volatile: bool) -> (Shared, Bytes) {
    let message = Encoded::new(&"x".repeat(len), &[]);
    let frames = message.frames().clone();
    (Shared::Plain { message, volatile }, frames)
}

/// Runs it on an arbiter that writes to many by one system call, if the system allows it, and on one that does not.
fn by_either_way<F: Future<Output = ()>>(test: impl Fn(bool) -> F) {
    for io_uring in [true, false] {
        actix_rt::System::new().block_on(test(io_uring));
    }
}

/// Waits until all that was sent has been handed out.
async fn handed_out(inbox: &Inbox) {
    let mark = inbox.mark();
    while !inbox.has_reached(mark) {
        tokio::task::yield_now().await;
    }
}

#[test]
fn whoever_can_take_it_is_written_past_and_all_others_get_it_themselves() {
    by_either_way(async |io_uring| {
        for num in [
            1,
            MAX_TOGETHER - 1,
            MAX_TOGETHER,
            MAX_TOGETHER + 1,
            MAX_SAYS + MAX_TOGETHER + 1,
        ] {
            let sockets: Vec<_> = (0..num).map(|_| Laned::open(io_uring)).collect();
            let (shared, frames) = message(100, false);
            let mut all = FanOut::default();
            for (at, socket) in sockets.iter().enumerate() {
                let mut join = JoinId(2);
                match at % 9 {
                    4 => socket.probe.inbox.lend(None),
                    5 => join = JoinId(3),
                    6 => SockRef::from(&*socket.stream)
                        .shutdown(Shutdown::Write)
                        .unwrap(),
                    _ => {}
                }
                all.add(&socket.probe.address(), join);
            }
            all.send(&shared, None);
            handed_out(&sockets[0].probe.inbox).await;
            for (at, socket) in sockets.into_iter().enumerate() {
                let is_written_past = !matches!(at % 9, 4..=6);
                let num_received = usize::from(!is_written_past);
                let received = socket.received();
                assert_eq!(received.messages.borrow().len(), num_received);
                assert_eq!(received.num_says.get(), num_received);
                assert!(received.rests.borrow().is_empty());
                let expected = if is_written_past { &frames[..] } else { b"" };
                assert_eq!(socket.read_all(), expected, "{at} of {num}");
            }
        }
    });
}

/// The socket has to know that its client owes an ack.
#[test]
fn nobody_is_written_past_what_is_to_be_acknowledged() {
    by_either_way(async |io_uring| {
        let sockets: Vec<_> = (0..4).map(|_| Laned::open(io_uring)).collect();
        let (answers, _) = tokio::sync::mpsc::unbounded_channel();
        let deliver = DeliverWithAck {
            id: AckId(7),
            message: Encoded::new("42x", &[]),
            volatile: false,
            answers,
        };
        let mut all = FanOut::default();
        for socket in &sockets {
            all.add(&socket.probe.address(), JoinId(1));
        }
        all.send(&Shared::WithAck(Arc::new(deliver)), None);
        for socket in sockets {
            let told = socket.probe.next().await;
            assert!(matches!(told.what, What::DeliverWithAck(deliver) if deliver.id == AckId(7)));
            assert_eq!(socket.read_all(), b"");
        }
    });
}

#[test]
fn what_a_client_takes_a_part_of_goes_on_where_that_ended_volatile_or_not() {
    const NUM: usize = 4;
    by_either_way(async |io_uring| {
        for volatile in [false, true] {
            // As long as it may be for so many to be written to together.
            let (shared, frames) = message(MAX_BYTES / NUM - 16, volatile);
            let sockets: Vec<_> = (0..NUM).map(|_| Laned::open(io_uring)).collect();
            for socket in &sockets {
                let stream = SockRef::from(&*socket.stream);
                stream.set_send_buffer_size(8192).unwrap();
            }
            let has_come = |socket: &&Laned| socket.received().num_says.get() > 0;
            let mut nums_past = [0; NUM];
            while !sockets.iter().all(|socket| has_come(&socket)) {
                let mut all = FanOut::default();
                let those = || sockets.iter().filter(|socket| !has_come(socket));
                for socket in those() {
                    all.add(&socket.probe.address(), JoinId(1));
                }
                all.send(&shared, None);
                handed_out(&sockets[0].probe.inbox).await;
                for (num, socket) in nums_past.iter_mut().zip(&sockets) {
                    *num += usize::from(!has_come(&socket));
                }
            }
            let mut num_parts = 0;
            for (socket, num_past) in sockets.into_iter().zip(nums_past) {
                let received = socket.received();
                assert_eq!(received.num_says.get(), 1);
                let num_whole = received.messages.borrow().len();
                let rests = received.rests.take();
                assert_eq!(rests.len() + num_whole, 1);
                assert!(rests.iter().all(|len| (1..frames.len()).contains(len)));
                num_parts += rests.len();
                let part = &frames[..rests.first().copied().unwrap_or(0)];
                assert_eq!(socket.read_all(), [&frames.repeat(num_past), part].concat());
            }
            assert!(num_parts > 0, "hardly ever is it full after a whole one");
        }
    });
}

#[test]
fn a_client_that_is_meant_twice_is_written_past_once_at_a_time() {
    // If the first stands there once, one of the others stands in two chunks.
    for num_once in [0, 1] {
        by_either_way(async |io_uring| {
            let num = MAX_TOGETHER;
            let sockets: Vec<_> = (0..num).map(|_| Laned::open(io_uring)).collect();
            let (shared, frames) = message(100, false);
            let mut all = FanOut::default();
            for join in [1, 2] {
                let skipped = if join == 1 { 0 } else { num_once };
                for socket in &sockets[skipped..] {
                    all.add(&socket.probe.address(), JoinId(join));
                }
            }
            all.send(&shared, None);
            handed_out(&sockets[0].probe.inbox).await;
            for (at, socket) in sockets.into_iter().enumerate() {
                let received = socket.received();
                // The receivers' numbers 63 and 64 are not written to together.
                let is_apart = num_once == 1 && at == num / 2;
                let num_received = usize::from(at >= num_once && !is_apart);
                let num_past = if is_apart { 2 } else { 1 };
                assert_eq!(received.messages.borrow().len(), num_received, "{at}");
                assert_eq!(received.num_says.get(), num_received);
                assert_eq!(socket.read_all(), frames.repeat(num_past));
            }
        });
    }
}

#[test]
fn what_one_did_not_take_is_not_given_to_another_that_took_its_place() {
    by_either_way(async |io_uring| {
        let mut sockets: Vec<_> = (0..4).map(|_| Laned::open(io_uring)).collect();
        let (shared, _) = message(100, false);
        let mut all = FanOut::default();
        for socket in &sockets {
            let stream = SockRef::from(&*socket.stream);
            stream.shutdown(Shutdown::Write).unwrap();
            all.add(&socket.probe.address(), JoinId(1));
        }
        // When the first has its say, all have been written to; the last goes before it is told.
        let last = sockets.pop().unwrap();
        let place = last.probe.address().place;
        let new = Rc::new(RefCell::new(None));
        let act = {
            let new = Rc::clone(&new);
            move || {
                drop(last);
                new.replace(Some(Laned::open(io_uring)));
            }
        };
        sockets[0].received().next_say.replace(Some(Box::new(act)));
        all.send(&shared, None);
        handed_out(&sockets[0].probe.inbox).await;
        for socket in &sockets {
            assert_eq!(socket.received().num_says.get(), 1);
        }
        let new = new.take().unwrap();
        let its_place = new.probe.address().place;
        assert_eq!(its_place.index, place.index);
        assert_ne!(its_place.serial, place.serial);
        assert!(new.probe.is_empty());
        assert_eq!(new.received().num_says.get(), 0);
        assert_eq!(new.read_all(), b"");
    });
}
