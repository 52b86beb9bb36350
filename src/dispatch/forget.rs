//! What was forgotten behind the queue's back: a customer was erased, or is known to have changed.
//!
//! - **Who waits is answered.** Nobody's ticket is touched, and a key that somebody waits for is fetched.
//! - **What nobody waits for is not fetched**, if it was erased: its background keys are let go.
//! - **What is under way is outdated**, if it brings one of them: the cache knows that when it has come
//!   ([`Taken::Outdated`](crate::cache::Taken)), and the queue asks again for whoever asked since. A customer who has
//!   changed is asked for again even if nobody has.

use std::mem::replace;

use super::{
    entry::{Again, Entry, Place},
    handle::Handle,
    queue::Queue,
};
use crate::{clock::Instant, key::Key, metrics::Refresh};

impl<W> Queue<W> {
    /// Customers were erased: these keys are not fetched unless somebody waits.
    pub fn erase(&mut self, is_gone: impl Fn(&Key) -> bool) {
        self.suspects.retain(|key, _| !is_gone(key));
        let gone = self.background.iter().filter(|(_, (key, _))| is_gone(key));
        let gone: Vec<_> = gone.map(|(number, _)| *number).collect();
        for number in gone {
            self.drop_background(number);
        }
        let in_flight = self.entries.iter_mut().filter(|(_, entry)| entry.place == Place::InFlight);
        for (_, entry) in in_flight.filter(|(key, _)| is_gone(key)) {
            entry.again = false;
            // Should it have to go again while nobody waits, it is let go then.
            entry.keep &= entry.is_waited_for();
        }
        self.erase_held(is_gone);
    }

    /// Held => gone, where nobody waits.
    fn erase_held(&mut self, is_gone: impl Fn(&Key) -> bool) {
        let Self { held, entries, halved, .. } = self;
        for batch in held {
            let size = batch.keys.len();
            batch.keys.retain(|key| {
                let stays = !is_gone(key) || entries.get(key).is_some_and(Entry::is_waited_for);
                if !stays {
                    entries.remove(key);
                    self.pending -= 1;
                }
                stays
            });
            if let (Again::Exactly(whole), true) = (batch.how, batch.keys.len() < size) {
                halved.remove(&whole); // A key that is at fault may be among those that are gone.
            }
        }
        if self.pending == 0 {
            self.work_since = None;
        }
    }

    /// These keys' customers have changed: what is under way for them is outdated, and is asked for again. Returns how
    /// many keys that are, and how many are queued already.
    pub fn outdate(&mut self, changed: &[Key]) -> (usize, usize) {
        let (mut again, mut queued) = (0, 0);
        for key in changed {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            if entry.place != Place::InFlight {
                queued += 1;
            } else if entry.keep {
                // Unless who asked wants nothing kept (RFC 9111, `no-store`).
                *if replace(&mut entry.again, true) { &mut queued } else { &mut again } += 1;
            }
        }
        (again, queued)
    }
}

impl Handle {
    /// Customers were erased: see [`Queue::erase`].
    pub(super) fn erase(&self, is_gone: impl Fn(&Key) -> bool) {
        let mut state = self.shared.state();
        state.queue.erase(&is_gone);
        state.idle.cold.erase(is_gone);
    }

    /// Customers have changed: fetches again what was `held` of them and what is under way. Returns whether there is
    /// anything of the kind, queued already or now.
    pub(super) fn renew(&self, now: Instant, changed: &[Key], held: Vec<Key>) -> bool {
        let mut state = self.shared.state();
        let (again, queued) = state.queue.outdate(changed);
        let need = state.need(now);
        let taken = state.queue.refresh(now, held, need);
        drop(state);
        self.shared.metrics.refreshed(Refresh::Event, again + taken);
        self.shared.wake.notify_one();
        again + queued + taken > 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        cache::Answer,
        dispatch::{
            batch::{Batch, Settled},
            entry::Need,
            queue::Order,
            ticket::{Client, Failure},
        },
        key::{Id, Kind, Scope, Value},
    };

    struct Bench {
        queue: Queue<&'static str>,
        scope: Arc<Scope>,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let scope = Arc::new(Scope::new(0, vec![], "{}", ""));
            Self { queue: Queue::new(10, 100), scope, now: crate::clock::now() }
        }

        fn key(&self, number: i64) -> Key {
            Key { scope: Arc::clone(&self.scope), id: Id { kind: Kind(0), value: Value::Int(number) } }
        }

        fn submit(&mut self, waker: &'static str, number: i64) -> usize {
            self.order(waker, number, false)
        }

        fn order(&mut self, waker: &'static str, number: i64, no_store: bool) -> usize {
            let keys = vec![self.key(number)];
            let order = Order {
                client: Client::Unknown,
                keys,
                need: Need::Company,
                fresh: false,
                no_store,
                fallback: vec![],
                waker,
            };
            self.queue.submit(self.now, order).expect("there is room").coalesced
        }

        fn refresh(&mut self, number: i64) -> usize {
            self.queue.refresh(self.now, [self.key(number)], Need::Company)
        }

