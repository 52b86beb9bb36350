//! One connection to Redis or Valkey, made again whenever it breaks.
//!
//! Whoever holds a [`Link`] calls scripts through it; what others publish, and whether there is a connection, is told to
//! whoever [listens](Listen). Nothing here knows what is stored.
//!
//! - **Bounded.** A call without an answer ends when it was said; a connection whose server is silent for [`CALL`] is given
//!   up and made anew, and so is one that breaks. There is a pause of [`RETRY`] before each attempt.
//! - **Of use.** There is a connection only to a server that [proves](Proof) to do what is needed, again and again: one that
//!   has become a replica, has no memory left, or lets the user do nothing, is as good as away.
//! - **One connection** carries calls and messages (RESP3, so Redis 6 or later): what is published before a script is run is
//!   heard before its answer.

mod connect;

use std::{
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{PushInfo, PushKind, Value, aio::MultiplexedConnection};
use tokio::time::timeout;

pub use self::connect::Connector;
use crate::{
    clock::{Instant, now},
    secret::Secret,
};

/// How long a call may take at most. It is a script of some microseconds: a server that needs a second is of no use.
pub const CALL: Duration = Duration::from_secs(1);

/// Before a connection is tried again. So short that gateways which lost the same server find it again together.
pub const RETRY: Duration = Duration::from_millis(100);

/// How often a connection is asked whether it lives. A dead one is noticed a second and a half after it died.
const PING: Duration = Duration::from_millis(500);

/// Where the server is, and as whom to ask it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Its name or address.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Which of its numbered databases.
    pub database: u8,
    /// The ACL user; without one it is the server's default user.
    pub username: Option<Box<str>>,
    /// That user's password.
    pub password: Option<Secret>,
    /// Certificate authorities beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// A script that runs on the server, in one step for everybody.
pub struct Script(redis::Script);

impl Script {
    /// A script in Lua.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(redis::Script::new(text))
    }
}

/// A script that does, under names of its own, whatever will be done, and changes nothing that counts. Its argument is the
/// channel, the first time, and empty from then on.
pub struct Proof {
    /// The script.
    pub script: Script,
    /// Its names.
    pub keys: Vec<String>,
}

/// There was no answer, and why: never a word of what was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub String);

/// Is told what comes from the server by itself, at once and in its order: it must not wait for anything.
pub trait Listen: Send + Sync + 'static {
    /// There is a connection.
    fn up(&self, clock: Clock);
    /// There is none, and why. Said once for each reason.
    fn down(&self, why: &Lost);
    /// The server lives, and this is its clock now.
    fn tick(&self, clock: Clock);
    /// Somebody published this.
    fn message(&self, message: &[u8]);
    /// What the server must be able to do to be of use.
    fn proof(&self) -> Option<&Proof> {
        None
    }
}

/// Which server it is, and what its clock shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clock {
    /// The name that a server gives itself when it starts: another one knows nothing of what the first was told.
    pub run: String,
    /// A moment at which the clock showed no more than `micros`.
    pub before: Instant,
    /// A moment at which the clock showed `micros` or more.
    pub after: Instant,
    /// Microseconds since 1970 by the server's clock.
    pub micros: u64,
}

/// The connection, as those hold it who use it.
pub struct Link {
    connector: Connector,
    longest: Duration,
    live: Mutex<Option<MultiplexedConnection>>,
}

impl Link {
    /// A link without a connection yet, whose calls may take so long, and [`CALL`] at most.
    #[must_use]
    pub fn new(connector: Connector, longest: Duration) -> Self {
        Self { connector, longest: longest.min(CALL), live: Mutex::new(None) }
    }

    /// Runs a script. Its answer is a list of strings.
    ///
    /// # Errors
    /// When there is no connection, or no answer in time.
    pub async fn call<K: AsRef<[u8]>>(
        &self,
        script: &Script,
        keys: &[K],
        args: &[&[u8]],
    ) -> Result<Vec<Vec<u8>>, Lost> {
        let mut connection = self.live().clone().ok_or_else(|| Lost("there is no connection".to_owned()))?;
        let mut invocation = script.0.prepare_invoke();
        for key in keys {
            invocation.key(key.as_ref());
        }
        for arg in args {
            invocation.arg(*arg);
        }
        timeout(self.longest, invocation.invoke_async(&mut connection))
            .await
            .map_err(late)?
            .map_err(|error| lost(&error))
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.live().is_some()
    }

