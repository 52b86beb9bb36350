//! What became of the slots of the last two minutes: for a person to look at, never for a decision.
//!
//! Pure, and bounded by [`WINDOW`] and [`GRAIN`] together: slots that are closer than a grain share one cell, so that a
//! path with a short interval is remembered for as long as any other. Slots that passed unused are noted when they are
//! counted, which is when somebody looks or the next one is used: no timer runs for them.

use std::{collections::VecDeque, time::Duration};

use crate::{clock::Instant, metrics::Outcome};

/// How far back it goes.
pub const WINDOW: Duration = Duration::from_secs(120);

/// The nearest that two cells may be: as many as a screen has room for, 480 of them in the window. The built-in
/// intervals are longer, so that each of their slots has a cell of its own.
pub const GRAIN: Duration = Duration::from_millis(250);

/// One slot; several, where they are closer than [`GRAIN`] or those of several credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// When it opened.
    pub at: Instant,
    /// Slots that passed with nothing to ask.
    pub idle: u32,
    /// Requests that have no answer yet.
    pub under_way: u32,
    /// Requests that were answered.
    pub answered: u32,
    /// Requests that the upstream refused because it is asked too often.
    pub refused: u32,
    /// Requests that came to nothing for another reason.
    pub failed: u32,
    /// Keys in the requests.
    pub keys: u32,
}

impl Slot {
    fn new(at: Instant) -> Self {
        Self { at, idle: 0, under_way: 0, answered: 0, refused: 0, failed: 0, keys: 0 }
    }

    fn add(&mut self, other: &Self) {
        self.idle += other.idle;
        self.under_way += other.under_way;
        self.answered += other.answered;
        self.refused += other.refused;
        self.failed += other.failed;
        self.keys += other.keys;
    }
}

/// The slots of one dispatcher, oldest first.
#[derive(Default, Debug)]
pub struct Timeline {
    cells: VecDeque<Slot>,
}

impl Timeline {
    /// One timeline of several: what they have within a grain is taken together.
    #[must_use]
    pub fn of(mut slots: Vec<Slot>) -> Self {
        slots.sort_by_key(|slot| slot.at);
        let mut whole = Self::default();
        for slot in slots {
            whole.cell(slot.at).add(&slot);
        }
        whole
    }

    /// A request was started.
    pub fn used(&mut self, at: Instant, keys: usize) {
        let cell = self.cell(at);
        cell.under_way += 1;
        cell.keys += u32::try_from(keys).unwrap_or(u32::MAX);
    }

    /// That many slots passed unused, the first of them at `from`.
    pub fn idle(&mut self, from: Instant, gap: Duration, slots: u32) {
        // Those that are too old by the time the last one is noted are passed over.
        let seen = u32::try_from(WINDOW.as_nanos() / gap.as_nanos().max(1)).unwrap_or(u32::MAX).saturating_add(1);
        for slot in slots.saturating_sub(seen)..slots {
            self.cell(from + gap.saturating_mul(slot)).idle += 1;
        }
    }

    /// The request that was started then has come to an end.
    pub fn ended(&mut self, started: Instant, outcome: Outcome) {
        let later = self.cells.partition_point(|cell| cell.at <= started);
        // Forgotten, if it took longer than the window.
        let Some(cell) = later.checked_sub(1).and_then(|at| self.cells.get_mut(at)) else { return };
        if cell.under_way == 0 {
            return;
        }
        cell.under_way -= 1;
        match outcome {
            Outcome::Success => cell.answered += 1,
            Outcome::Throttled => cell.refused += 1,
            Outcome::Rejected | Outcome::Unauthorized | Outcome::Unavailable | Outcome::Invalid => cell.failed += 1,
        }
    }

    /// What it has of the window that ends now, oldest first.
    pub fn slots(&self, now: Instant) -> impl Iterator<Item = Slot> {
        self.cells.iter().copied().filter(move |cell| now.saturating_duration_since(cell.at) <= WINDOW)
    }

