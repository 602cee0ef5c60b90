//! Heartbeat, connect time-out and attachment time-out of one session.
//!
//! Plain struct: it is told the time and says what is due, so that tests need no waiting. The actor keeps one timer, for
//! the earliest deadline.
//!
//! Rules: a ping `ping_interval` after the open packet, and again that long after each pong; the session ends if no pong
//! came `ping_timeout` after a ping was due. While a pong is awaited, the first other packet starts that time-out anew, once.
//! In revision 3 the client pings: the session ends if `ping_interval` and `ping_timeout` passed since its last ping, or since
//! the open packet. Nothing else that it sends counts.
//! The session ends, too, if something waits for the client and it takes nothing of that for too long, whatever it sends: who
//! answers pings that it cannot have read is kept no longer than who does not answer.
//! The attachments of a packet have `body_timeout` behind its header.
//! Source: Engine.IO protocol v3 and v4, "Heartbeat"; wire.md 1.7, 1.10, 2.2.

use std::time::{Duration, Instant};

use super::portable;
use crate::{config::EngineConfig, engine_io::dialect::Revision};

/// What the time demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Send a ping.
    Ping,
    /// The pong, or the ping of a client of revision 3, did not come: end the session.
    PingTimeout,
    /// No namespace was joined: end the session.
    ConnectTimeout,
    /// The attachments of a packet did not come: end the session.
    AttachmentTimeout,
    /// The client takes nothing of what waits for it: end the session.
    WriteTimeout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heartbeat {
    /// The next ping goes out then.
    PingAt(Instant),
    /// The pong must come before then.
    PongBy { deadline: Instant, extended: bool },
    /// Revision 3: the client's next ping must come before then.
    ClientPingBy(Instant),
}

/// The deadlines of one session.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    heartbeat: Heartbeat,
    connect_by: Option<Instant>,
    /// While attachments are due.
    attachments_by: Option<Instant>,
    /// While something waits to be written and nothing could be.
    taken_by: Option<Instant>,
}

impl Heartbeat {
    fn client_ping(now: Instant, config: &EngineConfig) -> Self {
        Self::ClientPingBy(now + config.ping_interval + config.ping_timeout)
    }
}

impl Clock {
    /// Starts with the open packet.
    pub fn new(now: Instant, config: &EngineConfig, revision: Revision) -> Self {
        Self {
            heartbeat: match revision {
                Revision::V4 => Heartbeat::PingAt(now + config.ping_interval),
                Revision::V3 => Heartbeat::client_ping(now, config),
            },
            connect_by: Some(now + config.connect_timeout),
            attachments_by: None,
            taken_by: None,
        }
    }

    /// Returns whether something waits and nothing could be written.
    pub fn is_stalled(&self) -> bool {
        self.taken_by.is_some()
    }

    /// Something waits and nothing could be written: the client has `limit` to take any of it, and at least as long as it has
    /// to answer a ping, so that this is no one's end who reads.
    pub fn stalled(&mut self, now: Instant, limit: Duration, config: &EngineConfig) {
        let limit = limit.max(config.ping_interval + config.ping_timeout);
        self.taken_by.get_or_insert(now + limit);
    }

    /// The client took something.
    pub fn taken(&mut self) {
        self.taken_by = None;
    }

    /// Returns whether it runs against attachments that are due.
    pub fn awaits_attachments(&self) -> bool {
        self.attachments_by.is_some()
    }

    /// The header of a packet came, or the client was not read from for a while: its attachments get their whole time.
    pub fn await_attachments(&mut self, now: Instant, config: &EngineConfig) {
        self.attachments_by = Some(now + config.body_timeout);
    }

    /// The last attachment of a packet came.
    pub fn attached(&mut self) {
        self.attachments_by = None;
    }

