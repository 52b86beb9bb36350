//! One timer for a deadline that moves with every request and hardly ever comes.
//!
//! The timer is left alone while the deadline only moves away: when it rings too early it is set again. While it is
//! neither set nor ringing, looking at it costs one atomic load.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

/// The timer of one connection.
#[derive(Debug)]
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// When the timer rings, if it is set and has not.
    set: Option<Instant>,
}

impl Alarm {
    /// An alarm that is not set yet; `deadline` is where it will probably be.
    pub(super) fn new(deadline: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(deadline)), set: None }
    }

    /// Ready when `deadline` has passed. To be called by one task only: its waker is registered when the timer is set.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        loop {
            match self.set {
                Some(at) if at <= deadline => {
                    if !self.sleep.is_elapsed() {
                        return Poll::Pending;
                    }
                    // set => rung
                    self.set = None;
                    if at == deadline {
                        return Poll::Ready(());
                    }
                }
                // Not set, rung too early, or set for later than the deadline now is.
                _ => {
                    self.sleep.as_mut().reset(deadline);
                    // rung => set
                    self.set = Some(deadline);
                    // Outside the task's budget, which would make it forget the waker.
                    if Pin::new(&mut unconstrained(self.sleep.as_mut())).poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_a_deadline_that_moved_away_and_not_before() {
        let begin = clock::now();
        let mut alarm = Alarm::new(begin + SECOND);
        let mut deadline = begin + SECOND;
        poll_fn(|cx| {
            let rung = alarm.poll(cx, Some(deadline));
            deadline = begin + 5 * SECOND;
            rung
        })
        .await;
        assert_eq!(begin.elapsed(), 5 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_a_deadline_that_came_closer() {
        let begin = clock::now();
        let mut alarm = Alarm::new(begin + 75 * SECOND);
        let waits = poll_fn(|cx| Poll::Ready(alarm.poll(cx, Some(begin + 75 * SECOND)))).await;
        assert!(waits.is_pending());
        poll_fn(|cx| alarm.poll(cx, Some(begin + SECOND))).await;
        assert_eq!(begin.elapsed(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_went_away_and_came_back_is_kept() {
        let begin = clock::now();
        let mut alarm = Alarm::new(begin + SECOND);
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(cx, Some(begin + SECOND)))).await.is_pending());
        tokio::time::sleep(3 * SECOND).await;
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(cx, None))).await.is_pending());
        poll_fn(|cx| alarm.poll(cx, Some(begin + 9 * SECOND))).await;
        assert_eq!(begin.elapsed(), 9 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_in_the_past_rings_at_once() {
        let begin = clock::now();
        tokio::time::sleep(SECOND).await;
        let mut alarm = Alarm::new(begin);
        poll_fn(|cx| alarm.poll(cx, Some(begin))).await;
        assert_eq!(begin.elapsed(), SECOND);
    }
}
