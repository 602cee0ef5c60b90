//! Tests of [`super::Session::missed`] and [`super::Parked`]: tables of places and what follows from them.

use super::*;
use crate::{
    engine_io::encoded::Encoded,
    hub::{
        broadcast::Target,
        replay::{Audience, Limits},
    },
    socket::outbox::ITEM_BYTES,
};

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> Limits {
    Limits {
        max_age: 100 * SECOND,
        max_bytes: usize::MAX,
        max_events: usize::MAX,
    }
}

/// A log whose events are named by their rooms: `*` for all, `-red` for all but red, `@` for the socket alone, which has two
/// places, `@7.1` being the first behind 7.
fn log(names: &[&str], forgotten: usize) -> Replay {
    let mut replay = Replay::new(Limits {
        max_events: names.len() - forgotten,
        ..limits()
    });
    for name in names {
        let next = Position::of(replay.head() + 1);
        let target = |rooms: &[&str], except: &[&str]| {
            Audience::Selected(Target {
                rooms: rooms.iter().map(|room| Room::from(*room)).collect(),
                except: except.iter().map(|room| Room::from(*room)).collect(),
            })
        };
        let me = Audience::One(SocketId::from("me"));
        let (audience, position) = match (name.strip_prefix('@'), name.strip_prefix('-')) {
            (Some(place), _) => (me, place_of(place)),
            (_, Some(except)) => (target(&[], &[except]), next),
            _ if *name == "*" => (target(&[], &[]), next),
            _ => (target(&[name], &[]), next),
        };
        let message = Encoded::new(name, &[]);
        let logged = Arc::new(Logged { position, message });
        replay.append("/a".into(), audience, logged, Instant::now());
    }
    replay
}

fn place_of(text: &str) -> Position {
    let (serial, own) = text.split_once('.').unwrap_or((text, "0"));
    Position {
        serial: serial.parse().unwrap(),
        own: own.parse().unwrap(),
    }
}

fn session() -> Session {
    Session {
        pid: Pid::random().unwrap(),
        id: SocketId::from("me"),
        namespace: "/a".into(),
        rooms: HashSet::from([Room::from("red")]),
        authorized: r#"{"token":"hush"}"#.into(),
        epoch: Epoch::random().unwrap(),
        since: Position::default(),
        last: Position::default(),
        before: None,
        told: 0,
        left: 0,
    }
}

/// Sessions are kept for ten seconds.
fn kept(max_sessions: usize, max_bytes: usize) -> super::Limits {
    super::Limits {
        max_age: 10 * SECOND,
        max_sessions,
        max_bytes,
    }
}

/// Who is forgotten, and nobody is left for another call.
fn gone(purged: Purged) -> Vec<String> {
    assert!(!purged.is_more_left);
    let ids = purged.sessions.iter();
    ids.map(|session| session.id.to_string()).collect()
}

/// The places of a session that saw `seen` and left when `left` was the last serial.
struct Case {
    since: &'static str,
    seen: Option<&'static str>,
    last: &'static str,
    told: u64,
    left: u64,
    forgotten: usize,
}

fn missed(names: &[&str], case: &Case) -> Result<Vec<String>, Lost> {
    let session = Session {
        since: place_of(case.since),
        last: place_of(case.last),
        told: case.told,
        left: case.left,
        ..session()
    };
    let replay = log(names, case.forgotten);
    let missed = session.missed(&replay, case.seen.map(place_of), usize::MAX)?;
    let text = |logged: &Arc<Logged>| {
        let Position { serial, own } = logged.position;
        match own {
            0 => serial.to_string(),
            own => format!("{serial}.{own}"),
        }
    };
    Ok(missed.iter().map(text).collect())
}

const PLAIN: Case = Case {
    since: "0",
    seen: Some("2"),
    last: "2",
    told: 2,
    left: 2,
    forgotten: 0,
};

#[test]
fn what_was_missed_is_what_would_have_been_for_it_since_it_left() {
    let names = [
        "*", "red", "red", "blue", "me", "-red", "-me", "-blue", "@9",
    ];
    assert_eq!(missed(&names, &PLAIN).unwrap(), ["3", "5", "8", "9"]);
}