    /// The cell of this moment, which is later than all that was noted before.
    fn cell(&mut self, at: Instant) -> &mut Slot {
        while self.cells.front().is_some_and(|oldest| at.saturating_duration_since(oldest.at) > WINDOW) {
            self.cells.pop_front();
        }
        if self.cells.back().is_none_or(|newest| at.saturating_duration_since(newest.at) >= GRAIN) {
            self.cells.push_back(Slot::new(at));
        }
        let newest = self.cells.len() - 1;
        &mut self.cells[newest]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_slot_of_a_path_with_a_usual_interval_is_told_apart() {
        let (now, mut timeline) = (crate::clock::now(), Timeline::default());
        timeline.used(now, 7);
        timeline.used(now + SECOND, 100);
        timeline.used(now + 2 * SECOND, 30);
        timeline.ended(now + SECOND, Outcome::Throttled);
        timeline.ended(now, Outcome::Success);
        timeline.idle(now + 3 * SECOND, SECOND, 2);
        let expected = [
            Slot { answered: 1, keys: 7, ..Slot::new(now) },
            Slot { refused: 1, keys: 100, ..Slot::new(now + SECOND) },
            Slot { under_way: 1, keys: 30, ..Slot::new(now + 2 * SECOND) },
            Slot { idle: 1, ..Slot::new(now + 3 * SECOND) },
            Slot { idle: 1, ..Slot::new(now + 4 * SECOND) },
        ];
        assert_eq!(timeline.slots(now + 5 * SECOND).collect::<Vec<_>>(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_back_two_minutes_and_no_further_however_long_nobody_looked() {
        let (now, mut timeline) = (crate::clock::now(), Timeline::default());
        timeline.used(now, 1);
        timeline.idle(now + SECOND, SECOND, 1000);
        // The answer to what is forgotten changes nothing.
        timeline.ended(now, Outcome::Success);
        let end = now + 1000 * SECOND;
        let slots: Vec<_> = timeline.slots(end).collect();
        assert_eq!(slots.len(), 121);
        assert!(slots.iter().all(|slot| slot.idle == 1 && slot.answered == 0 && end - slot.at <= WINDOW));
        assert_eq!(timeline.slots(end + 60 * SECOND).count(), 61);
    }

    #[tokio::test(start_paused = true)]
    async fn short_intervals_take_no_more_room_than_others_and_lose_nothing() {
        let (now, mut timeline) = (crate::clock::now(), Timeline::default());
        let gap = Duration::from_millis(5);
        for slot in 0..10_000 {
            timeline.used(now + gap * slot, 2);
            timeline.ended(now + gap * slot, Outcome::Success);
        }
        timeline.idle(now + gap * 10_000, gap, 10_000);
        let slots: Vec<_> = timeline.slots(now + gap * 20_000).collect();
        assert!(slots.len() <= 481 && timeline.cells.len() <= 482, "{} cells", slots.len());
        let sum = |field: fn(&Slot) -> u32| slots.iter().map(field).sum::<u32>();
        assert_eq!((sum(|slot| slot.idle), sum(|slot| slot.answered)), (10_000, 10_000));
        assert_eq!(sum(|slot| slot.keys), 20_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_slots_of_several_credentials_are_taken_together() {
        let now = crate::clock::now();
        let (mut one, mut other) = (Timeline::default(), Timeline::default());
        one.used(now, 3);
        other.used(now + Duration::from_millis(100), 4);
        other.idle(now + SECOND, SECOND, 1);
        let end = now + 2 * SECOND;
        let whole = Timeline::of(other.slots(end).chain(one.slots(end)).collect());
        let slots: Vec<_> = whole.slots(end).collect();
        assert_eq!(slots.len(), 2);
        assert_eq!((slots[0].under_way, slots[0].keys, slots[1].idle), (2, 7, 1));
    }
}