    /// Goes on where the clock of another instance stood, and not for longer than the settings here allow.
    pub fn resume(
        now: Instant,
        config: &EngineConfig,
        revision: Revision,
        heartbeat: portable::Heartbeat,
        connect_within: Option<Duration>,
    ) -> Self {
        let at = |ms, longest| now + Duration::from_millis(ms).min(longest);
        let heartbeat = match (heartbeat, revision) {
            (_, Revision::V3) => Heartbeat::client_ping(now, config),
            (portable::Heartbeat::PingInMs(ms), Revision::V4) => {
                Heartbeat::PingAt(at(ms, config.ping_interval))
            }
            (portable::Heartbeat::HeardWithinMs(ms), Revision::V4) => Heartbeat::PongBy {
                deadline: at(ms, config.ping_timeout),
                extended: false,
            },
        };
        Self {
            heartbeat,
            connect_by: connect_within.map(|within| now + within.min(config.connect_timeout)),
            attachments_by: None,
            taken_by: None,
        }
    }

    /// Returns where it stands, for another instance to [`Self::resume`].
    pub fn remaining(&self, now: Instant) -> (portable::Heartbeat, Option<Duration>) {
        let until = |at: Instant| at.saturating_duration_since(now);
        let ms = |at: Instant| u64::try_from(until(at).as_millis()).unwrap_or(u64::MAX);
        let heartbeat = match self.heartbeat {
            Heartbeat::PingAt(at) => portable::Heartbeat::PingInMs(ms(at)),
            Heartbeat::PongBy { deadline, .. } | Heartbeat::ClientPingBy(deadline) => {
                portable::Heartbeat::HeardWithinMs(ms(deadline))
            }
        };
        (heartbeat, self.connect_by.map(until))
    }

    /// Returns the earliest deadline.
    pub fn next(&self) -> Instant {
        let heartbeat = match self.heartbeat {
            Heartbeat::PingAt(at) => at,
            Heartbeat::PongBy { deadline, .. } | Heartbeat::ClientPingBy(deadline) => deadline,
        };
        [self.connect_by, self.attachments_by, self.taken_by]
            .into_iter()
            .flatten()
            .fold(heartbeat, Instant::min)
    }

    /// Says what is due at `now`, one thing at a time. A ping that is due counts as sent.
    pub fn due(&mut self, now: Instant, config: &EngineConfig) -> Option<Due> {
        if self.connect_by.is_some_and(|deadline| deadline <= now) {
            self.connect_by = None;
            return Some(Due::ConnectTimeout);
        }
        if self.attachments_by.is_some_and(|deadline| deadline <= now) {
            self.attachments_by = None;
            return Some(Due::AttachmentTimeout);
        }
        if self.taken_by.is_some_and(|deadline| deadline <= now) {
            self.taken_by = None;
            return Some(Due::WriteTimeout);
        }
        match self.heartbeat {
            Heartbeat::PingAt(at) if at <= now => {
                // From when it was due: what this side is late must not lengthen the session. Nor may it take away more
                // than half of the client's time, or an instance that stood still would lose its clients.
                let deadline = (at + config.ping_timeout).max(now + config.ping_timeout / 2);
                self.heartbeat = Heartbeat::PongBy {
                    deadline,
                    extended: false,
                };
                Some(Due::Ping)
            }
            Heartbeat::PongBy { deadline, .. } | Heartbeat::ClientPingBy(deadline)
                if deadline <= now =>
            {
                Some(Due::PingTimeout)
            }
            Heartbeat::PingAt(_) | Heartbeat::PongBy { .. } | Heartbeat::ClientPingBy(_) => None,
        }
    }

    /// A client of revision 3 pinged.
    pub fn client_ping(&mut self, now: Instant, config: &EngineConfig) {
        self.heartbeat = Heartbeat::client_ping(now, config);
    }

    /// A pong came, asked for or not. Revision 4 only.
    pub fn pong(&mut self, now: Instant, config: &EngineConfig) {
        self.heartbeat = Heartbeat::PingAt(now + config.ping_interval);
    }

    /// Another packet came.
    pub fn packet(&mut self, now: Instant, config: &EngineConfig) {
        if let Heartbeat::PongBy {
            extended: false, ..
        } = self.heartbeat
        {
            let deadline = now + config.ping_timeout;
            self.heartbeat = Heartbeat::PongBy {
                deadline,
                extended: true,
            };
        }
    }

