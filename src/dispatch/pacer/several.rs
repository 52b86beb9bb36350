//! The pace of one among several gateways: what others start counts too.

use super::Pacer;
use crate::clock::Instant;

impl Pacer {
    /// From now on the pace is one of so many that share it.
    pub fn share(&mut self, parts: u32) {
        self.parts = parts.max(1);
    }

    /// Somebody else has started a request, no later than now: the next one keeps the interval from it. The margin is theirs
    /// who know when it started.
    pub fn heard(&mut self, now: Instant) {
        self.last = self.last.max(now.checked_sub(self.margin));
    }

    /// Nobody knows who has started a request until now.
    pub fn silence(&mut self, now: Instant) {
        self.last = self.last.max(Some(now));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_others_start_keeps_this_one_for_an_interval() {
        let now = crate::clock::now();
        let mut pacer = Pacer::new(SECOND, now);
        pacer.heard(now + SECOND);
        assert_eq!(pacer.ready_at(), now + SECOND * 2);
        pacer.heard(now);
        assert_eq!(pacer.ready_at(), now + SECOND * 2, "what is older changes nothing");
        pacer.silence(now + SECOND);
        assert_eq!(pacer.ready_at(), now + SECOND + pacer.gap());
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_three_keeps_three_times_the_gap() {
        let now = crate::clock::now();
        let mut pacer = Pacer::new(SECOND, now);
        let alone = pacer.gap();
        pacer.share(3);
        assert_eq!(pacer.gap(), alone * 3);
        pacer.share(1);
        assert_eq!(pacer.gap(), alone);
    }
}
