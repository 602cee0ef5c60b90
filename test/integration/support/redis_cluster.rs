//! A real Redis Cluster for one test: masters, and a replica of each that a test wants one for, on free ports of 127.0.0.1.
//!
//! Waits until every node says that the cluster is whole. Gone when dropped.

use std::{
    cell::Cell,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    line::Line,
    redis_server::{RedisServer, free_port},
    slow_line,
};

/// How many slots a cluster has.
const NUM_SLOTS: usize = 16_384;
/// How long a node may be silent before the others give it up. Longer, and the tests are slow; shorter, and a busy machine
/// looks like a dead node.
const NODE_TIMEOUT_MILLIS: &str = "3000";
/// How often nodes are asked whether they agree, with [`PAUSE`] between.
const ATTEMPTS: usize = 1500;
const PAUSE: Duration = Duration::from_millis(20);
/// When a planned failover is asked for again.
const RETRY_AFTER: Duration = Duration::from_secs(6);

/// A running cluster.
pub(crate) struct RedisCluster {
    nodes: Vec<Node>,
    /// How long everything takes that nodes say to one another, if longer than it needs.
    delay: Option<Duration>,
}

struct Node {
    server: RedisServer,
    id: String,
    /// The port that the others know: of TLS, if they speak that among themselves.
    port: u16,
    /// Where the others find its end of the bus of the cluster.
    bus_port: u16,
    /// What leads there, if that is not the node itself.
    _line: Option<Line>,
    is_dead: bool,
}

impl Node {
    /// Starts one; with TLS, if there is a directory of certificates; reached late by the others, if there is a delay.
    fn start(tls: Option<&Path>, delay: Option<Duration>) -> Self {
        let (line, own_bus_port) = match delay {
            Some(delay) => {
                let (line, port) = slow_line::lay(delay, free_port);
                (Some(line), port)
            }
            None => (None, free_port()),
        };
        let bus_port = line.as_ref().map_or(own_bus_port, Line::port);
        let (own_bus, bus) = (own_bus_port.to_string(), bus_port.to_string());
        let args = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            NODE_TIMEOUT_MILLIS,
            "--cluster-port",
            &own_bus,
            "--cluster-announce-bus-port",
            &bus,
        ];
        let (server, port) = match tls {
            Some(dir) => {
                let args = [&args[..], &["--tls-cluster", "yes"]].concat();
                RedisServer::start_tls_with(dir, &args)
            }
            None => {
                let server = RedisServer::start_with(&args);
                let port = server.port();
                (server, port)
            }
        };
        let id = text(&server, &["CLUSTER", "MYID"]);
        let id = id.lines().nth(1).unwrap().to_owned();
        Self {
            server,
            id,
            port,
            bus_port,
            _line: line,
            is_dead: false,
        }
    }

    fn says(&self, command: &[&str]) -> String {
        text(&self.server, command)
    }

    fn obeys(&self, command: &[&str]) {
        let answer = self.says(command);
        assert_eq!(answer, "+OK\r\n", "{command:?}");
    }
}

fn text(server: &RedisServer, command: &[&str]) -> String {
    let command: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
    String::from_utf8(server.command(&command)).unwrap()
}

impl RedisCluster {
    /// Starts one of three masters, the slots shared evenly.
    pub(crate) fn start() -> Self {
        Self::start_of(None, None)
    }

    /// Starts one whose nodes hear one another so much later.
    pub(crate) fn start_wide(delay: Duration) -> Self {
        Self::start_of(None, Some(delay))
    }

    /// Starts one whose nodes and clients speak TLS, with the certificates of `dir`, see [`RedisServer::start_tls`].
    pub(crate) fn start_tls(dir: &Path) -> Self {
        Self::start_of(Some(dir), None)
    }

