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
    socket::{inbox::FanOut, messages::What, record::JoinId},
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
    let frames = message.frames_in(DIALECT).clone();
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
        for num in [1, MANY - 1, MANY, MANY + 1, 2 * MAX_SAYS + 1] {
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

#[test]
fn what_a_client_takes_a_part_of_goes_on_where_that_ended_volatile_or_not() {
    by_either_way(async |io_uring| {
        for volatile in [false, true] {
            // No kernel takes so much at once.
            let (shared, frames) = message(32 << 20, volatile);
            let sockets: Vec<_> = (0..MANY).map(|_| Laned::open(io_uring)).collect();
            for _ in 0..2 {
                let mut all = FanOut::default();
                for socket in &sockets {
                    all.add(&socket.probe.address(), JoinId(1));
                }
                all.send(&shared, None);
                handed_out(&sockets[0].probe.inbox).await;
                for socket in &sockets {
                    // As any socket does for which something waits.
                    socket.probe.inbox.lend(None);
                }
            }
            for socket in sockets {
                let received = socket.received();
                let rests = received.rests.take();
                let [written] = rests[..] else {
                    panic!("{rests:?}")
                };
                assert!((1..frames.len()).contains(&written), "{written}");
                // The second, which finds no lane.
                assert_eq!(received.messages.borrow().len(), 1);
                assert_eq!(received.num_says.get(), 2);
                assert_eq!(socket.read_all(), &frames[..written]);
            }
        }
    });
}

#[test]
fn a_client_that_is_meant_twice_is_written_past_once() {
    by_either_way(async |io_uring| {
        let sockets: Vec<_> = (0..MANY).map(|_| Laned::open(io_uring)).collect();
        let (shared, frames) = message(100, false);
        let mut all = FanOut::default();
        for join in [1, 2] {
            for socket in &sockets {
                all.add(&socket.probe.address(), JoinId(join));
            }
        }
        all.send(&shared, None);
        handed_out(&sockets[0].probe.inbox).await;
        for socket in sockets {
            assert_eq!(socket.received().messages.borrow().len(), 1);
            assert_eq!(socket.received().num_says.get(), 1);
            assert_eq!(socket.read_all(), &frames[..]);
        }
    });
}

#[test]
fn what_one_did_not_take_is_not_given_to_another_that_took_its_place() {
    by_either_way(async |io_uring| {
        let (first, second) = (Laned::open(io_uring), Laned::open(io_uring));
        for socket in [&first, &second] {
            SockRef::from(&*socket.stream)
                .shutdown(Shutdown::Write)
                .unwrap();
        }
        let (shared, _) = message(100, false);
        let mut all = FanOut::default();
        for socket in [&first, &second] {
            all.add(&socket.probe.address(), JoinId(1));
        }
        let place = second.probe.address().place;
        let third = Rc::new(RefCell::new(None));
        // When the first has its say, the second has been written to, and goes before it is told.
        let act = {
            let third = Rc::clone(&third);
            move || {
                drop(second);
                third.replace(Some(Laned::open(io_uring)));
            }
        };
        first.received().next_say.replace(Some(Box::new(act)));
        all.send(&shared, None);
        handed_out(&first.probe.inbox).await;
        let third = third.take().unwrap();
        let new = third.probe.address().place;
        assert_eq!(
            (new.index, new.serial == place.serial),
            (place.index, false)
        );
        assert!(third.probe.is_empty());
        assert_eq!(third.received().num_says.get(), 0);
        assert_eq!(third.read_all(), b"");
    });
}