    /// Connects, and connects again, for ever.
    pub async fn run(self: Arc<Self>, channel: String, listener: Arc<dyn Listen>) {
        let mut why = None;
        loop {
            let (was_up, lost) = self.once(&channel, &listener).await;
            // A server may be away for long.
            if was_up || why.as_ref() != Some(&lost) {
                listener.down(&lost);
                why = Some(lost);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One connection from its beginning to its end: whether there was one, and why there is none any more.
    async fn once(&self, channel: &str, listener: &Arc<dyn Listen>) -> (bool, Lost) {
        let told = Arc::clone(listener);
        let push = move |info: PushInfo| {
            message(info).iter().for_each(|message| told.message(message));
            Ok(())
        };
        let connecting = timeout(CALL, self.connector.connect(push));
        let (mut connection, driver) = match connecting.await.map_err(late) {
            Ok(Ok(connected)) => connected,
            Ok(Err(lost)) | Err(lost) => return (false, lost),
        };
        let mut was_up = false;
        let life = async {
            let clock = timeout(CALL, greet(&mut connection, channel)).await.map_err(late)??;
            prove(&mut connection, listener.proof(), channel).await?;
            *self.live() = Some(connection.clone());
            was_up = true;
            let run = clock.run.clone();
            listener.up(clock);
            loop {
                tokio::time::sleep(PING).await;
                let clock = timeout(CALL, time(&mut connection, &run)).await.map_err(late)??;
                listener.tick(clock);
                prove(&mut connection, listener.proof(), "").await?;
            }
        };
        let ended: Result<(), Lost> = tokio::select! {
            // The server closed it.
            () = pin!(driver) => Err(Lost("the connection broke".to_owned())),
            // It did not answer.
            ended = life => ended,
        };
        *self.live() = None;
        (was_up, ended.err().unwrap_or_else(|| Lost("the connection ended".to_owned())))
    }

    fn live(&self) -> MutexGuard<'_, Option<MultiplexedConnection>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Subscribes, and asks who it is and what its clock shows.
async fn greet(connection: &mut MultiplexedConnection, channel: &str) -> Result<Clock, Lost> {
    connection.subscribe(channel).await.map_err(|error| lost(&error))?;
    let info: redis::RedisResult<String> = redis::cmd("INFO").arg("server").query_async(connection).await;
    // Who may not ask is served by one server all the same; that it is another one is then seen by what it does not know.
    let info = info.unwrap_or_default();
    time(connection, info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default()).await
}

/// Has the server show that it does what is needed.
async fn prove(connection: &mut MultiplexedConnection, proof: Option<&Proof>, channel: &str) -> Result<(), Lost> {
    let Some(Proof { script, keys }) = proof else { return Ok(()) };
    let mut invocation = script.0.prepare_invoke();
    for key in keys {
        invocation.key(key);
    }
    let proving = invocation.arg(channel).invoke_async::<()>(connection);
    timeout(CALL, proving).await.map_err(late)?.map_err(|error| lost(&error))
}

/// What the clock of the server of this name shows.
async fn time(connection: &mut MultiplexedConnection, run: &str) -> Result<Clock, Lost> {
    let before = now();
    let (seconds, micros): (u64, u64) =
        redis::cmd("TIME").query_async(connection).await.map_err(|error| lost(&error))?;
    Ok(Clock { run: run.to_owned(), before, after: now(), micros: seconds * 1_000_000 + micros })
}

fn message(info: PushInfo) -> Option<Vec<u8>> {
    match (info.kind, info.data.into_iter().nth(1)) {
        (PushKind::Message, Some(Value::BulkString(message))) => Some(message),
        _ => None,
    }
}

fn late(_elapsed: tokio::time::error::Elapsed) -> Lost {
    Lost("it did not answer in time".to_owned())
}

/// What a log may say of an error: what kind it is, and the server's word for it, but none of its sentences.
fn lost(error: &redis::RedisError) -> Lost {
    let Some(code) = error.code() else { return Lost(error.category().to_owned()) };
    // Within a script that has no word of its own.
    let may_not = error.detail().is_some_and(|detail| detail.contains("The user executing the script can't"));
    let sentence = match code {
        _ if may_not => "the user may not do what is needed",
        "WRONGPASS" => "it does not accept the user name or the password",
        "NOAUTH" => "it wants a user name and a password",
        "NOPERM" => "the user may not do what is needed",
        "READONLY" => "it is a replica, and nothing can be written to it",
        "OOM" => "it has no memory left",
        _ => "it answers with an error",
    };
    Lost(format!("{sentence} ({code})"))
}