    /// The transport changed, or the client was not read from for a while: what is awaited of it, a pong or in revision 3 a
    /// ping, gets its whole time again.
    pub fn await_anew(&mut self, now: Instant, config: &EngineConfig) {
        match self.heartbeat {
            Heartbeat::PingAt(_) => {}
            Heartbeat::PongBy { .. } => {
                let deadline = now + config.ping_timeout;
                self.heartbeat = Heartbeat::PongBy {
                    deadline,
                    extended: false,
                };
            }
            Heartbeat::ClientPingBy(_) => self.client_ping(now, config),
        }
    }

    /// A namespace was joined: the connect time-out is over.
    pub fn joined(&mut self) {
        self.connect_by = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> EngineConfig {
        EngineConfig {
            ping_interval: Duration::from_millis(300),
            ping_timeout: Duration::from_millis(200),
            connect_timeout: Duration::from_millis(1000),
            ..EngineConfig::default()
        }
    }

    fn started() -> (Clock, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Clock::new(start, &config(), Revision::V4), move |ms| {
            start + Duration::from_millis(ms)
        })
    }

    #[test]
    fn a_ping_goes_out_after_the_interval_and_its_pong_starts_the_next() {
        let (mut clock, at) = started();
        clock.joined();
        assert_eq!(clock.next(), at(300));
        assert_eq!(clock.due(at(299), &config()), None);
        assert_eq!(clock.due(at(300), &config()), Some(Due::Ping));
        assert_eq!(clock.due(at(300), &config()), None);
        clock.pong(at(350), &config());
        assert_eq!(clock.next(), at(650));
    }

    #[test]
    fn no_pong_ends_the_session_without_grace() {
        let (mut clock, at) = started();
        clock.joined();
        assert_eq!(clock.due(at(300), &config()), Some(Due::Ping));
        assert_eq!(clock.next(), at(500));
        assert_eq!(clock.due(at(500), &config()), Some(Due::PingTimeout));
    }

    #[test]
    fn a_ping_that_leaves_late_does_not_put_off_the_end() {
        let (mut clock, at) = started();
        clock.joined();
        assert_eq!(clock.due(at(330), &config()), Some(Due::Ping));
        assert_eq!(clock.next(), at(500));
    }

    #[test]
    fn a_ping_that_leaves_very_late_takes_no_more_than_half_of_the_time() {
        let (mut clock, at) = started();
        clock.joined();
        assert_eq!(clock.due(at(900), &config()), Some(Due::Ping));
        assert_eq!(clock.due(at(900), &config()), None);
        assert_eq!(clock.next(), at(1000));
    }

    #[test]
    fn the_first_other_packet_restarts_the_time_out_once() {
        let (mut clock, at) = started();
        clock.joined();
        clock.packet(at(100), &config());
        assert_eq!(clock.next(), at(300), "it does not delay a ping");
        clock.due(at(300), &config());
        clock.packet(at(450), &config());
        assert_eq!(clock.next(), at(650));
        clock.packet(at(600), &config());
        assert_eq!(clock.next(), at(650));
    }

    #[test]
    fn an_unsolicited_pong_restarts_the_interval() {
        let (mut clock, at) = started();
        clock.joined();
        clock.pong(at(200), &config());
        assert_eq!(clock.next(), at(500));
    }

    #[test]
    fn an_upgrade_gives_an_awaited_pong_its_time_again() {
        let (mut clock, at) = started();
        clock.joined();
        clock.await_anew(at(100), &config());
        assert_eq!(clock.next(), at(300));
        clock.due(at(300), &config());
        clock.await_anew(at(400), &config());
        assert_eq!(clock.next(), at(600));
    }

