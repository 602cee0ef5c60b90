//! What can be wrong with a Redis, and what to do about it: the one table, for the log.
//!
//! Knows kinds of trouble, not connections. Who meets one says which it is; Redis' own errors are told by the word in capitals
//! that they begin with.
//!
//! Source: Redis 7: `src/server.c` (`createSharedObjects`), "ACL", "TLS", "Clients".

/// The rights that the user of `REDIS_URL` needs, as `ACL SETUSER` takes them, with the default `REDIS_PREFIX`.
///
/// `allchannels`, since a pattern may be subscribed to only where that very pattern is granted, and each namespace has one.
pub const ACL_RULE: &str = "allchannels ~socket.io:sockhop:* -@all +ping +hello +publish +subscribe +psubscribe \
     +unsubscribe +punsubscribe +pubsub|numsub +get +set";

/// The same for the sharded adapter, on one Redis or a Redis Cluster, where it must be granted on every node.
///
/// It uses no patterns, so its channels can be told.
pub const SHARDED_ACL_RULE: &str = "resetchannels &socket.io#* &socket.io-sockhop#* ~socket.io:sockhop:* -@all +ping +hello \
     +spublish +ssubscribe +sunsubscribe +pubsub|shardnumsub +cluster|slots +get +set +asking";

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is said by its text below")]
pub enum Fault {
    Address,
    Connect,
    Tls,
    TimedOut,
    Lost,
    TooLong,
    WrongPassword,
    NoPassword,
    NoPermission,
    Replica,
    Loading,
    OutOfMemory,
    DiskFailed,
    MasterDown,
    BusyScript,
    TooManyClients,
    Protected,
    Sentinel,
    Cluster,
    Unsuited,
    OtherRefusal,
}

impl Fault {
    /// Returns what Redis means by an error that begins with `code` and says `text`.
    pub fn of_code(code: &str, text: &str) -> Self {
        match code {
            "WRONGPASS" => Self::WrongPassword,
            "NOAUTH" => Self::NoPassword,
            "NOPERM" => Self::NoPermission,
            "READONLY" => Self::Replica,
            "LOADING" => Self::Loading,
            "OOM" => Self::OutOfMemory,
            "MISCONF" => Self::DiskFailed,
            "MASTERDOWN" | "NOREPLICAS" => Self::MasterDown,
            "BUSY" => Self::BusyScript,
            "DENIED" => Self::Protected,
            SENTINEL => Self::Sentinel,
            "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "CROSSSLOT" => Self::Cluster,
            "ERR" if text.contains("max number of clients") => Self::TooManyClients,
            _ => Self::OtherRefusal,
        }
    }

    /// Returns what to do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Address => "correct REDIS_URL",
            Self::Connect => "start Redis, or correct host and port in REDIS_URL",
            Self::Tls => {
                "check that its certificate is made out for the host in REDIS_URL, and that \
                 REDIS_CA_FILE holds the authority that signed it; if it wants one of ours, set REDIS_CERT_FILE"
            }
            Self::TimedOut => {
                "check the network, whether Redis is stopped or overloaded, and with rediss:// that this port speaks TLS"
            }
            Self::Lost => {
                "it was restarted or stopped, or closed the connection (CLIENT KILL, client-output-buffer-limit, maxclients, a \
                 changed ACL, a port that wants rediss:// or REDIS_CERT_FILE): its log tells"
            }
            Self::TooLong => {
                "find who publishes so much at once under our channels, or choose another REDIS_PREFIX"
            }
            Self::WrongPassword => "correct user and password in REDIS_URL",
            Self::NoPassword => {
                "put the password into REDIS_URL: redis://:password@host, or redis://user:password@host"
            }
            Self::NoPermission => {
                "grant the user of REDIS_URL what Sockhop needs: the ACL rule is in the README, \"When Redis fails\""
            }
            Self::Replica => {
                "this is a replica: let REDIS_URL name the primary; if it becomes one, all goes on"
            }
            Self::Loading => {
                "nothing is to be done: Redis is reading its data and will be there soon"
            }
            Self::OutOfMemory => {
                "raise maxmemory of Redis, or free some; accounts cannot be written"
            }
            Self::DiskFailed => {
                "Redis cannot save to its disk: free space there; its log tells more"
            }
            Self::MasterDown => {
                "Redis misses its primary or its replicas: start them, or let REDIS_URL name the primary"
            }
            Self::BusyScript => "a script of somebody else blocks Redis: SCRIPT KILL ends it",
            Self::TooManyClients => {
                "raise maxclients of Redis, or find who keeps so many connections"
            }
            Self::Protected => {
                "Redis is in protected mode: give it a password, or protected-mode no"
            }
            Self::Sentinel => "this is a Sentinel: let REDIS_URL name the Redis that it watches",
            Self::Cluster => {
                "make the Redis Cluster whole: redis-cli --cluster check tells what is amiss"
            }
            Self::Unsuited => {
                "set REDIS_ADAPTER to what this Redis can do, and on all instances and servers the same"
            }
            Self::OtherRefusal => "see what Redis says of this error; its log tells more",
        }
    }
}

/// Our own word for a Sentinel that we were led to.
pub const SENTINEL: &str = "SENTINEL";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_error_that_redis_may_send_us_has_advice_of_its_own() {
        let mut advice = HashSet::new();
        for (code, text, hint) in [
            ("WRONGPASS", "", "password in REDIS_URL"),
            ("NOAUTH", "", "put the password into REDIS_URL"),
            ("NOPERM", "", "ACL rule"),
            ("READONLY", "", "a replica"),
            ("LOADING", "", "nothing is to be done"),
            ("OOM", "", "maxmemory"),
            ("MISCONF", "", "disk"),
            ("MASTERDOWN", "", "primary"),
            ("BUSY", "", "SCRIPT KILL"),
            ("ERR", "max number of clients reached", "maxclients"),
            ("DENIED", "", "protected-mode"),
            (SENTINEL, "", "Sentinel"),
            ("CLUSTERDOWN", "", "cluster"),
            ("ERR", "unknown command", "see what Redis says"),
            ("NEW", "", "see what Redis says"),
        ] {
            let fault = Fault::of_code(code, text);
            assert!(fault.advice().contains(hint), "{code}: {}", fault.advice());
            advice.insert(fault.advice());
        }
        assert_eq!(advice.len(), 14, "two kinds share a text");
    }

    #[test]
    fn the_readme_grants_what_is_tested() {
        let readme = include_str!("../../README.md");
        for rule in [ACL_RULE, SHARDED_ACL_RULE] {
            assert!(readme.contains(rule), "the README must grant: {rule}");
        }
        assert!(readme.contains("## When Redis fails"));
    }
}
