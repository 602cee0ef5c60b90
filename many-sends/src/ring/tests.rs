//! What the way does, on sockets of this machine.
//!
//! Where the system forbids it the tests can show nothing, and say so; where nothing forbids it they fail if it is not to be had.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::{fd::AsFd as _, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

use super::*;

/// Returns the way, or nothing where the system forbids it.
fn way() -> Option<ManySends> {
    match ManySends::new() {
        Ok(way) => Some(way),
        Err(err) => {
            let why = forbidden().or_else(|| {
                (err.raw_os_error() == Some(libc::EACCES)).then_some("a security module forbids it")
            });
            assert!(why.is_some(), "nothing forbids it, but: {err}");
            eprintln!("not shown here, {}: {err}", why.unwrap_or_default());
            None
        }
    }
}

/// Returns what forbids it, by the system's own word.
fn forbidden() -> Option<&'static str> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let has_filter = read("/proc/self/status")
        .lines()
        .any(|line| line.starts_with("Seccomp:") && !line.ends_with('0'));
    if has_filter {
        return Some("a seccomp profile is in force");
    }
    if !["", "0"].contains(&read("/proc/sys/kernel/io_uring_disabled").trim()) {
        return Some("kernel.io_uring_disabled is set");
    }
    (!read("/proc/kallsyms").contains("io_uring_setup")).then_some("this kernel has none")
}

fn pairs(num: usize) -> Vec<(UnixStream, UnixStream)> {
    (0..num)
        .map(|_| UnixStream::pair().expect("descriptors"))
        .collect()
}

/// Returns two ends of a TCP connection. They block, as they do unless told otherwise.
fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let far = TcpStream::connect(address).expect("it listens");
    let (near, _) = listener.accept().expect("it has connected");
    (near, far)
}

/// Sends the same to each.
fn send_all(way: &mut ManySends, sockets: &[&dyn std::os::fd::AsFd], bytes: &[u8]) -> Vec<usize> {
    let sends = sockets.iter().map(|socket| Send {
        socket: socket.as_fd(),
        bytes,
    });
    let mut taken = vec![usize::MAX; sockets.len()];
    way.send_each(sends, &mut taken).expect("it goes on");
    taken
}

#[test]
fn each_socket_gets_its_bytes_in_the_order_of_calls() {
    const NUM_ROUNDS: usize = 3000;
    let Some(mut way) = way() else { return };
    let (near, far): (Vec<_>, Vec<_>) = pairs(MAX_SENDS).into_iter().unzip();
    let readers: Vec<_> = far
        .into_iter()
        .map(|mut far| {
            thread::spawn(move || {
                let mut got = String::new();
                far.read_to_string(&mut got).expect("text");
                got
            })
        })
        .collect();
    let mut sent = vec![String::new(); MAX_SENDS];
    for round in 0..NUM_ROUNDS {
        // Another number each time, from none to all.
        let num = round % (MAX_SENDS + 1);
        let texts: Vec<_> = (0..num)
            .map(|number| format!("{round}/{number};"))
            .collect();
        let sends = near.iter().zip(&texts).map(|(near, text)| Send {
            socket: near.as_fd(),
            bytes: text.as_bytes(),
        });
        let mut taken = vec![usize::MAX; num];
        way.send_each(sends, &mut taken).expect("it goes on");
        for ((sent, text), taken) in sent.iter_mut().zip(&texts).zip(taken) {
            // All of it, or what fits.
            sent.push_str(text.get(..taken).expect("no more than it had"));
        }
    }
    for near in &near {
        near.shutdown(Shutdown::Write).expect("it stands");
    }
    for (sent, reader) in sent.into_iter().zip(readers) {
        assert_eq!(reader.join().expect("it reads"), sent);
        assert!(!sent.is_empty());
    }
}

