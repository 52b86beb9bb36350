//! Several gateways with one slot and one queue: what it costs to share, and what becomes of it when something dies.
//!
//! ```sh
//! make fleet
//! cargo bench --bench fleet -- --only scale --gateways 1,4 --seconds 10
//! ```
//! Gateways are real processes ([`town`]), and so is the Redis between them. The upstream is the simulator in a thread of its
//! own, so that it can be asked afterwards what arrived, and when. Everybody shares the machine's cores: what is compared is
//! not how fast a gateway is.
//!
//! | part | shows |
//! |---|---|
//! | `scale` ([`scale`]) | one gateway without Redis, then 1, 2, 4 and 8 that share, under one load: the same lookups at the same moments in an open loop, customers drawn by Zipf, spread over the gateways by chance |
//! | `outage` ([`outage`]) | three gateways under such a load, while Redis stands still, and while it is gone; latency before, during and after |
//! | `kills` ([`kills`]) | five gateways that are asked for more than there are slots, one of them killed every 5 s and started anew |
//! | `wake` ([`wake`]) | five gateways, at each of which somebody waits for the same customer: how much later than the first the others are told |
//!
//! Every answer is compared with what the upstream has of each customer, byte for byte. Latency counts from when a lookup was
//! due. An operation is a script that a gateway has run in Redis; with two in a second each finds out whether Redis is of use.
//!
//! Without `--bench`, which `cargo bench` says, each part is run for a moment with two gateways, and nothing may be wrong: a
//! smoke test.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on ends")]

#[path = "../scale/zipf.rs"]
mod zipf;

mod ask;
mod kills;
mod load;
mod options;
mod outage;
mod redis;
mod results;
mod scale;
mod town;
mod wake;

use std::io::{self, Write as _};

use clap::Parser;

use crate::options::{Options, Part};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut options = Options::parse();
    let smoke = !options.bench || options.test;
    if smoke {
        options = options.smoke();
    }
    let mut out = io::stdout();
    for part in [Part::Scale, Part::Outage, Part::Kills, Part::Wake] {
        if !options.wants(part) {
            continue;
        }
        let text = match part {
            Part::Scale => scale::measure(&options).await,
            Part::Outage => outage::measure(&options).await,
            Part::Kills => kills::measure(&options).await,
            Part::Wake => wake::measure(&options).await,
        };
        writeln!(out, "\n## {}\n\n{text}", part.title()).unwrap();
        if !smoke && options.is_whole(part) {
            results::put(part.title(), &text);
        }
    }
}
