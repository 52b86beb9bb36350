//! The winner of a slot is killed at each step of its work: the others go on with what it had taken, once it is clear that
//! nobody will answer, and no two requests are too close.
//!
//! Each gateway reaches Redis through a door of its own, which sees the winner's words and can keep them; and all reach the
//! upstream through a front that can be closed.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{
    program::{DEADLINE, lookup_unless_killed, until},
    town::{Redis, Town, question},
};

/// Gateways that share.
const GATEWAYS: usize = 4;

/// More than the kernel keeps for who does not accept anybody.
const CROWD: usize = 6;

/// What Redis says to a winner.
const GRANTED: &[u8] = b"$7\r\ngranted\r\n";

/// How a verdict begins.
const DONE: &[u8] = b"{\"Done\":";

/// A moment of a winner's work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Redis has granted the slot, and the winner does not hear of it.
    Granted,
    /// The winner hears of it.
    Told,
    /// It says what the upstream has answered, and nobody hears of it.
    Publishing,
    /// Everybody hears of it.
    Published,
}

/// Waits for a moment of whoever wins, and tells who it was.
#[derive(Clone, Default)]
struct Trap(Arc<Mutex<Option<Set>>>);

/// What it waits for, and whom it tells.
type Set = (Step, oneshot::Sender<usize>);

impl Trap {
    fn set(&self, step: Step) -> oneshot::Receiver<usize> {
        let (sprung, who) = oneshot::channel();
        *self.0.lock().unwrap() = Some((step, sprung));
        who
    }

    /// Whether it waits for this step, and does not any more.
    fn springs(&self, step: Step, door: usize) -> bool {
        let mut set = self.0.lock().unwrap();
        let Some((_, sprung)) = set.take_if(|(waited, _)| *waited == step) else { return false };
        sprung.send(door).unwrap();
        true
    }
}

/// One gateway's way to Redis.
#[derive(Clone)]
struct Door {
    number: usize,
    redis: u16,
    trap: Trap,
    /// Whether it is this gateway that has published last.
    published: Arc<AtomicBool>,
}

impl Door {
    /// Where the gateway knocks.
    async fn open(self, tasks: &mut JoinSet<()>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((gateway, _)) = listener.accept().await {
                connections.spawn(self.clone().carry(gateway));
            }
        });
        port
    }

    async fn carry(self, gateway: TcpStream) {
        let redis = TcpStream::connect(("127.0.0.1", self.redis)).await.unwrap();
        let ((from_gateway, to_gateway), (from_redis, to_redis)) = (gateway.into_split(), redis.into_split());
        tokio::select! {
            // Either end closes it.
            () = self.pass(from_gateway, to_redis, |door, has| door.says(has(DONE))) => {}
            () = self.pass(from_redis, to_gateway, |door, has| door.hears(has(GRANTED), has(DONE))) => {}
        }
    }

    /// Passes on what comes, unless that is not to be.
    async fn pass(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        passes: impl Fn(&Self, &dyn Fn(&[u8]) -> bool) -> bool,
    ) {
        let (mut seen, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
        while let Ok(read @ 1..) = from.read(&mut chunk).await {
            seen.extend_from_slice(&chunk[..read]);
            if !passes(self, &|words| seen.windows(words.len()).any(|window| window == words)) {
                return std::future::pending().await; // Until the gateway is dead.
            }
            if to.write_all(&chunk[..read]).await.is_err() {
                return;
            }
            // Words may come in two parts; those that came whole are not found again.
            let shortest = DONE.len().min(GRANTED.len());
            seen.drain(..seen.len() - seen.len().min(shortest - 1));
        }
    }

    /// What the gateway says to Redis; whether that is passed on.
    fn says(&self, done: bool) -> bool {
        self.published.fetch_or(done, Ordering::SeqCst);
        !(done && self.trap.springs(Step::Publishing, self.number))
    }

    /// What Redis says to the gateway; whether that is passed on.
    fn hears(&self, granted: bool, done: bool) -> bool {
        if done && self.published.swap(false, Ordering::SeqCst) {
            self.trap.springs(Step::Published, self.number);
        }
        if granted && self.trap.springs(Step::Granted, self.number) {
            return false;
        }
        if granted {
            self.trap.springs(Step::Told, self.number);
        }
        true
    }
}