#[test]
fn what_is_full_or_gone_takes_nothing_and_others_are_served() {
    let Some(mut way) = way() else { return };
    let ((full, mut full_far), (gone, gone_far), (reset, reset_far)) = (tcp(), tcp(), tcp());
    let (ended, (well, mut well_far)) = (tcp(), tcp());
    full.set_nonblocking(true).expect("it stands");
    let mut num_full = 0;
    loop {
        match (&full).write(&[b'x'; 1 << 16]) {
            Ok(len) => num_full += len,
            Err(err) => break assert_eq!(err.kind(), ErrorKind::WouldBlock),
        }
    }
    // Even if it could wait, it does not.
    full.set_nonblocking(false).expect("it stands");
    drop(gone_far);
    // Who goes without having read what came is gone at once and says so.
    (&reset).write_all(b"unread").expect("it stands");
    drop(reset_far);
    ended.0.shutdown(Shutdown::Write).expect("it stands");
    // What is gone may take the first bytes, since its end is not known before it answers to them; and what is full may find some room.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let taken = send_all(&mut way, &[&full, &gone, &reset, &ended.0, &well], b"here");
        if taken == [0, 0, 0, 0, 4] {
            break;
        }
        num_full += taken[0];
        assert!(Instant::now() < deadline, "{taken:?}");
        thread::yield_now();
    }
    drop((full, well));
    let mut got = Vec::new();
    well_far.read_to_end(&mut got).expect("bytes");
    assert!(got.chunks(4).all(|four| four == b"here"), "{got:?}");
    let mut rest = Vec::new();
    full_far.read_to_end(&mut rest).expect("bytes");
    assert_eq!(rest.len(), num_full);
}

#[test]
fn a_part_is_told_and_nobody_waits_for_the_rest() {
    let Some(mut way) = way() else { return };
    let much = vec![b'x'; 64 << 20];
    let ((near, _far), (tcp, _tcp_far)) = (UnixStream::pair().expect("descriptors"), tcp());
    let taken = send_all(&mut way, &[&near, &tcp], &much);
    for taken in taken {
        assert!((1..much.len()).contains(&taken), "{taken}");
    }
}

#[test]
fn as_many_are_sent_as_have_a_place() {
    let Some(mut way) = way() else { return };
    let pairs = pairs(3);
    let sends = || {
        pairs.iter().map(|(near, _)| Send {
            socket: near.as_fd(),
            bytes: b"one",
        })
    };
    let mut two = [usize::MAX; 2];
    way.send_each(sends(), &mut two).expect("it goes on");
    assert_eq!(two, [3, 3]);
    let mut more = [usize::MAX; 5];
    way.send_each(sends(), &mut more).expect("it goes on");
    assert_eq!(more, [3, 3, 3, 0, 0]);
    way.send_each(sends(), &mut []).expect("it goes on");
    way.send_each([], &mut two).expect("it goes on");
    assert_eq!(two, [0, 0]);
    for ((near, far), expected) in pairs.iter().zip(["oneone", "oneone", "one"]) {
        near.shutdown(Shutdown::Write).expect("it stands");
        let mut got = String::new();
        (&*far).read_to_string(&mut got).expect("text");
        assert_eq!(got, expected);
    }
}

#[test]
fn when_who_asks_panics_nothing_is_sent_then_or_later() {
    let Some(mut way) = way() else { return };
    let pairs = pairs(2);
    let send = |at: usize| match pairs.get(at) {
        Some((near, _)) => Send {
            socket: near.as_fd(),
            bytes: b"one",
        },
        None => panic!("as it should"),
    };
    let mut taken = [usize::MAX; MAX_SENDS];
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        way.send_each((0..).map(send), &mut taken)
    }));
    assert!(panicked.is_err());
    assert_eq!(taken, [0; MAX_SENDS]);
    let err = way
        .send_each([send(0)], &mut taken)
        .expect_err("it is over");
    assert_eq!(err.kind(), ErrorKind::Unsupported);
    assert_eq!(taken, [0; MAX_SENDS]);
    drop(way);
    for (near, mut far) in pairs {
        drop(near);
        let mut got = Vec::new();
        far.read_to_end(&mut got).expect("bytes");
        assert_eq!(got, b"");
    }
}
