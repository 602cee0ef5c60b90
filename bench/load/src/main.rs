//! `load`: one workload against one running server (or several instances of it). Prints one line of JSON.
//!
//! Started by `bench/run.mjs`, which starts the servers, too; by hand, see bench/README.md. All clients are in one thread, and what
//! that thread used of the processor is printed beside what the servers used.
//!
//! | option | default | meaning |
//! | --- | --- | --- |
//! | `--targets` | | `address:port`, commas between several; clients take turns |
//! | `--pids` | | processes whose processor time and memory are counted |
//! | `--also` | | processes whose processor time is told beside that: Redis |
//! | `--sockets` | 1000 | clients |
//! | `--payload` | 128 | bytes of each event's argument, as JSON |
//! | `--rate` | 20 | events per second, of all senders together |
//! | `--window` | 64 | flood: broadcasts in flight; acks: events in flight of each client |
//! | `--rooms` | 1000 | rooms: how many |
//! | `--seconds`, `--warmup` | 5, 1 | measured, and before that unmeasured |
//! | `--namespace`, `--token` | `/events`, none | what they join, and the token they bring |
//! | `--transport` | `websocket` | or `polling` |
//! | `--beside`, `--deaf` | 0 | steady over WebSocket, one of both: further clients whose latencies do not count; deaf ones never read once they have joined |
//! | `--fill` | 64 | with these: KiB that each gets before the measured part; a deaf one, in the server, beyond what the kernel takes |

mod args;
mod fleet;
mod histogram;
mod process;
mod queues;
mod wire;
mod workloads;

use std::process::ExitCode;

use args::Args;

fn main() -> ExitCode {
    let result = Args::read(std::env::args().skip(1)).and_then(|args| workloads::run(&args));
    match result {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(err) => {
            eprintln!("load: {err}");
            ExitCode::FAILURE
        }
    }
}