/// The way to the upstream. While it is closed nobody is refused, and nobody comes through: as if packets were lost.
struct Front {
    address: SocketAddr,
    is_open: watch::Sender<bool>,
    /// Those who stand in the way while it is closed.
    crowd: JoinSet<()>,
}

impl Front {
    /// Where they come from.
    const CROWD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

    async fn new(upstream: SocketAddr, tasks: &mut JoinSet<()>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let (address, (is_open, mut opened)) = (listener.local_addr().unwrap(), watch::channel(true));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let accepts = *opened.borrow_and_update();
                tokio::select! {
                    // Whoever is there is sent away when it closes.
                    changed = opened.changed() => match changed {
                        Ok(()) => connections.abort_all(),
                        Err(_over) => return,
                    },
                    // A gateway.
                    Ok((mut gateway, _)) = listener.accept(), if accepts => {
                        connections.spawn(async move {
                            let mut upstream = TcpStream::connect(upstream).await.unwrap();
                            // It ends when either side does, however that ends.
                            let _ended = tokio::io::copy_bidirectional(&mut gateway, &mut upstream).await;
                        });
                    }
                }
            }
        });
        Self { address, is_open, crowd: JoinSet::new() }
    }

    /// Closes it: as many stand in the way as the kernel lets wait, and more.
    async fn close(&mut self) {
        self.is_open.send_replace(false);
        for _ in 0..CROWD {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from((Self::CROWD, 0))).unwrap();
            let address = self.address;
            self.crowd.spawn(async move {
                let _waits = socket.connect(address).await;
                std::future::pending::<()>().await;
            });
        }
        until("the way to be full", async || self.is_wanted(Self::CROWD).then_some(())).await;
    }

    fn open(&mut self) {
        self.crowd.abort_all();
        self.is_open.send_replace(true);
    }

    /// Whether somebody from there wants to come through, and is not let.
    fn is_wanted(&self, from: Ipv4Addr) -> bool {
        const SYN_SENT: &str = "02";
        let hex = |address: Ipv4Addr| format!("{:08X}:", u32::from_le_bytes(address.octets()));
        let (from, to) = (hex(from), hex(Ipv4Addr::LOCALHOST) + &format!("{:04X}", self.address.port()));
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.any(|row| row[1].starts_with(&from) && row[2] == to && row[3] == SYN_SENT)
    }
}

/// A town whose ways are watched.
struct Watched {
    town: Town,
    trap: Trap,
    doors: Vec<u16>,
    front: Front,
    _tasks: JoinSet<()>,
}

impl Watched {
    async fn new() -> Self {
        let (redis, trap, mut tasks) = (Redis::start().await, Trap::default(), JoinSet::new());
        let mut doors = Vec::new();
        for number in 0..GATEWAYS {
            let door = Door { number, redis: redis.port, trap: trap.clone(), published: Arc::default() };
            doors.push(door.open(&mut tasks).await);
        }
        let mut town = Town::around(redis, String::new()).await;
        let front = Front::new(town.upstream, &mut tasks).await;
        town.upstream = front.address;
        let mut watched = Self { town, trap, doors, front, _tasks: tasks };
        for number in 0..GATEWAYS {
            let gateway = watched.gateway(number).await;
            watched.town.gateways.push(gateway);
        }
        watched
    }

    async fn gateway(&mut self, number: usize) -> crate::town::Gateway {
        self.town.replicas = format!("url = \"redis://127.0.0.1:{}\"\n", self.doors[number]);
        self.town.gateway().await
    }

