//! The other gateways: what they have erased is forgotten here, in the order in which it happened.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tracing::{info, warn};

use super::{
    LOG, Remote, Tie, connected, not_understood,
    said::{Elsewhere, Entry, Said},
    scripts,
};
use crate::{
    link::{Clock, Listen, Lost},
    store::{Saving, Shared, names, seal::Seal},
};

/// Erasures that are remembered for what is still to be written. What was begun before them is not.
const REMEMBERED: usize = 256;

/// So much may a clock go back without harm: no answer is good for so short a time.
const TOLERANCE: Duration = Duration::from_secs(1);

/// What a process knows of the server and of the others.
#[derive(Default)]
pub(super) struct Known {
    /// What its clock showed last.
    clock: Option<Clock>,
    /// The last erasure that was heard of; none before the process has joined.
    generation: Option<u64>,
    /// Its tag.
    tag: String,
    /// The last one that was heard of while it joins.
    ahead: Option<(u64, String)>,
    is_joining: bool,
    /// What was erased, up to the last one.
    heard: VecDeque<(u64, Said)>,
    /// It has to join, for the first time or again.
    pub(super) must_join: bool,
    /// The server's clock went back.
    went_back: bool,
}

impl Known {
    pub(super) fn clock(&self) -> Option<Clock> {
        self.clock.clone()
    }

    /// The last erasure that was heard of.
    pub(super) fn generation(&self) -> u64 {
        self.generation.unwrap_or_default()
    }

    /// Notes what was told.
    fn note(&mut self, Entry { number, tag, said, .. }: Entry) {
        let is_new_epoch = !matches!(said, Said::Some(_));
        match self.generation {
            // What follows an epoch is told again to who joins that.
            _ if self.is_joining && (is_new_epoch || self.must_join) => {}
            _ if self.is_joining => self.ahead = self.ahead.take().max(Some((number, tag))),
            Some(last) if number <= last => return,
            Some(last) if number == last + 1 => {
                (self.generation, self.tag) = (Some(number), tag);
                self.remember(number, said);
            }
            // Something is missing between.
            _ => self.must_join = true,
        }
        self.must_join |= is_new_epoch;
    }

    fn remember(&mut self, number: u64, said: Said) {
        if self.heard.len() == REMEMBERED {
            self.heard.pop_front();
        }
        self.heard.push_back((number, said));
    }

    /// Whether what is to be written may be made of something that was erased after `since`.
    pub(super) fn is_about(&self, seal: &Seal, saving: &Saving, since: u64) -> bool {
        if self.heard.front().is_none_or(|(oldest, _)| *oldest > since + 1) {
            return true;
        }
        let keys = saving.digests();
        let own = names::credential_name(seal, &saving.scope.credential);
        self.heard.iter().filter(|(number, _)| *number > since).any(|(_, said)| match said {
            Said::Begun(..) => false,
            Said::All => true,
            Said::Some(told) => {
                told.lookup == saving.scope.lookup
                    && told.whose.is_none_or(|whose| whose == own)
                    && told.ids.iter().any(|id| keys.contains(&id.borrowed().digest(&saving.scope)))
            }
        })
    }

    /// Whether this is the last erasure of which it has heard.
    fn is_as_of(&self, number: u64, tag: &str) -> bool {
        self.is_joining || self.generation == Some(number) && self.tag == tag
    }

    /// What the server's clock shows. Whether it went back.
    fn set_clock(&mut self, clock: Clock) -> bool {
        let went_back = self.clock.as_ref().is_some_and(|last| {
            let since = clock.before.saturating_duration_since(last.after);
            let least = u128::from(last.micros) + since.as_micros();
            u128::from(clock.micros) + TOLERANCE.as_micros() < least
        });
        self.went_back |= went_back;
        self.must_join |= went_back;
        self.clock = Some(clock);
        went_back
    }
}

/// What a process is told when it joins.
struct Joined {
    epoch: Arc<str>,
    generation: u64,
    tag: String,
    must_sweep: bool,
}

impl Remote {
    /// Hears of everything that was missed. Whether names of older epochs are to be swept away.
    pub(super) async fn join(&self, shared: &Shared) -> Result<bool, Lost> {
        let (before, tag, went_back) = {
            let mut known = self.known();
            (known.must_join, known.is_joining, known.ahead) = (false, true, None);
            (known.generation, known.tag.clone(), std::mem::take(&mut known.went_back))
        };
        let joined = self.try_join(shared, (before, tag), went_back).await;
        let mut known = self.known();
        known.is_joining = false;
        let Joined { epoch, generation, tag, must_sweep } = match joined {
            Ok(joined) => joined,
            Err(lost) => {
                known.must_join = true;
                known.went_back |= went_back;
                drop(known);
                connected(&shared.metrics, false);
                // Open => Away
                self.tie.send_replace(Tie::Away);
                return Err(lost);
            }
        };
        // What was told since is forgotten already.
        let ahead = known.ahead.take().filter(|(ahead, _)| *ahead > generation);
        if ahead.is_some() {
            known.heard.clear();
        }
        let (generation, tag) = ahead.unwrap_or((generation, tag));
        (known.generation, known.tag) = (Some(generation), tag);
        drop(known);
        if shared.metrics.connected.get() == 0 {
            info!("connected to the store");
        }
        connected(&shared.metrics, true);
        // Open | Away => Joined
        self.tie.send_replace(Tie::Joined(epoch));
        Ok(must_sweep)
    }