#[test]
fn what_was_sent_and_not_seen_is_sent_again() {
    let case = Case {
        last: "4",
        told: 5,
        left: 5,
        ..PLAIN
    };
    let names = ["*", "*", "*", "*", "red", "*"];
    assert_eq!(missed(&names, &case).unwrap(), ["3", "4", "5", "6"]);
    let nothing_seen = Case { seen: None, ..case };
    assert_eq!(
        missed(&names, &nothing_seen).unwrap(),
        ["1", "2", "3", "4", "5", "6"]
    );
}

#[test]
fn a_room_that_was_joined_later_brings_nothing_of_before() {
    // 3 and 4 went to red when it was in another room.
    let case = Case { left: 4, ..PLAIN };
    assert_eq!(
        missed(&["*", "*", "red", "red", "red"], &case).unwrap(),
        ["5"]
    );
}

#[test]
fn an_offset_of_an_earlier_session_counts_as_none() {
    let case = Case {
        since: "3",
        seen: Some("1"),
        last: "3",
        told: 0,
        left: 4,
        ..PLAIN
    };
    assert_eq!(missed(&["*"; 6], &case).unwrap(), ["5", "6"]);
}

#[test]
fn an_offset_that_was_not_given_to_it_is_refused() {
    for seen in ["3", "2.1", "18446744073709551615"] {
        let case = Case {
            seen: Some(seen),
            ..PLAIN
        };
        assert_eq!(missed(&["*"; 4], &case), Err(Lost::Offset), "{seen}");
    }
}

#[test]
fn who_saw_everything_needs_nothing_of_before_it_left() {
    let quiet = Case {
        left: 5,
        forgotten: 5,
        ..PLAIN
    };
    let names = ["*"; 7];
    assert_eq!(missed(&names, &quiet).unwrap(), ["6", "7"]);
    for (told, left, forgotten) in [(2, 5, 6), (3, 5, 3), (3, 5, 5)] {
        let case = Case {
            told,
            left,
            forgotten,
            ..PLAIN
        };
        assert_eq!(
            missed(&names, &case),
            Err(Lost::Forgotten),
            "{told} {forgotten}"
        );
    }
    let at_the_edge = Case {
        told: 3,
        left: 5,
        forgotten: 2,
        ..PLAIN
    };
    assert_eq!(missed(&names, &at_the_edge).unwrap(), ["3", "6", "7"]);
}

#[test]
fn events_for_it_alone_come_in_the_order_sent_however_late_they_were_logged() {
    let names = ["*", "*", "*", "@2.1", "@2.2", "*", "@3.1"];
    let case = Case {
        last: "3.1",
        told: 3,
        left: 7,
        ..PLAIN
    };
    assert_eq!(missed(&names, &case).unwrap(), ["2.1", "2.2", "3", "3.1"]);
    let case = Case {
        seen: Some("2.1"),
        ..case
    };
    assert_eq!(missed(&names, &case).unwrap(), ["2.2", "3", "3.1"]);
}

#[test]
fn of_events_for_it_alone_none_may_be_forgotten() {
    let names = ["*", "*", "@2.1", "@2.2", "*"];
    for (seen, forgotten, expected) in [
        (
            "2",
            2,
            Ok(vec!["2.1".to_owned(), "2.2".to_owned(), "5".to_owned()]),
        ),
        ("2", 3, Err(Lost::Forgotten)),
        ("2.1", 3, Ok(vec!["2.2".to_owned(), "5".to_owned()])),
        ("2.2", 4, Ok(vec!["5".to_owned()])),
        ("2.2", 5, Err(Lost::Forgotten)),
    ] {
        let case = Case {
            seen: Some(seen),
            last: "2.2",
            left: 4,
            forgotten,
            ..PLAIN
        };
        assert_eq!(missed(&names, &case), expected, "{seen} {forgotten}");
    }
}