    fn start_of(tls: Option<&Path>, delay: Option<Duration>) -> Self {
        let nodes: Vec<_> = (0..3).map(|_| Node::start(tls, delay)).collect();
        for (at, node) in nodes.iter().enumerate() {
            let first = (at * NUM_SLOTS / 3).to_string();
            let last = ((at + 1) * NUM_SLOTS / 3 - 1).to_string();
            node.obeys(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            // Or all three would be epoch 0 and settle that among themselves.
            let epoch = (at + 1).to_string();
            node.obeys(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
        }
        let cluster = Self { nodes, delay };
        for node in cluster.nodes.iter().skip(1) {
            cluster.introduce(node);
        }
        cluster.settle();
        cluster
    }

    /// Adds a replica of a master and waits until it has caught up.
    pub(crate) fn add_replica_of(&mut self, master: usize) {
        self.add_master();
        let replica = self.nodes.last().unwrap();
        replica.obeys(&["CLUSTER", "REPLICATE", &self.nodes[master].id]);
        until("the replica has caught up", || {
            let info = replica.says(&["INFO", "replication"]);
            info.contains("role:slave") && info.contains("master_link_status:up")
        });
        // The others must know what it is before they can vote for it.
        until("all know the replica", || {
            self.nodes.iter().all(|node| {
                let nodes = node.says(&["CLUSTER", "NODES"]);
                let mut lines = nodes.lines();
                lines.any(|line| line.contains(&replica.id) && line.contains("slave"))
            })
        });
    }

    /// Adds a master that has nothing.
    pub(crate) fn add_master(&mut self) {
        let node = Node::start(None, self.delay);
        self.introduce(&node);
        self.nodes.push(node);
        self.settle();
    }

    fn introduce(&self, node: &Node) {
        let port = node.port.to_string();
        let bus = node.bus_port.to_string();
        self.nodes[0].obeys(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    }

    fn settle(&self) {
        let known = format!("cluster_known_nodes:{}\r\n", self.nodes.len());
        until("the cluster is whole", || {
            self.nodes.iter().all(|node| {
                let info = node.says(&["CLUSTER", "INFO"]);
                let nodes = node.says(&["CLUSTER", "NODES"]);
                info.contains("cluster_state:ok")
                    && info.contains(&known)
                    && !nodes.contains("handshake")
            })
        });
    }

    /// Returns the address of a node for `REDIS_URL`.
    pub(crate) fn url_of(&self, node: usize) -> String {
        self.nodes[node].server.url()
    }

    /// Returns the same for TLS.
    pub(crate) fn tls_url_of(&self, node: usize) -> String {
        format!("rediss://127.0.0.1:{}", self.nodes[node].port)
    }

    /// Returns the slot of a channel.
    pub(crate) fn slot_of(&self, channel: &str) -> usize {
        let answer = self.alive().says(&["CLUSTER", "KEYSLOT", channel]);
        answer.trim().trim_start_matches(':').parse().unwrap()
    }

    /// Returns which of the three first masters has a channel, as long as no slot has moved.
    pub(crate) fn owner_of(&self, channel: &str) -> usize {
        let slot = self.slot_of(channel);
        (0..3)
            .find(|at| slot < (at + 1) * NUM_SLOTS / 3)
            .expect("every slot has an owner")
    }

    /// Returns a channel's name, made by a function of a number, whose slot a node has.
    pub(crate) fn name_at(&self, node: usize, name: impl Fn(usize) -> String) -> String {
        let mut names = (0..).map(name);
        names.find(|name| self.owner_of(name) == node).unwrap()
    }

    /// Sets a slot on its way from one master to another: what is there stays, what is not is looked for and made at the other.
    pub(crate) fn begin_to_move_slot(&self, slot: usize, from: usize, to: usize) {
        let slot = slot.to_string();
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        to.obeys(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.id]);
        from.obeys(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id]);
    }

    /// Moves a slot from one master to another, as `redis-cli --cluster reshard` does.
    pub(crate) fn move_slot(&self, slot: usize, from: usize, to: usize) {
        self.begin_to_move_slot(slot, from, to);
        let slot = slot.to_string();
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        to.obeys(&["CLUSTER", "SETSLOT", &slot, "NODE", &to.id]);
        from.obeys(&["CLUSTER", "SETSLOT", &slot, "NODE", &to.id]);
        for other in &self.nodes {
            other.obeys(&["CLUSTER", "SETSLOT", &slot, "NODE", &to.id]);
        }
    }

    /// Returns how many connections listen to a sharded channel, on all nodes.
    pub(crate) fn num_subscribers(&self, channel: &str) -> usize {
        let alive = self.nodes.iter().filter(|node| !node.is_dead);
        alive
            .map(|node| {
                let answer = node.says(&["PUBSUB", "SHARDNUMSUB", channel]);
                let count = answer.trim().rsplit(':').next().unwrap();
                count.parse::<usize>().unwrap()
            })
            .sum()
    }

    /// Returns how often a node was given a command, in lower case.
    pub(crate) fn num_calls(&self, node: usize, command: &str) -> usize {
        let stats = self.nodes[node].says(&["INFO", "commandstats"]);
        let calls = stats.split(&format!("cmdstat_{command}:calls=")).nth(1);
        calls.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }

    /// Returns how many messages of sharded channels a node has "sent" to the others of its kind, or "received" of them.
    pub(crate) fn num_passed_on(&self, node: usize, how: &str) -> usize {
        let info = self.nodes[node].says(&["CLUSTER", "INFO"]);
        let name = format!("cluster_stats_messages_publishshard_{how}:");
        let num = info.lines().find_map(|line| line.strip_prefix(&name));
        num.map_or(0, |num| num.parse().unwrap())
    }

    /// Lets a replica take over from its master, who is alive and agrees.
    pub(crate) fn hand_over_to(&self, replica: usize) {
        // Redis gives a planned failover up after 5 s, and then says nothing.
        let asked = Cell::new(None::<Instant>);
        until("the replica is a master", || {
            if asked
                .get()
                .is_none_or(|asked| asked.elapsed() > RETRY_AFTER)
            {
                self.nodes[replica].says(&["CLUSTER", "FAILOVER"]);
                asked.set(Some(Instant::now()));
            }
            self.nodes.iter().all(|node| {
                let nodes = node.says(&["CLUSTER", "NODES"]);
                let mut lines = nodes.lines();
                lines.any(|line| line.contains(&self.nodes[replica].id) && line.contains("master"))
            })
        });
    }

    /// Kills a node as a crash would.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].server.kill();
        self.nodes[node].is_dead = true;
    }

    fn alive(&self) -> &Node {
        self.nodes.iter().find(|node| !node.is_dead).unwrap()
    }
}

/// Asks again and again until it is so: nodes tell nobody when they agree.
fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..ATTEMPTS {
        if is_so() {
            return;
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "the test's own thread waits for other processes"
        )]
        sleep(PAUSE);
    }
    panic!("not in time: {what}");
}