    async fn try_join(
        &self,
        shared: &Shared,
        (before, tag): (Option<u64>, String),
        went_back: bool,
    ) -> Result<Joined, Lost> {
        let known = before.map_or_else(|| "-1".to_owned(), |known| known.to_string());
        let went_back = u8::from(went_back).to_string();
        let args = [fresh_epoch(), known, tag, went_back, self.channel.clone(), self.tag(), LOG.to_string()];
        let args = args.each_ref().map(String::as_bytes);
        let answer = self.link.call(&self.scripts.join, &[self.state(), self.log()], &args).await?;
        let [epoch, generation, must_sweep, tag, kind, missed @ ..] = &answer[..] else { return Err(not_understood()) };
        let text = |word: &[u8]| std::str::from_utf8(word).map(str::to_owned).map_err(|_not_text| not_understood());
        let (epoch, tag) = (text(epoch)?.into(), text(tag)?);
        let generation = scripts::number(generation).ok_or_else(not_understood)?;
        self.catch_up(shared, before.zip(Some(generation)), kind, missed);
        Ok(Joined { epoch, generation, tag, must_sweep: must_sweep == b"1" })
    }

    /// Forgets what was erased while the process was away.
    fn catch_up(&self, shared: &Shared, between: Option<(u64, u64)>, kind: &[u8], missed: &[Vec<u8>]) {
        let read: Option<Vec<_>> = missed.iter().map(|entry| self.read_entry(entry)).collect();
        let expected = between.map(|(before, now)| before + 1..=now);
        let is_whole = |read: &Vec<Entry>| match kind {
            b"all" => between.is_some(),
            b"next" => expected.is_some_and(|expected| expected.eq(read.iter().map(|entry| entry.number))),
            _ => false,
        };
        shared.sequence.begin_erasure();
        match read.filter(is_whole) {
            Some(read) => {
                for entry in read {
                    self.obey(&entry);
                    self.known().remember(entry.number, entry.said);
                }
                if kind == b"all" {
                    // Their numbers say nothing.
                    self.known().heard.clear();
                }
            }
            None => {
                self.known().heard.clear();
                if let Some(memory) = self.memory()
                    && memory.forget_all()
                {
                    info!("what others have erased meanwhile is not known: nothing that was cached is given any more");
                }
            }
        }
        shared.sequence.end_erasure();
    }

    /// Something was told.
    fn hear(&self, shared: &Shared, entry: &[u8]) {
        let Some(entry) = self.read_entry(entry) else {
            warn!("what another gateway told about the store cannot be understood");
            self.leave();
            return shared.sequence.alarm();
        };
        let must_leave = !entry.is_own && !matches!(entry.said, Said::Some(_));
        if let Said::Begun(number, tag) = &entry.said
            && !entry.is_own
            && !self.known().is_as_of(*number, tag)
            && let Some(memory) = self.memory()
        {
            memory.forget_all();
        }
        // From before the first is forgotten until it is noted, what is read is not believed.
        shared.sequence.begin_erasure();
        self.obey(&entry);
        self.known().note(entry);
        shared.sequence.end_erasure();
        if must_leave {
            self.leave();
        }
        if self.known().must_join {
            shared.sequence.alarm();
        }
    }

    /// Forgets what another gateway has erased.
    fn obey(&self, entry: &Entry) {
        let (false, Some(memory)) = (entry.is_own, self.memory()) else { return };
        match &entry.said {
            Said::Begun(..) => {}
            Said::All => {
                memory.forget_all();
            }
            Said::Some(Elsewhere { lookup, is_purge, whose: None, ids }) => {
                memory.forget(*lookup, None, ids, *is_purge);
            }
            Said::Some(Elsewhere { lookup, is_purge, whose: Some(whose), ids }) => {
                let all = memory.credentials(*lookup).into_iter();
                for own in all.filter(|own| names::credential_name(&self.seal, own) == *whose) {
                    memory.forget(*lookup, Some(&own), ids, *is_purge);
                }
            }
        }
    }
}

/// The name of an epoch that nobody else begins.
pub(super) fn fresh_epoch() -> String {
    format!("{:016x}", fastrand::u64(..))
}

/// Hears what comes from the server.
pub(in crate::store) struct Ear {
    pub(in crate::store) shared: Arc<Shared>,
    pub(in crate::store) remote: Arc<Remote>,
}

impl Ear {
    /// Keeps the connection, and listens.
    pub(in crate::store) async fn listen(self) {
        let (link, channel) = (Arc::clone(&self.remote.link), self.remote.channel.clone());
        link.run(channel, Arc::new(self)).await;
    }
}

impl Listen for Ear {
    fn up(&self, clock: Clock) {
        {
            let mut known = self.remote.known();
            known.must_join = true;
            known.set_clock(clock);
        }
        // Away => Open
        self.remote.tie.send_replace(Tie::Open);
        self.shared.sequence.alarm();
    }

    fn down(&self, why: &Lost) {
        warn!(reason = %why, "not connected to the store");
        connected(&self.shared.metrics, false);
        // Open | Joined => Away
        self.remote.tie.send_replace(Tie::Away);
        self.shared.sequence.alarm();
    }

    fn tick(&self, clock: Clock) {
        if self.remote.known().set_clock(clock) {
            warn!("the store's clock went back: nobody knows how old the stored answers are, and they are not given");
            self.remote.leave();
            self.shared.sequence.alarm();
        }
    }

    fn message(&self, message: &[u8]) {
        self.remote.hear(&self.shared, message);
    }
}
