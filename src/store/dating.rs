//! Moments as they are kept: nanoseconds since the Unix epoch, because a process's own clock ends with it.
//!
//! The wall clock is read once, when the store is opened; from there on the process's own clock counts. So nothing that is
//! done to the wall clock meanwhile makes an answer younger or older than it is. That the wall clock went back between two
//! processes is noticed by a [mark](super::disk), and what a moment that is still to come was kept with is not believed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::Instant;

/// Nanoseconds since the Unix epoch, on the wall clock of whoever wrote them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Moment(pub(super) u64);

impl Moment {
    /// How long ago that was at `now`; nothing if it is still to come.
    pub(super) fn age(self, now: Self) -> Option<Duration> {
        now.0.checked_sub(self.0).map(Duration::from_nanos)
    }
}

/// One moment on both clocks.
#[derive(Clone, Copy)]
pub(super) struct Dating {
    instant: Instant,
    moment: Moment,
}

impl Dating {
    /// It is `instant` by this process's clock when the wall clock says `wall`.
    pub(super) fn new(instant: Instant, wall: SystemTime) -> Self {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant, moment: Moment(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)) }
    }

    /// It is `instant` by this process's clock at a moment of another one.
    pub(super) fn of(instant: Instant, moment: Moment) -> Self {
        Self { instant, moment }
    }

    /// A moment of this process as it is kept.
    pub(super) fn moment(&self, instant: Instant) -> Moment {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Moment(match instant.checked_duration_since(self.instant) {
            Some(after) => self.moment.0.saturating_add(nanos(after)),
            None => self.moment.0.saturating_sub(nanos(self.instant.saturating_duration_since(instant))),
        })
    }

    /// A moment that was kept, by this process's clock; nothing if that does not reach back so far.
    pub(super) fn instant(&self, moment: Moment) -> Option<Instant> {
        match moment.age(self.moment) {
            Some(before) => self.instant.checked_sub(before),
            None => self.instant.checked_add(Duration::from_nanos(moment.0 - self.moment.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moment_comes_back_as_it_was_to_the_nanosecond() {
        let now = crate::clock::now();
        let dating = Dating::new(now, UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        for nanos in [0, 1, 999, 1_000_000_007, 86_400_000_000_001] {
            let age = Duration::from_nanos(nanos);
            for instant in [now + age, now - age] {
                assert_eq!(dating.instant(dating.moment(instant)), Some(instant));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_any_clock_or_still_to_come_does_no_harm() {
        let now = crate::clock::now();
        let dating = Dating::new(now, UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let _reaches_back_or_not = dating.instant(Moment(0));
        let _far_ahead = dating.instant(Moment(u64::MAX));
        assert_eq!(dating.moment(now + Duration::from_secs(1)).age(dating.moment(now)), None);
        assert_eq!(Dating::new(now, UNIX_EPOCH - Duration::from_secs(1)).moment(now), Moment(0));
    }
}
