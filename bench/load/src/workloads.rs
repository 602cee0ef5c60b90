//! The workloads: what is sent when, and what is measured meanwhile.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use crate::{
    args::Args,
    fleet::{Fleet, MOST_HELD, Manner, Role},
    process, wire,
};

type Result<T> = std::result::Result<T, String>;

/// What was measured, by name.
type Figures = Vec<(&'static str, f64)>;

/// How long connecting, or the last deliveries, may take before it counts as a failure, or they as lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long memory may settle before it is read.
const SETTLE: Duration = Duration::from_secs(3);

/// Clients of `idle` that are not counted.
const FIRST: usize = 100;

/// How often a server pings a client, if it is at its defaults: so long a silence has one ping for each.
const PING_INTERVAL: Duration = Duration::from_secs(25);

/// Clients of `growth` that warm up compilers and pools, that join and leave, and that disconnect at once.
const FEW: usize = 50;

/// How often each of them joins and leaves.
const JOINS: usize = 40;

/// How often a few disconnect, and as many others come in their place.
const DEPARTURES: usize = 20;

/// How long a server has to forget who disconnected, once it has closed the connections.
const FORGET: Duration = Duration::from_millis(100);

/// How long a server may take until a connection that it has given up is closed.
const FAREWELL: Duration = Duration::from_secs(4);

/// Broadcasts that are on their way at once while queues are filled.
const FILLING_AT_ONCE: u32 = 8;

struct Bench {
    fleet: Fleet,
    pids: Vec<u32>,
    /// Processes beside the servers, without which they would not be what they are: Redis.
    also: Vec<u32>,
    sockets: usize,
    /// Clients beside them, and what they are there for, if such were asked for, be it none.
    further: Option<(usize, Role)>,
    /// Bytes for each of those before the measured part.
    fill: u64,
    rate: f64,
    window: u32,
    seconds: Duration,
    warmup: Duration,
    /// Events sent to each group so far; a group is a room, or everyone.
    sent: Vec<u32>,
}

/// The clocks at the beginning of a measurement.
struct Mark {
    at: Instant,
    server_ns: u64,
    also_ns: u64,
    load_ns: u64,
    machine_ns: u64,
    rss_kib: u64,
}

/// Returns how many further clients were asked for, and what they are there for.
fn further(args: &Args) -> Result<Option<(usize, Role)>> {
    let asked = |name| args.text(name).map(|_| args.get(name, 0)).transpose();
    let (beside, deaf) = (asked("beside")?, asked("deaf")?);
    if (beside.is_some() || deaf.is_some())
        && (args.workload != "steady" || args.text("transport") == Some("polling"))
    {
        return Err("--beside and --deaf: steady over WebSocket only".to_owned());
    }
    match (beside, deaf) {
        (Some(_), Some(_)) => Err("--beside and --deaf: one of both".to_owned()),
        (Some(num), None) => Ok(Some((num, Role::Beside))),
        (None, deaf) => Ok(deaf.map(|num| (num, Role::Deaf))),
    }
}

/// Runs the workload that was asked for. Returns its figures as one line of JSON.
pub(crate) fn run(args: &Args) -> Result<String> {
    let open_files = process::raise_open_files();
    let sockets = args.get("sockets", 1000)?;
    let further = further(args)?;
    let all = sockets + further.map_or(0, |(num, _)| num);
    if open_files < all as u64 + 64 {
        return Err(format!(
            "{open_files} open files are allowed and {all} sockets asked for: ulimit -n {}",
            all + 64
        ));
    }
    let workload = args.workload.as_str();
    let payload: usize = args.get("payload", 128)?;
    if payload < wire::MIN_PAYLOAD {
        return Err(format!("--payload: at least {}", wire::MIN_PAYLOAD));
    }
    let token = args
        .text("token")
        .map(|token| format!("{{\"token\":\"{token}\"}}"));
    let groups = if workload == "rooms" {
        args.get("rooms", 1000)?
    } else {
        1
    };
    let manner = Manner {
        targets: args.list("targets")?,
        namespace: args.get("namespace", "/events".to_owned())?,
        auth: token.unwrap_or_default(),
        polls: args.text("transport") == Some("polling"),
        event: if ["rooms", "growth"].contains(&workload) {
            "said"
        } else {
            "test-event"
        }
        .to_owned(),
        payload,
    };
    if manner.targets.is_empty() {
        return Err("--targets is missing".to_owned());
    }
    let mut bench = Bench {
        fleet: Fleet::new(manner)?,
        pids: args.list("pids")?,
        also: args.list("also")?,
        sockets,
        further,
        fill: args.get("fill", 64)? * 1024,
        rate: args.get("rate", 20.0)?,
        window: args.get("window", 64)?,
        seconds: Duration::from_secs_f64(args.get("seconds", 5.0)?),
        warmup: Duration::from_secs_f64(args.get("warmup", 1.0)?),
        sent: vec![0; groups],
    };
    let figures = match workload {
        "connect" => bench.connect(),
        "idle" => bench.idle(),
        "steady" => bench.steady(),
        "flood" => bench.flood(),
        "acks" => bench.acks(),
        "rooms" => bench.rooms(),
        "growth" => bench.growth(),
        other => Err(format!("{other}: not a workload")),
    };
    let fields: Vec<_> = figures?
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    Ok(format!("{{{}}}", fields.join(",")))
}

impl Bench {
    fn mark(&mut self) -> Result<Mark> {
        self.fleet.tally.clear();
        let failed = |err: std::io::Error| format!("/proc: {err}");
        Ok(Mark {
            at: Instant::now(),
            server_ns: process::cpu_ns(&self.pids).map_err(failed)?,
            also_ns: process::cpu_ns(&self.also).map_err(failed)?,
            load_ns: process::cpu_ns(&[std::process::id()]).map_err(failed)?,
            machine_ns: process::machine_ns().map_err(failed)?,
            rss_kib: process::rss_kib(&self.pids).map_err(failed)?,
        })
    }

    /// The figures since `mark`.
    fn report(&mut self, mark: &Mark) -> Result<Figures> {
        let missing = self.fleet.count_missing(&self.sent);
        let duplicates = self.fleet.count_duplicates(&self.sent);
        let Mark {
            at,
            server_ns,
            also_ns,
            load_ns,
            machine_ns,
            rss_kib,
        } = *mark;
        let seconds = at.elapsed().as_secs_f64();
        let tally = &self.fleet.tally;
        let (latency, near, far) = (&tally.latency, &tally.near, &tally.far);
        let connect = &self.fleet.connect_time;
        let failed = |err: std::io::Error| format!("/proc: {err}");
        let server_ns = process::cpu_ns(&self.pids).map_err(failed)? - server_ns;
        let also_ns = process::cpu_ns(&self.also).map_err(failed)? - also_ns;
        let load_ns = process::cpu_ns(&[std::process::id()]).map_err(failed)? - load_ns;
        let machine_ns = process::machine_ns().map_err(failed)? - machine_ns;
        let rss_after = process::rss_kib(&self.pids).map_err(failed)?;
        Ok(vec![
            ("seconds", seconds),
            ("sockets", self.sockets as f64),
            ("server_ns", server_ns as f64),
            ("also_ns", also_ns as f64),
            ("load_ns", load_ns as f64),
            ("machine_ns", machine_ns as f64),
            ("delivered", tally.delivered as f64),
            ("acked", tally.acked as f64),
            ("p50_us", latency.quantile(0.5) as f64),
            ("p99_us", latency.quantile(0.99) as f64),
            ("p999_us", latency.quantile(0.999) as f64),
            ("max_us", latency.max() as f64),
            ("near_p50_us", near.quantile(0.5) as f64),
            ("near_p99_us", near.quantile(0.99) as f64),
            ("far_p50_us", far.quantile(0.5) as f64),
            ("far_p99_us", far.quantile(0.99) as f64),
            ("connect_p50_us", connect.quantile(0.5) as f64),
            ("connect_p99_us", connect.quantile(0.99) as f64),
            ("connect_p999_us", connect.quantile(0.999) as f64),
            ("lost", missing as f64),
            ("duplicated", duplicates as f64),
            ("disordered", tally.disordered as f64),
            ("strange", tally.strange as f64),
            ("ended", tally.ended as f64),
            ("rss_before_kib", rss_kib as f64),
            ("rss_after_kib", rss_after as f64),
        ])
    }

    /// Processor time of the servers since `mark`, for each of `num` things.
    fn server_ns_each(&self, mark: &Mark, num: usize) -> Result<f64> {
        let now = process::cpu_ns(&self.pids).map_err(|err| format!("/proc: {err}"))?;
        Ok((now - mark.server_ns) as f64 / num as f64)
    }

    fn join_all(&mut self) -> Result<()> {
        let (num, role) = self.further.unwrap_or((0, Role::Beside));
        let roles = Role::spread(self.sockets, num, role);
        self.fleet.connect_as(roles, self.sent.len(), PATIENCE)
    }

    /// Serves the clients until `done`, or until patience ends.
    fn serve_until(&mut self, patience: Duration, done: impl Fn(&Self) -> bool) -> Result<bool> {
        let deadline = Instant::now() + patience;
        while !done(self) {
            if Instant::now() > deadline || self.fleet.tally.ended > 0 {
                return Ok(false);
            }
            self.fleet.turn(Some(Duration::from_millis(20)))?;
        }
        Ok(true)
    }

    /// Waits for what is still on its way.
    fn drain(&mut self) -> Result<bool> {
        self.serve_until(PATIENCE / 6, |bench| {
            bench.fleet.count_missing(&bench.sent) == 0
        })
    }

    /// Just-in-time compilers and pools warm up with as many clients as are then measured.
    fn connect(&mut self) -> Result<Figures> {
        self.fleet.connect(self.sockets, 1, PATIENCE)?;
        let mark = self.mark()?;
        self.fleet.connect_time.clear();
        self.fleet.connect(self.sockets, 1, PATIENCE)?;
        self.report(&mark)
    }

    /// The first clients are not counted: with them come code, pools and tables that do not grow with the next.
    fn idle(&mut self) -> Result<Figures> {
        self.fleet.connect(FIRST, 1, PATIENCE)?;
        self.serve_until(SETTLE, |_| false)?;
        let mark = self.mark()?;
        self.fleet.connect(self.sockets, 1, PATIENCE)?;
        self.serve_until(SETTLE, |_| false)?;
        let mut figures = self.report(&mark)?;
        // All have been there for less than an interval, so each is pinged once.
        let mark = self.mark()?;
        self.serve_until(PING_INTERVAL, |_| false)?;
        let silence_ns = self.server_ns_each(&mark, FIRST + self.sockets)?;
        figures.push(("silence_ns", silence_ns));
        figures.push(("ended_in_silence", self.fleet.tally.ended as f64));
        Ok(figures)
    }

    fn steady(&mut self) -> Result<Figures> {
        self.join_all()?;
        let speaker = self.speaker()?;
        let mut event = move |bench: &mut Self| {
            bench
                .fleet
                .put_event(speaker, None, "test-event", "", bench.sent[0]);
            bench.sent[0] += 1;
            bench.fleet.flush(speaker);
        };
        if let Some((num, role)) = self.further {
            return self.beside(num, role, &mut event);
        }
        self.at_rate(event)
    }

    /// What the measured clients notice of so many others, whose queues are filled first if they do not read.
    fn beside(
        &mut self,
        num: usize,
        role: Role,
        event: &mut impl FnMut(&mut Self),
    ) -> Result<Figures> {
        let num_deaf = if role == Role::Deaf { num } else { 0 };
        let joined_kib = self.mark()?.rss_kib;
        let every = Duration::from_secs_f64(1.0 / self.rate);
        self.send_for(self.warmup, every, event)?;
        self.drain()?;
        self.fill(num_deaf, event)?;
        let (least, most) = self.unsent(num_deaf)?;
        let sent_before = self.sent[0];
        let mark = self.mark()?;
        self.send_for(self.seconds, every, event)?;
        self.drain()?;
        let mut figures = self.report(&mark)?;
        let due = (self.sent[0] - sent_before) as usize * (self.sockets + num);
        if num_deaf > 0 {
            self.serve_until(FAREWELL, |_| false)?;
        }
        let stayed = self.fleet.deaf_queues()?.len();
        figures.extend([
            ("due", due as f64),
            ("further", num as f64),
            ("deaf", num_deaf as f64),
            ("deaf_stayed", stayed as f64),
            ("unsent_least_kib", least as f64 / 1024.0),
            ("unsent_most_kib", most as f64 / 1024.0),
            ("rss_joined_kib", joined_kib as f64),
        ]);
        Ok(figures)
    }

    /// Sends until each deaf client has as much waiting in the server as was asked for; if there is none, until everyone got that much.
    fn fill(&mut self, num_deaf: usize, event: &mut impl FnMut(&mut Self)) -> Result<()> {
        let begin = self.sent[0];
        loop {
            let got = u64::from(self.sent[0] - begin) * self.fleet.delivery_bytes();
            let waiting = match num_deaf {
                0 => got,
                _ => self.unsent(num_deaf)?.0,
            };
            if waiting >= self.fill {
                return Ok(());
            }
            if got > self.fill + MOST_HELD {
                return Err(format!(
                    "{got} bytes were sent to each and {waiting} wait: the kernel holds more than it was to, or some have left"
                ));
            }
            for _ in 0..FILLING_AT_ONCE {
                event(self);
            }
            if !self.drain()? {
                return Err("events were lost before anything was measured".to_owned());
            }
        }
    }

    /// Returns the least and the most of what a deaf client was sent and the kernel does not hold for it, in bytes: it waits in the
    /// server, or the server has dropped it. One that has left has nothing waiting.
    fn unsent(&self, num_deaf: usize) -> Result<(u64, u64)> {
        let due = u64::from(self.sent[0]) * self.fleet.delivery_bytes();
        let queues = self.fleet.deaf_queues()?;
        let unsent = |held: u64| due.saturating_sub(held);
        let all = || queues.iter().map(|queue| unsent(queue.bytes()));
        let has_left = queues.len() < num_deaf;
        let least = all().min().filter(|_| !has_left).unwrap_or(0);
        Ok((least, all().max().unwrap_or(0)))
    }

    /// Who sends to all: client 0, or its second connection if it polls.
    fn speaker(&mut self) -> Result<usize> {
        if self.fleet.is_polling() {
            self.fleet.add_mouth(0)
        } else {
            Ok(0)
        }
    }

    fn at_rate(&mut self, mut event: impl FnMut(&mut Self)) -> Result<Figures> {
        let every = Duration::from_secs_f64(1.0 / self.rate);
        self.send_for(self.warmup, every, &mut event)?;
        self.drain()?;
        let mark = self.mark()?;
        self.send_for(self.seconds, every, &mut event)?;
        self.drain()?;
        self.report(&mark)
    }

    fn send_for(
        &mut self,
        time: Duration,
        every: Duration,
        event: &mut impl FnMut(&mut Self),
    ) -> Result<()> {
        let begin = Instant::now();
        let mut due = begin;
        while begin.elapsed() < time && self.fleet.tally.ended == 0 {
            let now = Instant::now();
            while due <= now {
                event(self);
                due += every;
            }
            self.fleet.turn(Some(due.saturating_duration_since(now)))?;
        }
        Ok(())
    }

    /// One client sends as fast as all others keep up: never more than a window of broadcasts ahead of the average client.
    fn flood(&mut self) -> Result<Figures> {
        self.join_all()?;
        let speaker = self.speaker()?;
        self.flood_for(self.warmup, speaker)?;
        self.drain()?;
        let mark = self.mark()?;
        self.flood_for(self.seconds, speaker)?;
        self.drain()?;
        self.report(&mark)
    }

    fn flood_for(&mut self, time: Duration, speaker: usize) -> Result<()> {
        let begin = Instant::now();
        let sent_before = self.sent[0];
        let delivered_before = self.fleet.tally.delivered;
        while begin.elapsed() < time && self.fleet.tally.ended == 0 {
            let arrived = (self.fleet.tally.delivered - delivered_before) / self.sockets as u64;
            let may = (arrived as u32 + self.window).saturating_sub(self.sent[0] - sent_before);
            for _ in 0..may {
                self.fleet
                    .put_event(speaker, None, "test-event", "", self.sent[0]);
                self.sent[0] += 1;
            }
            if may > 0 {
                self.fleet.flush(speaker);
            }
            self.fleet.turn(Some(Duration::from_millis(20)))?;
        }
        Ok(())
    }

    /// Every client keeps a window of `echo` in flight.
    fn acks(&mut self) -> Result<Figures> {
        self.join_all()?;
        self.fleet.echoes = true;
        for client in 0..self.sockets {
            for id in 0..self.window {
                self.fleet.put_event(client, Some(id), "echo", "", id);
            }
            self.fleet.flush(client);
        }
        self.serve_until(self.warmup, |_| false)?;
        let mark = self.mark()?;
        self.serve_until(self.seconds, |_| false)?;
        // Before the last ones have come: the rate counts, and none of them is a delivery.
        self.report(&mark)
    }

    /// The first client of each room speaks to it, room after room.
    fn rooms(&mut self) -> Result<Figures> {
        self.join_all()?;
        let num_rooms = self.sent.len();
        let client_and_room = |client| (client, "join", format!("r{}", client % num_rooms));
        self.move_about((0..self.sockets).map(client_and_room))?;
        let mut room = 0;
        self.at_rate(move |bench: &mut Self| {
            let first = format!("\"r{room}\",");
            bench
                .fleet
                .put_event(room, None, "say", &first, bench.sent[room]);
            bench.sent[room] += 1;
            bench.fleet.flush(room);
            room = (room + 1) % bench.sent.len();
        })
    }

    /// Lets clients join or leave rooms, and waits until they have.
    fn move_about(
        &mut self,
        moves: impl Iterator<Item = (usize, &'static str, String)>,
    ) -> Result<()> {
        self.fleet.tally.clear();
        let mut num = 0;
        for (client, event, room) in moves {
            let packet = format!("42{},0[\"{event}\",\"{room}\"]", self.fleet.namespace());
            self.fleet.put(client, packet.as_bytes());
            self.fleet.flush(client);
            num += 1;
        }
        if !self.serve_until(PATIENCE, |bench| bench.fleet.tally.acked == num)? {
            return Err("not every client could join its room, or leave it".to_owned());
        }
        Ok(())
    }

    /// What each connect, delivery, join and disconnect costs among so many others, each of whom is in a room of its own, too.
    fn growth(&mut self) -> Result<Figures> {
        self.fleet.connect(FEW, 1, PATIENCE)?;
        let mark = self.mark()?;
        self.fleet.connect(self.sockets - FEW, 1, PATIENCE)?;
        let connect_ns = self.server_ns_each(&mark, self.sockets - FEW)?;
        self.settle_in(0..self.sockets)?;
        let mut figures = self.at_rate(|bench: &mut Self| {
            bench
                .fleet
                .put_event(0, None, "say", "\"all\",", bench.sent[0]);
            bench.sent[0] += 1;
            bench.fleet.flush(0);
        })?;
        let mark = self.mark()?;
        for _ in 0..JOINS {
            for event in ["join", "leave"] {
                self.move_about((0..FEW).map(|client| (client, event, format!("x{client}"))))?;
            }
        }
        let move_ns = self.server_ns_each(&mark, 2 * JOINS * FEW)?;
        let disconnect_ns = self.departures()?;
        figures.extend([
            ("connect_ns", connect_ns),
            ("move_ns", move_ns),
            ("disconnect_ns", disconnect_ns),
        ]);
        Ok(figures)
    }

    /// Lets clients join the room of all, and each its own.
    fn settle_in(&mut self, clients: Range<usize>) -> Result<()> {
        self.move_about(
            clients
                .clone()
                .map(|client| (client, "join", "all".to_owned())),
        )?;
        self.move_about(clients.map(|client| (client, "join", format!("r{client}"))))
    }

    /// What a disconnect costs, without a word, of those that have been there longest. Others come in their place.
    fn departures(&mut self) -> Result<f64> {
        let mut sum_ns = 0.0;
        for round in 0..DEPARTURES {
            let mark = self.mark()?;
            for client in round * FEW..(round + 1) * FEW {
                self.fleet.disconnect(client);
            }
            if !self.serve_until(PATIENCE, |bench| bench.fleet.tally.closed == FEW as u64)? {
                return Err("not every client was let go that disconnected".to_owned());
            }
            self.serve_until(FORGET, |_| false)?;
            sum_ns += self.server_ns_each(&mark, FEW)?;
            let first = self.sockets + round * FEW;
            self.fleet.connect(FEW, 1, PATIENCE)?;
            self.settle_in(first..first + FEW)?;
        }
        Ok(sum_ns / DEPARTURES as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &str) -> Result<Option<(usize, Role)>> {
        further(&Args::read(words.split(' ').map(str::to_owned))?)
    }

    #[test]
    fn further_clients_are_of_one_kind_and_only_where_they_are_served() {
        assert_eq!(asked("steady"), Ok(None));
        assert_eq!(asked("flood --sockets 10"), Ok(None));
        assert_eq!(asked("steady --deaf 7"), Ok(Some((7, Role::Deaf))));
        assert_eq!(asked("steady --beside 9"), Ok(Some((9, Role::Beside))));
        assert_eq!(asked("steady --beside 0"), Ok(Some((0, Role::Beside))));
        for words in [
            "steady --deaf 7 --beside 9",
            "flood --deaf 7",
            "growth --beside 7",
            "steady --beside 7 --transport polling",
            "steady --deaf -1",
            "steady --deaf many",
            "steady --deaf",
        ] {
            assert!(asked(words).is_err(), "{words}");
        }
    }
}
