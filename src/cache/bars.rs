//! What must not come back: a request that was started before a key was forgotten may still bring what it gave.
//!
//! A *bar* says that whatever was asked for up to a moment is outdated for one key. It is raised when a key is erased,
//! evicted or lost by its customer, and only while a request is under way that was started by then. When the last of
//! those is over, the bar falls: later requests cannot know less. So bars need no timer, and in a quiet cache there are
//! none.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{clock::Instant, key::Key};

/// Bars at once. What is beyond is barred for everybody: more than a few requests' worth of keys at once are only
/// raised by a purge of many, and then a request or two is not kept.
const MAX_BARS: usize = 65_536;

/// The bars of all keys, and the requests that make them necessary.
#[derive(Default)]
pub(super) struct Bars(Mutex<State>);

#[derive(Default)]
struct State {
    /// When the requests under way were started, and how many at each moment.
    under_way: BTreeMap<Instant, usize>,
    /// Up to which moment what was asked for is outdated.
    of_key: HashMap<Key, Instant>,
    /// The same for every key.
    of_all: Option<Instant>,
}

impl Bars {
    /// A request starts.
    pub(super) fn open(&self, started: Instant) {
        *self.lock().under_way.entry(started).or_default() += 1;
    }

    /// A request that was opened is over.
    pub(super) fn close(&self, started: Instant) {
        let mut state = self.lock();
        let Some(count) = state.under_way.get_mut(&started) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        let was_oldest = state.under_way.first_key_value().is_some_and(|(oldest, _)| *oldest == started);
        state.under_way.remove(&started);
        if !was_oldest {
            return;
        }
        match state.under_way.first_key_value().map(|(oldest, _)| *oldest) {
            Some(oldest) => {
                state.of_key.retain(|_, until| *until >= oldest);
                state.of_all = state.of_all.filter(|until| *until >= oldest);
            }
            None => *state = State::default(),
        }
    }

    /// From now on, what was asked for up to `until` is outdated for this key.
    pub(super) fn raise(&self, key: impl FnOnce() -> Key, until: Instant) {
        let mut state = self.lock();
        if !state.is_needed(until) {
            return;
        }
        if state.of_key.len() >= MAX_BARS {
            state.of_all = state.of_all.max(Some(until));
            return;
        }
        let bar = state.of_key.entry(key()).or_insert(until);
        *bar = (*bar).max(until);
    }

    /// The same for every key.
    pub(super) fn raise_all(&self, until: Instant) {
        let mut state = self.lock();
        if state.is_needed(until) {
            state.of_all = state.of_all.max(Some(until));
        }
    }

    /// Whether what was asked for then is outdated for one of these keys.
    pub(super) fn stand_against(&self, started: Instant, mut keys: impl Iterator<Item = Key>) -> bool {
        let state = self.lock();
        state.of_all.is_some_and(|until| started <= until)
            || !state.of_key.is_empty() && keys.any(|key| state.of_key.get(&key).is_some_and(|until| started <= *until))
    }

    /// For one step, which no panic interrupts.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_needed(&self, until: Instant) -> bool {
        self.under_way.first_key_value().is_some_and(|(oldest, _)| *oldest <= until)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::key::{Id, Kind, Scope, Value};

    fn key(number: i64) -> Key {
        let scope = Arc::new(Scope::new(0, vec![], "{}", ""));
        Key { scope, id: Id { kind: Kind(0), value: Value::Int(number) } }
    }

    fn is_barred(bars: &Bars, started: Instant, number: i64) -> bool {
        bars.stand_against(started, [key(number)].into_iter())
    }

    #[tokio::test(start_paused = true)]
    async fn a_bar_stands_while_a_request_is_under_way_that_was_started_before_it() {
        let (bars, start) = (Bars::default(), crate::clock::now());
        let second = Duration::from_secs(1);
        bars.raise(|| key(1), start);
        assert!(!is_barred(&bars, start, 1), "nothing is under way");
        bars.open(start);
        bars.open(start + second * 3);
        bars.raise(|| key(1), start + second);
        assert!(is_barred(&bars, start, 1) && is_barred(&bars, start + second, 1));
        assert!(!is_barred(&bars, start, 2));
        assert!(!is_barred(&bars, start + second * 3, 1), "it was started later");
        bars.close(start);
        assert!(bars.lock().of_key.is_empty(), "what is under way was started later");
        bars.close(start + second * 3);
        assert!(bars.lock().under_way.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn bars_without_end_become_one_for_all() {
        let (bars, start) = (Bars::default(), crate::clock::now());
        bars.open(start);
        for number in 0..=i64::try_from(MAX_BARS).expect("small") {
            bars.raise(|| key(number), start);
        }
        assert_eq!(bars.lock().of_key.len(), MAX_BARS);
        assert!(is_barred(&bars, start, -1));
        bars.close(start);
        assert!(!is_barred(&bars, start, -1));
    }
}