    #[test]
    fn a_client_of_revision_3_must_ping_and_nothing_else_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut clock = Clock::new(start, &config(), Revision::V3);
        clock.joined();
        assert_eq!(clock.next(), at(500));
        assert_eq!(clock.due(at(300), &config()), None, "it gets no ping");
        clock.client_ping(at(400), &config());
        clock.packet(at(600), &config());
        assert_eq!(clock.next(), at(900));
        assert_eq!(clock.due(at(899), &config()), None);
        assert_eq!(clock.due(at(900), &config()), Some(Due::PingTimeout));
        clock.await_anew(at(900), &config());
        assert_eq!(clock.next(), at(1400));
    }

    #[test]
    fn a_clock_goes_on_elsewhere_where_it_stood() {
        let (mut clock, at) = started();
        let moved = |clock: &Clock, now| {
            let (heartbeat, connect_within) = clock.remaining(now);
            Clock::resume(now, &config(), Revision::V4, heartbeat, connect_within)
        };
        let mut elsewhere = moved(&clock, at(100));
        assert_eq!(elsewhere.due(at(299), &config()), None);
        assert_eq!(elsewhere.due(at(300), &config()), Some(Due::Ping));
        elsewhere.pong(at(900), &config());
        assert_eq!(
            elsewhere.due(at(1000), &config()),
            Some(Due::ConnectTimeout)
        );
        clock.joined();
        clock.due(at(300), &config());
        let mut elsewhere = moved(&clock, at(400));
        assert_eq!(elsewhere.due(at(499), &config()), None);
        assert_eq!(elsewhere.due(at(500), &config()), Some(Due::PingTimeout));
        let far = portable::Heartbeat::PingInMs(u64::MAX);
        let late = Clock::resume(at(0), &config(), Revision::V4, far, Some(Duration::MAX));
        assert_eq!(late.next(), at(300), "nobody makes it wait longer");
    }

    #[test]
    fn a_client_that_joins_nothing_is_ended() {
        let quiet = EngineConfig {
            ping_interval: Duration::from_secs(25),
            ..config()
        };
        let start = Instant::now();
        let mut clock = Clock::new(start, &quiet, Revision::V4);
        let end = start + Duration::from_millis(1000);
        assert_eq!(clock.next(), end);
        assert_eq!(clock.due(end, &quiet), Some(Due::ConnectTimeout));
    }

    #[test]
    fn attachments_that_do_not_come_in_time_end_the_session_and_those_that_come_do_not() {
        let (mut clock, at) = started();
        let config = EngineConfig {
            body_timeout: Duration::from_millis(100),
            ..config()
        };
        clock.await_attachments(at(10), &config);
        assert_eq!(clock.next(), at(110));
        clock.attached();
        assert_eq!(clock.next(), at(300));
        clock.await_attachments(at(20), &config);
        assert_eq!(clock.due(at(119), &config), None);
        assert_eq!(clock.due(at(120), &config), Some(Due::AttachmentTimeout));
    }

    #[test]
    fn who_takes_nothing_of_what_waits_is_not_kept_by_its_pongs() {
        let (mut clock, at) = started();
        let limit = Duration::from_millis(600);
        clock.stalled(at(0), limit, &config());
        clock.pong(at(250), &config());
        // It goes on from when nothing could be written first.
        clock.stalled(at(500), limit, &config());
        clock.pong(at(500), &config());
        assert_eq!(clock.next(), at(600));
        clock.taken();
        assert_eq!(clock.next(), at(800));
        clock.stalled(at(700), limit, &config());
        clock.pong(at(1000), &config());
        clock.joined();
        clock.pong(at(1290), &config());
        assert_eq!(clock.due(at(1299), &config()), None);
        assert_eq!(clock.due(at(1300), &config()), Some(Due::WriteTimeout));
    }

    #[test]
    fn nobody_has_less_time_to_read_than_to_answer_a_ping() {
        let (mut clock, at) = started();
        clock.joined();
        clock.stalled(at(0), Duration::from_millis(1), &config());
        clock.pong(at(499), &config());
        assert_eq!(clock.due(at(499), &config()), None);
        assert_eq!(clock.due(at(500), &config()), Some(Due::WriteTimeout));
    }
}