        /// The numbers of the keys in the next batch, in order, and the batch.
        fn seal(&mut self) -> Option<(Vec<i64>, Batch)> {
            let batch = self.queue.seal(self.now)?;
            let number = |id: &Id| match id.value {
                Value::Int(number) => number,
                Value::Text(_) => unreachable!("the test made numbers"),
            };
            let mut numbers: Vec<i64> = batch.ask.ids.iter().map(number).collect();
            numbers.sort_unstable();
            Some((numbers, batch))
        }

        /// Who is woken when every key of a batch is answered, with what became outdated meanwhile, or not.
        fn settle(&mut self, batch: &Batch, outdated: bool) -> Vec<&'static str> {
            let answer = Answer::new([], self.now, 0);
            let settled = || match outdated {
                true => Settled::Outdated(answer.clone()),
                false => Settled::Answered(answer.clone()),
            };
            let settled = batch.ask.ids.iter().map(|_| settled()).collect();
            self.queue.settle(batch.id, settled, self.now).into_iter().map(|finished| finished.waker).collect()
        }

        fn fail(&mut self, batch: &Batch) {
            let settled = batch.ask.ids.iter().map(|_| Settled::Retry(Failure::ShuttingDown)).collect();
            assert!(self.queue.settle(batch.id, settled, self.now).is_empty(), "it is tried again");
        }

        fn erase(&mut self, number: i64) {
            let gone = self.key(number);
            self.queue.erase(|key| *key == gone);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_erased_key_is_fetched_only_if_somebody_waits_for_it() {
        let mut bench = Bench::new();
        for number in 1..=3 {
            bench.refresh(number);
        }
        bench.submit("caller", 2);
        bench.erase(1);
        bench.erase(2);
        assert_eq!(bench.seal().map(|(numbers, _)| numbers), Some(vec![2, 3]));
        assert_eq!(bench.queue.pending(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_of_which_everything_was_erased_has_nothing_to_do() {
        let mut bench = Bench::new();
        bench.refresh(1);
        bench.queue.erase(|_key| true);
        assert!(bench.queue.work_since().is_none() && bench.queue.pending() == 0 && bench.seal().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_erased_key_that_fails_is_not_asked_again_for_nobody() {
        for refused in [false, true] {
            let mut bench = Bench::new();
            bench.refresh(1);
            let (_, batch) = bench.seal().expect("a key");
            if refused {
                assert!(bench.queue.refuse(batch.id, &Failure::ShuttingDown, bench.now).is_empty());
                bench.erase(1);
            } else {
                bench.erase(1);
                bench.fail(&batch);
            }
            assert!(bench.seal().is_none(), "refused: {refused}");
            assert_eq!(bench.queue.pending(), 0);
            assert!(bench.queue.work_since().is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_batch_goes_again_without_what_was_erased_meanwhile() {
        let mut bench = Bench::new();
        bench.refresh(1);
        bench.submit("caller", 2);
        let (_, batch) = bench.seal().expect("two keys");
        bench.erase(1);
        bench.erase(2);
        assert!(bench.queue.refuse(batch.id, &Failure::ShuttingDown, bench.now).is_empty());
        let (numbers, batch) = bench.seal().expect("somebody waits");
        assert_eq!(numbers, [2]);
        assert_eq!(bench.queue.kept(batch.id), [true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_customer_who_changed_while_under_way_is_asked_for_once_more() {
        let mut bench = Bench::new();
        bench.submit("before", 1);
        let (_, batch) = bench.seal().expect("a key");
        let changed = [bench.key(1), bench.key(2)];
        assert_eq!(bench.queue.outdate(&changed), (1, 0));
        assert_eq!(bench.queue.outdate(&changed), (0, 1), "said twice, and asked for once");
        assert_eq!(bench.settle(&batch, true), ["before"]);
        assert_eq!(bench.queue.outdate(&changed), (0, 1), "it is queued");
        let (numbers, batch) = bench.seal().expect("asked again");
        assert_eq!((numbers, bench.queue.kept(batch.id)), (vec![1], vec![true]));
        assert!(bench.settle(&batch, false).is_empty() && bench.seal().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_after_a_change_has_the_second_answer_and_there_is_no_third() {
        let mut bench = Bench::new();
        bench.submit("before", 1);
        let (_, batch) = bench.seal().expect("a key");
        bench.queue.outdate(&[bench.key(1)]);
        bench.submit("after", 1);
        assert_eq!(bench.settle(&batch, true), ["before"]);
        let (_, batch) = bench.seal().expect("asked again");
        assert_eq!(bench.settle(&batch, false), ["after"]);
        assert!(bench.seal().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_customer_who_changed_and_was_erased_is_not_asked_for_again() {
        let mut bench = Bench::new();
        bench.submit("before", 1);
        let (_, batch) = bench.seal().expect("a key");
        bench.queue.outdate(&[bench.key(1)]);
        bench.erase(1);
        assert_eq!(bench.settle(&batch, true), ["before"]);
        assert!(bench.seal().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_what_must_not_be_kept_fetches_nothing() {
        let mut bench = Bench::new();
        bench.order("private", 1, true);
        let (_, batch) = bench.seal().expect("a key");
        bench.queue.outdate(&[bench.key(1)]);
        assert_eq!(bench.settle(&batch, true), ["private"]);
        assert!(bench.seal().is_none());
    }
}
