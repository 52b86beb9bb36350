//! Gateways that are asked for more than there are slots, one of them killed every few seconds: nobody else notices.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use audience_gateway::clock;
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};

use crate::{
    ask::{Callers, Said},
    load,
    options::{Options, Size},
    town::{Town, judge},
};

/// Gateways that share.
const GATEWAYS: usize = 5;
/// What the upstream allows.
const INTERVAL: Duration = Duration::from_secs(1);
/// Callers of each gateway, and the keys that each asks for, which nobody has asked for before.
const CALLERS: usize = 2;
const KEYS: u64 = 30;
/// Between two lone misses.
const PAUSE: Duration = Duration::from_millis(500);
/// Customers, of whom nobody is asked for twice.
const CUSTOMERS: usize = 10_000_000;

/// What everybody shares.
struct Crowd {
    town: RwLock<Town>,
    callers: Callers,
    stop: AtomicBool,
    next: AtomicU64,
    told: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    /// Lookups that were answered.
    right: u64,
    /// Lookups that died with their gateway.
    died: u64,
    /// What a gateway that lives should not have said.
    bad: BTreeMap<String, u64>,
    /// How long lone misses waited.
    lone: Vec<Duration>,
}

impl Tally {
    /// Counts what a lookup was told; whether it was answered.
    fn count(&mut self, said: &Said, survived: bool) -> bool {
        match said {
            Said::Right { .. } => self.right += 1,
            Said::Nothing if !survived => self.died += 1,
            bad => *self.bad.entry(format!("{bad:?}")).or_default() += 1,
        }
        matches!(said, Said::Right { .. })
    }
}

/// One run, and its figures.
pub(crate) async fn measure(options: &Options) -> String {
    let gateways = if options.test { 2 } else { GATEWAYS };
    let interval = if options.test { options.interval } else { INTERVAL };
    let town = Town::start(options, Size::Shared(gateways), interval, CUSTOMERS);
    let callers = Callers::new(&town.simulator);
    let crowd = Arc::new(Crowd {
        town: RwLock::new(town),
        callers,
        stop: AtomicBool::new(false),
        next: AtomicU64::new(0),
        told: Mutex::default(),
    });
    let mut asking = JoinSet::new();
    for gateway in 0..gateways {
        for _ in 0..CALLERS {
            asking.spawn(Arc::clone(&crowd).busy(gateway));
        }
    }
    asking.spawn(Arc::clone(&crowd).lone(gateways));
    let begun = clock::now();
    let mut kills: u32 = 0;
    loop {
        let next = options.between_kills * (kills + 1);
        if next >= options.saturation {
            break;
        }
        crowd.watch_until(begun + next).await;
        crowd.town.write().unwrap().kill(fastrand::usize(..gateways));
        kills += 1;
    }
    crowd.watch_until(begun + options.saturation).await;
    crowd.stop.store(true, Ordering::Relaxed);
    let used = crowd.town.read().unwrap().arrivals();
    let used = used.iter().filter(|arrival| arrival.judged >= begun).count();
    asking.join_all().await;
    report(options, &crowd, (gateways, interval), (kills, used))
}

impl Crowd {
    /// Looks who is back, until then.
    async fn watch_until(&self, then: clock::Instant) {
        while clock::now() < then {
            self.town.read().unwrap().gateways.iter().for_each(crate::town::Gateway::look);
            sleep_until(then.min(clock::now() + Duration::from_millis(10))).await;
        }
    }

    /// Asks one gateway for one thing after another.
    async fn busy(self: Arc<Self>, gateway: usize) {
        while !self.stop.load(Ordering::Relaxed) {
            self.once(gateway, KEYS).await;
        }
    }

    /// Asks any gateway for a single customer, and again after a pause.
    async fn lone(self: Arc<Self>, gateways: usize) {
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(waited) = self.once(fastrand::usize(..gateways), 1).await {
                self.told.lock().unwrap().lone.push(waited);
            }
            sleep(PAUSE.mul_f64(fastrand::f64() * 2.0)).await;
        }
    }

    /// One lookup; how long it took, if it was answered.
    async fn once(&self, gateway: usize, keys: u64) -> Option<Duration> {
        let (address, life) = self.look(gateway);
        let first = self.next.fetch_add(keys, Ordering::Relaxed);
        let customers: Vec<u64> = (first..first + keys).collect();
        let (said, took) = self.callers.ask(address, &customers).await;
        let survived = life % 2 == 0 && self.look(gateway).1 == life;
        if self.told.lock().unwrap().count(&said, survived) {
            return Some(took);
        }
        // It listens again within a second.
        sleep(Duration::from_millis(20)).await;
        None
    }

    fn look(&self, gateway: usize) -> (std::net::SocketAddr, u64) {
        let town = self.town.read().unwrap();
        (town.gateways[gateway].address, town.gateways[gateway].life())
    }
}

fn report(
    options: &Options,
    crowd: &Crowd,
    (gateways, interval): (usize, Duration),
    (kills, used): (u32, usize),
) -> String {
    let (refused, least) = judge(&crowd.town.read().unwrap().arrivals());
    let told = crowd.told.lock().unwrap();
    let [p50, p99, max] = load::percentiles(told.lone.iter().copied());
    let bad = if told.bad.is_empty() { "none".to_owned() } else { format!("{:?}", told.bad) };
    let text = format!(
        "{gateways} gateways with one slot in {}, each asked by {CALLERS} callers for {KEYS} new keys at a time, for {}; one \
         of them killed (SIGKILL) every {} and started anew, {kills} times.\n\n\
         | | |\n|---|---:|\n\
         | slots used | {used} |\n\
         | the least gap between two arrivals upstream | {least:.1} ms |\n\
         | refused upstream | {refused} |\n\
         | lookups answered, all right | {} |\n\
         | lookups that died with their gateway | {} |\n\
         | wrong or refused by a gateway that lived | {bad} |\n\
         | a lone miss on a busy gateway waits p50, p99, max of {} | {:.2} s, {:.2} s, {:.2} s |\n",
        humantime::format_duration(interval),
        humantime::format_duration(options.saturation),
        humantime::format_duration(options.between_kills),
        told.right,
        told.died,
        told.lone.len(),
        p50 / 1e3,
        p99 / 1e3,
        max / 1e3,
    );
    assert!((told.bad.is_empty() && refused == 0) || !options.test, "{text}");
    text
}