    /// Everybody asks for the same customers, after `before`; whoever wins dies at this step, when `then` is over. The others
    /// are answered, and the upstream has been asked so often.
    async fn dies(
        &mut self,
        step: Step,
        before: impl AsyncFn(&mut Self),
        then: impl AsyncFn(&mut Self, &str),
        requests: RangeInclusive<usize>,
    ) {
        // Whoever has just been started hears of others' requests once it has been asked for something.
        let anything = question(1).0;
        let asking: JoinSet<_> =
            self.town.callers().into_iter().map(|to| lookup_unless_killed(to, anything.clone())).collect();
        assert!(asking.join_all().await.into_iter().all(|told| told.is_some_and(|reply| reply.status == 200)));
        before(self).await;
        let winner = self.trap.set(step);
        let (body, ids) = question(3);
        let mut asking = JoinSet::new();
        for (number, to) in self.town.callers().into_iter().enumerate() {
            let told = lookup_unless_killed(to, body.clone());
            asking.spawn(async move { (number, told.await) });
        }
        let winner = timeout(DEADLINE, winner).await.expect("somebody wins").unwrap();
        then(self, &ids[0]).await;
        self.town.gateways[winner].program.signal("KILL");
        self.front.open();
        self.town.simulator.reconfigure(|config| config.latency = Duration::from_millis(20));
        for (number, told) in asking.join_all().await {
            let Some(reply) = told else {
                assert_eq!(number, winner, "{step:?}: a gateway that lives does not answer");
                continue;
            };
            assert_eq!(reply.status, 200, "{step:?}: {}", reply.text());
            assert!(ids.iter().all(|id| reply.text().contains(&**id)), "{step:?}: a customer is missing");
        }
        let asked = self.asked(&ids[0]);
        let when = self.town.simulator.lookups().iter().map(|arrival| arrival.moment).collect::<Vec<_>>();
        assert!(requests.contains(&asked), "{step:?}: the upstream was asked {asked} times, in all at {when:?}");
        self.town.check_arrivals();
        self.town.gateways[winner] = self.gateway(winner).await;
    }

    /// How often the upstream was asked for a customer.
    fn asked(&self, id: &str) -> usize {
        let arrivals = self.town.simulator.lookups();
        arrivals.iter().filter(|arrival| arrival.list("audienceUserIdList").iter().any(|asked| asked == id)).count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_winner_that_dies_at_any_step_of_its_work_takes_nothing_with_it() {
    let mut watched = Watched::new().await;
    // Granted, and not sealed.
    watched.dies(Step::Granted, async |_| {}, async |_, _| {}, 1..=1).await;
    // Sealed, and not sent: there is no connection yet.
    let close = async |watched: &mut Watched| watched.front.close().await;
    let wanted = async |watched: &mut Watched, _: &str| {
        until("the winner to connect", async || watched.front.is_wanted(Ipv4Addr::LOCALHOST).then_some(())).await;
    };
    watched.dies(Step::Told, close, wanted, 1..=1).await;
    // From here on everybody has heard that it asks, and finds out for itself that it is dead. Who finds out late may ask
    // once more.
    // Sent, and the upstream holds the answer.
    let hold = async |watched: &mut Watched| watched.town.simulator.reconfigure(|config| config.latency = DEADLINE);
    let arrived = async |watched: &mut Watched, id: &str| {
        until("the request to arrive", async || (watched.asked(id) == 1).then_some(())).await;
    };
    watched.dies(Step::Told, hold, arrived, 2..=GATEWAYS).await;
    // Answered, and not published.
    watched.dies(Step::Publishing, async |_| {}, async |_, _| {}, 2..=GATEWAYS).await;
    // Published.
    watched.dies(Step::Published, async |_| {}, async |_, _| {}, 1..=1).await;
    assert!(watched.town.gateways.len() == GATEWAYS, "and others have taken the place of the dead");
}