/// A bug: what an event takes beside its bytes was not counted, so of small ones the whole log was looked up and sent.
#[test]
fn it_is_never_more_than_may_be_sent_at_a_time() {
    let replay = log(&["*", "*", "*"], 0);
    let len = 3 * (ITEM_BYTES + Encoded::new("*", &[]).held_bytes());
    let session = session();
    assert_eq!(session.missed(&replay, None, len).unwrap().len(), 3);
    assert_eq!(
        session.missed(&replay, None, len - 1).unwrap_err(),
        Lost::TooMuch
    );
}

#[test]
fn what_came_while_it_was_let_in_is_told_apart_from_what_it_missed() {
    let replay = log(&["*", "blue", "red", "me", "*"], 1);
    let session = session();
    let since = |serial| {
        let missed = session.missed_since(&replay, serial)?;
        Some(
            missed
                .map(|logged| logged.position.serial)
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(since(3), Some(vec![4, 5]));
    assert_eq!(since(1), Some(vec![3, 4, 5]));
    assert_eq!(since(5), Some(vec![]));
    assert_eq!(since(0), None);
}

#[test]
fn other_namespaces_are_no_concern_of_it() {
    let replay = log(&["*", "red", "@1.1"], 0);
    let elsewhere = Session {
        namespace: "/b".into(),
        ..session()
    };
    assert!(
        elsewhere
            .missed(&replay, None, usize::MAX)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_session_is_had_once_and_by_one_client_at_a_time() {
    let mut parked = Parked::new(kept(10, usize::MAX), Arc::default());
    let now = Instant::now();
    let session = session();
    let (pid, namespace) = (session.pid.clone(), session.namespace.clone());
    parked.park(session.clone(), 'a', 1, now);
    assert!(parked.is_away(&namespace, &session.id) && !parked.is_away(&"/b".into(), &session.id));
    let (one, other) = (Pursuit::default(), Pursuit::default());
    let stranger = Pid::random().unwrap();
    assert_eq!(
        parked.claim(&stranger, &namespace, &one, now),
        Err(Lost::Unknown)
    );
    assert_eq!(
        parked.claim(&pid, &"/b".into(), &one, now),
        Err(Lost::Unknown)
    );
    assert_eq!(
        parked.claim(&pid, &namespace, &one, now),
        Ok((&session, &'a'))
    );
    assert_eq!(
        parked.claim(&pid, &namespace, &other, now),
        Err(Lost::Unknown)
    );
    assert!(
        parked.claim(&pid, &namespace, &one, now).is_ok(),
        "it asks again"
    );
    drop(one);
    assert!(parked.claim(&pid, &namespace, &other, now).is_ok());
    assert_eq!(parked.take(&pid), Some((session.clone(), 'a')));
    assert_eq!(
        parked.claim(&pid, &namespace, &other, now),
        Err(Lost::Unknown)
    );
    assert!(!parked.is_away(&namespace, &session.id));
    assert!(parked.by_age.is_empty() && parked.by_id.is_empty() && parked.len_bytes == 0);
}

#[test]
fn whoever_left_first_is_forgotten_first_by_age_and_by_number() {
    let mut parked = Parked::new(kept(3, usize::MAX), Arc::default());
    let start = Instant::now();
    let mut pids = Vec::new();
    for n in 0..5 {
        let session = Session {
            id: SocketId::from(n.to_string()),
            ..session()
        };
        pids.push(session.pid.clone());
        parked.park(session, (), 0, start + n * SECOND);
    }
    let pursuit = Pursuit::default();
    let now = start + 5 * SECOND;
    parked.claim(&pids[1], &"/a".into(), &pursuit, now).unwrap();
    assert_eq!(gone(parked.purge(start + 4 * SECOND)), ["0", "2"]);
    assert_eq!(gone(parked.purge(start + 13 * SECOND)), [""; 0]);
    assert_eq!(gone(parked.purge(start + 14 * SECOND)), ["3"]);
    assert_eq!(gone(parked.purge(start + 15 * SECOND)), ["4"]);
    drop(pursuit);
    assert_eq!(gone(parked.purge(start + 15 * SECOND)), ["1"]);
    assert!(parked.by_pid.is_empty() && parked.by_age.is_empty() && parked.by_id.is_empty());
}

/// A bug: ten thousand who were away could hold gigabytes, by what they had sent to be let in, `data` and rooms.
#[test]
fn whoever_left_first_is_forgotten_first_by_bytes() {
    const LARGE: usize = 40 * 1024;
    let start = Instant::now();
    let small = session().len_bytes();
    let before = Some("x".repeat(LARGE).into());
    let moved = Session {
        before,
        ..session()
    };
    assert_eq!(
        moved.len_bytes(),
        small + LARGE,
        "another instance wrote it"
    );
    let mut parked = Parked::new(kept(usize::MAX, 2 * LARGE + 3 * small), Arc::default());
    let mut park = |id: &str, authorized: &str, extra_bytes| {
        let session = Session {
            id: id.into(),
            authorized: authorized.into(),
            ..session()
        };
        let pid = session.pid.clone();
        parked.park(session, (), extra_bytes, start);
        (pid, gone(parked.purge(start)))
    };
    assert_eq!(park("a", &"x".repeat(LARGE), 0).1, [""; 0]);
    let (b, none) = park("b", "", LARGE);
    assert_eq!(none, [""; 0]);
    assert_eq!(park("c", "", 0).1, [""; 0]);
    assert_eq!(park("d", "", small).1, ["a"]);
    assert_eq!(park("e", "", LARGE - 2 * small).1, [""; 0]);
    let (pursuit, namespace) = (Pursuit::default(), "/a".into());
    parked.claim(&b, &namespace, &pursuit, start).unwrap();
    let many = Session {
        id: "f".into(),
        rooms: (0..130).map(|n| format!("room {n}").into()).collect(),
        ..session()
    };
    parked.park(many, (), 0, start);
    assert_eq!(gone(parked.purge(start)), ["c", "d", "e"], "b comes back");
    parked.take(&b).unwrap();
    assert_eq!(gone(parked.purge(start + 11 * SECOND)), ["f"]);
    assert_eq!(parked.len_bytes, 0);
}

/// A bug: all who were away too long were given up in one turn of the hub, whatever rooms they had.
#[test]
fn only_so_much_is_forgotten_at_a_time() {
    let start = Instant::now();
    let mut parked = Parked::new(kept(usize::MAX, usize::MAX), Arc::default());
    let rooms: HashSet<Room> = (0..1000).map(|n| format!("room {n}").into()).collect();
    let mut last = None;
    for _ in 0..25 {
        let session = Session {
            id: SocketId::random().unwrap(),
            rooms: rooms.clone(),
            ..session()
        };
        last = Some(session.pid.clone());
        parked.park(session, (), 0, start);
    }
    let late = start + 11 * SECOND;
    for (num, is_more_left) in [(10, true), (10, true), (5, false), (0, false)] {
        let claimed = parked.claim(
            last.as_ref().unwrap(),
            &"/a".into(),
            &Pursuit::default(),
            late,
        );
        assert_eq!(claimed, Err(Lost::Unknown), "it is too old all the same");
        let purged = parked.purge(late);
        assert_eq!(
            (purged.sessions.len(), purged.is_more_left),
            (num, is_more_left)
        );
    }
    // One with more than that goes, too.
    let session = Session {
        rooms: (0..2 * MAX_STEPS).map(|n| n.to_string().into()).collect(),
        ..session()
    };
    parked.park(session, (), 0, start);
    assert_eq!(gone(parked.purge(late)), ["me"]);
}

#[test]
fn a_session_travels_as_json_and_is_not_printed() {
    let session = session();
    let json = serde_json::to_string(&session).unwrap();
    assert_eq!(serde_json::from_str::<Session>(&json).unwrap(), session);
    let shown = format!("{session:?}");
    assert!(
        !shown.contains("hush") && !shown.contains(session.pid.expose()),
        "{shown}"
    );
}
